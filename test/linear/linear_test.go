// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/hosts"
	"bfs/test/patience"
)

var (
	seedFlag     = flag.Uint64("linear.seed", 0, "seed of the faults and of the calls; 0: a fresh one")
	durationFlag = flag.Duration("linear.duration", 20*time.Second, "how long the clients work and faults come")
	hostsFlag    = flag.String("linear.hosts", "",
		"prefix of the network of hosts that this process is on; empty: all is on the loopback")
	limitFlag = flag.Duration("linear.limit", 4*time.Second,
		"a call that takes longer, on a quiet machine, is given up and may have happened")
)

// wholeWithin bounds how long a group may take to be whole after a fault.
const wholeWithin = time.Minute

// judgeWithin bounds the search for an order of one directory's calls.
const judgeWithin = 30 * time.Second

func TestMain(m *testing.M) {
	flag.Parse()
	apart.Main(m, cluster.RemoveBinaries)
}

// Clients of three identities work on the same files while one replica after the other,
// the primary among them, is killed, stopped and cut off, and relays are killed. One
// order of the calls explains all answers.
func TestLinearizable(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	defer func() {
		if t.Failed() {
			t.Logf("again: go test ./test/linear -run TestLinearizable -linear.seed %d -linear.duration %v",
				seed, *durationFlag)
		}
	}()
	var l links = &cables{t: t}
	if *hostsFlag != "" {
		l = wires{hosts.Attach(t, *hostsFlag, hostNames...)}
	}
	g := startGroup(t, l)
	g.addRelay()
	g.addRelay()
	callers := []caller{goCaller{g.addClient()}}
	callers = append(callers, callers[0])
	for i, r := range []int{0, 0, 1, 1} {
		c := &rpcCaller{address: g.relays[r].address, xid: uint32(i) << 24}
		callers = append(callers, c)
		defer c.close()
	}
	h := &histories{root: mount(t, callers[0]), start: time.Now()}
	g.began = h.start
	workers, err := g.work(h, callers, seed)
	if err != nil {
		t.Error(err)
	}
	report(t, workers, seed)
	judge(t, h, seed)
}

// The same on five hosts, where the kernel's routes drop packets of one direction, and
// TCP sends them again.
func TestLinearizableOnHosts(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (make kernel-test) to test on five network namespaces")
	}
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	n := hosts.NewNetwork(t, hostNames...)
	args := n.On(hostNames[members], os.Args[0], "-test.run", "^TestLinearizable$",
		"-test.v", "-linear.hosts", n.Prefix(), "-linear.seed", fmt.Sprint(*seedFlag),
		"-linear.duration", durationFlag.String(), "-linear.limit", limitFlag.String())
	c := exec.CommandContext(t.Context(), args[0], args[1:]...)
	c.Env = append(os.Environ(), "BFS_BIN="+bin)
	out, err := c.CombinedOutput()
	t.Logf("on the clients' host:\n%s", out)
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestLinearizable")) {
		t.Errorf("%v", err)
	}
}

// work lets workers and faults run, and then waits until every worker has ended the call it was in.
func (g *group) work(h *histories, callers []caller, seed uint64) ([]*worker, error) {
	ctx, cancel := context.WithTimeout(g.t.Context(), *durationFlag) // not a limit: this long there is work
	defer cancel()
	var all sync.WaitGroup
	var workers []*worker
	failed := make(chan error, len(callers)+1)
	busy, rest := context.WithCancel(context.Background())
	defer rest()
	for i, c := range callers {
		w := &worker{number: i, histories: h, chance: rand.New(rand.NewPCG(seed, uint64(i+1))), caller: c,
			limit: patience.For(*limitFlag)}
		workers = append(workers, w)
		all.Go(func() {
			if err := w.run(busy); err != nil {
				failed <- err
				cancel()
			}
		})
	}
	steps, err := g.suffer(ctx, seed) // the workers work on until the group is whole: a checkpoint needs them
	if err != nil {
		failed <- err
	}
	rest()
	all.Wait()
	g.t.Logf("%d faults", steps)
	select {
	case err := <-failed:
		return workers, err
	default:
		return workers, nil
	}
}

func report(t testing.TB, workers []*worker, seed uint64) {
	calls, unknown, longest := 0, 0, time.Duration(0)
	for _, w := range workers {
		calls, unknown, longest = calls+w.calls, unknown+w.unknown, max(longest, w.longest)
	}
	t.Logf("seed %d: %d calls, %d given up, the longest took %v", seed, calls, unknown, longest.Round(time.Millisecond))
}

// judge looks for an order for each directory's calls.
func judge(t testing.TB, h *histories, seed uint64) {
	t.Helper()
	begun := time.Now()
	var all sync.WaitGroup
	turns := make(chan struct{}, 2)
	for place, history := range h.judged {
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			result, info := porcupine.CheckOperationsVerbose(model, history, patience.ForNow(judgeWithin))
			if result == porcupine.Ok {
				return
			}
			t.Errorf("seed %d, directory %d: %d calls: %s; see %s",
				seed, place, len(history), result, keep(info, seed, place))
		})
	}
	all.Wait()
	t.Logf("%d directories judged in %v", len(h.judged), time.Since(begun).Round(time.Millisecond))
}

// keep writes a history as an HTML page, and returns its path.
func keep(info porcupine.LinearizationInfo, seed uint64, place int) string {
	file := filepath.Join("..", "..", "build", fmt.Sprintf("linear-seed%d-directory%d.html", seed, place))
	err := os.MkdirAll(filepath.Dir(file), 0o755)
	if err == nil {
		err = porcupine.VisualizePath(model, info, file)
	}
	if err != nil {
		return err.Error()
	}
	return file
}
