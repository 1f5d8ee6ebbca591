// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/patience"
)

func TestMain(m *testing.M) {
	spoil = func(b []byte) { clear(b[:cap(b)]) } // in all tests, so that a read of a record whose call is over shows
	goleak.VerifyTestMain(m)
}

// A handClock is a relay's clock that tests move.
type handClock struct{ at atomic.Int64 }

func newHandClock() *handClock {
	c := new(handClock)
	c.at.Store(int64(time.Hour))
	return c
}

func (c *handClock) now() instant         { return instant(c.at.Load()) }
func (c *handClock) pass(d time.Duration) { c.at.Add(int64(d)) }

// A fakeGroup is a group that gives the answers of a test, when the test says so.
type fakeGroup struct {
	mu      sync.Mutex
	clock   pbft.Timestamp
	inUse   []bool
	started chan *fakeCall // every call, as it starts; nil: not told
	answer  func(*fakeCall) ([]byte, error)
	refuse  error          // of Start
	now     func() instant // the relay's clock; nil: the machine's
}

type fakeCall struct {
	pbft.Call
	slot    pbft.Slot
	t       pbft.Timestamp
	resumed bool
}

func newFakeGroup(slots int) *fakeGroup {
	return &fakeGroup{
		inUse: make([]bool, slots), started: make(chan *fakeCall, 4096),
	}
}

func (g *fakeGroup) Start(c pbft.Call) error {
	g.mu.Lock()
	if g.refuse != nil {
		defer g.mu.Unlock()
		return g.refuse
	}
	f := &fakeCall{Call: c}
	if !c.ReadOnly {
		slot := -1
		for i, used := range g.inUse {
			if !used {
				slot = i
				break
			}
		}
		if slot < 0 {
			g.mu.Unlock()
			return pbft.ErrBusy
		}
		g.inUse[slot] = true
		g.clock++
		f.slot, f.t = pbft.Slot(slot), g.clock
	}
	answer := g.answer
	g.mu.Unlock()
	if c.Sending != nil {
		if err := c.Sending(f.slot, f.t); err != nil {
			g.end(f, nil, err)
			return nil
		}
	}
	g.begin(f, answer)
	return nil
}

func (g *fakeGroup) Resume(slot pbft.Slot, t pbft.Timestamp, c pbft.Call) error {
	g.mu.Lock()
	g.clock = max(g.clock, t)
	g.inUse[slot] = true
	answer := g.answer
	g.mu.Unlock()
	g.begin(&fakeCall{Call: c, slot: slot, t: t, resumed: true}, answer)
	return nil
}

func (g *fakeGroup) begin(f *fakeCall, answer func(*fakeCall) ([]byte, error)) {
	if g.started != nil {
		g.started <- f
	}
	if answer != nil {
		reply, err := answer(f)
		g.end(f, reply, err)
	}
}

// end runs Done, and frees the slot after it.
func (g *fakeGroup) end(f *fakeCall, reply []byte, err error) {
	f.Done(reply, err)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !f.ReadOnly {
		g.inUse[f.slot] = false
	}
}

// next waits for a call to start.
func (g *fakeGroup) next(t testing.TB) *fakeCall {
	t.Helper()
	select {
	case f := <-g.started:
		return f
	case <-patience.After(patience.Usual):
		t.Fatal("no call reached the group")
		return nil
	}
}

// quiet fails if a call has started that the test did not expect.
func (g *fakeGroup) quiet(t testing.TB) {
	t.Helper()
	select {
	case f := <-g.started:
		t.Fatalf("a call too many reached the group: %x", f.Body)
	default:
	}
}

// echo answers SUCCESS and the arguments.
func echo(f *fakeCall) ([]byte, error) {
	c, err := nfs3.ParseCall(f.Body)
	if err != nil {
		return nil, err
	}
	return append(make([]byte, 4, 4+len(c.Args)), c.Args...), nil
}

// success makes a reply with SUCCESS and results.
func success(results string) []byte { return append(make([]byte, 4), results...) }

// A rig is a server on the loopback with its surroundings in a test.
type rig struct {
	*Server
	group *fakeGroup
	addr  string
	ended chan error
	also  sync.WaitGroup // listeners besides the first
}

func newRig(t testing.TB, group *fakeGroup, change func(*Config)) *rig {
	t.Helper()
	config := Config{Group: group, InsecurePorts: true, Log: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&config)
	}
	s, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	if group.now != nil {
		s.table.now = group.now
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Server: s, group: group, addr: l.Addr().String(), ended: make(chan error, 1)}
	go func() { r.ended <- s.Serve(l) }()
	t.Cleanup(r.kill)
	return r
}

// stop shuts the server down and returns the error of Shutdown.
func (r *rig) stop(t testing.TB) error {
	t.Helper()
	ctx, cancel := patience.Context(context.Background(), patience.Usual)
	defer cancel()
	err := r.Shutdown(ctx)
	if e := <-r.ended; e != nil {
		t.Errorf("Serve: %v", e)
	}
	r.ended <- nil
	return err
}

