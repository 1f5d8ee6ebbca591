// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
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

// A microResult is one measurement of `bfsd bench micro`, as it prints it and as the
// growth file keeps it.
type microResult struct {
	Load         string  `json:"load"`
	Round        int     `json:"round"`
	Command      string  `json:"command"`
	OpsPerSecond float64 `json:"ops_per_s"`
	P50          float64 `json:"p50_us"`
	P99          float64 `json:"p99_us"`
	CPU          float64 `json:"cpu_us_per_op"`
	ReplicaCPU   float64 `json:"replica_cpu_us_per_op"`
	OpsPerBatch  float64 `json:"ops_per_batch"`
	N            int     `json:"n"`
	Retries      uint64  `json:"retries"`
	Fallbacks    uint64  `json:"fallbacks"`
	Transport    string  `json:"transport"`
	Op           string  `json:"op,omitempty"`
	Path         string  `json:"path,omitempty"`
	Clients      int     `json:"clients,omitempty"`
	Outstanding  int     `json:"outstanding,omitempty"`
	Delay        float64 `json:"delay_ms,omitempty"` // one way
	Without      string  `json:"without,omitempty"`  // an optimisation
}

// A microLoad is a way to load a group. It has the factor by which the paper's group was
// slower with seven replicas than with four [TOCS §8.1.4], or 0 if the paper gives none.
type microLoad struct {
	name  string
	args  []string
	paper float64
}

var microLoads = []microLoad{
	{"read-write, one at a time", []string{"--path", "rw"}, 1.30},
	{"read-write, 16 x 64 at a time", []string{"--path", "rw", "--clients", "16", "--outstanding", "64"}, 0},
	{"read-only, one at a time", []string{"--path", "ro"}, 1.26},
}

// A measure is a cost that may grow with the number n of replicas.
type measure struct {
	title, colour string
	of            func(microResult) float64
}

// All replicas of a group share this machine, so an operation's time grows with the work
// of all replicas. If each replica had a machine of its own, as in the paper, the
// operation's time would be nearer to the processor time of one replica.
var measures = []measure{
	{"median time of an operation, all on one machine", "#b2182b", func(r microResult) float64 { return r.P50 }},
	{"processor time of one replica", "#2166ac", func(r microResult) float64 { return r.ReplicaCPU / float64(r.N) }},
}

// growthCommand measures groups of several sizes in turn, and writes growth.jsonl and growth.svg.
func growthCommand(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("bench growth", flag.ContinueOnError)
	list := f.String("n", "4,7,10", "sizes of groups; ratios are to the first")
	rounds := f.Int("rounds", 3, "how often each is measured; medians are of these. 0: draw "+
		"the growth.jsonl that is there")
	duration := f.Duration("duration", 5*time.Second, "of one measurement")
	transport := f.String("transport", "plain", "between replicas and clients: plain or tls")
	dir := f.String("dir", "docs/plots", "where growth.jsonl and growth.svg are written")
	if err := f.Parse(args); err != nil {
		return err
	}
	sizes, err := parseSizes(*list)
	if err != nil {
		return err
	}
	o := growthOptions{sizes: sizes, rounds: *rounds, duration: *duration, transport: *transport}
	var results []microResult
	if *rounds > 0 {
		results, err = o.measure(ctx)
	} else {
		results, err = readJSONLines[microResult](filepath.Join(*dir, "growth.jsonl"))
	}
	if err != nil {
		return err
	}
	if err := writeGrowth(*dir, sizes, results); err != nil {
		return err
	}
	return growthTable(os.Stdout, sizes, results)
}

type growthOptions struct {
	sizes     []int
	rounds    int
	duration  time.Duration
	transport string
}

func (o growthOptions) measure(ctx context.Context) (results []microResult, err error) {
	bin, err := cluster.Binaries()
	if err != nil {
		return nil, err
	}
	for round := 1; round <= o.rounds; round++ {
		order := slices.Clone(o.sizes)
		if round%2 == 0 {
			slices.Reverse(order) // so that none always runs after the same one
		}
		for _, l := range microLoads {
			for _, n := range order {
				common := []string{"bench", "micro", "--n", strconv.Itoa(n), "--op", "0/0", "--duration",
					o.duration.String(), "--durability", "replicated", "--transport", o.transport, "--json"}
				r, err := measureMicro(ctx, filepath.Join(bin, "bfsd"), append(common, l.args...))
				if err != nil {
					return nil, fmt.Errorf("%s, n = %d: %w", l.name, n, err)
				}
				r.Load, r.Round = l.name, round
				fmt.Printf("round %d  %-30s n = %2d  %8.0f op/s  p50 %6.0f us  CPU %6.1f us/op\n",
					round, l.name, n, r.OpsPerSecond, r.P50, r.CPU)
				results = append(results, *r)
			}
		}
	}
	return results, nil
}

