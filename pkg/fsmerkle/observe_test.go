// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"testing"

	"bfs/pkg/internal/blockhash"
)

// Observed tells of the last batch that changed a page which was read, whichever way it
// was changed, since the latest checkpoint.
func TestObserved(t *testing.T) {
	s, err := New(Options{Pages: 64})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	after := func(pages ...PageNum) Seq {
		s.Observe()
		for _, n := range pages {
			s.Read(n)
		}
		return s.Observed()
	}
	check := func(what string, want Seq, pages ...PageNum) {
		t.Helper()
		if got := after(pages...); got != want {
			t.Errorf("%s: pages %v were changed last by batch %d, want %d", what, pages, got, want)
		}
	}
	contents := make([]byte, PageSize)
	contents[0] = 7
	s.Begin(1)
	s.Modify(1)[0] = 1
	s.Modify(2)[0] = 1
	s.Begin(2)
	s.Put(2, contents, blockhash.Sum(contents))
	s.Overwrite(3)[0] = 2
	s.Begin(3)
	s.Modify(2)[0] = 3
	s.Zero(3)
	check("before a checkpoint", 1, 1)
	check("modified after it was put", 3, 2)
	check("zeroed", 3, 3)
	check("several", 3, 1, 2, 5)
	check("untouched", 0, 5)

	s.Begin(4)
	s.Overwrite(2)[0] = 4
	check("overwritten", 4, 2)

	s.Freeze(10, nil)
	check("after a checkpoint", 0, 1, 2, 3)
	s.Modify(4)[0] = 1
	check("changed by no batch yet", 0, 4)
	s.Begin(12)
	s.Modify(1)[0] = 12
	s.Begin(14)
	s.Modify(1)[0] = 14
	check("changed twice", 14, 1, 2)
	s.Read(2)
	check("what was read before is not counted", 0, 2)

	if err := s.Rollback(10); err != nil {
		t.Fatal(err)
	}
	check("after a rollback", 0, 1)
	s.Begin(11)
	s.Zero(1)
	check("once more", 11, 1)
}
