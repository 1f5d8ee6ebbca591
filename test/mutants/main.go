// Command mutants plants known mistakes in the protocol, one at a time, and has the simulator look for each. A mistake
// that no schedule notices is one that we could make and not notice.
//
//	go run ./test/mutants             all of them
//	go run ./test/mutants -only P     those with P in their name
//
// The tree is not touched: the compiler is handed the changed file as an overlay.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

var (
	only  = flag.String("only", "", "plant only the mistakes whose names contain this")
	seeds = flag.Int("seeds", 3000, "give up after so many schedules")
	limit = flag.Duration("limit", 4*time.Minute, "or after so long")
)

const core = "pkg/pbft/internal/core/"

func main() {
	flag.Parse()
	directory, err := os.MkdirTemp("", "mutants")
	if err != nil {
		fatal(err)
	}
	defer os.RemoveAll(directory)
	planted, survivors := 0, 0
	for _, m := range mutants {
		if !strings.Contains(m.name, *only) {
			continue
		}
		planted++
		began := time.Now()
		verdict, caught := m.plant(directory)
		if !caught {
			survivors++
		}
		fmt.Printf("%-68s %6.1fs  %s\n", m.name, time.Since(began).Seconds(), verdict)
	}
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

// plant makes the mistake and reports what the simulator says of it.
func (m *mutant) plant(directory string) (verdict string, caught bool) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		fatal(err)
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return fmt.Sprintf("STALE: its place occurs %d times in %s", n, m.file), false
	}
	changed := filepath.Join(directory, "changed.go")
	write(changed, bytes.Replace(source, []byte(m.old), []byte(m.new), 1))
	path, err := filepath.Abs(m.file)
	if err != nil {
		fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		fatal(err)
	}
	write(filepath.Join(directory, "overlay.json"), overlay)
	binary := filepath.Join(directory, "sim.test")
	build := exec.Command("go", "test", "-c", "-vet=off", "-overlay", filepath.Join(directory, "overlay.json"), "-o", binary, "./pkg/pbft/pbfttest")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Sprintf("STALE: does not compile: %v %s", err, out), false
	}
	ctx, cancel := context.WithTimeout(context.Background(), *limit)
	defer cancel()
	run := exec.CommandContext(ctx, binary, "-test.run", "TestMutant", "-sim.seeds", fmt.Sprint(*seeds))
	out, err := run.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return "SURVIVES: " + limit.String() + " of schedules did not notice", false
	case err == nil:
		return fmt.Sprintf("SURVIVES: %d schedules did not notice", *seeds), false
	}
	return reason(err, string(out)), true
}

// reason is what the judge said first.
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
