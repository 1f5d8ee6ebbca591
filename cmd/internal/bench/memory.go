// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"bfs/cmd/internal/procs"
	"bfs/pkg/bfs"
	"bfs/pkg/pbft"
)

// Memory measures the resident memory of one replica process against the bytes it stores:
// a group of one, with checkpoints and log as in any group, filled over the wire and
// measured after a stable checkpoint.
type Memory struct {
	Program string // bfsd
	Files   int    // empty files to make in a first replica; 0: no such run
	Bytes   int64  // bytes of file data to write to a second one; 0: no such run
	Size    int64  // of the state; 0: enough

	Durability pbft.Durability // "": disk
}

// Weight is the result of one run.
type Weight struct {
	Stored   string  `json:"stored"`
	Units    float64 `json:"units"` // files, or bytes
	Resident float64 `json:"resident_bytes"`
	Empty    float64 `json:"empty_bytes"` // of the same process before
	PerUnit  float64 `json:"bytes_each"`  // Resident over Units
	Seconds  float64 `json:"seconds"`     // to store it
}

// Run measures. Processes and files are gone when it returns.
func (m Memory) Run(ctx context.Context) (all []Weight, err error) {
	if m.Files > 0 {
		w, err := m.weigh(ctx, fmt.Sprintf("%d empty files", m.Files), float64(m.Files), func(fsys *bfs.FS) error {
			return makeEmpty(fsys, m.Files)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	if m.Bytes > 0 {
		stored := fmt.Sprintf("%d MiB of file data", m.Bytes>>20)
		w, err := m.weigh(ctx, stored, float64(m.Bytes), func(fsys *bfs.FS) error {
			return writeLarge(fsys, m.Bytes)
		})
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

func (m Memory) weigh(ctx context.Context, what string, units float64, fill func(*bfs.FS) error) (w Weight, err error) {
	dir, err := os.MkdirTemp("", "bfs-memory-")
	if err != nil {
		return w, err
	}
	defer os.RemoveAll(dir)
	r, err := startFileGroup(ctx, fileGroupConfig{Program: m.Program, Dir: dir, N: 1,
		Size: max(m.Size, 2*m.Bytes, int64(m.Files)*2*pbft.PageSize), Durability: m.Durability})
	if err != nil {
		return w, err
	}
	defer r.stop()
	w = Weight{Stored: what, Units: units}
	pid := r.replicas[0].PID()
	if w.Empty, err = resident(pid); err != nil {
		return w, err
	}
	begin := time.Now()
	if err := fill(r.files); err != nil {
		return w, err
	}
	w.Seconds = time.Since(begin).Seconds()
	if err := r.settle(ctx); err != nil {
		return w, err
	}
	w.Resident, err = resident(pid)
	w.PerUnit = w.Resident / units
	return w, err
}

// settle goes on with small changes until a checkpoint taken after now is stable.
func (r *fileGroup) settle(ctx context.Context) error {
	_, begin, err := r.client.Stable(ctx)
	for err == nil {
		var reached pbft.SeqNum
		if err = r.files.Chmod(".", 0o755); err != nil {
			break
		}
		if _, reached, err = r.client.Stable(ctx); reached >= begin+2*r.group.Limits.CheckpointPeriod {
			break
		}
	}
	return err
}

// resident is a process's resident set in bytes.
func resident(pid int) (float64, error) {
	n, err := procs.Resident(pid)
	return float64(n), err
}

// makeEmpty creates empty files in directories of ten thousand.
func makeEmpty(fsys *bfs.FS, n int) error {
	const each = 10_000
	for d := range (n + each - 1) / each {
		if err := fsys.Mkdir(fmt.Sprintf("d%d", d), 0o755); err != nil {
			return err
		}
	}
	return parallel(128, n, func(i int) error {
		f, err := fsys.OpenFile(fmt.Sprintf("d%d/file-%d", i/each, i), os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o644)
		if err != nil {
			return err
		}
		return f.Close()
	})
}

// writeLarge writes n bytes to files of 64 MiB.
func writeLarge(fsys *bfs.FS, n int64) error {
	const each = 64 << 20
	data := make([]byte, min(n, each))
	for i := range data {
		data[i] = byte(i>>12) | 1
	}
	for i := 0; n > 0; i++ {
		if err := fsys.WriteFile(fmt.Sprintf("data-%d", i), data[:min(n, each)], 0o644); err != nil {
			return err
		}
		n -= each
	}
	return nil
}

// WriteWeights prints a table.
func WriteWeights(out io.Writer, all []Weight) error {
	_, err := fmt.Fprintf(out, "%-24s %14s %12s %14s %10s\n",
		"STORED", "RESIDENT MiB", "EMPTY MiB", "BYTES EACH", "SECONDS")
	for _, w := range all {
		if err == nil {
			_, err = fmt.Fprintf(out, "%-24s %14.1f %12.1f %14.4f %10.1f\n",
				w.Stored, w.Resident/(1<<20), w.Empty/(1<<20), w.PerUnit, w.Seconds)
		}
	}
	return err
}
