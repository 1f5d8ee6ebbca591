// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	hang "bfs/test/patience" // this package has a patience of its own
)

// A peer that reads nothing fills its own queue and no other; when it reads again, what was
// accepted arrives complete and in order.
func TestSlowReader(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		gate := make(chan struct{})
		var open sync.Once
		defer open.Do(func() { close(gate) })
		got := make(chan uint64, 1<<16)
		deaf := listen(t, o, funcs{frames: func(_ *Conn, frames [][]byte) {
			<-gate
			for _, f := range frames {
				got <- binary.LittleEndian.Uint64(f)
			}
		}})
		quick := make(chan struct{}, 1)
		awake := listen(t, o, funcs{frames: func(*Conn, [][]byte) { quick <- struct{}{} }})

		o.Queue = 1 << 20
		_, slow := dial(t, deaf.Addr(), o, funcs{})
		_, other := dial(t, awake.Addr(), o, funcs{})
		sent := uint64(0)
		for slow.Send(numbered(sent, 64<<10)) { // until the socket and the queue are full
			sent++
			slow.Flush() // returns, or the test hangs
			if sent > 4096 {
				t.Fatal("the queue has no bound")
			}
		}
		if q := slow.Queued(); q > o.Queue {
			t.Errorf("got %d bytes queued, want <= %d", q, o.Queue)
		}
		if s := slow.Stats(); s.Dropped != 1 || s.FramesOut != sent {
			t.Errorf("got %+v, want 1 dropped of %d", s, sent+1)
		}
		other.Send([]byte("hello"))
		other.Flush()
		await(t, quick)

		open.Do(func() { close(gate) })
		for want := range sent {
			if n := await(t, got); n != want {
				t.Fatalf("got frame %d, want %d", n, want)
			}
		}
	})
}

// A peer that takes nothing for too long is given up.
func TestStall(t *testing.T) {
	why := make(chan error, 1)
	opened := make(chan *Conn, 1)
	l := listen(t, Options{Stall: 50 * time.Millisecond}, funcs{
		opened: func(c *Conn) { opened <- c },
		closed: func(_ *Conn, err error) { why <- err },
	})
	stranger(t, l.Addr())
	c := await(t, opened)
	for c.Send(make([]byte, 1<<20)) {
		c.Flush()
	}
	c.Flush()
	if err := await(t, why); err == nil { // from us or from the kernel, which watches too
		t.Error("got no reason")
	}
	if c.Send(nil) {
		t.Error("sent on a closed connection")
	}
}

