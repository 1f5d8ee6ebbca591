// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

const (
	directWorkers  = 6
	mountedWorkers = 4
	clientMemory   = 384 // MiB of the client's kernel
)

// A gang is a number of workers in this process.
type gang struct {
	workers []*worker
	done    atomic.Int64
	all     sync.WaitGroup
	quit    context.CancelFunc
	still   sync.RWMutex // held by goroutines that have the workers stand still

	mu  sync.Mutex
	err error
}

// newGang makes the workers' directories and sets the workers to work. The first bulk of them write
// much.
func newGang(ctx context.Context, fsys files, name string, n, bulk int, seed uint64,
	cuts func() int64) (*gang, error) {
	g := &gang{}
	for i := range n {
		w, err := newWorker(fsys, name, i, seed, &g.done, cuts)
		if err != nil {
			return nil, err
		}
		w.still, w.bulk = g.still.RLocker(), i < bulk
		g.workers = append(g.workers, w)
	}
	ctx, g.quit = context.WithCancel(ctx)
	for _, w := range g.workers {
		g.all.Go(func() {
			if err := w.run(ctx); err != nil {
				g.fail(err)
			}
		})
	}
	return g, nil
}

func (g *gang) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err == nil {
		g.err = err
	}
}

func (g *gang) failure() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.err
}

func (g *gang) acked() int64 { return g.done.Load() }

// check compares the directories of all workers at once. Meanwhile the workers stand
// still between two operations.
func (g *gang) check() (all []error, sum tally) {
	g.still.Lock()
	defer g.still.Unlock()
	var mu sync.Mutex
	var checks sync.WaitGroup
	for _, w := range g.workers {
		checks.Go(func() {
			wrong, t := w.check()
			mu.Lock()
			defer mu.Unlock()
			all = append(all, wrong...)
			sum.add(t)
		})
	}
	checks.Wait()
	return all, sum
}

// A directCrew works through the Go client.
type directCrew struct {
	*gang
	client *pbft.Client
	cancel context.CancelFunc
}

// newDirect enrols a client and mounts the export.
func (s *soak) newDirect(ctx context.Context) (*directCrew, error) {
	ctx, limit := patience.Context(ctx, settleIn)
	defer limit()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	_, err = s.group.Command(ctx, "bfsd", "client", "add", "--timeout", patience.For(settleIn).String(),
		"--admin", filepath.Join(s.dir, "group", "admin"),
		"--key", "bfs-key:"+base64.StdEncoding.EncodeToString(public), "--squash", "none")
	if err != nil {
		return nil, err
	}
	group, err := readGroup(s.group.File())
	if err != nil {
		return nil, err
	}
	client, err := pbft.NewClient(pbft.ClientConfig{
		Group: group, Key: private, Transport: pbft.TransportTLS, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, err
	}
	c := &directCrew{client: client}
	var working context.Context
	working, c.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer context.AfterFunc(ctx, c.cancel)() // for the directories that workers make
	var fsys *bfs.FS
	if err = client.Ready(ctx); err == nil {
		fsys, err = bfs.Mount(ctx, client, "/export", nfs3.Credentials{})
	}
	if err == nil {
		bulk := 1
		if s.replays {
			bulk = directWorkers / 2
		}
		c.gang, err = newGang(working, direct{fsys.WithContext(working)}, "direct", directWorkers, bulk, s.seed,
			s.cuts.Load)
	}
	if err != nil {
		c.cancel()
		_ = client.Close()
		return nil, err
	}
	return c, nil
}

// readGroup reads a group file that init wrote and adjust changed.
func readGroup(file string) (*pbft.Group, error) {
	group, err := cluster.ReadGroup(file, stateSize)
	if err != nil {
		return nil, err
	}
	parts := *group
	parts.Limits.CheckpointBytes = checkpointBytes
	return pbft.CheckGroup(parts)
}

func (c *directCrew) name() string { return "direct" }
func (c *directCrew) size() int    { return directWorkers }

// check ends the workers' calls with ctx, because a call that hangs would keep the
// workers from standing still.
func (c *directCrew) check(ctx context.Context) ([]error, tally) {
	defer context.AfterFunc(ctx, c.cancel)()
	return c.gang.check()
}

func (c *directCrew) close() {
	c.cancel()
	c.all.Wait()
	_ = c.client.Close()
}

// A mountedCrew works under the NFS client of a guest kernel. The relay runs on this machine.
type mountedCrew struct {
	kernel *guest.Guest
	log    *os.File
	cuts   func() int64
	quit   context.CancelFunc
	ended  chan struct{} // closed when the checks have ended

	orders sync.Mutex // one order at a time
	line   net.Conn
	read   *bufio.Scanner

	mu   sync.Mutex
	last report
	err  error
}

// An order is a line from the soak to the workers on the mount, and a report is the answer.
type (
	order struct {
		Cuts  int64
		Check bool
	}
	report struct {
		Acked  int64
		Failed string // what the first worker said that failed
		Wrong  []string
		Tally  tally
	}
)

// newMounted starts a relay, and a guest kernel that mounts it and runs this program.
func (s *soak) newMounted(ctx context.Context) (*mountedCrew, error) {
	relay, err := s.group.AddRelay(ctx, cluster.Client{})
	if err != nil {
		return nil, err
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(s.dir, "client.log"))
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	kernel, err := guest.Start(context.WithoutCancel(ctx), guest.Options{
		Command: fmt.Sprintf("exec '%s' %s %s $NFS %d", program, workVerb, listener.Addr(), s.seed),
		Mounts:  []guest.Mount{{Port: relay.Port, MountPort: relay.Port, Export: relay.Export}},
		Output:  log, MemoryMB: clientMemory, SpreadCPU: true, Timeout: 24 * time.Hour, Dir: "/",
	})
	if err != nil {
		return nil, err
	}
	c := &mountedCrew{kernel: kernel, log: log, cuts: s.cuts.Load, ended: make(chan struct{})}
	ctx, c.quit = context.WithCancel(context.WithoutCancel(ctx))
	if err := c.connect(ctx, listener); err != nil {
		close(c.ended)
		c.close()
		return nil, fmt.Errorf("workers on a mount: %w\n%s", err, lastLines(log.Name(), 20))
	}
	go c.look(ctx)
	return c, nil
}

func (c *mountedCrew) connect(ctx context.Context, l net.Listener) (err error) {
	ctx, cancel := patience.Context(ctx, settleIn)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	if c.line, err = l.Accept(); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { _ = c.line.Close() })()
	c.read = bufio.NewScanner(c.line)
	c.read.Buffer(nil, 1<<20)
	_, err = c.give(order{})
	return err
}

