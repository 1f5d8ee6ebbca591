// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Nothing dirty: the checkpoint costs nothing and has the root of the one before.
func TestFreezeNothing(t *testing.T) {
	s := newStore(t, 1<<24)
	s.Freeze(1, nil)
	s.Freeze(2, nil)
	if a, b := root(t, s, 1), root(t, s, 2); a != b || a == (Digest{}) {
		t.Errorf("roots of nothing: %v, %v", a, b)
	}
	if s.arena.used != 0 {
		t.Errorf("%d frames in use", s.arena.used)
	}
}

// After a rollback the same number is given again, to other pages; the root reported for it
// last is the right one.
func TestRollbackAndFreezeAgain(t *testing.T) {
	s := newStore(t, 1000)
	s.Modify(1)[0] = 1
	s.Freeze(10, nil)
	one := root(t, s, 10)
	for try := byte(2); try < 50; try++ {
		for n := range PageNum(200) {
			s.Modify(n)[1] = try // so that hashing is under way when we roll back
		}
		s.Freeze(20, nil)
		s.Modify(3)[3] = try
		s.Freeze(30, nil)
		if try%3 == 0 {
			root(t, s, 20)
		}
		if err := s.Rollback(10); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Root(20); !errors.Is(err, ErrNoCheckpoint) {
			t.Fatalf("root of a dropped checkpoint: %v", err)
		}
		if got := s.Checkpoints(); !slices.Equal(got, []Seq{10}) {
			t.Fatal(got)
		}
	}
	s.Modify(2)
	s.Freeze(20, nil)
	if root(t, s, 20) != one {
		t.Error("equal pages have different roots")
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
}

// Discarding everything, including a checkpoint that is being hashed, leaves the live
// pages as they are.
func TestDiscardWhileHashing(t *testing.T) {
	s := newStore(t, 1000)
	for seq := Seq(1); seq < 20; seq++ {
		for n := range PageNum(300) {
			s.Modify(n)[seq] = byte(seq)
		}
		s.Freeze(seq, nil)
		s.Discard(seq + seq%2) // every second time, the newest too
		if held := len(s.Checkpoints()); held > 2 {
			t.Fatalf("%d checkpoints held", held)
		}
		s.Modify(7)[seq] = 100
	}
	if err := s.Rollback(19); !errors.Is(err, ErrNoCheckpoint) {
		t.Error(err)
	}
	if got := s.Read(7)[18:20]; !bytes.Equal(got, []byte{100, 100}) {
		t.Error(got)
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
	s.Zero(8) // clean, and no checkpoint wants it
	if s.arena.used != 299 || s.Used() != 299 {
		t.Errorf("%d frames in use for %d pages", s.arena.used, s.Used())
	}
}

// A caller that asks Ready first need not wait for hashing, which may take long: here it
// begins when the test says so.
func TestReady(t *testing.T) {
	s := newStore(t, 1000)
	check := func(when string, seq Seq, want error) {
		t.Helper()
		if err := s.Ready(seq); !errors.Is(err, want) {
			t.Errorf("%s: checkpoint %d: got %v, want %v", when, seq, err, want)
		}
	}
	check("at first", 1, ErrNoCheckpoint)
	for seq := Seq(1); seq <= 2; seq++ {
		s.hasher.mu.Lock()
		s.hasher.working = true // it is not, so that no job runs
		s.hasher.mu.Unlock()
		s.Modify(3)[0] = byte(seq)
		s.Freeze(seq, nil)
		check("not hashed", seq, ErrUnhashed)
		if seq == 2 {
			check("the next one not hashed", 1, ErrUnhashed)
		}
		go s.hasher.work()
		if _, err := s.Root(seq); err != nil {
			t.Fatal(err)
		}
		check("hashed", seq, nil)
	}
	s.hasher.idle()
	check("both hashed", 1, nil)
}

// Zero, Modify and Overwrite of one page within one epoch, in every order of three.
func TestOneEpochOnePage(t *testing.T) {
	ops := []func(*Store) byte{
		func(s *Store) byte { s.Zero(0); return 0 },
		func(s *Store) byte { s.Modify(0)[9] = 5; return 5 },
		func(s *Store) byte { copy(s.Overwrite(0), pageOf(6)); return 6 },
	}
	for order := range 27 {
		for _, before := range []byte{0, 1} {
			s := newStore(t, 1)
			if before != 0 {
				copy(s.Overwrite(0), pageOf(before))
			}
			s.Freeze(1, nil)
			var want byte
			for _, i := range []int{order % 3, order / 3 % 3, order / 9} {
				want = ops[i](s)
			}
			if got := s.Read(0)[9]; got != want {
				t.Errorf("order %d: got %d, want %d", order, got, want)
			}
			if p, _ := s.PageAt(1, 0); !bytes.Equal(p, pageOf(before)) {
				t.Errorf("order %d: checkpoint 1 changed", order)
			}
			if err := s.Verify(); err != nil {
				t.Errorf("order %d: %v", order, err)
			}
			s.Close()
		}
	}
}

// Roots are reported in order, once each, even if the callback waits for the owner.
func TestRootedInOrder(t *testing.T) {
	s := newStore(t, 1000)
	var owner sync.Mutex
	var heard []Seq
	var all sync.WaitGroup
	owner.Lock()
	for seq := Seq(1); seq <= 3*maxUnhashed; seq++ {
		s.Modify(PageNum(seq))[0] = 1
		all.Add(1)
		s.Freeze(seq, func(Digest) {
			owner.Lock()
			heard = append(heard, seq)
			owner.Unlock()
			all.Done()
		})
	}
	owner.Unlock()
	all.Wait()
	if len(heard) != 3*maxUnhashed || !slices.IsSorted(heard) {
		t.Error(heard)
	}
}

// Verify finds a write through a view that was no longer to be written.
func TestVerifyFindsStrayWrites(t *testing.T) {
	s := newStore(t, 100)
	stale := s.Modify(42)
	stale[0] = 1
	s.Freeze(1, nil)
	root(t, s, 1)
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
	stale[0] = 2
	if err := s.Verify(); err == nil || !strings.Contains(err.Error(), "page 42 was changed without Modify") {
		t.Errorf("stray write to a live page: %v", err)
	}
	s.Modify(42)
	if err := s.Verify(); err == nil || !strings.Contains(err.Error(), "page 42 as of checkpoint 1") {
		t.Errorf("stray write to a page of a checkpoint: %v", err)
	}
}

// Our own mistakes stop us, with a message that says which.
func TestPanics(t *testing.T) {
	s := newStore(t, 100)
	s.Freeze(5, nil)
	shut := newStore(t, 100)
	shut.Close()
	for _, c := range []struct {
		want string
		do   func()
	}{
		{"page 100 is out of range", func() { s.Read(100) }},
		{"page 100 is out of range", func() { s.Modify(100) }},
		{"page 100 is out of range", func() { s.Overwrite(100) }},
		{"page 18446744073709551615 is out of range", func() { s.Zero(1<<64 - 1) }},
		{"checkpoint 5 does not follow 5", func() { s.Freeze(5, nil) }},
		{"store used after Close", func() { shut.Read(1) }},
		{"store used after Close", func() { shut.Freeze(1, nil) }},
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}()
			c.do()
		}()
	}
	for _, pages := range []PageNum{0, MaxPages + 1} {
		if _, err := New(Options{Pages: pages}); err == nil {
			t.Errorf("a store of %d pages", pages)
		}
	}
}

