// SPDX-License-Identifier: Apache-2.0

package image

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"slices"
	"unsafe"
)

// The tests' state is a map of pages, under a tree that is hashed anew for each checkpoint.
const (
	twinFanout = 4
	twinPages  = 1 << 10
	twinLevels = 5
)

type twinTree struct{}

func (twinTree) Shape() (NodeID, int) { return NodeID{Level: twinLevels}, twinFanout }

func (twinTree) Digest(n PageNum, contents []byte) (d Digest) {
	if [pageSize]byte(contents) != ([pageSize]byte{}) {
		sum := crc32.Checksum(contents, castagnoli) // quick, and the tests' disks do not forge
		d = sha256.Sum256(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint64(nil, uint64(n)), sum))
	}
	return d
}

func (twinTree) Combine(id NodeID, children []Digest) (d Digest) {
	if id.Level < twinLevels && allZero(children) {
		return d
	}
	b := binary.BigEndian.AppendUint64([]byte{id.Level}, id.Index)
	for _, child := range children {
		b = append(b, child[:]...)
	}
	return sha256.Sum256(b)
}

// A checkpoint is a Source of one checkpoint.
type checkpoint struct {
	seq   SeqNum
	pages map[PageNum]string // those that are not zeros
	tree  *table             // digests only
	asked int                // nodes and pages that were asked for
}

func newCheckpoint(seq SeqNum, pages map[PageNum]string) *checkpoint {
	c := &checkpoint{seq: seq, pages: maps.Clone(pages), tree: newTable(NodeID{Level: twinLevels}, twinFanout)}
	for n, contents := range pages {
		c.tree.set(entry{page: n, digest: twinTree{}.Digest(n, []byte(contents))})
	}
	c.tree.rebuild(twinTree{})
	return c
}

func (c *checkpoint) root() Digest { return c.tree.digest(c.tree.top) }

var errAbsent = errors.New("no such checkpoint")

func (c *checkpoint) Children(seq SeqNum, id NodeID) ([]Digest, error) {
	c.asked++
	if seq != c.seq {
		return nil, errAbsent
	}
	return c.tree.children(id), nil
}

func (c *checkpoint) PageAt(seq SeqNum, n PageNum) ([]byte, error) {
	c.asked++
	if seq != c.seq || c.pages[n] == "" {
		return nil, errAbsent
	}
	return []byte(c.pages[n]), nil
}

// A session is an Install that begins with zeros.
type session struct {
	todo  []NodeID
	known map[NodeID]Digest // wanted or asked for
	pages map[PageNum]string
}

func newSession(root Digest) *session {
	top := NodeID{Level: twinLevels}
	return &session{[]NodeID{top}, map[NodeID]Digest{top: root}, map[PageNum]string{}}
}

func (s *session) Wants(max int) []NodeID {
	n := min(max, len(s.todo))
	wants := slices.Clone(s.todo[:n])
	s.todo = s.todo[n:]
	return wants
}

func (s *session) Retry(id NodeID) { s.todo = append(s.todo, id) }

func (s *session) OfferNode(id NodeID, children []Digest) error {
	d, ok := s.known[id]
	if !ok || twinTree.Combine(twinTree{}, id, children) != d {
		return errors.New("not the node that was asked for")
	}
	delete(s.known, id)
	for i, d := range children {
		if child := (NodeID{Level: id.Level - 1, Index: id.Index*twinFanout + uint64(i)}); !d.IsZero() {
			s.known[child] = d
			s.todo = append(s.todo, child)
		}
	}
	return nil
}

func (s *session) OfferPage(n PageNum, contents []byte) error {
	d, ok := s.known[NodeID{Index: uint64(n)}]
	if !ok || twinTree.Digest(twinTree{}, n, contents) != d {
		return errors.New("not the page that was asked for")
	}
	delete(s.known, NodeID{Index: uint64(n)})
	s.pages[n] = string(contents)
	return nil
}

// A digestedSession believes the digest that it is told, so that what Load does not check shows.
type digestedSession struct{ *session }

func (s digestedSession) OfferDigested(n PageNum, contents []byte, d Digest) error {
	if s.known[NodeID{Index: uint64(n)}] != d {
		return errors.New("not the page that was asked for")
	}
	delete(s.known, NodeID{Index: uint64(n)})
	s.pages[n] = string(contents)
	return nil
}

// A lendingSession lends memory for a few pages at a time, and has each page put there.
type lendingSession struct {
	digestedSession
	lent map[*byte]int // the first byte of each loan, and its pages
	bad  string
}

func (s *lendingSession) Lend(max int) []byte {
	n := min(max, 3)
	lent := make([]byte, n*pageSize)
	s.lent[&lent[0]] = n
	return lent
}

func (*lendingSession) Ready([]byte) {}

func (s *lendingSession) Return(lent []byte) {
	if s.lent[&lent[0]]*pageSize != len(lent) {
		s.bad = "what was returned was not lent"
	}
	delete(s.lent, &lent[0])
}

func (s *lendingSession) OfferDigested(n PageNum, contents []byte, d Digest) error {
	found := false
	for first, pages := range s.lent {
		for i := range pages {
			found = found || &contents[0] == &unsafe.Slice(first, pages*pageSize)[i*pageSize]
		}
	}
	if !found {
		s.bad = "a page was not read into lent memory"
	}
	return s.digestedSession.OfferDigested(n, contents, d)
}

// change changes some pages of a state: a few, a stretch, or all.
func change(chance *rand.Rand, pages map[PageNum]string) {
	switch chance.IntN(8) {
	case 0:
		first, n := chance.IntN(twinPages), chance.IntN(300)
		for i := first; i < min(first+n, twinPages); i++ {
			pages[PageNum(i)] = contents(chance)
		}
	case 1:
		first, n := chance.IntN(twinPages), chance.IntN(twinPages)
		maps.DeleteFunc(pages, func(p PageNum, _ string) bool { return int(p) >= first && int(p) < first+n })
	default:
		for range chance.IntN(20) {
			n := PageNum(chance.IntN(twinPages))
			if chance.IntN(4) == 0 {
				delete(pages, n)
			} else {
				pages[n] = contents(chance)
			}
		}
	}
}

func contents(chance *rand.Rand) string {
	b := make([]byte, pageSize)
	binary.BigEndian.PutUint64(b[chance.IntN(pageSize-8):], chance.Uint64()|1)
	return string(b)
}
