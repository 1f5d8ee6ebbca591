// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
)

// A column is one figure of a workload: the time of a phase, or the servers' processor time.
type column struct {
	title string
	of    func(result) float64
}

func columns(phases []string) []column {
	var c []column
	for _, p := range append(slices.Clone(phases), "total") {
		c = append(c, column{p, func(r result) float64 { return r.Seconds[p] }})
	}
	return append(c,
		column{"server CPU", func(r result) float64 { return r.ServerCPU }},
		column{"MB to a disk", func(r result) float64 { return r.DiskMB }})
}

// printTables prints one table of medians for each workload, and one of ratios to each of
// the anchors.
func printTables(w io.Writer, results []result) {
	known, _ := findWorkloads(allWorkloads, sizes{})
	for _, work := range known {
		var mine []result
		for _, r := range results {
			if r.Workload == work.name {
				mine = append(mine, r)
			}
		}
		if len(mine) > 0 {
			printTable(w, work, mine)
		}
	}
}

// anchors are the systems to which ratios are quoted.
var anchors = []string{"norep", "ganesha-vfs", "nfsd", "bfs", "nfsd-sync"}

func printTable(w io.Writer, work workload, results []result) {
	cols := columns(work.phasesOf(results))
	fmt.Fprintf(w, "\n%s: seconds, medians; %s\n", work.name, results[0].Placement)
	fmt.Fprintf(w, "%-12s %5s", "", "runs")
	for _, c := range cols {
		fmt.Fprintf(w, " %13s", c.title)
	}
	for _, a := range anchors {
		fmt.Fprintf(w, " %14s", "/"+a)
	}
	fmt.Fprintln(w)
	for _, s := range systems {
		mine := of(results, s.name)
		if len(mine) == 0 {
			continue
		}
		fmt.Fprintf(w, "%-12s %5d", s.name, len(mine))
		for _, c := range cols {
			fmt.Fprintf(w, " %13.3f", median(mine, c.of))
		}
		for _, a := range anchors {
			fmt.Fprintf(w, " %14s", ratio(results, s.name, a))
		}
		fmt.Fprintln(w)
	}
	printRates(w, results)
	printProcesses(w, results)
	printCalls(w, results)
	fmt.Fprintln(w, strings.TrimSpace(results[0].Command))
}

// printRates prints rates per second, and their ratios to the anchors' rates, for
// docs/EVALUATION.md.
func printRates(w io.Writer, results []result) {
	if len(results[0].Rates) == 0 {
		return
	}
	var names []string
	for _, p := range results[0].Phases {
		for name := range results[0].Rates {
			if strings.HasPrefix(name, p+" ") {
				names = append(names, name)
			}
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	fmt.Fprint(t, "\n| \t| runs\t")
	for _, name := range names {
		fmt.Fprintf(t, "| %s\t| / NO-REP\t| / Ganesha\t", name)
	}
	fmt.Fprintln(t, "|")
	fmt.Fprintln(t, strings.Repeat("|---\t", 2+3*len(names))+"|")
	for _, s := range systems {
		mine := of(results, s.name)
		if len(mine) == 0 {
			continue
		}
		fmt.Fprintf(t, "| %s\t| %d\t", s.name, len(mine))
		for _, name := range names {
			rate := func(r result) float64 { return r.Rates[name] }
			fmt.Fprintf(t, "| %.0f\t", median(mine, rate))
			for _, a := range []string{"norep", "ganesha-vfs"} {
				if below := of(results, a); len(below) > 0 {
					fmt.Fprintf(t, "| %.2f\t", median(mine, rate)/median(below, rate))
				} else {
					fmt.Fprint(t, "| \t")
				}
			}
		}
		fmt.Fprintln(t, "|")
	}
	_ = t.Flush()
}

// printProcesses prints the median processor time of each process, for systems that have several.
func printProcesses(w io.Writer, results []result) {
	for _, s := range systems {
		mine := of(results, s.name)
		if len(mine) == 0 || len(mine[0].Processes) < 2 {
			continue
		}
		fmt.Fprintf(w, "%s, processor time of each process (the relay last), s:", s.name)
		for i := range mine[0].Processes {
			fmt.Fprintf(w, " %.2f", median(mine, func(r result) float64 {
				if i < len(r.Processes) {
					return r.Processes[i]
				}
				return 0
			}))
		}
		fmt.Fprintln(w)
	}
}

// ratio returns the ratio of the systems' median totals.
func ratio(results []result, system, anchor string) string {
	below := of(results, anchor)
	if len(below) == 0 {
		return "-"
	}
	total := func(r result) float64 { return r.Seconds["total"] }
	return fmt.Sprintf("%.2f", median(of(results, system), total)/median(below, total))
}

func of(results []result, system string) []result {
	var mine []result
	for _, r := range results {
		if r.System == system {
			mine = append(mine, r)
		}
	}
	return mine
}

func median(results []result, of func(result) float64) float64 {
	var v []float64
	for _, r := range results {
		v = append(v, of(r))
	}
	if len(v) == 0 {
		return 0
	}
	slices.Sort(v)
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// printCalls prints the number of calls of each procedure that the kernel made in the last run.
func printCalls(w io.Writer, results []result) {
	r := results[len(results)-1]
	if len(r.Calls) == 0 {
		return
	}
	names := slices.SortedFunc(maps.Keys(r.Calls), func(a, b string) int {
		return cmp.Or(r.Calls[b]-r.Calls[a], strings.Compare(a, b))
	})
	total := 0
	var list []string
	for _, name := range names {
		total += r.Calls[name]
		list = append(list, fmt.Sprintf("%s %d", name, r.Calls[name]))
	}
	fmt.Fprintf(w, "%d calls in a run of %s: %s\n", total, r.System, strings.Join(list, ", "))
}
