// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

func TestMain(m *testing.M) {
	if guest.Inside() {
		guest.SwitchOff(inside())
	}
	if len(os.Args) > 1 && os.Args[1] == workVerb {
		os.Exit(workCommand(os.Args[2:]))
	}
	apart.Main(m, cluster.RemoveBinaries)
}

// The power of all replicas is cut in one instant, under load. For more rounds: go run
// ./test/power.
func TestPowerCut(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (make kernel-test) to run replicas under guest kernels and cut their power")
	}
	if err := available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	sample(t, &soak{guests: true, mounted: true, rounds: 1})
}

// The disk of one replica breaks below its file system, in one of the ways of diskKinds.
func TestBrokenDisk(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (make kernel-test) to run replicas under guest kernels and break a disk")
	}
	if err := errors.Join(available(), deviceMapper()); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	sample(t, &soak{guests: true, disks: true, rounds: 1})
}

// All replicas are killed in one instant, under load.
func TestKilledProcesses(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	sample(t, &soak{rounds: 2})
}

func sample(t *testing.T, s *soak) {
	t.Helper()
	s.seed, s.dir, s.say = rand.Uint64(), t.TempDir(), t.Logf
	if err := s.run(t.Context()); err != nil {
		t.Fatalf("seed %d: %v", s.seed, err)
	}
	if s.done.rounds != s.rounds || s.done.wrong != (tally{}) {
		t.Errorf("%d rounds, want %d: %v", s.done.rounds, s.rounds, s.done)
	}
}

// here is a directory of this machine. Its Forget does nothing.
type here struct{ mounted }

func (here) Forget() error { return nil }

func (h here) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(h.at(name), flag, perm)
	return unsynced{f}, err
}

type unsynced struct{ *os.File }

func (unsynced) Sync() error { return nil }

// The checker counts each kind of damage as what it is, and counts nothing else.
func TestChecker(t *testing.T) {
	for _, x := range []struct {
		what string
		do   func(t *testing.T, w *worker, dir string)
		want tally
	}{
		{"nothing is amiss", func(*testing.T, *worker, string) {}, tally{}},
		{"a file is gone", func(t *testing.T, w *worker, dir string) {
			must(t, os.Remove(filepath.Join(dir, w.any(""))))
		}, tally{Lost: 1}},
		{"a file is shorter", func(t *testing.T, w *worker, dir string) {
			name := alone(t, w)
			must(t, os.Truncate(filepath.Join(dir, name), int64(len(w.names[name].bytes)-1)))
		}, tally{Lost: 1}},
		{"a write was appended twice", func(t *testing.T, w *worker, dir string) {
			name := alone(t, w)
			must(t, os.WriteFile(filepath.Join(dir, name),
				slices.Concat(w.names[name].bytes, w.names[name].bytes), 0o644))
		}, tally{Doubled: 1}},
		{"a file has other bytes", func(t *testing.T, w *worker, dir string) {
			name := alone(t, w)
			must(t, os.WriteFile(filepath.Join(dir, name), make([]byte, len(w.names[name].bytes)), 0o644))
		}, tally{Forged: 1}},
		{"a record is an earlier one", func(t *testing.T, w *worker, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, ledgerName), make([]byte, len(w.book)), 0o644))
		}, tally{Lost: 1}},
		{"a removed name is back", func(t *testing.T, w *worker, dir string) {
			for name := range w.ever {
				if w.names[name] == nil {
					must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o644))
					return
				}
			}
			t.Fatal("no name was ever removed")
		}, tally{Lost: 1}},
		{"a file that nobody made", func(t *testing.T, w *worker, dir string) {
			must(t, os.WriteFile(filepath.Join(dir, "other"), nil, 0o644))
		}, tally{Forged: 1}},
	} {
		t.Run(strings.ReplaceAll(x.what, " ", "_"), func(t *testing.T) {
			w, dir := busyWorker(t)
			x.do(t, w, dir)
			wrong, sum := w.check()
			if sum != x.want || (len(wrong) > 0) != (x.want != tally{}) {
				t.Errorf("got %v, want %v: %v", sum, x.want, errors.Join(wrong...))
			}
		})
	}
}

// busyWorker is a worker that has worked in a directory of this machine.
func busyWorker(t *testing.T) (w *worker, dir string) {
	t.Helper()
	root := t.TempDir()
	w, err := newWorker(here{mounted{root}}, "worker", 1, 7, new(atomic.Int64), func() int64 { return 0 })
	must(t, err)
	t.Cleanup(func() { _ = w.ledger.Close() })
	for w.acked.Load() < 300 {
		must(t, w.step())
	}
	return w, filepath.Join(root, w.dir)
}

// alone chooses a file that is not empty and has one name only.
func alone(t *testing.T, w *worker) string {
	t.Helper()
	for name, c := range w.names {
		names := 0
		for _, other := range w.names {
			if other == c {
				names++
			}
		}
		if names == 1 && len(c.bytes) > 0 {
			return name
		}
	}
	t.Fatal("all files have several names")
	return ""
}

// An operation that is refused as done already was done twice if the power was cut
// meanwhile. Otherwise an earlier one is lost.
func TestJudgeOfRefusals(t *testing.T) {
	for _, cut := range []bool{false, true} {
		w, dir := busyWorker(t)
		cuts := int64(0)
		w.cuts = func() int64 { return cuts }
		must(t, os.WriteFile(filepath.Join(dir, "there"), nil, 0o644))
		err := w.do("create there", func() error {
			if cut {
				cuts++
			}
			_, err := w.files.OpenFile(w.path("there"), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
			return err
		}, func() {})
		want := tally{Lost: 1}
		if cut {
			want = tally{Doubled: 1}
		}
		if err == nil || w.wrong != want {
			t.Errorf("cut %t: got %v, %v, want %v", cut, w.wrong, err, want)
		}
	}
}

// A crew fails when one of its workers fails.
func TestFailureOfAWorker(t *testing.T) {
	root := t.TempDir()
	g, err := newGang(t.Context(), here{mounted{root}}, "worker", 2, 1, 7, func() int64 { return 0 })
	must(t, err)
	must(t, os.Rename(filepath.Join(root, "worker1"), filepath.Join(root, "elsewhere")))
	patience.Until(t, "the crew has failed", func() bool { return g.failure() != nil })
	g.quit()
	g.all.Wait()
	if r := g.report(order{Check: true}); r.Failed == "" || r.Tally.Lost == 0 || len(r.Wrong) == 0 {
		t.Errorf("got %+v", r)
	}
}

// hanging is a file system in which removing a name waits until ctx ends.
type hanging struct {
	here
	ctx  context.Context
	hung chan struct{} // gets a value when a call waits
}

func (h hanging) Remove(string) error {
	h.hung <- struct{}{}
	<-h.ctx.Done()
	return h.ctx.Err()
}

func (h hanging) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := h.ctx.Err(); err != nil {
		return nil, err
	}
	return h.here.ReadDir(name)
}

// A comparison of directories fails when one of its calls hangs beyond the limit.
func TestCallThatHangsFailsTheCheck(t *testing.T) {
	working, cancel := context.WithCancel(t.Context())
	h := hanging{here{mounted{t.TempDir()}}, working, make(chan struct{}, 2)}
	g, err := newGang(working, h, "worker", 2, 1, 7, func() int64 { return 0 })
	must(t, err)
	<-h.hung
	over, end := context.WithCancel(t.Context())
	end()
	c := &directCrew{gang: g, cancel: cancel}
	if wrong, _ := c.check(over); len(wrong) == 0 {
		t.Error("a call hangs, and the check finds nothing")
	}
	g.all.Wait()
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
