// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

const (
	procGetattr = 1
	procLookup  = 3
	procRead    = 6
	procWrite   = 7
	procCreate  = 8
	procRemove  = 12
)

func TestCallReachesTheGroupAsItCame(t *testing.T) {
	g := newFakeGroup(4)
	r := newRig(t, g, nil)
	k := r.connect(t)
	k.send(rpc(7, nfs3.ProgramNFS, procCreate, "arguments..."))
	f := g.next(t)
	want := nfs3.AppendCall(nil, &nfs3.Call{
		Program: nfs3.ProgramNFS, Procedure: procCreate,
		Cred: nfs3.Credentials{UID: 1000, GID: 100, Groups: []uint32{4, 24}}, Args: []byte("arguments..."),
	})
	if !bytes.Equal(f.Body, want) || f.ReadOnly {
		t.Fatalf("got operation %x read-only %v, want %x", f.Body, f.ReadOnly, want)
	}
	g.end(f, success("results!"), nil)
	k.expect(7, nfs3.Success, "results!")
	if err := r.stop(t); err != nil {
		t.Fatal(err)
	}
}

func TestRepliesComeOutOfOrder(t *testing.T) {
	g := newFakeGroup(4)
	r := newRig(t, g, nil)
	k := r.connect(t)
	k.send(append(rpc(1, nfs3.ProgramNFS, procLookup, "aaaa"), rpc(2, nfs3.ProgramNFS, procLookup, "bbbb")...))
	first, second := g.next(t), g.next(t)
	g.end(second, success("2222"), nil)
	k.expect(2, nfs3.Success, "2222")
	g.end(first, success("1111"), nil)
	k.expect(1, nfs3.Success, "1111")
}

func TestLargeCallsAndReplies(t *testing.T) {
	g := newFakeGroup(4)
	g.answer = echo
	r := newRig(t, g, nil)
	k := r.connect(t)
	data := strings.Repeat("0123456789abcdef", 1<<16) + "handle and so on"
	k.send(rpc(1, nfs3.ProgramNFS, procWrite, data))
	k.expect(1, nfs3.Success, data)

	// The same in fragments, the last of them empty.
	m := rpcMessage(2, nfs3.ProgramNFS, procWrite, data)
	for len(m) > 0 {
		n := min(len(m), 77777)
		k.send(append(binary.BigEndian.AppendUint32(nil, uint32(n)), m[:n]...))
		m = m[n:]
	}
	k.send(binary.BigEndian.AppendUint32(nil, lastFragment))
	k.expect(2, nfs3.Success, data)
	if err := r.stop(t); err != nil {
		t.Fatal(err)
	}
	if n := r.table.bytes; n != 0 {
		t.Fatalf("%d bytes still reserved", n)
	}
}

func TestBackpressureOfAConnection(t *testing.T) {
	g := newFakeGroup(0)
	r := newRig(t, g, func(c *Config) { c.Limits.CallsPerConn = 3 })
	k := r.connect(t)
	for xid := range uint32(5) {
		k.send(rpc(xid, nfs3.ProgramNFS, procGetattr, fmt.Sprintf("%04d", xid)))
	}
	calls := []*fakeCall{g.next(t), g.next(t), g.next(t)}
	// The fourth is read only when one is answered, however long that takes.
	k.send(rpc(9, nfs3.ProgramNFS, 0, ""))
	g.quiet(t)
	if n := r.Stats().InFlight; n != 3 {
		t.Fatalf("got %d in flight, want 3", n)
	}
	g.end(calls[1], success(""), nil)
	k.expect(1, nfs3.Success, "")
	calls = append(calls, g.next(t))
	g.end(calls[0], success(""), nil)
	k.expect(0, nfs3.Success, "")
	calls = append(calls, g.next(t))
	for _, i := range []int{2, 3, 4} {
		g.end(calls[i], success(""), nil)
	}
	seen := map[uint32]bool{}
	for range 4 { // the NULL came as soon as there was room, so in any place
		b, err := k.receive()
		if err != nil {
			t.Fatal(err)
		}
		seen[binary.BigEndian.Uint32(b)] = true
	}
	if !seen[2] || !seen[3] || !seen[4] || !seen[9] {
		t.Fatalf("got replies to %v", seen)
	}
}

