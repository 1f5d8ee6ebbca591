// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

var group = message.Digest{42}

// A party is one replica of two, in its present life.
type party struct {
	t       testing.TB
	self    message.Principal
	private ed25519.PrivateKey
	peerKey ed25519.PublicKey
	path    string // of its counter
	ring    *Ring
	session *Session
	sent    []*message.NewKey // on their way to the peer
	past    []*message.NewKey // all it ever sent
	wire    message.Digest
}

func newPair(t testing.TB) (a, b *party) {
	t.Helper()
	pa, ka, _ := ed25519.GenerateKey(nil)
	pb, kb, _ := ed25519.GenerateKey(nil)
	a = &party{t: t, self: message.Principal{Replica: 1}, private: ka, peerKey: pb, path: t.TempDir() + "/counter"}
	b = &party{t: t, self: message.Principal{Replica: 2}, private: kb, peerKey: pa, path: t.TempDir() + "/counter"}
	a.start(b.self)
	b.start(a.self)
	return a, b
}

// start begins a life: all is forgotten but the long-term key and the counter's file.
func (p *party) start(peer message.Principal) {
	p.t.Helper()
	signer, err := NewFileSigner(p.private, p.path)
	if err != nil {
		p.t.Fatal(err)
	}
	if p.ring, err = NewRing(p.self, group, signer, p.wire); err != nil {
		p.t.Fatal(err)
	}
	p.session = NewSession(peer, p.peerKey)
}

// hello sends a NEW-KEY, as a connection that opens does.
func (p *party) hello() {
	p.t.Helper()
	m, err := p.ring.NewKey(p.session, message.Digest{}, "")
	if err != nil {
		p.t.Fatal(err)
	}
	p.sent = append(p.sent, m)
	p.past = append(p.past, m)
}

// hear takes in a NEW-KEY and answers it if an answer is due.
func (p *party) hear(m *message.NewKey) error {
	answer, _, err := p.ring.Accept(p.session, m, Channel{})
	if answer {
		p.hello()
	}
	return err
}

// settle delivers all NEW-KEYs in order until neither party sends another, and returns
// how many there were.
func settle(t testing.TB, a, b *party) (n int) {
	t.Helper()
	for len(a.sent)+len(b.sent) > 0 {
		for _, x := range [][2]*party{{a, b}, {b, a}} {
			if from, to := x[0], x[1]; len(from.sent) > 0 {
				m := from.sent[0]
				from.sent = from.sent[1:]
				_ = to.hear(m)
			}
		}
		if n++; n > 20 {
			t.Fatal("the two never stop exchanging keys")
		}
	}
	return n
}

// speak has from seal a message and to open it.
func speak(from, to *party) bool {
	var x Scratch
	m := &message.Commit{View: 1, Seq: 2}
	sealed := from.ring.Seal(from.session, &x, nil, m)
	body, trailer, ok := Split(sealed)
	return ok && to.session.Open(&x, m, body, trailer)
}

func mustSpeak(t testing.TB, a, b *party, when string) {
	t.Helper()
	if !speak(a, b) || !speak(b, a) {
		t.Fatalf("%s: 1 to 2 %v, 2 to 1 %v", when, speak(a, b), speak(b, a))
	}
}

func TestKeysInEveryOrderOfStarting(t *testing.T) {
	for _, order := range []string{"ab", "ba", "a", "b"} {
		t.Run(order, func(t *testing.T) {
			a, b := newPair(t)
			for _, who := range order { // one who speaks alone is answered
				map[rune]*party{'a': a, 'b': b}[who].hello()
			}
			settle(t, a, b)
			mustSpeak(t, a, b, order)
		})
	}
}

func TestKeysAfterEveryRestart(t *testing.T) {
	for _, who := range []string{"a", "b", "ab", "aa", "aba"} {
		for _, speaks := range []string{"a", "b", "ab", "ba"} {
			t.Run(who+" restarts, "+speaks+" connects", func(t *testing.T) {
				a, b := newPair(t)
				parties := map[rune]*party{'a': a, 'b': b}
				a.hello()
				settle(t, a, b)
				for _, x := range who {
					parties[x].start(parties[x].session.Peer)
				}
				for _, x := range speaks {
					parties[x].hello()
				}
				settle(t, a, b)
				mustSpeak(t, a, b, "after the restart")
			})
		}
	}
}

