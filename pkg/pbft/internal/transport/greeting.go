// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"time"
)

// The greeting comes before TLS and before any frame, in both directions, so that the side that
// accepts can turn a stranger away before it does any cryptography:
//
//	acceptor → dialler   Challenge: Options.Protocol, 4 bytes; Options.Life, 12 bytes; 16 random bytes
//	dialler → acceptor   Hello: 48 bytes that Options.Answer makes and Options.Admit judges
//
// The acceptor sends first, because an answer to a fresh challenge cannot be a replay.
const (
	ChallengeSize = 32
	HelloSize     = 48
)

// A Challenge is the first message of the accepting side.
type Challenge [ChallengeSize]byte

// A Hello is the dialling side's answer to a challenge.
type Hello [HelloSize]byte

// ErrUnwelcome ends a connection whose hello Options.Admit refused.
var ErrUnwelcome = errors.New("transport: hello refused")

// errProtocol ends a connection to a peer whose challenge is not of our protocol and version.
var errProtocol = errors.New("transport: peer does not speak this version of the protocol")

// Binding names the connection: it is a digest of challenge and hello, the same at both ends, and
// neither end chooses it alone. Zero if there was no greeting.
func (c *Conn) Binding() [32]byte { return c.binding }

// Number counts the connections of the Listener or Link: a later one has a higher number.
func (c *Conn) Number() uint64 { return c.born }

// greets reports whether the connection begins with a greeting.
func (c *Conn) greets() bool {
	if c.link != nil {
		return c.o.Answer != nil
	}
	return c.o.Admit != nil
}

// greet exchanges the greeting, within DialTimeout.
func (c *Conn) greet() error {
	if err := c.tcp.SetDeadline(time.Now().Add(c.o.DialTimeout)); err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	var err error
	var challenge Challenge
	var hello Hello
	if c.link != nil {
		err = c.introduce(&challenge, &hello)
	} else {
		err = c.receive(&challenge, &hello)
	}
	if err != nil {
		return err
	}
	c.bind(&challenge, &hello)
	if err := c.tcp.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("transport: %w", err)
	}
	return nil
}

// introduce is the dialler's part of the greeting.
func (c *Conn) introduce(challenge *Challenge, hello *Hello) error {
	if _, err := io.ReadFull(c.tcp, challenge[:]); err != nil {
		return fmt.Errorf("transport: read the peer's challenge: %w", err)
	}
	if [4]byte(challenge[:4]) != c.o.Protocol {
		return errProtocol
	}
	if err := c.o.Answer(challenge, hello); err != nil {
		return err
	}
	if _, err := c.tcp.Write(hello[:]); err != nil {
		return fmt.Errorf("transport: write our hello: %w", err)
	}
	return nil
}

// receive is the acceptor's part of the greeting.
func (c *Conn) receive(challenge *Challenge, hello *Hello) error {
	copy(challenge[:4], c.o.Protocol[:])
	copy(challenge[4:16], c.o.Life[:])
	rand.Read(challenge[16:])
	if _, err := c.tcp.Write(challenge[:]); err != nil {
		return fmt.Errorf("transport: write our challenge: %w", err)
	}
	if _, err := io.ReadFull(c.tcp, hello[:]); err != nil {
		return fmt.Errorf("transport: read the peer's hello: %w", err)
	}
	if !c.o.Admit(c, challenge, hello) {
		return ErrUnwelcome
	}
	return nil
}

func (c *Conn) bind(challenge *Challenge, hello *Hello) {
	h := sha256.New()
	h.Write([]byte("bfs connection v1\x00"))
	h.Write(challenge[:])
	h.Write(hello[:])
	h.Sum(c.binding[:0])
}

// pending holds the accepted connections that have not been greeted yet, by host. Such connections
// cost little, do not count among MaxConns, and are bounded: a new one beyond the bound takes the
// place of another, of the same host if that has one. Chance picks which: if it were the oldest,
// strangers that connect fast enough would displace every client whose hello takes a round trip.
type pending struct {
	hosts map[string][]*Conn
	count int
}

// The bounds of pending.
const (
	maxPending     = 1024
	maxPendingHost = maxPending / 4
)

// add takes in c and returns the connection that must make room for it, nil if there is room.
func (p *pending) add(c *Conn) (displaced *Conn) {
	switch mine := p.hosts[c.host]; {
	case len(mine) >= maxPendingHost, p.count >= maxPending && len(mine) > 0:
		displaced = mine[mathrand.IntN(len(mine))]
	case p.count >= maxPending:
		for _, all := range p.hosts { // any: iteration begins anywhere
			displaced = all[mathrand.IntN(len(all))]
			break
		}
	}
	if displaced != nil {
		p.remove(displaced)
	}
	c.place = len(p.hosts[c.host])
	p.hosts[c.host] = append(p.hosts[c.host], c)
	p.count++
	return displaced
}

// remove takes c out, and reports whether it was there.
func (p *pending) remove(c *Conn) bool {
	all := p.hosts[c.host]
	if c.place >= len(all) || all[c.place] != c {
		return false
	}
	last := all[len(all)-1]
	all[c.place], last.place = last, c.place
	all[len(all)-1] = nil
	p.count--
	if len(all) == 1 {
		delete(p.hosts, c.host)
	} else {
		p.hosts[c.host] = all[:len(all)-1]
	}
	return true
}

// enter greets an admitted connection and gives it its place. It returns false if the
// connection has ended.
func (e *endpoint) enter(c *Conn) bool {
	if !c.greets() {
		return true
	}
	err := c.greet()
	e.mu.Lock()
	waited := e.pending.remove(c)
	if err == nil && (!waited || !e.settle(c)) {
		err = ErrDisplaced
	}
	if err != nil {
		e.gone.Failed++
	}
	if errors.Is(err, ErrUnwelcome) {
		e.gone.Unwelcome++
	}
	e.mu.Unlock()
	if err == nil {
		return true
	}
	_ = c.tcp.SetLinger(0) // unsent bytes are of no use, and the kernel forgets the connection at once
	c.closeFor(err)
	return false
}
