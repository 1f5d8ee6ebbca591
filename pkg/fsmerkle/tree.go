// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"math/bits"
	"unsafe"

	"bfs/pkg/internal/blockhash"
)

// A Digest stands for the contents of a page, or of all pages below a node.
type Digest [sha256.Size]byte

// String shows the first bytes, enough to tell digests apart in a message.
func (d Digest) String() string { return fmt.Sprintf("%x", d[:8]) }

// Fanout is the number of children of an interior node. Few make more levels, many make more to
// hash for one page changed; see the measurement in the package's comment.
const Fanout = 1 << fanoutBits

const fanoutBits = 4

// A NodeID names a node of the tree: pages are level 0, where the index is the page number, and
// node i of level l has the nodes Fanout*i to Fanout*i+Fanout-1 of level l-1 as its children.
type NodeID struct {
	Level uint8
	Index uint64
}

func (id NodeID) String() string { return fmt.Sprintf("%d/%d", id.Level, id.Index) }

// Child returns the id of child i of an interior node.
func (id NodeID) Child(i int) NodeID {
	return NodeID{id.Level - 1, id.Index<<fanoutBits + uint64(i)}
}

// Parent returns the id of the node this one is a child of.
func (id NodeID) Parent() NodeID { return NodeID{id.Level + 1, id.Index >> fanoutBits} }

// Page returns the first page below a node.
func (id NodeID) Page() PageNum { return PageNum(id.Index << (fanoutBits * uint(id.Level))) }

// nodeKey is a NodeID as one number, which sorts by level, then index.
type nodeKey uint64

func (id NodeID) key() nodeKey { return nodeKey(id.Level)<<56 | nodeKey(id.Index) }

func (k nodeKey) id() NodeID { return NodeID{uint8(k >> 56), uint64(k << 8 >> 8)} }

// height returns the level of the root of a tree over this many pages, at least 1.
func height(pages PageNum) uint8 {
	n := bits.Len64(uint64(pages - 1))
	return uint8(max(1, (n+fanoutBits-1)/fanoutBits))
}

// A tree holds the digest of each node. The digest of zeros is Digest{}, so the parts of the
// arrays that no page was ever written under are never touched and take no memory.
type tree struct {
	levels []table[Digest] // levels[l] is a whole number of families, except the root's
	limit  PageNum
}

func newTree(pages PageNum) (*tree, error) {
	t := &tree{limit: pages}
	n := uint64(pages)
	for range height(pages) {
		level, err := newTable[Digest]((n + Fanout - 1) &^ (Fanout - 1))
		if err != nil {
			t.free()
			return nil, err
		}
		t.levels = append(t.levels, level)
		n = (n + Fanout - 1) >> fanoutBits
	}
	top, err := newTable[Digest](1)
	if err != nil {
		t.free()
		return nil, err
	}
	t.levels = append(t.levels, top)
	*t.at(t.root()) = newDigester().node(t.root(), t.root(), t.children(t.root()))
	return t, nil
}

func (t *tree) free() {
	for i := range t.levels {
		t.levels[i].free()
	}
	t.levels = nil
}

func (t *tree) root() NodeID { return NodeID{Level: uint8(len(t.levels) - 1)} }

func (t *tree) at(id NodeID) *Digest { return &t.levels[id.Level].items[id.Index] }

// children returns the digests of an interior node's children, in place.
func (t *tree) children(id NodeID) []Digest {
	first := id.Index << fanoutBits
	return t.levels[id.Level-1].items[first : first+Fanout : first+Fanout]
}

// hasInterior reports whether there is an interior node of that name, with a page in range below.
func (t *tree) hasInterior(id NodeID) bool {
	return id.Level >= 1 && int(id.Level) < len(t.levels) &&
		id.Index <= uint64(t.limit-1)>>(fanoutBits*uint(id.Level))
}

// Combine returns the digest of an interior node of a store's tree from its Fanout children's,
// for a caller that keeps digests of pages elsewhere. It may be called on any goroutine.
func (s *Store) Combine(id NodeID, children []Digest) Digest {
	d := digesters.Get().(*digester)
	defer digesters.Put(d)
	return d.node(id, s.Top(), children)
}

// digester computes digests. Only here are the hash function and its inputs chosen.
//
//	page n:      H("bfspage" 0 n blockhash.Sum(contents))
//	node (l, i): H("bfsnode" l i digest of child 0 ... digest of child Fanout-1)
//	zeros:       Digest{}, for a page of zeros and a node with nothing but zeros below it
//
// with l as one byte and n, i as eight, big endian. Every input of one level has the same
// length, and the first bytes tell levels apart, so no input can be read as another.
//
// The digest of zeros does not name its place, and need not: a reader that follows a path
// from the root knows the place, and reads there "only zeros below". Anything else with
// that digest would be a preimage of 32 zero bytes. The root is hashed even above zeros
// only, so that no root is Digest{}, which callers may take for "not known".
//
// So two trees of one height with equal roots have equal pages, or a collision or that
// preimage has been found; and equal pages give equal roots, since a page of zeros is
// recognised by its contents, or by their digest in [blockhash], not by how it came about.
//
// The block digest stands in between, without the page's number, because the writer of a page
// may have it already: a page takes its contents from an operation that was digested by blocks.
type digester struct {
	hash   hash.Hash
	leaf   [16 + len(blockhash.Digest{})]byte
	prefix [16]byte
	sum    Digest
	family [Fanout]Digest // scratch for callers: a node's children
}

func newDigester() *digester { return &digester{hash: sha256.New()} }

var (
	zeroPage   [PageSize]byte
	zeroBlock  = blockhash.Sum(zeroPage[:])
	zeroFamily [Fanout]Digest
)

func (d *digester) page(n PageNum, contents []byte) Digest {
	if [PageSize]byte(contents) == zeroPage {
		return Digest{}
	}
	return d.pageOf(n, blockhash.Sum(contents))
}

// pageOf is page for contents whose block digest is known.
func (d *digester) pageOf(n PageNum, block blockhash.Digest) Digest {
	if block == zeroBlock {
		return Digest{}
	}
	copy(d.leaf[:], "bfspage\x00")
	binary.BigEndian.PutUint64(d.leaf[8:], uint64(n))
	copy(d.leaf[16:], block[:])
	return sha256.Sum256(d.leaf[:])
}

func (d *digester) node(id, root NodeID, children []Digest) Digest {
	if id != root && [Fanout]Digest(children) == zeroFamily {
		return Digest{}
	}
	copy(d.prefix[:], "bfsnode")
	d.prefix[7] = id.Level
	binary.BigEndian.PutUint64(d.prefix[8:], id.Index)
	d.hash.Reset()
	d.hash.Write(d.prefix[:])
	d.hash.Write(unsafe.Slice(&children[0][0], len(children)*len(Digest{})))
	d.hash.Sum(d.sum[:0])
	return d.sum
}
