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
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"bfs/test/cluster"
)

// A sweep measures ordered, read-only and unreplicated operations in turn while one parameter
// changes: the size of the operations, the number of clients or the delay of the network.
type sweep struct {
	name   string
	points func() []point
	table  func(w io.Writer, results []microResult) error
	script func(results []microResult) string // for gnuplot; nil: no drawing
}

// A point is one value of the sweep's parameter, measured on all three paths.
type point struct {
	op                   string
	clients, outstanding int
	delay                time.Duration
}

func (p point) of(path string) func(microResult) bool {
	ms := p.delay.Seconds() * 1000
	return func(r microResult) bool {
		return r.Path == path && r.Op == p.op && r.Clients == p.clients &&
			r.Outstanding == p.outstanding && r.Delay == ms
	}
}

var paths = []string{"rw", "ro", "norep"}

var pathTitles = map[string]string{"rw": "read-write", "ro": "read-only", "norep": "NO-REP"}

var sweeps = []sweep{
	{"latency", latencyPoints, latencyTable, latencyScript},
	{"clients", clientPoints, clientTable, clientScript},
	{"delay", delayPoints, delayTable, nil},
}

// sweepCommand measures, keeps NAME.jsonl, draws NAME.svg and prints a table for
// docs/EVALUATION.md.
func sweepCommand(ctx context.Context, name string, args []string) error {
	s := find(sweeps, func(s sweep) bool { return s.name == name })
	f := flag.NewFlagSet("bench "+name, flag.ContinueOnError)
	rounds := f.Int("rounds", 1, "how often each is measured; medians are of these. 0: "+
		"table and drawing of what is there")
	add := f.Bool("add", false, "keep what the results file holds, and add to it")
	duration := f.Duration("duration", time.Second, "of one measurement")
	ops := f.String("ops", "", "only these operations, such as 0/0,4/0")
	cpus := f.String("cpus", "", "CPUs of all processes, as taskset -c takes them (default all)")
	transport := f.String("transport", "plain", "between replicas and clients: plain or tls")
	dir := f.String("dir", "docs/plots", "where "+name+".jsonl and "+name+".svg are written")
	if err := f.Parse(args); err != nil {
		return err
	}
	file := filepath.Join(*dir, name+".jsonl")
	var results []microResult
	if *add || *rounds == 0 {
		var err error
		if results, err = readJSONLines[microResult](file); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	o := sweepOptions{duration: *duration, transport: *transport, cpus: *cpus}
	if *ops != "" {
		o.ops = strings.Split(*ops, ",")
	}
	for range *rounds {
		round := 1
		for _, r := range results {
			round = max(round, r.Round+1)
		}
		more, err := o.measure(ctx, s, round)
		if err != nil {
			return err
		}
		results = append(results, more...)
		if err := writeJSONLines(file, results); err != nil {
			return err
		}
	}
	if s.script != nil {
		err := gnuplot(fmt.Sprintf("set output %q\n", filepath.Join(*dir, name+".svg")) + s.script(results))
		if err != nil {
			return err
		}
	}
	fmt.Println()
	return s.table(os.Stdout, results)
}

type sweepOptions struct {
	duration        time.Duration
	transport, cpus string
	ops             []string
}

// measure runs one round. Paths take turns at each point, every other time in the opposite order.
func (o sweepOptions) measure(ctx context.Context, s *sweep, round int) (results []microResult, err error) {
	bin, err := cluster.Binaries()
	if err != nil {
		return nil, err
	}
	for i, p := range s.points() {
		if o.ops != nil && !slices.Contains(o.ops, p.op) {
			continue
		}
		order := slices.Clone(paths)
		if i%2 == 1 {
			slices.Reverse(order)
		}
		for _, path := range order {
			args := []string{"bench", "micro", "--durability", "replicated", "--op", p.op, "--path", path,
				"--clients", strconv.Itoa(p.clients), "--outstanding", strconv.Itoa(p.outstanding),
				"--duration", max(o.duration, 20*p.delay).String(), "--warmup", max(300*time.Millisecond,
					10*p.delay).String(), "--transport", o.transport, "--json"}
			if p.delay > 0 {
				args = append(args, "--delay", p.delay.String())
			}
			r, err := measureMicro(ctx, filepath.Join(bin, "bfsd"), args, o.wrap()...)
			if err != nil {
				return nil, fmt.Errorf("%s %v: %w", path, p, err)
			}
			r.Load, r.Round = s.name, round
			fmt.Printf("%-8s %-5s %-10s %4d x %-3d delay %-6v %8.0f op/s  p50 %7.0f us  "+
				"CPU %6.1f us/op  retries %d\n", s.name, p.op, pathTitles[path],
				p.clients, p.outstanding, p.delay, r.OpsPerSecond, r.P50, r.CPU, r.Retries)
			results = append(results, *r)
		}
	}
	return results, nil
}

func (o sweepOptions) wrap() []string {
	if o.cpus == "" {
		return nil
	}
	return []string{"taskset", "-c", o.cpus}
}

// at returns the median of a measure at a point.
func at(results []microResult, p point, path string, of func(microResult) float64) float64 {
	is := p.of(path)
	var values []float64
	for _, r := range results {
		if is(r) {
			values = append(values, of(r))
		}
	}
	return middle(values)
}

func p50(r microResult) float64           { return r.P50 }
func perSecond(r microResult) float64     { return r.OpsPerSecond }
func cpuMicros(r microResult) float64     { return r.CPU }
func per(a, b float64) string             { return orDash(a/b, "%.2f") }
func table(w io.Writer) *tabwriter.Writer { return tabwriter.NewWriter(w, 0, 0, 1, ' ', 0) }

func orDash(v float64, format string) string {
	if v != v || v == 0 || v > 1e15 {
		return ""
	}
	return fmt.Sprintf(format, v)
}

func gnuplot(script string) error {
	c := exec.Command("gnuplot")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("gnuplot: %w: %s", err, out)
	}
	return nil
}

