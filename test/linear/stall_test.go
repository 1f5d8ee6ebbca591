// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/patience"
)

var (
	stallRounds = flag.Int("stall.rounds", 1, "how often each fault comes")
	stallLasts  = flag.Duration("stall.lasts", 1500*time.Millisecond, "how long each fault lasts")
)

// A trouble is a fault that TestStalls makes, and the replica that has it.
type trouble struct {
	name    string
	primary bool
	begin   func(p *cluster.Process) error
	end     func(ctx context.Context, p *cluster.Process) error
}

func kill(p *cluster.Process) error { p.Kill(); return nil }
func term(p *cluster.Process) error { p.Terminate(); return nil }
func halt(p *cluster.Process) error { return p.Signal(syscall.SIGSTOP) }

func again(ctx context.Context, p *cluster.Process) error {
	if err := p.Start(); err != nil {
		return err
	}
	return p.Ready(ctx)
}
func goOn(_ context.Context, p *cluster.Process) error { return p.Signal(syscall.SIGCONT) }

var troubles = []trouble{
	{"primary ended by SIGTERM", true, term, again}, // it hands over first
	{"primary killed", true, kill, again},
	{"primary stopped", true, halt, goOn},
	{"backup killed", false, kill, again},
	{"backup stopped", false, halt, goOn},
}

// A stall is how long the longest call of a phase took.
type stall struct {
	before, during, after time.Duration
	changes               [2]pbft.View // views that were passed during the fault, and on return
}

func (s *stall) max(o stall) {
	s.before, s.during, s.after = max(s.before, o.before), max(s.during, o.during), max(s.after, o.after)
	s.changes[0] += o.changes[0]
	s.changes[1] += o.changes[1]
}

// TestStalls measures the longest waits of clients when a replica is killed or stopped,
// and logs them as a table. It asserts that every call is answered, but asserts nothing
// of the times, because they depend on the machine's load too.
func TestStalls(t *testing.T) {
	g := cluster.ForTest(t, cluster.Config{})
	relay, err := g.AddRelay(t.Context(), cluster.Client{InsecurePorts: true})
	if err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(g.Dir, "group", "admin")
	client := newClient(t, filepath.Join(g.Dir, "group", "group.toml"), pbft.TransportTLS, func(key string) {
		if _, err := g.Command(t.Context(), "bfsd", "client", "add", "--timeout", patience.For(time.Minute).String(),
			"--admin", admin, "--key", key, "--squash", "none"); err != nil {
			t.Fatal(err)
		}
	})
	admins := adminsOf(t, readGroup(t, filepath.Join(g.Dir, "group", "group.toml")))
	roads := []road{{"relay", func(i int) caller {
		return &rpcCaller{address: fmt.Sprintf("127.0.0.1:%d", relay.Port), xid: uint32(i) << 24}
	}}, {"pbft.Client", func(int) caller { return goCaller{client} }}}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "fault\troad\tcalls/s before\tlongest before\tlongest during\tlongest on return\tviews\t")
	for _, tr := range troubles {
		for _, r := range roads {
			var worst stall
			rate := 0.0
			for range *stallRounds {
				s, calls, err := endure(t, g, admins, r, tr)
				if err != nil {
					t.Fatalf("%s, %s: %v", tr.name, r.name, err)
				}
				worst.max(s)
				rate += calls / float64(*stallRounds)
			}
			fmt.Fprintf(w, "%s\t%s\t%.0f\t%.1f ms\t%.1f ms\t%.1f ms\t%d+%d\t\n", tr.name, r.name, rate,
				ms(worst.before), ms(worst.during), ms(worst.after), worst.changes[0], worst.changes[1])
		}
	}
	w.Flush()
	t.Logf("%+v", client.Status())
	t.Logf("%d rounds of %v, 4 callers\n%s", *stallRounds, *stallLasts, table.String())
}

