// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"bfs/pkg/internal/rawio"
	hang "bfs/test/patience" // this package has a patience of its own
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// funcs is a Handler made of functions, any of which may be missing.
type funcs struct {
	opened func(*Conn)
	frames func(*Conn, [][]byte)
	closed func(*Conn, error)
}

func (f funcs) Opened(c *Conn) {
	if f.opened != nil {
		f.opened(c)
	}
}

func (f funcs) Frames(c *Conn, frames [][]byte) {
	if f.frames != nil {
		f.frames(c, frames)
	}
}

func (f funcs) Closed(c *Conn, err error) {
	if f.closed != nil {
		f.closed(c, err)
	}
}

// listen starts a listener on the loopback that ends with the test.
func listen(t testing.TB, o Options, h Handler) *Listener {
	t.Helper()
	l, err := Listen("127.0.0.1:0", o, h)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// dial starts a link that ends with the test, and returns it with its first connection.
func dial(t testing.TB, addr net.Addr, o Options, h funcs) (*Link, *Conn) {
	t.Helper()
	up := make(chan *Conn, 1)
	opened := h.opened
	h.opened = func(c *Conn) {
		if opened != nil {
			opened(c)
		}
		select {
		case up <- c:
		default:
		}
	}
	k := Dial(addr.String(), o, h)
	t.Cleanup(k.Close)
	return k, await(t, up)
}

// stranger makes a bare TCP connection that ends with the test.
func stranger(t testing.TB, addr net.Addr) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// await receives from c, and fails the test if nothing comes.
func await[T any](t testing.TB, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-hang.After(hang.Usual):
		t.Fatal("nothing came")
		panic("unreachable")
	}
}

func numbered(n uint64, size int) []byte {
	b := make([]byte, size)
	binary.LittleEndian.PutUint64(b, n)
	return b
}

// overAll runs a test over plain TCP and over TLS, with silent system calls and with ordinary ones.
func overAll(t *testing.T, f func(t *testing.T, o Options)) {
	t.Run("plain", func(t *testing.T) { f(t, Options{}) })
	t.Run("tls", func(t *testing.T) { f(t, Options{TLS: hostTLS(t)}) })
	t.Run("plain/ordinary", func(t *testing.T) { f(t, Options{calls: &rawio.Ordinary}) })
	t.Run("tls/ordinary", func(t *testing.T) { f(t, Options{calls: &rawio.Ordinary, TLS: hostTLS(t)}) })
}

func hostTLS(t testing.TB) *tls.Config {
	t.Helper()
	cert, _, err := NewHostTLS()
	if err != nil {
		t.Fatal(err)
	}
	return HostTLS(func() *tls.Certificate { return &cert })
}

// Frames of all sizes arrive complete and in the order sent, both ways at once.
func TestOrder(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		const count = 2000
		sizeOf := func(n uint64) int {
			if n%100 == 0 {
				return 100_000 + int(n)
			}
			return 8 + int(n*n%(Keep+100))
		}
		check := func(done chan<- error) funcs {
			next := uint64(0)
			return funcs{frames: func(_ *Conn, frames [][]byte) {
				for _, f := range frames {
					if n := binary.LittleEndian.Uint64(f); n != next || len(f) != sizeOf(n) {
						done <- errors.New("out of order")
						return
					}
					if next++; next == count {
						done <- nil
					}
				}
			}}
		}
		o.Queue = 64 << 20
		there, back := make(chan error, 1), make(chan error, 1)
		server := check(there)
		accepted := make(chan *Conn, 1)
		server.opened = func(c *Conn) { accepted <- c }
		l := listen(t, o, server)
		_, c := dial(t, l.Addr(), o, check(back))
		s := await(t, accepted)
		var senders sync.WaitGroup
		for _, c := range []*Conn{c, s} {
			senders.Go(func() {
				for n := range uint64(count) {
					b := numbered(n, sizeOf(n))
					if !c.Send(b[:3], nil, b[3:]) {
						t.Error("refused")
					}
					if n%7 == 0 {
						c.Flush()
					}
				}
				c.Flush()
			})
		}
		senders.Wait()
		for _, done := range []chan error{there, back} {
			if err := await(t, done); err != nil {
				t.Error(err)
			}
		}
	})
}

// A sequence of sends and one flush is one system call.
func TestOneWrite(t *testing.T) {
	got := make(chan int, 100)
	l := listen(t, Options{}, funcs{frames: func(_ *Conn, f [][]byte) { got <- len(f) }})
	_, c := dial(t, l.Addr(), Options{}, funcs{})
	for range 100 {
		c.Send(make([]byte, 64))
	}
	c.Flush()
	for n := 0; n < 100; {
		n += await(t, got)
	}
	if s := c.Stats(); s.Writes != 1 || s.Flushes != 1 || s.FramesOut != 100 {
		t.Errorf("got %+v, want one write", s)
	}
}

// A frame longer than MaxFrame ends the connection, after the frames before it; we send none.
func TestOversized(t *testing.T) {
	why, got := make(chan error, 1), make(chan int, 1)
	o := Options{MaxFrame: 100}
	l := listen(t, o, funcs{
		frames: func(_ *Conn, f [][]byte) { got <- len(f) },
		closed: func(_ *Conn, err error) { why <- err },
	})
	raw := stranger(t, l.Addr())
	if _, err := raw.Write([]byte{1, 0, 0, 0, 'x', 0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if n := await(t, got); n != 1 {
		t.Errorf("got %d frames before the bad one, want 1", n)
	}
	if err := await(t, why); !errors.Is(err, ErrOversized) {
		t.Errorf("got %v", err)
	}
	if n, err := raw.Read(make([]byte, 1)); n != 0 || !isEnd(err) {
		t.Errorf("got %d, %v, want the end", n, err)
	}
	_, c := dial(t, l.Addr(), o, funcs{})
	if c.Send(make([]byte, 101)) || c.Stats().Oversized != 1 {
		t.Error("sent an oversized frame")
	}
}

// isEnd reports whether err says that the peer has gone; over TCP that has two forms.
func isEnd(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op) && !errors.Is(err, os.ErrDeadlineExceeded)
}

// The bytes that wait on all accepted connections are bounded together. Peers that take nothing
// leave as much as the greediest of them has, and one that has none waiting gets a frame at least.
func TestQueueAll(t *testing.T) {
	const frame = 1000 - headerSize
	opened := make(chan *Conn, 1)
	l := listen(t, Options{QueueAll: 12 * 1000}, funcs{opened: func(c *Conn) { opened <- c }})
	fill := func(c *Conn) (n int) { // nothing leaves without a Flush
		for n < 100 && c.Send(make([]byte, frame)) {
			n++
		}
		return n
	}
	accepted := func() *Conn {
		stranger(t, l.Addr())
		return await(t, opened)
	}
	first := accepted()
	for i, want := range []int{6, 3, 1, 1, 1, 1, 1} {
		c := first
		if i > 0 {
			c = accepted()
		}
		if !c.Fits(frame) {
			t.Errorf("connection %d: a frame has no room", i)
		}
		if got := fill(c); got != want || c.Fits(frame) {
			t.Errorf("connection %d: %d frames wait, and room for another: %t, want %d", i, got, c.Fits(frame), want)
		}
	}
	first.Close()
	if c := accepted(); fill(c) != 2 {
		t.Errorf("%d bytes wait when a connection has closed, want two frames", c.Queued())
	}
}
