// SPDX-License-Identifier: Apache-2.0

package fence

import (
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
		{what: "the first vote", do: func() error { return f.Raise(0, 16) }, last: 16},
		{what: "room enough", do: func() error { f.Foresee(0, 11, period); return f.Settle() }, last: 16},
		{what: "soon", do: func() error { f.Foresee(0, 12, period); return f.Settle() }, last: 32},
		{what: "there already", do: func() error { return f.Raise(0, 32) }, last: 32},
		{what: "soon, and at once in the next view", do: func() error { f.Foresee(0, 28, period); return f.Raise(1, 32) }, view: 1, last: 48},
		{what: "soon, and at once beyond", do: func() error { f.Foresee(1, 47, period); return f.Raise(1, 100) }, view: 1, last: 100},
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
