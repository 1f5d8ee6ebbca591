// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"errors"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
)

// A ledger is a disk that counts the files that are made and removed.
type ledger struct {
	disk.FS
	made, removed int
	refuses       error // the answer to a removal
}

func (l *ledger) Create(name string) (disk.File, error) {
	f, err := l.FS.Create(name)
	if err == nil {
		l.made++
	}
	return f, err
}

func (l *ledger) Remove(name string) error {
	if l.refuses != nil {
		return l.refuses
	}
	l.removed++
	return l.FS.Remove(name)
}

// A ring is a journal in which every record fills a segment, and is about a batch of its own.
type ring struct {
	t    *testing.T
	mem  *disk.Mem
	disk *ledger
	*Journal
	told message.SeqNum // the latest record
	need message.SeqNum // records above it are not released
}

func newRing(t *testing.T) *ring {
	r := &ring{t: t, mem: disk.NewMem(rand.New(rand.NewPCG(1, 2)))}
	r.disk = &ledger{FS: r.mem}
	r.open()
	return r
}

// open reads the journal, and wants every record that was not released.
func (r *ring) open() {
	r.t.Helper()
	next := r.need + 1
	j, err := Open(r.disk, ours, small, func(seq message.SeqNum, _ []byte) error {
		if seq == next {
			next++
		}
		return nil
	})
	if err != nil || next != r.told+1 {
		r.t.Fatalf("record %d is missing of those from %d to %d: %v", next, r.need+1, r.told, err)
	}
	r.Journal = j
}

// turn appends a record, which takes a segment.
func (r *ring) turn() error {
	r.told++
	r.Append(r.told, 0, content(int(r.told), small.SegmentBytes-3*blockSize))
	_, err := r.Flush()
	return err
}

// cycle uses so many segments beside the last, and then releases them.
func (r *ring) cycle(segments int) {
	r.t.Helper()
	for range segments {
		err := r.turn()
		if err == nil && r.Short() {
			err = r.Reserve()
		}
		if err != nil {
			r.t.Fatal(err)
		}
	}
	r.need = r.told - 1
	r.Release(r.need)
	if err := r.Reserve(); err != nil {
		r.t.Fatal(err)
	}
}

// cycles has cycles of so many segments until there were at least so many turns.
func (r *ring) cycles(segments, turns int) {
	r.t.Helper()
	for begun := r.told; int(r.told-begun) < turns; {
		r.cycle(segments)
	}
}

func (r *ring) count() int {
	names, err := r.mem.List()
	if err != nil {
		r.t.Fatal(err)
	}
	if all, _ := r.Bytes(); int(all) != len(names)*small.SegmentBytes {
		r.t.Fatalf("the journal says that it has %d bytes in %d files of %d", all, len(names), small.SegmentBytes)
	}
	return len(names)
}

// A ring that needs more segments once gives them back when it has gone round without them often
// enough. It is as large as before then, but for one: segments that were released count as used
// until the flush is over. What the ring holds is there after a restart.
func TestBurst(t *testing.T) {
	r := newRing(t)
	r.cycles(4, 100)
	usual := r.count()
	r.cycle(20)
	most := r.count()
	if most < 20 {
		t.Fatalf("%d files after a burst of 20 segments", most)
	}
	r.cycles(4, most/2)
	if n := r.count(); n != most {
		t.Fatalf("%d files right after a burst, want all %d", n, most)
	}
	r.cycles(4, 2*rounds*most)
	if n := r.count(); n > usual+1 {
		t.Fatalf("%d files long after a burst, want %d as before, or one more", n, usual)
	}
	r.mem.Crash()
	r.open()
}

// A ring that fills and empties in the same way makes and removes no file, even if it is long
// until the image has followed.
func TestSteadyRing(t *testing.T) {
	for _, segments := range []int{1, 3, 5, 40} {
		r := newRing(t)
		r.cycle(segments)
		r.cycle(segments)
		made := r.disk.made
		r.cycles(segments, 10*rounds*r.count())
		if r.disk.made > made || r.disk.removed > 0 {
			t.Errorf("cycles of %d segments: %d files were made and %d removed, want none",
				segments, r.disk.made-made, r.disk.removed)
		}
	}
}

// Bursts that come again and again when their files have just been removed cost a share of what is
// written.
func TestBurstsAgain(t *testing.T) {
	r := newRing(t)
	for range 20 {
		r.cycle(30)
		most, burst := r.count(), r.told
		for r.count() == most {
			if r.cycle(3); int(r.told-burst) > 3*rounds*most {
				t.Fatalf("%d files %d turns after a burst, as before", most, r.told-burst)
			}
		}
	}
	if share := int(r.told) / rounds; r.disk.made > share {
		t.Errorf("%d files were made in %d turns, want at most %d", r.disk.made, r.told, share)
	}
}