// Latency against size [TOCS §8.1.2, figures 9 and 10].

var kilobytes = []int{0, 1, 2, 4, 8}

func sized(kb int, result bool) point {
	op := fmt.Sprintf("%d/0", kb)
	if result {
		op = fmt.Sprintf("0/%d", kb)
	}
	return point{op: op, clients: 1, outstanding: 1}
}

func latencyPoints() (all []point) {
	for _, kb := range kilobytes {
		all = append(all, sized(kb, false))
	}
	for _, kb := range kilobytes[1:] {
		all = append(all, sized(kb, true))
	}
	return all
}

// paperLatency holds the factors by which the paper's operations, read-write and
// read-only, were slower than NO-REP, as read off its charts.
var paperLatency = map[string][2]float64{
	"0/0": {4.08, 1.95}, "4/0": {1.66, 1.29}, "8/0": {1.52, 1.28}, "0/4": {1.60, 1.25}, "0/8": {1.47, 1.25},
}

func latencyTable(w io.Writer, results []microResult) error {
	t := table(w)
	fmt.Fprintln(t, "| argument/result, KB\t| read-write µs\t| read-only µs\t| NO-REP µs\t| rw / NO-REP\t| "+
		"the paper\t| ro / NO-REP\t| the paper\t|")
	fmt.Fprintln(t, strings.Repeat("|---\t", 8)+"|")
	for _, p := range latencyPoints() {
		rw, ro, norep := at(results, p, "rw", p50), at(results, p, "ro", p50), at(results, p, "norep", p50)
		paper := paperLatency[p.op]
		fmt.Fprintf(t, "| %s\t| %.0f\t| %.0f\t| %.0f\t| %s\t| %s\t| %s\t| %s\t|\n", p.op, rw, ro, norep,
			per(rw, norep), orDash(paper[0], "%.2f"), per(ro, norep), orDash(paper[1], "%.2f"))
	}
	return t.Flush()
}

const terminal = `set terminal svg size %d,340 font "sans-serif,12" background "white"
set grid
set key top left
`

// lines returns a gnuplot plot command with a line for each path, and the data of the lines.
func lines(name string, points []point, x func(int) float64, results []microResult,
	of func(microResult) float64) string {
	var data, plot strings.Builder
	fmt.Fprintf(&data, "$%s << END\n", name)
	for i, p := range points {
		fmt.Fprintf(&data, "%g", x(i))
		for _, path := range paths {
			fmt.Fprintf(&data, " %.2f", at(results, p, path, of))
		}
		fmt.Fprintln(&data)
	}
	data.WriteString("END\n")
	plot.WriteString("plot ")
	for i, path := range paths {
		if i > 0 {
			plot.WriteString(", ")
		}
		fmt.Fprintf(&plot, "$%s using 1:%d with linespoints lw 2 pt 7 ps 0.6 title %q", name, i+2, pathTitles[path])
	}
	return data.String() + plot.String() + "\n"
}

func latencyScript(results []microResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, terminal, 760)
	b.WriteString("set multiplot layout 1,2\nset ylabel \"median, µs\"\n")
	top := 0.0
	for _, p := range latencyPoints() {
		top = max(top, at(results, p, "rw", p50))
	}
	fmt.Fprintf(&b, "set yrange [0:%.0f]\n", 1.5*top)
	for i, side := range []string{"argument", "result"} {
		var points []point
		for _, kb := range kilobytes {
			points = append(points, sized(kb, i == 1))
		}
		fmt.Fprintf(&b, "set xlabel \"%s, KB\"\n", side)
		b.WriteString(lines(side, points, func(i int) float64 { return float64(kilobytes[i]) }, results, p50))
	}
	return b.String() + "unset multiplot\n"
}