// An answer that falls between two chairs, because the connection for it was just coming
// up: the NEW-KEY that opens it was made before the peer's was heard, and has no key in
// it. The peer then could not speak, for ever.
func TestAnswerLostWhileTheLinkComesUp(t *testing.T) {
	a, b := newPair(t)
	b.hello() // b's link is coming up: made, not sent yet
	a.hello()
	m := a.sent[0]
	a.sent = nil
	if answer, _, err := b.ring.Accept(b.session, m, Channel{}); !answer || err != nil {
		t.Fatal(answer, err) // and there is no connection to answer on
	}
	settle(t, a, b)
	mustSpeak(t, a, b, "after the lost answer")
}

// Whatever was lost, reordered, replayed and restarted: once both connect again and nothing
// is lost, both can speak. And no key is used by two lives, or its nonces would repeat.
func TestKeysConverge(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		a, b := newPair(t)
		users := map[[keySize]byte]*Ring{}
		note := func() {
			for _, p := range []*party{a, b} {
				if k := p.session.out.Load(); k != nil {
					if user := users[k.raw]; user != nil && user != p.ring {
						t.Fatalf("seed %d: two lives seal under one key", seed)
					}
					users[k.raw] = p.ring
				}
			}
		}
		for range 40 {
			p, q := a, b
			if r.IntN(2) == 0 {
				p, q = b, a
			}
			switch n := len(p.sent); r.IntN(8) {
			case 0:
				p.start(q.self)
			case 1, 2:
				p.hello()
			case 3:
				if len(p.past) > 0 { // replayed
					_ = q.hear(p.past[r.IntN(len(p.past))])
				}
			case 4:
				if n > 0 { // lost
					p.sent = p.sent[1:]
				}
			default:
				if n > 0 {
					i := r.IntN(n) // perhaps out of order
					m := p.sent[i]
					p.sent = append(p.sent[:i:i], p.sent[i+1:]...)
					_ = q.hear(m)
				}
			}
			note()
			speak(a, b)
			speak(b, a)
		}
		a.sent, b.sent = nil, nil
		a.hello()
		b.hello()
		settle(t, a, b)
		note()
		mustSpeak(t, a, b, fmt.Sprintf("seed %d", seed))
	}
}

func TestNewKeyRefused(t *testing.T) {
	otherKey, otherPrivate, _ := ed25519.GenerateKey(nil)
	for _, c := range []struct {
		name   string
		want   error
		change func(m *message.NewKey)
	}{
		{"another major version", ErrVersion, func(m *message.NewKey) { m.Major++ }},
		{"another group", ErrGroup, func(m *message.NewKey) { m.Group[0]++ }},
		{"for somebody else", ErrIdentity, func(m *message.NewKey) { m.To.Replica = 3 }},
		{"from somebody else", ErrIdentity, func(m *message.NewKey) { m.From.Replica = 3 }},
		{"under another key", ErrIdentity, func(m *message.NewKey) { copy(m.SenderKey[:], otherKey) }},
		{"signed by another key", ErrSignature, func(m *message.NewKey) {
			copy(m.Signature[:], ed25519.Sign(otherPrivate, m.AppendCovered(nil)))
		}},
		{"another counter", ErrSignature, func(m *message.NewKey) { m.Counter++ }},
		{"another TLS key", ErrSignature, func(m *message.NewKey) { m.TransportKey[0]++ }},
		{"another sealed key", ErrSignature, func(m *message.NewKey) { m.Sealed[0]++ }},
		{"an old counter", ErrReplayed, func(m *message.NewKey) { m.Counter = 0 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, b := newPair(t)
			a.hello()
			settle(t, a, b)
			a.hello()
			m := a.sent[0]
			c.change(m)
			before := b.session.out.Load()
			_, changed, err := b.ring.Accept(b.session, m, Channel{})
			if !errors.Is(err, c.want) || changed || b.session.out.Load() != before {
				t.Fatalf("got %v, want %v; changed %v", err, c.want, changed)
			}
			a.sent = nil
			mustSpeak(t, a, b, "after the refusal")
		})
	}
}

