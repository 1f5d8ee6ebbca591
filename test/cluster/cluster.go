// SPDX-License-Identifier: Apache-2.0

// Package cluster runs a whole group on the loopback: four bfsd and any number of
// bfs-relay, each a process of its own. Any process can be killed, stopped, continued and
// started again. The package never sleeps: a process is ready when it prints so.
package cluster

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"bfs/test/patience"
)

// A Group is a running group.
type Group struct {
	Dir       string // bundles, relays and logs
	Replicas  []*Process
	Relays    []*Relay
	bin       string
	wrap      []string
	transport string
}

// A Relay is a bfs-relay process and the ports at which it serves.
type Relay struct {
	*Process
	Port   int
	Export string
	Dir    string
}

// Config holds the settings in which a group may differ from what bfsd init makes.
type Config struct {
	Replicas  int      // default 4; 1 is NO-REP, the same service without ordering
	Transport string   // tls, the default, or plain
	Wrap      []string // put before every command, for example taskset -c 1

	Size       uint64 // of the state, whole MiB; 0: init's default
	Durability string // disk, the default, or replicated
	// Keeper is a recovery period, or empty. With a period each replica runs under a keeper,
	// which recovers it once in this time; 0s: never.
	Keeper string

	// Prepare is called before the replicas start, with the directory of their bundles; it
	// may be nil.
	Prepare func(bundles string) error
}

// A Client holds the rights with which a relay is enrolled.
type Client struct {
	Export        string // default /export
	Squash        bool   // root is nobody
	Quota         string // for example 32MiB: the export is made for this client, with that much room
	InsecurePorts bool   // let clients without root call
}

var built struct {
	sync.Mutex
	dir string // what Binaries made; empty if nothing is there
}

// Binaries builds bfsd and bfs-relay, unless it has built them before, and returns their
// directory. The directory stays until RemoveBinaries.
func Binaries() (string, error) {
	if dir := os.Getenv("BFS_BIN"); dir != "" { // programs built before
		return filepath.Abs(dir)
	}
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		return built.dir, nil
	}
	dir, err := os.MkdirTemp("", "bfs-test-bin-")
	if err != nil {
		return "", err
	}
	c := exec.Command("go", "build", "-o", dir+"/", "bfs/cmd/bfsd", "bfs/cmd/bfs-relay")
	c.Env = append(os.Environ(), "CGO_ENABLED=0") // as make build does
	out, err := c.CombinedOutput()
	if err != nil {
		_ = os.RemoveAll(dir)
		return "", fmt.Errorf("build: %w\n%s", err, out)
	}
	built.dir = dir
	return dir, nil
}

// RemoveBinaries removes what Binaries built, if it did.
func RemoveBinaries() {
	built.Lock()
	defer built.Unlock()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir)
		built.dir = ""
	}
}

