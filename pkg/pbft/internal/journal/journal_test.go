// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
)

var (
	ours   = message.Digest{1}
	small  = Options{SegmentBytes: 8 * blockSize, Spare: 2}
	errTry = errors.New("stop here")
)

// A twin is the obvious journal: everything that was ever appended.
type twin struct {
	t       *testing.T
	chance  *rand.Rand
	disk    *disk.Mem
	journal *Journal
	all     []record
	acked   Position // durable, as Flush said
	passed  message.SeqNum
	full    bool // the disk has little room
	rare    int  // one restart of so many takes place
	shrunk  int  // times that Reserve has removed files
}

type record struct {
	seq     message.SeqNum
	slot    Slot
	content []byte
}

func newTwin(t *testing.T, seed uint64) *twin {
	chance := rand.New(rand.NewPCG(seed, 3))
	w := &twin{t: t, chance: chance, disk: disk.NewMem(chance), rare: 8 << (seed % 4)}
	w.open()
	return w
}

// content names its position, so that a record in the wrong place is seen.
func content(at, length int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(at))
	sum := sha256.Sum256(b)
	for len(b) < length {
		b = append(b, sum[:]...)
	}
	return b[:length]
}

func (w *twin) append() {
	n := len(w.all)
	r := record{seq: w.passed + message.SeqNum(w.chance.IntN(20)), content: content(n, 8+w.chance.IntN(3000))}
	if w.chance.IntN(5) == 0 {
		r.slot = Slot(1 + w.chance.IntN(3))
	}
	w.all = append(w.all, r)
	if at := w.journal.Append(r.seq, r.slot, r.content[:5], r.content[5:]); at != Position(n) {
		w.t.Fatalf("record %d got position %d", n, at)
	}
}

func (w *twin) flush() error {
	durable, err := w.journal.Flush()
	if err == nil && durable != Position(len(w.all)) {
		w.t.Fatalf("after a flush %d records are durable, want %d", durable, len(w.all))
	}
	w.acked = max(w.acked, durable)
	return err
}

// open reads the journal again, and checks what it finds against everything that was appended.
func (w *twin) open() {
	w.t.Helper()
	var got []record
	j, err := Open(w.disk, ours, small, func(seq message.SeqNum, b []byte) error {
		got = append(got, record{seq: seq, content: slices.Clone(b)})
		return nil
	})
	if err != nil {
		w.t.Fatalf("open: %v", err)
	}
	w.check(got, int(j.Next()))
	w.journal, w.all, w.acked = j, w.all[:j.Next()], j.Next()
}

func (w *twin) check(got []record, end int) {
	w.t.Helper()
	if end < int(w.acked) || end > len(w.all) {
		w.t.Fatalf("it ends at %d; %d were durable and %d appended", end, w.acked, len(w.all))
	}
	first := end
	for i := len(got) - 1; i >= 0 && first > 0 && w.same(got[i], first-1); i-- {
		first--
	}
	for n, r := range w.all[:first] {
		if r.seq > w.passed {
			w.t.Fatalf("record %d, about batch %d, is gone, but only %d is released", n, r.seq, w.passed)
		}
	}
	for slot := Slot(1); slot < Slots; slot++ {
		last := -1
		for n, r := range w.all[:end] {
			if r.slot == slot {
				last = n
			}
		}
		if last >= 0 && !slices.ContainsFunc(got, func(r record) bool { return w.same(r, last) }) {
			w.t.Fatalf("record %d, the latest of slot %d, is gone", last, slot)
		}
	}
}

func (w *twin) same(r record, n int) bool {
	return string(r.content) == string(w.all[n].content) && r.seq == w.all[n].seq
}

func (w *twin) step() {
	switch w.chance.IntN(13) {
	case 12:
		w.fill()
	case 0:
		w.passed += message.SeqNum(w.chance.IntN(10))
		w.journal.Release(w.passed)
		if err := w.reserve(); err != nil && !(w.full && errors.Is(err, ErrFull)) {
			w.t.Fatal(err)
		}
	case 1, 2, 3:
		if err := w.flush(); err != nil && !(w.full && errors.Is(err, ErrFull)) {
			w.t.Fatal(err)
		}
	case 4:
		if w.chance.IntN(w.rare) > 0 {
			return
		}
		switch w.chance.IntN(4) {
		case 0, 1: // in the middle of a flush
			w.disk.CutAfter(w.chance.IntN(6))
			_ = w.flush()
		case 2: // or while files are made or removed
			w.disk.CutAfter(w.chance.IntN(3))
			_ = w.reserve()
		}
		w.disk.Crash()
		w.open()
	case 5:
		if w.chance.IntN(w.rare) == 0 {
			if w.chance.IntN(2) == 0 { // because a sync failed
				w.disk.FailSync(1)
				_ = w.flush()
				w.disk.FailSync(0)
			}
			if err := w.journal.Close(); err != nil {
				w.t.Fatal(err)
			}
			w.open() // the program ended, the machine did not
		}
	default:
		w.append()
	}
}

