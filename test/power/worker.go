// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Bounds of what one worker keeps in its directory.
const (
	namesAtMost = 10
	littleBytes = 8 << 10 // of most files at most
	manyBytes   = 64 << 10
	longest     = 128 << 10 // a file that is longer is not appended to
	records     = 512       // of the ledger
	recordSize  = 64
	ledgerName  = "ledger"
)

// A tally counts what was found wrong.
type tally struct {
	Lost    int // an acknowledged operation is not there
	Doubled int // an operation was done twice, for its answer says that it had been done
	Forged  int // a file or bytes that no worker wrote
	Stale   int // a handle is not known any more
}

func (t tally) String() string {
	return fmt.Sprintf("%d lost, %d doubled, %d forged, %d stale handles", t.Lost, t.Doubled, t.Forged, t.Stale)
}

func (t *tally) add(o tally) {
	t.Lost += o.Lost
	t.Doubled += o.Doubled
	t.Forged += o.Forged
	t.Stale += o.Stale
}

// A worker makes one operation after the other in a directory of its own. Its log is the
// contents that the acknowledged operations give this directory: names, contents and book.
type worker struct {
	dir    string
	files  files
	chance *rand.Rand
	bulk   bool // writes its whole ledger again and again, so that the image on a replica's disk follows the journal
	ledger file // open since the first round: its handle must stay good
	serial int
	acked  *atomic.Int64
	cuts   func() int64 // how often the power was cut

	still sync.Locker         // held during an operation: the checker keeps it from the worker
	names map[string]*content // links have a content in common
	ever  map[string]bool     // names that were in use at any time
	book  []byte              // the ledger's bytes
	last  []string            // the last operations, for a failure's report
	wrong tally
}

// A content is a file's bytes.
type content struct{ bytes []byte }

func newWorker(files files, dir string, number int, seed uint64, acked *atomic.Int64,
	cuts func() int64) (*worker, error) {
	w := &worker{
		dir: fmt.Sprintf("%s%d", dir, number), files: files, chance: rand.New(rand.NewPCG(seed, uint64(number+1))),
		acked: acked, cuts: cuts, names: make(map[string]*content), ever: make(map[string]bool),
	}
	err := files.Mkdir(w.dir, 0o755)
	if err == nil {
		w.ledger, err = files.OpenFile(w.path(ledgerName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	}
	return w, err
}

func (w *worker) path(name string) string { return w.dir + "/" + name }

// run works until ctx is done or an operation fails.
func (w *worker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		w.still.Lock()
		err := w.step()
		w.still.Unlock()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w; before it:\n  %s", w.dir, err, strings.Join(w.last, "\n  "))
		}
	}
	return nil
}

// step chooses an operation and makes it. Every operation but a write would be refused if
// it were done twice.
func (w *worker) step() error {
	w.serial++
	pick := w.chance.IntN(14)
	room := len(w.names) < namesAtMost
	switch {
	case w.bulk:
		return w.record(0, records)
	case len(w.names) < 2 || pick < 3 && room:
		return w.create()
	case pick < 5 && room:
		return w.link()
	case pick < 7:
		return w.record(w.chance.IntN(records), 1+w.size()/recordSize)
	case pick < 9:
		return w.append()
	case pick < 11:
		return w.rename()
	}
	return w.remove()
}

// do makes an operation, and calls log when the operation was acknowledged.
func (w *worker) do(what string, operation func() error, log func()) error {
	cuts := w.cuts()
	err := operation()
	if err != nil {
		w.judge(err, cuts != w.cuts())
		return fmt.Errorf("%s: %w (%v)", what, err, w.wrong)
	}
	log()
	w.acked.Add(1)
	if w.last = append(w.last, fmt.Sprintf("cut %d: %s", w.cuts(), what)); len(w.last) > 20 {
		w.last = w.last[1:]
	}
	return nil
}

// judge counts a failed operation as what it shows. If the power was cut during the
// operation, a refusal because a file exists, or does not, shows that the operation was
// done twice. Otherwise the refusal shows that an earlier operation is lost.
func (w *worker) judge(err error, cut bool) {
	switch {
	case errors.Is(err, syscall.ESTALE):
		w.wrong.Stale++
	case (errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist)) && cut:
		w.wrong.Doubled++
	case errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist):
		w.wrong.Lost++
	}
}