func TestBusyClientIsWaitedFor(t *testing.T) {
	g := newFakeGroup(1)
	r := newRig(t, g, nil)
	k, other := r.connect(t), r.connect(t)
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"))
	first := g.next(t)
	other.send(rpc(2, nfs3.ProgramNFS, procRemove, "bbbb"))
	r.eventually(t, "busy", func(s Stats) bool { return s.Busy > 0 })
	g.quiet(t)
	g.end(first, success("1111"), nil)
	k.expect(1, nfs3.Success, "1111")
	g.end(g.next(t), success("2222"), nil)
	other.expect(2, nfs3.Success, "2222")
}

// A call that waits for room is forgotten when its connection goes; nothing stays behind.
func TestBusyClientAndAKernelThatLeaves(t *testing.T) {
	g := newFakeGroup(0)
	r := newRig(t, g, nil)
	k := r.connect(t)
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"))
	r.eventually(t, "busy", func(s Stats) bool { return s.Busy > 0 })
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := r.Shutdown(ctx); err != nil {
		t.Fatal(err)
	}
	if n := r.Stats().InFlight; n != 0 {
		t.Fatalf("%d calls left", n)
	}
}

func TestWhatTheClientCannotDo(t *testing.T) {
	for _, c := range []struct {
		err   error
		reply []byte
		stat  nfs3.AcceptStat
		rest  string
	}{
		{err: pbft.ErrNotEnrolled, stat: nfs3.SystemErr},
		{err: pbft.ErrResultLost, stat: nfs3.SystemErr},
		{err: pbft.ErrKeyInUse, stat: nfs3.SystemErr},
		{err: errors.New("anything"), stat: nfs3.SystemErr},
		{reply: []byte{0, 0}, stat: nfs3.SystemErr},
		{reply: []byte{0, 0, 0, 9}, stat: nfs3.SystemErr},
		{reply: []byte{0, 0, 0, 4, 1, 2, 3, 4}, stat: nfs3.GarbageArgs},
		{reply: []byte{0, 0, 0, 2}, stat: nfs3.ProgMismatch, rest: "\x00\x00\x00\x03\x00\x00\x00\x03"},
	} {
		g := newFakeGroup(1)
		g.answer = func(*fakeCall) ([]byte, error) { return c.reply, c.err }
		k := newRig(t, g, nil).connect(t)
		k.send(rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"))
		k.expect(1, c.stat, c.rest)

		g.mu.Lock()
		g.answer, g.refuse = nil, c.err // from Start also
		g.mu.Unlock()
		if c.err != nil {
			k.send(rpc(2, nfs3.ProgramNFS, procRemove, "aaaa"))
			k.expect(2, nfs3.SystemErr, "")
		}
	}
}

// A closed client answers no call: the kernel has to ask the relay's next life.
func TestClosedClientClosesConnections(t *testing.T) {
	g := newFakeGroup(1)
	g.answer = func(*fakeCall) ([]byte, error) { return nil, pbft.ErrClosed }
	r := newRig(t, g, nil)
	k := r.connect(t)
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"))
	k.expectClosed()
	r.eventually(t, "no connection", func(s Stats) bool { return s.Connections == 0 })
}

func TestMountsAreListed(t *testing.T) {
	g := newFakeGroup(1)
	g.answer = func(f *fakeCall) ([]byte, error) {
		c, _ := nfs3.ParseCall(f.Body)
		if path, _ := parseMountPath(c.Args); path == "/none" {
			return success("\x00\x00\x00\x02"), nil // MNT3ERR_NOENT
		}
		return success("\x00\x00\x00\x00handle.."), nil
	}
	k := newRig(t, g, nil).connect(t)
	path := func(s string) string { return string(appendString(nil, s)) }
	entry := func(s string) string { return "\x00\x00\x00\x01" + path("127.0.0.1") + path(s) }
	dump := func(xid uint32, want string) {
		t.Helper()
		k.send(rpc(xid, nfs3.ProgramMount, mountDump, ""))
		k.expect(xid, nfs3.Success, want+"\x00\x00\x00\x00")
	}
	dump(1, "")
	for xid, p := range []string{"/export", "/other", "/export"} {
		k.send(rpc(uint32(xid+10), nfs3.ProgramMount, mountMnt, path(p)))
		k.expect(uint32(xid+10), nfs3.Success, "\x00\x00\x00\x00handle..")
	}
	k.send(rpc(20, nfs3.ProgramMount, mountMnt, path("/none")))
	k.expect(20, nfs3.Success, "\x00\x00\x00\x02")
	dump(2, entry("/export")+entry("/other"))
	k.send(rpc(3, nfs3.ProgramMount, mountUmnt, path("/export")))
	k.expect(3, nfs3.Success, "")
	dump(4, entry("/other"))
	k.send(rpc(5, nfs3.ProgramMount, mountUmntAll, ""))
	k.expect(5, nfs3.Success, "")
	dump(6, "")
	k.send(rpc(7, nfs3.ProgramMount, mountUmnt, "\x00\x00\x10\x00"))
	k.expect(7, nfs3.GarbageArgs, "")
}

func TestMountListIsBounded(t *testing.T) {
	var l mountList
	for i := range 3 * maxMounts {
		l.add(mounted{"h", fmt.Sprint(i)})
	}
	if len(l.entries) != maxMounts || l.entries[0].path != fmt.Sprint(2*maxMounts) {
		t.Fatalf("got %d entries from %s", len(l.entries), l.entries[0].path)
	}
}

func TestUnprivilegedPortsAreRefused(t *testing.T) {
	r := newRig(t, newFakeGroup(1), func(c *Config) { c.InsecurePorts = false })
	for range 3 {
		r.connect(t).expectClosed()
	}
	r.eventually(t, "three refused", func(s Stats) bool { return s.RefusedPort == 3 && s.Accepted == 0 })
}

func TestConnectionsAreBounded(t *testing.T) {
	r := newRig(t, newFakeGroup(1), func(c *Config) { c.Limits.Conns = 2; c.Limits.Idle = time.Hour })
	a, b := r.connect(t), r.connect(t)
	for _, k := range []*kernel{a, b} {
		k.send(rpc(1, nfs3.ProgramNFS, 0, ""))
		k.expect(1, nfs3.Success, "")
	}
	r.connect(t).expectClosed()
	a.Close()
	r.eventually(t, "room", func(s Stats) bool { return s.Connections == 1 })
	c := r.connect(t)
	c.send(rpc(1, nfs3.ProgramNFS, 0, ""))
	c.expect(1, nfs3.Success, "")
}

func TestIdleConnectionMakesRoom(t *testing.T) {
	r := newRig(t, newFakeGroup(1), func(c *Config) { c.Limits.Conns = 1; c.Limits.Idle = 1 })
	a := r.connect(t)
	a.send(rpc(1, nfs3.ProgramNFS, 0, ""))
	a.expect(1, nfs3.Success, "")
	r.eventually(t, "an idle connection", func(s Stats) bool { return s.InFlight == 0 && s.Unsent == 0 })
	b := r.connect(t)
	b.send(rpc(1, nfs3.ProgramNFS, 0, ""))
	b.expect(1, nfs3.Success, "")
	a.expectClosed()
	if n := r.Stats().Evicted; n != 1 {
		t.Fatalf("got %d evicted, want 1", n)
	}
}

// A record that is never finished, and a connection that says nothing, hold nothing for ever.
func TestUnfinishedRecordsEnd(t *testing.T) {
	for _, bytes := range [][]byte{nil, {0x80}, {0x80, 0, 1, 0, 1, 2},
		binary.BigEndian.AppendUint32(nil, lastFragment|maxRecord)} {
		r := newRig(t, newFakeGroup(1), func(c *Config) {
			c.Limits.FirstCall, c.Limits.Partial = 20*time.Millisecond, 20*time.Millisecond
		})
		k := r.connect(t)
		k.send(bytes)
		k.expectClosed()
		r.eventually(t, "closed", func(s Stats) bool { return s.Connections == 0 && s.Broken == 1 })
		if r.table.bytes != 0 {
			t.Fatalf("%d bytes still reserved", r.table.bytes)
		}
	}
}

func TestWrongRecordsEndTheConnection(t *testing.T) {
	for _, c := range []struct {
		name  string
		bytes []byte
	}{
		{"oversized", binary.BigEndian.AppendUint32(nil, lastFragment|(maxRecord+1))},
		{"oversized in parts", append(rpc(1, 2, 3, "")[:4:4], 0)}, // replaced below
		{"empty fragment", []byte{0, 0, 0, 0}},
		{"not a call", record([]byte{0, 0, 0, 1, 0, 0, 0, 1})},
		{"too short for an xid", record([]byte{0, 0})},
	} {
		if c.name == "oversized in parts" {
			c.bytes = append(binary.BigEndian.AppendUint32(nil, 4), 0, 0, 0, 1)
			c.bytes = binary.BigEndian.AppendUint32(c.bytes, lastFragment|(maxRecord-3))
		}
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, newFakeGroup(1), nil)
			k := r.connect(t)
			k.send(c.bytes)
			k.expectClosed()
			r.eventually(t, "counted", func(s Stats) bool { return s.Broken == 1 })
		})
	}
}