// A peer that connects and is silent, or begins a frame and does not end it, is
// disconnected. A peer that has sent a whole frame in time may then be silent.
func TestHalfOpen(t *testing.T) {
	for name, test := range map[string]struct {
		o    Options
		says []byte
	}{
		"silent":           {Options{FirstFrame: time.Millisecond}, nil},
		"partial first":    {Options{FirstFrame: time.Millisecond}, []byte{5, 0, 0, 0, 'x'}},
		"partial second":   {Options{PartialFrame: time.Millisecond}, []byte{1, 0, 0, 0, 'x', 1, 0}},
		"partial large":    {Options{PartialFrame: time.Millisecond}, []byte{0, 0, 0, 0, 0, 0, 1, 0, 'x'}},
		"never trusted":    {Options{FirstFrame: time.Millisecond, StrangerFrame: 9}, []byte{1, 0, 0, 0, 'x'}},
		"too long a hello": {Options{StrangerFrame: 1}, []byte{2, 0, 0, 0, 'x'}},
	} {
		t.Run(name, func(t *testing.T) {
			why := make(chan error, 1)
			l := listen(t, test.o, funcs{closed: func(_ *Conn, err error) { why <- err }})
			raw := stranger(t, l.Addr())
			_, _ = raw.Write(test.says) // fails if it is given up before
			if err := await(t, why); !errors.Is(err, ErrLate) && !errors.Is(err, ErrOversized) {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A deadline that strikes when nothing is awaited ends nothing.
func TestPatience(t *testing.T) {
	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	stranger(t, l.Addr())
	c, err := l.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	strike := func() {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("read something")
		}
	}
	p := patience{conn: c, limit: time.Millisecond}
	p.begin()
	p.end()
	strike()
	if p.lost() || !p.armed.IsZero() {
		t.Error("waited for nothing")
	}
	p.begin()
	strike()
	p.since = time.Now().Add(time.Hour) // as if another frame had begun meanwhile
	if p.lost() {
		t.Error("blamed a frame for another")
	}
	p.since = time.Now().Add(-time.Hour)
	if !p.lost() {
		t.Error("waits for ever")
	}
}

// Connections beyond the bounds are closed at once, and room is made by those that go.
func TestMaxConns(t *testing.T) {
	for name, o := range map[string]Options{"all": {MaxConns: 2, MaxConnsPerHost: 9}, "host": {MaxConnsPerHost: 2}} {
		t.Run(name, func(t *testing.T) {
			opened, closed := make(chan *Conn, 9), make(chan error, 9)
			l := listen(t, o, funcs{
				opened: func(c *Conn) { opened <- c },
				closed: func(_ *Conn, err error) { closed <- err },
			})
			first := stranger(t, l.Addr())
			await(t, opened)
			stranger(t, l.Addr())
			await(t, opened)
			third := stranger(t, l.Addr())
			if n, err := third.Read(make([]byte, 1)); n != 0 || !isEnd(err) {
				t.Fatalf("got %d, %v, want the end", n, err)
			}
			if s := l.Stats(); s.Refused != 1 || s.Opened != 2 {
				t.Errorf("got %+v", s)
			}
			_ = first.Close()
			if err := await(t, closed); !errors.Is(err, io.EOF) {
				t.Errorf("got %v", err)
			}
			for room := false; !room; { // the handler is told a moment before there is room
				ended := ends(stranger(t, l.Addr()))
				select {
				case <-opened:
					room = true
				case <-ended:
				case <-hang.After(hang.Usual):
					t.Fatal("a connection was neither taken nor refused")
				}
			}
		})
	}
}

// ends returns a channel that is closed when the other end says something, or has gone.
func ends(c net.Conn) <-chan struct{} {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = c.Read(make([]byte, 1))
	}()
	return ended
}

// Strangers that take all places make room for newer connections, which may turn out to be
// known, and so do connections that are not needed any more. A known peer keeps its place.
func TestStrangersMakeRoom(t *testing.T) {
	for name, o := range map[string]Options{"all": {MaxConns: 3, MaxConnsPerHost: 9}, "host": {MaxConnsPerHost: 3}} {
		t.Run(name, func(t *testing.T) {
			o.StrangerFrame = 16
			opened, closed := make(chan *Conn, 9), make(chan *Conn, 9)
			l := listen(t, o, funcs{
				opened: func(c *Conn) { opened <- c },
				closed: func(c *Conn, err error) {
					if errors.Is(err, ErrDisplaced) {
						closed <- c
					}
				},
			})
			connect := func() *Conn {
				t.Helper()
				stranger(t, l.Addr())
				return await(t, opened)
			}
			displaced := func(want *Conn) {
				t.Helper()
				if await(t, closed) != want {
					t.Error("another one had to go")
				}
			}
			first, second, third := connect(), connect(), connect()
			first.Trust()
			fourth := connect()
			displaced(second)
			third.Trust()
			fourth.Trust()
			late := stranger(t, l.Addr())
			if n, err := late.Read(make([]byte, 1)); n != 0 || !isEnd(err) {
				t.Fatalf("got %d, %v, want the end", n, err)
			}
			third.Release()
			connect()
			displaced(third)
		})
	}
}

// Closed comes once, whichever side closes and however often.
func TestClosedOnce(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		var mu sync.Mutex
		told := map[*Conn]int{}
		h := funcs{
			opened: func(c *Conn) { c.Send(make([]byte, 1<<20)); c.Flush() },
			frames: func(c *Conn, _ [][]byte) { c.Close() },
			closed: func(c *Conn, _ error) { mu.Lock(); told[c]++; mu.Unlock() },
		}
		l := listen(t, o, h)
		k, c := dial(t, l.Addr(), o, h)
		var all sync.WaitGroup
		for range 8 {
			all.Go(c.Close)
			all.Go(func() { c.Send([]byte("x")); c.Flush() })
			all.Go(k.Close)
		}
		all.Wait()
		l.Close()
		k.Close()
		if told[c] != 1 {
			t.Errorf("got %d times, want once", told[c])
		}
		for _, n := range told {
			if n != 1 {
				t.Errorf("got %d times, want once", n)
			}
		}
		if s := k.Stats(); s.Opened != s.Closed {
			t.Errorf("got %+v", s)
		}
	})
}

// A hushed connection is not read until the pause is over, and closing ends the pause.
func TestHush(t *testing.T) {
	hushed, closed := make(chan struct{}), make(chan error, 1)
	l := listen(t, Options{}, funcs{
		frames: func(c *Conn, _ [][]byte) { c.Hush(time.Hour); close(hushed) },
		closed: func(_ *Conn, err error) { closed <- err },
	})
	_, c := dial(t, l.Addr(), Options{}, funcs{})
	c.Send([]byte("x"))
	c.Flush()
	await(t, hushed)
	c.Send([]byte("x")) // would close hushed again
	c.Flush()
	l.Close()
	if err := await(t, closed); err != nil {
		t.Errorf("got %v", err)
	}
}

// A connection may be closed under a lock that its handler waits for.
func TestCloseUnderTheHandlersLock(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		var mu sync.Mutex
		called, why := make(chan *Conn, 1), make(chan error, 1)
		l := listen(t, o, funcs{
			frames: func(c *Conn, _ [][]byte) {
				called <- c
				mu.Lock()
				defer mu.Unlock()
			},
			closed: func(_ *Conn, err error) { why <- err },
		})
		mu.Lock()
		_, c := dial(t, l.Addr(), o, funcs{})
		c.Send([]byte("x"))
		c.Flush()
		await(t, called).Close()
		mu.Unlock()
		if err := await(t, why); err != nil {
			t.Errorf("got %v", err)
		}
	})
}
