// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"encoding/binary"
)

// A B+tree on pages. Directories have two: the entries by cookie, which a listing walks,
// and the hashes of their names, by which a lookup finds the cookie. A node is one page
// of records that are sorted by key:
//
//	  0  form     u8     'C' entries by cookie, 'H' hashes of names
//	  1  level    u8     1: a leaf
//	  2  count    u16    records
//	  4  low      u16    the records' bytes begin here and reach to the end of the page
//	  8  slots    u16 × count, where each record begins, in the order of keys
//	     ...             zeros
//	low  records, the one written last first
//
//	record: key, big-endian, form.key bytes; then in a leaf the payload, above a child's number, u32
//
// The key of a child is at most the least key below it. The key of a node's first child
// has no meaning: the child covers every key below the second child's. A deleted record's
// bytes are closed up and zeroed, so a page depends on earlier contents only in the order
// of its records' bytes.
const (
	nodeForm   = 0
	nodeLevel  = 1
	nodeCount  = 2
	nodeLow    = 4
	nodeSlots  = 8
	nodeRoom   = pageSize - nodeSlots
	nodeMerge  = nodeRoom * 3 / 4 // two neighbours with at most this together become one
	nodeScarce = nodeRoom / 4     // a node with less is merged with such a neighbour
	maxHeight  = 16               // of a tree: every level but the last has many children
)

// A key orders records. A form that has shorter keys leaves lo out.
type key struct{ hi, lo uint64 }

func (k key) less(l key) bool { return k.hi < l.hi || k.hi == l.hi && k.lo < l.lo }

// A form holds the differences between the two kinds of tree.
type form struct {
	tag     byte
	key     int // bytes of a key, 8 or 16
	payload int // bytes of a leaf's payload before its variable part
	counted bool
}

// Entries carry an inode number and a name behind the byte of its length; hashes are all key.
var (
	entryForm = &form{tag: 'C', key: 8, payload: 5, counted: true}
	hashForm  = &form{tag: 'H', key: 16}
)

// maxRecord is the longest record: an entry with the longest name.
const maxRecord = 8 + 5 + 255

// A node is a page of a tree, seen in its form.
type node struct {
	b []byte
	f *form
}

func (n node) level() int { return int(n.b[nodeLevel]) }
func (n node) count() int { return int(le.Uint16(n.b[nodeCount:])) }
func (n node) low() int   { return int(le.Uint16(n.b[nodeLow:])) }

// used counts the bytes that records take, their slots included.
func (n node) used() int { return pageSize - n.low() + 2*n.count() }

func (n node) fits(size int) bool { return n.used()+size+2 <= nodeRoom }

func (n node) at(i int) int { return int(le.Uint16(n.b[nodeSlots+2*i:])) }

func (n node) key(i int) (k key) {
	b := n.b[n.at(i):]
	k.hi = binary.BigEndian.Uint64(b)
	if n.f.key == 16 {
		k.lo = binary.BigEndian.Uint64(b[8:])
	}
	return k
}

// record is record i, key and all.
func (n node) record(i int) []byte {
	b := n.b[n.at(i):]
	size := n.f.key + 4
	if n.level() == 1 {
		size = n.f.key + n.f.payload
		if n.f.counted {
			size += int(b[size-1])
		}
	}
	return b[:size:size]
}

func (n node) child(i int) pageNo { return pageNo(le.Uint32(n.b[n.at(i)+n.f.key:])) }

// search is the first record whose key is not less than k.
func (n node) search(k key) (i int, found bool) {
	lo, hi := 0, n.count()
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if n.key(mid).less(k) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo, lo < n.count() && n.key(lo) == k
}

