// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"runtime"
	"sync"
	"testing"
	"time"
)

// A link whose connection is killed comes back by itself, and drops and counts meanwhile.
func TestReconnect(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		up, down := make(chan *Conn, 9), make(chan *Conn, 9)
		accepted, got := make(chan *Conn, 9), make(chan string, 9)
		l := listen(t, o, funcs{
			opened: func(c *Conn) { accepted <- c },
			frames: func(_ *Conn, f [][]byte) { got <- string(f[0]) },
		})
		o.BackoffMin, o.BackoffMax = time.Millisecond, 5*time.Millisecond
		k := Dial(l.Addr().String(), o, funcs{
			opened: func(c *Conn) { c.Send([]byte("hello")); c.Flush(); up <- c },
			closed: func(c *Conn, _ error) { down <- c },
		})
		defer k.Close()
		for range 3 {
			c := await(t, up)
			if s := await(t, got); s != "hello" {
				t.Errorf("got %q", s)
			}
			await(t, accepted).Close()
			if await(t, down) != c || k.Conn() == c {
				t.Error("another connection went down")
			}
		}
		await(t, up)
		l.Close()
		await(t, down)
		if k.Up() || k.Send([]byte("x")) || k.Stats().Dropped == 0 {
			t.Error("sent while down")
		}
		// Another listener takes the same address.
		again, err := Listen(l.Addr().String(), o, funcs{})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		await(t, up)
		if s := k.Stats(); s.Opened < 5 || s.FramesOut < 5 {
			t.Errorf("got %+v", s)
		}
	})
}

// A link that is in a hurry does not sit out the pause that its failures have earned.
func TestHurry(t *testing.T) {
	o := Options{BackoffMin: time.Hour, BackoffMax: time.Hour}
	gone := listen(t, o, funcs{})
	addr := gone.Addr().String()
	gone.Close()
	up := make(chan *Conn, 1)
	k := Dial(addr, o, funcs{opened: func(c *Conn) { up <- c }})
	defer k.Close()
	for k.Stats().Failed == 0 {
		runtime.Gosched()
	}
	back, err := Listen(addr, o, funcs{})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	k.Hurry()
	await(t, up)
}

// Many goroutines share a connection: nothing is lost, and each one's frames stay in order.
func TestManySenders(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		const senders, each = 16, 200 // 29 MB, less than the queue holds
		done := make(chan [senders]uint64, 1)
		var next [senders]uint64
		total := 0
		o.Queue = 64 << 20
		l := listen(t, o, funcs{frames: func(_ *Conn, frames [][]byte) {
			for _, f := range frames {
				who, n := binary.LittleEndian.Uint64(f[8:]), binary.LittleEndian.Uint64(f)
				if next[who] != n {
					t.Errorf("sender %d: got %d, want %d", who, n, next[who])
				}
				next[who] = n + 1
				total++
			}
			if total == senders*each {
				done <- next
			}
		}})
		k, c := dial(t, l.Addr(), o, funcs{})
		var all sync.WaitGroup
		for who := range uint64(senders) {
			all.Go(func() {
				for n := range uint64(each) {
					b := numbered(n, 16+int(n%3)*9000)
					binary.LittleEndian.PutUint64(b[8:], who)
					if !c.Send(b) {
						t.Error("refused")
					}
					c.Flush()
				}
			})
		}
		all.Wait()
		await(t, done)
		if s := k.Stats(); s.FramesOut != senders*each || s.Dropped != 0 {
			t.Errorf("got %+v", s)
		}
		if s := l.Stats(); s.FramesIn != senders*each {
			t.Errorf("got %+v", s)
		}
	})
}

// Delayed frames leave no sooner than they may, and in order.
func TestDelay(t *testing.T) {
	overAll(t, func(t *testing.T, o Options) {
		const count = 50
		got := make(chan uint64, count)
		l := listen(t, o, funcs{frames: func(_ *Conn, frames [][]byte) {
			for _, f := range frames {
				got <- binary.LittleEndian.Uint64(f)
			}
		}})
		const delay = 5 * time.Millisecond
		o.Delay = func() time.Duration { return delay }
		_, c := dial(t, l.Addr(), o, funcs{})
		var sent [count]time.Time
		for n := range uint64(count) {
			sent[n] = time.Now()
			c.Send(numbered(n, 1000))
			c.Flush()
		}
		for want := range uint64(count) {
			n := await(t, got)
			if n != want {
				t.Fatalf("got frame %d, want %d", n, want)
			}
			if d := time.Since(sent[n]); d < delay {
				t.Errorf("frame %d came after %v, want >= %v", n, d, delay)
			}
		}
	})
}

// A frame longer than Keep is the handler's own: the handler may change it, and nothing
// else does.
func TestKeep(t *testing.T) {
	const count = 50
	done := make(chan [][]byte, 1)
	var kept [][]byte
	l := listen(t, Options{}, funcs{frames: func(_ *Conn, frames [][]byte) {
		kept = append(kept, frames...)
		if len(kept) == count {
			done <- kept
		}
	}})
	_, c := dial(t, l.Addr(), Options{}, funcs{})
	for n := range uint64(count) {
		c.Send(numbered(n, Keep+1))
		c.Flush()
	}
	for n, f := range await(t, done) {
		if got := binary.LittleEndian.Uint64(f); got != uint64(n) || len(f) != Keep+1 {
			t.Errorf("frame %d became %d", n, got)
		}
	}
}
