// SPDX-License-Identifier: Apache-2.0

package store_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/pbfttest"
)

const window = 8

// An update of the image that has not copied its pages when the group has come a window further is
// given up, so that the state need not keep its checkpoint for longer. Each one copies twice as
// much at once as the one before, so that one of them is quick enough.
func TestSlowImageIsGivenUp(t *testing.T) {
	m, err := store.Recall[string](store.Options{Disk: disk.NewMem(rand.New(rand.NewPCG(1, 1))), SegmentBytes: 1 << 16,
		Limits: &message.Limits{Replicas: 4, WindowLength: window}}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	state := pbfttest.NewMemory()
	s := m.Store
	if _, err := s.OpenImage(pbfttest.Limit, state); err != nil {
		t.Fatal(err)
	}
	for n := range pbft.PageNum(1000) {
		binary.LittleEndian.PutUint64(state.Modify(n), uint64(n)+1)
	}
	given, n := 0, message.SeqNum(1)
	for ; ; given, n = given+1, n+window+1 {
		state.Freeze(n, nil)
		u, err := s.Follow(message.CheckpointID{Seq: n, Digest: state.Root()})
		if err != nil {
			t.Fatal(err)
		}
		done, err := s.Copy(u, state)
		if err != nil {
			t.Fatal(err)
		}
		if done {
			break
		}
		if s.Stable(message.CheckpointID{Seq: n + window}); s.Abandoned() || s.Keeps(n+window) != n {
			t.Fatalf("given up within a window: it keeps %d, want %d", s.Keeps(n+window), n)
		}
		if s.Stable(message.CheckpointID{Seq: n + window + 1}); !s.Abandoned() || s.Keeps(n+window+1) != n+window+1 {
			t.Fatalf("not given up: it keeps %d", s.Keeps(n+window+1))
		}
		s.GiveUp(u)
	}
	if given < 3 || given > 10 {
		t.Errorf("%d updates were given up before one was quick enough", given)
	}
	if s.Keeps(n+5) != n+5 {
		t.Errorf("it keeps %d when all is copied", s.Keeps(n+5))
	}
}

// Room is kept for the journal and for an update of the image. When some of it is used and the disk
// is full, Reserve says so until there is room.
func TestReserve(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	m, err := store.Recall[string](store.Options{Disk: d, SegmentBytes: 1 << 16, ReserveBytes: 1 << 18,
		Limits: &message.Limits{Replicas: 4, WindowLength: window}}, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	state, s := pbfttest.NewMemory(), m.Store
	if _, err := s.OpenImage(pbfttest.Limit, state); err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve(); err != nil || s.Short() {
		t.Fatalf("a disk without limit is short of room: %v", err)
	}
	for n := range pbft.PageNum(200) {
		binary.LittleEndian.PutUint64(state.Modify(n), uint64(n)+1)
	}
	d.Fill(200 * 4096)
	state.Freeze(1, nil)
	u, err := s.Follow(message.CheckpointID{Seq: 1, Digest: state.Root()})
	for done := false; err == nil && !done; {
		if done, err = s.Copy(u, state); err == nil {
			err = u.Write()
		}
	}
	if err == nil {
		err = u.Commit()
	}
	if err != nil {
		t.Fatal(err)
	}
	s.Followed(1)
	if s.Short() {
		t.Fatal("the journal has used nothing of the reserve")
	}
	if err := s.Reserve(); !disk.IsFull(err) {
		t.Fatalf("an update has used the reserve of the image, and the disk is full: %v", err)
	}
	d.Limit(-1)
	if err := s.Reserve(); err != nil {
		t.Fatal(err)
	}
	d.Fill(0)
	if f, err := d.Create("fence"); !s.Yield() || err != nil || f.Allocate(4096) != nil || s.Yield() {
		t.Fatal("a small file has no room, or more than there was")
	}
	if err := s.Reserve(); !disk.IsFull(err) {
		t.Fatalf("the room for small files is used, and the disk is full: %v", err)
	}
	if f := s.Figures(); f.Image != 1 || f.ImageBytes < 200*4096 || f.Reserve < 1<<18 || f.JournalBytes < 1<<18 {
		t.Errorf("figures are %+v", f)
	}
}