// kill ends the server without waiting for any call.
func (r *rig) kill() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r.Shutdown(ctx)
	<-r.ended
	r.ended <- nil
	r.also.Wait()
}

// comeBack connects after the end of an earlier connection, from its port or from another.
func (r *rig) comeBack(t testing.TB, old *kernel, samePort bool) *kernel {
	t.Helper()
	if samePort || old == nil {
		return r.reconnect(t, old)
	}
	old.Close()
	return r.connect(t)
}

// A kernel is the other end of a connection.
type kernel struct {
	t testing.TB
	net.Conn
	r *bufio.Reader
}

func (r *rig) connect(t testing.TB) *kernel { return dial(t, r.addr, nil) }

// reconnect connects from the port of an earlier connection, which is closed first; a nil
// one had any port. It connects to a listener of its own, because the machine may keep
// the old pair of addresses busy for a minute.
func (r *rig) reconnect(t testing.TB, old *kernel) *kernel {
	t.Helper()
	if old == nil {
		return r.connect(t)
	}
	old.Close()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.also.Go(func() { r.Serve(l) })
	return dial(t, l.Addr().String(), old.LocalAddr())
}

// dial connects from a local address, nil for any, which stays this test's own to connect
// from again.
func dial(t testing.TB, to string, from net.Addr) *kernel {
	t.Helper()
	if from == nil {
		from = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}
	}
	d := net.Dialer{LocalAddr: from, Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) })
	}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	holdPort(t, c.LocalAddr().(*net.TCPAddr))
	t.Cleanup(func() { c.Close() })
	t.Cleanup(patience.AfterFunc(patience.Usual, func() { c.SetDeadline(time.Unix(1, 0)) }))
	return &kernel{t: t, Conn: c, r: bufio.NewReader(c)}
}

// holdPort keeps others from taking a port while the test has no connection from it.
func holdPort(t testing.TB, a *net.TCPAddr) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Port: a.Port, Addr: [4]byte(a.IP.To4())})
	}
	if err != nil {
		t.Fatal(err)
	}
}

// reset ends the connection without good order, as a client that dies with unread replies does.
func (k *kernel) reset() {
	k.t.Helper()
	if err := k.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		k.t.Fatal(err)
	}
	k.Close()
}

// rpc makes the record of a call with AUTH_SYS.
func rpc(xid, program, procedure uint32, args string) []byte {
	return record(rpcMessage(xid, program, procedure, args))
}

func rpcMessage(xid, program, procedure uint32, args string) []byte {
	var b []byte
	for _, v := range []uint32{xid, msgCall, rpcVersion, program, nfs3.Version, procedure, flavorSys, 32, 0} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = appendString(b, "host")
	for _, v := range []uint32{1000, 100, 2, 4, 24, flavorNone, 0} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return append(b, args...)
}

// record puts a mark before a message.
func record(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, lastFragment|uint32(len(message))), message...)
}

func (k *kernel) send(b []byte) {
	k.t.Helper()
	if _, err := k.Write(b); err != nil {
		k.t.Fatal(err)
	}
}

// receive reads one record, without its mark.
func (k *kernel) receive() ([]byte, error) {
	var mark [4]byte
	if _, err := io.ReadFull(k.r, mark[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(mark[:])
	if n&lastFragment == 0 {
		return nil, fmt.Errorf("reply in fragments: mark %x", n)
	}
	b := make([]byte, n&^lastFragment)
	_, err := io.ReadFull(k.r, b)
	return b, err
}

// expect reads an accepted reply and checks xid, accept_stat and results.
func (k *kernel) expect(xid uint32, stat nfs3.AcceptStat, results string) {
	k.t.Helper()
	b, err := k.receive()
	if err != nil {
		k.t.Fatal(err)
	}
	want := appendAccepted(nil, xid, 4+len(results))[4:]
	want = binary.BigEndian.AppendUint32(want, uint32(stat))
	want = append(want, results...)
	if string(b) != string(want) {
		k.t.Fatalf("got reply %x of %d bytes, want %x of %d",
			b[:min(len(b), 64)], len(b), want[:min(len(want), 64)], len(want))
	}
}

// expectClosed reads on until the relay closes the connection.
func (k *kernel) expectClosed() {
	k.t.Helper()
	for {
		_, err := k.receive()
		if err == nil {
			continue
		}
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			k.t.Fatal("the relay did not close the connection")
		}
		return
	}
}

// eventually waits until the counters say so.
func (r *rig) eventually(t testing.TB, what string, ok func(Stats) bool) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Logf("%+v", r.Stats())
		}
	}()
	patience.Until(t, what, func() bool { return ok(r.Stats()) })
}
