// SPDX-License-Identifier: Apache-2.0

package power

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

	"bfs/pkg/bfs"
)

// Bounds of what one worker keeps in its directory.
const (
	filesAtMost = 24
	littleBytes = 16 << 10 // of most files at most
	manyBytes   = 256 << 10
	records     = 4096 // of the ledger
	recordSize  = 64
	ledgerName  = "ledger"
)

// A tally counts the mistakes that were found.
type tally struct {
	lost    int // an acknowledged operation is not there
	doubled int // an operation was done twice, for its answer says that it had been done
	forged  int // contents that no worker wrote
	stale   int // a handle is not known any more
}

func (t tally) String() string {
	return fmt.Sprintf("%d lost, %d doubled, %d forged, %d stale handles", t.lost, t.doubled, t.forged, t.stale)
}

func (t *tally) add(o tally) {
	t.lost += o.lost
	t.doubled += o.doubled
	t.forged += o.forged
	t.stale += o.stale
}

// A worker makes one operation after the other in a directory of its own, and logs those that were
// acknowledged. The log is the directory that they make.
type worker struct {
	dir    string
	fsys   *bfs.FS
	chance *rand.Rand
	bulk   bool      // writes its whole ledger again and again, and nothing else
	ledger *bfs.File // open since the first round: its handle must stay good
	serial int
	acked  *atomic.Int64

	busy  sync.Mutex // held during an operation: the checker takes it to pause the worker
	files map[string][]byte
	ever  map[string]bool // names that were in use at any time
	book  []byte          // the ledger's bytes
	last  []string        // the last operations, for a failure's report
	cuts  func() int64    // how often the power was cut
	wrong tally
}

func newWorker(fsys *bfs.FS, number int, seed uint64, acked *atomic.Int64, cuts func() int64) (*worker, error) {
	w := &worker{
		dir: fmt.Sprintf("worker%d", number), fsys: fsys, chance: rand.New(rand.NewPCG(seed, uint64(number))),
		acked: acked, cuts: cuts, files: make(map[string][]byte), ever: make(map[string]bool),
	}
	err := fsys.Mkdir(w.dir, 0o755)
	if err == nil {
		w.ledger, err = fsys.OpenFile(w.path(ledgerName), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	}
	return w, err
}

func (w *worker) path(name string) string { return w.dir + "/" + name }

// run works until ctx is done or an operation fails.
func (w *worker) run(ctx context.Context) error {
	for ctx.Err() == nil {
		w.busy.Lock()
		err := w.step()
		w.busy.Unlock()
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("%s: %w; before it:\n  %s", w.dir, err, strings.Join(w.last, "\n  "))
		}
	}
	return nil
}

// step chooses an operation. Each of them, done twice, would be refused the second time, but for the ledger's
// writes.
func (w *worker) step() error {
	w.serial++
	pick := w.chance.IntN(10)
	switch {
	case w.bulk:
		return w.record(0, records)
	case len(w.files) < 2 || pick < 3 && len(w.files) < filesAtMost:
		return w.create()
	case pick < 6:
		return w.record(w.chance.IntN(records), 1+w.size()/recordSize)
	case pick < 8:
		return w.rename()
	}
	return w.remove()
}

// do makes an operation that can be doubled, and when it was acknowledged has log change the log.
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

// judge says what a failed operation means. A file that is there, or is not, after the operation had been
// under way at a power cut shows that it was done twice; otherwise an earlier one is lost.
func (w *worker) judge(err error, cut bool) {
	switch {
	case errors.Is(err, syscall.ESTALE):
		w.wrong.stale++
	case (errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist)) && cut:
		w.wrong.doubled++
	case errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist):
		w.wrong.lost++
	}
}