// A peer may sign a sealed key that does not open, or an X25519 key with which nothing
// can be sealed. Both are refused without harm to what was agreed before.
func TestNewKeyOfAFaultyPeer(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	sign := func(m *message.NewKey) *message.NewKey {
		m.Counter += 1000
		copy(m.Signature[:], ed25519.Sign(a.private, m.AppendCovered(nil)))
		return m
	}
	m, _ := a.ring.NewKey(a.session, message.Digest{}, "")
	m.Sealed[40]++
	if _, _, err := b.ring.Accept(b.session, sign(m), Channel{}); !errors.Is(err, ErrSealed) {
		t.Fatalf("a sealed key that does not open: %v", err)
	}
	m, _ = a.ring.NewKey(a.session, message.Digest{}, "")
	m.SealTo = [32]byte{1} // a point of low order
	if _, _, err := b.ring.Accept(b.session, sign(m), Channel{}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.ring.NewKey(b.session, message.Digest{}, ""); !errors.Is(err, ErrSealed) {
		t.Fatalf("a key sealed to a point of low order: %v", err)
	}
}

func TestReflectionIsRefused(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	if err := a.hear(a.sent[0]); !errors.Is(err, ErrIdentity) {
		t.Fatalf("our own NEW-KEY: %v", err)
	}
	settle(t, a, b)
	var x Scratch
	m := &message.Prepare{Seq: 1}
	body, trailer, _ := Split(a.ring.Seal(a.session, &x, nil, m))
	if a.session.Open(&x, m, body, trailer) {
		t.Fatal("what we sealed for the peer opens as from the peer")
	}
}

func TestOpenRefuses(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	var x Scratch
	m := &message.Prepare{View: 1, Seq: 2, Digest: message.Digest{3}}
	seal := func() []byte {
		_, trailer, _ := Split(a.ring.Seal(a.session, &x, nil, m))
		return append([]byte(nil), trailer...)
	}
	opens := func(m message.Message, trailer []byte) bool {
		return b.session.Open(&x, m, m.AppendBody([]byte{byte(m.Type())}), trailer)
	}
	first, second := seal(), seal()
	if !opens(m, second) {
		t.Fatal("an honest message does not open")
	}
	if opens(m, second) {
		t.Error("a replay opens")
	}
	if opens(m, first) {
		t.Error("a message overtaken by a later one opens")
	}
	for i := range TrailerSize {
		changed := seal()
		changed[i] ^= 1
		if opens(m, changed) {
			t.Errorf("byte %d of the trailer can be changed", i)
		}
	}
	other := &message.Prepare{View: 1, Seq: 3, Digest: message.Digest{3}}
	if opens(other, seal()) {
		t.Error("the MAC of one message opens another")
	}
	if opens(&message.ViewChangeAck{View: 1}, seal()) {
		t.Error("the MAC of one type opens another")
	}
	if !opens(m, seal()) {
		t.Error("after all that an honest message does not open")
	}
}

// A message of the peer's last life, under the key of that life, must not bar the nonces
// of the next.
func TestNonceBelongsToItsKey(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	a.ring.nonce.Store(1 << 40)
	if !speak(a, b) {
		t.Fatal("no keys")
	}
	a.start(b.self)
	a.hello()
	settle(t, a, b)
	mustSpeak(t, a, b, "after a life with large nonces")
}

func TestSplitShortFrames(t *testing.T) {
	for n := range TrailerSize + 1 {
		if _, _, ok := Split(make([]byte, n)); ok {
			t.Errorf("a frame of %d bytes has a body", n)
		}
	}
	if body, trailer, ok := Split(make([]byte, TrailerSize+1)); !ok || len(body) != 1 || len(trailer) != TrailerSize {
		t.Error("a frame of one byte and a trailer does not split")
	}
}

func TestAuthenticator(t *testing.T) {
	_, key, _ := ed25519.GenerateKey(nil)
	client, err := NewRing(message.Principal{Client: 9}, group, NewMemorySigner(key), message.Digest{})
	if err != nil {
		t.Fatal(err)
	}
	a, b := newPair(t)
	public := key.Public().(ed25519.PublicKey)
	at := func(p *party) (*Session, *Session) {
		here := NewSession(p.self, p.private.Public().(ed25519.PublicKey))
		there := NewSession(message.Principal{Client: 9}, public)
		m, _ := client.NewKey(here, message.Digest{}, "")
		if _, _, err := p.ring.Accept(there, m, Channel{}); err != nil {
			t.Fatal(err)
		}
		answer, _ := p.ring.NewKey(there, message.Digest{}, "")
		if _, changed, err := client.Accept(here, answer, Channel{}); err != nil || !changed {
			t.Fatal(changed, err)
		}
		return here, there
	}
	hereA, thereA := at(a)
	hereB, thereB := at(b)
	unknown := NewSession(message.Principal{Replica: 3}, public)
	q := &message.Request{Client: 9, Timestamp: 1, Op: []byte("x")}
	var x Scratch
	client.Authenticate([]*Session{hereA, hereB, unknown}, &x, q)
	for i, want := range map[message.ReplicaID]bool{0: true, 1: false, 2: false, 9: false} {
		if thereA.OpenRequest(&x, i, q) != want {
			t.Errorf("the entry for replica %d opens at replica 0: %v", i, !want)
		}
	}
	for range 2 {
		if !thereB.OpenRequest(&x, 1, q) {
			t.Error("a relayed request does not open as often as it comes")
		}
	}
	q.ReadOnly = true
	if thereA.OpenRequest(&x, 0, q) {
		t.Error("the read-only flag is not covered")
	}
}

func benchmarkPair(b *testing.B) (x, y *party) {
	x, y = newPair(b)
	x.hello()
	settle(b, x, y)
	b.ReportAllocs()
	return x, y
}

func BenchmarkSeal(b *testing.B) {
	from, _ := benchmarkPair(b)
	var x Scratch
	m := &message.Prepare{View: 1, Seq: 2}
	var buf []byte
	for b.Loop() {
		buf = from.ring.Seal(from.session, &x, buf[:0], m)
	}
}

func BenchmarkSealAndOpen(b *testing.B) {
	from, to := benchmarkPair(b)
	var x Scratch
	m := &message.Prepare{View: 1, Seq: 2}
	var buf []byte
	for b.Loop() {
		buf = from.ring.Seal(from.session, &x, buf[:0], m)
		if body, trailer, ok := Split(buf); !ok || !to.session.Open(&x, m, body, trailer) {
			b.Fatal("it does not open")
		}
	}
}

func BenchmarkHandshake(b *testing.B) {
	from, to := benchmarkPair(b)
	for b.Loop() {
		m, err := from.ring.NewKey(from.session, message.Digest{}, "")
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := to.ring.Accept(to.session, m, Channel{}); err != nil {
			b.Fatal(err)
		}
	}
}

// A proof is good for one result, one maker and one client, and is the MAC of no message.
func TestProof(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	var x Scratch
	m := &message.Commit{View: 1, Seq: 2}
	result := m.AppendBody([]byte{byte(m.Type())}) // a client may have written it into a file
	p, ok := a.ring.Prove(a.session, &x, result)
	if !ok || !b.session.Proves(&x, &p, result) || !b.session.Proves(&x, &p, result) {
		t.Fatal("an honest proof proves nothing")
	}
	trailer := append(binary.LittleEndian.AppendUint64(nil, p.Nonce), p.Tag[:]...)
	if b.session.Open(&x, m, result, trailer) {
		t.Error("a proof opens a message")
	}
	if a.session.Proves(&x, &p, result) {
		t.Error("our own proof is taken for the peer's")
	}
	sealed := a.ring.Seal(a.session, &x, nil, m)
	body, trailer, _ := Split(sealed)
	mac := message.Proof{Nonce: binary.LittleEndian.Uint64(trailer), Tag: [message.MACSize]byte(trailer[8:])}
	if b.session.Proves(&x, &mac, body) {
		t.Error("the MAC of a message proves a result")
	}
	result[0]++
	if b.session.Proves(&x, &p, result) {
		t.Error("it proves another result")
	}
	if _, ok := a.ring.Prove(NewSession(b.session.Peer, nil), &x, result); ok {
		t.Error("a proof without a session key")
	}
}