// A kernel that does not take its replies delays no one, and is closed at the bound.
func TestSlowKernelHoldsUpNobody(t *testing.T) {
	g := newFakeGroup(0)
	big := make([]byte, 1<<20)
	g.answer = func(f *fakeCall) ([]byte, error) {
		if c, _ := nfs3.ParseCall(f.Body); c.Procedure == procRead {
			return big, nil
		}
		return success("fine"), nil
	}
	g.started = nil
	r := newRig(t, g, func(c *Config) { c.Limits.UnsentPerConn = 16 << 20; c.Limits.PauseUnsent = 1 << 30 })
	slow, quick := r.connect(t), r.connect(t)
	for xid := range uint32(100) {
		if _, err := slow.Write(rpc(xid, nfs3.ProgramNFS, procRead, "")); err != nil {
			break // closed meanwhile: as it should
		}
		quick.send(rpc(xid, nfs3.ProgramNFS, procGetattr, ""))
		quick.expect(xid, nfs3.Success, "fine")
	}
	r.eventually(t, "slow one closed", func(s Stats) bool { return s.Slow == 1 && s.Connections == 1 && s.Unsent == 0 })
}

// At a lower bound the relay stops reading from a kernel that takes no replies, and goes
// on when the kernel reads again.
func TestSlowKernelIsNotRead(t *testing.T) {
	g := newFakeGroup(0)
	big := make([]byte, 1<<20)
	g.answer = func(*fakeCall) ([]byte, error) { return big, nil }
	g.started = nil
	r := newRig(t, g, func(c *Config) { c.Limits.PauseUnsent = 1 << 20 })
	k := r.connect(t)
	const calls = 64
	for xid := range uint32(calls) {
		k.send(rpc(xid, nfs3.ProgramNFS, procRead, ""))
	}
	r.eventually(t, "paused", func(s Stats) bool { return s.Unsent > 1<<20 })
	for range calls {
		b, err := k.receive()
		if err != nil || len(b) != acceptedSize-4+len(big) {
			t.Fatalf("got %d bytes, %v", len(b), err)
		}
	}
	if s := r.Stats(); s.Slow != 0 {
		t.Fatalf("%d closed", s.Slow)
	}
}

