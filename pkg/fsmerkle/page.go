// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"fmt"
	"math"

	"bfs/pkg/internal/blockhash"
)

// PageSize is the number of bytes in a page.
const PageSize = blockhash.Size

// A PageNum is the number of a page, from 0 to below [Options.Pages].
type PageNum uint64

// MaxPages is the largest page space a store can be asked for: 16 TiB.
const MaxPages PageNum = 1 << 32

// Options configure a store.
type Options struct {
	// Pages bounds page numbers: valid ones are below it. Its order of magnitude decides the
	// height of the tree, and with it the root, so that replicas must agree on it. Nothing is
	// held for pages never written.
	Pages PageNum
}

// A Store holds numbered pages, the checkpoints taken of them, and the digest tree over both.
// All methods are for one goroutine at a time, the owner; only hashing runs elsewhere.
type Store struct {
	limit PageNum
	arena arena
	table table[mapping] // one for each page number; untouched parts take no memory
	used  PageNum

	// epochs are the stretches between checkpoints, oldest first. The last one is open: its
	// changes are still being made. Only the first can begin without a checkpoint.
	epochs []*epoch
	open   *epoch // the last of epochs
	spare  []*epoch

	tree    *tree // digests as of the newest checkpoint that has been hashed
	hasher  *hasher
	install *Install // the session under way, if any
	version uint64   // changes with each checkpoint taken or rolled back to

	stamp    uint32 // of changes made now: how far their batch lies above the open epoch's checkpoint
	watching bool   // Read notes the stamps of the pages it returns
	seen     uint32 // the highest stamp among these
	closed   bool
}

// A mapping says where a page lies now.
type mapping struct {
	at frame // absent: the page is all zeros

	// change is one more than the index of this page in the open epoch's changes, or 0 if the
	// page has not changed since the latest checkpoint. A page with a change owns its frame:
	// no checkpoint and no hashing needs the present contents.
	//
	// With blockKnown added, the change's block is the digest of the present contents, which are
	// not all zeros for want of a frame. Modify, which everything is written through, then finds
	// its fast path closed, and so needs no other look at it.
	change uint32
}

const blockKnown = 1 << 31

// blockIsKnown reports whether the open epoch has the block digest of the page's contents.
func (m *mapping) blockIsKnown() bool { return m.change&blockKnown != 0 }

// forgetBlock drops the block digest of the contents, which are about to change.
func (m *mapping) forgetBlock() { m.change &^= blockKnown }

// New returns a store whose pages are all zeros and that has no checkpoint.
func New(o Options) (*Store, error) {
	if o.Pages < 1 || o.Pages > MaxPages {
		return nil, fmt.Errorf("fsmerkle: got %d pages, want 1 to %d", o.Pages, MaxPages)
	}
	s := &Store{limit: o.Pages}
	var err error
	if s.tree, err = newTree(o.Pages); err != nil {
		return nil, err
	}
	if s.table, err = newTable[mapping](uint64(o.Pages)); err != nil {
		s.tree.free()
		return nil, err
	}
	if s.arena, err = newArena(); err != nil {
		s.tree.free()
		s.table.free()
		return nil, err
	}
	s.hasher = newHasher(s.tree)
	s.open = s.newEpoch()
	s.epochs = append(s.epochs, s.open)
	return s, nil
}

// Close waits for the hashing under way to stop and gives all memory back. Views of pages are
// void afterwards. A second Close does nothing.
func (s *Store) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	if s.install != nil {
		s.install.Abort()
	}
	s.hasher.cancelAll()
	for _, e := range append(s.epochs, s.spare...) {
		e.free()
	}
	s.epochs, s.spare, s.open = nil, nil, nil
	s.tree.free()
	s.table.free()
	s.arena.free()
	return nil
}

// Limit returns the bound on page numbers.
func (s *Store) Limit() PageNum { return s.limit }

// Used returns how many live pages hold a frame of memory. It is not a function of the contents
// (a page of zeros may or may not hold one), so no replicated result may depend on it.
func (s *Store) Used() PageNum { return s.used }

// Recorded returns how many pages of memory hold contents that only checkpoints have, or
// that a session has fetched.
func (s *Store) Recorded() PageNum { return PageNum(s.arena.used) - s.used }

// Read returns the contents of page n, not to be written. The view is good until the page is
// next modified, and until Rollback, Commit or Close.
func (s *Store) Read(n PageNum) []byte {
	m := s.mapping(n)
	if s.watching && m.change != 0 {
		s.seen = max(s.seen, s.changeOf(m).stamp)
	}
	return s.arena.bytes(m.at)
}

// Begin says that changes from now on are those of batch n, which lies above the latest
// checkpoint and no lower than the batch before.
func (s *Store) Begin(n Seq) {
	if n < s.open.seq {
		panic(fmt.Sprintf("fsmerkle: batch %d does not follow checkpoint %d", n, s.open.seq))
	}
	// The difference is larger only without checkpoints, and then reads are not observed.
	s.stamp = uint32(min(n-s.open.seq, math.MaxUint32))
}

// Observe begins to watch which pages are read.
func (s *Store) Observe() { s.watching, s.seen = true, 0 }

