// SPDX-License-Identifier: Apache-2.0

package power

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

var (
	roundsFlag = flag.Int("power.rounds", 1, "how often the power of all replicas is cut")
	seedFlag   = flag.Uint64("power.seed", 0, "seed of the operations and of the times of the cuts; 0: a fresh one")
	keepFlag   = flag.String("power.dir", "", "an empty directory for disks and logs, which stay there; empty: a temporary one")
)

const (
	workers     = 6
	leastAcked  = 100 // operations in a round before the cut
	furtherMost = 300 // and up to this many more, by chance
)

func TestMain(m *testing.M) {
	flag.Parse()
	apart.Main(m, cluster.RemoveBinaries)
}

// The power of all replicas is cut in one instant, under load, again and again. After each cut the
// files show every acknowledged operation once and nothing that was not written, and every handle
// is good.
func TestPowerCut(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (make kernel-test) to run replicas under guest kernels and cut their power")
	}
	if err := guest.Available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		t.Skip("NOT RUN: needs mkfs.ext4 (Debian package e2fsprogs)")
	}
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	g := newGroup(t)
	g.boot(false)
	l := newLoad(g, seed)
	l.start()
	for round := 1; round <= *roundsFlag && !t.Failed(); round++ {
		l.round(round)
	}
	l.end()
	t.Logf("%d rounds, seed %d: %d operations acknowledged", *roundsFlag, seed, l.acked.Load())
}

// A load is the workers, with their counts.
type load struct {
	*group
	chance  *rand.Rand
	acked   atomic.Int64
	cuts    atomic.Int64
	workers []*worker
	working context.Context // until end
	quit    context.CancelFunc
	all     sync.WaitGroup
	failed  chan error // of workers
}

// newLoad mounts the group and makes the workers' directories.
func newLoad(g *group, seed uint64) *load {
	g.t.Helper()
	client := g.client()
	l := &load{group: g, chance: rand.New(rand.NewPCG(seed, workers)), failed: make(chan error, workers)}
	l.working, l.quit = context.WithCancel(context.WithoutCancel(g.t.Context()))
	g.t.Cleanup(l.end)
	fsys, err := bfs.Mount(g.t.Context(), client, "/export", nfs3.Credentials{})
	g.must(err)
	fsys = fsys.WithContext(l.working)
	for i := range workers {
		w, err := newWorker(fsys, i, seed, &l.acked, l.cuts.Load)
		g.must(err)
		w.bulk = i == 0 // the image on a replica's disk follows the journal only after some tens of MiB
		l.workers = append(l.workers, w)
	}
	return l
}

func (l *load) start() {
	for _, w := range l.workers {
		l.all.Go(func() {
			if err := w.run(l.working); err != nil {
				l.failed <- err
			}
		})
	}
}

// end stops the workers. It may be called twice.
func (l *load) end() {
	l.quit()
	l.all.Wait()
}

// round lets the workers work, cuts the power, and judges.
func (l *load) round(round int) {
	l.t.Helper()
	before := l.acked.Load()
	l.await(before + leastAcked + l.chance.Int64N(furtherMost))
	l.cuts.Add(1)
	l.cut()
	acked := l.acked.Load() - before
	begun := time.Now()
	l.boot(round%2 == 1)
	if round%3 == 2 { // a power cut while they start
		l.answered()
		l.cuts.Add(1)
		l.cut()
		l.boot(round%2 == 1)
	}
	l.await(l.acked.Load() + workers + 1) // so that one of them began after the cut
	served := time.Since(begun)
	wrong := l.check()
	reached := l.whole()
	l.t.Logf("round %d: %d acknowledged, %v; serves again after %.1f s, %d replicas take part after %.1f s",
		round, acked, wrong, served.Seconds(), reached, time.Since(begun).Seconds())
}

// await waits until this many operations were acknowledged.
func (l *load) await(acked int64) {
	l.t.Helper()
	ctx, cancel := patience.Context(l.t.Context(), settleIn)
	defer cancel()
	poll := time.NewTicker(2 * time.Millisecond)
	defer poll.Stop()
	for l.acked.Load() < acked {
		select {
		case err := <-l.failed:
			l.t.Fatalf("after %d power cuts: %v", l.cuts.Load(), err)
		case <-poll.C:
		case <-ctx.Done():
			reached, missing := l.survey(l.t.Context())
			l.t.Fatalf("after %d power cuts: %d operations acknowledged, want %d: %v; %d hosts are in reach;%s",
				l.cuts.Load(), l.acked.Load(), acked, ctx.Err(), reached, missing)
		}
	}
}

// check compares every worker's directory with its log, one after the other; the others work on meanwhile.
func (l *load) check() (all tally) {
	l.t.Helper()
	for _, w := range l.workers {
		wrong, sum := w.check()
		all.add(sum)
		for _, err := range wrong {
			l.t.Errorf("after %d power cuts: %v", l.cuts.Load(), err)
		}
	}
	return all
}
