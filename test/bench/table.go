package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// column is a figure of a workload: a phase, or the servers' processor time.
type column struct {
	title string
	of    func(result) float64
}

func columns(w workload) []column {
	var c []column
	for _, p := range append(slices.Clone(w.phases), "total") {
		c = append(c, column{p, func(r result) float64 { return r.Seconds[p] }})
	}
	return append(c, column{"server CPU", func(r result) float64 { return r.ServerCPU }})
}

// printTables prints one table of medians for each workload, and one of ratios to each of the anchors.
func printTables(w io.Writer, results []result) {
	known, _ := findWorkloads(allWorkloads, 0)
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

// anchors are what ratios are quoted to.
var anchors = []string{"norep", "ganesha-vfs", "nfsd"}

func printTable(w io.Writer, work workload, results []result) {
	cols := columns(work)
	fmt.Fprintf(w, "\n%s: seconds, medians; %s\n", work.name, results[0].Placement)
	fmt.Fprintf(w, "%-12s %5s", "", "runs")
	for _, c := range cols {
		fmt.Fprintf(w, " %10s", c.title)
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
			fmt.Fprintf(w, " %10.3f", median(mine, c.of))
		}
		for _, a := range anchors {
			fmt.Fprintf(w, " %14s", ratio(results, s.name, a))
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w, strings.TrimSpace(results[0].Command))
}

// ratio is that of the medians of totals.
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