func TestShutdownLetsCallsFinish(t *testing.T) {
	g := newFakeGroup(2)
	r := newRig(t, g, nil)
	k := r.connect(t)
	idle := r.connect(t)
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"))
	f := g.next(t)
	stopped := make(chan error, 1)
	go func() { stopped <- r.stop(t) }()
	idle.expectClosed()
	g.end(f, success("done"), nil)
	k.expect(1, nfs3.Success, "done")
	k.expectClosed()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Fatal("still accepting")
	}
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	g := newFakeGroup(2)
	r := newRig(t, g, nil)
	k := r.connect(t)
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"))
	f := g.next(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond) // not a limit: it is always reached
	defer cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v", err)
	}
	k.expectClosed()
	g.end(f, nil, pbft.ErrClosed) // as the client does when it is closed afterwards
}

func TestManyConnectionsAtOnce(t *testing.T) {
	g := newFakeGroup(8)
	g.answer, g.started = nil, make(chan *fakeCall, 4096)
	const conns, calls = 8, 200
	r := newRig(t, g, nil)
	ended := make(chan struct{})
	go func() { // answers in another order, from several goroutines
		defer close(ended)
		var wg sync.WaitGroup
		for range conns * calls {
			f := <-g.started
			wg.Go(func() {
				reply, _ := echo(f)
				g.end(f, reply, nil)
			})
		}
		wg.Wait()
	}()
	var wg sync.WaitGroup
	for range conns {
		k := r.connect(t)
		wg.Add(2)
		go func() {
			defer wg.Done()
			for xid := range uint32(calls) {
				proc := uint32(procGetattr)
				if xid%3 == 0 {
					proc = procWrite
				}
				if _, err := k.Write(rpc(xid, nfs3.ProgramNFS, proc, fmt.Sprintf("%08d", xid))); err != nil {
					t.Error(err)
					return
				}
			}
		}()
		go func() {
			defer wg.Done()
			seen := map[uint32]bool{}
			for len(seen) < calls {
				b, err := k.receive()
				if err != nil {
					t.Error(err)
					return
				}
				xid := binary.BigEndian.Uint32(b)
				if seen[xid] || string(b[acceptedSize:]) != fmt.Sprintf("%08d", xid) {
					t.Errorf("reply to %d: %q, again %v", xid, b[acceptedSize:], seen[xid])
				}
				seen[xid] = true
			}
		}()
	}
	wg.Wait()
	<-ended
	if err := r.stop(t); err != nil {
		t.Fatal(err)
	}
}

