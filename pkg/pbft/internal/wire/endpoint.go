// SPDX-License-Identifier: Apache-2.0

// Package wire is the common part of replicas and clients at the edge of the protocol:
// connections whose other end is known, the session keys of that end, and the budgets of
// peers that connect.
//
// An Endpoint is one process's keys and counts. A Remote is the other end of a connection. A
// Gate decides at a replica whose connections are taken on, and what each Caller may cause.
package wire

import (
	"crypto/tls"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/signing"
	"bfs/pkg/pbft/internal/transport"
)

// An Endpoint is what replicas and clients have in common on the wire: keys, options, and
// counts of what was refused before the protocol saw it. Any goroutine may use it.
type Endpoint struct {
	Limits  message.Limits // of decoders
	Ring    *auth.Ring
	Options transport.Options
	Log     *slog.Logger
	Edge    EdgeCounts
	Renewal Renewal // of our session keys

	group  message.Digest // of the group file
	warned atomic.Int64   // time of the last warning, Unix nanoseconds
}

const (
	// QueueBytes bounds what waits on one connection to be sent.
	QueueBytes = 32 << 20
	// QueueAllBytes bounds what waits on all connections that others made to this process, beside
	// one frame on each.
	QueueAllBytes = 2 * QueueBytes
)

// A Config says whose endpoint it is.
type Config struct {
	Self     message.Principal
	Signer   auth.Signer
	Group    message.Digest // of the group file
	Limits   message.Limits
	MaxFrame int
	MaxConns int
	Plain    bool                 // no TLS
	Delay    func() time.Duration // artificial one-way delay of what is sent, for measurements; nil: none
	Log      *slog.Logger         // nil: nothing is logged
}

// NewEndpoint makes the keys of a process.
func NewEndpoint(c Config) (*Endpoint, error) {
	e := &Endpoint{group: c.Group, Limits: c.Limits, Log: c.Log, Renewal: newRenewal()}
	if c.Log == nil {
		e.Log = slog.New(slog.DiscardHandler)
	}
	e.Options = transport.Options{Protocol: [4]byte{'b', 'f', 's', message.VersionMajor},
		MaxFrame: c.MaxFrame, Queue: QueueBytes, QueueAll: QueueAllBytes, StrangerFrame: 4096, Delay: c.Delay,
		MaxConns: c.MaxConns}
	var fingerprint message.Digest
	if !c.Plain {
		cert, print, err := transport.NewHostTLS()
		if err != nil {
			return nil, err
		}
		fingerprint = print
		e.Options.TLS = transport.HostTLS(func() *tls.Certificate { return &cert })
	}
	var err error
	if e.Ring, err = auth.NewRing(c.Self, c.Group, c.Signer, fingerprint); err != nil {
		return nil, err
	}
	e.Options.Life = e.Ring.Life()
	return e, nil
}

// A Remote is the sender on a connection, once its NEW-KEY has named it. Only the
// connection's own goroutine touches its fields.
type Remote struct {
	Session *auth.Session
	Caller  *Caller                     // at a replica: whose budgets it spends
	Life    [message.PublicKeySize]byte // at a replica: which process of the client it is
	Scratch auth.Scratch
	Decoder message.Decoder
	kept    []byte       // the rest of a piece of memory for frames that are kept
	keysAt  time.Time    // of our last unasked NEW-KEY
	budget  newKeyBudget // at a client: what its replicas may send

	Registered bool // an enrolled client that is answered on this connection
}

// A newKeyBudget bounds the NEW-KEYs that a replica may send a client on one connection: each
// costs a signature to check and often one to make, and may have the client send much again.
type newKeyBudget struct {
	since time.Time
	count int
}

const (
	newKeysPerPeriod = 64
	newKeyPeriod     = 10 * time.Second
)

// MayChangeKeys counts one more NEW-KEY on the connection.
func (r *Remote) MayChangeKeys(now time.Time) bool {
	b := &r.budget
	if now.Sub(b.since) > newKeyPeriod {
		*b = newKeyBudget{since: now}
	}
	b.count++
	return b.count <= newKeysPerPeriod
}

