// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

func (p *party) refresh() {
	p.t.Helper()
	if err := p.ring.Refresh(); err != nil {
		p.t.Fatal(err)
	}
}

// seal is a message of p's on its way.
func (p *party) seal() (m *message.Commit, sealed []byte) {
	var x Scratch
	m = &message.Commit{View: 1, Seq: 2}
	return m, p.ring.Seal(p.session, &x, nil, m)
}

func (p *party) opens(m *message.Commit, sealed []byte) bool {
	var x Scratch
	body, trailer, ok := Split(sealed)
	return ok && p.session.Open(&x, m, body, trailer)
}

// changesOneDirection makes a choose a new key, by change, under which b must speak to it.
// Messages that b sealed before do not open any more, whether or not b knows of the change;
// the other direction does not change. After a's NEW-KEY each opens the other's messages.
func changesOneDirection(t *testing.T, a, b *party, change func()) {
	t.Helper()
	m, sealed := b.seal()
	var x Scratch
	proof, _ := b.ring.Prove(b.session, &x, []byte("result"))
	request := &message.Request{Client: 9, Op: []byte("x")}
	b.ring.Authenticate([]*Session{b.session, b.session}, &x, request)
	toB, way := a.session.out.Load(), b.session.in.Load()
	change()
	if a.opens(m, sealed) || a.session.Proves(&x, &proof, []byte("result")) || a.session.OpenRequest(&x, 1, request) {
		t.Error("something opens that was sealed under the key of before")
	}
	if m, sealed := b.seal(); a.opens(m, sealed) {
		t.Error("a peer is heard that has not learnt of the new key")
	}
	if !speak(a, b) {
		t.Error("a replica that has changed the key of the other direction is not heard")
	}
	a.hello()
	settle(t, a, b)
	mustSpeak(t, a, b, "after the change")
	if a.session.out.Load() != toB || b.session.in.Load() != way || b.session.Lives() != 1 {
		t.Error("the change of one direction has changed the other")
	}
	if a.opens(m, sealed) {
		t.Error("something opens that was sealed under the key of before")
	}
}

// A refresh changes the key of one direction.
func TestOldKeysAreRefusedAtOnce(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	changesOneDirection(t, a, b, a.refresh)
}

// When one session is renewed the key of its one direction changes. The other sessions of
// the ring go on.
func TestOneSessionIsRenewed(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	c := &party{t: t, self: message.Principal{Replica: 3}, private: b.private,
		peerKey: a.private.Public().(ed25519.PublicKey), path: t.TempDir() + "/counter"}
	c.start(a.self)
	third := NewSession(c.self, b.private.Public().(ed25519.PublicKey)) // a's with c
	for range 3 {
		m, err := c.ring.NewKey(c.session, message.Digest{}, "")
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := a.ring.Accept(third, m, Channel{}); err != nil {
			t.Fatal(err)
		}
		if m, err = a.ring.NewKey(third, message.Digest{}, ""); err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.ring.Accept(c.session, m, Channel{}); err != nil {
			t.Fatal(err)
		}
	}
	ofB, ofThird := a.ring.EpochOf(a.session), a.ring.EpochOf(third)
	m, sealed := c.seal()
	changesOneDirection(t, a, b, a.session.Renew)
	if a.ring.EpochOf(a.session) == ofB || a.ring.EpochOf(third) != ofThird {
		t.Error("the wrong session is in another epoch")
	}
	if !(&party{t: t, ring: a.ring, session: third}).opens(m, sealed) {
		t.Error("another peer is not heard any more")
	}
}

// The X25519 key of the last epoch opens no NEW-KEY any more, and the peer is asked for another.
func TestSealedToAnErasedKey(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	b.refresh()
	b.hello() // sealed to a's key of now
	a.refresh()
	m := b.sent[0]
	b.sent = nil
	answer, changed, err := a.ring.Accept(a.session, m, Channel{})
	if !answer || changed || err != nil {
		t.Fatalf("a NEW-KEY that was sealed to an erased key: answer %v, changed %v, %v", answer, changed, err)
	}
	a.hello()
	settle(t, a, b)
	mustSpeak(t, a, b, "after the answer")
}