// ForTest starts a group that ends with the test, and whose logs are shown if the test fails.
func ForTest(t testing.TB, c Config) *Group {
	t.Helper()
	g, err := Start(t.Context(), t.TempDir(), c)
	if g != nil {
		t.Cleanup(func() {
			g.Stop()
			if t.Failed() {
				t.Log(g.Logs(30))
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// Start makes a group's bundles in dir, starts its replicas and waits until all are ready. If
// Start returns an error and a group, the group has started in part, and the caller must Stop it.
func Start(ctx context.Context, dir string, c Config) (*Group, error) {
	g, err := Of(dir, c.Transport)
	if err != nil {
		return nil, err
	}
	if err := g.AddReplicas(ctx, c); err != nil {
		return g, err
	}
	return g, g.startReplicas(ctx)
}

// Of returns a group in dir without replicas. They are added later, or the caller runs
// them: then dir/group has the files that bfsd init wrote.
func Of(dir, transport string) (*Group, error) {
	bin, err := Binaries()
	if err != nil {
		return nil, err
	}
	if transport == "" {
		transport = "tls"
	}
	return &Group{Dir: dir, bin: bin, transport: transport}, nil
}

// AddReplicas makes a group's bundles and its replicas, and starts none. The transport
// argument is the group's.
func (g *Group) AddReplicas(ctx context.Context, c Config) error {
	if c.Replicas == 0 {
		c.Replicas = 4
	}
	g.wrap = c.Wrap
	if err := g.init(ctx, c); err != nil {
		return err
	}
	verb := "run"
	switch {
	case c.Replicas == 1:
		verb = "norep"
	case c.Keeper != "":
		verb = "keeper"
	}
	for i := range c.Replicas {
		config := g.ReplicaFile(i)
		if c.Keeper != "" {
			if err := setPeriod(config, c.Keeper); err != nil {
				return err
			}
		}
		g.Replicas = append(g.Replicas, g.process(fmt.Sprintf("replica%d", i), "bfsd", verb, "--config", config))
	}
	if c.Prepare != nil {
		return c.Prepare(g.path("group"))
	}
	return nil
}

// init makes the bundles of replicas on the loopback.
func (g *Group) init(ctx context.Context, c Config) error {
	var hosts []string
	for range c.Replicas {
		port, err := portPair()
		if err != nil {
			return err
		}
		hosts = append(hosts, fmt.Sprintf("127.0.0.1:%d", port))
	}
	args := []string{"init", "--hosts", strings.Join(hosts, ","), "--out", g.path("group"), "--transport", g.transport}
	if c.Durability != "" {
		args = append(args, "--durability", c.Durability)
	}
	if c.Keeper != "" {
		args = append(args, "--keeper")
	}
	if c.Size != 0 {
		args = append(args, "--size", fmt.Sprintf("%dMiB", c.Size>>20))
	}
	_, err := g.Command(ctx, "bfsd", args...)
	return err
}

// File returns the path of the group file.
func (g *Group) File() string { return g.path("group", "group.toml") }

// ReplicaFile returns the path of a replica's configuration file.
func (g *Group) ReplicaFile(i int) string {
	return g.path("group", fmt.Sprintf("host%d", i), "replica.toml")
}

// Binary returns the path of one of the group's programs.
func (g *Group) Binary(program string) string { return filepath.Join(g.bin, program) }

// setPeriod changes the recovery period in a replica's file.
func setPeriod(file, period string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	changed := recoveryPeriod.ReplaceAll(text, fmt.Appendf(nil, "recovery_period = %q", period))
	return os.WriteFile(file, changed, 0o644)
}

var recoveryPeriod = regexp.MustCompile(`(?m)^recovery_period = .*$`)

func (g *Group) startReplicas(ctx context.Context) error {
	for _, p := range g.Replicas {
		if err := p.Start(); err != nil {
			return err
		}
	}
	for _, p := range g.Replicas {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	return nil
}

// AddRelay makes a relay's key, enrols it, starts the relay and waits until it is ready.
func (g *Group) AddRelay(ctx context.Context, c Client) (*Relay, error) {
	return g.addServer(ctx, c, "run")
}

func (g *Group) addServer(ctx context.Context, c Client, verb string) (*Relay, error) {
	if c.Export == "" {
		c.Export = "/export"
	}
	port, err := portPair()
	if err != nil {
		return nil, err
	}
	name := fmt.Sprintf("relay%d", len(g.Relays))
	r := &Relay{Port: port, Export: c.Export, Dir: g.path(name)}
	if err := g.enrol(ctx, r, c); err != nil {
		return nil, err
	}
	r.Process = g.process(name, "bfs-relay", verb, "--config", filepath.Join(r.Dir, "relay.toml"))
	g.Relays = append(g.Relays, r)
	if err := r.Start(); err != nil {
		return nil, err
	}
	return r, r.Ready(ctx)
}

// AddGoNFS starts a server that serves the relay's export through unmodified go-nfs, with
// a client key of its own.
func (g *Group) AddGoNFS(ctx context.Context, c Client) (*Relay, error) {
	return g.addServer(ctx, c, "gonfs")
}

// Agree waits until this many replicas report the same batch, view and state.
func (g *Group) Agree(ctx context.Context, replicas int) error {
	ctx, cancel := patience.Context(ctx, agreeWithin)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		agreeing, table := g.status(context.WithoutCancel(ctx)) // it ends by itself, and a failure should show it
		if agreeing >= replicas {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d replicas agree, want %d:\n%s", agreeing, replicas, table)
		case <-tick.C:
		}
	}
}

// agreeWithin bounds how long replicas may take to agree: one of them may have to fetch
// the whole state.
const agreeWithin = 2 * time.Minute

// answerWithin bounds how long bfsd status waits for the answers of replicas, operateWithin how
// long bfsd waits for the group.
const (
	answerWithin  = 5 * time.Second
	operateWithin = time.Minute
)

// status counts the replicas that agree with the most advanced one and have executed the
// same batches.
func (g *Group) status(ctx context.Context) (agreeing int, raw string) {
	// The exit code says nothing that the report does not say.
	raw, _ = g.Command(ctx, "bfsd", "status", "--json", "--timeout", patience.For(answerWithin).String(),
		"--group", g.path("group", "group.toml"))
	var report struct {
		Replicas []struct {
			Problem string
			Lag     uint64
			Status  *struct{}
		}
	}
	if err := json.Unmarshal([]byte(raw), &report); err != nil {
		return 0, raw
	}
	for _, r := range report.Replicas {
		if r.Status != nil && r.Problem == "" && r.Lag == 0 {
			agreeing++
		}
	}
	return agreeing, raw
}

// Stop kills every process of the group.
func (g *Group) Stop() {
	for _, r := range g.Relays {
		r.Kill()
	}
	for _, p := range g.Replicas {
		p.Kill()
	}
}

// PIDs returns the numbers of all running processes.
func (g *Group) PIDs() []int {
	var pids []int
	add := func(p *Process) {
		if pid := p.PID(); pid != 0 {
			pids = append(pids, pid)
		}
	}
	for _, p := range g.Replicas {
		add(p)
	}
	for _, r := range g.Relays {
		add(r.Process)
	}
	return pids
}

// Logs returns the last lines of each process's log.
func (g *Group) Logs(n int) string {
	var b strings.Builder
	for _, p := range g.Replicas {
		fmt.Fprintf(&b, "-- %s\n%s\n", p.Name, p.LogTail(n))
	}
	for _, r := range g.Relays {
		fmt.Fprintf(&b, "-- %s\n%s\n", r.Name, r.LogTail(n))
	}
	return b.String()
}

// Command runs one of the project's programs to its end and returns what it printed on
// its standard output.
func (g *Group) Command(ctx context.Context, program string, args ...string) (string, error) {
	c := exec.CommandContext(ctx, filepath.Join(g.bin, program), args...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return string(out), fmt.Errorf("%s %s: %w\n%s%s", program, strings.Join(args, " "), err, out, errs.String())
	}
	return string(out), nil
}

func (g *Group) process(name, program string, args ...string) *Process {
	all := append(append([]string{}, g.wrap...), filepath.Join(g.bin, program))
	return NewProcess(name, filepath.Join(g.Dir, name+".log"), append(all, args...)...)
}

func (g *Group) path(parts ...string) string {
	return filepath.Join(append([]string{g.Dir}, parts...)...)
}

// Ports are below the kernel's range for outgoing connections, so that no other process
// gets a free port before ours listens on it.
const lowestPort, highestPort = 20000, 32000

var given sync.Map // port -> true: two groups of one run never get the same

// portPair finds a free port whose successor is free too, because every process takes two.
func portPair() (int, error) {
	for range 200 {
		port := lowestPort + 2*rand.IntN((highestPort-lowestPort)/2)
		if _, taken := given.LoadOrStore(port, true); !taken && free(port) && free(port+1) {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no two free ports next to each other")
}

func free(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	l.Close()
	return true
}
