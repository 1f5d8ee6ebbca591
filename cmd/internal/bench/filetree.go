// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"text/tabwriter"
	"time"

	"bfs/pkg/bfs"
	"bfs/pkg/pbft"
)

// FileTree makes empty files in many directories, lists the directories and reads every
// file's attributes, for several numbers of files. Each has a tree of its own that stays,
// so the rate for the second number is measured on top of the first.
type FileTree struct {
	Target  string // a directory of the file system to measure; or
	N       int    // replicas of a group to start, which is measured through pkg/bfs, with no kernel between
	Files   []int  // how many, each a phase of its own
	Each    int    // files a directory
	Threads int    // that make and look at a time
	Drop    bool   // empty the kernel's caches before listing and before looking
	Bare    bool   // only create: do not list, do not look
	Program string // bfsd, for N

	Durability pbft.Durability // of the replicas; "": disk
}

// A TreeRate is the result for one number of files.
type TreeRate struct {
	Files   int     `json:"files"`
	Create  float64 `json:"create_s"`
	List    float64 `json:"list_s"`
	Stat    float64 `json:"stat_s"`
	CPU     float64 `json:"replica_cpu_us_per_create,omitempty"` // of all replicas together
	Listed  int     `json:"listed"`
	Threads int     `json:"threads"`
}

// A TreeResult is one measurement.
type TreeResult struct {
	Target  string             `json:"target,omitempty"`
	N       int                `json:"n,omitempty"`
	Each    int                `json:"each"`
	Seconds map[string]float64 `json:"seconds"` // such as create_1000
	Rates   []TreeRate         `json:"rates"`
}

// files is the part of a file system that a FileTree uses.
type files interface {
	mkdir(name string) error
	create(name string) error
	list(name string) (int, error)
	stat(name string) error
}

