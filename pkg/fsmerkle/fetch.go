// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"unsafe"
)

// Why an offer, or a session, is refused. An offer refused has had no effect.
var (
	ErrNoNode   = errors.New("fsmerkle: no such node")
	ErrUnwanted = errors.New("fsmerkle: not asked for")
	ErrMismatch = errors.New("fsmerkle: does not have the digest asked for")
	ErrUnclean  = errors.New("fsmerkle: pages differ from the latest checkpoint")
	ErrMissing  = errors.New("fsmerkle: pages or nodes are still missing")
	ErrOver     = errors.New("fsmerkle: the install session is over")
)

// A Tree is the digests of one checkpoint, here or elsewhere.
type Tree interface {
	Top() NodeID                          // the root's name, which says how high the tree is
	Root() (Digest, error)                // the root's digest
	Children(id NodeID) ([]Digest, error) // of an interior node: Fanout digests, in order
}

// Tree returns the digests of a checkpoint as a Tree.
func (s *Store) Tree(seq Seq) Tree { return checkpointTree{s, seq} }

type checkpointTree struct {
	s   *Store
	seq Seq
}

func (t checkpointTree) Top() NodeID                          { return t.s.Top() }
func (t checkpointTree) Root() (Digest, error)                { return t.s.Root(t.seq) }
func (t checkpointTree) Children(id NodeID) ([]Digest, error) { return t.s.Children(t.seq, id) }

// Top returns the name of the root, which depends on Limit alone.
func (s *Store) Top() NodeID { return s.tree.root() }

// Children returns the digests of an interior node's Fanout children as of a checkpoint,
// waiting until they are known. The id may come from a stranger.
func (s *Store) Children(seq Seq, id NodeID) ([]Digest, error) {
	i, err := s.find(seq)
	if err != nil {
		return nil, err
	}
	if !s.tree.hasInterior(id) {
		return nil, fmt.Errorf("%w: %v", ErrNoNode, id)
	}
	s.hasher.root(s.epochs[i])
	return s.hasher.children(s.epochs[i:], id), nil
}

// Compare calls differ with each page that is not the same in two trees, in rising order, until
// it returns false. It looks only below nodes that differ.
func Compare(a, b Tree, differ func(PageNum) bool) error {
	if a.Top() != b.Top() {
		return fmt.Errorf("fsmerkle: compare trees of height %d and %d", a.Top().Level, b.Top().Level)
	}
	rootA, err := a.Root()
	if err != nil {
		return err
	}
	rootB, err := b.Root()
	if err != nil || rootA == rootB {
		return err
	}
	_, err = compareBelow(a, b, a.Top(), differ)
	return err
}

func compareBelow(a, b Tree, id NodeID, differ func(PageNum) bool) (more bool, err error) {
	inA, err := a.Children(id)
	if err != nil {
		return false, err
	}
	inB, err := b.Children(id)
	if err != nil {
		return false, err
	}
	if len(inA) != Fanout || len(inB) != Fanout {
		return false, fmt.Errorf("fsmerkle: node %v: got %d and %d children, want %d", id, len(inA), len(inB), Fanout)
	}
	for i := range inA {
		child := id.Child(i)
		switch {
		case inA[i] == inB[i]:
			continue
		case child.Level == 0:
			more = differ(child.Page())
		default:
			more, err = compareBelow(a, b, child, differ)
		}
		if err != nil || !more {
			return false, err
		}
	}
	return true, nil
}