// lookPeriod is the interval at which the workers on the mount are asked for the number
// of acknowledged operations.
const lookPeriod = 20 * time.Millisecond

func (c *mountedCrew) look(ctx context.Context) {
	defer close(c.ended)
	tick := time.NewTicker(lookPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if _, err := c.give(order{}); err != nil && ctx.Err() == nil {
				c.mu.Lock()
				c.err = err
				c.mu.Unlock()
				return
			}
		}
	}
}

// give sends an order to the workers and waits for their report.
func (c *mountedCrew) give(o order) (r report, err error) {
	c.orders.Lock()
	defer c.orders.Unlock()
	o.Cuts = c.cuts()
	if err := json.NewEncoder(c.line).Encode(o); err != nil {
		return r, err
	}
	if !c.read.Scan() {
		return r, errors.Join(errors.New("the workers' connection has ended"), c.read.Err())
	}
	if err := json.Unmarshal(c.read.Bytes(), &r); err != nil {
		return r, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = r
	if r.Failed != "" && c.err == nil {
		c.err = errors.New(r.Failed)
	}
	return r, nil
}

func (c *mountedCrew) name() string { return "mounted" }
func (c *mountedCrew) size() int    { return mountedWorkers }

func (c *mountedCrew) acked() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last.Acked
}

func (c *mountedCrew) failure() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *mountedCrew) check(ctx context.Context) (all []error, sum tally) {
	stop := context.AfterFunc(ctx, func() { _ = c.line.Close() })
	defer stop()
	r, err := c.give(order{Check: true})
	if err != nil {
		return []error{err}, sum
	}
	for _, text := range r.Wrong {
		all = append(all, errors.New(text))
	}
	return all, r.Tally
}

func (c *mountedCrew) close() {
	c.quit()
	if c.line != nil {
		_ = c.line.Close()
	}
	<-c.ended
	c.mu.Lock()
	failed := c.err != nil
	c.mu.Unlock()
	c.kernel.Kill()
	_, err := c.kernel.Wait()
	if failed { // a kernel that was killed here has no result, but its console may say more
		fmt.Fprintln(c.log, err)
	}
	c.log.Close()
}

// workVerb is the argument that makes this program the workers on a mount.
const workVerb = "work"

// workCommand runs in the client's kernel, with the arguments ADDRESS DIR SEED. It obeys
// the orders that come from the address.
func workCommand(args []string) (code int) {
	if err := work(args); err != nil {
		fmt.Println("power:", err)
		return 1
	}
	return 0
}

func work(args []string) error {
	if len(args) != 3 {
		return fmt.Errorf("usage: power %s ADDRESS DIR SEED", workVerb)
	}
	go guest.KeepNetwork(os.Getenv("GUEST_HOST"))
	var seed uint64
	if _, err := fmt.Sscan(args[2], &seed); err != nil {
		return err
	}
	line, err := net.Dial("tcp", args[0])
	if err != nil {
		return err
	}
	defer line.Close()
	var cuts atomic.Int64
	gang, err := newGang(context.Background(), mounted{args[1]}, "mounted", mountedWorkers, 1, seed, cuts.Load)
	if err != nil {
		return err
	}
	orders := json.NewDecoder(line)
	for {
		var o order
		if err := orders.Decode(&o); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		cuts.Store(o.Cuts)
		if err := json.NewEncoder(line).Encode(gang.report(o)); err != nil {
			return err
		}
	}
}

func (g *gang) report(o order) (r report) {
	if o.Check {
		wrong, sum := g.check()
		r.Tally = sum
		for _, err := range wrong {
			r.Wrong = append(r.Wrong, err.Error())
		}
	}
	if err := g.failure(); err != nil {
		r.Failed = err.Error()
	}
	r.Acked = g.acked()
	return r
}