func (w *twin) reserve() error {
	before, _ := w.journal.Bytes()
	err := w.journal.Reserve()
	if after, _ := w.journal.Bytes(); after < before {
		w.shrunk++
	}
	return err
}

// fill fills the disk, or empties it again.
func (w *twin) fill() {
	switch w.chance.IntN(6) {
	case 0:
		w.full = true
		w.disk.Fill(w.chance.Int64N(int64(2 * small.SegmentBytes)))
	case 1, 2:
		w.full = false
		w.disk.Limit(-1)
		if err := w.reserve(); err != nil {
			w.t.Fatal(err)
		}
		if err := w.flush(); err != nil {
			w.t.Fatalf("there is room again: %v", err)
		}
	}
}

// Whatever becomes of the power, the journal holds all that was durable, in order, and
// perhaps more.
func TestPowerCuts(t *testing.T) {
	shrunk := 0
	for seed := range uint64(150) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			w := newTwin(t, seed)
			for range 50 * w.rare {
				w.step()
			}
			if n := len(w.journal.segments) + len(w.journal.released) + len(w.journal.free); n > 120 {
				t.Fatalf("%d segments", n)
			}
			shrunk += w.shrunk
		})
	}
	if t.Logf("files were removed %d times", shrunk); shrunk == 0 {
		t.Error("no file was ever removed")
	}
}

