// SPDX-License-Identifier: Apache-2.0

// Package pbfttest helps to test programs that are replicated with pbft: it has a State, and
// replicas and clients that misbehave.
package pbfttest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"bfs/pkg/pbft"
)

// Memory is a State for tests and examples: a map of pages, copied at every checkpoint.
// It is obvious, and quick as long as pages are few. Its tree has three levels of 256
// children, so that it holds 65,536 pages.
type Memory struct {
	pages       pages
	checkpoints map[pbft.SeqNum]pages

	batch    pbft.SeqNum                  // the present one
	changed  map[pbft.PageNum]pbft.SeqNum // the last batch that changed a page, since the latest checkpoint
	watching bool
	seen     pbft.SeqNum
}

type pages map[pbft.PageNum]*page

// A page may be in several copies of the map. Then it is shared for good, and does not change.
type page struct {
	bytes  []byte
	shared bool
	hashed bool // since it was last lent for writing
	digest pbft.Digest
}

var (
	_ pbft.State     = (*Memory)(nil)
	_ pbft.Versioned = (*Memory)(nil)
)

const fanout = 256

// Limit is the number of pages a Memory holds.
const Limit pbft.PageNum = fanout * fanout

// top is the root of the tree.
var top = pbft.NodeID{Level: 2}

// NewMemory returns a State whose pages are all zeros.
func NewMemory() *Memory {
	return &Memory{pages: pages{}, checkpoints: map[pbft.SeqNum]pages{}, changed: map[pbft.PageNum]pbft.SeqNum{}}
}

// Checkpoints is the number of checkpoints that the Memory keeps.
func (m *Memory) Checkpoints() int { return len(m.checkpoints) }

var zeros [pbft.PageSize]byte

// Page implements pbft.State.
func (m *Memory) Page(n pbft.PageNum) []byte {
	if m.watching {
		m.seen = max(m.seen, m.changed[n])
	}
	return m.pages.page(n)
}

// Begin implements pbft.Versioned.
func (m *Memory) Begin(n pbft.SeqNum) { m.batch = n }

// Observe implements pbft.Versioned.
func (m *Memory) Observe() { m.watching, m.seen = true, 0 }

// Observed implements pbft.Versioned.
func (m *Memory) Observed() pbft.SeqNum {
	m.watching = false
	return m.seen
}

func (p pages) page(n pbft.PageNum) []byte {
	if x := p[n]; x != nil {
		return x.bytes
	}
	return zeros[:]
}

// Modify implements pbft.State.
func (m *Memory) Modify(n pbft.PageNum) []byte {
	if n >= Limit {
		panic(fmt.Sprintf("pbfttest: page %d, want < %d", n, Limit))
	}
	x := m.pages[n]
	switch {
	case x == nil:
		x = &page{bytes: make([]byte, pbft.PageSize)}
	case x.shared:
		x = &page{bytes: slices.Clone(x.bytes)}
	}
	x.hashed = false
	m.pages[n] = x
	m.changed[n] = m.batch
	return x.bytes
}

// Freeze implements pbft.State.
func (m *Memory) Freeze(seq pbft.SeqNum, rooted func(pbft.Digest)) {
	m.checkpoints[seq] = m.pages.clone()
	clear(m.changed)
	if rooted != nil {
		root := m.Root()
		go rooted(root)
	}
}

// Root is the digest of the pages as they are now.
func (m *Memory) Root() pbft.Digest { return m.pages.digest(top) }

// digest hashes a node recursively. Pages of zeros have the zero digest, and so have
// nodes above nothing but such pages, which also says where to stop.
func (p pages) digest(id pbft.NodeID) (d pbft.Digest) {
	if id.Level > 0 {
		var h hasher
		p.each(id, h.add)
		return h.sum()
	}
	x := p[pbft.PageNum(id.Index)]
	if x == nil {
		return d
	}
	if !x.hashed {
		x.hashed, x.digest = true, digest(x.bytes)
	}
	return x.digest
}

func digest(contents []byte) (d pbft.Digest) {
	if string(contents) != string(zeros[:]) {
		d = sha256.Sum256(contents)
	}
	return d
}

// Shape implements pbft.Tree.
func (m *Memory) Shape() (pbft.NodeID, int) { return top, fanout }

// Digest implements pbft.Tree.
func (m *Memory) Digest(_ pbft.PageNum, contents []byte) pbft.Digest { return digest(contents) }

// Combine implements pbft.Tree.
func (m *Memory) Combine(_ pbft.NodeID, children []pbft.Digest) pbft.Digest { return sum(children) }

func (p pages) children(id pbft.NodeID) []pbft.Digest {
	all := make([]pbft.Digest, fanout)
	p.each(id, func(i int, d pbft.Digest) { all[i] = d })
	return all
}

// each calls f for a node's children that may not be zero, in order.
func (p pages) each(id pbft.NodeID, f func(i int, d pbft.Digest)) {
	occupied := p.below(id)
	for i := range occupied {
		if occupied[i] {
			f(i, p.digest(pbft.NodeID{Level: id.Level - 1, Index: id.Index*fanout + uint64(i)}))
		}
	}
}

// below tells which children of a node have pages below them that were ever written.
func (p pages) below(id pbft.NodeID) (occupied [fanout]bool) {
	width := uint64(1)
	for range id.Level - 1 {
		width *= fanout
	}
	for n := range p {
		if child := uint64(n) / width; child/fanout == id.Index {
			occupied[child%fanout] = true
		}
	}
	return occupied
}