// Warn logs what a stranger can cause, at most once a second: strangers must not flood the log.
func (e *Endpoint) Warn(text string, args ...any) {
	now, last := time.Now().UnixNano(), e.warned.Load()
	if now-last > int64(time.Second) && e.warned.CompareAndSwap(last, now) {
		e.Log.Warn(text, args...)
	}
}

var errTransportKey = errors.New("the TLS certificate is not the one its NEW-KEY vouches for")

// Vouched checks that a TLS connection ends at the host whose NEW-KEY we accepted, so
// that an intruder in between cannot read along.
func (e *Endpoint) Vouched(c *transport.Conn, s *auth.Session) bool {
	fingerprint, isTLS := c.PeerFingerprint()
	return !isTLS || message.Digest(fingerprint) == s.TransportKey()
}

// AcceptKey takes the session key from a NEW-KEY, or counts why it is refused. answer says
// that the peer needs a NEW-KEY of ours, changed that we seal under another key than before.
func (e *Endpoint) AcceptKey(c *transport.Conn, s *auth.Session, m *message.NewKey) (answer, changed, ok bool) {
	answer, changed, err := e.Ring.Accept(s, m, channel(c))
	if err == nil && !e.Vouched(c, s) {
		err = errTransportKey
	}
	if err != nil {
		e.Edge.BadKey.Add(1)
		e.keyRefused(c, m, err)
		return false, false, false
	}
	return answer, changed, true
}

// keyRefused logs why a NEW-KEY was refused, with both digests if the group files differ.
func (e *Endpoint) keyRefused(c *transport.Conn, m *message.NewKey, err error) {
	args := []any{"address", c.RemoteAddr(), "err", err}
	if m.From.IsReplica() {
		args = append([]any{"replica", m.From.Replica}, args...)
	} else {
		args = append([]any{"client", m.From.Client}, args...)
	}
	if errors.Is(err, auth.ErrGroup) {
		ours := e.group
		args = append(args, "ours", ours, "theirs", m.Group, "do", "copy the same group.toml to both")
	}
	e.Warn("NEW-KEY refused", args...)
}

// Answering returns the options for a link to the session's peer.
func (e *Endpoint) Answering(s *auth.Session) transport.Options {
	o := e.Options
	o.Answer = func(challenge *transport.Challenge, hello *transport.Hello) error {
		return e.Ring.Hello(s, (*[auth.ChallengeSize]byte)(challenge), (*[auth.HelloSize]byte)(hello))
	}
	return o
}

// DecodeKey decodes a NEW-KEY, or counts it as malformed and returns nil.
func (e *Endpoint) DecodeKey(frame []byte) *message.NewKey {
	m, err := message.Decode(Owned(frame), &e.Limits)
	if err != nil {
		e.Edge.Malformed.Add(1)
		return nil
	}
	return m.(*message.NewKey)
}

// Way is a connection of a link on which the session's peer may be told something, nil if
// there is none.
func (e *Endpoint) Way(link *transport.Link, s *auth.Session) *transport.Conn {
	if c := link.Conn(); c != nil && e.Vouched(c, s) {
		return c
	}
	return nil
}

// Queue queues a frame, or counts it as dropped. The frame begins with the shared part,
// if that is not nil.
func (e *Endpoint) Queue(c *transport.Conn, shared *transport.Shared, parts ...[]byte) {
	if !c.SendShared(shared, parts...) {
		e.Edge.Dropped.Add(1)
	}
}

// Share moves a long frame to memory from which all connections send it, and returns
// other memory in its place. A short frame stays where it is, and shared is nil.
func Share(frame []byte) (shared *transport.Shared, other []byte) {
	if len(frame) < transport.ShareFrom {
		return nil, frame
	}
	return transport.Share(frame)
}

// AskForKey sends a NEW-KEY on a link if we have no session key of its peer.
func (e *Endpoint) AskForKey(link *transport.Link, s *auth.Session) {
	if s.Ready() {
		return
	}
	if c := link.Conn(); c != nil {
		e.SendKey(c, s, "")
	}
}

// channel names a connection, so that a NEW-KEY for it is fresh.
func channel(c *transport.Conn) auth.Channel {
	return auth.Channel{ID: c.Binding(), Number: c.Number()}
}

