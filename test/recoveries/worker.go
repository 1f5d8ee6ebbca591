// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"

	"bfs/pkg/bfs"
	"bfs/pkg/pbft"
)

// A worker writes files of its own, one call after the other, and checks that reads return the
// acknowledged bytes.
type worker struct {
	number   int
	files    *bfs.FS
	old      *oldFiles
	chance   *rand.Rand
	versions [8]uint64 // of each file, as acknowledged
	done     atomic.Uint64

	mu  sync.Mutex
	err error
}

func (w *worker) directory() string { return fmt.Sprintf("worker%d", w.number) }

func (w *worker) name(file int) string { return fmt.Sprintf("%s/file%d", w.directory(), file) }

func (w *worker) failure() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *worker) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.err = err
}

// textOf returns a version of a file: lines that name the version, of 50 to 9,050 bytes
// in all, and one line more.
func (w *worker) textOf(file int, v uint64) []byte {
	line := fmt.Appendf(nil, "worker %d file %d version %d\n", w.number, file, v)
	return bytes.Repeat(line, (50+int(v*2654435761%9000))/len(line)+1)
}

// run works until ctx ends. It ends the call that it has begun, so that each file has its
// acknowledged contents.
func (w *worker) run(ctx context.Context) {
	w.files = w.files.WithContext(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		if err := w.step(); err != nil {
			w.fail(fmt.Errorf("worker %d: %w", w.number, err))
			return
		}
		w.done.Add(1)
	}
}

func (w *worker) step() error {
	file := w.chance.IntN(len(w.versions))
	switch w.chance.IntN(4) {
	case 0, 1:
		return w.write(file)
	case 2:
		return w.old.readOne(w.files, w.chance.IntN(len(w.old.texts)))
	default:
		return w.read(file)
	}
}

func (w *worker) write(file int) error {
	v := w.versions[file] + 1
	if err := w.files.WriteFile(w.name(file), w.textOf(file, v), 0o644); err != nil {
		return err
	}
	w.versions[file] = v
	return nil
}

func (w *worker) read(file int) error {
	if w.versions[file] == 0 {
		return nil
	}
	got, err := w.files.ReadFile(w.name(file))
	return judge(w.name(file), got, w.textOf(file, w.versions[file]), err)
}

// judge compares the bytes read with the acknowledged ones.
func judge(name string, got, want []byte, err error) error {
	if err != nil || bytes.Equal(got, want) {
		return err
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	return fmt.Errorf("%s: read %d bytes, want %d; they differ from byte %d on: %.60q, want %.60q",
		name, len(got), len(want), at, got[at:], want[at:])
}

// oldFiles are files of a mebibyte each, written before the first round. Each page begins
// with a line that names the page, by which the intruder finds it.
type oldFiles struct {
	mu    sync.RWMutex
	texts [][]byte
}

func oldName(i int) string { return fmt.Sprintf("old%d", i) }

// mark returns the beginning of each page of an old file.
func mark(i int) string { return fmt.Sprintf("old file %03d, page ", i) }

func writeOldFiles(files *bfs.FS, n int, seed uint64) (*oldFiles, error) {
	old := &oldFiles{}
	chance := rand.New(rand.NewPCG(seed, 1<<32))
	for i := range n {
		text := make([]byte, 1<<20)
		for at := 0; at < len(text); at += 8 {
			v := chance.Uint64()
			for b := range 8 {
				text[at+b] = byte(v >> (8 * b))
			}
		}
		for p := 0; p < len(text); p += pbft.PageSize {
			copy(text[p:], fmt.Sprintf("%s%d\n", mark(i), p/pbft.PageSize))
		}
		if err := files.WriteFile(oldName(i), text, 0o644); err != nil {
			return nil, err
		}
		old.texts = append(old.texts, text)
	}
	return old, nil
}

func (o *oldFiles) read(files *bfs.FS) error {
	for i := range o.texts {
		if err := o.readOne(files, i); err != nil {
			return err
		}
	}
	return nil
}

func (o *oldFiles) readOne(files *bfs.FS, i int) error {
	o.mu.RLock()
	defer o.mu.RUnlock()
	got, err := files.ReadFile(oldName(i))
	return judge(oldName(i), got, o.texts[i], err)
}

// touch changes some bytes in the middle of each page of a file, so that a replica's
// digest of the page covers the rest as the replica holds it.
func (o *oldFiles) touch(files *bfs.FS, i int, value byte) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	f, err := files.OpenFile(oldName(i), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for p := pbft.PageSize / 2; p < len(o.texts[i]); p += 16 * pbft.PageSize {
		if _, err := f.WriteAt([]byte{value}, int64(p)); err != nil {
			return err
		}
		o.texts[i][p] = value
	}
	return nil
}
