// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

// placement says which CPUs a run's processes may use. It is the same for every system of
// a run. The placement of processes matters as much as their programs, because waking an
// idle virtual CPU costs more than a small call.
type placement struct {
	guestCPU   int    // the guest kernel's one CPU
	serverCPUs string // as taskset -c takes them; "": all
	transport  string
}

func (p placement) wrap() []string {
	if p.serverCPUs == "" {
		return nil
	}
	return []string{"taskset", "-c", p.serverCPUs}
}

func (p placement) String() string {
	servers := p.serverCPUs
	if servers == "" {
		servers = "any"
	}
	return fmt.Sprintf("guest on CPU %d, servers on %s, transport %s", p.guestCPU, servers, p.transport)
}

// A result is one run of one workload on one system.
type result struct {
	System    string             `json:"system"`
	Workload  string             `json:"workload"`
	Round     int                `json:"round"`
	Seconds   map[string]float64 `json:"seconds"` // by phase, and "total"
	Phases    []string           `json:"phases,omitempty"`
	Rates     map[string]float64 `json:"rates,omitempty"` // by phase and unit
	ServerCPU float64            `json:"server_cpu_s"`
	Processes []float64          `json:"process_cpu_s,omitempty"` // by process: the replicas, then the relay
	DiskMB    float64            `json:"disk_mb,omitempty"`       // what their disk wrote, a replica's share
	Calls     map[string]int     `json:"calls,omitempty"`         // by procedure, as the guest's kernel counts them
	Placement string             `json:"placement"`
	Command   string             `json:"command"`
	Time      time.Time          `json:"time"`
}

type runOptions struct {
	systems   []system
	workloads []workload
	rounds    int
	out       string
	place     placement
}

func runCommand(ctx context.Context, args []string) error {
	o, err := parseRun(args)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(o.out), 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(o.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	var results []result
	failed := 0
	for round := 1; round <= o.rounds; round++ {
		for i := range o.systems {
			// Every other round takes the systems in the opposite order, so that no
			// system always runs after the same one.
			s := o.systems[i]
			if round%2 == 0 {
				s = o.systems[len(o.systems)-1-i]
			}
			for _, w := range o.workloads {
				r, err := o.one(ctx, s, w, round)
				if ctx.Err() != nil {
					return ctx.Err()
				}
				if err != nil {
					failed++
					fmt.Printf("round %d  %-10s %-12s FAILED: %v\n", round, w.name, s.name, err)
					continue
				}
				fmt.Printf("round %d  %-10s %-12s %8.3f s   server CPU %7.3f s\n",
					round, w.name, s.name, r.Seconds["total"], r.ServerCPU)
				results = append(results, *r)
				if err := json.NewEncoder(f).Encode(r); err != nil {
					return err
				}
			}
		}
	}
	printTables(os.Stdout, results)
	if failed > 0 {
		return fmt.Errorf("%d runs failed", failed)
	}
	return nil
}

func parseRun(args []string) (*runOptions, error) {
	o := &runOptions{}
	f := flag.NewFlagSet("bench run", flag.ContinueOnError)
	names := f.String("systems", strings.Join(systemNames(false), ","), "which, in what order")
	work := f.String("workloads", allWorkloads, "which")
	var z sizes
	f.IntVar(&z.scale, "scale", 20, "copies of the source tree in andrew")
	f.IntVar(&z.stream, "size", 1024, "MiB that stream writes and reads")
	f.IntVar(&z.creates, "files", 10_000, "files that creates makes")
	tree := f.String("tree-files", "1000,100000", "files that tree makes, lists and looks at")
	f.IntVar(&z.threads, "threads", 8, "threads of creates and tree")
	f.IntVar(&o.rounds, "rounds", 3, "how often each system runs each workload; medians are of these")
	f.StringVar(&o.out, "out", "build/bench.jsonl", "file that results are added to, for the commands table and plot")
	f.IntVar(&o.place.guestCPU, "guest-cpu", 0, "the guest's CPU")
	f.StringVar(&o.place.serverCPUs, "server-cpus", "", "the servers' CPUs, as taskset -c takes them (default all)")
	f.StringVar(&o.place.transport, "transport", "plain", "between replicas and relay: plain or tls")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	var err error
	if z.tree, err = parseNumbers(*tree); err != nil {
		return nil, fmt.Errorf("-tree-files: %w", err)
	}
	if o.systems, err = findSystems(*names); err == nil {
		o.workloads, err = findWorkloads(*work, z)
	}
	return o, err
}

// one runs one workload on one system. System and guest are started for this run alone.
func (o *runOptions) one(ctx context.Context, s system, w workload, round int) (*result, error) {
	dir, err := os.MkdirTemp("", "bfs-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	server, err := s.start(ctx, filepath.Join(dir, "server"), o.place)
	if err != nil {
		return nil, err
	}
	defer server.stop()
	bin := ""
	if strings.Contains(w.command, "$BFSD") {
		if bin, err = cluster.Binaries(); err != nil {
			return nil, err
		}
	}
	here, err := filepath.Abs("test/bench")
	if err != nil {
		return nil, err
	}
	options := guest.Options{CPU: o.place.guestCPU, MemoryMB: w.memory, Timeout: 30 * time.Minute,
		Env: []string{"BFSD=" + bin + "/bfsd", "BENCH=" + here}}
	server.mount(&options, w.counted())
	if server.disks {
		calmDown(ctx, dir)
	}
	before, written := cpuEach(server.pids()), deviceWritten(dir)
	g, err := guest.Start(ctx, options)
	if err != nil {
		return nil, err
	}
	r, err := g.Wait()
	if err == nil && r.Exit != 0 {
		err = fmt.Errorf("ended with %d:\n%s", r.Exit, r.Output)
	}
	if err != nil {
		return nil, err
	}
	seconds, err := w.parse(r.Output)
	cpu, total := used(before, cpuEach(server.pids()))
	mb := 0.0
	if server.disks {
		mb = (deviceWritten(dir) - written) / 1e6 / float64(server.share)
	}
	return &result{
		System: s.name, Workload: w.name, Round: round, Seconds: seconds, Phases: w.phases, Rates: w.ratesOf(seconds),
		ServerCPU: total, Processes: cpu, DiskMB: mb, Calls: calls(r.Output),
		Placement: o.place.String(), Command: w.command, Time: time.Now(),
	}, err
}

// cpuEach returns the user and system time, in seconds, that each of the given processes
// has used.
func cpuEach(pids []int) []float64 {
	const ticksPerSecond = 100 // USER_HZ, the same on every Linux of this architecture
	each := make([]float64, len(pids))
	for i, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(stat), ") ") // the name before it may hold spaces
		fields := strings.Fields(after)
		for _, f := range fields[11:13] { // utime, stime: proc(5) counts from 1 and from the pid
			n, _ := strconv.ParseFloat(f, 64)
			each[i] += n / ticksPerSecond
		}
	}
	return each
}

