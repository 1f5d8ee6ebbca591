// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// A recoveryTime is T_r, in seconds: the duration of a recovery for a state of this size
// on disk. The measured ones are in docs/EVALUATION.md; the other is computed from them.
type recoveryTime struct {
	state   string
	seconds float64
	how     string
}

var recoveryTimes = []recoveryTime{
	{"16 MiB", 2.4, "measured, idle"},
	{"256 MiB", 5.4, "measured under load"},
	{"1 GiB", 4.1, "measured under load"},
	{"4 GiB", 13.2, "computed: 3.0 s a GiB to load, and the 1.1 s that the rest of 1 GiB takes"},
}

// watchdogPeriods are the values of T_w in minutes, the paper's among them.
var watchdogPeriods = []float64{1, 3.5, 10, 30, 60}

// windowOf returns T_v = 2 T_k + T_w + T_r in minutes [TOCS §5.2.4].
func windowOf(keySeconds, watchdogMinutes, recoverySeconds float64) float64 {
	return watchdogMinutes + (2*keySeconds+recoverySeconds)/60
}

// The paper's, with T_k = 15 s: T_w in minutes, T_r in seconds, and the smallest window
// that it reports, in which T_r is not counted [TOCS §8.2.3].
var paperWindows = []struct {
	what              string
	watchdog, recover float64
	reported          float64
}{
	{"Andrew100, 1-s reboot", 1, 13.3, 1.5},
	{"Andrew100, 30-s reboot", 3.5, 42.59, 4},
	{"Andrew500, 30-s reboot", 10, 143.68, 10.5},
}

// windowCommand draws window.svg, and prints its tables.
func windowCommand(args []string) error {
	dir := "docs/plots"
	if len(args) > 0 {
		dir = args[0]
	}
	var s strings.Builder
	fmt.Fprintf(&s, `set terminal svg size 720,420 font "sans-serif,12" background "white"
set output %q
set title "Window of vulnerability: 2 T_k + T_w + T_r"
set xlabel "T_w, minutes between two recoveries of a replica"
set ylabel "T_v, minutes"
set logscale xy
set xrange [0.9:70]
set yrange [0.9:80]
set xtics (1, 3.5, 10, 30, 60)
set ytics (1, 2, 4, 10, 30, 60)
set grid
set key left top
$paper << END
`, filepath.Join(dir, "window.svg"))
	for _, p := range paperWindows {
		fmt.Fprintf(&s, "%g %g\n", p.watchdog, windowOf(15, p.watchdog, p.recover))
	}
	s.WriteString("END\nplot ")
	least, most := recoveryTimes[0], recoveryTimes[len(recoveryTimes)-1]
	for _, k := range []struct {
		key    float64
		colour string
	}{{60, "#b2182b"}, {15, "#2166ac"}, {1, "#4d9221"}} {
		for i, r := range []recoveryTime{least, most} {
			fmt.Fprintf(&s, "x+%g with lines lw 2 dt %d lc rgb %q title \"T_k = %g s, %s\", ",
				(2*k.key+r.seconds)/60, 1+i, k.colour, k.key, r.state)
		}
	}
	s.WriteString("$paper using 1:2 with points pt 7 ps 1.2 lc rgb \"black\" title \"the " +
		"paper, T_k = 15 s, with its T_r\"\n")
	c := exec.Command("gnuplot")
	c.Stdin = strings.NewReader(s.String())
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("gnuplot: %w: %s", err, out)
	}
	windowTables()
	return nil
}

// windowTables prints T_v for the default T_k of a minute, and the paper's, for docs/EVALUATION.md.
func windowTables() {
	out := os.Stdout
	fmt.Fprint(out, "| state, T_r |")
	for _, w := range watchdogPeriods {
		fmt.Fprintf(out, " T_w = %g min |", w)
	}
	fmt.Fprintln(out, "\n|---"+strings.Repeat("|---", len(watchdogPeriods))+"|")
	for _, r := range recoveryTimes {
		fmt.Fprintf(out, "| %s, %.1f s (%s) |", r.state, r.seconds, r.how)
		for _, w := range watchdogPeriods {
			fmt.Fprintf(out, " %.1f |", windowOf(60, w, r.seconds))
		}
		fmt.Fprintln(out)
	}
	fmt.Fprintln(out, "\n| the paper | T_w, min | T_r, s | reported: 2 T_k + T_w, min | with T_r, min | ours "+
		"with these T_k and T_w, 1 GiB, min |\n|---|---|---|---|---|---|")
	for _, p := range paperWindows {
		fmt.Fprintf(out, "| %s | %g | %.1f | %g | %.1f | %.1f |\n",
			p.what, p.watchdog, p.recover, p.reported, windowOf(15, p.watchdog, p.recover),
			windowOf(15, p.watchdog, recoveryTimes[2].seconds))
	}
}