// An Install brings the store to a checkpoint of which only the root is known, with pages
// and nodes from peers that need not be trusted: an offer is believed if its digest is
// the one that its parent, believed before, has for it [TOCS §4.6.2]. Pages that the
// store has already are not asked for.
//
//	in, err := s.Install(seq, root)
//	for !in.Done() {
//		ask peers for in.Wants(n)
//		give answers to in.OfferNode, in.OfferPage; in.Retry those not answered or refused
//	}
//	err = in.Commit()
//
// Nothing is visible before Commit. The owner must leave the live pages alone meanwhile,
// but may read them and serve the checkpoints held. A store has one session at a time.
type Install struct {
	s       *Store
	seq     Seq
	version uint64 // of the store, when the session began: the pages compared with must not change

	// target has the digests of the checkpoint to install, as far as known. A node's
	// children are known iff they hash to the node's digest there; unknown ones are zeros.
	target *tree

	// staged has the frames of the pages fetched. Invariant: each has the digest that target
	// has for it, or the page is in no target any more.
	staged table[frame]
	pages  vector[uint32] // all those ever staged, to find the frames again
	loans  []loan         // memory that the caller fills

	todo  []NodeID            // wanted, and not asked for; a stack
	asked map[NodeID]struct{} // wanted, and asked for
	d     *digester
}

// maxAsked bounds the nodes and pages that a session has asked for and not got. It bounds
// todo too, at maxAsked*Fanout*height, because the next to ask for are always taken from
// the deepest nodes known.
const maxAsked = 4096

// Install begins a session that shall make the pages with the given root the live ones,
// as checkpoint seq. The live pages must be those of the latest checkpoint, or all
// untouched; otherwise ErrUnclean says to Freeze or Rollback first.
func (s *Store) Install(seq Seq, root Digest) (*Install, error) {
	if s.install != nil {
		return nil, errors.New("fsmerkle: an install session is under way")
	}
	if len(s.open.changes.items) > 0 {
		return nil, ErrUnclean
	}
	target, err := newTree(s.limit)
	if err != nil {
		return nil, err
	}
	staged, err := newTable[frame](uint64(s.limit))
	if err != nil {
		target.free()
		return nil, err
	}
	in := &Install{s: s, version: s.version, target: target, staged: staged, d: newDigester()}
	if err := in.Retarget(seq, root); err != nil {
		target.free()
		in.staged.free()
		return nil, err
	}
	s.install = in
	return in, nil
}

// Retarget aims the session at another checkpoint, because the group has moved on. Fetched
// nodes and pages that are the same there are kept; requests under way are forgotten.
func (in *Install) Retarget(seq Seq, root Digest) error {
	if err := in.check(); err != nil {
		return err
	}
	if in.s.open.held && seq <= in.s.open.seq {
		return fmt.Errorf("fsmerkle: checkpoint %d does not follow %d", seq, in.s.open.seq)
	}
	in.s.hasher.idle()
	in.seq = seq
	in.todo = in.todo[:0]
	in.asked = make(map[NodeID]struct{})
	*in.target.at(in.s.Top()) = root
	in.settle(in.s.Top())
	return nil
}

// check says why the session cannot go on, if so.
func (in *Install) check() error {
	switch {
	case in.s == nil:
		return ErrOver
	case in.s.version != in.version || len(in.s.open.changes.items) > 0:
		return ErrUnclean
	default:
		return nil
	}
}

// Seq returns the number of the checkpoint the session is aimed at.
func (in *Install) Seq() Seq { return in.seq }

// Wants returns up to max nodes and pages (level 0) that are to be asked for, and counts them
// as asked for. There may be none for now although there will be more, when too many are.
func (in *Install) Wants(max int) []NodeID {
	n := min(max, len(in.todo), maxAsked-len(in.asked))
	if n <= 0 {
		return nil
	}
	from := len(in.todo) - n
	wants := slices.Clone(in.todo[from:])
	slices.Reverse(wants)
	in.todo = in.todo[:from]
	for _, id := range wants {
		in.asked[id] = struct{}{}
	}
	return wants
}

// Retry makes something asked for wanted again: the peer was silent, or lied.
func (in *Install) Retry(id NodeID) {
	if _, ok := in.asked[id]; ok {
		delete(in.asked, id)
		in.todo = append(in.todo, id)
	}
}

// Done reports whether nothing is missing.
func (in *Install) Done() bool { return len(in.todo) == 0 && len(in.asked) == 0 }