// Memory freed beyond the amount kept warm goes back to the kernel and reads as zeros
// when it is used again, and Close leaves none mapped.
func TestArenaCools(t *testing.T) {
	a, err := newArena()
	if err != nil {
		t.Fatal(err)
	}
	defer a.free()
	a.keep = 16
	n := 3<<chunkShift - 5
	if testing.Short() || n > 1000 {
		n = 1000
	}
	var taken []frame
	for range n {
		f := a.takeZeroed()
		copy(a.bytes(f), pageOf(0xff))
		taken = append(taken, f)
	}
	for _, f := range taken {
		a.release(f)
	}
	if a.used != 0 || len(a.warm.items) > 16 || len(a.warm.items)+len(a.cold.items) != n {
		t.Fatalf("%d used, %d warm, %d cold of %d", a.used, len(a.warm.items), len(a.cold.items), n)
	}
	for range n {
		if f := a.takeZeroed(); [PageSize]byte(a.bytes(f)) != zeroPage {
			t.Fatalf("frame %d is not zeros", f)
		}
	}
	if int(a.fresh) != n+1 {
		t.Errorf("%d frames touched for %d", a.fresh, n)
	}
}

// The steady state allocates nothing on the Go heap for a page.
func TestSteadyStateAllocations(t *testing.T) {
	s := newStore(t, 1<<20)
	seq := Seq(0)
	epoch := func() {
		for n := range PageNum(2000) {
			s.Modify(n * 500)[0]++
		}
		seq++
		s.Freeze(seq, nil)
		root(t, s, seq)
		s.Discard(seq)
	}
	epoch()
	epoch()
	if n := testing.AllocsPerRun(5, epoch); n > 100 {
		t.Errorf("%v allocations for a checkpoint of 2000 pages", n)
	}
}

// Recorded counts the pages that only checkpoints have: one for each page that was changed in each
// epoch since the oldest that is held.
func TestRecorded(t *testing.T) {
	s := newStore(t, 1000)
	change := func(pages PageNum) {
		for n := range pages {
			s.Modify(n)[0]++
		}
	}
	change(5)
	for i, want := range []PageNum{0, 5, 10, 15} {
		if got := s.Recorded(); got != want {
			t.Errorf("with %d checkpoints: got %d, want %d", i, got, want)
		}
		s.Freeze(Seq(i+1), nil)
		change(5)
	}
	root(t, s, 4) // hashed, so that what is discarded is free
	s.Discard(4)
	if got := s.Recorded(); got != 5 {
		t.Errorf("when all but the last are discarded: got %d, want 5", got)
	}
}