// Observed ends the watching. It returns the last batch since the latest checkpoint that
// changed a page which was read since Observe, 0 if none did. It is a function of the
// batches since that checkpoint alone.
func (s *Store) Observed() Seq {
	s.watching = false
	if s.seen == 0 {
		return 0
	}
	return s.open.seq + Seq(s.seen)
}

// Modify returns the contents of page n, to be changed in place. The first call in an
// epoch sets the old contents aside for the latest checkpoint. The view may be written
// until the next Freeze, Zero or Put of this page, Rollback, Commit or Close: call Modify
// again after each of these.
func (s *Store) Modify(n PageNum) []byte {
	m := s.mapping(n)
	if int32(m.change) > 0 && m.at != absent { // changed, and nothing known of the contents
		s.open.changes.items[m.change-1].stamp = s.stamp
		return s.arena.bytes(m.at)
	}
	return s.modifyFirst(n, m)
}

func (s *Store) modifyFirst(n PageNum, m *mapping) []byte {
	if m.blockIsKnown() {
		m.forgetBlock()
		s.changeOf(m).stamp = s.stamp
		return s.arena.bytes(m.at)
	}
	old := m.at
	if old == absent {
		s.place(n, m, s.arena.takeZeroed())
		return s.arena.bytes(m.at)
	}
	if !s.open.held {
		s.setAside(n, m) // no one needs the old contents: write over them
		return s.arena.bytes(old)
	}
	f, _ := s.arena.take()
	copy(s.arena.bytes(f), s.arena.bytes(old))
	s.place(n, m, f)
	return s.arena.bytes(f)
}

// Overwrite is Modify for a caller that fills all 4096 bytes at once: their values are
// unspecified, and nothing is copied.
func (s *Store) Overwrite(n PageNum) []byte {
	m := s.mapping(n)
	m.forgetBlock()
	switch {
	case m.at != absent && m.change != 0:
		s.changeOf(m).stamp = s.stamp
	case m.at != absent && !s.open.held:
		s.setAside(n, m)
	default:
		f, _ := s.arena.take()
		s.place(n, m, f)
	}
	return s.arena.bytes(m.at)
}

// Put makes contents, which are PageSize bytes, those of page n, for a caller that knows
// their digest: block is blockhash.Sum(contents). As long as they stay, the next
// checkpoint is hashed without reading them. The caller guarantees that the digest is
// right, just as it guarantees not to write without Modify: a wrong one makes a state
// that no other replica has. Verify, and the race detector's build, compute it anew.
func (s *Store) Put(n PageNum, contents []byte, block blockhash.Digest) {
	if len(contents) != PageSize {
		panic(fmt.Sprintf("fsmerkle: got %d bytes for page %d, want %d", len(contents), n, PageSize))
	}
	if distrustful && blockhash.Sum(contents) != block {
		panic(fmt.Sprintf("fsmerkle: page %d was put with a digest that is not its contents'", n))
	}
	copy(s.Overwrite(n), contents)
	m := s.mapping(n)
	s.open.setBlock(s.changeOf(m), block)
	m.change |= blockKnown
}

// Zero makes page n all zeros, and frees its memory.
func (s *Store) Zero(n PageNum) {
	if m := s.mapping(n); m.at != absent {
		s.place(n, m, absent)
	}
}

// place makes f the frame of page n, and sets aside or releases the one it had.
func (s *Store) place(n PageNum, m *mapping, f frame) {
	old := m.at
	first := s.setAside(n, m)
	if !first || !s.open.held {
		s.arena.release(old)
	}
	s.used += holds(f) - holds(old)
	m.at = f
	m.forgetBlock()
}

// setAside enters page n among the open epoch's changes, with the frame it had at the latest
// checkpoint, unless it is there already. The epoch then owns that frame, if it begins with a
// checkpoint at all; the caller must give the page another.
func (s *Store) setAside(n PageNum, m *mapping) (first bool) {
	if m.change != 0 {
		s.changeOf(m).stamp = s.stamp
		return false
	}
	c := change{page: uint32(n), stamp: s.stamp}
	if s.open.held {
		c.old = m.at
	}
	if len(s.open.changes.items) >= blockKnown-1 {
		panic("fsmerkle: 8 TiB were changed in one epoch")
	}
	s.open.changes.push(c)
	m.change = uint32(len(s.open.changes.items))
	return true
}

// changeOf returns a page's change in the open epoch, nil if it has none.
func (s *Store) changeOf(m *mapping) *change {
	if m.change == 0 {
		return nil
	}
	return &s.open.changes.items[m.change&^blockKnown-1]
}

// holds is 1 for a real frame, 0 for the absent one.
func holds(f frame) PageNum {
	if f == absent {
		return 0
	}
	return 1
}

func (s *Store) mapping(n PageNum) *mapping {
	if n >= PageNum(len(s.table.items)) {
		s.outOfRange(n)
	}
	return &s.table.items[n]
}

// outOfRange stops the process: page numbers come from its own code, never from a message.
func (s *Store) outOfRange(n PageNum) {
	if s.closed {
		panic("fsmerkle: store used after Close")
	}
	panic(fmt.Sprintf("fsmerkle: page %d is out of range: the store has %d", n, s.limit))
}
