// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/signing"
	"bfs/pkg/pbft/internal/transport"
)

// An endpoint is what replicas and clients have in common on the wire: keys, options, and counts of what was
// refused before the protocol saw it.
type endpoint struct {
	group   *Group
	wire    message.Limits
	ring    *auth.Ring
	options transport.Options
	log     *slog.Logger
	warned  atomic.Int64 // time of the last warn
	edge    edgeCounts
	renewal renewal // of our session keys
}

// edgeCounts counts refusals at the edge.
type edgeCounts struct {
	malformed, badMAC, oldKey, badKey, unexpected, dropped, keyInUse atomic.Uint64
}

func (e *edgeCounts) list() []Refusals {
	return []Refusals{
		{"malformed", e.malformed.Load()},
		{"bad MAC", e.badMAC.Load()},
		{"under a key of the last epoch", e.oldKey.Load()},
		{"bad NEW-KEY", e.badKey.Load()},
		{"unexpected on this connection", e.unexpected.Load()},
		{"queue to peer full", e.dropped.Load()},
		{"a client's key in use by two processes", e.keyInUse.Load()},
	}
}

// queueBytes bounds what waits on one connection to be sent.
const queueBytes = 32 << 20

func newEndpoint(g *Group, self message.Principal, signer auth.Signer, t Transport, delay time.Duration, log *slog.Logger) (*endpoint, error) {
	e := &endpoint{group: g, wire: g.wire(), log: log, renewal: newRenewal()}
	if log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	e.options = transport.Options{Protocol: [4]byte{'b', 'f', 's', message.VersionMajor}, MaxFrame: g.maxFrame(), Queue: queueBytes, StrangerFrame: 4096, Delay: delay,
		MaxConns: max(1024, 2*(g.Limits.Clients+g.N()))} // one is kept of each, and there are places for strangers
	var fingerprint message.Digest
	switch t {
	case TransportPlain:
	case TransportTLS, "":
		cert, print, err := transport.NewHostTLS()
		if err != nil {
			return nil, err
		}
		fingerprint = print
		e.options.TLS = transport.HostTLS(func() *tls.Certificate { return &cert })
	default:
		return nil, fmt.Errorf("transport %q: want %q or %q", t, TransportTLS, TransportPlain)
	}
	var err error
	if e.ring, err = auth.NewRing(self, g.Digest(), signer, fingerprint); err != nil {
		return nil, err
	}
	e.options.Life = e.ring.Life()
	return e, nil
}

// A remote is who speaks on a connection, once its NEW-KEY has said so. Only the connection's own goroutine
// touches its fields.
type remote struct {
	session *auth.Session
	caller  *caller                     // at a replica: whose budgets it spends
	life    [message.PublicKeySize]byte // at a replica: which process of the client it is
	scratch auth.Scratch
	decoder message.Decoder
	kept    []byte       // the rest of a piece of memory for frames that are kept
	keysAt  time.Time    // of our last unasked NEW-KEY
	budget  newKeyBudget // at a client: what its replicas may send

	registered bool // an enrolled client that is answered on this connection
}

// A newKeyBudget bounds the NEW-KEYs that a replica may send a client on one connection: each costs a signature to check and often
// one to make, and may have the client send much again.
type newKeyBudget struct {
	since time.Time
	count int
}

const (
	newKeysPerPeriod = 64
	newKeyPeriod     = 10 * time.Second
)

// mayChangeKeys counts one more NEW-KEY on the connection.
func (r *remote) mayChangeKeys(now time.Time) bool {
	b := &r.budget
	if now.Sub(b.since) > newKeyPeriod {
		*b = newKeyBudget{since: now}
	}
	b.count++
	return b.count <= newKeysPerPeriod
}

// warn logs what a stranger can cause, at most once a second: he gets no log to flood.
func (e *endpoint) warn(text string, args ...any) {
	now, last := time.Now().UnixNano(), e.warned.Load()
	if now-last > int64(time.Second) && e.warned.CompareAndSwap(last, now) {
		e.log.Warn(text, args...)
	}
}

var errTransportKey = errors.New("the TLS certificate is not the one its NEW-KEY vouches for")

// vouched checks that a TLS connection ends at the host whose NEW-KEY we accepted, so that nobody in between
// reads along.
func (e *endpoint) vouched(c *transport.Conn, s *auth.Session) bool {
	fingerprint, isTLS := c.PeerFingerprint()
	return !isTLS || message.Digest(fingerprint) == s.TransportKey()
}

