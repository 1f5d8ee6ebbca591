// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"strings"
	"testing"
)

// A Check is one named result on a script's output.
type Check struct {
	Name   string
	OK     bool
	NotRun bool // this machine could not run it; Why says what was missing
	Why    string
	Output string // the output between its begin and its end
}

// Checks finds the results in a script's output: the lines begin NAME, ok NAME, FAIL
// NAME: why and skip NAME: why. A check that began and did not end has failed.
func Checks(output string) []Check {
	var all []Check
	var open *Check
	closeOpen := func(ok bool, why string) {
		if open != nil {
			open.OK, open.Why = ok, why
			all = append(all, *open)
			open = nil
		}
	}
	for _, line := range strings.Split(output, "\n") {
		word, rest, _ := strings.Cut(line, " ")
		name, why, _ := strings.Cut(rest, ": ")
		switch {
		case word == "begin":
			closeOpen(false, "did not finish")
			open = &Check{Name: rest}
		case word == "ok" && open != nil && open.Name == rest:
			closeOpen(true, "")
		case word == "skip" && open != nil && open.Name == name:
			open.NotRun = true
			closeOpen(false, why)
		case word == "FAIL" && open != nil && open.Name == name:
			closeOpen(false, why)
		case open != nil:
			open.Output += line + "\n"
		}
	}
	closeOpen(false, "did not finish")
	return all
}

// Run runs a script in a guest, and makes a subtest of each of its checks. On a machine
// that cannot run guests it skips the test, and says why.
func Run(t *testing.T, o Options) Result {
	t.Helper()
	if err := Available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	o.SpreadCPU = true // several packages test at once
	g, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Wait()
	if err != nil {
		t.Error(err)
	}
	for _, c := range Checks(r.Output) {
		t.Run(c.Name, func(t *testing.T) {
			if c.Output != "" {
				t.Log("\n" + c.Output)
			}
			switch {
			case c.NotRun:
				t.Skip("NOT RUN: " + c.Why)
			case !c.OK:
				t.Error(c.Why)
			}
		})
	}
	if r.Exit != 0 {
		t.Errorf("script ended with %d; last output:\n%s", r.Exit, lastLines(r.Output, 30))
	}
	return r
}
