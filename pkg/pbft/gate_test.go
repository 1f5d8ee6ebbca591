// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A recorder forwards connections to a replica and keeps what the dialler said on each.
type recorder struct {
	l    net.Listener
	mu   sync.Mutex
	said [][]byte
	all  sync.WaitGroup
}

func newRecorder(t testing.TB, to string) *recorder {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{l: l}
	r.all.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			r.mu.Lock()
			i := len(r.said)
			r.said = append(r.said, nil)
			r.mu.Unlock()
			r.all.Go(func() { _, _ = io.Copy(in, out); _ = in.Close(); _ = out.Close() })
			r.all.Go(func() {
				_, _ = io.Copy(io.MultiWriter(out, recording{r, i}), in)
				_ = in.Close()
				_ = out.Close()
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); r.all.Wait() })
	return r
}

type recording struct {
	r *recorder
	i int
}

func (x recording) Write(b []byte) (int, error) {
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	x.r.said[x.i] = append(x.r.said[x.i], b...)
	return len(b), nil
}

// first is the hello and the first frame, with its header, that was said first.
func (r *recorder) first() (hello transport.Hello, frame []byte, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.said) == 0 || len(r.said[0]) < transport.HelloSize+4 {
		return hello, nil, false
	}
	b := r.said[0][transport.HelloSize:]
	n := 4 + int(binary.LittleEndian.Uint32(b))
	return transport.Hello(r.said[0]), b[:min(n, len(b))], len(b) >= n
}

// say greets a replica with a hello, sends a frame and waits until it is thrown out.
func say(t testing.TB, address string, hello transport.Hello, frame []byte) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write(append(hello[:], frame...))
	_, _ = io.Copy(io.Discard, conn)
}

// A client's hello and NEW-KEY of one connection are worthless on another: they are
// refused before any signature is checked, and cost the client nothing of its share.
func TestReplayedNewKey(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	address := c.g.Members[1].Address
	r := newRecorder(t, address)
	parts := *c.g
	parts.Members = append([]pbft.Member(nil), c.g.Members...)
	parts.Members[1].Address = r.l.Addr().String()
	g, err := pbft.CheckGroup(parts)
	if err != nil {
		t.Fatal(err)
	}
	client := c.client(key, func(cfg *pbft.ClientConfig) { cfg.Group = g })
	var hello transport.Hello
	var frame []byte
	eventually(t, "a NEW-KEY is recorded", func() (ok bool) { hello, frame, ok = r.first(); return ok })
	c.works(client)
	const replays = 200
	for range replays {
		say(t, address, hello, frame)
	}
	if n := refusals(c.replicas[1], "hello of nobody we know"); n < replays {
		t.Errorf("%d replayed hellos were refused, want %d", n, replays)
	}
	if n := refusals(c.replicas[1], "bad NEW-KEY"); n != 0 {
		t.Errorf("%d replayed NEW-KEYs were looked at", n)
	}
	c.works(client)
	c.works(c.client(key)) // its share is as it was
	if n := refusals(c.replicas[1], "connections too often"); n != 0 {
		t.Errorf("%d connections were refused as too many", n)
	}
}

// A NEW-KEY that is replayed on a connection of a stranger's own is refused as well.
func TestNewKeyOfAnotherConnection(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	r := asClient(t, c, c.enrolled(admin, ""))
	r.ready(c)
	old, err := r.ring.NewKey(r.sessions[0], message.Digest{1}, "")
	if err != nil {
		t.Fatal(err)
	}
	r.raw(0, old.AppendBody([]byte{byte(message.TypeNewKey)}))
	eventually(t, "it is refused", func() bool { return refusals(c.replicas[0], "bad NEW-KEY") == 1 })
	c.works(admin)
}

// Strangers together have one share of handshakes, whatever names they use. When it is
// spent, an enrolled client is let in all the same, even at its first connection.
func TestStrangersShareOneBudget(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportTLS)
	for i := range c.replicas {
		c.start(i)
	}
	key := c.enrolled(c.client(c.admin), "")
	var hello transport.Hello
	hello[0] = message.VersionMajor
	spend := func() {
		for n := range 60 {
			hello[9] = byte(n + 1)
			for _, m := range c.g.Members {
				conn, err := net.Dial("tcp", m.Address)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = conn.Write(hello[:])
				_, _ = io.CopyN(io.Discard, conn, transport.ChallengeSize)
				_ = conn.Close()
			}
		}
	}
	eventually(t, "the strangers' share is spent everywhere", func() bool {
		spend()
		for _, r := range c.replicas {
			if refusals(r, "connections too often") == 0 {
				return false
			}
		}
		return true
	})
	c.works(c.client(key))
}

