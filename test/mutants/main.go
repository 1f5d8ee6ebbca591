// SPDX-License-Identifier: Apache-2.0

// Command mutants plants known mistakes in the protocol, one at a time, and has the simulator
// look for each. A mistake that no schedule notices is one that we could make and not notice.
//
//	go run ./test/mutants             all of them
//	go run ./test/mutants -only '^P'  those whose names begin with P
//
// The tree is not touched: the compiler is handed the changed file as an overlay.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"time"
)

var (
	only  = flag.String("only", "", "plant only the mistakes whose names match this")
	seeds = flag.Int("seeds", 20000, "give up after so many schedules")
	jobs  = flag.Int("jobs", runtime.NumCPU(), "mistakes looked for at a time, each by one processor")
)

const (
	core = "pkg/pbft/internal/core/"
	noun = "pkg/pbft/internal/message/"
	call = "pkg/pbft/internal/client/tally.go"
	rule = "pkg/pbft/internal/client/"
	runs = "pkg/pbft/internal/executor/executor.go"
	kept = "pkg/pbft/internal/store/"
	logs = "pkg/pbft/internal/journal/"
	file = "pkg/nfsstate/"
	wire = "pkg/pbft/internal/transport/"
)

func main() {
	flag.Parse()
	directory, err := os.MkdirTemp("", "mutants")
	if err != nil {
		fatal(err)
	}
	defer os.RemoveAll(directory)
	wanted, err := regexp.Compile(*only)
	if err != nil {
		fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	planted, survivors, free := 0, 0, make(chan bool, *jobs)
	for i, m := range mutants {
		if !wanted.MatchString(m.name) {
			continue
		}
		planted++
		free <- true
		wg.Go(func() {
			began := time.Now()
			verdict, caught := m.plant(filepath.Join(directory, fmt.Sprint(i)))
			mu.Lock()
			if !caught {
				survivors++
			}
			fmt.Printf("%-68s %6.1fs  %s\n", m.name, time.Since(began).Seconds(), verdict)
			mu.Unlock()
			<-free
		})
	}
	wg.Wait()
	fmt.Printf("%d mistakes planted, %d not noticed\n", planted, survivors)
	if survivors > 0 {
		os.RemoveAll(directory)
		os.Exit(1)
	}
}

func fatal(err error) {
	fmt.Fprintln(os.Stderr, "mutants:", err)
	os.Exit(1)
}

// plant makes the mistake and reports whether, and how, the simulator notices it.
func (m *mutant) plant(directory string) (verdict string, caught bool) {
	if err := os.Mkdir(directory, 0o700); err != nil {
		fatal(err)
	}
	defer os.RemoveAll(directory)
	halves, replace := []mutant{*m}, map[string]string{}
	if second, ok := also[m.name]; ok {
		halves = append(halves, second)
	}
	for i, h := range halves {
		source, err := os.ReadFile(h.file)
		if err != nil {
			fatal(err)
		}
		if n := bytes.Count(source, []byte(h.old)); n != 1 {
			return fmt.Sprintf("STALE: its place occurs %d times in %s", n, h.file), false
		}
		path, err := filepath.Abs(h.file)
		if err != nil {
			fatal(err)
		}
		replace[path] = filepath.Join(directory, fmt.Sprintf("changed%d.go", i))
		write(replace[path], bytes.Replace(source, []byte(h.old), []byte(h.new), 1))
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": replace})
	if err != nil {
		fatal(err)
	}
	write(filepath.Join(directory, "overlay.json"), overlay)
	overlaid := filepath.Join(directory, "overlay.json")
	if room, ok := unit[m.name]; ok {
		return noticed(exec.Command("go", "test", "-vet=off", "-short", "-count=1", "-overlay", overlaid, room))
	}
	binary := filepath.Join(directory, "sim.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-ldflags=-s -w", "-overlay", overlaid, "-o", binary,
		"./pkg/pbft/internal/sim")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Sprintf("STALE: does not compile: %v %s", err, out), false
	}
	run := exec.Command(binary, "-test.run", "TestMutant", "-test.timeout", "0", "-sim.seeds", fmt.Sprint(*seeds))
	out, err := run.CombinedOutput()
	if err == nil {
		return fmt.Sprintf("SURVIVES: %d schedules did not notice", *seeds), false
	}
	return reason(err, string(out)), true
}

// noticed runs a package's own tests, and reports which failed.
func noticed(run *exec.Cmd) (verdict string, caught bool) {
	out, err := run.CombinedOutput()
	if err == nil {
		return "SURVIVES: the package's tests did not notice", false
	}
	if strings.Contains(string(out), "[build failed]") {
		return fmt.Sprintf("STALE: does not compile: %s", out), false
	}
	var failed []string
	for _, line := range strings.Split(string(out), "\n") {
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok {
			failed = append(failed, strings.Fields(name)[0])
		}
	}
	return strings.Join(failed, ", "), len(failed) > 0
}

// reason returns the judge's first line.
func reason(err error, out string) string {
	for _, line := range strings.Split(out, "\n") {
		if _, said, ok := strings.Cut(line, "noticed by "); ok {
			return said[:min(len(said), 140)]
		}
	}
	return fmt.Sprintf("%v: %s", err, out[:min(len(out), 140)])
}

func write(path string, b []byte) {
	if err := os.WriteFile(path, b, 0o600); err != nil {
		fatal(err)
	}
}
