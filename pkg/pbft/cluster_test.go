// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
	"bfs/test/patience"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newGroup makes a group of n replicas on free ports of the loopback.
func newGroup(n int) (g *pbft.Group, keys []ed25519.PrivateKey, admin ed25519.PrivateKey) {
	return newGroupWith(n, pbft.DefaultLimits(), pbft.DurabilityReplicated)
}

func newGroupWith(n int, limits pbft.Limits,
	d pbft.Durability) (g *pbft.Group, keys []ed25519.PrivateKey, admin ed25519.PrivateKey) {
	parts := pbft.Group{Name: "test", Limits: limits, Durability: d}
	for range n {
		public, private, _ := ed25519.GenerateKey(nil)
		keys = append(keys, private)
		parts.Members = append(parts.Members, pbft.Member{Address: freeAddress(), Key: public})
	}
	parts.Administrator, admin, _ = ed25519.GenerateKey(nil)
	g, err := pbft.CheckGroup(parts)
	if err != nil {
		log.Fatal(err)
	}
	return g, keys, admin
}

var given sync.Map // addresses that freeAddress returned

// freeAddress is an address at which no process listens. Its port is below those that the
// kernel hands out, so that no process gets it before a replica listens there.
func freeAddress() string {
	for {
		address := fmt.Sprintf("127.0.0.1:%d", 15000+rand.IntN(15000))
		if _, known := given.LoadOrStore(address, true); known {
			continue
		}
		if l, err := net.Listen("tcp", address); err == nil {
			_ = l.Close()
			return address
		}
	}
}

// smallLimits make windows, tables and queues small enough to be filled in a test.
func smallLimits() pbft.Limits {
	l := pbft.DefaultLimits()
	l.CheckpointPeriod, l.LogSize, l.Clients, l.Slots = 4, 8, 8, 8
	l.Operation, l.Reply, l.Rights, l.BatchBytes, l.BatchCount, l.LogBytes = 8192, 8192, 64, 8192, 4, 64<<10
	return l
}

// tally is a service: a counter, and pages to be written. Its operations are one letter each:
//
//	i  add one and return the sum        r  return the sum
//	p  add one and write it on a page    R  return the sum in 4,000 bytes
//	l  add one and return 2,000 bytes    w  the client's rights
type tally struct {
	*pbfttest.Memory
	base pbft.PageNum
}

func newTally(g *pbft.Group) tally { return tally{pbfttest.NewMemory(), g.ReservedPages()} }

func (s tally) Execute(op pbft.Operation) ([]byte, bool) {
	if reply, ok := s.Query(op); ok {
		return reply, false
	}
	b := s.Modify(s.base)
	n := binary.BigEndian.Uint64(b) + 1
	binary.BigEndian.PutUint64(b, n)
	if len(op.Body) > 0 && op.Body[0] == 'p' {
		binary.BigEndian.PutUint64(s.Modify(s.base+1+pbft.PageNum(n%300)), n)
	}
	reply := binary.BigEndian.AppendUint64(nil, n)
	if len(op.Body) > 0 && op.Body[0] == 'l' {
		reply = append(reply, make([]byte, 1992)...)
	}
	return reply, true
}

func (s tally) Query(op pbft.Operation) ([]byte, bool) {
	sum := append([]byte(nil), s.Page(s.base)[:8]...)
	switch string(op.Body) {
	case "r":
		return sum, true
	case "R":
		return append(sum, make([]byte, 3992)...), true
	case "w":
		return append([]byte(nil), op.Rights...), true
	}
	return nil, false
}

func (s tally) Cost([]byte) int                 { return 0 }
func (s tally) Choose(pbft.SeqNum) []byte       { return nil }
func (s tally) Accept(pbft.SeqNum, []byte) bool { return true }
func (s tally) State() pbft.State               { return s.Memory }