// branch is the child whose keys k belongs to.
func (n node) branch(k key) int {
	lo, hi := 1, n.count() // the first child's key is not looked at
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if k.less(n.key(mid)) {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo - 1
}

func (n node) init(level int) {
	clear(n.b)
	n.b[nodeForm], n.b[nodeLevel] = n.f.tag, byte(level)
	le.PutUint16(n.b[nodeLow:], pageSize)
}

// insert makes rec record i. Requires that it fits.
func (n node) insert(i int, rec []byte) {
	count, low := n.count(), n.low()-len(rec)
	copy(n.b[low:], rec)
	slots := n.b[nodeSlots : nodeSlots+2*(count+1)]
	copy(slots[2*(i+1):], slots[2*i:2*count])
	le.PutUint16(slots[2*i:], uint16(low))
	le.PutUint16(n.b[nodeCount:], uint16(count+1))
	le.PutUint16(n.b[nodeLow:], uint16(low))
}

// remove takes record i out and closes the gap.
func (n node) remove(i int) {
	count, low, at, size := n.count(), n.low(), n.at(i), len(n.record(i))
	copy(n.b[low+size:at+size], n.b[low:at])
	clear(n.b[low : low+size])
	slots := n.b[nodeSlots : nodeSlots+2*count]
	copy(slots[2*i:], slots[2*(i+1):])
	clear(slots[2*(count-1):])
	for j := range count - 1 {
		if s := le.Uint16(slots[2*j:]); int(s) < at {
			le.PutUint16(slots[2*j:], s+uint16(size))
		}
	}
	le.PutUint16(n.b[nodeCount:], uint16(count-1))
	le.PutUint16(n.b[nodeLow:], uint16(low+size))
}

// A tree is one of a directory's trees. The root and the height are fields of the
// directory's inode, which the caller saves after a change.
type tree struct {
	fs     *FS
	f      *form
	dir    *inode // to whom the pages are counted
	root   *pageNo
	height *uint8
}

func (t *tree) look(p pageNo) node { return node{t.fs.read(p), t.f} }
func (t *tree) edit(p pageNo) node { return node{t.fs.modify(p), t.f} }

// A step is a node on the way from the root to a record, and the place taken in it. The
// root is step 0.
type step struct {
	page pageNo
	at   int
}

type path [maxHeight]step

// descend finds the way to k, or to where it would be.
func (t *tree) descend(k key, way *path) (depth int, found bool) {
	p := *t.root
	for d := range int(*t.height) {
		n := t.look(p)
		way[d].page = p
		if n.level() == 1 {
			way[d].at, found = n.search(k)
			return d, found
		}
		way[d].at = n.branch(k)
		p = n.child(way[d].at)
	}
	return -1, false
}

// get is the record with key k, until the next change of its page.
func (t *tree) get(k key) ([]byte, bool) {
	var way path
	d, found := t.descend(k, &way)
	if !found {
		return nil, false
	}
	return t.look(way[d].page).record(way[d].at), true
}

// own is the record with key k, which must be there, to be changed behind its key and
// without its length.
func (t *tree) own(k key) []byte {
	var way path
	d, found := t.descend(k, &way)
	invariant(found, "key to change is not there")
	return t.edit(way[d].page).record(way[d].at)
}

// missing counts the pages that insert allocates for a record of that size under k, or
// replace if k has a record. It is exact.
func (t *tree) missing(k key, size int) uint64 {
	if *t.height == 0 {
		return 1
	}
	var way path
	d, found := t.descend(k, &way)
	if found {
		size -= len(t.look(way[d].page).record(way[d].at)) + 2 // replace takes this record out first
	}
	var pages uint64
	for ; d >= 0; d-- {
		if t.look(way[d].page).fits(size) {
			return pages
		}
		pages++
		size = t.f.key + 4
	}
	return pages + 1 // and a new root
}

// insert adds a record, whose key must be new. Requires room for missing pages.
func (t *tree) insert(rec []byte) {
	k := recordKey(t.f, rec)
	if *t.height == 0 {
		*t.root, *t.height = t.newNode(1), 1
	}
	var way path
	d, found := t.descend(k, &way)
	invariant(!found, "key inserted twice")
	t.put(&way, d, rec)
}

// replace puts rec in the place of the record that has the same key, which must be there.
// Requires room for missing pages.
func (t *tree) replace(rec []byte) {
	var way path
	d, found := t.descend(recordKey(t.f, rec), &way)
	invariant(found, "key to replace is not there")
	n := t.edit(way[d].page)
	n.remove(way[d].at)
	t.put(&way, d, rec)
	if n = t.look(way[d].page); d > 0 && n.used() < nodeScarce {
		t.join(&way, d)
	}
}

func recordKey(f *form, rec []byte) (k key) {
	k.hi = binary.BigEndian.Uint64(rec)
	if f.key == 16 {
		k.lo = binary.BigEndian.Uint64(rec[8:])
	}
	return k
}

func (t *tree) newNode(level int) pageNo {
	p := t.fs.allocPage(t.dir.export)
	t.dir.pages++
	t.edit(p).init(level)
	return p
}

func (t *tree) freeNode(p pageNo) {
	t.fs.freePage(t.dir.export, p)
	t.dir.pages--
}

// put inserts rec at way[d], and splits the node if it is full.
func (t *tree) put(way *path, d int, rec []byte) {
	at := way[d].at
	n := t.edit(way[d].page)
	if n.fits(len(rec)) {
		n.insert(at, rec)
		return
	}
	right := t.newNode(n.level())
	r := t.edit(right)
	if t.last(way, d) && at == n.count() {
		r.insert(0, rec) // rising keys, such as cookies, leave full nodes
	} else {
		m := t.split(n, r)
		if at <= m {
			n.insert(at, rec)
		} else {
			r.insert(at-m, rec)
		}
	}
	t.hang(way, d, right, r)
}

// last says whether way[d] is the last node of its level.
func (t *tree) last(way *path, d int) bool {
	for i := range d {
		if way[i].at != t.look(way[i].page).count()-1 {
			return false
		}
	}
	return true
}

// split moves the upper half of n, by bytes, to the empty node r, and says how many records stay.
func (t *tree) split(n, r node) (stay int) {
	var page [pageSize]byte
	copy(page[:], n.b)
	old := node{page[:], n.f}
	n.init(old.level())
	for i := range old.count() {
		rec := old.record(i)
		if n.used() < old.used()/2 {
			n.insert(i, rec)
			stay++
		} else {
			r.insert(i-stay, rec)
		}
	}
	return stay
}

// hang makes the new node the right neighbour of way[d] in its parent.
func (t *tree) hang(way *path, d int, right pageNo, r node) {
	var up [16 + 4]byte
	rec := up[:t.f.key+4]
	copy(rec, r.b[r.at(0):][:t.f.key])
	le.PutUint32(rec[t.f.key:], uint32(right))
	if d > 0 {
		way[d-1].at++
		t.put(way, d-1, rec)
		return
	}
	var first [16 + 4]byte // the first child's key is not looked at
	left := first[:t.f.key+4]
	le.PutUint32(left[t.f.key:], uint32(*t.root))
	root := t.newNode(r.level() + 1)
	n := t.edit(root)
	n.insert(0, left)
	n.insert(1, rec)
	*t.root = root
	*t.height++
	invariant(*t.height < maxHeight, "tree is too high")
}

// remove deletes the record with key k, which must exist, and frees the pages that become empty.
func (t *tree) remove(k key) {
	var way path
	d, found := t.descend(k, &way)
	invariant(found, "key to remove is not there")
	t.take(&way, d)
}

// take removes the record that way[d] points at, and merges its node if it becomes scarce.
func (t *tree) take(way *path, d int) {
	p := way[d].page
	n := t.edit(p)
	n.remove(way[d].at)
	switch {
	case d == 0:
		t.lower(n)
	case n.count() == 0:
		t.freeNode(p)
		t.take(way, d-1)
	case n.used() < nodeScarce:
		t.join(way, d)
	}
}

// lower drops a root that is empty, or has a single child.
func (t *tree) lower(n node) {
	for n.count() <= 1 {
		switch {
		case n.count() == 0:
			t.freeNode(*t.root)
			*t.root, *t.height = 0, 0
			return
		case n.level() == 1:
			return
		}
		child := n.child(0)
		t.freeNode(*t.root)
		*t.root = child
		*t.height--
		n = t.look(child)
	}
}

// join merges the node at way[d] with a neighbour, if the two fit one page well.
func (t *tree) join(way *path, d int) {
	parent, at := t.look(way[d-1].page), way[d-1].at
	here := t.look(way[d].page).used()
	for _, left := range [2]int{at, at - 1} {
		if left < 0 || left+1 >= parent.count() {
			continue
		}
		other := left + 1
		if left != at {
			other = left
		}
		if here+t.look(parent.child(other)).used() <= nodeMerge {
			t.merge(parent, left)
			way[d-1].at = left + 1
			t.take(way, d-1)
			return
		}
	}
}

// merge moves the records of child left+1 to child left, and frees it. The caller takes
// it from the parent.
func (t *tree) merge(parent node, left int) {
	from := parent.child(left + 1)
	n, r := t.edit(parent.child(left)), t.look(from)
	for i := range r.count() {
		var rec [maxRecord]byte
		b := rec[:copy(rec[:], r.record(i))]
		if i == 0 && r.level() > 1 {
			copy(b, parent.record(left + 1)[:t.f.key]) // it is a first child no longer: its key must mean something
		}
		n.insert(n.count(), b)
	}
	t.freeNode(from)
}

// ascend calls f with the records from key k on, in order, until it says false. The
// records are good during the call only, and f must not change the tree.
func (t *tree) ascend(k key, f func(rec []byte) bool) {
	if *t.height > 0 {
		t.ascendBelow(*t.root, k, f)
	}
}

func (t *tree) ascendBelow(p pageNo, k key, f func(rec []byte) bool) bool {
	n := t.look(p)
	if n.level() == 1 {
		for i, _ := n.search(k); i < n.count(); i++ {
			if !f(n.record(i)) {
				return false
			}
		}
		return true
	}
	for i := n.branch(k); i < n.count(); i++ {
		if !t.ascendBelow(n.child(i), k, f) {
			return false
		}
	}
	return true
}

// drop frees all pages of the tree. It walks them, so it is for small trees.
func (t *tree) drop() {
	if *t.height > 0 {
		t.dropBelow(*t.root)
		*t.root, *t.height = 0, 0
	}
}

func (t *tree) dropBelow(p pageNo) {
	if n := t.look(p); n.level() > 1 {
		for i := range n.count() {
			t.dropBelow(n.child(i))
		}
	}
	t.freeNode(p)
}