// Two that refresh at once come to rest: each NEW-KEY that is sealed to an erased key has
// one answer.
func TestBothRefreshAtOnce(t *testing.T) {
	for _, before := range []string{"", "a", "b", "ab"} {
		a, b := newPair(t)
		a.hello()
		settle(t, a, b)
		for _, x := range before {
			map[rune]*party{'a': a, 'b': b}[x].hello()
		}
		a.refresh()
		b.refresh()
		a.hello()
		b.hello()
		said := len(a.past) + len(b.past)
		settle(t, a, b)
		if n, most := len(a.past)+len(b.past)-said, 4+len(before); n > most {
			t.Errorf("%q under way: %d answers, want <= %d", before, n, most)
		}
		mustSpeak(t, a, b, "after both refreshed")
	}
}

// Two processes with one key never get the same session key, though each says that it has
// ours: they count nonces each for itself.
func TestTwoProcessesWithOneKey(t *testing.T) {
	a, b := newPair(t)
	a.self = message.Principal{Client: 9} // the counters of a client's lives are not compared
	a.start(b.self)
	b.session = NewSession(a.self, b.peerKey)
	other := &party{t: t, self: a.self, private: a.private, peerKey: a.peerKey, path: t.TempDir() + "/counter"}
	users := map[[keySize]byte]*party{}
	say := func(p *party, on uint64) {
		t.Helper()
		for range 2 {
			ch := Channel{ID: message.Digest{byte(on)}, Number: on}
			m, err := p.ring.NewKey(p.session, ch.ID, "")
			if err != nil {
				t.Fatal(err)
			}
			answer, _, err := b.ring.Accept(b.session, m, ch)
			if err != nil {
				t.Fatal(err)
			}
			if !answer {
				continue
			}
			if m, err = b.ring.NewKey(b.session, message.Digest{}, ""); err != nil {
				t.Fatal(err)
			}
			if _, _, err := p.ring.Accept(p.session, m, Channel{}); err != nil {
				t.Fatal(err)
			}
		}
		k := p.session.out.Load()
		if k == nil || users[k.raw] != nil && users[k.raw] != p {
			t.Fatalf("connection %d: no session key, or one that the other process has", on)
		}
		users[k.raw] = p
	}
	say(a, 1)
	other.start(b.self)
	say(other, 2)
	a.refresh()
	say(a, 3)
	other.refresh()
	say(other, 4)
}

// A copy of yesterday's counter is noticed at the first NEW-KEY of a life, whether or not
// the peers have seen refreshes since; a refresh is not taken for one.
func TestRefreshCountsOn(t *testing.T) {
	a, b := newPair(t)
	a.hello()
	settle(t, a, b)
	for range 5 {
		a.refresh()
		a.hello()
		settle(t, a, b)
		mustSpeak(t, a, b, "after a refresh")
	}
	a.path = t.TempDir() + "/counter"
	a.start(b.self)
	m, err := a.ring.NewKey(a.session, message.Digest{}, "")
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := b.ring.Accept(b.session, m, Channel{Number: 9}); !errors.Is(err, ErrWentBack) {
		t.Errorf("with a new counter: got %v, want %v", err, ErrWentBack)
	}
}

// No key has two users, whatever is refreshed, restarted, lost and late; nothing sealed
// before a refresh opens after it; and when both have said their NEW-KEYs and nothing is
// lost they hear each other.
func TestRefreshesConverge(t *testing.T) {
	for seed := range uint64(60) {
		r := rand.New(rand.NewPCG(seed, 4))
		a, b := newPair(t)
		users := map[[keySize]byte]*Ring{}
		for range 40 {
			p, q := a, b
			if r.IntN(2) == 0 {
				p, q = b, a
			}
			switch n := len(p.sent); r.IntN(8) {
			case 0:
				p.start(q.self)
				p.hello()
			case 1, 2:
				m, sealed := q.seal()
				p.refresh()
				p.hello()
				if len(sealed) > 0 && p.opens(m, sealed) {
					t.Fatalf("seed %d: an old key opens", seed)
				}
			case 3:
				if n > 0 { // lost
					p.sent = p.sent[1:]
				}
			default:
				if n > 0 {
					m := p.sent[0]
					p.sent = p.sent[1:]
					_ = q.hear(m)
				}
			}
			for _, p := range []*party{a, b} {
				if k := p.session.out.Load(); k != nil {
					if user := users[k.raw]; user != nil && user != p.ring {
						t.Fatalf("seed %d: two lives seal under one key", seed)
					}
					users[k.raw] = p.ring
				}
			}
			speak(a, b)
			speak(b, a)
		}
		a.sent, b.sent = nil, nil
		a.hello()
		b.hello()
		settle(t, a, b)
		mustSpeak(t, a, b, fmt.Sprintf("seed %d", seed))
	}
}
