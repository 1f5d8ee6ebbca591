// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"bytes"
	"testing"
)

func newStore(t testing.TB, pages PageNum) *Store {
	t.Helper()
	s, err := New(Options{Pages: pages})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func root(t testing.TB, s *Store, seq Seq) Digest {
	t.Helper()
	d, err := s.Root(seq)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func pageOf(b byte) []byte { return bytes.Repeat([]byte{b}, PageSize) }

// A checkpoint keeps the pages it froze while the live ones move on, and rolling back returns.
func TestCheckpointKeepsPages(t *testing.T) {
	s := newStore(t, 1<<24)
	copy(s.Modify(5), pageOf(1))
	copy(s.Overwrite(1<<24-1), pageOf(2))
	s.Freeze(1, nil)
	one := root(t, s, 1)
	copy(s.Modify(5), pageOf(3))
	s.Zero(1<<24 - 1)
	s.Freeze(2, nil)
	if root(t, s, 2) == one {
		t.Fatal("roots of different pages are equal")
	}
	copy(s.Modify(6), pageOf(4))
	if p, err := s.PageAt(1, 5); err != nil || !bytes.Equal(p, pageOf(1)) {
		t.Fatalf("page 5 at checkpoint 1: %v %v", p[:4], err)
	}
	if err := s.Rollback(1); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Read(5), pageOf(1)) || !bytes.Equal(s.Read(1<<24-1), pageOf(2)) || s.Used() != 2 {
		t.Fatal("rollback did not restore the pages")
	}
	s.Modify(7)
	s.Freeze(3, nil)
	if root(t, s, 3) != one {
		t.Fatal("equal pages have different roots")
	}
}