// SendKey opens a connection, or answers a peer's NEW-KEY, with ours. A client learns of
// a rival, if there is one. The keeper may take seconds to sign. So the caller holds no
// lock, and only the peer's connection waits for its goroutine.
func (e *Endpoint) SendKey(c *transport.Conn, s *auth.Session, rival string) {
	s.InOrder(func() {
		m, err := e.Ring.NewKey(s, c.Binding(), rival)
		switch {
		case errors.Is(err, signing.ErrClosed): // this process stops
			return
		case err != nil:
			e.Warn("cannot make a NEW-KEY: no messages from this peer can be accepted", "peer", s.Peer, "err", err)
			return
		}
		c.Send([]byte{byte(message.TypeNewKey)}, m.AppendBody(nil))
	})
	c.Flush()
}

// Refresh begins a new epoch of the ring. If it cannot, it returns false and changes nothing.
func (e *Endpoint) Refresh() bool {
	if err := e.Ring.Refresh(); err != nil {
		e.Warn("cannot refresh the session keys: the old ones stay in use", "err", err)
		return false
	}
	e.Renewal.last.Store(time.Now().UnixNano())
	e.Renewal.Count.Add(1)
	return true
}

// RefreshOf gives the peer of a session a new key under which it must speak. A NEW-KEY is
// then due to the peer, see Single.
func (e *Endpoint) RefreshOf(s *auth.Session) {
	s.Renew()
	e.Renewal.Single.last.Store(time.Now().UnixNano())
}

// Unopened counts a frame that does not open.
func (e *Endpoint) Unopened() {
	if e.Renewal.Settling() {
		e.Edge.oldKey.Add(1)
		return
	}
	e.Edge.badMAC.Add(1)
}

// ResendKey sends a NEW-KEY to a peer whose messages we cannot open: perhaps it missed
// our last. It sends at most one a second, so that junk cannot make us sign for ever.
func (e *Endpoint) ResendKey(c *transport.Conn, r *Remote, s *auth.Session) {
	if now := time.Now(); now.Sub(r.keysAt) > time.Second {
		r.keysAt = now
		e.SendKey(c, s, "")
	}
}

// Open decodes a sealed frame and checks its MAC against the session. A vote or reply is
// valid until the connection's decoder is reset.
func (e *Endpoint) Open(r *Remote, frame []byte) message.Message {
	body, trailer, ok := auth.Split(frame)
	if !ok {
		e.Edge.Malformed.Add(1)
		return nil
	}
	m, err := r.Decoder.Decode(body, &e.Limits)
	if err != nil {
		e.Edge.Malformed.Add(1)
		return nil
	}
	if !r.Session.Open(&r.Scratch, m, body, trailer) {
		e.Unopened()
		return nil
	}
	return m
}

// Owned returns the frame as memory that may be kept: the transport lends small ones.
func Owned(frame []byte) []byte {
	if len(frame) > transport.Keep {
		return frame
	}
	return append([]byte(nil), frame...)
}

// Keep is Owned for requests, of which there are many: small ones share a piece of
// memory, which lives until the last of them is forgotten. The piece is small, or a
// client could have us hold many times what it sends us.
func (r *Remote) Keep(frame []byte) []byte {
	const piece, small = 1 << 10, 256
	if len(frame) > small {
		return Owned(frame)
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

// Flushes gathers what must be flushed once a lock is released: many messages, one system call.
type Flushes struct{ list []flusher }

// flushSpace is how many connections an event commonly writes to: up to this many nothing
// is allocated.
const flushSpace = 16

// Unlock gives up the lock that guards the flushes, and then writes what was gathered.
func (f *Flushes) Unlock(mu *sync.Mutex) {
	var space [flushSpace]flusher
	list := append(space[:0], f.list...)
	clear(f.list)
	f.list = f.list[:0]
	mu.Unlock()
	for _, x := range list {
		x.Flush()
	}
}

// Add notes a connection that is to be flushed.
func (f *Flushes) Add(x flusher) {
	for _, have := range f.list {
		if have == x {
			return
		}
	}
	f.list = append(f.list, x)
}
