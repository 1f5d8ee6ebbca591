// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"bfs/pkg/internal/blockhash"
)

// A Seq is the number of a checkpoint. From one checkpoint to the next they rise.
type Seq uint64

// ErrNoCheckpoint answers for a checkpoint that was never taken, was discarded, or was dropped
// by a rollback.
var ErrNoCheckpoint = errors.New("fsmerkle: no such checkpoint")

// ErrUnhashed answers for a checkpoint that is still being hashed, or whose pages cannot
// be found while a later one waits to be.
var ErrUnhashed = errors.New("fsmerkle: the checkpoint is not hashed yet")

// An epoch is the time from one checkpoint to the next, and the record of its changes:
// everything needed to get from the pages and digests at its end back to those at its
// beginning [TOCS §6.2.1].
type epoch struct {
	// seq is the checkpoint this epoch begins with, if held. The first epoch of a store begins
	// with none, and so does one whose checkpoint was discarded.
	seq  Seq
	held bool

	// changes has each page changed in this epoch once, and owns the frames in old; they are all
	// absent if the epoch is open and not held. In the order of the first changes while the
	// epoch is open; sorted by page once it is closed and hashed.
	changes vector[change]

	// blocks has the digests that pages were put with: one for each of the changes that ever had
	// one, and so no more than there are. They are of no use, and gone, when the epoch is hashed.
	blocks vector[blockhash.Digest]

	// nodes has each digest changed by this epoch, with its value at the beginning, sorted. It
	// is filled when hashing the checkpoint at the epoch's end is finished.
	nodes vector[nodeDigest]

	state  epochState // guarded, like root and rooted, by hasher.mu
	root   Digest     // of the checkpoint this epoch begins with
	rooted bool       // root is known
}

type epochState uint8

const (
	epochOpen   epochState = iota // pages may change
	epochClosed                   // a checkpoint was taken at its end; hashing owns changes and nodes
	epochSorted                   // changes are sorted, and anybody's to read; hashing still owns nodes
	epochHashed                   // hashing is done: changes and nodes are sorted, and the owner's again
)

type change struct {
	page uint32 // page numbers are below MaxPages
	old  frame  // where the page lay at the beginning of the epoch
	now  frame  // where it lay at the end, once closed; owned by its owner then: live page or later record

	// block is one more than the index of the page's digest in the epoch's blocks, or 0 if it has
	// none there. While the epoch is open it is good only if the page's mapping says so; once the
	// epoch is closed, always.
	block uint32

	// stamp is, while the epoch is open, how far above its checkpoint the last batch lies
	// that changed the page.
	stamp uint32
}

// setBlock notes the digest of the contents that a changed page has now.
func (e *epoch) setBlock(c *change, d blockhash.Digest) {
	if c.block == 0 {
		e.blocks.push(d)
		c.block = uint32(len(e.blocks.items))
	}
	e.blocks.items[c.block-1] = d
}

type nodeDigest struct {
	key    nodeKey
	digest Digest
}

func (s *Store) newEpoch() *epoch {
	if n := len(s.spare); n > 0 {
		e := s.spare[n-1]
		s.spare = s.spare[:n-1]
		return e
	}
	return new(epoch)
}

// recycle readies an epoch that owns no frames any more for its next use.
func (s *Store) recycle(e *epoch) {
	e.changes.reset()
	e.blocks.reset()
	e.nodes.reset()
	*e = epoch{changes: e.changes, blocks: e.blocks, nodes: e.nodes}
	if len(s.spare) < 4 {
		s.spare = append(s.spare, e)
		return
	}
	e.free()
}

func (e *epoch) free() {
	e.changes.free()
	e.blocks.free()
	e.nodes.free()
}

// Freeze takes checkpoint seq of the live pages and begins the next epoch. It costs a few
// nanoseconds for each page changed since the last one, and waits only when several
// checkpoints are not hashed yet. When the root is known, rooted (which may be nil) is
// called with it, from another goroutine, in the order of the checkpoints. Such a call
// may be under way while Rollback drops the checkpoint, so a caller that rolls back needs
// more than the number to recognise late roots.
//
// Freeze panics unless seq is above the latest checkpoint.
func (s *Store) Freeze(seq Seq, rooted func(Digest)) {
	s.freeze(seq, rooted, nil)
}

func (s *Store) freeze(seq Seq, rooted func(Digest), known *tree) {
	last := s.open
	if last == nil {
		panic("fsmerkle: store used after Close")
	}
	if last.held && seq <= last.seq {
		panic(fmt.Sprintf("fsmerkle: checkpoint %d does not follow %d", seq, last.seq))
	}
	s.version++
	for i := range last.changes.items {
		c := &last.changes.items[i]
		m := &s.table.items[c.page]
		c.now = m.at
		if !m.blockIsKnown() {
			c.block = 0
		}
		m.change = 0
	}
	next := s.newEpoch()
	next.seq, next.held = seq, true
	s.stamp = 0
	s.epochs = append(s.epochs, next)
	s.open = next
	s.hasher.submit(&job{from: last, to: next, frames: s.arena.frames, rooted: rooted, known: known})
	s.reap()
}

