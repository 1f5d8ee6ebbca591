// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

// paged is a file system whose idle pages are written by operations of its own, because
// filling a gigabyte through NFS takes longer than what is measured here.
type paged struct {
	*nfsstate.FS
	free pbft.PageNum // the first page that no file lies on
}

const pagedLimit = 1 << 19

func newPaged(t testing.TB, g *pbft.Group) paged {
	t.Helper()
	store, err := fsmerkle.New(fsmerkle.Options{Pages: pagedLimit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	fs, err := nfsstate.New(store, nfsstate.Config{Pages: pagedLimit,
		Reserved: uint64(g.ReservedPages()), Inodes: 1 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return paged{fs, pagedLimit / 4}
}

// write is the operation that fills count pages from page from on, step pages apart, with
// what seed says.
func write(from, count, step, seed uint64) []byte {
	var b []byte
	for _, v := range []uint64{from, count, step, seed} {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return b
}

// Execute runs a write, or a read that had to be ordered.
func (s paged) Execute(op pbft.Operation) ([]byte, bool) {
	if len(op.Body) == 0 {
		return nil, false
	}
	var v [4]uint64
	for i := range v {
		v[i] = binary.BigEndian.Uint64(op.Body[8*i:])
	}
	x := v[3]<<32 | 1
	for i := range v[1] {
		page := s.State().Modify(s.free + pbft.PageNum(v[0]+i*v[2]))
		for at := 0; at < len(page); at += 8 {
			x = x*6364136223846793005 + 1442695040888963407
			binary.LittleEndian.PutUint64(page[at:], x)
		}
	}
	return nil, true
}

// Query reads nothing.
func (s paged) Query(op pbft.Operation) ([]byte, bool) { return nil, len(op.Body) == 0 }

// startPaged runs replica i of a cluster over an empty file system.
func (c *cluster) startPaged(i int) {
	c.t.Helper()
	r, err := pbft.StartReplica(pbft.ReplicaConfig{Group: c.groupOf(i), Self: pbft.ReplicaID(i), Key: c.keys[i],
		Directory: c.dirs[i], Listen: c.g.Members[i].Address, Service: newPaged(c.t, c.g), Transport: c.transport})
	if err != nil {
		c.t.Fatal(err)
	}
	c.replicas[i] = r
	c.t.Cleanup(func() { _ = r.Close(context.Background()) })
}

// fill writes so many mebibytes.
func fill(t testing.TB, c *pbft.Client, mebibytes uint64) {
	t.Helper()
	for i := range mebibytes {
		mustWrite(t, c, write(i*256, 256, 1, i))
	}
}

func mustWrite(t testing.TB, c *pbft.Client, op []byte) {
	t.Helper()
	if _, err := c.Invoke(deadline(t), op, false); err != nil {
		t.Fatal(err)
	}
}

// pass makes the group execute that many batches.
func pass(t testing.TB, c *pbft.Client, batches pbft.SeqNum) {
	t.Helper()
	for range batches {
		mustWrite(t, c, write(0, 0, 0, 0))
	}
}

// pagedCluster is four replicas of which the last is not started; with wires they can be cut off.
func pagedCluster(t testing.TB, wires bool) (*cluster, *pbft.Client) {
	c := newCluster(t, pbft.DefaultLimits(), pbft.TransportPlain)
	if wires {
		c.withWires()
	}
	for i := range 3 {
		c.startPaged(i)
	}
	admin := c.client(c.admin)
	return c, c.client(c.enrolled(admin, ""))
}

// fetched waits until replica i has installed one more state than before, and returns
// what that took.
func (c *cluster) fetched(i, before int) (got pbft.Fetched) {
	c.t.Helper()
	eventually(c.t, "the state fetched", func() bool {
		got = c.replicas[i].Status().Fetched
		return got.States > before
	})
	return got
}

// BenchmarkTransfer: a replica comes with an empty disk, or is cut off while a hundredth of the
// state changes; the group is idle or goes on meanwhile. All four replicas share this process.
//
//	MB/s      of DATA taken in, from noticing the lag until the state is installed
//	MB/CPU-s  the same for each second of processor time that all four use together
//	MB        of DATA, what is fetched for checkpoints overtaken by the group included
//	writes/s  that the group does meanwhile
func BenchmarkTransfer(b *testing.B) {
	for _, load := range []bool{false, true} {
		name := map[bool]string{false: "idle", true: "busy"}[load]
		b.Run("empty/"+name, func(b *testing.B) { benchmarkTransfer(b, load, false) })
		b.Run("changed/"+name, func(b *testing.B) { benchmarkTransfer(b, load, true) })
	}
}

var stateFlag = flag.Uint64("state", 1024, "mebibytes of state that the benchmarks begin with")

func benchmarkTransfer(b *testing.B, load, changed bool) {
	var bytes, seconds, cpu, writes float64
	for range b.N {
		c, client := pagedCluster(b, changed)
		if changed {
			c.startPaged(3)
		}
		fill(b, client, *stateFlag)
		states := 0
		if changed {
			eventually(b, "replica 3 is up to date", func() bool {
				s := c.replicas[3].Status()
				states = s.Fetched.States
				return !s.Fetching && s.LastExecuted >= pbft.SeqNum(*stateFlag)
			})
			c.isolate(3, true)
			for k := range uint64(100) {
				mustWrite(b, client, write(101*k, 256**stateFlag/100/100, 9973, rand.Uint64()))
			}
		}
		pass(b, client, 3*c.g.Limits.LogSize)
		stop := c.load(client, load)
		var before pbft.Fetched
		if changed {
			before = c.replicas[3].Status().Fetched
			c.isolate(3, false)
		}
		if !changed {
			warm(b, *stateFlag<<20)
			c.startPaged(3)
		}
		start, used := time.Now(), processCPU(b)
		got := c.fetched(3, states)
		cpu += (processCPU(b) - used).Seconds()
		rate := float64(stop()) / time.Since(start).Seconds()
		bytes += float64(got.Bytes - before.Bytes)
		seconds += got.Took.Duration().Seconds()
		writes += rate
		for i := range c.replicas {
			c.stop(i)
		}
	}
	b.ReportMetric(bytes/seconds/1e6, "MB/s")
	b.ReportMetric(bytes/cpu/1e6, "MB/CPU-s")
	b.ReportMetric(bytes/1e6/float64(b.N), "MB")
	b.ReportMetric(writes/float64(b.N), "writes/s")
	b.ReportMetric(0, "ns/op")
}

// load has eight writers at work until stop, which returns how many writes they did.
func (c *cluster) load(client *pbft.Client, on bool) (stop func() int64) {
	var done atomic.Int64
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for w := range 8 {
		if !on {
			break
		}
		all.Go(func() {
			for seed := uint64(w); ctx.Err() == nil; seed += 8 {
				if _, err := client.Invoke(ctx, write(seed*7919%(256**stateFlag), 1, 1, seed), false); err == nil {
					done.Add(1)
				}
			}
		})
	}
	return func() int64 {
		n := done.Load()
		cancel()
		all.Wait()
		return n
	}
}

// processCPU is the processor time that this process has used.
func processCPU(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// warm touches so much memory and gives it back to the kernel. In a virtual machine the
// first touch of a page costs its host 10 µs, three times what all of ours cost; a
// replica that has run for a while has that behind it.
func warm(t testing.TB, bytes uint64) {
	t.Helper()
	b, err := syscall.Mmap(-1, 0, int(bytes), syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_ANON|syscall.MAP_PRIVATE|syscall.MAP_POPULATE)
	if err == nil {
		err = syscall.Munmap(b)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// BenchmarkTransferPages: a replica of an idle group is cut off while some of its 256 MiB
// change, and fetches them [TOCS §8.1.5, figure 14].
//
//	ms    from noticing the lag until the state is installed
//	MB/s  of DATA
func BenchmarkTransferPages(b *testing.B) {
	for _, spread := range []string{"together", "scattered"} {
		for _, pages := range []uint64{1 << 10, 1 << 12, 1 << 14, 1 << 16} {
			b.Run(fmt.Sprintf("%s/%d", spread, pages), func(b *testing.B) {
				benchmarkTransferPages(b, pages, spread == "scattered")
			})
		}
	}
}

func benchmarkTransferPages(b *testing.B, pages uint64, scattered bool) {
	const state, run = 256, 256 // MiB; pages that an operation writes
	c, client := pagedCluster(b, true)
	c.startPaged(3)
	fill(b, client, state)
	pass(b, client, c.g.Limits.CheckpointPeriod)
	var bytes, seconds float64
	b.ResetTimer()
	for i := range uint64(b.N) {
		c.level(client)
		before := c.replicas[3].Status().Fetched
		c.isolate(3, true)
		for k := range pages / run {
			seed := 1 + i*pages + k
			if scattered {
				mustWrite(b, client, write(k*61%256, run, 256, seed)) // every 256th page from there on
			} else {
				mustWrite(b, client, write(k*run, run, 1, seed))
			}
		}
		pass(b, client, 3*c.g.Limits.LogSize)
		c.isolate(3, false)
		got := c.fetched(3, before.States)
		bytes += float64(got.Bytes - before.Bytes)
		seconds += got.Took.Duration().Seconds()
	}
	b.ReportMetric(1000*seconds/float64(b.N), "ms")
	b.ReportMetric(bytes/seconds/1e6, "MB/s")
	b.ReportMetric(0, "ns/op")
}
