// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/internal/rawio"
)

// An endpoint keeps the connections of a Listener or a Link: it runs each from birth to end, and
// counts for those that are gone.
type endpoint struct {
	o Options
	h Handler

	ctx    context.Context // ends when the endpoint closes
	cancel context.CancelFunc

	mu      sync.Mutex
	pending pending // admitted, and not greeted yet
	conns   map[*Conn]struct{}
	perIP   map[string]int // of conns
	born    uint64         // connections so far
	gone    Stats
	tasks   sync.WaitGroup
}

func newEndpoint(o Options, h Handler) *endpoint {
	o = o.withDefaults()
	o.queued = new(atomic.Int64)
	if o.TLS != nil {
		o.TLS = hardened(o.TLS)
	}
	e := &endpoint{o: o, h: h, conns: make(map[*Conn]struct{}), perIP: make(map[string]int),
		pending: pending{hosts: make(map[string][]*Conn)}}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	return e
}

// close ends all connections and waits for all goroutines.
func (e *endpoint) close() {
	e.cancel()
	e.mu.Lock()
	for c := range e.conns {
		c.Close()
	}
	for _, all := range e.pending.hosts {
		for _, c := range all {
			c.Close()
		}
	}
	e.mu.Unlock()
	e.tasks.Wait()
}

// count changes what the endpoint counts for itself.
func (e *endpoint) count(f func(*Stats)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.gone)
}

// total returns the counts of all connections, open and closed.
func (e *endpoint) total() Stats {
	e.mu.Lock()
	defer e.mu.Unlock()
	s := e.gone
	for c := range e.conns {
		s.Add(c.Stats())
	}
	return s
}

// admit takes on a connection, or closes it if there is no room or the endpoint has closed. One
// that begins with a greeting is given its place behind it.
func (e *endpoint) admit(tcp *net.TCPConn, link *Link) *Conn {
	c, err := newConn(tcp, &e.o, e.h, link)
	if err != nil {
		_ = tcp.Close()
		return nil
	}
	c.host = hostOf(c)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.ctx.Err() != nil {
		c.Close()
		return nil
	}
	e.born++
	c.born = e.born
	if c.greets() {
		if displaced := e.pending.add(c); displaced != nil {
			e.gone.Refused++
			displaced.closeFor(ErrDisplaced)
		}
		return c
	}
	if !e.settle(c) {
		c.Close()
		return nil
	}
	return c
}

// settle gives a connection its place, if there is one. The caller holds the lock.
func (e *endpoint) settle(c *Conn) bool {
	if e.ctx.Err() != nil || c.link == nil && !e.makeRoom(c.host) {
		return false
	}
	e.conns[c] = struct{}{}
	e.perIP[c.host]++
	return true
}

// makeRoom reports whether there is room for one more from a host: a connection that is not kept
// gives its place up, the oldest first. So strangers can lock out only each other. The caller holds
// the lock.
func (e *endpoint) makeRoom(host string) bool {
	crowded := e.perIP[host] >= e.o.MaxConnsPerHost
	if !crowded && len(e.conns) < e.o.MaxConns {
		return true
	}
	e.gone.Refused++
	var oldest *Conn
	for c := range e.conns {
		if !c.kept.Load() && (!crowded || c.host == host) && (oldest == nil || c.born < oldest.born) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	e.remove(oldest)
	oldest.closeFor(ErrDisplaced)
	return true
}

// remove takes a connection off the table, if it is there. The caller holds the lock.
func (e *endpoint) remove(c *Conn) {
	if _, ok := e.conns[c]; !ok {
		return
	}
	delete(e.conns, c)
	if e.perIP[c.host]--; e.perIP[c.host] == 0 {
		delete(e.perIP, c.host)
	}
}

// dismiss forgets a connection that has ended.
func (e *endpoint) dismiss(c *Conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.remove(c)
	e.gone.Add(c.Stats())
}

// run runs an admitted connection to its end.
func (e *endpoint) run(c *Conn) {
	defer e.dismiss(c)
	defer c.helpers.Wait()
	if !e.enter(c) {
		return
	}
	setSocketOptions(c.tcp, &e.o)
	if err := c.handshake(); err != nil {
		c.closeFor(err)
		e.count(func(s *Stats) { s.Failed++ })
		if h, ok := e.h.(HandshakeHandler); ok {
			h.HandshakeFailed(c, err)
		}
		return
	}
	c.count(func(s *Stats) { s.Opened++ })
	e.h.Opened(c)
	if c.link != nil {
		c.link.up.Store(c)
	}
	err := c.read()
	if c.link != nil {
		c.link.up.Store(nil)
	}
	c.closeFor(err)
	c.helpers.Wait()
	c.count(func(s *Stats) { s.Closed++ })
	e.h.Closed(c, c.why)
}

// count changes what the connection counts.
func (c *Conn) count(f func(*Stats)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.stats)
}

func hostOf(c *Conn) string {
	if a, ok := c.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return ""
}

// setSocketOptions sets the options of a socket for small urgent messages. A failure costs
// speed, not correctness, and a socket that is already closed is noticed when it is read.
func setSocketOptions(tcp *net.TCPConn, o *Options) {
	_ = tcp.SetNoDelay(true)
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
		Enable: true, Idle: 10 * time.Second, Interval: 5 * time.Second, Count: 3,
	})
	if o.SocketBuffer > 0 {
		_ = tcp.SetReadBuffer(o.SocketBuffer)
		_ = tcp.SetWriteBuffer(o.SocketBuffer)
	}
	setUserTimeout(tcp, o.Stall)
	detach(tcp) // a filter of the listener's, see sieve, which would look at each segment
	if raw, err := tcp.SyscallConn(); err == nil {
		rawio.Unpaced(raw)
	}
}
