// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/status"
	"bfs/pkg/pbft"
)

// The paths an operation can take.
const (
	PathReadWrite = "rw"    // ordered: three phases
	PathReadOnly  = "ro"    // one round trip, answered from the current state [TOCS §6.1]
	PathNoRep     = "norep" // one process, no ordering
)

// Micro says which configuration to measure.
type Micro struct {
	N           int
	Op          Op
	Path        string
	Clients     int
	Outstanding int // per client
	Duration    time.Duration
	Warmup      time.Duration
	Transport   pbft.Transport
	Durability  pbft.Durability
	Window      int
	Delay       time.Duration // of every message, one way
	KeyPeriod   time.Duration // of the session keys
	Without     []string      // optimisations
	Program     string        // bfsd
	TraceSlow   bool          // say where the slowest hundredth spent its time
}

// A Result is one measurement. CPU is user and system of all processes, clients' included.
type Result struct {
	OpsPerSecond float64         `json:"ops_per_s"`
	P50          float64         `json:"p50_us"`
	P99          float64         `json:"p99_us"`
	Max          float64         `json:"max_us"`
	CPU          float64         `json:"cpu_us_per_op"`
	N            int             `json:"n"`
	Op           string          `json:"op"`
	Path         string          `json:"path"`
	Clients      int             `json:"clients"`
	Outstanding  int             `json:"outstanding"`
	Durability   pbft.Durability `json:"durability"`
	Transport    string          `json:"transport"`
	Without      string          `json:"without,omitempty"`  // optimisations, separated by commas
	Delay        float64         `json:"delay_ms,omitempty"` // one way
	KeyPeriod    float64         `json:"key_period_s"`

	Seconds     float64 `json:"seconds"` // as measured
	Operations  uint64  `json:"operations"`
	ReplicaCPU  float64 `json:"replica_cpu_us_per_op"` // the part of CPU that replicas took
	OpsPerBatch float64 `json:"ops_per_batch"`         // 0 where nothing is ordered
	Retries     uint64  `json:"retries"`               // requests sent again in the measured time
	RetryRate   float64 `json:"retries_per_op"`        // the same for each operation
	Fallbacks   uint64  `json:"fallbacks"`             // read-only operations that had to be ordered, in that time

	Slow *SlowReport `json:"-"` // nil unless asked for
}

// Check returns an error if the configuration cannot be measured.
func (m *Micro) Check() error {
	switch {
	case m.Path != PathReadWrite && m.Path != PathReadOnly && m.Path != PathNoRep:
		return fmt.Errorf("--path: got %q, want rw, ro or norep", m.Path)
	case m.N != 1 && checkN(m.N) != nil:
		return fmt.Errorf("%w, or 1", checkN(m.N))
	case m.Clients < 1 || m.Clients > 1000:
		return fmt.Errorf("--clients: got %d, want 1 to 1000", m.Clients)
	case m.Outstanding < 1 || m.Outstanding > 4096:
		return fmt.Errorf("--outstanding: got %d, want 1 to 4096", m.Outstanding)
	case m.Duration < 100*time.Millisecond:
		return fmt.Errorf("--duration: got %v, want at least 100ms", m.Duration)
	case m.Delay < 0 || m.Delay > time.Second:
		return fmt.Errorf("--delay: got %v, want 0s to 1s", m.Delay)
	case m.TraceSlow && m.Path != PathReadWrite:
		return errors.New("--trace-slow: only ordered operations can be traced: use --path rw")
	case m.Warmup < 0:
		return fmt.Errorf("--warmup: got %v, want 0s or more", m.Warmup)
	}
	if _, err := config.ParseWithout(m.Without); err != nil {
		return fmt.Errorf("--without: %w", err)
	}
	if err := config.CheckDurability(m.Durability); err != nil {
		return fmt.Errorf("--durability: %w", err)
	}
	if err := config.CheckKeyPeriod(m.KeyPeriod); err != nil {
		return fmt.Errorf("--key-period: %w", err)
	}
	return nil
}

