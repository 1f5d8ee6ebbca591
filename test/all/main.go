// SPDX-License-Identifier: Apache-2.0

// Command all is `make test`: it runs every check there is, and ends with a table of what ran, what
// failed, and what this machine could not run and why. Nothing is left out silently.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"bfs/test/patience"
)

// A step is one line of the table.
type step struct {
	name    string
	command []string
	env     []string
	limit   time.Duration // for a package's tests, on a quiet machine; 0: the command is not go test -json
}

// The unit tests run first, without the system tests, so that a broken package fails
// before guests boot.
var steps = []step{
	{name: "lint", command: []string{"make", "-s", "lint"}},
	{name: "build", command: []string{"make", "-s", "build"}},
	{name: "unit tests, race detector", command: []string{"-race", "./cmd/...", "./pkg/..."}, limit: time.Hour},
	{name: "simulator, 700 schedules", command: []string{"-run", "Directed|Fixed|Fresh", "./pkg/pbft/internal/sim",
		"-sim.fixed=500", "-sim.seeds=200"}, limit: time.Hour},
	{name: "whole system, real kernel", command: []string{"./test/..."},
		env: []string{"BFS_KERNEL=1"}, limit: time.Hour},
}

// An outcome is the result of a step.
type outcome struct {
	step
	ok                      bool
	took                    time.Duration
	slowness                float64 // how many times slower than a quiet machine this one was, by package patience
	passed, failed, skipped int
	failures                []string // names
	notRun                  []string // names and reasons
}

func main() {
	neighbours := flag.Int("busy", 0, "keep so many processes of stress-ng busy beside the tests")
	flag.Parse()
	stop, err := startBusy(*neighbours)
	if err != nil {
		fmt.Fprintln(os.Stderr, "all:", err)
		os.Exit(1)
	}
	ok := runAll()
	stop()
	if !ok {
		os.Exit(1)
	}
}

// startBusy starts processes that take all the CPU they can get. They end with this process.
func startBusy(n int) (stop func(), err error) {
	if n == 0 {
		return func() {}, nil
	}
	runtime.LockOSThread() // the neighbours die with the thread that started them, see Pdeathsig
	c := exec.Command("stress-ng", "--quiet", "--cpu", strconv.Itoa(n))
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := c.Start(); err != nil {
		return nil, fmt.Errorf("busy neighbours (Debian package stress-ng): %w", err)
	}
	return func() {
		_ = c.Process.Signal(syscall.SIGTERM)
		_ = c.Wait() // by the signal
	}, nil
}

// runAll runs every step, prints the table and tells whether all is well.
func runAll() bool {
	var all []outcome
	for _, s := range steps {
		slowness := patience.Measure()
		fmt.Printf("== %s (the machine is %.1f times slower than a quiet one)\n", s.name, slowness)
		o := s.run()
		o.slowness = max(slowness, patience.Measure())
		all = append(all, o)
	}
	return report(os.Stdout, all)
}

func (s step) run() outcome {
	start := time.Now()
	o := outcome{step: s}
	command := s.command
	if s.isTests() { // the limit only catches what hangs and has no limit of its own
		command = append([]string{"go", "test", "-json", "-count=1", "-timeout", patience.For(s.limit).String()},
			command...)
	}
	c := exec.Command(command[0], command[1:]...)
	c.Env = append(os.Environ(), s.env...)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err == nil {
		if s.isTests() {
			o.readEvents(out)
		} else {
			_, _ = io.Copy(os.Stdout, out)
		}
		err = c.Wait()
	}
	if err != nil {
		fmt.Printf("%s: %v\n", s.name, err)
	}
	o.ok = err == nil && o.failed == 0
	o.took = time.Since(start)
	return o
}

func (s step) isTests() bool { return s.limit > 0 }

// event is a line of go test -json.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// readEvents counts tests, and prints a line for each package, the whole output of a
// failed test, and the results of the whole-system checks as they come.
func (o *outcome) readEvents(r io.Reader) {
	printed := map[string][]string{} // by package and test
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Println(lines.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "build-output":
			fmt.Print(e.Output)
		case "output":
			printed[key] = append(printed[key], e.Output)
		case "pass", "fail", "skip":
			o.count(e, printed[key])
			delete(printed, key)
		}
	}
}

func (o *outcome) count(e event, printed []string) {
	name := strings.TrimPrefix(e.Package, "bfs/") + " " + e.Test
	text := strings.Join(printed, "")
	if e.Test == "" {
		o.countPackage(e, text)
		return
	}
	switch e.Action {
	case "pass":
		o.passed++
	case "fail":
		o.failed++
		o.failures = append(o.failures, name)
		fmt.Printf("FAIL %s\n%s", name, text)
	case "skip":
		o.skipped++
		o.notRun = append(o.notRun, name+": "+reason(printed))
	}
}

func (o *outcome) countPackage(e event, text string) {
	if e.Action == "fail" && (e.FailedBuild != "" || o.failed == 0) { // no test of it says why
		o.failed++
		o.failures = append(o.failures, e.Package)
		fmt.Print(text)
	}
	if !strings.Contains(text, "[no test files]") {
		fmt.Printf("%-4s %-32s %6.1f s\n", e.Action, strings.TrimPrefix(e.Package, "bfs/"), e.Elapsed)
	}
}

// reason returns the text of a skipped test, without the file and line before it.
func reason(printed []string) string {
	for _, line := range printed {
		if i := strings.Index(line, "_test.go:"); i >= 0 || strings.Contains(line, ".go:") {
			_, after, _ := strings.Cut(line, ".go:")
			_, after, _ = strings.Cut(after, ": ")
			return strings.TrimPrefix(strings.TrimSpace(after), "NOT RUN: ")
		}
	}
	return "no reason given"
}

// report prints the table and tells whether all is well.
func report(w io.Writer, all []outcome) bool {
	fmt.Fprintf(w, "\n%-28s %-6s %8s %8s %8s %8s %8s\n",
		"what ran", "result", "passed", "failed", "not run", "seconds", "slowness")
	ok := true
	var total outcome
	for _, o := range all {
		result := "ok"
		if !o.ok {
			result, ok = "FAILED", false
		}
		if !o.isTests() { // a step without tests counts as one
			if o.ok {
				o.passed = 1
			} else {
				o.failed = 1
			}
		}
		fmt.Fprintf(w, "%-28s %-6s %8d %8d %8d %8.0f %8.1f\n",
			o.name, result, o.passed, o.failed, o.skipped, o.took.Seconds(), o.slowness)
		total.took += o.took
		total.passed += o.passed
		total.failed += o.failed
		total.skipped += o.skipped
		total.failures = append(total.failures, o.failures...)
		total.notRun = append(total.notRun, o.notRun...)
	}
	list(w, "not run on this machine, and why:", total.notRun)
	list(w, "failed:", total.failures)
	fmt.Fprintln(w, "\nSlowness is how many times longer than on a quiet machine a fixed piece of work took, "+
		"before or after; limits grow with it.")
	fmt.Fprintf(w, "%d passed, %d failed, %d skipped, in %v\n",
		total.passed, total.failed, total.skipped, total.took.Round(time.Second))
	return ok
}

func list(w io.Writer, title string, items []string) {
	if len(items) == 0 {
		return
	}
	fmt.Fprintf(w, "\n%s\n", title)
	for _, i := range items {
		fmt.Fprintf(w, "  %s\n", i)
	}
}