func (w *worker) create() error {
	name := fmt.Sprintf("f%d", w.serial)
	var file *bfs.File
	err := w.do("create "+name, func() (err error) {
		file, err = w.fsys.OpenFile(w.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		return err
	}, func() { w.files[name], w.ever[name] = nil, true })
	if err != nil {
		return err
	}
	defer file.Close()
	data := w.content(w.size())
	return w.do("write "+name, func() error {
		_, err := file.Write(data)
		return err
	}, func() { w.files[name] = data })
}

// size draws a file's size, mostly a small one.
func (w *worker) size() int {
	if w.chance.IntN(4) == 0 {
		return 1 + w.chance.IntN(manyBytes)
	}
	return 1 + w.chance.IntN(littleBytes)
}

// content is bytes that tell the operation they are from.
func (w *worker) content(size int) []byte {
	line := fmt.Appendf(nil, "%s wrote this in operation %d\n", w.dir, w.serial)
	return bytes.Repeat(line, size/len(line)+1)[:size]
}

// record writes some of the ledger's records through the handle that was opened before the first power cut.
func (w *worker) record(first, count int) error {
	data := bytes.Repeat(fmt.Appendf(nil, "%-*d\n", recordSize-1, w.serial), min(count, records-first))
	at := first * recordSize
	return w.do(fmt.Sprintf("record %d at %d, %d bytes", w.serial, at, len(data)), func() error {
		_, err := w.ledger.WriteAt(data, int64(at))
		return err
	}, func() {
		if grow := at + len(data) - len(w.book); grow > 0 {
			w.book = append(w.book, make([]byte, grow)...)
		}
		copy(w.book[at:], data)
	})
}

// rename gives a file a new name, or every fourth time the name of another file, which it replaces.
func (w *worker) rename() error {
	from, to := w.any(""), fmt.Sprintf("r%d", w.serial)
	if w.chance.IntN(4) == 0 {
		to = w.any(from)
	}
	return w.do("rename "+from+" "+to, func() error { return w.fsys.Rename(w.path(from), w.path(to)) }, func() {
		w.files[to], w.ever[to] = w.files[from], true
		delete(w.files, from)
	})
}

func (w *worker) remove() error {
	name := w.any("")
	remove := func() error { return w.fsys.Remove(w.path(name)) }
	return w.do("remove "+name, remove, func() { delete(w.files, name) })
}

// any is a file that is there and is not the one named.
func (w *worker) any(not string) string {
	names := slices.Sorted(maps.Keys(w.files))
	names = slices.DeleteFunc(names, func(name string) bool { return name == not })
	return names[w.chance.IntN(len(names))]
}

// check compares the directory with the log. The worker is between two operations, so all that it asked for
// was acknowledged.
func (w *worker) check() (wrong []error, sum tally) {
	w.busy.Lock()
	defer w.busy.Unlock()
	if wrong = w.differences(); len(wrong) > 0 {
		wrong = append(wrong, fmt.Errorf("%s did before:\n  %s", w.dir, strings.Join(w.last, "\n  ")))
	}
	return wrong, w.wrong
}

func (w *worker) differences() (wrong []error) {
	entries, err := w.fsys.ReadDir(w.dir)
	if err != nil {
		w.judge(err, false)
		return []error{err}
	}
	there := make(map[string]bool)
	for _, e := range entries {
		there[e.Name()] = true
		if _, known := w.files[e.Name()]; !known && e.Name() != ledgerName {
			wrong = append(wrong, w.surplus(e.Name()))
		}
	}
	for name, data := range w.files {
		if !there[name] {
			w.wrong.lost++
			wrong = append(wrong, fmt.Errorf("%s is lost", w.path(name)))
		} else if err := w.compare(name, data); err != nil {
			wrong = append(wrong, err)
		}
	}
	if err := w.compare(ledgerName, w.book); err != nil {
		wrong = append(wrong, err)
	}
	return wrong
}

// surplus is a name that should not be there.
func (w *worker) surplus(name string) error {
	if w.ever[name] {
		w.wrong.lost++
		return fmt.Errorf("%s is back: its removal or renaming is lost", w.path(name))
	}
	w.wrong.forged++
	return fmt.Errorf("%s was never made", w.path(name))
}

func (w *worker) compare(name string, want []byte) error {
	got, err := w.fsys.ReadFile(w.path(name))
	switch {
	case err != nil:
		w.judge(err, false)
		return err
	case bytes.Equal(got, want):
		return nil
	case len(got) < len(want) || name == ledgerName:
		w.wrong.lost++
	default:
		w.wrong.forged++
	}
	return fmt.Errorf("%s: %d bytes, want %d; they differ from byte %d on",
		w.path(name), len(got), len(want), common(got, want))
}

// common counts the first bytes that are equal.
func common(a, b []byte) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
