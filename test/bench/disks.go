// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"bfs/test/cluster"
)

// The command disks compares replicas with disks with the same replicas without, and with
// the disk itself. Both modes take turns. Each round measures the disk as well, because
// four replicas share it with all other programs of the machine.

// A diskLoad is a way to load a group.
type diskLoad struct {
	name                 string
	clients, outstanding string
}

var (
	oneByOne  = diskLoad{"one client", "1", "1"}
	pipelined = diskLoad{"16 clients x 64", "16", "64"}
)

const (
	syncers   = 4 // as many as replicas
	syncBytes = 4096
	syncFile  = 256 * syncBytes
	syncsFor  = time.Second
)

func disksCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench disks", flag.ContinueOnError)
	rounds := f.Int("rounds", 5, "how often each is measured; medians are of these")
	duration := f.Duration("duration", 4*time.Second, "of one measurement")
	state := f.String("state", "1GiB", "bytes that a replica has when it restarts: four times as much must "+
		"fit in memory, and twice that on the disk; 0: no restarts")
	if err := f.Parse(args); err != nil {
		return err
	}
	if *rounds < 1 {
		return fmt.Errorf("-rounds: got %d, want 1 or more", *rounds)
	}
	bin, err := cluster.Binaries()
	if err != nil {
		return err
	}
	bfsd := filepath.Join(bin, "bfsd")
	x := diskFigures{}
	for round := range *rounds {
		if err := x.measure(ctx, bfsd, round, *duration); err != nil {
			return err
		}
	}
	fmt.Println()
	if err := x.table(os.Stdout); err != nil || *state == "0" {
		return err
	}
	fmt.Printf("\nrestarts (asked: takes part within 10 s, stalls of at most 100 ms):\n")
	c := exec.CommandContext(ctx, bfsd, "bench", "recovery", "--restart", "--rounds", "1", "--state", *state)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	return c.Run()
}

// diskFigures holds all measurements: those of both modes, by load, and those of the disk.
type diskFigures struct {
	syncs   []float64 // p50, us
	results []microResult
}

// measure runs one round. Every other round takes the modes in the opposite order.
func (x *diskFigures) measure(ctx context.Context, bfsd string, round int, duration time.Duration) error {
	modes := []string{"replicated", "disk"}
	if round%2 == 1 {
		modes = []string{"disk", "replicated"}
	}
	p50, err := syncTime()
	if err != nil {
		return err
	}
	x.syncs = append(x.syncs, p50)
	fmt.Printf("fdatasync of 4 KiB, %d writers: p50 %.0f us\n", syncers, p50)
	for _, load := range []diskLoad{oneByOne, pipelined} {
		for _, mode := range modes {
			r, err := measureMicro(ctx, bfsd,
				[]string{"bench", "micro", "--op", "0/0", "--path", "rw", "--clients", load.clients,
					"--outstanding", load.outstanding, "--duration", duration.String(), "--transport", "plain",
					"--durability", mode, "--json"})
			if err != nil {
				return err
			}
			r.Load, r.Round = load.name+" "+mode, round
			fmt.Printf("%-28s %8.0f op/s  p50 %7.0f us  CPU %6.1f us/op\n", r.Load, r.OpsPerSecond, r.P50, r.CPU)
			x.results = append(x.results, *r)
		}
	}
	return nil
}

func (x *diskFigures) median(load diskLoad, mode string, of func(microResult) float64) float64 {
	var values []float64
	for _, r := range x.results {
		if r.Load == load.name+" "+mode {
			values = append(values, of(r))
		}
	}
	return middle(values)
}

// table prints medians for docs/EVALUATION.md.
func (x *diskFigures) table(w io.Writer) error {
	t := table(w)
	sync := middle(x.syncs)
	fmt.Fprintln(t, "| \t| replicated\t| disk\t| \t| asked\t|")
	fmt.Fprintln(t, "|---\t|---\t|---\t|---\t|---\t|")
	a, b := x.median(pipelined, "replicated", cpuMicros), x.median(pipelined, "disk", cpuMicros)
	fmt.Fprintf(t, "| 0/0, %s, CPU us an operation\t| %.1f\t| %.1f\t| %s x\t| 1.8\t|\n",
		pipelined.name, a, b, per(b, a))
	a, b = x.median(oneByOne, "replicated", p50), x.median(oneByOne, "disk", p50)
	fmt.Fprintf(t, "| 0/0, %s, p50 us\t| %.0f\t| %.0f\t| %s syncs more\t| 2.2\t|\n",
		oneByOne.name, a, b, per(b-a, sync))
	a, b = x.median(oneByOne, "replicated", cpuMicros), x.median(oneByOne, "disk", cpuMicros)
	fmt.Fprintf(t, "| 0/0, %s, CPU us an operation\t| %.0f\t| %.0f\t| %s x\t| \t|\n", oneByOne.name, a, b, per(b, a))
	fmt.Fprintf(t, "| fdatasync of 4 KiB, %d writers, p50 us\t| \t| %.0f\t| \t| \t|\n", syncers, sync)
	return t.Flush()
}

// syncTime returns the median time of an fdatasync of 4 KiB, in microseconds, while each
// of several writers syncs a file of its own. The files overwrite blocks, as journals do.
func syncTime() (p50 float64, err error) {
	dir, err := os.MkdirTemp("", "bfs-bench-sync-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var (
		fds  []int
		all  sync.WaitGroup
		mu   sync.Mutex
		each []float64
		errs []error
	)
	for i := range syncers {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint(i)))
		if err != nil {
			return 0, err
		}
		defer f.Close()
		if _, err := f.WriteString(strings.Repeat("x", syncFile)); err != nil {
			return 0, err
		}
		if err := f.Sync(); err != nil {
			return 0, err
		}
		fds = append(fds, int(f.Fd()))
	}
	for _, fd := range fds {
		all.Go(func() {
			took, err := syncFor(fd, syncsFor)
			mu.Lock()
			defer mu.Unlock()
			each, errs = append(each, took...), append(errs, err)
		})
	}
	all.Wait()
	return middle(each), errors.Join(errs...)
}

// syncFor writes to a file and syncs it again and again.
func syncFor(fd int, d time.Duration) (each []float64, err error) {
	page := make([]byte, syncBytes)
	for end, at := time.Now().Add(d), int64(0); time.Now().Before(end); at = (at + syncBytes) % syncFile {
		begin := time.Now()
		if _, err := unix.Pwrite(fd, page, at); err != nil {
			return nil, err
		}
		if err := unix.Fdatasync(fd); err != nil {
			return nil, err
		}
		each = append(each, float64(time.Since(begin).Microseconds()))
	}
	return each, nil
}
