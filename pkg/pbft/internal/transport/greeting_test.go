// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"
)

var protocol = [4]byte{'t', 'e', 's', 't'}

// greeting is options under which a hello is welcome that repeats the challenge's last byte.
func greeting() Options {
	return Options{
		Protocol: protocol,
		Answer:   func(challenge *Challenge, hello *Hello) error { hello[0] = challenge[ChallengeSize-1]; return nil },
		Admit: func(_ *Conn, challenge *Challenge, hello *Hello) bool {
			return hello[0] == challenge[ChallengeSize-1]
		},
	}
}

// Both ends of a connection have one name for it, which is that of no other, under TLS and without.
func TestGreeting(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		g := greeting()
		o.Protocol, o.Answer, o.Admit = g.Protocol, g.Answer, g.Admit
		accepted := make(chan *Conn, 2)
		l := listen(t, o, funcs{opened: func(c *Conn) { accepted <- c }})
		_, first := dial(t, l.Addr(), o, funcs{})
		near := await(t, accepted)
		if first.Binding() != near.Binding() || first.Binding() == ([32]byte{}) {
			t.Errorf("one end has %x, the other %x", first.Binding(), near.Binding())
		}
		_, second := dial(t, l.Addr(), o, funcs{})
		later := await(t, accepted)
		if second.Binding() == first.Binding() || later.Number() <= near.Number() {
			t.Errorf("two connections, %x and %x, numbers %d and %d",
				first.Binding(), second.Binding(), near.Number(), later.Number())
		}
	})
}

// A peer that answers the challenge wrongly, in part, or not at all gets no further, and
// the handler does not hear of it.
func TestUnwelcome(t *testing.T) {
	for name, says := range map[string]int{"nothing": 0, "half a hello": HelloSize / 2, "a wrong hello": HelloSize} {
		t.Run(name, func(t *testing.T) {
			o := greeting()
			o.DialTimeout = 50 * time.Millisecond
			o.Admit = func(*Conn, *Challenge, *Hello) bool { return false }
			l := listen(t, o, funcs{opened: func(*Conn) { t.Error("opened") }})
			raw := stranger(t, l.Addr())
			if _, err := io.CopyN(io.Discard, raw, ChallengeSize); err != nil {
				t.Fatal(err)
			}
			if _, err := raw.Write(make([]byte, says)); err != nil {
				t.Fatal(err)
			}
			if n, err := raw.Read(make([]byte, 1)); n != 0 || !isEnd(err) {
				t.Fatalf("got %d, %v, want the end", n, err)
			}
			l.Close()
			if s := l.Stats(); s.Opened != 0 || s.Failed != 1 || (s.Unwelcome == 1) != (says == HelloSize) {
				t.Errorf("got %+v", s)
			}
		})
	}
}

// A link does not speak to a peer of another protocol or version.
func TestOtherProtocol(t *testing.T) {
	o := greeting()
	l := listen(t, o, funcs{opened: func(*Conn) { t.Error("opened") }})
	o.Protocol[3]++
	asked := make(chan struct{}, 1)
	o.Answer = func(*Challenge, *Hello) error { asked <- struct{}{}; return errors.New("asked") }
	k := Dial(l.Addr().String(), o, funcs{opened: func(*Conn) { t.Error("opened") }})
	for k.Stats().Failed == 0 { // until a dial has come to nothing
		runtime.Gosched()
	}
	k.Close()
	if len(asked) > 0 {
		t.Error("it was answered")
	}
}

// Connections that are not greeted yet are bounded, in all and of one host, and take places from
// each other: of their own host where they can.
func TestPending(t *testing.T) {
	p := pending{hosts: map[string][]*Conn{}}
	hold := func(host string) int { return len(p.hosts[host]) }
	other := &Conn{host: "other"}
	if p.add(other) != nil {
		t.Fatal("no room in the beginning")
	}
	for i := range 3 * maxPendingHost {
		if d := p.add(&Conn{host: "crowd"}); (d != nil) != (i >= maxPendingHost) || d == other {
			t.Fatalf("connection %d displaces %+v", i, d)
		}
	}
	if hold("crowd") != maxPendingHost || hold("other") != 1 || p.count != maxPendingHost+1 {
		t.Fatalf("%d of one, %d of the other, %d in all", hold("crowd"), hold("other"), p.count)
	}
	for i := range 2 * maxPending {
		p.add(&Conn{host: fmt.Sprint(i)})
	}
	if p.count != maxPending {
		t.Errorf("%d pending, want %d", p.count, maxPending)
	}
	for len(p.hosts) > 0 {
		for _, all := range p.hosts {
			if c := all[0]; !p.remove(c) || p.remove(c) {
				t.Fatal("it was not there, or is there yet")
			}
		}
	}
	if p.count != 0 {
		t.Errorf("%d pending, want none", p.count)
	}
}
