// SPDX-License-Identifier: Apache-2.0

package image

import (
	"iter"
	"maps"
	"slices"
)

// rowLength is how many nodes of a level, or pages, lie together in memory.
const rowLength = 256

// A table knows the slot of each page, and the digest of each node of the tree. Rows that
// were never written to are not there. A row stays when all in it has become zeros, so
// that memory follows the most pages that the state ever had.
type table struct {
	top    NodeID
	fanout uint64
	levels []map[uint64]*[rowLength]Digest // levels[0] has the pages
	slots  map[uint64]*[rowLength]uint32   // 0: a page of zeros
	live   int                             // pages that have a slot
}

func newTable(top NodeID, fanout int) *table {
	t := &table{top: top, fanout: uint64(fanout), slots: map[uint64]*[rowLength]uint32{}}
	for range int(top.Level) + 1 {
		t.levels = append(t.levels, map[uint64]*[rowLength]Digest{})
	}
	return t
}

var noDigests [rowLength]Digest

func (t *table) digest(id NodeID) Digest {
	if row := t.levels[id.Level][id.Index/rowLength]; row != nil {
		return row[id.Index%rowLength]
	}
	return Digest{}
}

// children lends the digests of an interior node's children, until the next change.
func (t *table) children(id NodeID) []Digest {
	first := id.Index * t.fanout
	row := t.levels[id.Level-1][first/rowLength]
	if row == nil {
		row = &noDigests
	}
	return row[first%rowLength:][:t.fanout]
}

func (t *table) child(id NodeID, i int) NodeID {
	return NodeID{Level: id.Level - 1, Index: id.Index*t.fanout + uint64(i)}
}

func (t *table) setDigest(id NodeID, d Digest) {
	put(t.levels[id.Level], id.Index, d)
}

// put sets a value in a row, and makes the row first if there is need.
func put[T comparable](rows map[uint64]*[rowLength]T, index uint64, v T) {
	var zero T
	row := rows[index/rowLength]
	if row == nil {
		if v == zero {
			return
		}
		row = new([rowLength]T)
		rows[index/rowLength] = row
	}
	row[index%rowLength] = v
}

func (t *table) slot(n PageNum) uint32 {
	if row := t.slots[uint64(n)/rowLength]; row != nil {
		return row[n%rowLength]
	}
	return 0
}

// set puts a page into a slot, or into none.
func (t *table) set(e entry) {
	if t.slot(e.page) != 0 {
		t.live--
	}
	if e.slot != 0 {
		t.live++
	}
	put(t.slots, uint64(e.page), e.slot)
	t.setDigest(NodeID{Index: uint64(e.page)}, e.digest)
}

// occupied goes through the pages that have slots, in rising order.
func (t *table) occupied() iter.Seq2[PageNum, uint32] {
	return func(yield func(PageNum, uint32) bool) {
		for _, r := range slices.Sorted(maps.Keys(t.slots)) {
			for i, slot := range t.slots[r] {
				if slot != 0 && !yield(PageNum(r*rowLength+uint64(i)), slot) {
					return
				}
			}
		}
	}
}

// rebuild computes the digests of the interior nodes from the pages'.
func (t *table) rebuild(tree Tree) {
	for level := uint8(1); level <= t.top.Level; level++ {
		for r := range t.levels[level-1] {
			for first := r * rowLength; first < (r+1)*rowLength; first += t.fanout {
				id := NodeID{Level: level, Index: first / t.fanout}
				if children := t.children(id); !allZero(children) {
					t.setDigest(id, tree.Combine(id, children))
				}
			}
		}
	}
	t.setDigest(t.top, tree.Combine(t.top, t.children(t.top)))
}

func allZero(digests []Digest) bool {
	for i := range digests {
		if !digests[i].IsZero() {
			return false
		}
	}
	return true
}
