// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"
)

// A pair is a TCP connection and its other end.
type pair struct {
	near, far *net.TCPConn
	nearRaw   syscall.RawConn
	in        *Reader // of near
	calls     *Calls
}

// withBoth runs a test with each way of making calls.
func withBoth(t *testing.T, f func(t *testing.T, p *pair)) {
	t.Run("silent", func(t *testing.T) { f(t, connect(t, &Silent)) })
	t.Run("ordinary", func(t *testing.T) { f(t, connect(t, &Ordinary)) })
}

func connect(t testing.TB, calls *Calls) *pair {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	far, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close(); near.Close() })
	p := &pair{near: near.(*net.TCPConn), far: far.(*net.TCPConn), calls: calls}
	if p.nearRaw, err = p.near.SyscallConn(); err != nil {
		t.Fatal(err)
	}
	p.in = NewReader(p.nearRaw, calls)
	return p
}

// write writes slices to the socket, all of them, waiting where it is full.
func (p *pair) write(t testing.TB, slices [][]byte) {
	t.Helper()
	var failed error
	err := p.nearRaw.Write(func(fd uintptr) bool {
		for len(slices) > 0 {
			n, err := p.calls.Write(fd, slices)
			if err == syscall.EAGAIN {
				return false
			}
			if failed = err; err != nil {
				return true
			}
			for len(slices) > 0 && n >= len(slices[0]) {
				n -= len(slices[0])
				slices = slices[1:]
			}
			if n > 0 {
				slices[0] = slices[0][n:]
			}
		}
		return true
	})
	if err = errors.Join(err, failed); err != nil {
		t.Error(err)
	}
}

// Bytes written in many pieces of many sizes are read completely, and then the end of file.
func TestReadWhatIsWritten(t *testing.T) {
	withBoth(t, func(t *testing.T, p *pair) {
		raw, err := p.far.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		back := NewReader(raw, p.calls)
		var all [][]byte
		for i, size := range []int{1, 0, 100, 64, 64, 64, 64, 64, 64, 64, 64, 9000, 200_000, 1 << 20, 3} {
			all = append(all, bytes.Repeat([]byte{byte(i + 1)}, size))
		}
		want := bytes.Join(all, nil)
		done := make(chan struct{})
		go func() {
			defer close(done)
			p.write(t, all[:1])
			p.write(t, all[1:3])
			p.write(t, all[3:])
			p.near.CloseWrite()
		}()
		got, err := io.ReadAll(back)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
		}
		<-done
	})
}

// An empty socket and a full one return EAGAIN to a caller that does not wait.
func TestWouldBlock(t *testing.T) {
	withBoth(t, func(t *testing.T, p *pair) {
		err := p.nearRaw.Control(func(fd uintptr) {
			if n, err := p.calls.Read(fd, make([]byte, 10)); n != 0 || err != syscall.EAGAIN {
				t.Errorf("got %d, %v from an empty socket", n, err)
			}
			some := [][]byte{make([]byte, 50_000), make([]byte, 50_000)}
			var err error
			n := 0
			for range 10_000 {
				if n, err = p.calls.Write(fd, some); err != nil {
					break
				}
			}
			if n != 0 || err != syscall.EAGAIN {
				t.Errorf("got %d, %v from a full socket", n, err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// A reader that waits is ended by its deadline, goes on when there is another, and is
// ended for good by Close and by a reset.
func TestEndOfWaiting(t *testing.T) {
	withBoth(t, func(t *testing.T, p *pair) {
		b := make([]byte, 10)
		p.near.SetReadDeadline(time.Now().Add(time.Millisecond)) // not a limit: it is always reached
		if n, err := p.in.Read(b); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("got %d, %v", n, err)
		}
		p.near.SetReadDeadline(time.Time{})
		p.far.Write([]byte("x"))
		if n, err := p.in.Read(b); n != 1 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
		if n, err := p.in.Read(nil); n != 0 || err != nil {
			t.Errorf("got %d, %v for nothing", n, err)
		}
		ended := make(chan error, 1)
		go func() {
			_, err := p.in.Read(make([]byte, 10))
			ended <- err
		}()
		p.near.Close()
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
		if _, err := p.in.Read(b); !errors.Is(err, net.ErrClosed) {
			t.Errorf("got %v", err)
		}
	})
	withBoth(t, func(t *testing.T, p *pair) {
		p.far.SetLinger(0)
		p.far.Close()
		if _, err := p.in.Read(make([]byte, 10)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("got %v", err)
		}
		if err := p.nearRaw.Control(func(fd uintptr) {
			if n, err := p.calls.Write(fd, [][]byte{{1}}); n != 0 || err != syscall.EPIPE {
				t.Errorf("got %d, %v", n, err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	})
}

// A reader that never has to wait makes some of its calls aloud.
func TestBusyReaderIsHeard(t *testing.T) {
	silent := 0
	p := connect(t, &Calls{Read: func(fd uintptr, p []byte) (int, error) {
		n, err := Silent.Read(fd, p)
		if err == nil {
			silent++
		}
		return n, err
	}})
	if _, err := p.far.Write(make([]byte, 10*aloud)); err != nil {
		t.Fatal(err)
	}
	for range 10 * aloud {
		if _, err := p.in.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	if want := 10*aloud - 10; silent != want {
		t.Errorf("got %d silent reads, want %d", silent, want)
	}
}

// A message written and read allocates nothing.
func TestNoAllocations(t *testing.T) {
	p := connect(t, &Silent)
	out, err := p.far.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	slices := [][]byte{make([]byte, 10), make([]byte, 20)}
	write := func(fd uintptr) { Silent.Write(fd, slices) }
	b := make([]byte, 100)
	if n := testing.AllocsPerRun(100, func() {
		if err := out.Control(write); err != nil {
			t.Fatal(err)
		}
		if n, err := p.in.Read(b); n != 30 || err != nil {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("got %v", n)
	}
}

// BenchmarkMessage sends one small message and reads it, and asks whether there is another.
func BenchmarkMessage(b *testing.B) {
	for name, calls := range map[string]*Calls{"silent": &Silent, "ordinary": &Ordinary} {
		b.Run(name, func(b *testing.B) {
			p := connect(b, calls)
			back, err := p.far.SyscallConn()
			if err != nil {
				b.Fatal(err)
			}
			slices := [][]byte{make([]byte, 64)}
			write := func(fd uintptr) { calls.Write(fd, slices) }
			buf := make([]byte, 16<<10)
			ask := func(fd uintptr) { calls.Read(fd, buf) }
			b.ReportAllocs()
			for b.Loop() {
				back.Control(write)
				if n, err := p.in.Read(buf); n != 64 || err != nil {
					b.Fatal(n, err)
				}
				p.nearRaw.Control(ask)
			}
		})
	}
}