// A cluster is a group of replicas in this process, whose connections to each other can be cut.
type cluster struct {
	t         testing.TB
	g         *pbft.Group
	keys      []ed25519.PrivateKey
	admin     ed25519.PrivateKey
	transport pbft.Transport
	dirs      []string
	replicas  []*pbft.Replica // nil: not running
	wires     [][]*wire       // [from][to]
	logs      []*lockedLog    // over all lives of a replica, unless a test gives it another
	service   func(i int) pbft.Service
}

// newCluster makes a cluster of four; start runs its replicas. Those of tests have disks
// unless they are told otherwise: a test that says itself what the primary says, or that
// is about forgetting, is. Those of benchmarks have none.
func newCluster(t testing.TB, limits pbft.Limits, transport pbft.Transport, durability ...pbft.Durability) *cluster {
	t.Helper()
	return newClusterOf(t, 4, limits, transport, durability...)
}

// newClusterOf makes a cluster of n.
func newClusterOf(t testing.TB, n int, limits pbft.Limits, transport pbft.Transport,
	durability ...pbft.Durability) *cluster {
	t.Helper()
	mode := pbft.DurabilityDisk
	if _, is := t.(*testing.B); is {
		mode = pbft.DurabilityReplicated
	}
	if len(durability) > 0 {
		mode = durability[0]
	}
	c := &cluster{t: t, transport: transport, replicas: make([]*pbft.Replica, n)}
	c.g, c.keys, c.admin = newGroupWith(n, limits, mode)
	c.service = func(int) pbft.Service { return newTally(c.g) }
	for range c.replicas {
		c.dirs = append(c.dirs, t.TempDir())
		c.logs = append(c.logs, new(lockedLog))
	}
	t.Cleanup(c.explain)
	return c
}

// explain shows what the replicas said and how they stood at the end of a test that failed.
func (c *cluster) explain() {
	if !c.t.Failed() {
		return
	}
	for i, r := range c.replicas {
		if r == nil {
			c.t.Logf("replica %d does not run; its log is\n%s", i, c.logs[i])
			continue
		}
		c.t.Logf("replica %d is\n%+v\nand its log is\n%s", i, r.Status(), c.logs[i])
	}
}

func startCluster(t testing.TB, limits pbft.Limits, durability ...pbft.Durability) *cluster {
	t.Helper()
	c := newCluster(t, limits, pbft.TransportPlain, durability...)
	for i := range c.replicas {
		c.start(i)
	}
	return c
}

// withWires puts a wire that can be cut between every two replicas. Call it before start.
func (c *cluster) withWires() *cluster {
	c.wires = make([][]*wire, len(c.replicas))
	for i := range c.replicas {
		c.wires[i] = make([]*wire, len(c.replicas))
		for j := range c.replicas {
			if i != j {
				c.wires[i][j] = newWire(c.t, c.g.Members[j].Address)
			}
		}
	}
	return c
}

// groupOf is the group as replica i's file has it: addresses may differ.
func (c *cluster) groupOf(i int) *pbft.Group {
	if c.wires == nil {
		return c.g
	}
	parts := *c.g
	parts.Members = append([]pbft.Member(nil), c.g.Members...)
	for j, w := range c.wires[i] {
		if w != nil {
			parts.Members[j].Address = w.l.Addr().String()
		}
	}
	g, err := pbft.CheckGroup(parts)
	if err != nil {
		c.t.Fatal(err)
	}
	return g
}

// start runs replica i, in its directory and with an empty state.
func (c *cluster) start(i int, change ...func(*pbft.ReplicaConfig)) *pbft.Replica {
	c.t.Helper()
	cfg := pbft.ReplicaConfig{Group: c.groupOf(i), Self: pbft.ReplicaID(i), Key: c.keys[i], Directory: c.dirs[i],
		Listen: c.g.Members[i].Address, Service: c.service(i), Transport: c.transport,
		Logger: slog.New(slog.NewTextHandler(c.logs[i], nil))}
	for _, f := range change {
		f(&cfg)
	}
	r, err := pbft.StartReplica(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.replicas[i] = r
	c.t.Cleanup(func() { _ = r.Close(context.Background()) })
	return r
}

func (c *cluster) stop(i int) {
	c.t.Helper()
	if err := c.replicas[i].Close(context.Background()); err != nil {
		c.t.Fatal(err)
	}
	c.replicas[i] = nil
}

// isolate cuts replica i off from the other replicas, or joins it to them again.
func (c *cluster) isolate(i int, cut bool) {
	for j := range c.replicas {
		if j != i {
			c.wires[i][j].set(cut)
			c.wires[j][i].set(cut)
		}
	}
}

func (c *cluster) client(key ed25519.PrivateKey, change ...func(*pbft.ClientConfig)) *pbft.Client {
	c.t.Helper()
	cfg := pbft.ClientConfig{Group: c.g, Key: key, Transport: c.transport}
	for _, f := range change {
		f(&cfg)
	}
	x, err := pbft.NewClient(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = x.Close() })
	return x
}