func (w *worker) create() error {
	name := fmt.Sprintf("f%d", w.serial)
	var f file
	err := w.do("create "+name, func() (err error) {
		f, err = w.files.OpenFile(w.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		return err
	}, func() { w.names[name], w.ever[name] = new(content), true })
	if err != nil {
		return err
	}
	return w.write(f, "write "+name, w.names[name])
}

// append chooses a file and writes at its end.
func (w *worker) append() error {
	name := w.any("")
	if len(w.names[name].bytes) > longest {
		return w.remove()
	}
	f, err := w.files.OpenFile(w.path(name), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		w.judge(err, false)
		return err
	}
	return w.write(f, "append to "+name, w.names[name])
}

// write writes at the end of a file, syncs it every other time, and closes it.
func (w *worker) write(f file, what string, c *content) error {
	data := w.content(w.size())
	err := w.do(fmt.Sprintf("%s: %d bytes", what, len(data)), func() error {
		_, err := f.Write(data)
		if err == nil && w.chance.IntN(2) == 0 {
			err = f.Sync()
		}
		return err
	}, func() { c.bytes = append(c.bytes, data...) })
	return errors.Join(err, f.Close())
}

// size draws a number of bytes: mostly that of a little file.
func (w *worker) size() int {
	if w.chance.IntN(8) == 0 {
		return 1 + w.chance.IntN(manyBytes)
	}
	return 1 + w.chance.IntN(littleBytes)
}

// content returns bytes that name their worker and operation.
func (w *worker) content(size int) []byte {
	line := fmt.Appendf(nil, "%s wrote this in operation %d\n", w.dir, w.serial)
	return bytes.Repeat(line, size/len(line)+1)[:size]
}

// record writes some of the ledger's records through the handle that was opened before
// the first power cut, and syncs them.
func (w *worker) record(first, count int) error {
	data := bytes.Repeat(fmt.Appendf(nil, "%-*d\n", recordSize-1, w.serial), min(count, records-first))
	at := first * recordSize
	return w.do(fmt.Sprintf("record %d at %d, %d bytes", w.serial, at, len(data)), func() error {
		_, err := w.ledger.WriteAt(data, int64(at))
		if err == nil {
			err = w.ledger.Sync()
		}
		return err
	}, func() {
		if grow := at + len(data) - len(w.book); grow > 0 {
			w.book = append(w.book, make([]byte, grow)...)
		}
		copy(w.book[at:], data)
	})
}

// link gives a file one more name.
func (w *worker) link() error {
	from, to := w.any(""), fmt.Sprintf("l%d", w.serial)
	return w.do("link "+from+" "+to, func() error { return w.files.Link(w.path(from), w.path(to)) }, func() {
		w.names[to], w.ever[to] = w.names[from], true
	})
}

// rename gives a file a new name, or every fourth time the name of another file, which it
// replaces.
func (w *worker) rename() error {
	from, to := w.any(""), fmt.Sprintf("r%d", w.serial)
	if w.chance.IntN(4) == 0 {
		to = w.any(from)
	}
	return w.do("rename "+from+" "+to, func() error { return w.files.Rename(w.path(from), w.path(to)) }, func() {
		if w.names[to] == w.names[from] {
			return // two names of one file: nothing is done [RFC1813 §3.3.14]
		}
		w.names[to], w.ever[to] = w.names[from], true
		delete(w.names, from)
	})
}

func (w *worker) remove() error {
	name := w.any("")
	remove := func() error { return w.files.Remove(w.path(name)) }
	return w.do("remove "+name, remove, func() { delete(w.names, name) })
}

// any chooses one of the names in the directory, other than the one given.
func (w *worker) any(not string) string {
	names := slices.Sorted(maps.Keys(w.names))
	names = slices.DeleteFunc(names, func(name string) bool { return name == not })
	return names[w.chance.IntN(len(names))]
}

// check compares the directory with the log. It requires that the worker is between two
// operations, so that all its operations were acknowledged.
func (w *worker) check() (wrong []error, sum tally) {
	if err := w.files.Forget(); err != nil {
		return []error{err}, w.wrong
	}
	if wrong = w.differences(); len(wrong) > 0 {
		wrong = append(wrong, fmt.Errorf("%s did before:\n  %s", w.dir, strings.Join(w.last, "\n  ")))
	}
	return wrong, w.wrong
}

func (w *worker) differences() (wrong []error) {
	entries, err := w.files.ReadDir(w.dir)
	if err != nil {
		w.judge(err, false)
		return []error{err}
	}
	there := make(map[string]bool)
	for _, e := range entries {
		there[e.Name()] = true
		if _, known := w.names[e.Name()]; !known && e.Name() != ledgerName {
			wrong = append(wrong, w.surplus(e.Name()))
		}
	}
	for name, c := range w.names {
		if !there[name] {
			w.wrong.Lost++
			wrong = append(wrong, fmt.Errorf("%s is lost", w.path(name)))
		} else if err := w.compare(name, c.bytes); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := w.compare(ledgerName, w.book); err != nil {
		wrong = append(wrong, err)
	}
	return wrong
}

// surplus counts a name that should not be there, and describes it.
func (w *worker) surplus(name string) error {
	if w.ever[name] {
		w.wrong.Lost++
		return fmt.Errorf("%s is back: its removal or renaming is lost", w.path(name))
	}
	w.wrong.Forged++
	return fmt.Errorf("%s was never made", w.path(name))
}

func (w *worker) compare(name string, want []byte) error {
	got, err := w.files.ReadFile(w.path(name))
	switch {
	case err != nil:
		w.judge(err, false)
		return err
	case bytes.Equal(got, want):
		return nil
	case len(got) > len(want) && bytes.Equal(got[:len(want)], want) && name != ledgerName:
		w.wrong.Doubled++ // or written by no worker
	case len(got) < len(want) || name == ledgerName:
		w.wrong.Lost++
	default:
		w.wrong.Forged++
	}
	return fmt.Errorf("%s: %d bytes, want %d; they differ from byte %d on",
		w.path(name), len(got), len(want), common(got, want))
}

// common returns the length of the common prefix.
func common(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