// Run measures. Processes and files are gone when it returns.
func (m Micro) Run(ctx context.Context) (r *Result, err error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	if m.Path == PathNoRep {
		m.N = 1
	}
	dir, err := os.MkdirTemp("", "bfs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b := &microRun{Micro: m, dir: dir}
	defer func() {
		if problem := b.stop(); err == nil {
			err = problem
		}
	}()
	if err := b.start(ctx); err != nil {
		return nil, err
	}
	return b.measure(ctx)
}

type microRun struct {
	Micro
	dir      string
	group    *config.Group
	replicas []*procs.Child
	clients  []*pbft.Client
	traces   []string // the files of the replicas' traces
}

// stop ends clients and replicas.
func (b *microRun) stop() error {
	for _, c := range b.clients {
		c.Close()
	}
	return errors.Join(procs.StopAll(b.replicas, 10*time.Second)...)
}

const startWithin = time.Minute

func (b *microRun) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	base, err := procs.FreePorts(2 * b.N)
	if err != nil {
		return err
	}
	dir := filepath.Join(b.dir, "group")
	if err := bundle.Write(dir, b.plan(base)); err != nil {
		return err
	}
	if b.group, err = config.LoadGroup(filepath.Join(dir, bundle.GroupFile)); err != nil {
		return err
	}
	for i := range b.N {
		args := []string{"bench", "replica", "--config", filepath.Join(bundle.HostDir(dir, i), bundle.ReplicaFile),
			"--delay", b.Delay.String()}
		if b.Path == PathNoRep {
			args = append(args, "--unreplicated")
		}
		if b.TraceSlow {
			b.traces = append(b.traces, filepath.Join(b.dir, fmt.Sprintf("trace%d", i)))
			args = append(args, "--trace", b.traces[i])
		}
		name := fmt.Sprintf("replica%d", i)
		c, err := procs.Start(name, filepath.Join(b.dir, name+".log"), b.Program, args...)
		if err != nil {
			return err
		}
		b.replicas = append(b.replicas, c)
	}
	for _, c := range b.replicas {
		if err := c.Ready(ctx); err != nil {
			return err
		}
	}
	return b.connect(ctx, filepath.Join(dir, bundle.AdminDir, bundle.AdminKeyFile))
}

// plan is a group with room for the clients and their slots, and for nothing else.
func (b *microRun) plan(base int) bundle.Plan {
	l := pbft.DefaultLimits()
	l.Clients = max(b.Clients, 8)
	l.Slots = (max(b.Outstanding, 8) + 7) / 8 * 8
	pages := (l.Clients + 2) * (l.Slots/8 + 2)
	return bundle.Plan{
		Name: "bench", Hosts: bundle.Loopback(b.N, base),
		Size: max(config.LeastStateSize(l), config.Size(4*pages*pbft.PageSize)), Limits: l,
		Transport: b.Transport, Durability: b.Durability, Window: b.Window,
		KeyPeriod: config.Duration(b.KeyPeriod), Without: b.Without, LogLevel: "warn",
	}
}

// connect enrols the clients and waits until the group knows them.
func (b *microRun) connect(ctx context.Context, adminKey string) error {
	key, err := keys.ReadPrivate(adminKey)
	if err != nil {
		return err
	}
	admin, err := b.client(key)
	if err != nil {
		return err
	}
	defer admin.Close()
	if err := admin.Ready(ctx); err != nil {
		return err
	}
	for range b.Clients {
		key, err := keys.Generate()
		if err != nil {
			return err
		}
		if err := admin.Enrol(ctx, keys.Of(key), nil); err != nil {
			return fmt.Errorf("enrol a client: %w", err)
		}
		c, err := b.client(key)
		if err != nil {
			return err
		}
		b.clients = append(b.clients, c)
	}
	for _, c := range b.clients {
		if err := c.Ready(ctx); err != nil {
			return fmt.Errorf("client: %w", err)
		}
	}
	return nil
}

func (b *microRun) client(key ed25519.PrivateKey) (*pbft.Client, error) {
	without, err := config.ParseWithout(b.Without)
	if err != nil {
		return nil, err
	}
	return pbft.NewClient(pbft.ClientConfig{
		Group: b.group.Group, Key: key, Transport: b.Transport, Logger: slog.New(slog.DiscardHandler),
		Queue: b.Outstanding, Delay: b.Delay, KeyPeriod: b.KeyPeriod, Without: without,
	})
}

// A sample holds all counters at one time.
type sample struct {
	at                 time.Time
	latencies          *counts
	own, replicas      time.Duration // CPU
	batch              pbft.SeqNum
	retries, fallbacks uint64
}

