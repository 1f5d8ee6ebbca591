package transport

import (
	"errors"
	"fmt"
	"net"
	"time"
)

// A Listener accepts connections until it is closed.
type Listener struct {
	*endpoint
	tcp *net.TCPListener
}

// Listen accepts connections on addr, "host:port", and tells h what happens on them.
func Listen(addr string, o Options, h Handler) (*Listener, error) {
	a, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("transport: listen on %s: %w", addr, err)
	}
	tcp, err := net.ListenTCP("tcp", a)
	if err != nil {
		return nil, fmt.Errorf("transport: %w", err)
	}
	l := &Listener{endpoint: newEndpoint(o, h), tcp: tcp}
	l.tasks.Go(l.accept)
	return l, nil
}

// Addr returns the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.tcp.Addr() }

// Stats returns what was counted on all connections accepted so far.
func (l *Listener) Stats() Stats { return l.total() }

// Close stops accepting, closes all connections, and waits until their handlers have been told.
// It must not be called by a handler.
func (l *Listener) Close() {
	_ = l.tcp.Close()
	l.close()
}

func (l *Listener) accept() {
	for {
		tcp, err := l.tcp.AcceptTCP()
		switch {
		case err == nil:
			if c := l.admit(tcp, nil); c != nil {
				l.tasks.Go(func() { l.run(c) })
			}
		case errors.Is(err, net.ErrClosed):
			return
		default: // the process has no descriptor left, or the peer no patience: try again
			l.count(func(s *Stats) { s.Failed++ })
			if !l.pause(l.o.BackoffMin) {
				return
			}
		}
	}
}

// pause waits for d; false if the endpoint closed meanwhile.
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
