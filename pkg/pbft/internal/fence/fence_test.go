// SPDX-License-Identifier: Apache-2.0

package fence

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// onDisk returns the fence that a replica would find if it were started now.
func (f *Fence) onDisk(t *testing.T) (message.View, message.SeqNum) {
	t.Helper()
	again, err := Open(f.path, f.group)
	if err != nil {
		t.Fatal(err)
	}
	return again.view, again.last
}

// The fence is raised before it is reached, and a vote that needs it higher or for a
// later view waits until it is.
func TestFenceRisesAhead(t *testing.T) {
	f, err := Open(filepath.Join(t.TempDir(), "fence"), message.Digest{1})
	if err != nil {
		t.Fatal(err)
	}
	const period = 8
	if f.Foresee(0, 5, period); f.rising != nil {
		t.Fatal("raised by a replica that has never voted")
	}
	for _, x := range []struct {
		what string
		do   func() error
		view message.View
		last message.SeqNum
	}{
		{what: "the first vote", do: func() error { return f.Raise(0, 32) }, last: 32},
		{what: "room enough", do: func() error { f.Foresee(0, 15, period); return f.Settle() }, last: 32},
		{what: "soon", do: func() error { f.Foresee(0, 16, period); return f.Settle() }, last: 48},
		{what: "there already", do: func() error { return f.Raise(0, 48) }, last: 48},
		{what: "soon, and at once in the next view", do: func() error { f.Foresee(0, 32, period); return f.Raise(1, 48) }, view: 1, last: 64},
		{what: "soon, and at once beyond", do: func() error { f.Foresee(1, 63, period); return f.Raise(1, 100) }, view: 1, last: 100},
		{what: "twice", do: func() error { f.Foresee(1, 99, period); f.Foresee(1, 100, period); return f.Raise(1, 100) }, view: 1, last: 116},
	} {
		if err := x.do(); err != nil {
			t.Fatalf("%s: %v", x.what, err)
		}
		if view, last := f.onDisk(t); view != x.view || last != x.last {
			t.Fatalf("%s: got view %d and number %d on disk, want %d and %d", x.what, view, last, x.view, x.last)
		}
	}
}

// Each record is written over the earlier of the two. If a write is lost the one before it holds.
// If one is damaged nobody can say what it was, and neither counts.
func TestRecordsTakeTurns(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fence")
	f, err := Open(path, message.Digest{1})
	if err != nil {
		t.Fatal(err)
	}
	for n := message.SeqNum(10); n < 100; n += 10 {
		if err := f.Raise(0, n); err != nil {
			t.Fatal(err)
		}
		now, err := os.ReadFile(path)
		if err != nil || len(now) != size {
			t.Fatalf("got a file of %d bytes, want %d: %v", len(now), size, err)
		}
		at := int(f.turn%2) * apart
		lost := bytes.Clone(now)
		clear(lost[at : at+recordSize])
		if r, ok := latest(lost); n > 10 && (!ok || r.number != n-10) {
			t.Fatalf("without the record of %d: got %d, %v, want %d", n, r.number, ok, n-10)
		}
		for _, i := range []int{0, recordSize / 2, recordSize - 1} {
			damaged := bytes.Clone(now)
			damaged[at+i] ^= 1
			if r, ok := latest(damaged); ok {
				t.Fatalf("byte %d of the record of %d is damaged: got %d", i, n, r.number)
			}
		}
	}
}

// The file of an earlier version is read, and replaced at the first raise.
func TestOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "fence")
	old := record{message.Digest{1}, 3, 70, 9, 0}
	if err := os.WriteFile(path, old.append(nil)[:oldSize], 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, message.Digest{1})
	if err != nil || f.View() != 3 || f.Last() != 70 || f.Position() != 9 || !Whole(path) {
		t.Fatalf("got view %d, number %d, position %d, %v", f.View(), f.Last(), f.Position(), err)
	}
	for n := message.SeqNum(80); n <= 100; n += 10 {
		if err := f.Raise(4, n); err != nil {
			t.Fatal(err)
		}
		if view, last := f.onDisk(t); view != 4 || last != n {
			t.Fatalf("got view %d and number %d on disk, want 4 and %d", view, last, n)
		}
	}
}

// A file without a whole record covers an unknown number of votes: nobody may start from it.
func TestNoRecordIsWhole(t *testing.T) {
	group := message.Digest{1}
	damaged := First(group)
	damaged[40]++
	for what, b := range map[string][]byte{
		"cut": First(group)[:100], "zeros": make([]byte, size), "a bit of the only record": damaged,
		"longer": append(First(group), 0),
	} {
		path := filepath.Join(t.TempDir(), "fence")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(path, group); err == nil || Whole(path) {
			t.Errorf("%s: got a fence", what)
		}
	}
	if r, ok := latest(Lost(group)); !ok || r.number != everything || r.position != store.NoJournal {
		t.Errorf("a lost fence: got %v, %v", r, ok)
	}
}

// A reset says nothing of what the fence said, not even of a raise that is under way.
func TestFenceIsReset(t *testing.T) {
	for _, distrust := range []bool{false, true} {
		f, err := Open(filepath.Join(t.TempDir(), "fence"), message.Digest{1})
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Raise(3, 100); err != nil {
			t.Fatal(err)
		}
		f.Foresee(3, 100, 8)
		if err := f.Reset(2, 40, distrust); err != nil {
			t.Fatal(err)
		}
		if view, last := f.onDisk(t); view != 2 || last != 40 {
			t.Errorf("distrust %v: got view %d and number %d on disk, want 2 and 40", distrust, view, last)
		}
		if got := f.Position() == store.NoJournal; got != distrust {
			t.Errorf("the journal is not believed: %v, want %v", got, distrust)
		}
	}
}

// A sealed fence has the journal's end, and changes nothing else. A journal that is not believed
// stays so.
func TestFenceIsSealed(t *testing.T) {
	f, err := Open(filepath.Join(t.TempDir(), "fence"), message.Digest{1})
	if err != nil {
		t.Fatal(err)
	}
	end := uint64(7)
	f.Follow(func() uint64 { return end })
	if err := f.Raise(3, 100); err != nil {
		t.Fatal(err)
	}
	end = 9
	for _, want := range []uint64{9, store.NoJournal} {
		if want == store.NoJournal {
			if err := f.Distrust(); err != nil {
				t.Fatal(err)
			}
		}
		if err := f.Seal(); err != nil {
			t.Fatal(err)
		}
		again, err := Open(f.path, f.group)
		if err != nil {
			t.Fatal(err)
		}
		if again.position != want || again.last != 100 || again.view != 3 {
			t.Errorf("got position %d, view %d and number %d on disk, want %d, 3 and 100", again.position, again.view,
				again.last, want)
		}
	}
}

// A fence that could not be written ahead stops the vote that needs it.
func TestFenceFailsAhead(t *testing.T) {
	dir := t.TempDir()
	f, err := Open(filepath.Join(dir, "fence"), message.Digest{1})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Raise(0, 16); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	f.Foresee(0, 16, 8)
	if err := f.Raise(0, 32); err == nil {
		t.Fatal("a fence that is not on disk was taken for raised")
	}
}