// measure loads the group, and samples it twice while it works.
func (b *microRun) measure(ctx context.Context) (*Result, error) {
	if b.Path != PathNoRep {
		procs.Batch() // as a relay does
	}
	procs.FloorHeap()
	l := newLoad(b.Op, b.Path == PathReadOnly)
	if b.TraceSlow {
		l.traced = new(recorder)
	}
	l.start(b.clients, b.Outstanding)
	err := b.wait(ctx, b.Warmup, l)
	var first, second sample
	if err == nil {
		first, err = b.sample(ctx, l)
	}
	if err == nil {
		err = b.wait(ctx, b.Duration, l)
	}
	if err == nil {
		second, err = b.sample(ctx, l)
	}
	if stopped := l.stop(ctx); err == nil {
		err = stopped
	}
	if err != nil {
		return nil, err
	}
	r := b.result(first, second)
	if r.Operations == 0 {
		return nil, errors.New("no operation was completed in the measured time")
	}
	if b.TraceSlow {
		r.Slow, err = b.slow(l, first, second)
	}
	return r, err
}

// slow ends the group, and follows the slowest operations through its traces.
func (b *microRun) slow(l *load, first, second sample) (*SlowReport, error) {
	own := pbft.Collections()
	if err := b.stop(); err != nil {
		return nil, err
	}
	reports, err := readTraces(b.traces)
	if err != nil {
		return nil, err
	}
	t := newTraces(b.group.Group, reports, own)
	return t.report(l.traced.within(first.at, second.at), second.latencies.since(first.latencies)), nil
}

// wait lets the load run for a while; it ends early with an operation that fails.
func (b *microRun) wait(ctx context.Context, d time.Duration, l *load) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case err := <-l.failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *microRun) sample(ctx context.Context, l *load) (s sample, err error) {
	if b.Path == PathReadWrite {
		asked := status.Ask(ctx, b.group)
		if first := asked.Replicas[0]; first.Status != nil {
			s.batch = first.Status.LastExecuted
		}
	}
	for _, c := range b.clients {
		st := c.Status()
		s.retries += st.Retries
		s.fallbacks += st.Fallbacks
	}
	s.at = time.Now()
	s.latencies = l.latencies.counts()
	if s.own, err = ownCPU(); err != nil {
		return s, err
	}
	for _, r := range b.replicas {
		cpu, err := procs.CPU(r.PID())
		if err != nil {
			return s, fmt.Errorf("%s: %w", r.Name, err)
		}
		s.replicas += cpu
	}
	return s, nil
}

func ownCPU() (time.Duration, error) {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0, err
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), nil
}

// result is the difference of two samples.
func (m *Micro) result(first, second sample) *Result {
	latencies := second.latencies.since(first.latencies)
	ops := latencies.total()
	seconds := second.at.Sub(first.at).Seconds()
	perOp := func(d time.Duration) float64 { return micros(d) / float64(max(ops, 1)) }
	replicas := second.replicas - first.replicas
	r := &Result{
		OpsPerSecond: float64(ops) / seconds,
		P50:          micros(latencies.quantile(0.50)),
		P99:          micros(latencies.quantile(0.99)),
		Max:          micros(latencies.quantile(1)),
		CPU:          perOp(replicas + second.own - first.own),
		N:            m.N, Op: m.Op.String(), Path: m.Path, Clients: m.Clients, Outstanding: m.Outstanding,
		Durability: m.Durability, Transport: string(m.Transport), Without: strings.Join(m.Without, ","),
		Delay: m.Delay.Seconds() * 1000, KeyPeriod: m.KeyPeriod.Seconds(),
		Seconds: seconds, Operations: ops, ReplicaCPU: perOp(replicas),
		Retries: second.retries - first.retries, Fallbacks: second.fallbacks - first.fallbacks,
	}
	r.RetryRate = float64(r.Retries) / float64(max(ops, 1))
	if batches := second.batch - first.batch; batches > 0 {
		r.OpsPerBatch = float64(ops) / float64(batches)
	}
	return r
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// WriteTable shows the result to people.
func (r *Result) WriteTable(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "N\tOP\tPATH\tCLIENTS\tOUTSTANDING\tTRANSPORT\tDURABILITY\tOPS/S\tP50 us\tP99 us\tMAX us\tCPU "+
		"us/OP\tOPS/BATCH\tRETRIES/OP\t")
	fmt.Fprintf(t, "%d\t%s\t%s\t%d\t%d\t%s\t%s\t%.0f\t%.1f\t%.1f\t%.0f\t%.2f\t%.1f\t%.4f\t\n",
		r.N, r.Op, r.Path, r.Clients, r.Outstanding, r.Transport, r.Durability, r.OpsPerSecond,
		r.P50, r.P99, r.Max, r.CPU, r.OpsPerBatch, r.RetryRate)
	if err := t.Flush(); err != nil || r.Slow == nil {
		return err
	}
	fmt.Fprintln(w)
	return r.Slow.WriteTable(w)
}
