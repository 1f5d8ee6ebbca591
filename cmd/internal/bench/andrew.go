// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// Andrew says which phases to run in which mounted directory.
type Andrew struct {
	Scale    int    // copies of the tree
	Target   string // a directory of the file system to measure
	Compiler string // "": no compile phase
	Drop     bool   // empty the kernel's caches before each phase
}

// An AndrewResult is one measurement.
type AndrewResult struct {
	Scale   int    `json:"scale"`
	Seconds Phases `json:"seconds"`
	Files   int    `json:"files"`
	Bytes   int    `json:"bytes"`
	Drop    bool   `json:"drop"`
	CC      string `json:"cc,omitempty"`
	Target  string `json:"target"`
}

// Phases are seconds. Compile is 0 if it was left out.
type Phases struct {
	Mkdir   float64 `json:"mkdir"`
	Copy    float64 `json:"copy"`
	Stat    float64 `json:"stat"`
	Read    float64 `json:"read"`
	Compile float64 `json:"compile"`
	Total   float64 `json:"total"`
}

// Run measures in a new directory, which is gone when it returns.
func (a Andrew) Run(ctx context.Context) (r *AndrewResult, err error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(a.Target, "andrew-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	w := &work{Andrew: a, tree: newTree()}
	for i := range a.Scale {
		w.copies = append(w.copies, filepath.Join(dir, "copy"+strconv.Itoa(i)))
	}
	r = &AndrewResult{
		Scale: a.Scale, Files: a.Scale * len(w.tree.files), Bytes: a.Scale * w.tree.bytes(), Drop: a.Drop,
		CC: a.Compiler, Target: a.Target,
	}
	for _, phase := range []struct {
		name    string
		seconds *float64
		do      func(context.Context) error
	}{
		{"mkdir", &r.Seconds.Mkdir, w.mkdir},
		{"copy", &r.Seconds.Copy, w.copyFiles},
		{"stat", &r.Seconds.Stat, w.stat},
		{"read", &r.Seconds.Read, w.read},
		{"compile", &r.Seconds.Compile, w.compile},
	} {
		if *phase.seconds, err = w.time(ctx, phase.do); err != nil {
			return nil, fmt.Errorf("phase %s: %w", phase.name, err)
		}
		r.Seconds.Total += *phase.seconds
	}
	return r, nil
}

func (a *Andrew) check() error {
	if a.Target == "" {
		return errors.New("--target is missing: name a directory of the file system to measure")
	}
	if a.Scale < 1 || a.Scale > 10000 {
		return fmt.Errorf("--scale: got %d, want 1 to 10000", a.Scale)
	}
	if a.Compiler != "" {
		path, err := exec.LookPath(a.Compiler)
		if err != nil {
			return fmt.Errorf("--cc: %s is not there: apt-get install tcc, or name "+
				"another with --cc, or --no-compile", a.Compiler)
		}
		if a.Compiler, err = filepath.Abs(path); err != nil {
			return err
		}
	}
	if a.Drop && os.Geteuid() != 0 {
		return errors.New("--drop: needs root")
	}
	return nil
}

// work is the five phases.
type work struct {
	Andrew
	tree   tree
	copies []string // directories
}

// time empties caches if asked for, and times a phase.
func (w *work) time(ctx context.Context, phase func(context.Context) error) (float64, error) {
	if w.Drop {
		if err := dropCaches(); err != nil {
			return 0, err
		}
	}
	begin := time.Now()
	err := phase(ctx)
	return time.Since(begin).Seconds(), errors.Join(err, ctx.Err())
}

func (w *work) mkdir(ctx context.Context) error {
	for _, c := range w.copies {
		if ctx.Err() != nil {
			return nil // time tells
		}
		if err := os.Mkdir(c, 0o755); err != nil {
			return err
		}
		for _, d := range w.tree.dirs {
			if err := os.Mkdir(filepath.Join(c, d), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *work) copyFiles(ctx context.Context) error {
	for _, c := range w.copies {
		if ctx.Err() != nil {
			return nil
		}
		for _, f := range w.tree.files {
			if err := os.WriteFile(filepath.Join(c, f.name), []byte(f.text), 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

// stat reads the attributes of every file and adds up their sizes.
func (w *work) stat(ctx context.Context) error {
	entries, size := 0, int64(0)
	for _, c := range w.copies {
		if ctx.Err() != nil {
			return nil
		}
		err := filepath.WalkDir(c, func(_ string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return err
			}
			entries++
			if info.Mode().IsRegular() {
				size += info.Size()
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	wantEntries := len(w.copies) * (1 + len(w.tree.dirs) + len(w.tree.files))
	wantSize := int64(len(w.copies) * w.tree.bytes())
	if entries != wantEntries || size != wantSize {
		return fmt.Errorf("got %d entries and %d bytes, want %d and %d", entries, size, wantEntries, wantSize)
	}
	return nil
}

// read reads everything, and compares.
func (w *work) read(ctx context.Context) error {
	for _, c := range w.copies {
		if ctx.Err() != nil {
			return nil
		}
		for _, f := range w.tree.files {
			name := filepath.Join(c, f.name)
			got, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			if !bytes.Equal(got, []byte(f.text)) {
				return fmt.Errorf("%s: does not read back as it was written", name)
			}
		}
	}
	return nil
}

// compile makes and runs one program in each copy.
func (w *work) compile(ctx context.Context) error {
	if w.Compiler == "" {
		return nil
	}
	for _, c := range w.copies {
		link := []string{"-o", "program"}
		for _, f := range w.tree.files {
			object, ok := strings.CutSuffix(f.name, ".c")
			if !ok {
				continue
			}
			object += ".o"
			if err := command(ctx, c, w.Compiler, "-c", "-o", object, f.name); err != nil {
				return err
			}
			link = append(link, object)
		}
		if err := command(ctx, c, w.Compiler, link...); err != nil {
			return err
		}
		if err := command(ctx, c, "./program"); err != nil {
			return err
		}
	}
	return nil
}

func command(ctx context.Context, dir, program string, args ...string) error {
	c := exec.CommandContext(ctx, program, args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("in %s: %s: %w\n%s", dir, c, err, out)
	}
	return nil
}

// WriteTable shows the result to people.
func (r *AndrewResult) WriteTable(out io.Writer) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "SCALE\tMKDIR s\tCOPY s\tSTAT s\tREAD s\tCOMPILE s\tTOTAL s\tFILES\tBYTES\t")
	s := r.Seconds
	fmt.Fprintf(t, "%d\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%.3f\t%d\t%d\t\n",
		r.Scale, s.Mkdir, s.Copy, s.Stat, s.Read, s.Compile, s.Total, r.Files, r.Bytes)
	return t.Flush()
}