func sum(children []pbft.Digest) pbft.Digest {
	var h hasher
	for i, d := range children {
		h.add(i, d)
	}
	return h.sum()
}

// A hasher makes a node's digest of its children's that are not zero, each after its place.
type hasher []byte

func (h *hasher) add(i int, d pbft.Digest) {
	if !d.IsZero() {
		*h = append(append(*h, byte(i)), d[:]...)
	}
}

func (h hasher) sum() (d pbft.Digest) {
	if len(h) > 0 {
		d = sha256.Sum256(h)
	}
	return d
}

// Discard implements pbft.State.
func (m *Memory) Discard(below pbft.SeqNum) {
	maps.DeleteFunc(m.checkpoints, func(seq pbft.SeqNum, _ pages) bool { return seq < below })
}

// Rollback implements pbft.State.
func (m *Memory) Rollback(to pbft.SeqNum) error {
	p, ok := m.checkpoints[to]
	if !ok {
		return fmt.Errorf("no checkpoint %d", to)
	}
	m.pages = p.clone()
	clear(m.changed)
	maps.DeleteFunc(m.checkpoints, func(seq pbft.SeqNum, _ pages) bool { return seq > to })
	return nil
}

func (p pages) clone() pages {
	for _, x := range p {
		x.shared = true
	}
	return maps.Clone(p)
}

var errAbsent = errors.New("not here")

// Children implements pbft.State.
func (m *Memory) Children(seq pbft.SeqNum, id pbft.NodeID) ([]pbft.Digest, error) {
	p, ok := m.checkpoints[seq]
	if !ok || id.Level == 0 || id.Level > top.Level || id.Index >= fanout {
		return nil, errAbsent
	}
	return p.children(id), nil
}

// PageAt implements pbft.State.
func (m *Memory) PageAt(seq pbft.SeqNum, n pbft.PageNum) ([]byte, error) {
	p, ok := m.checkpoints[seq]
	if !ok || n >= Limit {
		return nil, errAbsent
	}
	return p.page(n), nil
}

// Install implements pbft.State. The pages are those of the latest checkpoint again.
func (m *Memory) Install(seq pbft.SeqNum, root pbft.Digest) (pbft.Install, error) {
	if len(m.checkpoints) > 0 {
		if err := m.Rollback(slices.Max(slices.Collect(maps.Keys(m.checkpoints)))); err != nil {
			return nil, err
		}
	}
	s := &install{m: m, old: m.pages}
	return s, s.Retarget(seq, root)
}

// install is a state being fetched.
type install struct {
	m     *Memory
	old   pages
	seq   pbft.SeqNum
	fresh pages
	want  []pbft.NodeID               // not asked for yet
	known map[pbft.NodeID]pbft.Digest // wanted or asked for, with the digest it must have
}

// Retarget implements pbft.Install.
func (s *install) Retarget(seq pbft.SeqNum, root pbft.Digest) error {
	s.seq, s.want, s.known = seq, nil, map[pbft.NodeID]pbft.Digest{}
	if s.fresh == nil {
		s.fresh = s.old.clone()
	}
	s.need(top, s.fresh.digest(top), root)
	return nil
}

// need asks for a node whose digest is not the wanted one.
func (s *install) need(id pbft.NodeID, is, want pbft.Digest) {
	if is != want {
		s.known[id] = want
		s.want = append(s.want, id)
	}
}

// Wants implements pbft.Install.
func (s *install) Wants(max int) []pbft.NodeID {
	n := min(max, len(s.want))
	w := s.want[:n:n]
	s.want = s.want[n:]
	return w
}

// OfferNode implements pbft.Install.
func (s *install) OfferNode(id pbft.NodeID, children []pbft.Digest) error {
	if d, ok := s.known[id]; !ok || len(children) != fanout || sum(children) != d {
		return errAbsent
	}
	delete(s.known, id)
	for i, is := range s.fresh.children(id) {
		s.need(pbft.NodeID{Level: id.Level - 1, Index: id.Index*fanout + uint64(i)}, is, children[i])
	}
	return nil
}

// OfferPage implements pbft.Install.
func (s *install) OfferPage(n pbft.PageNum, contents []byte) error {
	id := pbft.NodeID{Index: uint64(n)}
	d, ok := s.known[id]
	if !ok || len(contents) != pbft.PageSize || digest(contents) != d {
		return errAbsent
	}
	delete(s.known, id)
	s.fresh[n] = &page{bytes: slices.Clone(contents)}
	return nil
}

// Retry implements pbft.Install.
func (s *install) Retry(id pbft.NodeID) {
	if _, ok := s.known[id]; ok && !slices.Contains(s.want, id) {
		s.want = append(s.want, id)
	}
}

// Done implements pbft.Install.
func (s *install) Done() bool { return len(s.known) == 0 }

// Commit implements pbft.Install.
func (s *install) Commit() error {
	if !s.Done() {
		return errAbsent
	}
	s.m.pages = s.fresh
	clear(s.m.changed)
	s.m.checkpoints = map[pbft.SeqNum]pages{s.seq: s.fresh.clone()}
	return nil
}

// Abort implements pbft.Install.
func (s *install) Abort() {}