// A ring that has given files back lasts as long on a full disk as any.
func TestFullDiskAfterBurst(t *testing.T) {
	r := newRing(t)
	r.cycle(20)
	r.cycles(4, 5*rounds*r.count())
	if r.disk.removed == 0 || r.Short() {
		t.Fatalf("%d files are removed, short %v", r.disk.removed, r.Short())
	}
	before := r.Segments()
	r.mem.Fill(0)
	err := error(nil)
	for err == nil && r.Segments() < 100 {
		err = r.turn()
	}
	if got, least := r.Segments()-before, small.Spare-1; !errors.Is(err, ErrFull) || got < least {
		t.Fatalf("%d segments on a full disk, want at least %d: %v", got, least, err)
	}
	r.Release(r.told - 2)
	for range 2 {
		if _, err := r.Flush(); err != nil {
			t.Fatalf("segments are free: %v", err)
		}
	}
}

// What Open finds free is given back like what this life made, after as many turns.
func TestOpenAfterBurst(t *testing.T) {
	r := newRing(t)
	r.cycle(20)
	r.cycle(1)
	most := r.count()
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	if err := r.Reserve(); err != nil || r.count() != most {
		t.Fatalf("%d files after a restart, want all %d: %v", r.count(), most, err)
	}
	r.cycles(4, 2*rounds*most)
	if n := r.count(); n > most/2 {
		t.Fatalf("%d files long after a restart, of %d", n, most)
	}
	r.mem.Crash()
	r.open()
}

// The power may fail at any call while files are removed. Some removals may be lost then. The rest
// of the files is a whole journal, which goes on.
func TestCutWhileShrinking(t *testing.T) {
	for calls := range 30 {
		r := newRing(t)
		r.cycle(20)
		most := r.count()
		for r.demand.lately() > 10 { // no Reserve
			if err := r.turn(); err != nil || int(r.told) > 10*rounds*most {
				t.Fatalf("%d turns, and the journal wants %d files: %v", r.told, r.kept(), err)
			}
			r.need = r.told - 1
			r.Release(r.need)
		}
		r.mem.CutAfter(calls)
		if err := r.Reserve(); err != nil && !errors.Is(err, disk.ErrPower) {
			t.Fatal(err)
		}
		r.mem.Crash()
		r.open()
		if n := r.count(); n > most || calls == 0 && n != most || calls > most && n == most {
			t.Fatalf("%d files of %d after a cut within %d calls", n, most, calls)
		}
		r.cycles(4, 2*most)
		r.mem.Crash()
		r.open()
	}
}

// A removal that fails stops the journal's user, unless it fails for want of room. A file that is
// not removed is used again.
func TestRemovalFails(t *testing.T) {
	for _, err := range []error{syscall.EIO, syscall.ENOSPC} {
		r := newRing(t)
		r.cycle(20)
		most := r.count()
		r.disk.refuses = err
		got := error(nil)
		for n := 0; n < 5*rounds*most && got == nil; n++ {
			if err := r.turn(); err != nil {
				t.Fatal(err)
			}
			r.need = r.told - 1
			r.Release(r.need)
			got = r.Reserve()
		}
		if disk.IsFull(err) != (got == nil) || got != nil && !strings.Contains(got.Error(), "journal-") {
			t.Errorf("a removal fails with %v: got %v", err, got)
		}
		made := r.disk.made
		for r.Segments() < most-1 {
			if err := r.turn(); err != nil {
				t.Fatal(err)
			}
		}
		if r.disk.made > made {
			t.Errorf("%d files are made beside those that are not removed", r.disk.made-made)
		}
	}
}

// Files that were never written are removed first: they would have to be filled.
func TestUnfilledFirst(t *testing.T) {
	r := newRing(t)
	r.cycle(20)
	r.cycle(1) // what was released is free
	r.demand = demand{}
	filled := 0
	for s := r.surplus(); s != nil; s = r.surplus() {
		if s.filled {
			filled++
		} else if filled > 0 {
			t.Fatalf("%s, which is not filled, comes after %d that are", s.name, filled)
		}
	}
	for _, s := range r.free {
		if !s.filled {
			t.Errorf("%s stays, and is not filled", s.name)
		}
	}
	if filled == 0 {
		t.Error("no surplus file was filled")
	}
}
