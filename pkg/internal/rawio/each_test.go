// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// each reads with Each into one buffer and passes the bytes to filled.
func (p *pair) each(size int, filled func(b []byte) error) error {
	b := make([]byte, size)
	return p.in.Each(func() []byte { return b }, func(n int) error { return filled(b[:n]) })
}

// Bytes written in many pieces are read completely, in buffers of any size, and then the
// end of file.
func TestEach(t *testing.T) {
	for _, size := range []int{1, 100, 16 << 10, 1 << 20} {
		withBoth(t, func(t *testing.T, p *pair) {
			want := bytes.Repeat([]byte("not all alike. "), 2000)
			go func() {
				for b := want; len(b) > 0; {
					n := min(len(b), 1+len(b)%5000)
					p.far.Write(b[:n])
					b = b[n:]
				}
				p.far.CloseWrite()
			}()
			var got []byte
			err := p.each(size, func(b []byte) error {
				got = append(got, b...)
				return nil
			})
			if err != io.EOF || !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
			}
		})
	}
}

// An error of filled ends the reading, and so does the deadline; both can be followed by
// another Each.
func TestEachGoesOn(t *testing.T) {
	withBoth(t, func(t *testing.T, p *pair) {
		enough := errors.New("enough")
		read := func() (got string, err error) {
			err = p.each(10, func(b []byte) error {
				got = string(b)
				return enough
			})
			return got, err
		}
		for _, want := range []string{"one", "two"} {
			p.far.Write([]byte(want))
			if got, err := read(); got != want || err != enough {
				t.Errorf("got %q, %v", got, err)
			}
			p.near.SetReadDeadline(time.Now().Add(time.Millisecond)) // not a limit: it is always reached
			if got, err := read(); got != "" || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("got %q, %v", got, err)
			}
			p.near.SetReadDeadline(time.Time{})
		}
	})
}

// Close ends a reader that waits, and one that always finds bytes.
func TestEachIsClosed(t *testing.T) {
	withBoth(t, func(t *testing.T, p *pair) {
		p.far.Write([]byte("x"))
		closed := make(chan struct{})
		if err := p.each(10, func([]byte) error {
			go func() { p.near.Close(); close(closed) }()
			return nil
		}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		<-closed
	})
	withBoth(t, func(t *testing.T, p *pair) {
		flood := make([]byte, 1<<16)
		go func() {
			for {
				if _, err := p.far.Write(flood); err != nil {
					return
				}
			}
		}()
		reads := 0
		if err := p.each(1, func([]byte) error {
			if reads++; reads == 10 {
				go p.near.Close()
			}
			return nil
		}); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
}

// A reader that always finds something makes some of its calls aloud.
func TestBusyEachIsHeard(t *testing.T) {
	silent, all := 0, 0
	p := connect(t, &Calls{Read: func(fd uintptr, p []byte) (int, error) {
		silent++
		return Silent.Read(fd, p)
	}})
	if _, err := p.far.Write(make([]byte, 10*aloud)); err != nil {
		t.Fatal(err)
	}
	p.each(1, func([]byte) error {
		if all++; all == 10*aloud {
			return io.EOF
		}
		return nil
	})
	if want := 10*aloud - 10; silent != want {
		t.Errorf("got %d silent reads, want %d", silent, want)
	}
}

// exchange has filled called for one small message after the other, each sent when the
// last was read.
func exchange(t *testing.T, calls *Calls) (next func(), stop func()) {
	p := connect(t, calls)
	read := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := p.each(1000, func([]byte) error {
			read <- struct{}{}
			return nil
		}); err != io.EOF {
			t.Errorf("got %v", err)
		}
	}()
	message := make([]byte, 10)
	return func() { p.far.Write(message); <-read }, func() { p.far.Close(); <-done }
}

// A message that is read with Each allocates nothing.
func TestEachAllocatesNothing(t *testing.T) {
	next, stop := exchange(t, &Silent)
	defer stop()
	if n := testing.AllocsPerRun(100, next); n != 0 {
		t.Errorf("got %v", n)
	}
}

// countEmpty makes silent calls, and counts those that find nothing.
func countEmpty(empty *atomic.Int32) *Calls {
	return &Calls{Read: func(fd uintptr, p []byte) (int, error) {
		n, err := Silent.Read(fd, p)
		if err == syscall.EAGAIN {
			empty.Add(1)
		}
		return n, err
	}}
}
