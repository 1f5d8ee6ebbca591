// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A hello is the first that a connection's dialler says. It names the dialler and proves, for the price of one hash, that it has
// that principal's long-term key:
//
//	version 1 | replica 1 | client 8 | nonce 22 | tag 16
//
// The tag is HMAC-SHA-256, cut to 16 bytes, of the acceptor's challenge and what stands before the tag. Its key is the
// Diffie-Hellman secret of the two long-term keys, which each side computes once: so it is there at the first connection of a
// life as it is at the last, and no earlier session need be remembered. A hello admits, and vouches for nothing else.
const (
	HelloSize = helloTagAt + helloTagSize

	helloNonceAt = 1 + 1 + 8
	helloTagAt   = 32
	helloTagSize = 16
)

// A HelloKey authenticates the hellos between two principals.
type HelloKey [sha256.Size]byte

// HelloKey computes the one that we share with the owner of a long-term key. It costs as much as checking a signature. The group
// file is not in it: those whose files differ learn so from each other's NEW-KEYs, by name.
func (r *Ring) HelloKey(peer ed25519.PublicKey) (k HelloKey, err error) {
	shared, err := r.signer.Shared(peer)
	if err != nil {
		return k, err
	}
	own := r.signer.PublicKey()
	keys := [][]byte{own, peer}
	slices.SortFunc(keys, slices.Compare[[]byte])
	h := hmac.New(sha256.New, shared)
	h.Write([]byte("bfs hello key v1\x00"))
	h.Write(keys[0])
	h.Write(keys[1])
	h.Sum(k[:0])
	return k, nil
}

func (k *HelloKey) tag(challenge, head []byte) []byte {
	h := hmac.New(sha256.New, k[:])
	h.Write(challenge)
	h.Write(head)
	return h.Sum(nil)[:helloTagSize]
}

// Hello makes what a connection to the session's peer begins with, in answer to its challenge.
func (r *Ring) Hello(s *Session, challenge []byte, hello *[HelloSize]byte) error {
	k, err := r.helloKey(s)
	if err != nil {
		return fmt.Errorf("make the key for hellos: %w", err)
	}
	hello[0], hello[1] = message.VersionMajor, byte(r.self.Replica)
	binary.LittleEndian.PutUint64(hello[2:], uint64(r.self.Client))
	rand.Read(hello[helloNonceAt:helloTagAt]) // or an acceptor who repeats a challenge gets the same binding, and old NEW-KEYs are fresh
	copy(hello[helloTagAt:], k.tag(challenge, hello[:helloTagAt]))
	return nil
}

// helloKey is the session's, computed when it is needed first.
func (r *Ring) helloKey(s *Session) (*HelloKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.hello == nil {
		k, err := r.HelloKey(s.key)
		if err != nil {
			return nil, err
		}
		s.hello = &k
	}
	return s.hello, nil
}

// HelloFrom is the principal that a hello names; not ok if it is malformed or of another version.
func HelloFrom(hello *[HelloSize]byte) (p message.Principal, ok bool) {
	p = message.Principal{Replica: message.ReplicaID(hello[1]), Client: message.ClientID(binary.LittleEndian.Uint64(hello[2:]))}
	return p, hello[0] == message.VersionMajor && (p.IsReplica() || p.Replica == 0)
}

// Made reports whether an owner of the key made this hello in answer to this challenge.
func (k *HelloKey) Made(challenge []byte, hello *[HelloSize]byte) bool {
	return hmac.Equal(k.tag(challenge, hello[:helloTagAt]), hello[helloTagAt:])
}

var errPublicKey = errors.New("not a public key on the curve")

// shared is the Diffie-Hellman secret of two Ed25519 keys, computed on the Montgomery form of their curve. The private scalar and
// the map between the two forms are those of RFC 8032 §5.1.5 and RFC 7748 §4.1.
func shared(private ed25519.PrivateKey, peer ed25519.PublicKey) ([]byte, error) {
	digest := sha512.Sum512(private.Seed())
	own, err := ecdh.X25519().NewPrivateKey(digest[:32])
	if err != nil {
		return nil, err
	}
	u, err := montgomery(peer)
	if err != nil {
		return nil, err
	}
	theirs, err := ecdh.X25519().NewPublicKey(u)
	if err != nil {
		return nil, err
	}
	return own.ECDH(theirs)
}

// fieldPrime is 2^255-19.
var fieldPrime = new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 255), big.NewInt(19))

// montgomery is u = (1+y)/(1-y), little-endian, of the point that an Ed25519 public key encodes.
func montgomery(key ed25519.PublicKey) ([]byte, error) {
	if len(key) != ed25519.PublicKeySize {
		return nil, errPublicKey
	}
	b := slices.Clone([]byte(key))
	b[31] &= 0x7f // the sign of x does not matter
	slices.Reverse(b)
	y, one := new(big.Int).SetBytes(b), big.NewInt(1)
	below := new(big.Int).Sub(one, y)
	if below.ModInverse(below.Mod(below, fieldPrime), fieldPrime) == nil {
		return nil, errPublicKey
	}
	u := new(big.Int).Mul(new(big.Int).Add(one, y), below)
	u.Mod(u, fieldPrime).FillBytes(b)
	slices.Reverse(b)
	return b, nil
}