// Large calls wait for each other's memory, small ones do not wait; everything is read in the end.
func TestLargeCallsShareABudget(t *testing.T) {
	g := newFakeGroup(0)
	r := newRig(t, g, func(c *Config) { c.Limits.CallBytes = 250_000 })
	large := strings.Repeat("x", 100_000)
	var kernels []*kernel
	for i := range uint32(4) {
		k := r.connect(t)
		k.send(rpc(i, nfs3.ProgramNFS, procRead, large))
		kernels = append(kernels, k)
	}
	first := []*fakeCall{g.next(t), g.next(t)}
	small := r.connect(t)
	small.send(rpc(9, nfs3.ProgramNFS, procRead, "small"+"..."))
	f := g.next(t)
	if len(f.Body) > 1000 {
		t.Fatal("a third large call was read")
	}
	g.end(f, success(""), nil)
	small.expect(9, nfs3.Success, "")
	g.end(first[0], success(""), nil)
	g.end(g.next(t), success(""), nil)
	g.end(first[1], success(""), nil)
	g.end(g.next(t), success(""), nil)
	for i, k := range kernels {
		k.expect(uint32(i), nfs3.Success, "")
	}
	if err := r.stop(t); err != nil {
		t.Fatal(err)
	}
	if r.table.bytes != 0 {
		t.Fatalf("%d bytes still reserved", r.table.bytes)
	}
}

// A call that has begun is read to its end, though others reach the limit meanwhile: the
// time in which it must be whole runs.
func TestWhatHasBegunIsReadOn(t *testing.T) {
	g := newFakeGroup(0)
	r := newRig(t, g, func(c *Config) { c.Limits.Calls = 1 })
	slow, quick := r.connect(t), r.connect(t)
	large := rpc(1, nfs3.ProgramNFS, procRead, strings.Repeat("x", 400_000))
	half := len(large) / 2
	slow.send(large[:half])
	r.eventually(t, "half of the call read", func(Stats) bool {
		r.table.mu.Lock()
		defer r.table.mu.Unlock()
		return r.table.bytes > 0
	})
	quick.send(rpc(2, nfs3.ProgramNFS, procRead, "...."))
	other := g.next(t)
	slow.send(large[half:])
	g.end(g.next(t), success("slow"), nil)
	slow.expect(1, nfs3.Success, "slow")
	g.end(other, success("quick"), nil)
	quick.expect(2, nfs3.Success, "quick")
}