// written is a journal of some flushed records on a new disk.
func written(t *testing.T, flushes int) *twin {
	w := newTwin(t, 1)
	for range flushes {
		for range 3 {
			w.append()
		}
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// A byte that changes in a block is found, if a later block says that the first was durable; and no
// wrong record is ever replayed.
func TestChangedBytes(t *testing.T) {
	w := written(t, 12)
	found, tail := 0, 0
	whole := w.disk.Snapshot()
	names, _ := w.disk.List()
	for _, name := range names {
		for at := int64(0); at < int64(small.SegmentBytes); at += 61 {
			w.disk.Restore(whole)
			if err := w.disk.Flip(name, at, 1); err != nil {
				t.Fatal(err)
			}
			n := 0
			j, err := Open(w.disk, ours, small, func(seq message.SeqNum, b []byte) error {
				if n < len(w.all) && w.same(record{seq: seq, content: b}, n) {
					n++
				} else if !slices.ContainsFunc(w.all, func(r record) bool { return string(r.content) == string(b) }) {
					t.Fatalf("byte %d of %s changed: a record that nobody appended", at, name)
				}
				return nil
			})
			switch {
			case errors.Is(err, ErrCorrupt):
				found++
			case err != nil:
				t.Fatal(err)
			case int(j.Next()) < len(w.all):
				if tail++; len(w.all)-int(j.Next()) > 3 {
					t.Fatalf("byte %d of %s changed: %d of %d records, and no word of it",
						at, name, j.Next(), len(w.all))
				}
			case n != len(w.all):
				t.Fatalf("byte %d of %s changed: it has %d records and takes itself for whole, with %d",
					at, name, n, len(w.all))
			}
		}
	}
	if found == 0 || tail == 0 {
		t.Fatalf("found %d, taken for a torn tail %d", found, tail)
	}
}

// A segment that is missing is found.
func TestMissingSegment(t *testing.T) {
	w := written(t, 12)
	if len(w.journal.segments) < 3 {
		t.Fatalf("%d segments", len(w.journal.segments))
	}
	whole := w.disk.Snapshot()
	for _, s := range w.journal.segments[:len(w.journal.segments)-1] {
		w.disk.Restore(whole)
		if err := w.disk.Remove(s.name); err != nil {
			t.Fatal(err)
		}
		_, err := Open(w.disk, ours, small, func(message.SeqNum, []byte) error { return nil })
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("without %s: %v", s.name, err)
		}
	}
}

// An old copy of the disk is a journal that ends sooner: its length, remembered
// elsewhere, shows that.
func TestYesterday(t *testing.T) {
	w := written(t, 3)
	yesterday, end := w.disk.Snapshot(), w.journal.Next()
	for range 9 {
		w.append()
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
	}
	w.disk.Restore(yesterday)
	j, err := Open(w.disk, ours, small, func(message.SeqNum, []byte) error { return nil })
	if err != nil || j.Next() != end {
		t.Fatalf("%v, %v", err, j)
	}
}

// After a sync that failed nothing is flushed any more.
func TestFailedSyncIsFinal(t *testing.T) {
	w := written(t, 2)
	durable := w.acked
	w.append()
	w.disk.FailSync(1)
	for range 2 {
		if got, err := w.journal.Flush(); err == nil || got != durable {
			t.Fatalf("durable up to %d, error %v", got, err)
		}
		w.append()
	}
}

// The next process finds the records that a failed sync has left in the kernel's memory,
// and its first flush makes them durable.
func TestRestartAfterFailedSync(t *testing.T) {
	for seed := range uint64(60) {
		w := newTwin(t, seed)
		w.append()
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		w.append()
		w.disk.FailSync(1)
		if w.flush() == nil {
			t.Fatal("the sync did not fail")
		}
		w.open()
		w.append()
		if err := w.flush(); err != nil {
			t.Fatal(err)
		}
		w.disk.Crash()
		w.open()
	}
}

// A failed sync may leave a segment's header, too, with the kernel only. On the disk its file has
// that of its earlier use, which says that nothing in it counts.
func TestRestartAfterFailedTurn(t *testing.T) {
	for seed := range uint64(60) {
		w := newTwin(t, seed)
		for seq := message.SeqNum(1); seq <= 3; seq++ { // each in a segment of its own
			w.say(seq, 0, small.SegmentBytes-3*blockSize)
			w.passed = seq - 1
			w.journal.Release(w.passed)
			w.mustFlush()
		}
		w.say(4, 0, 3*blockSize) // in the file of the first
		w.disk.FailSync(1)
		if w.flush() == nil {
			t.Fatal("the sync did not fail")
		}
		w.open()
		w.say(4, 0, 100)
		w.mustFlush()
		w.disk.Crash()
		w.open()
	}
}

// On a full disk the journal goes on in its reserve. After that, records wait in order
// until there is room.
func TestFullDisk(t *testing.T) {
	w := written(t, 2)
	if err := w.journal.Reserve(); err != nil {
		t.Fatal(err)
	}
	segments := len(w.journal.segments)
	w.disk.Fill(0)
	err := error(nil)
	for n := 0; err == nil && n < 100; n++ {
		w.append()
		err = w.flush()
	}
	if !errors.Is(err, ErrFull) || !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk is full, and the journal says %v", err)
	}
	if got, want := len(w.journal.segments), segments+small.Spare-1; got != want {
		t.Fatalf("it has used %d segments, want %d", got, want)
	}
	w.append()
	w.disk.Limit(-1)
	if err := w.flush(); err != nil || w.acked != Position(len(w.all)) {
		t.Fatalf("there is room again, and %d of %d records are durable: %v", w.acked, len(w.all), err)
	}
	w.disk.Crash()
	w.open()
}

// A journal that has used all its room goes on when the image has followed, though the
// disk stays full.
func TestFullDiskIsReleased(t *testing.T) {
	w := written(t, 2)
	if err := w.journal.Reserve(); err != nil {
		t.Fatal(err)
	}
	w.disk.Fill(0)
	for range 500 {
		if w.append(); w.flush() != nil {
			w.passed += 20 // all that was appended is about these batches
			w.journal.Release(w.passed)
		}
	}
	if err := w.flush(); err != nil {
		t.Fatalf("segments are free, and the journal says %v", err)
	}
}

func TestForeign(t *testing.T) {
	w := written(t, 1)
	none := func(message.SeqNum, []byte) error { return errTry }
	if _, err := Open(w.disk, message.Digest{2}, small, none); !errors.Is(err, ErrForeign) {
		t.Fatal(err)
	}
	if _, err := Open(w.disk, ours, small, none); !errors.Is(err, errTry) {
		t.Fatal(err)
	}
	if err := Discard(w.disk); err != nil {
		t.Fatal(err)
	}
	if j, err := Open(w.disk, message.Digest{2}, small, none); err != nil || j.Next() != 0 {
		t.Fatal(err)
	}
}

