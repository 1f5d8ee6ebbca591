// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"bfs/pkg/pbft"
	"bfs/test/cluster"
)

// The gain of each optimisation: the same loads with one optimisation at a time turned
// off [TOCS §6.1].

// A withoutLoad is a way to load a group.
type withoutLoad struct {
	title                string
	op                   string
	clients, outstanding int
}

var withoutLoads = []withoutLoad{
	{"0/0, one at a time", "0/0", 1, 1},
	{"0/0, 16 × 64", "0/0", 16, 64},
	{"0/4, 16 × 64", "0/4", 16, 64},
	{"1024/0, 1 × 4", "1024/0", 1, 4},
}

// withoutNames are the rows: no optimisation turned off, and then each by itself. Without
// tentative execution there is no piggybacking either.
func withoutNames() []string {
	names := []string{""}
	for _, o := range pbft.Optimisations() {
		names = append(names, string(o))
	}
	return names
}

// withoutCommand measures, keeps without.jsonl, draws without.svg and prints a table for
// docs/EVALUATION.md.
func withoutCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench without", flag.ContinueOnError)
	rounds := f.Int("rounds", 1, "how often each is measured; medians are of these. 0: "+
		"table and drawing of what is there")
	duration := f.Duration("duration", time.Second, "of one measurement")
	cpus := f.String("cpus", "", "CPUs of all processes, as taskset -c takes them (default all)")
	dir := f.String("dir", "docs/plots", "where without.jsonl and without.svg are written")
	if err := f.Parse(args); err != nil {
		return err
	}
	file := filepath.Join(*dir, "without.jsonl")
	var results []microResult
	var err error
	if *rounds == 0 {
		results, err = readJSONLines[microResult](file)
	} else if results, err = measureWithout(ctx, *rounds, *duration, sweepOptions{cpus: *cpus}.wrap()); err == nil {
		err = writeJSONLines(file, results)
	}
	if err != nil {
		return err
	}
	err = gnuplot(fmt.Sprintf("set output %q\n", filepath.Join(*dir, "without.svg")) + withoutScript(results))
	if err != nil {
		return err
	}
	fmt.Println()
	return withoutTable(os.Stdout, results)
}

// measureWithout measures the rows in turn under each load, every other round in the
// opposite order.
func measureWithout(ctx context.Context, rounds int, duration time.Duration,
	wrap []string) (results []microResult, err error) {
	bin, err := cluster.Binaries()
	if err != nil {
		return nil, err
	}
	for round := 1; round <= rounds; round++ {
		names := withoutNames()
		if round%2 == 0 {
			slices.Reverse(names)
		}
		for _, l := range withoutLoads {
			for _, name := range names {
				args := []string{"bench", "micro", "--durability", "replicated", "--op", l.op, "--path", "rw",
					"--clients", strconv.Itoa(l.clients), "--outstanding", strconv.Itoa(l.outstanding),
					"--duration", duration.String(), "--warmup", (duration / 3).String(),
					"--transport", "plain", "--json"}
				if name != "" {
					args = append(args, "--without", name)
				}
				r, err := measureMicro(ctx, filepath.Join(bin, "bfsd"), args, wrap...)
				if err != nil {
					return nil, fmt.Errorf("%s without %q: %w", l.title, name, err)
				}
				r.Load, r.Without, r.Round = l.title, name, round
				fmt.Printf("round %d  %-20s without %-15s %8.0f op/s  p50 %7.0f us  CPU %7.1f us/op\n",
					round, l.title, orNothing(name), r.OpsPerSecond, r.P50, r.CPU)
				results = append(results, *r)
			}
		}
	}
	return results, nil
}

func orNothing(name string) string {
	if name == "" {
		return "nothing"
	}
	return name
}

// withoutAt returns the median of a measure for a row, under a load.
func withoutAt(results []microResult, load, name string, of func(microResult) float64) float64 {
	var values []float64
	for _, r := range results {
		if r.Load == load && r.Without == name {
			values = append(values, of(r))
		}
	}
	return middle(values)
}

func withoutTable(w io.Writer, results []microResult) error {
	t := table(w)
	fmt.Fprintf(t, "| without\t| %s: p50 µs\t", withoutLoads[0].title)
	for _, l := range withoutLoads {
		fmt.Fprintf(t, "| %s: CPU µs (×)\t", l.title)
	}
	fmt.Fprintln(t, "|")
	fmt.Fprintln(t, strings.Repeat("|---\t", 2+len(withoutLoads))+"|")
	for _, name := range withoutNames() {
		fmt.Fprintf(t, "| %s\t| %.0f\t", orNothing(name), withoutAt(results, withoutLoads[0].title, name, p50))
		for _, l := range withoutLoads {
			cpu := withoutAt(results, l.title, name, cpuMicros)
			fmt.Fprintf(t, "| %.1f (%s)\t", cpu, per(cpu, withoutAt(results, l.title, "", cpuMicros)))
		}
		fmt.Fprintln(t, "|")
	}
	return t.Flush()
}

// withoutScript draws, for each load, the factor by which the processor time grows. The
// scale is logarithmic, because the factor of batching is far larger than the others.
func withoutScript(results []microResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, terminal, 900)
	b.WriteString("set style data histograms\nset style fill solid 0.8 border -1\nset boxwidth 0.9\nset " +
		"logscale y 2\nset yrange [0.7:*]\nset ylabel \"processor time, × that with all of them\"\nset key " +
		"outside right\n$data << END\n")
	for _, name := range withoutNames()[1:] {
		fmt.Fprintf(&b, "%q", name)
		for _, l := range withoutLoads {
			all := withoutAt(results, l.title, "", cpuMicros)
			fmt.Fprintf(&b, " %.3f", withoutAt(results, l.title, name, cpuMicros)/all)
		}
		b.WriteString("\n")
	}
	b.WriteString("END\nplot ")
	for i, l := range withoutLoads {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$data using %d:xtic(1) title %q", i+2, l.title)
	}
	return b.String() + "\n"
}
