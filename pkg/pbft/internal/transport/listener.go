// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"
)

// A Listener accepts connections until it is closed.
type Listener struct {
	*endpoint
	tcp      *net.TCPListener
	arrivals *arrivals
}

// Listen accepts connections on addr, "host:port", and tells h what happens on them.
func Listen(addr string, o Options, h Handler) (*Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("transport: listen on %s: %w", addr, err)
	}
	tcp, err := listenTCP(a.String())
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	l := &Listener{endpoint: newEndpoint(o, h), tcp: tcp, arrivals: newArrivals(o.Named)}
	l.tasks.Go(l.accept)
	return l, nil
}

// listenTCP listens for plain TCP, since the kernel has no sieve for multipath TCP.
// Socket options are set when a connection has been greeted, and not of each that comes.
func listenTCP(addr string) (*net.TCPListener, error) {
	config := net.ListenConfig{KeepAlive: -1}
	config.SetMultipathTCP(false)
	l, err := config.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, err
	}
	return l.(*net.TCPListener), nil
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Welcome says that the peer of a connection is known: from now on connections from its
// address have a share of their own, apart from strangers'.
func (l *Listener) Welcome(c *Conn) { l.arrivals.welcome(addressOf(c.tcp), time.Now()) }

// Stats returns the counts of all connections accepted so far.
func (l *Listener) Stats() Stats { return l.total() }

// Close stops accepting, closes all connections, and waits until their handlers have been told.
// It must not be called by a handler.
func (l *Listener) Close() {
	_ = l.tcp.Close()
	l.close()
}

func (l *Listener) accept() {
	for refused := 0; ; {
		tcp, err := l.tcp.AcceptTCP()
		switch {
		case err == nil && l.o.Admit != nil && !l.arrives(tcp):
			_ = tcp.SetLinger(0) // the kernel forgets it at once
			_ = tcp.Close()
			if refused++; refused%refusedAtOnce == 0 && !l.pause(refusedPause) {
				return
			}
		case err == nil:
			if c := l.admit(tcp, nil); c != nil {
				l.tasks.Go(func() { l.run(c) })
			}
		case errors.Is(err, net.ErrClosed):
			return
		default: // the process has no descriptor left, or the peer has given up: try again
			l.count(func(s *Stats) { s.Failed++ })
			if !l.pause(l.o.BackoffMin) {
				return
			}
		}
	}
}

// arrives reports whether a connection is within its address's share.
func (l *Listener) arrives(tcp *net.TCPConn) bool {
	ok, begun := l.arrivals.take(addressOf(tcp), time.Now())
	if begun {
		l.tasks.Go(l.sift)
	}
	if !ok {
		l.count(func(s *Stats) { s.Refused++ })
	}
	return ok
}

// sift makes the kernel drop SYNs of addresses that are in flood, until none is.
func (l *Listener) sift() {
	defer detach(l.tcp)
	for open := true; open; open = l.pause(floodTick) {
		s, tell, over := l.arrivals.tick(time.Now())
		if over {
			return
		}
		_ = s.attach(l.tcp) // without the sieve they are closed when they are accepted
		if l.o.Flooded != nil {
			for _, from := range tell {
				l.o.Flooded(from)
			}
		}
	}
}

// Floods returns how many addresses are in flood, see Options.Flooded; all that are not
// known count as one more if they are together.
func (l *Listener) Floods() int { return l.arrivals.floods() }

// A flood is refused in bursts with pauses between, because a wake-up for each connection
// costs more than closing it. The kernel's queue holds the connections that come meanwhile.
const (
	refusedAtOnce = 64
	refusedPause  = 2 * time.Millisecond
)

// pause waits for d. It returns false if the endpoint closed meanwhile.
func (e *endpoint) pause(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-e.ctx.Done():
		return false
	}
}
