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

// A hello is the first message of a connection's dialler. It names the dialler and
// proves, for the price of one hash, that it has that principal's long-term key:
//
//	version 1 | replica 1 | client 8 | nonce 22 | tag 16
//
// The tag is HMAC-SHA-256, cut to 16 bytes, of the acceptor's challenge and what stands
// before the tag. Its key is derived from the Diffie-Hellman secret of the two long-term
// keys, so it is there at the first connection of a life as it is at the last, and no
// earlier session need be remembered. A hello admits, and vouches for nothing else.
//
// The secret lives as long as the long-term keys, and so stays with the Signer. An
// acceptor has a HelloKey for each dialler. It is good for one direction and for the
// acceptor's present life, which its challenges name. A dialler has no key: its Signer
// makes one tag for one challenge. An intruder in either process therefore keeps nothing
// of use once that process has been started anew.
const (
	HelloSize = helloTagAt + helloTagSize

	helloNonceAt = 1 + 1 + 8
	helloTagAt   = 32
	helloTagSize = 16
)

// A Life names one life of a process that accepts connections. It is random, and part of
// each of the process's challenges.
type Life [LifeSize]byte

// Sizes of a challenge: it begins with 4 bytes that name the protocol, and a Life.
const (
	ChallengeSize = 32
	LifeSize      = 12
	lifeAt        = 4
)

// A HelloKey checks the hellos of one principal in one life of another.
type HelloKey [sha256.Size]byte

// A HelloTag is the end of a hello.
type HelloTag [helloTagSize]byte

// A HelloHead is a hello without its tag.
type HelloHead [helloTagAt]byte

// HelloKey is the key that checks the hellos which the owner of a long-term key makes for us in our
// present life. It costs as much as checking a signature. The group file is not part of it: peers
// with different files learn so from each other's NEW-KEYs.
func (r *Ring) HelloKey(peer ed25519.PublicKey) (HelloKey, error) {
	return r.signer.HelloKey(peer, r.life)
}

// Life names this process's life, in its challenges.
func (r *Ring) Life() Life { return r.life }

// helloKey computes the key of the hellos between two principals, of which own is one, in
// one direction.
func helloKey(own ed25519.PrivateKey, dialler, acceptor ed25519.PublicKey, life Life) (k HelloKey, err error) {
	peer := dialler
	if peer.Equal(own.Public()) {
		peer = acceptor
	}
	secret, err := shared(own, peer)
	if err != nil {
		return k, err
	}
	h := hmac.New(sha256.New, secret)
	h.Write([]byte("bfs hello key v2\x00"))
	h.Write(dialler)
	h.Write(acceptor)
	h.Write(life[:])
	h.Sum(k[:0])
	return k, nil
}

// KeyOfHello computes HelloKey for a Signer that has the private key at hand.
func KeyOfHello(own ed25519.PrivateKey, peer ed25519.PublicKey, life Life) (HelloKey, error) {
	return helloKey(own, peer, own.Public().(ed25519.PublicKey), life)
}

// TagOfHello computes HelloTag for a Signer that has the private key at hand.
func TagOfHello(own ed25519.PrivateKey, peer ed25519.PublicKey, challenge *[ChallengeSize]byte,
	head *HelloHead) (HelloTag, error) {
	k, err := helloKey(own, own.Public().(ed25519.PublicKey), peer, Life(challenge[lifeAt:lifeAt+LifeSize]))
	if err != nil {
		return HelloTag{}, err
	}
	return k.tag(challenge[:], head[:]), nil
}

func (k *HelloKey) tag(challenge, head []byte) (t HelloTag) {
	h := hmac.New(sha256.New, k[:])
	h.Write(challenge)
	h.Write(head)
	copy(t[:], h.Sum(nil))
	return t
}

// Hello makes the hello with which a connection to the session's peer begins, in answer to its
// challenge.
func (r *Ring) Hello(s *Session, challenge *[ChallengeSize]byte, hello *[HelloSize]byte) error {
	hello[0], hello[1] = message.VersionMajor, byte(r.self.Replica)
	binary.LittleEndian.PutUint64(hello[2:], uint64(r.self.Client))
	// Without the nonce an acceptor that repeats a challenge would get the same binding, and
	// old NEW-KEYs would be fresh again.
	rand.Read(hello[helloNonceAt:helloTagAt])
	tag, err := r.signer.HelloTag(s.key, challenge, (*HelloHead)(hello[:helloTagAt]))
	if err != nil {
		return fmt.Errorf("make the tag of a hello: %w", err)
	}
	copy(hello[helloTagAt:], tag[:])
	return nil
}

// HelloFrom is the principal that a hello names; not ok if it is malformed or of another version.
func HelloFrom(hello *[HelloSize]byte) (p message.Principal, ok bool) {
	p = message.Principal{Replica: message.ReplicaID(hello[1]),
		Client: message.ClientID(binary.LittleEndian.Uint64(hello[2:]))}
	return p, hello[0] == message.VersionMajor && (p.IsReplica() || p.Replica == 0)
}

// Made reports whether an owner of the key made this hello in answer to this challenge.
func (k *HelloKey) Made(challenge []byte, hello *[HelloSize]byte) bool {
	tag := k.tag(challenge, hello[:helloTagAt])
	return hmac.Equal(tag[:], hello[helloTagAt:])
}

// errPublicKey is the refusal to make a HelloKey with bytes that are no public key.
var errPublicKey = errors.New("not a public key on the curve")

// shared is the Diffie-Hellman secret of two Ed25519 keys, computed on the Montgomery
// form of their curve. The private scalar and the map between the two forms are those of
// RFC 8032 §5.1.5 and RFC 7748 §4.1.
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