// OfferNode gives the session the digests of a node's children, from anyone.
func (in *Install) OfferNode(id NodeID, children []Digest) error {
	if err := in.expects(id); err != nil {
		return err
	}
	if id.Level == 0 || len(children) != Fanout {
		return fmt.Errorf("%w: got %d children for %v, want %d", ErrMismatch, len(children), id, Fanout)
	}
	if in.d.node(id, in.s.Top(), children) != *in.target.at(id) {
		return fmt.Errorf("%w: node %v", ErrMismatch, id)
	}
	for i, d := range children {
		if id.Child(i).Page() >= in.s.limit && d != (Digest{}) {
			return fmt.Errorf("%w: node %v has pages beyond our limit of %d", ErrMismatch, id, in.s.limit)
		}
	}
	delete(in.asked, id)
	for i, d := range slices.Backward(children) {
		in.learn(id.Child(i), d)
	}
	return nil
}

// OfferPage gives the session the contents of a page, from anyone.
func (in *Install) OfferPage(n PageNum, contents []byte) error {
	if err := in.expects(NodeID{Index: uint64(n)}); err != nil {
		return err
	}
	if len(contents) != PageSize {
		return fmt.Errorf("%w: got %d bytes for page %d, want %d", ErrMismatch, len(contents), n, PageSize)
	}
	return in.stage(n, contents, in.d.page(n, contents))
}

// OfferDigested is OfferPage for a caller that has computed the page's digest by
// DigestPage, perhaps on another goroutine.
func (in *Install) OfferDigested(n PageNum, contents []byte, d Digest) error {
	if err := in.expects(NodeID{Index: uint64(n)}); err != nil {
		return err
	}
	if len(contents) != PageSize {
		return fmt.Errorf("%w: got %d bytes for page %d, want %d", ErrMismatch, len(contents), n, PageSize)
	}
	return in.stage(n, contents, d)
}

var digesters = sync.Pool{New: func() any { return newDigester() }}

// DigestPage computes the digest of a page of PageSize bytes. It may be called on any goroutine.
func DigestPage(n PageNum, contents []byte) Digest {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	return d.page(n, contents)
}

// stage keeps a page that was asked for and has digest d, if that is the one wanted.
func (in *Install) stage(n PageNum, contents []byte, d Digest) error {
	id := NodeID{Index: uint64(n)}
	if d != *in.target.at(id) {
		return fmt.Errorf("%w: page %d", ErrMismatch, n)
	}
	delete(in.asked, id)
	f := in.takeLent(contents)
	if f == absent {
		f, _ = in.s.arena.take()
		copy(in.s.arena.bytes(f), contents)
	}
	in.staged.items[n] = f
	in.pages.push(uint32(n))
	return nil
}

// A loan is frames in a row, lent to be filled.
type loan struct {
	mem   []byte
	first frame
	taken []bool // these have become pages of the session
}

// Lend lends memory in a row for up to max pages, but one at least. The caller may fill it on any
// goroutine, and offer it a page at a time: OfferPage and OfferDigested take over contents that
// lie in such memory, and do not copy them. From then on these may not be written any more. The
// memory is void after Return, Commit and Abort.
func (in *Install) Lend(max int) []byte {
	if in.check() != nil {
		return nil
	}
	first, n := in.s.arena.takeRun(max)
	l := loan{mem: in.s.arena.run(first, n), first: first, taken: make([]bool, n)}
	in.loans = append(in.loans, l)
	return l.mem
}

// Ready makes lent memory resident, which costs less than touching its pages one by one. It may be
// called on any goroutine.
func Ready(lent []byte) { ready(lent) }

// Return ends a loan. What was not taken over goes back to the store.
func (in *Install) Return(lent []byte) {
	if in.s == nil {
		return
	}
	for i := range in.loans {
		if &in.loans[i].mem[0] == &lent[0] {
			in.endLoan(&in.loans[i])
			in.loans = slices.Delete(in.loans, i, i+1)
			return
		}
	}
}

