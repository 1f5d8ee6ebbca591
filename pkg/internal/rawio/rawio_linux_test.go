// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"errors"
	"io"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// The end of a stream is seen also if the last bytes came in one segment with it.
func TestEndTogetherWithBytes(t *testing.T) {
	t.Run("Read", func(t *testing.T) {
		testEndTogetherWithBytes(t, func(p *pair) (string, error) {
			b, err := io.ReadAll(p.in)
			return string(b), err
		})
	})
	t.Run("Each", func(t *testing.T) {
		testEndTogetherWithBytes(t, func(p *pair) (got string, err error) {
			err = p.each(100, func(b []byte) error {
				got += string(b)
				return nil
			})
			if err == io.EOF {
				err = nil
			}
			return got, err
		})
	})
}

func testEndTogetherWithBytes(t *testing.T, read func(p *pair) (string, error)) {
	withBoth(t, func(t *testing.T, p *pair) {
		raw, err := p.far.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		reading := make(chan error, 1)
		go func() {
			got, err := read(p)
			if got != "last words" {
				t.Errorf("got %q", got)
			}
			reading <- err
		}()
		if err := raw.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1)
		}); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.far.Write([]byte("last words")); err != nil {
			t.Fatal(err)
		}
		if err := p.far.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-reading; err != nil {
			t.Error(err)
		}
	})
}

// The end of a stream is seen, and a reset, also if it came with the last bytes while the
// reader was busy with others: then the poller tells of all of it once.
func TestEndWhileBusy(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(p *pair)
		want error
	}{
		"end":   {func(p *pair) { p.far.Close() }, io.EOF},
		"reset": {func(p *pair) { p.far.SetLinger(0); p.far.Close() }, syscall.ECONNRESET},
	} {
		t.Run(name, func(t *testing.T) {
			withBoth(t, func(t *testing.T, p *pair) {
				p.far.Write([]byte("first"))
				reads := 0
				err := p.each(100, func([]byte) error {
					if reads++; reads > 1 {
						return nil
					}
					p.far.Write([]byte("last"))
					test.end(p)
					awaitEnd(t, p)
					// A goroutine that waits for another connection has had the poller
					// report this one.
					other := connect(t, &Silent)
					go other.far.Write([]byte("x"))
					_, err := other.in.Read(make([]byte, 1))
					return err
				})
				if !errors.Is(err, test.want) || test.want == io.EOF && reads != 2 {
					t.Errorf("got %v after %d reads", err, reads)
				}
			})
		})
	}
}

// awaitEnd waits until the kernel has the end of the stream, read or not.
func awaitEnd(t *testing.T, p *pair) {
	t.Helper()
	if err := p.nearRaw.Control(func(fd uintptr) {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		if n, err := again(func() (int, error) { return unix.Poll(poll, 10_000) }); n != 1 || err != nil {
			t.Errorf("got %d, %v", n, err)
		}
	}); err != nil {
		t.Error(err)
	}
}

// A reader does not ask after each message whether there is another.
func TestEachAsksOnce(t *testing.T) {
	if n, messages := emptyReads(t); n > messages/10 {
		t.Errorf("got %d reads that found nothing for %d messages", n, messages)
	}
}

// A reader makes the extra call where the end is not watched.
func TestEachUnwatched(t *testing.T) {
	defer func(limit int) { maxWatched = limit }(maxWatched)
	maxWatched = 0
	if n, messages := emptyReads(t); n < messages/2 {
		t.Errorf("got %d reads that found nothing for %d messages", n, messages)
	}
}

// emptyReads counts the reads that find nothing while messages come one by one.
func emptyReads(t *testing.T) (n, messages int32) {
	var empty atomic.Int32
	next, stop := exchange(t, countEmpty(&empty))
	for messages < 100 {
		next()
		messages++
	}
	stop()
	return empty.Load(), messages
}

// The epoll instance for ends exists while streams are read, and no longer.
func TestEndsAreForgotten(t *testing.T) {
	var stops []func()
	for range 3 {
		next, stop := exchange(t, &Silent)
		next()
		stops = append(stops, stop)
	}
	watched := func() (n int, open bool) {
		ends.mu.Lock()
		defer ends.mu.Unlock()
		return len(ends.watched), ends.epoll != nil
	}
	for i, stop := range stops {
		if n, open := watched(); n != 3-i || !open {
			t.Errorf("got %d watched, open %v, want %d", n, open, 3-i)
		}
		stop()
	}
	if n, open := watched(); n != 0 || open {
		t.Errorf("got %d watched, open %v, at the end", n, open)
	}
}
