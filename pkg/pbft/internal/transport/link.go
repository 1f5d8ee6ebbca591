// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"
)

// A Link is a connection that is dialled again whenever it breaks, until Close. Frames sent while
// it is down are dropped, and counted.
type Link struct {
	*endpoint
	addr    string
	hurry   chan struct{} // ends a pause between two dials
	up      atomic.Pointer[Conn]
	dropped atomic.Uint64 // by Send while down
}

// Dial starts a link to addr, "host:port", and returns at once. Give each link a handler of its
// own if the handler must know the peer before Dial has returned.
func Dial(addr string, o Options, h Handler) *Link {
	l := &Link{endpoint: newEndpoint(o, h), addr: addr, hurry: make(chan struct{}, 1)}
	l.tasks.Go(l.dialForEver)
	return l
}

// Up reports whether there is a connection to send on.
func (l *Link) Up() bool { return l.up.Load() != nil }

// Conn returns the connection there is, nil if the link is down.
func (l *Link) Conn() *Conn { return l.up.Load() }

// Addr returns the address that is dialled.
func (l *Link) Addr() string { return l.addr }

// Send queues one frame on the connection there is, as Conn.Send does. It begins to work when the
// handler's Opened has returned.
func (l *Link) Send(parts ...[]byte) bool {
	if c := l.up.Load(); c != nil {
		return c.Send(parts...)
	}
	l.dropped.Add(1)
	return false
}

// Flush writes the frames queued on the present connection, as Conn.Flush does.
func (l *Link) Flush() {
	if c := l.up.Load(); c != nil {
		c.Flush()
	}
}

// Stats returns the counts of all connections dialled so far.
func (l *Link) Stats() Stats {
	s := l.total()
	s.Dropped += l.dropped.Load()
	return s
}

// Hurry dials a link that is down at once: its peer is known to be up, and the pause
// between dials may have grown while the peer was down.
func (l *Link) Hurry() {
	if l.Up() {
		return
	}
	select {
	case l.hurry <- struct{}{}:
	default: // it is to be dialled at once already
	}
}

// Close ends the link and waits until its handler has been told. It must not be called by the
// handler.
func (l *Link) Close() { l.close() }

// dialForEver keeps one connection alive. The pause between two dials doubles up to its bound, and
// starts again from its lower bound after a connection that was good.
func (l *Link) dialForEver() {
	backoff := l.o.BackoffMin
	for {
		if l.dialOnce() {
			backoff = l.o.BackoffMin
		}
		// Jitter, so that the peers that lost one host do not all come back at the same moment.
		pause := time.NewTimer(backoff/2 + rand.N(backoff/2+1))
		select {
		case <-pause.C:
			backoff = min(2*backoff, l.o.BackoffMax)
		case <-l.hurry:
			backoff = l.o.BackoffMin
		case <-l.ctx.Done():
		}
		pause.Stop()
		if l.ctx.Err() != nil {
			return
		}
	}
}

// dialOnce makes one connection and runs it to its end. It reports whether the peer sent
// a frame or stayed for a while: one that accepts and closes at once must not make us dial
// without pause.
func (l *Link) dialOnce() (good bool) {
	ctx, cancel := context.WithTimeout(l.ctx, l.o.DialTimeout)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", l.addr)
	if err != nil {
		l.count(func(s *Stats) { s.Failed++ })
		return false
	}
	c := l.admit(conn.(*net.TCPConn), l)
	if c == nil {
		return false
	}
	born := time.Now()
	l.run(c)
	return c.framesIn.Load() > 0 || time.Since(born) > l.o.BackoffMax
}
