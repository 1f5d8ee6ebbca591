// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
)

// A sealed key is ChaCha20-Poly1305 of the seed, under a key that scrypt makes of the
// passphrase. The salt is new for each sealing, so the key is used once and the nonce may
// be zero. The header with the public half is authenticated along.
const (
	kdfHeader  = "Kdf"  // "scrypt"
	saltHeader = "Salt" // base64 of 16 bytes
	costHeader = "Cost" // log2 of scrypt's N

	// sealCost makes one guess take about half a second and 128 MiB. An administrator waits
	// that long a few times a day; a thief of the file waits that long for each guess.
	sealCost = 17
	// maxCost bounds the memory that a file can make this process spend: 1 GiB.
	maxCost = 20

	saltSize  = 16
	scryptR   = 8
	minPhrase = 8
)

// Seal writes key to a new file with mode 0600, encrypted under a passphrase.
func Seal(file string, key ed25519.PrivateKey, passphrase []byte) error {
	return sealAt(file, key, passphrase, sealCost)
}

func sealAt(file string, key ed25519.PrivateKey, passphrase []byte, cost int) error {
	if len(passphrase) < minPhrase {
		return fmt.Errorf("passphrase: got %d bytes, want at least %d", len(passphrase), minPhrase)
	}
	salt := make([]byte, saltSize)
	rand.Read(salt)
	public := Public(Of(key)).String()
	aead, err := sealer(passphrase, salt, cost)
	if err != nil {
		return err
	}
	return writeBlock(file, &pem.Block{
		Type: sealedBlock,
		Headers: map[string]string{
			publicHeader: public,
			kdfHeader:    "scrypt",
			saltHeader:   base64.StdEncoding.EncodeToString(salt),
			costHeader:   strconv.Itoa(cost),
		},
		Bytes: aead.Seal(nil, make([]byte, chacha20poly1305.NonceSize), key.Seed(), []byte(public)),
	})
}

func open(b *pem.Block, passphrase []byte) ([]byte, error) {
	if kdf := b.Headers[kdfHeader]; kdf != "scrypt" {
		return nil, fmt.Errorf("got key derivation %q, want scrypt", kdf)
	}
	salt, err := base64.StdEncoding.DecodeString(b.Headers[saltHeader])
	if err != nil || len(salt) != saltSize {
		return nil, fmt.Errorf("bad salt: want base64 of %d bytes", saltSize)
	}
	cost, err := strconv.Atoi(b.Headers[costHeader])
	if err != nil || cost < 1 || cost > maxCost {
		return nil, fmt.Errorf("got cost %q, want 1 to %d", b.Headers[costHeader], maxCost)
	}
	aead, err := sealer(passphrase, salt, cost)
	if err != nil {
		return nil, err
	}
	seed, err := aead.Open(nil, make([]byte, chacha20poly1305.NonceSize), b.Bytes, []byte(b.Headers[publicHeader]))
	if err != nil {
		return nil, errors.New("wrong passphrase, or the file was changed")
	}
	return seed, nil
}

func sealer(passphrase, salt []byte, cost int) (cipher.AEAD, error) {
	key, err := scrypt.Key(passphrase, salt, 1<<cost, scryptR, 1, chacha20poly1305.KeySize)
	if err != nil {
		return nil, err
	}
	return chacha20poly1305.New(key)
}
