// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bfs/cmd/internal/bench"
	"bfs/test/patience"
)

// In a soak that finds nothing wrong every kind of fault has had a turn, beside an attack. The last
// row is the summary.
func TestBenchSoak(t *testing.T) {
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	s := startSoak(ctx, t, "--soak", "3s")
	defer s.kill()
	served, faults, rounds := 0.0, map[string]bool{}, -1
	for {
		turn, err := s.next()
		if err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if turn.Whole != nil {
			rounds = *turn.Whole
			continue
		}
		if rounds >= 0 {
			t.Error("a turn comes after the summary")
		}
		if turn.By != "client+stranger" || turn.Resident < 1 || turn.Descriptors < 1 || turn.Goroutines < 1 {
			t.Errorf("got %+v", turn)
		}
		served, faults[turn.Fault] = served+turn.Rate, true
	}
	if err := s.cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, s.errors.String())
	}
	if len(faults) != 5 || served == 0 || rounds < 4 {
		t.Errorf("faults %v, %v operations a second in all, %d whole rounds, want five kinds, some and four",
			faults, served, rounds)
	}
	if left, err := os.ReadDir(s.dir); err != nil || len(left) > 0 {
		t.Errorf("%v is left behind, %v", left, err)
	}
}

// A soak fails when a replica ends that no fault has, and keeps its files.
func TestBenchSoakNotices(t *testing.T) {
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	s := startSoak(ctx, t, "--soak", "1h")
	defer s.kill()
	if _, err := s.next(); err != nil {
		t.Fatal(err)
	}
	const steady = 6 // of seven: never restarted
	if err := syscall.Kill(s.replica(t, steady), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := s.next(); err != nil {
			break
		}
	}
	err, told := s.cmd.Wait(), s.errors.String()
	if err == nil || !strings.Contains(told, "a replica ended by itself: replica6") || !strings.Contains(told, s.dir) {
		t.Errorf("got %v and %q, want that replica 6 ended by itself, and where the files are", err, told)
	}
}

// A soakRun is a soak in a process of its own.
type soakRun struct {
	cmd    *exec.Cmd
	dir    string
	rows   *json.Decoder
	errors strings.Builder
}

func startSoak(ctx context.Context, t *testing.T, flags ...string) *soakRun {
	t.Helper()
	bfsd := program(t)
	s := &soakRun{dir: t.TempDir()}
	args := append([]string{"bench", "attack", "common+stranger-hellos", "--phase", "300ms", "--durability",
		"replicated", "--json", "--stall", patience.For(10 * time.Second).String()}, flags...)
	s.cmd = exec.CommandContext(ctx, bfsd, args...)
	s.cmd.Env, s.cmd.Stderr = append(s.cmd.Environ(), "TMPDIR="+s.dir), &s.errors
	out, err := s.cmd.StdoutPipe()
	if err == nil {
		err = s.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.rows = json.NewDecoder(out)
	return s
}

// A soakRow is a turn or the summary.
type soakRow struct {
	bench.Turn
	Whole *int `json:"whole_rounds"`
}

func (s *soakRun) next() (row soakRow, err error) {
	err = s.rows.Decode(&row)
	return row, err
}

func (s *soakRun) kill() { _ = s.cmd.Process.Kill() }

// replica finds the process of a replica.
func (s *soakRun) replica(t *testing.T, i int) int {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range all {
		text, _ := os.ReadFile(file) // it may have ended
		if words := string(text); strings.Contains(words, s.dir+"/") &&
			strings.Contains(words, fmt.Sprintf("/host%d/replica.toml", i)) {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err != nil {
				t.Fatal(err)
			}
			return pid
		}
	}
	t.Fatalf("no process of replica %d", i)
	return 0
}
