// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tableCommand prints the tables of a results file.
func tableCommand(args []string) error {
	results, err := readResults(resultsFile(args))
	if err != nil {
		return err
	}
	printTables(os.Stdout, results)
	return nil
}

func resultsFile(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return "build/bench.jsonl"
}

// plotCommand draws one SVG for each workload of a results file: bars of medians, stacked by phase.
func plotCommand(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: bench plot RESULTS DIR")
	}
	results, err := readResults(args[0])
	if err != nil {
		return err
	}
	known, err := findWorkloads(allWorkloads, sizes{})
	if err != nil {
		return err
	}
	for _, w := range known {
		var mine []result
		for _, r := range results {
			if r.Workload == w.name {
				mine = append(mine, r)
			}
		}
		if len(mine) == 0 {
			continue
		}
		file := filepath.Join(args[1], w.name+".svg")
		if err := plot(file, w, mine); err != nil {
			return err
		}
		fmt.Println(file)
	}
	return nil
}

func plot(file string, w workload, results []result) error {
	phases := w.phasesOf(results)
	if len(phases) == 0 {
		phases = []string{"total"}
	}
	var script strings.Builder
	fmt.Fprintf(&script, `set terminal svg size 720,360 font "sans-serif,12" background "white"
set output %q
set title %q
set style data histograms
set style histogram rowstacked
set style fill solid 0.8 border -1
set boxwidth 0.6
set ylabel "seconds"
set yrange [0:*]
set grid ytics
set key outside right
`, file, fmt.Sprintf("%s, median of %d runs", w.name, len(of(results, results[0].System))))
	script.WriteString("$data << END\n")
	writeData(&script, phases, results)
	script.WriteString("END\nplot ")
	for i, p := range phases {
		if i > 0 {
			script.WriteString(", ")
		}
		fmt.Fprintf(&script, "$data using %d:xtic(1) title %q", i+2, p)
	}
	script.WriteString("\n")
	c := exec.Command("gnuplot")
	c.Stdin = strings.NewReader(script.String())
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("gnuplot: %w: %s", err, out)
	}
	return nil
}

func writeData(w io.Writer, phases []string, results []result) {
	for _, s := range systems {
		mine := of(results, s.name)
		if len(mine) == 0 {
			continue
		}
		fmt.Fprintf(w, "%q", s.name)
		for _, p := range phases {
			fmt.Fprintf(w, " %.3f", median(mine, func(r result) float64 { return r.Seconds[p] }))
		}
		fmt.Fprintln(w)
	}
}