// Throughput against clients [TOCS §8.1.3, figure 11].

var clientCounts = []int{1, 5, 10, 20, 50, 100, 200}

var clientOps = []string{"0/0", "0/4", "4/0"}

func clientsOf(op string) (all []point) {
	for _, n := range clientCounts {
		all = append(all, point{op: op, clients: n, outstanding: 1})
	}
	return all
}

func clientPoints() (all []point) {
	for _, op := range clientOps {
		all = append(all, clientsOf(op)...)
	}
	return all
}

// paperPeak holds the ratios of the paper's highest rates of operations, read-write and
// read-only, to NO-REP's highest rate.
var paperPeak = map[string][2]float64{"0/0": {0.48, 0.65}, "0/4": {2.2, 2.9}, "4/0": {0.89, 0.98}}

func clientTable(w io.Writer, results []microResult) error {
	t := table(w)
	fmt.Fprint(t, "| operation, path\t")
	for _, n := range clientCounts {
		fmt.Fprintf(t, "| %d\t", n)
	}
	fmt.Fprintln(t, "| most\t| / NO-REP's most\t| the paper\t| CPU µs/op at 50\t|")
	fmt.Fprintln(t, strings.Repeat("|---\t", len(clientCounts)+5)+"|")
	for _, op := range clientOps {
		most := map[string]float64{}
		for _, path := range paths {
			for _, p := range clientsOf(op) {
				most[path] = max(most[path], at(results, p, path, perSecond))
			}
		}
		for i, path := range paths {
			fmt.Fprintf(t, "| %s %s\t", op, pathTitles[path])
			for _, p := range clientsOf(op) {
				fmt.Fprintf(t, "| %.0f\t", at(results, p, path, perSecond))
			}
			paper := 1.0
			if i < 2 {
				paper = paperPeak[op][i]
			}
			fmt.Fprintf(t, "| %.0f\t| %s\t| %.2f\t| %.1f\t|\n", most[path], per(most[path], most["norep"]), paper,
				at(results, point{op: op, clients: 50, outstanding: 1}, path, cpuMicros))
		}
	}
	return t.Flush()
}

func clientScript(results []microResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, terminal, 1080)
	b.WriteString("set multiplot layout 1,3\nset ylabel \"operations a second\"\nset xtics 50\nset xlabel " +
		"\"clients, one operation each\"\n")
	for i, op := range clientOps {
		top := 0.0
		for _, p := range clientsOf(op) {
			top = max(top, at(results, p, "norep", perSecond))
		}
		fmt.Fprintf(&b, "set title %q\nset yrange [0:%.0f]\n", op, 1.4*top)
		b.WriteString(lines("ops"+strconv.Itoa(i), clientsOf(op), func(i int) float64 {
			return float64(clientCounts[i])
		}, results, perSecond))
	}
	return b.String() + "unset multiplot\n"
}

// A longer wire: every message is held back for half a round trip.

var (
	roundTrips = []time.Duration{0, time.Millisecond, 10 * time.Millisecond, 100 * time.Millisecond}
	delayLoads = [][2]int{{1, 1}, {16, 64}}
)

func delayPoints() (all []point) {
	for _, l := range delayLoads {
		for _, d := range roundTrips {
			all = append(all, point{op: "0/0", clients: l[0], outstanding: l[1], delay: d / 2})
		}
	}
	return all
}

func delayTable(w io.Writer, results []microResult) error {
	t := table(w)
	fmt.Fprintln(t, "| clients × outstanding\t| round trip\t| read-write ms\t| read-only ms\t| NO-REP ms\t| "+
		"rw, round trips\t| ro, round trips\t| rw op/s\t| ro op/s\t| NO-REP op/s\t|")
	fmt.Fprintln(t, strings.Repeat("|---\t", 10)+"|")
	for _, p := range delayPoints() {
		ms := func(path string) float64 { return at(results, p, path, p50) / 1000 }
		trips := func(path string) string {
			return orDash(ms(path)/(2*p.delay.Seconds()*1000), "%.2f")
		}
		fmt.Fprintf(t, "| %d × %d\t| %v\t| %.2f\t| %.2f\t| %.2f\t| %s\t| %s\t| %.0f\t| %.0f\t| %.0f\t|\n",
			p.clients, p.outstanding, 2*p.delay, ms("rw"), ms("ro"), ms("norep"), trips("rw"), trips("ro"),
			at(results, p, "rw", perSecond), at(results, p, "ro", perSecond), at(results, p, "norep", perSecond))
	}
	return t.Flush()
}