// Root returns the root digest of a checkpoint, waiting until it is known.
func (s *Store) Root(seq Seq) (Digest, error) {
	i, err := s.find(seq)
	if err != nil {
		return Digest{}, err
	}
	root := s.hasher.root(s.epochs[i])
	s.reap()
	return root, nil
}

// Checkpoints returns the numbers of the checkpoints held, rising.
func (s *Store) Checkpoints() []Seq {
	var held []Seq
	for _, e := range s.epochs {
		if e.held {
			held = append(held, e.seq)
		}
	}
	return held
}

// Ready reports whether Children and PageAt answer for a checkpoint without waiting: nil,
// ErrUnhashed or ErrNoCheckpoint. A caller that must not wait, such as one that answers
// strangers, asks first.
func (s *Store) Ready(seq Seq) error {
	i, err := s.find(seq)
	if err != nil {
		return err
	}
	if !s.hasher.ready(s.epochs[i:]) {
		return ErrUnhashed
	}
	return nil
}

// PageAt returns page n as of a checkpoint, not to be written. The view is good until the
// checkpoint is discarded or dropped, and, as Read's, until the page is next modified. The number
// may come from a stranger: one out of range is an error here.
func (s *Store) PageAt(seq Seq, n PageNum) ([]byte, error) {
	i, err := s.find(seq)
	if err != nil {
		return nil, err
	}
	if n >= s.limit {
		return nil, fmt.Errorf("%w: page %d", ErrNoNode, n)
	}
	return s.arena.bytes(s.frameAt(i, n)), nil
}

// frameAt returns where page n lies as of the beginning of epoch i: in the first record from
// there on that has it, otherwise where it lies now [TOCS §6.2.1].
func (s *Store) frameAt(i int, n PageNum) frame {
	m := s.mapping(n)
	for _, e := range s.epochs[i : len(s.epochs)-1] {
		s.hasher.wait(e)
		at, ok := slices.BinarySearchFunc(e.changes.items, uint32(n), func(c change, n uint32) int {
			return cmp.Compare(c.page, n)
		})
		if ok {
			return e.changes.items[at].old
		}
	}
	if c := s.changeOf(m); c != nil {
		return c.old
	}
	return m.at
}

// find returns the index of the epoch that begins with a checkpoint.
func (s *Store) find(seq Seq) (int, error) {
	for i, e := range s.epochs {
		if e.held && e.seq == seq {
			return i, nil
		}
	}
	return 0, fmt.Errorf("%w: %d", ErrNoCheckpoint, seq)
}

// Discard forgets the checkpoints with numbers below the given one. If those are all, it
// waits until the newest is hashed. Otherwise it does not wait, and a later Freeze,
// Discard or Root frees the memory that hashing still needs.
func (s *Store) Discard(below Seq) {
	for _, e := range s.epochs {
		if e.held && e.seq < below {
			e.held = false
		}
	}
	if !s.open.held {
		s.hasher.idle() // from now on pages are written in place, so nothing may be reading them
		s.releaseOld(s.open)
	}
	s.reap()
}

// releaseOld frees the contents that an epoch keeps for the checkpoint it begins with.
func (s *Store) releaseOld(e *epoch) {
	for i := range e.changes.items {
		s.arena.release(e.changes.items[i].old)
		e.changes.items[i].old = absent
	}
}

// reap frees the epochs at the front that neither a held checkpoint nor hashing needs.
func (s *Store) reap() {
	n := 0
	for n < len(s.epochs)-1 && !s.epochs[n].held && s.hasher.hashed(s.epochs[n]) {
		s.releaseOld(s.epochs[n])
		s.recycle(s.epochs[n])
		n++
	}
	s.epochs = slices.Delete(s.epochs, 0, n)
}

// Rollback makes the live pages those of a checkpoint again, and drops the later
// checkpoints, hashed or not. It costs a few nanoseconds for each page changed since.
func (s *Store) Rollback(to Seq) error {
	i, err := s.find(to)
	if err != nil {
		return err
	}
	s.version++
	s.hasher.cancel(to)
	for j := len(s.epochs) - 1; j >= i; j-- {
		s.undo(s.epochs[j])
	}
	for _, e := range s.epochs[i+1:] {
		s.recycle(e)
	}
	s.epochs = slices.Delete(s.epochs, i+1, len(s.epochs))
	s.open, s.stamp = s.epochs[i], 0
	return nil
}

// undo puts the pages and digests that the last epoch changed back to how it found them.
// Hashing must have stopped for it.
func (s *Store) undo(e *epoch) {
	for i := range e.changes.items {
		c := &e.changes.items[i]
		m := &s.table.items[c.page]
		s.arena.release(m.at)
		s.used += holds(c.old) - holds(m.at)
		*m = mapping{at: c.old}
	}
	e.changes.reset()
	e.blocks.reset()
	s.hasher.undo(e)
}