// Run measures. In a target it removes the files that it made; a group has ended when it returns.
func (t FileTree) Run(ctx context.Context) (r *TreeResult, err error) {
	switch {
	case (t.Target == "") == (t.N == 0):
		return nil, errors.New("want either --target, a directory of the file system to measure, or --n, the " +
			"replicas of a group to start")
	case t.Each < 1 || t.Threads < 1 || len(t.Files) == 0:
		return nil, errors.New("want at least one file, one file a directory and one thread")
	}
	dir, err := os.MkdirTemp(t.Target, "bfs-tree-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	r = &TreeResult{Target: t.Target, N: t.N, Each: t.Each, Seconds: map[string]float64{}}
	if t.Target != "" {
		return r, t.phases(ctx, kernelFiles(dir), nil, r)
	}
	total := 0
	for _, n := range t.Files {
		total += n
	}
	g, err := startFileGroup(ctx, fileGroupConfig{Program: t.Program, Dir: dir, N: t.N,
		Size: int64(total) * 2 * pbft.PageSize, Durability: t.Durability})
	if err != nil {
		return nil, err
	}
	defer g.stop()
	return r, t.phases(ctx, groupFiles{g.files}, g, r)
}

func (t *FileTree) phases(ctx context.Context, fs files, g *fileGroup, r *TreeResult) error {
	for _, n := range t.Files {
		w := treeWork{FileTree: *t, fs: fs, root: strconv.Itoa(n), n: n}
		rate, err := w.run(ctx, g)
		if err != nil {
			return fmt.Errorf("%d files: %w", n, err)
		}
		r.Rates = append(r.Rates, *rate)
		for phase, seconds := range map[string]float64{"create": rate.Create, "list": rate.List, "stat": rate.Stat} {
			r.Seconds[phase+"_"+strconv.Itoa(n)] = seconds
			r.Seconds["total"] += seconds
		}
	}
	return nil
}

// treeWork is the phases for one number of files.
type treeWork struct {
	FileTree
	fs   files
	root string
	n    int
}

func (w *treeWork) run(ctx context.Context, g *fileGroup) (*TreeRate, error) {
	r := &TreeRate{Files: w.n, Threads: w.Threads}
	if err := w.makeDirectories(); err != nil {
		return nil, err
	}
	before, err := cpuOf(g)
	if err == nil {
		r.Create, err = timed(func() error {
			return w.parallel(ctx, w.n, func(i int) error { return w.fs.create(w.file(i)) })
		})
	}
	if err != nil {
		return nil, err
	}
	after, err := cpuOf(g)
	r.CPU = micros(after-before) / float64(w.n)
	if err != nil || w.Bare {
		return r, err
	}
	if err := w.drop(); err != nil {
		return nil, err
	}
	var listed atomic.Int64
	r.List, err = timed(func() error {
		return w.parallel(ctx, w.directories(), func(i int) error {
			n, err := w.fs.list(w.directory(i))
			listed.Add(int64(n))
			return err
		})
	})
	if err != nil {
		return nil, err
	}
	if r.Listed = int(listed.Load()); r.Listed != w.n {
		return nil, fmt.Errorf("listed %d files, made %d", r.Listed, w.n)
	}
	if err := w.drop(); err != nil {
		return nil, err
	}
	r.Stat, err = timed(func() error { return w.parallel(ctx, w.n, func(i int) error { return w.fs.stat(w.file(i)) }) })
	return r, err
}

func cpuOf(g *fileGroup) (time.Duration, error) {
	if g == nil {
		return 0, nil
	}
	return g.cpu()
}

func timed(do func() error) (float64, error) {
	begin := time.Now()
	err := do()
	return time.Since(begin).Seconds(), err
}

func (w *treeWork) directories() int { return (w.n + w.Each - 1) / w.Each }

func (w *treeWork) directory(i int) string { return w.root + "/d" + strconv.Itoa(i) }

// file numbers files so that threads that count up work in different directories.
func (w *treeWork) file(i int) string {
	return w.directory(i%w.directories()) + "/file-" + strconv.Itoa(i)
}

func (w *treeWork) makeDirectories() error {
	if err := w.fs.mkdir(w.root); err != nil {
		return err
	}
	for i := range w.directories() {
		if err := w.fs.mkdir(w.directory(i)); err != nil {
			return err
		}
	}
	return nil
}

func (w *treeWork) drop() error {
	if w.Target == "" || !w.Drop {
		return nil
	}
	return dropCaches()
}

func (w *treeWork) parallel(ctx context.Context, n int, f func(i int) error) error {
	return parallel(w.Threads, n, func(i int) error { return errors.Join(ctx.Err(), f(i)) })
}

// parallel runs f for 0 to n-1, some at a time, until one fails.
func parallel(threads, n int, f func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var workers sync.WaitGroup
	for range threads {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && failed.Load() == nil; i = next.Add(1) - 1 {
				if err := f(int(i)); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	workers.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}

// kernelFiles is a directory that this machine's kernel knows.
type kernelFiles string

func (k kernelFiles) path(name string) string { return filepath.Join(string(k), name) }

func (k kernelFiles) mkdir(name string) error { return os.Mkdir(k.path(name), 0o755) }

// create opens as touch and cp do. With O_EXCL the kernel would send a SETATTR after each CREATE.
func (k kernelFiles) create(name string) error {
	f, err := os.OpenFile(k.path(name), os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func (k kernelFiles) list(name string) (int, error) {
	entries, err := os.ReadDir(k.path(name))
	return len(entries), err
}

func (k kernelFiles) stat(name string) error {
	_, err := os.Lstat(k.path(name))
	return err
}

// groupFiles asks a group without a kernel between.
type groupFiles struct{ *bfs.FS }

func (g groupFiles) mkdir(name string) error { return g.Mkdir(name, 0o755) }

func (g groupFiles) create(name string) error {
	f, err := g.OpenFile(name, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	return f.Close()
}

func (g groupFiles) list(name string) (int, error) {
	entries, err := g.ReadDir(name)
	return len(entries), err
}

func (g groupFiles) stat(name string) error {
	_, err := g.Lstat(name)
	return err
}

// WriteTable shows the result to people.
func (r *TreeResult) WriteTable(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "FILES\tTHREADS\tCREATES/s\tLISTED/s\tSTATS/s\tREPLICAS' CPU us/CREATE\t")
	for _, x := range r.Rates {
		per := func(seconds float64) string {
			if seconds == 0 {
				return "-"
			}
			return fmt.Sprintf("%.0f", float64(x.Files)/seconds)
		}
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%.1f\t\n",
			x.Files, x.Threads, per(x.Create), per(x.List), per(x.Stat), x.CPU)
	}
	return t.Flush()
}
