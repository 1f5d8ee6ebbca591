// SPDX-License-Identifier: Apache-2.0

// Package keys reads and writes the key files of the commands.
//
// A private key is a PEM block of its Ed25519 seed in a file that only its owner may
// read, see package trust:
//
//	-----BEGIN BFS PRIVATE KEY-----
//	Public: bfs-key:3q2+7w...
//
//	base64 of 32 bytes
//	-----END BFS PRIVATE KEY-----
//
// A sealed one (see Seal) is a block "BFS SEALED PRIVATE KEY" with the parameters of its
// passphrase in headers. A public key is one word, "bfs-key:" and base64, that fits a
// command line.
package keys

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"bfs/cmd/internal/trust"
)

const (
	publicPrefix = "bfs-key:"
	privateBlock = "BFS PRIVATE KEY"
	sealedBlock  = "BFS SEALED PRIVATE KEY"
	publicHeader = "Public"
	maxKeyFile   = 16 << 10
)

// A Public is a public key as text.
type Public ed25519.PublicKey

// String returns the public key in the form that commands take.
func (p Public) String() string { return publicPrefix + base64.StdEncoding.EncodeToString(p) }

// ParsePublic reads the word, with or without its prefix.
func ParsePublic(s string) (ed25519.PublicKey, error) {
	b, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(strings.TrimSpace(s), publicPrefix))
	if err != nil {
		return nil, fmt.Errorf("got %q, want %s and the base64 of a public key", s, publicPrefix)
	}
	if len(b) != ed25519.PublicKeySize {
		return nil, fmt.Errorf("got a key of %d bytes, want %d", len(b), ed25519.PublicKeySize)
	}
	return ed25519.PublicKey(b), nil
}

// Generate makes a key pair.
func Generate() (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(nil)
	return key, err
}

// Of returns the public half.
func Of(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// WritePrivate writes key to a new file with mode 0600. It never overwrites.
func WritePrivate(file string, key ed25519.PrivateKey) error {
	return writeBlock(file, &pem.Block{
		Type:    privateBlock,
		Headers: map[string]string{publicHeader: Public(Of(key)).String()},
		Bytes:   key.Seed(),
	})
}

func writeBlock(file string, b *pem.Block) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("%s: exists already, and a key is never overwritten", file)
	}
	if err != nil {
		return err
	}
	if err := errors.Join(pem.Encode(f, b), f.Sync(), f.Close()); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// syncDir puts the names in a directory on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// ReadPrivate reads a private key that is not sealed.
func ReadPrivate(file string) (ed25519.PrivateKey, error) { return ReadSealed(file, nil) }

// ReadSealed reads a private key, with passphrase if it is sealed.
func ReadSealed(file string, passphrase []byte) (ed25519.PrivateKey, error) {
	b, err := readBlock(file)
	if err != nil {
		return nil, err
	}
	seed := b.Bytes
	if b.Type == sealedBlock {
		if passphrase == nil {
			return nil, fmt.Errorf("%s: is sealed with a passphrase: give --passphrase-file", file)
		}
		if seed, err = open(b, passphrase); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	}
	if len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("%s: got a key of %d bytes, want %d", file, len(seed), ed25519.SeedSize)
	}
	key := ed25519.NewKeyFromSeed(seed)
	if said := b.Headers[publicHeader]; said != "" && said != Public(Of(key)).String() {
		return nil, fmt.Errorf("%s: the private key does not belong to the public key in its header", file)
	}
	return key, nil
}

// ReadPublic returns the public half of a private key file, sealed or not, or the public
// key that is alone in a file.
func ReadPublic(file string) (ed25519.PublicKey, error) {
	text, err := readBounded(file)
	if err != nil {
		return nil, err
	}
	word := string(text)
	if b, _ := pem.Decode(text); b != nil {
		word = b.Headers[publicHeader]
	}
	key, err := ParsePublic(word)
	if err != nil {
		return nil, fmt.Errorf("%s: holds no BFS key", file)
	}
	return key, nil
}

// ReadPassphrase reads a passphrase, the first line of a private file.
func ReadPassphrase(file string) ([]byte, error) {
	text, err := readPrivateFile(file)
	if err != nil {
		return nil, err
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) == 0 {
		return nil, fmt.Errorf("%s: the first line is empty, want a passphrase", file)
	}
	return line, nil
}

func readBlock(file string) (*pem.Block, error) {
	text, err := readPrivateFile(file)
	if err != nil {
		return nil, err
	}
	b, _ := pem.Decode(text)
	if b == nil || b.Type != privateBlock && b.Type != sealedBlock {
		return nil, fmt.Errorf("%s: holds no BFS private key (want a block %q)", file, privateBlock)
	}
	return b, nil
}

// readPrivateFile reads a file, and refuses one that other users could read, write or replace.
func readPrivateFile(file string) ([]byte, error) {
	f, err := trust.OpenSecret(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, file)
}

func readBounded(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f, file)
}

func readAll(r io.Reader, file string) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(r, maxKeyFile+1))
	if err == nil && len(text) > maxKeyFile {
		err = fmt.Errorf("%s: longer than %d bytes: this is no key file", file, maxKeyFile)
	}
	return text, err
}
