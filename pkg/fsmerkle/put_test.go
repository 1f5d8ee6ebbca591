// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"testing"

	"bfs/pkg/internal/blockhash"
)

func put(s *Store, n PageNum, contents []byte) { s.Put(n, contents, blockhash.Sum(contents)) }

// A page that was put is hashed without being read: from the digest that came with it.
func TestPutIsBelieved(t *testing.T) {
	if distrustful {
		t.Skip("NOT RUN: this build computes the digest anew")
	}
	lied, honest := newStore(t, 100), newStore(t, 100)
	lied.Put(7, pageOf(1), blockhash.Sum(pageOf(2)))
	if err := lied.Verify(); err == nil {
		t.Error("Verify did not notice a digest that is not the contents'")
	}
	put(honest, 7, pageOf(2))
	lied.Freeze(1, nil)
	honest.Freeze(1, nil)
	if got, want := root(t, lied, 1), root(t, honest, 1); got != want {
		t.Errorf("root %v, want %v: the page was read", got, want)
	}
	if err := lied.Verify(); err == nil {
		t.Error("Verify did not notice a root that is not the contents'")
	}
}

// The build for the race detector believes nothing.
func TestPutIsChecked(t *testing.T) {
	if !distrustful {
		t.Skip("NOT RUN: only the race detector's build computes the digest anew")
	}
	s := newStore(t, 100)
	defer func() {
		if recover() == nil {
			t.Error("a wrong digest was believed")
		}
	}()
	s.Put(7, pageOf(1), blockhash.Sum(pageOf(2)))
}

// A digest that came with a page is forgotten with the contents, however these are replaced.
func TestPutIsForgotten(t *testing.T) {
	const n = PageNum(7)
	for _, later := range []struct {
		name string
		do   func(t *testing.T, s *Store)
		want byte
	}{
		{"nothing", func(*testing.T, *Store) {}, 1},
		{"Modify", func(_ *testing.T, s *Store) { copy(s.Modify(n), pageOf(2)) }, 2},
		{"Modify twice", func(_ *testing.T, s *Store) { s.Modify(n); copy(s.Modify(n), pageOf(2)) }, 2},
		{"Modify, nothing written", func(_ *testing.T, s *Store) { s.Modify(n) }, 1},
		{"Overwrite", func(_ *testing.T, s *Store) { copy(s.Overwrite(n), pageOf(2)) }, 2},
		{"Put", func(_ *testing.T, s *Store) { put(s, n, pageOf(2)) }, 2},
		{"Put of zeros", func(_ *testing.T, s *Store) { put(s, n, pageOf(0)) }, 0},
		{"Modify and Put", func(_ *testing.T, s *Store) { s.Modify(n)[0]++; put(s, n, pageOf(2)) }, 2},
		{"Put and Modify", func(_ *testing.T, s *Store) { put(s, n, pageOf(2)); copy(s.Modify(n), pageOf(3)) }, 3},
		{"Zero", func(_ *testing.T, s *Store) { s.Zero(n) }, 0},
		{"Zero and Modify", func(_ *testing.T, s *Store) { s.Zero(n); copy(s.Modify(n), pageOf(2)) }, 2},
		{"Zero and Overwrite", func(_ *testing.T, s *Store) { s.Zero(n); copy(s.Overwrite(n), pageOf(2)) }, 2},
		{"the next epoch", func(_ *testing.T, s *Store) { s.Freeze(2, nil); copy(s.Modify(n), pageOf(2)) }, 2},
		{"Rollback", func(t *testing.T, s *Store) {
			if err := s.Rollback(1); err != nil {
				t.Fatal(err)
			}
		}, 5},
		{"Rollback and Modify", func(t *testing.T, s *Store) {
			if err := s.Rollback(1); err != nil {
				t.Fatal(err)
			}
			copy(s.Modify(n), pageOf(2))
		}, 2},
		{"Rollback of a frozen epoch", func(t *testing.T, s *Store) {
			s.Freeze(2, nil)
			if err := s.Rollback(1); err != nil {
				t.Fatal(err)
			}
			copy(s.Modify(n), pageOf(2))
			put(s, n+1, pageOf(4))
			s.Zero(n + 1)
		}, 2},
		{"Discard of all", func(_ *testing.T, s *Store) { s.Discard(2); copy(s.Modify(n), pageOf(2)) }, 2},
		{"an install", func(t *testing.T, s *Store) {
			s.Freeze(2, nil)
			peer := newStore(t, 100)
			copy(peer.Modify(n), pageOf(2))
			peer.Freeze(1, nil)
			in, err := s.Install(3, root(t, peer, 1))
			if err != nil {
				t.Fatal(err)
			}
			for !in.Done() {
				for _, id := range in.Wants(1) {
					answer(t, in, id, peer)
				}
			}
			if err := in.Commit(); err != nil {
				t.Fatal(err)
			}
		}, 2},
	} {
		t.Run(later.name, func(t *testing.T) {
			s := newStore(t, 100)
			copy(s.Modify(n), pageOf(5))
			s.Freeze(1, nil)
			put(s, n, pageOf(1))
			later.do(t, s)
			if err := s.Verify(); err != nil {
				t.Error(err)
			}
			s.Freeze(9, nil)
			want := twin{pages: twinPages{}}
			want.set(n, [PageSize]byte(pageOf(later.want)))
			if got, want := root(t, s, 9), want.pages.root(100); got != want {
				t.Errorf("root %v, want %v", got, want)
			}
			if err := s.Verify(); err != nil {
				t.Error(err)
			}
		})
	}
}

// However often a page is put in an epoch, one digest is kept, and none when the epoch is hashed.
func TestPutKeepsOneDigest(t *testing.T) {
	s := newStore(t, 100)
	put(s, 1, pageOf(1))
	for i := range 100 {
		put(s, 7, pageOf(byte(i)))
		s.Modify(7)[0]++
		put(s, 8, pageOf(byte(i)))
		s.Zero(8)
	}
	epoch := s.open
	if got := len(epoch.blocks.items); got != 3 {
		t.Errorf("%d digests are kept for 3 pages", got)
	}
	s.Freeze(1, nil)
	s.hasher.idle()
	if got := len(epoch.blocks.items); got != 0 {
		t.Errorf("%d digests are kept of an epoch that is hashed", got)
	}
}

// Pages that a rollback drops lose their digests too, hashed or not.
func TestPutKeepsNoDigestsRolledBack(t *testing.T) {
	s := newStore(t, 100)
	s.Freeze(1, nil)
	put(s, 7, pageOf(1))
	s.Freeze(2, nil)
	put(s, 7, pageOf(2))
	if err := s.Rollback(1); err != nil {
		t.Fatal(err)
	}
	for _, e := range append(s.spare, s.epochs...) {
		if got := len(e.blocks.items); got != 0 {
			t.Errorf("%d digests are kept", got)
		}
	}
	put(s, 7, pageOf(3))
	if err := s.Rollback(1); err != nil {
		t.Fatal(err)
	}
	if got := len(s.open.blocks.items); got != 0 {
		t.Errorf("%d digests are kept in the open epoch", got)
	}
}

// Contents that are no page are our own mistake.
func TestPutWantsAPage(t *testing.T) {
	s := newStore(t, 100)
	defer func() {
		if recover() == nil {
			t.Error("half a page was put")
		}
	}()
	half := pageOf(1)[:PageSize/2]
	s.Put(7, half, blockhash.Digest{})
}
