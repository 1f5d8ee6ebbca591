package rawio

import (
	"io"
	"testing"

	"golang.org/x/sys/unix"
)

// The end of a stream is seen also if the last bytes came in one segment with it.
func TestEndTogetherWithBytes(t *testing.T) {
	withBoth(t, func(t *testing.T, p *pair) {
		raw, err := p.far.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		reading := make(chan error, 1)
		go func() {
			got, err := io.ReadAll(p.in)
			if string(got) != "last words" {
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