func (in *Install) endLoan(l *loan) {
	for i, taken := range l.taken {
		if !taken {
			in.s.arena.release(l.first + frame(i))
		}
	}
}

// takeLent takes the frame over that contents lie in, or returns none if they lie in no loan.
func (in *Install) takeLent(contents []byte) frame {
	for _, l := range in.loans {
		at := uintptr(unsafe.Pointer(&contents[0])) - uintptr(unsafe.Pointer(&l.mem[0]))
		if i := at / PageSize; i < uintptr(len(l.taken)) && at%PageSize == 0 && !l.taken[i] {
			l.taken[i] = true
			return l.first + frame(i)
		}
	}
	return absent
}

func (in *Install) expects(id NodeID) error {
	if err := in.check(); err != nil {
		return err
	}
	if _, ok := in.asked[id]; !ok {
		return fmt.Errorf("%w: %v", ErrUnwanted, id)
	}
	return nil
}

// learn takes note of a digest vouched for by its parent.
func (in *Install) learn(id NodeID, d Digest) {
	at := in.target.at(id)
	if *at != d {
		*at = d
		if id.Level == 0 && id.Page() < in.s.limit {
			in.unstage(id.Page()) // fetched for an earlier target, and of no use for this one
		}
	}
	in.settle(id)
}

// settle queues the nodes and pages that must be asked for below a node whose digest is known.
func (in *Install) settle(id NodeID) {
	want := *in.target.at(id)
	switch {
	case want == *in.s.tree.at(id):
		// We have it, and all below it.
	case want == Digest{}:
		// All zeros below; there is nothing to fetch.
	case id.Level == 0:
		if in.staged.items[id.Index] == absent {
			in.todo = append(in.todo, id)
		}
	case in.d.node(id, in.s.Top(), in.target.children(id)) == want:
		for i := range Fanout { // known from an earlier target
			in.settle(id.Child(Fanout - 1 - i))
		}
	default:
		in.todo = append(in.todo, id)
	}
}

func (in *Install) unstage(n PageNum) {
	in.s.arena.release(in.staged.items[n])
	in.staged.items[n] = absent
}

// Commit makes the fetched pages live, and a checkpoint, and ends the session. Its cost
// grows with the pages that differ, not with those that stay.
func (in *Install) Commit() error {
	if err := in.check(); err != nil {
		return err
	}
	if !in.Done() {
		return fmt.Errorf("%w: %d", ErrMissing, len(in.todo)+len(in.asked))
	}
	s := in.s
	in.apply(s.Top(), false)
	target := in.target
	in.target = nil
	in.Abort()
	s.freeze(in.seq, nil, target)
	return nil
}

// apply gives the pages below a node the contents that target asks for, all zeros if an
// ancestor is zeros.
func (in *Install) apply(id NodeID, zeros bool) {
	want := *in.target.at(id)
	if zeros {
		want = Digest{}
	}
	if want == *in.s.tree.at(id) {
		return
	}
	if id.Level > 0 {
		for i := range Fanout {
			in.apply(id.Child(i), want == Digest{})
		}
		return
	}
	f := absent
	if want != (Digest{}) {
		f, in.staged.items[id.Index] = in.staged.items[id.Index], absent
	}
	in.s.place(id.Page(), in.s.mapping(id.Page()), f)
}

// Abort ends the session and drops the fetched pages. After Commit it does nothing.
func (in *Install) Abort() {
	if in.s == nil {
		return
	}
	for _, n := range in.pages.items {
		in.unstage(PageNum(n))
	}
	for i := range in.loans {
		in.endLoan(&in.loans[i])
	}
	in.loans = nil
	in.pages.free()
	in.staged.free()
	if in.target != nil {
		in.target.free()
	}
	in.s.install = nil
	in.s = nil
	in.todo, in.asked = nil, nil
}