// Open does not panic, whatever is on the disk.
func FuzzOpen(f *testing.F) {
	w := written(&testing.T{}, 3)
	file, _ := w.disk.Open("journal-000")
	content := make([]byte, small.SegmentBytes)
	_, _ = file.ReadAt(content, 0)
	f.Add(content)
	f.Fuzz(func(t *testing.T, content []byte) {
		d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
		file, err := d.Create("journal-000")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(content, 0); err != nil {
			t.Fatal(err)
		}
		_, _ = Open(d, ours, small, func(message.SeqNum, []byte) error { return nil })
	})
}

// Messages that wait for a record leave in order, when the record is durable.
func TestGate(t *testing.T) {
	var g Gate[string]
	var left []string
	leave := func(s string) { left = append(left, s) }
	if !g.Opens(0) || g.Opens(1) {
		t.Fatal("an empty gate is open for what is durable alone")
	}
	g.Hold(2, "a")
	g.Hold(2, "b")
	g.Hold(3, "c")
	if g.Opens(0) {
		t.Fatal("what comes later may not overtake")
	}
	g.Release(1, leave)
	g.Release(2, leave)
	if want := []string{"a", "b"}; !slices.Equal(left, want) || g.Len() != 1 {
		t.Fatalf("got %v", left)
	}
	g.Release(9, leave)
	if want := []string{"a", "b", "c"}; !slices.Equal(left, want) || !g.Opens(9) {
		t.Fatalf("got %v", left)
	}
}