// A road is a way to the group: a relay or a pbft.Client.
type road struct {
	name   string
	caller func(i int) caller
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// adminsOf returns the addresses at which replicas tell their status: bfsd init chooses
// the next port.
func adminsOf(t testing.TB, g *pbft.Group) (all []string) {
	t.Helper()
	for _, m := range g.Members {
		var port int
		if _, err := fmt.Sscanf(m.Address, "127.0.0.1:%d", &port); err != nil {
			t.Fatal(err)
		}
		all = append(all, fmt.Sprintf("127.0.0.1:%d", port+1))
	}
	return all
}

// endure loads the group over one road while trouble comes and goes.
func endure(t *testing.T, g *cluster.Group, admins []string, r road, tr trouble) (s stall, rate float64, err error) {
	first := viewOf(t.Context(), admins)
	victim := int(first % members)
	if !tr.primary {
		victim = (victim + 2) % members
	}
	l := startLoad(t, r)
	defer l.stop()
	<-time.After(*stallLasts / 2) // not a limit: this long the load runs alone, for comparison
	s.before, rate = l.longest(), l.rate()
	p := g.Replicas[victim]
	if err := tr.begin(p); err != nil {
		return s, rate, err
	}
	<-time.After(*stallLasts) // not a limit: this long the fault lasts
	s.during = l.longest()
	second := viewOf(t.Context(), slices.Delete(slices.Clone(admins), victim, victim+1))
	if err = tr.end(t.Context(), p); err == nil {
		err = whole(t.Context(), admins)
	}
	s.after = l.longest()
	s.changes = [2]pbft.View{second - first, viewOf(t.Context(), admins) - second}
	return s, rate, err
}

// A load is a number of callers. Each writes and reads a file of its own without a pause.
type load struct {
	t     *testing.T
	end   context.CancelFunc
	all   sync.WaitGroup
	since time.Time

	mu    sync.Mutex
	begun map[int]time.Time // of the calls under way, by caller
	worst time.Duration     // of calls that ended since longest was last called
	calls int
}

func startLoad(t *testing.T, r road) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{t: t, end: cancel, since: time.Now(), begun: make(map[int]time.Time)}
	for i := range 4 {
		c := r.caller(i)
		root := mount(t, c)
		l.all.Go(func() {
			defer c.close()
			l.caller(ctx, i, c, root)
		})
	}
	return l
}

func (l *load) caller(ctx context.Context, i int, c caller, root nfs3.FileHandle) {
	args := nfs3.CreateArgs{Where: nfs3.DirOp{Dir: root, Name: fmt.Appendf(nil, "load%d", i)}, Mode: nfs3.Unchecked}
	results, ok := l.call(ctx, i, c, nfs3.ProcCreate, args.Append(nil))
	if !ok {
		return
	}
	made, err := nfs3.DecodeCreateResult(results)
	if err != nil || made.Status != nfs3.OK {
		l.t.Errorf("create: %v, %v", made.Status, err)
		return
	}
	file := made.Object.Handle.FileHandle()
	data := make([]byte, 4096)
	for n := 0; ok; n++ {
		if n%2 == 0 {
			_, ok = l.call(ctx, i, c, nfs3.ProcWrite,
				(&nfs3.WriteArgs{File: file, Stable: nfs3.FileSync, Data: data}).Append(nil))
		} else {
			_, ok = l.call(ctx, i, c, nfs3.ProcRead, (&nfs3.ReadArgs{File: file, Count: 4096}).Append(nil))
		}
	}
}

func (l *load) call(ctx context.Context, i int, c caller, procedure uint32, args []byte) ([]byte, bool) {
	begun := time.Now()
	l.mu.Lock()
	l.begun[i] = begun
	l.mu.Unlock()
	results, err := c.call(ctx, nfs3.ProgramNFS, procedure, args)
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.begun, i)
	if ctx.Err() != nil {
		return nil, false
	}
	if err != nil {
		l.t.Errorf("call %d of caller %d: %v", procedure, i, err)
		return nil, false
	}
	l.calls++
	l.worst = max(l.worst, time.Since(begun))
	return results, true
}

// longest returns the duration of the longest call among those that ended since longest
// was last called, and those under way.
func (l *load) longest() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	worst := l.worst
	for _, begun := range l.begun {
		worst = max(worst, time.Since(begun))
	}
	l.worst = 0
	return worst
}

func (l *load) rate() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return float64(l.calls) / time.Since(l.since).Seconds()
}

func (l *load) stop() {
	l.end()
	l.all.Wait()
}