func parseSizes(list string) (sizes []int, err error) {
	for _, s := range strings.Split(list, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 4 || len(sizes) > 0 && n <= sizes[len(sizes)-1] {
			return nil, fmt.Errorf("-n %s: want rising sizes, the first at least 4", list)
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// measureMicro runs bfsd with args, behind the command wrap, such as taskset.
func measureMicro(ctx context.Context, bfsd string, args []string, wrap ...string) (*microResult, error) {
	all := append(append(slices.Clone(wrap), bfsd), args...)
	c := exec.CommandContext(ctx, all[0], all[1:]...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, errs.String())
	}
	r := &microResult{Command: "bfsd " + strings.Join(args, " ")}
	return r, json.Unmarshal(out, r)
}

func writeGrowth(dir string, sizes []int, results []microResult) error {
	var drawing strings.Builder
	drawGrowth(&drawing, sizes, results)
	return errors.Join(writeJSONLines(filepath.Join(dir, "growth.jsonl"), results),
		os.WriteFile(filepath.Join(dir, "growth.svg"), []byte(drawing.String()), 0o644))
}

func writeJSONLines[T any](path string, all []T) error {
	var lines strings.Builder
	e := json.NewEncoder(&lines)
	for _, r := range all {
		if err := e.Encode(r); err != nil {
			return err
		}
	}
	return os.WriteFile(path, []byte(lines.String()), 0o644)
}

// growthOf returns the median of a measure for groups of n replicas under a load.
func growthOf(results []microResult, load string, n int, of func(microResult) float64) float64 {
	var values []float64
	for _, r := range results {
		if r.Load == load && r.N == n {
			values = append(values, of(r))
		}
	}
	return middle(values)
}

// middle returns the median of the values, 0 if there are none.
func middle(values []float64) float64 {
	slices.Sort(values)
	if len(values) == 0 {
		return 0
	}
	return (values[(len(values)-1)/2] + values[len(values)/2]) / 2
}

// growthTable prints medians and their ratios to the smallest group's, for docs/EVALUATION.md.
func growthTable(w io.Writer, sizes []int, results []microResult) error {
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprintln(t, "\n| 0/0\t| n\t| op/s\t| p50 µs\t| CPU of all, µs an operation\t| of one replica\t| "+
		"time, ratio\t| one replica's CPU, ratio\t| the paper\t|")
	fmt.Fprintln(t, "|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|---\t|")
	for _, l := range microLoads {
		for _, n := range sizes {
			of := func(f func(microResult) float64) float64 { return growthOf(results, l.name, n, f) }
			ratio := func(m measure) float64 { return of(m.of) / growthOf(results, l.name, sizes[0], m.of) }
			paper := ""
			if n == 7 && l.paper > 0 {
				paper = fmt.Sprintf("%.2f", l.paper)
			}
			fmt.Fprintf(t, "| %s\t| %d\t| %.0f\t| %.0f\t| %.1f\t| %.1f\t| %.2f\t| %.2f\t| %s\t|\n", l.name, n,
				of(func(r microResult) float64 { return r.OpsPerSecond }),
				of(func(r microResult) float64 { return r.P50 }),
				of(func(r microResult) float64 { return r.CPU }),
				of(measures[1].of), ratio(measures[0]), ratio(measures[1]), paper)
		}
	}
	return t.Flush()
}

// The drawing has a panel for each load: n on the horizontal axis, the ratio to the
// smallest group's cost on the vertical one.
const (
	panelWidth, panelHeight = 240, 260
	panelLeft, panelTop     = 46, 34
	panelGap                = 56
)

func drawGrowth(w io.Writer, sizes []int, results []microResult) {
	top := 2.0
	for _, l := range microLoads {
		for _, m := range measures {
			for _, n := range sizes {
				top = max(top, 1.1*growthOf(results, l.name, n, m.of)/growthOf(results, l.name, sizes[0], m.of))
			}
		}
	}
	width := panelLeft + len(microLoads)*(panelWidth+panelGap)
	fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" `, width, panelTop+panelHeight+90)
	fmt.Fprintln(w, `font-family="sans-serif" font-size="12">`)
	fmt.Fprintln(w, `<rect width="100%" height="100%" fill="white"/>`)
	for i, l := range microLoads {
		p := panel{w: w, left: panelLeft + i*(panelWidth+panelGap), sizes: sizes, top: top}
		p.frame(l.name)
		if l.paper > 0 {
			p.paper(l.paper)
		}
		for _, m := range measures {
			p.line(m.colour, func(n int) float64 {
				return growthOf(results, l.name, n, m.of) / growthOf(results, l.name, sizes[0], m.of)
			})
		}
	}
	y := panelTop + panelHeight + 58
	for i, m := range measures {
		fmt.Fprintf(w, `<rect x="%d" y="%d" width="12" height="12" fill="%s"/><text x="%d" y="%d">%s</text>`+"\n",
			panelLeft+i*320, y-10, m.colour, panelLeft+18+i*320, y, m.title)
	}
	x := panelLeft + len(measures)*320
	fmt.Fprintf(w, `<path d="M%d %dl6 6l-6 6l-6 -6z" fill="none" stroke="black"/>`, x+6, y-10)
	fmt.Fprintf(w, `<text x="%d" y="%d">the paper's slowdown, n = 7</text>`+"\n", x+18, y)
	fmt.Fprintln(w, `</svg>`)
}

type panel struct {
	w     io.Writer
	left  int
	sizes []int
	top   float64 // the ratio at the upper edge; 0 is at the lower one
}

func (p panel) x(n int) float64 {
	first, last := p.sizes[0], p.sizes[len(p.sizes)-1]
	return float64(p.left) + 20 + float64(panelWidth-40)*float64(n-first)/float64(max(last-first, 1))
}

func (p panel) y(ratio float64) float64 {
	return panelTop + panelHeight*(1-ratio/p.top)
}

func (p panel) frame(title string) {
	fmt.Fprintf(p.w, `<text x="%d" y="%d" text-anchor="middle" font-weight="bold">%s</text>`+"\n",
		p.left+panelWidth/2, panelTop-12, title)
	step := 0.5
	for p.top/step > 10 {
		step *= 2
	}
	for r := 0.0; r <= p.top; r += step {
		fmt.Fprintf(p.w, `<path d="M%d %.1fh%d" stroke="#ddd"/>`, p.left, p.y(r), panelWidth)
		fmt.Fprintf(p.w, `<text x="%d" y="%.1f" text-anchor="end">%.1f</text>`+"\n", p.left-6, p.y(r)+4, r)
	}
	fmt.Fprintf(p.w, `<rect x="%d" y="%d" width="%d" height="%d" fill="none" stroke="black"/>`+"\n",
		p.left, panelTop, panelWidth, panelHeight)
	for _, n := range p.sizes {
		fmt.Fprintf(p.w, `<text x="%.1f" y="%d" text-anchor="middle">n = %d</text>`+"\n",
			p.x(n), panelTop+panelHeight+18, n)
	}
}

// paper marks the paper's figure for seven replicas.
func (p panel) paper(ratio float64) {
	if !slices.Contains(p.sizes, 7) {
		return
	}
	fmt.Fprintf(p.w, `<path d="M%.1f %.1fl6 6l-6 6l-6 -6z" fill="none" stroke="black"/>`, p.x(7), p.y(ratio)-6)
	fmt.Fprintf(p.w, `<text x="%.1f" y="%.1f">%.2f</text>`+"\n", p.x(7)+10, p.y(ratio)+16, ratio)
}

func (p panel) line(colour string, of func(n int) float64) {
	path := "M"
	for _, n := range p.sizes {
		path += fmt.Sprintf("%.1f %.1f ", p.x(n), p.y(of(n)))
		fmt.Fprintf(p.w, `<circle cx="%.1f" cy="%.1f" r="3.5" fill="%s"/>`+"\n", p.x(n), p.y(of(n)), colour)
		if n != p.sizes[0] {
			fmt.Fprintf(p.w, `<text x="%.1f" y="%.1f" text-anchor="end" fill="%s">%.2f</text>`+"\n", p.x(n)-6,
				p.y(of(n))-6, colour, of(n))
		}
	}
	fmt.Fprintf(p.w, `<path d="%s" fill="none" stroke="%s" stroke-width="2"/>`+"\n", path, colour)
}