// A journal is read a piece after the other. Blocks that end in another piece than they begin in,
// and blocks that are longer than a piece, are read whole.
func TestLongBlocks(t *testing.T) {
	const segment = 4 * readAtOnce
	options := Options{SegmentBytes: segment, Spare: 2}
	m, chance := disk.NewMem(rand.New(rand.NewPCG(1, 2))), rand.New(rand.NewPCG(3, 4))
	j, err := Open(m, ours, options, func(message.SeqNum, []byte) error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	var lengths []int
	for n := range 60 {
		length := 8 + chance.IntN(blockSize)
		if n%5 == 0 {
			length = readAtOnce/2 + chance.IntN(readAtOnce)
		}
		lengths = append(lengths, length)
		j.Append(message.SeqNum(n), 0, content(n, length))
		if _, err := j.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	n := 0
	again, err := Open(m, ours, options, func(seq message.SeqNum, b []byte) error {
		if seq != message.SeqNum(n) || !slices.Equal(b, content(n, lengths[n])) {
			t.Fatalf("record %d is read as %d, %d bytes", n, seq, len(b))
		}
		n++
		return nil
	})
	if err != nil || n != len(lengths) || again.Segments() < 4 {
		t.Fatalf("%d of %d records are read: %v", n, len(lengths), err)
	}
}

// Clients write what they like, and a segment that is used again keeps the rest of what it held
// before. There what they wrote does not pass for blocks, whatever numbers they think of.
func TestClientsWriteNoBlocks(t *testing.T) {
	m := disk.NewMem(rand.New(rand.NewPCG(1, 2)))
	ignore := func(message.SeqNum, []byte) error { return nil }
	j, err := Open(m, ours, small, ignore)
	if err != nil {
		t.Fatal(err)
	}
	for seq := range message.SeqNum(20) {
		evil := make([]byte, small.SegmentBytes-2*blockSize)
		for i := 0; (i+2)*blockSize <= len(evil); i++ {
			b := evil[(i+1)*blockSize-blockHeader-recordHeader:][:blockHeader+1]
			number := j.number + uint64(i) // of a segment soon to come
			for at, field := range []uint64{number, 1 << 40, 1 << 40, number} {
				binary.LittleEndian.PutUint64(b[8+8*at:], field)
			}
			binary.LittleEndian.PutUint32(b[4:], 1)
			binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
		}
		j.Append(seq, 0, evil)
		if _, err := j.Flush(); err != nil {
			t.Fatal(err)
		}
		j.Release(seq)
	}
	for seq := range message.SeqNum(20) {
		if _, err := j.Flush(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(m, ours, small, ignore)
		if err != nil || again.Next() != j.Next() {
			t.Fatalf("after %d records: %v, want all of them", j.Next(), err)
		}
		_ = again.Close()
		j.Append(20+seq, 0, make([]byte, small.SegmentBytes/2))
		j.Release(20 + seq)
	}
}

// A block that names an oldest segment which is not there, nor any later one, is corrupt.
func TestOldestOfAllIsMissing(t *testing.T) {
	m := disk.NewMem(rand.New(rand.NewPCG(1, 2)))
	ignore := func(message.SeqNum, []byte) error { return nil }
	j, err := Open(m, ours, small, ignore)
	if err != nil {
		t.Fatal(err)
	}
	j.Append(1, 0, []byte("a record"))
	if _, err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	f, err := m.Open(j.segments[0].name)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, blockHeader+recordHeader+len("a record"))
	if _, err := f.ReadAt(b, blockSize); err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint64(b[32:], j.number+1)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	if _, err := f.WriteAt(b, blockSize); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(m, ours, small, ignore); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v, want that it is corrupt", err)
	}
}

// say appends a record about a batch.
func (w *twin) say(seq message.SeqNum, slot Slot, length int) {
	r := record{seq, slot, content(len(w.all), length)}
	w.all = append(w.all, r)
	w.journal.Append(r.seq, r.slot, r.content)
}

// mustFlush flushes on a disk that has power and room.
func (w *twin) mustFlush() {
	w.t.Helper()
	if err := w.flush(); err != nil {
		w.t.Fatal(err)
	}
}

// cut cuts the power in a flush, after so many calls of the disk, and opens the journal again.
func (w *twin) cut(calls int) {
	w.t.Helper()
	w.disk.CutAfter(calls)
	if err := w.flush(); !errors.Is(err, disk.ErrPower) {
		w.t.Fatalf("got %v, want no power", err)
	}
	w.disk.Crash()
	w.open()
}

// A power cut while a segment is begun may leave its records and lose the copies before them. When
// the segment is the oldest that is needed, a restart does not miss these copies.
func TestBeginningIsTorn(t *testing.T) {
	for seed := range uint64(200) {
		w := newTwin(t, seed)
		w.say(1, 1, 100)
		w.say(1, 0, small.SegmentBytes-3*blockSize)
		w.mustFlush()
		if err := w.journal.Reserve(); err != nil {
			t.Fatal(err)
		}
		w.say(2, 0, 2*blockSize) // does not fit
		w.cut(6)                 // three calls fill the segment, two begin it, one writes the record
		w.say(3, 0, 100)
		w.mustFlush()
		w.passed = 1
		w.journal.Release(w.passed)
		w.say(3, 0, 100)
		w.mustFlush()
		w.disk.Crash()
		w.open()
	}
}

// A power cut while a segment is begun may leave the copies at its beginning and lose the record
// after them. The copies name an oldest segment. The one that earlier blocks name is not used
// again before others name another: the power may be cut once more.
func TestOldestIsNamedByCopies(t *testing.T) {
	for seed := range uint64(400) {
		w := newTwin(t, seed)
		w.say(1, 1, 100)
		w.say(1, 0, small.SegmentBytes-3*blockSize)
		w.mustFlush()
		w.say(2, 0, small.SegmentBytes-4*blockSize)
		w.mustFlush()
		if err := w.journal.Reserve(); err != nil {
			t.Fatal(err)
		}
		w.passed = 1
		w.journal.Release(w.passed)
		w.say(3, 0, 3*blockSize) // does not fit
		w.cut(6)                 // three calls fill the segment, two begin it, one writes the record
		for range 3 {
			w.say(4, 0, small.SegmentBytes-4*blockSize)
		}
		w.cut(9 + w.chance.IntN(8))
	}
}

// Cut begins a segment without a block. It is not named the oldest in the flush that writes its
// first block: when the power is cut then, that may be lost, and a later block may be there.
func TestCutIsNotOldest(t *testing.T) {
	for seed := range uint64(60) {
		w := newTwin(t, seed)
		w.say(1, 0, 100)
		w.mustFlush()
		if err := w.journal.Cut(); err != nil {
			t.Fatal(err)
		}
		if err := w.journal.Reserve(); err != nil {
			t.Fatal(err)
		}
		w.passed = 1
		w.journal.Release(w.passed)
		w.say(2, 0, small.SegmentBytes-3*blockSize)
		w.say(2, 0, small.SegmentBytes-3*blockSize)
		w.cut(6) // the first record, three calls to fill a segment, its header, the second record
	}
}