// A kernel that leaves while it waits for memory, or at the limit of calls, leaves nothing behind.
func TestWaitersLeave(t *testing.T) {
	g := newFakeGroup(0)
	r := newRig(t, g, func(c *Config) { c.Limits.CallBytes = 150_000; c.Limits.Calls = 2 })
	large := strings.Repeat("x", 100_000)
	a, b, c := r.connect(t), r.connect(t), r.connect(t)
	a.send(rpc(1, nfs3.ProgramNFS, procRead, large))
	g.next(t)
	b.send(rpc(2, nfs3.ProgramNFS, procRead, large)) // waits for bytes
	c.send(rpc(3, nfs3.ProgramNFS, procRead, "...."))
	g.next(t)
	d := r.connect(t) // waits for calls
	d.send(rpc(4, nfs3.ProgramNFS, procRead, "...."))
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond) // not a limit: it is always reached
	defer cancel()
	if err := r.Shutdown(ctx); err == nil {
		t.Fatal("two calls are under way")
	}
	for _, k := range []*kernel{a, b, c, d} {
		k.expectClosed()
	}
	g.quiet(t)
}

func TestStatsTellWhatHappened(t *testing.T) {
	g := newFakeGroup(4)
	g.answer = echo
	r := newRig(t, g, nil)
	k := r.connect(t)
	for xid, procedure := range []uint32{procRead, procRead, procRemove, 0, 99} {
		k.send(rpc(uint32(xid), nfs3.ProgramNFS, procedure, ""))
		if _, err := k.receive(); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.stop(t); err != nil {
		t.Fatal(err)
	}
	s := r.Stats()
	var got []string
	for _, p := range s.Procedures {
		got = append(got, fmt.Sprintf("%s %d", p.Name, p.OK))
	}
	if want := "NULL 1,READ 2,REMOVE 1"; strings.Join(got, ",") != want {
		t.Errorf("got %v, want %s", got, want)
	}
	var calls uint64
	for _, n := range s.Latency {
		calls += n
	}
	if calls != 3 || s.NoProcedure != 1 || s.Accepted != 1 || s.Connections != 0 || s.Unsent != 0 ||
		s.BytesIn != 5*76 || s.BytesOut != 5*28 {
		t.Errorf("%+v", s)
	}
	if LatencyBound(10) != 1024*time.Microsecond {
		t.Errorf("bound of bucket 10 is %v", LatencyBound(10))
	}
}

// Between records a peer may leave as it likes.
func TestResetIsNoFault(t *testing.T) {
	r := newRig(t, newFakeGroup(1), nil)
	k := r.connect(t)
	k.send(rpc(1, nfs3.ProgramNFS, 0, ""))
	k.expect(1, nfs3.Success, "")
	if err := k.Conn.(*net.TCPConn).SetLinger(0); err != nil {
		t.Fatal(err)
	}
	k.Close()
	r.eventually(t, "gone", func(s Stats) bool { return s.Connections == 0 })
	if n := r.Stats().Broken; n != 0 {
		t.Fatalf("got %d broken, want 0", n)
	}
}

// The memory of a long call is used again when the call is over, and not before. In
// whatever order calls are answered, those under way keep their bytes, and a
// retransmission joins its call.
func TestLongRecordsAreUsedAgain(t *testing.T) {
	const length, depth, rounds = 3 * smallRecord, 8, 20
	args := func(xid uint32) string { return strings.Repeat(string(rune('a'+xid%26)), length+int(xid%5)) }
	g := newFakeGroup(depth)
	r := newRig(t, g, nil)
	k := r.connect(t)
	var flying []uint32
	calls := map[uint32]*fakeCall{}
	for xid := range uint32(rounds*depth + depth - 1) {
		if xid < rounds*depth {
			k.send(rpc(xid, nfs3.ProgramNFS, procWrite, args(xid)))
			flying, calls[xid] = append(flying, xid), g.next(t)
		}
		if xid%3 == 0 && len(flying) > 0 {
			again := flying[0]
			k.send(rpc(again, nfs3.ProgramNFS, procWrite, args(again)))
			r.eventually(t, "joined", func(s Stats) bool { return s.Joined > uint64(xid/3) })
		}
		if xid+1 < depth {
			continue
		}
		next := int(xid) * 5 % len(flying)
		ends := flying[next]
		flying = slices.Delete(flying, next, next+1)
		c, err := nfs3.ParseCall(calls[ends].Body)
		if err != nil || string(c.Args) != args(ends) {
			t.Fatalf("call %d has changed: %v", ends, err)
		}
		g.end(calls[ends], success("done"), nil)
		k.expect(ends, nfs3.Success, "done")
	}
}