// A hello is good only for the challenge that it answers, from the principal that it
// names, and for the acceptor that it was made for.
func TestWhoIsLetIn(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	r := asClient(t, c, key)
	r.ready(c)
	for name, change := range map[string]func(h *transport.Hello){
		"another's name": func(h *transport.Hello) { h[2] ^= 1; binary.LittleEndian.PutUint64(h[2:], uint64(pbft.Administrator)) },
		"a replica":      func(h *transport.Hello) { h[1] = 2; clear(h[2:10]) },
		"itself":         func(h *transport.Hello) { clear(h[1:10]) },
		"no replica":     func(h *transport.Hello) { h[1] = 9; clear(h[2:10]) },
		"both":           func(h *transport.Hello) { h[1] = 1 },
		"another version": func(h *transport.Hello) {
			h[0]++
		},
		"another nonce": func(h *transport.Hello) { h[20]++ },
	} {
		before := refusals(c.replicas[0], "hello of nobody we know")
		conn, err := net.Dial("tcp", c.g.Members[0].Address)
		if err != nil {
			t.Fatal(err)
		}
		var challenge transport.Challenge
		if _, err := io.ReadFull(conn, challenge[:]); err != nil {
			t.Fatal(err)
		}
		var hello transport.Hello
		err = r.ring.Hello(r.sessions[0], (*[auth.ChallengeSize]byte)(&challenge), (*[auth.HelloSize]byte)(&hello))
		if err != nil {
			t.Fatal(err)
		}
		change(&hello)
		_, _ = conn.Write(hello[:])
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
		if refusals(c.replicas[0], "hello of nobody we know") != before+1 {
			t.Errorf("%s: let in", name)
		}
	}
}

// Two processes with one key are told so, by name, and each replica counts it. When one
// has ended the other works on.
func TestKeyInUse(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	first, second := c.client(key), c.client(key)
	told := func(x *pbft.Client) bool {
		done := make(chan error, 1)
		if err := x.Start(pbft.Call{Body: []byte("i"), Done: func(_ []byte, err error) { done <- err }}); err != nil {
			return errors.Is(err, pbft.ErrKeyInUse)
		}
		select {
		case err := <-done:
			return errors.Is(err, pbft.ErrKeyInUse)
		case <-deadline(t).Done():
			return false
		}
	}
	var both sync.WaitGroup
	for _, x := range []*pbft.Client{first, second} {
		both.Go(func() { eventually(t, "it is told that its key is in use", func() bool { return told(x) }) })
	}
	both.Wait()
	counted := 0
	for _, r := range c.replicas {
		if refusals(r, "a client's key in use by two processes") > 0 {
			counted++
		}
	}
	if counted < c.g.Weak() {
		t.Errorf("%d replicas counted it, want >= %d", counted, c.g.Weak())
	}
	_ = first.Close()
	eventually(t, "the other works on", func() bool {
		_, err := second.Invoke(deadline(t), []byte("r"), true)
		return err == nil
	})
}

// A client that restarts, however often, and one whose connections break, are not two.
func TestRestartsAreNoRivals(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	x := c.client(key)
	last, _ := invokeNoting(t, x, "i")
	_ = x.Close()
	for range 5 {
		x = c.client(key)
		if _, err := resume(t, x, last, "i"); err != nil && !errors.Is(err, pbft.ErrResultLost) {
			t.Fatal(err)
		}
		last, _ = invokeNoting(t, x, "i")
		_ = x.Close()
	}
	for _, r := range c.replicas {
		if n := refusals(r, "a client's key in use by two processes"); n > 0 {
			t.Errorf("replica %d counts %d rivals", r.Status().Replica, n)
		}
	}
}

// An operation of the administrator's whose clock was ahead once does not lock it out.
func TestAdministratorsClockWentBack(t *testing.T) {
	c := startCluster(t, smallLimits())
	ahead := c.client(c.admin)
	for slot := range c.g.Limits.Slots {
		at := sent{pbft.Slot(slot), pbft.Timestamp(time.Now().Add(time.Hour).UnixNano())}
		if _, err := resume(t, ahead, at, "r"); err != nil {
			t.Fatal(err)
		}
	}
	_ = ahead.Close()
	public, _, _ := ed25519.GenerateKey(nil)
	if err := c.client(c.admin).Enrol(deadline(t), public, nil); err != nil {
		t.Fatal(err)
	}
}