// deviceWritten returns the number of bytes that the block device below a directory has
// written since it was found, dirty pages of the page cache included. It is 0 if the
// directory is on no block device. /proc/PID/io is of no use here, because it counts a
// whole folio for each written page of the folio.
func deviceWritten(dir string) float64 {
	syscall.Sync()
	var status syscall.Stat_t
	if err := syscall.Stat(dir, &status); err != nil {
		return 0
	}
	device := fmt.Sprintf("/sys/dev/block/%d:%d/stat", unix.Major(status.Dev), unix.Minor(status.Dev))
	text, err := os.ReadFile(device)
	fields := strings.Fields(string(text))
	const sectorsWritten, sectorBytes = 6, 512 // the kernel's Documentation/block/stat.rst
	if err != nil || len(fields) <= sectorsWritten {
		return 0
	}
	sectors, _ := strconv.ParseFloat(fields[sectorsWritten], 64)
	return sectors * sectorBytes
}

// calmDown waits until the replicas have made the files that they keep in reserve, which
// shows when their disk writes nothing more.
func calmDown(ctx context.Context, dir string) {
	ctx, cancel := patience.Context(ctx, time.Minute)
	defer cancel()
	const calm = 1e6 // bytes that the rest of the machine may write meanwhile
	for last := deviceWritten(dir); ; {
		select {
		case <-time.After(2 * time.Second): // how often to look
		case <-ctx.Done():
			return
		}
		now := deviceWritten(dir)
		if now-last < calm {
			return
		}
		last = now
	}
}

// used returns the time that each process used between two measurements, and the sum.
func used(before, after []float64) (each []float64, total float64) {
	for i := range min(len(before), len(after)) {
		each = append(each, math.Round(100*(after[i]-before[i]))/100)
		total += after[i] - before[i]
	}
	return each, total
}

// readResults reads a results file.
func readResults(path string) ([]result, error) { return readJSONLines[result](path) }

func readJSONLines[T any](path string) ([]T, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var all []T
	for d := json.NewDecoder(f); ; {
		var r T
		switch err := d.Decode(&r); {
		case errors.Is(err, io.EOF):
			return all, nil
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		all = append(all, r)
	}
}