// acceptKey takes the session key from a NEW-KEY, or counts why it is refused. Answer: the peer needs one of ours. Changed: we seal under
// another key than before.
func (e *endpoint) acceptKey(c *transport.Conn, s *auth.Session, m *message.NewKey) (answer, changed, ok bool) {
	answer, changed, err := e.ring.Accept(s, m, channel(c))
	if err == nil && !e.vouched(c, s) {
		err = errTransportKey
	}
	if err != nil {
		e.edge.badKey.Add(1)
		e.keyRefused(c, m, err)
		return false, false, false
	}
	return answer, changed, true
}

// answering returns the options for a link to the session's peer.
func (e *endpoint) answering(s *auth.Session) transport.Options {
	o := e.options
	o.Answer = func(challenge *transport.Challenge, hello *transport.Hello) error {
		return e.ring.Hello(s, (*[auth.ChallengeSize]byte)(challenge), (*[auth.HelloSize]byte)(hello))
	}
	return o
}

// channel is what makes a NEW-KEY fresh on a connection.
func channel(c *transport.Conn) auth.Channel {
	return auth.Channel{ID: c.Binding(), Number: c.Number()}
}

// sendKey opens a connection, or answers a peer's NEW-KEY, with ours. A client learns of a rival, if there is one. The keeper may
// take seconds to sign: the caller holds no lock, and is no goroutine that others wait for, other than the peer's connection.
func (e *endpoint) sendKey(c *transport.Conn, s *auth.Session, rival string) {
	s.InOrder(func() {
		m, err := e.ring.NewKey(s, c.Binding(), rival)
		switch {
		case errors.Is(err, signing.ErrClosed): // this process stops
			return
		case err != nil:
			e.warn("cannot make a NEW-KEY: no messages from this peer can be accepted", "peer", s.Peer, "err", err)
			return
		}
		c.Send([]byte{byte(message.TypeNewKey)}, m.AppendBody(nil))
	})
	c.Flush()
}

// resendKey is for a peer whose messages we cannot open: perhaps it missed our last NEW-KEY. At most
// one a second, so that junk cannot make us sign for ever.
func (e *endpoint) resendKey(c *transport.Conn, r *remote, s *auth.Session) {
	if now := time.Now(); now.Sub(r.keysAt) > time.Second {
		r.keysAt = now
		e.sendKey(c, s, "")
	}
}

// open decodes a sealed frame and checks its MAC against the session. A vote or reply is good until the connection's decoder is
// reset.
func (e *endpoint) open(r *remote, frame []byte) message.Message {
	body, trailer, ok := auth.Split(frame)
	if !ok {
		e.edge.malformed.Add(1)
		return nil
	}
	m, err := r.decoder.Decode(body, &e.wire)
	if err != nil {
		e.edge.malformed.Add(1)
		return nil
	}
	if !r.session.Open(&r.scratch, m, body, trailer) {
		e.unopened()
		return nil
	}
	return m
}

// owned returns the frame as memory that may be kept: the transport lends small ones.
func owned(frame []byte) []byte {
	if len(frame) > transport.Keep {
		return frame
	}
	return append([]byte(nil), frame...)
}

// keep is owned for requests, of which there are many: small ones share a piece of memory, which lives until the last of them is
// forgotten. The piece is small, or a client could have us hold many times what it sends us.
func (r *remote) keep(frame []byte) []byte {
	const piece, small = 1 << 10, 256
	if len(frame) > small {
		return owned(frame)
	}
	if len(frame) > len(r.kept) {
		r.kept = make([]byte, piece)
	}
	n := copy(r.kept, frame)
	kept := r.kept[:n:n]
	r.kept = r.kept[n:]
	return kept
}

// A flusher is a connection or link with frames waiting.
type flusher interface{ Flush() }

// flushes gathers what must be flushed once the lock is released: many messages, one system call.
type flushes struct{ list []flusher }

// flushSpace is how many connections an event commonly writes to: to so many there is no allocation.
const flushSpace = 16

// take moves what was gathered into space, for the lock is released before it is flushed.
func (f *flushes) take(space []flusher) []flusher {
	space = append(space, f.list...)
	clear(f.list)
	f.list = f.list[:0]
	return space
}

func (f *flushes) add(x flusher) {
	for _, have := range f.list {
		if have == x {
			return
		}
	}
	f.list = append(f.list, x)
}