// enrolled makes a client's key and enrols it.
func (c *cluster) enrolled(admin *pbft.Client, rights string) ed25519.PrivateKey {
	c.t.Helper()
	public, private, _ := ed25519.GenerateKey(nil)
	if err := admin.Enrol(deadline(c.t), public, []byte(rights)); err != nil {
		c.t.Fatal(err)
	}
	return private
}

// deadline is a context that ends long after anything here takes.
func deadline(t testing.TB) context.Context {
	ctx, cancel := patience.Context(context.Background(), patience.Usual)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	patience.Until(t, what, ok)
}

func invoke(t testing.TB, c *pbft.Client, op string, readOnly bool) uint64 {
	t.Helper()
	reply, err := c.Invoke(deadline(t), []byte(op), readOnly)
	if err != nil {
		t.Fatalf("%s: %v", op, err)
	}
	return binary.BigEndian.Uint64(reply)
}

// agree waits until all running replicas have the same stable checkpoint, above the one
// given, and compares roots. push makes the group go on until then.
func (c *cluster) agree(above pbft.SeqNum, push func()) {
	c.t.Helper()
	looks := 0
	eventually(c.t, "one stable checkpoint everywhere", func() bool {
		// Between two pushes there is time for a replica that is spared to follow.
		if looks++; looks%16 < c.checkpointPushes() {
			push()
		}
		var first *pbft.Status
		for _, r := range c.replicas {
			if r == nil {
				continue
			}
			s := r.Status()
			if first == nil {
				first = &s
			}
			if s.Stable != first.Stable || s.Stable <= above {
				return false
			}
			if s.Root != first.Root {
				c.t.Fatalf("checkpoint %d: root %s at %d, %s at %d",
					s.Stable, first.Root, first.Replica, s.Root, s.Replica)
			}
		}
		return true
	})
}

// checkpointPushes is how many operations in a row make a checkpoint.
func (c *cluster) checkpointPushes() int { return int(c.g.Limits.CheckpointPeriod) }

// A wire forwards connections to an address until it is cut.
type wire struct {
	l     net.Listener
	to    string
	mu    sync.Mutex
	cut   bool
	conns map[net.Conn]bool
	all   sync.WaitGroup
}

func newWire(t testing.TB, to string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{l: l, to: to, conns: map[net.Conn]bool{}}
	w.all.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.set(true)
		w.all.Wait()
	})
	return w
}

func (w *wire) accept() {
	for {
		in, err := w.l.Accept()
		if err != nil {
			return
		}
		out, err := net.Dial("tcp", w.to)
		if err != nil || !w.add(in, out) {
			_ = in.Close()
			if err == nil {
				_ = out.Close()
			}
			continue
		}
		w.all.Go(func() { w.copy(in, out) })
		w.all.Go(func() { w.copy(out, in) })
	}
}

func (w *wire) add(conns ...net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range conns {
		if !w.cut {
			w.conns[c] = true
		}
	}
	return !w.cut
}

func (w *wire) copy(from, to net.Conn) {
	_, _ = io.Copy(to, from)
	_ = from.Close()
	_ = to.Close()
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.conns, from)
}

// set cuts the wire, with what is under way on it, or joins it.
func (w *wire) set(cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cut = cut
	for c := range w.conns {
		if cut {
			_ = c.Close()
		}
	}
}
