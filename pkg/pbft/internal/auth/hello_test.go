// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"bytes"
	"crypto/ecdh"
	"crypto/ed25519"
	"crypto/sha512"
	"errors"
	"os"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// The Montgomery form of an Ed25519 public key is the X25519 public key of the same scalar.
func TestMontgomery(t *testing.T) {
	for range 50 {
		public, private, _ := ed25519.GenerateKey(nil)
		digest := sha512.Sum512(private.Seed())
		scalar, err := ecdh.X25519().NewPrivateKey(digest[:32])
		if err != nil {
			t.Fatal(err)
		}
		if u, err := montgomery(public); err != nil || !bytes.Equal(u, scalar.PublicKey().Bytes()) {
			t.Fatalf("got %x, %v, want %x", u, err, scalar.PublicKey().Bytes())
		}
	}
}

// Bytes that are no public key, or a key with which every secret is the same, make no key
// and no panic.
func TestNoHelloKey(t *testing.T) {
	_, private, _ := ed25519.GenerateKey(nil)
	ring, err := NewRing(message.Principal{Client: 9}, group, NewMemorySigner(private), message.Digest{})
	if err != nil {
		t.Fatal(err)
	}
	one := make([]byte, 32)
	one[0] = 1 // y = 1, the neutral element
	for name, key := range map[string][]byte{"short": make([]byte, 31), "none": nil, "neutral": one,
		"of order 4": make([]byte, 32), "of order 2": append(append([]byte{0xec}, bytes.Repeat([]byte{0xff}, 30)...),
			0x7f)} {
		if _, err := ring.HelloKey(key); err == nil {
			t.Errorf("%s: makes a key", name)
		}
	}
}

// A hello convinces the acceptor that it was made for, of its maker, in answer to one challenge.
func TestHello(t *testing.T) {
	a, b := newPair(t)
	challenge := b.challenge(7)
	var hello [HelloSize]byte
	if err := a.ring.Hello(a.session, challenge, &hello); err != nil {
		t.Fatal(err)
	}
	key, err := b.ring.HelloKey(b.peerKey)
	if err != nil {
		t.Fatal(err)
	}
	if from, ok := HelloFrom(&hello); !ok || from != a.self || !key.Made(challenge[:], &hello) {
		t.Fatalf("from %v, %v: not believed", from, ok)
	}
	if key.Made(b.challenge(8)[:], &hello) {
		t.Error("it answers another challenge")
	}
	for i := range hello {
		changed := hello
		if changed[i] ^= 1; key.Made(challenge[:], &changed) {
			t.Errorf("byte %d may be changed", i)
		}
	}
	other, err := b.ring.HelloKey(b.private.Public().(ed25519.PublicKey))
	if err != nil || other.Made(challenge[:], &hello) {
		t.Errorf("another's key believes it: %v", err)
	}
	var again [HelloSize]byte
	if err := a.ring.Hello(a.session, challenge, &again); err != nil || again == hello {
		t.Errorf("the same hello for the same challenge: %v", err)
	}
}

// challenge is one of p's present life.
func (p *party) challenge(n byte) *[ChallengeSize]byte {
	c := [ChallengeSize]byte{lifeAt + LifeSize: n}
	life := p.ring.Life()
	copy(c[lifeAt:], life[:])
	return &c
}

// An intruder in one process of a pair takes away nothing that is of use against later lives: an
// acceptor's key makes no hello for the acceptor's next life, none as the acceptor, and none for
// another acceptor.
func TestHelloKeyDiesWithItsLife(t *testing.T) {
	a, b := newPair(t)
	stolen, err := b.ring.HelloKey(b.peerKey)
	if err != nil {
		t.Fatal(err)
	}
	forge := func(challenge *[ChallengeSize]byte, from message.Principal) *[HelloSize]byte {
		hello := [HelloSize]byte{message.VersionMajor, byte(from.Replica)}
		tag := stolen.tag(challenge[:], hello[:helloTagAt])
		copy(hello[helloTagAt:], tag[:])
		return &hello
	}
	if c := b.challenge(1); !stolen.Made(c[:], forge(c, a.self)) {
		t.Fatal("the forgery does not work where it should")
	}
	b.start(a.self)
	fresh, err := b.ring.HelloKey(b.peerKey)
	if c := b.challenge(1); err != nil || fresh.Made(c[:], forge(c, a.self)) {
		t.Errorf("an acceptor's key of an earlier life makes hellos for the next one: %v", err)
	}
	atA, err := a.ring.HelloKey(a.peerKey)
	if c := a.challenge(1); err != nil || atA.Made(c[:], forge(c, b.self)) {
		t.Errorf("an acceptor's key makes hellos as the acceptor: %v", err)
	}
}

// A replica whose directory is an old copy is not heard: its counter went back, and its
// fence may have too.
func TestCounterThatWentBack(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	old, err := os.ReadFile(a.path)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // a life that goes on from the file is heard
		a.start(b.self)
		a.hello()
		settle(t, a, b)
		mustSpeak(t, a, b, "after a restart")
	}
	if err := os.WriteFile(a.path, old, 0o600); err != nil {
		t.Fatal(err)
	}
	a.start(b.self)
	m, err := a.ring.NewKey(a.session, message.Digest{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.ring.Accept(b.session, m, Channel{Number: 9}); !errors.Is(err, ErrWentBack) {
		t.Errorf("with yesterday's counter: got %v, want %v", err, ErrWentBack)
	}
}

// A NEW-KEY is fresh on the connection for which it was made, whatever counters came
// before in this life. On a later connection, a NEW-KEY that counts from 1 again is
// accepted, and one that was made for an earlier connection is refused.
func TestFreshByConnection(t *testing.T) {
	a, b := newPair(t)
	at := func(n uint64) Channel { return Channel{ID: message.Digest{byte(n)}, Number: n} }
	make := func(n uint64, counter uint64) *message.NewKey {
		m, err := a.ring.NewKey(a.session, at(n).ID, "")
		if err != nil {
			t.Fatal(err)
		}
		m.Counter = counter
		copy(m.Signature[:], ed25519.Sign(a.private, m.AppendCovered(nil)))
		return m
	}
	for _, step := range []struct {
		made, on, counter uint64
		want              error
	}{
		{1, 1, 1 << 62, nil}, {1, 1, 1 << 62, ErrReplayed}, {1, 2, 1<<62 + 1, ErrReplayed},
		{2, 2, 1, nil}, {1, 1, 1<<62 + 1, ErrOlder}, {2, 2, 1, ErrReplayed}, {2, 2, 2, nil},
	} {
		_, _, err := b.ring.Accept(b.session, make(step.made, step.counter), at(step.on))
		if !errors.Is(err, step.want) {
			t.Errorf("%+v: got %v", step, err)
		}
	}
}
