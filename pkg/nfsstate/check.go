// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"errors"
	"fmt"

	"bfs/pkg/nfs3"
)

// Check walks everything that lies on the pages and reports every inconsistency: every page of
// the data area must have one owner, every inode as many names as its link count says, every
// tree must be sorted and every counter right. It reads the whole state and keeps a note for
// each page and inode, so it is for tests, and for an operator who suspects the host's memory.
func (fs *FS) Check() error {
	if err := fs.formatted(); err != nil {
		return err
	}
	k := checker{
		fs: fs, owner: map[pageNo]string{},
		links: map[inodeNum]uint32{}, parents: map[inodeNum]inodeNum{},
		pages: map[exportID]uint64{}, inodes: map[exportID]uint64{},
	}
	k.freeList()
	k.orphans()
	k.freeInodes()
	k.allInodes()
	k.accounts()
	return errors.Join(k.faults...)
}

// maxFaults is enough to find the cause.
const maxFaults = 20

type checker struct {
	fs      *FS
	faults  []error
	owner   map[pageNo]string     // the owner of a page of the data area
	links   map[inodeNum]uint32   // names found for an inode, and '.' and '..' for directories
	parents map[inodeNum]inodeNum // the directory a directory was found in
	pages   map[exportID]uint64   // found to be in use
	inodes  map[exportID]uint64   // inodes found, by export
	free    map[inodeNum]bool     // on the list of free inodes
	used    uint64                // inodes in use
}

func (k *checker) fault(format string, args ...any) {
	if len(k.faults) < maxFaults {
		k.faults = append(k.faults, fmt.Errorf(format, args...))
	}
}

// own notes the owner of page p, and reports a second one.
func (k *checker) own(p pageNo, who string) bool {
	if p < k.fs.at.data || p >= pageNo(k.fs.counter(superPageHigh)) {
		k.fault("page %d of %s is not of the used data area", p, who)
		return false
	}
	if old, taken := k.owner[p]; taken {
		k.fault("page %d is of %s and of %s", p, old, who)
		return false
	}
	k.owner[p] = who
	return true
}

func (k *checker) freeList() {
	fs, count := k.fs, uint32(0)
	for p := pageNo(fs.counter(superFreeHead)); p != 0 && k.own(p, "free list"); {
		b := fs.read(p)
		n := le.Uint32(b[freeCount:])
		if n > freeBlock {
			k.fault("block %d of the free list holds %d", p, n)
			return
		}
		count += n + 1
		for i := range n {
			f := pageNo(le.Uint32(b[freeFirst+4*i:]))
			if k.own(f, "free list") && !bytes.Equal(fs.read(f), zeros[:]) {
				k.fault("free page %d is not zero", f)
			}
		}
		p = pageNo(le.Uint32(b[freeNext:]))
	}
	if want := fs.counter(superFreePages); count != want {
		k.fault("free list holds %d pages, the superblock says %d", count, want)
	}
}

func (k *checker) orphans() {
	fs, count := k.fs, uint32(0)
	for p := pageNo(fs.counter(superOrphanHead)); p != 0; {
		b := fs.read(p)
		count += k.orphan(p, uint64(le.Uint32(b[mapLeft:])))
		p = pageNo(le.Uint32(b[mapNext:]))
	}
	if want := fs.counter(superOrphanPages); count != want {
		k.fault("orphans hold %d pages, the superblock says %d", count, want)
	}
}

// orphan counts the pages below p that are not yet given back.
func (k *checker) orphan(p pageNo, left uint64) (count uint32) {
	if !k.own(p, "orphan") {
		return 0
	}
	b := k.fs.read(p)
	for i := range left {
		switch c := mapChild(b, i); {
		case c == 0:
		case mapLevel(b) > 1:
			count += k.orphan(c, mapFan)
		case k.own(c, "orphan"):
			count++
		}
	}
	return count + 1
}

func (k *checker) freeInodes() {
	k.free = map[inodeNum]bool{}
	var in inode
	for n := inodeNum(k.fs.counter(superInodeFree)); n != 0; n = inodeNum(in.nlink) {
		if k.free[n] || n >= inodeNum(k.fs.counter(superInodeHigh)) {
			k.fault("inode %d is twice on the free list, or was never used", n)
			return
		}
		k.free[n] = true
		k.fs.load(n, &in)
		if in.kind != 0 {
			k.fault("inode %d on the free list is of kind %d", n, in.kind)
		}
	}
}

func (k *checker) allInodes() {
	fs := k.fs
	for n := firstInode; n < inodeNum(fs.counter(superInodeHigh)); n++ {
		var in inode
		fs.load(n, &in)
		if (in.kind == 0) != k.free[n] {
			k.fault("inode %d of kind %d, on the free list: %v", n, in.kind, k.free[n])
		}
		if in.kind == 0 {
			continue
		}
		k.used++
		k.inodes[in.export]++
		k.pages[in.export] += uint64(in.pages)
		if !fs.exported(uint32(in.export)) {
			k.fault("inode %d is of export %d, which is not there", n, in.export)
		}
		k.inode(&in)
	}
	k.linkCounts()
}

// inode looks at one inode and its trees.
func (k *checker) inode(in *inode) {
	k.values(in)
	var found uint32
	switch in.kind {
	case nfs3.TypeDir:
		found = k.directory(in)
	case nfs3.TypeReg, nfs3.TypeLnk:
		found = k.file(in)
	}
	if found != in.pages {
		k.fault("inode %d has %d pages, says %d", in.num, found, in.pages)
	}
}

// values reports values that a client's decoder would refuse. Loading an inode corrects
// its ids and device numbers.
func (k *checker) values(in *inode) {
	for _, t := range [...]nfs3.Time3{in.atime, in.mtime, in.ctime} {
		if !goodTime(t) {
			k.fault("inode %d has a time of %d nanoseconds", in.num, t.Nanoseconds)
		}
	}
	switch {
	case in.kind > nfs3.TypeFifo:
		k.fault("inode %d is of kind %d", in.num, in.kind)
	case in.mode > nfs3.ModeSettable:
		k.fault("inode %d has mode %#o", in.num, in.mode)
	case in.kind == nfs3.TypeReg && in.size > nfs3.MaxFileSize:
		k.fault("inode %d has %d bytes", in.num, in.size)
	case in.kind == nfs3.TypeLnk && (in.size > nfs3.MaxPath || goodText(k.fs.text(in)) != nfs3.OK):
		k.fault("inode %d is a link with a text of %d bytes that is no path", in.num, in.size)
	case in.kind == nfs3.TypeDir && in.nextCookie > cookieLimit:
		k.fault("directory %d gives cookie %d", in.num, in.nextCookie)
	case in.rdev != nfs3.SpecData3{} && in.kind != nfs3.TypeBlk && in.kind != nfs3.TypeChr:
		k.fault("inode %d of kind %d has a device number", in.num, in.kind)
	}
}

// file counts a file's pages, and sees that none is behind its end, and no byte.
func (k *checker) file(in *inode) (pages uint32) {
	who := fmt.Sprintf("inode %d", in.num)
	end := (in.size + pageSize - 1) / pageSize
	data := func(p pageNo, i uint64) {
		if i >= end {
			k.fault("%s: page %d is behind its end", who, i)
		}
		if rest := in.size % pageSize; i == end-1 && rest > 0 && !bytes.Equal(k.fs.read(p)[rest:], zeros[rest:]) {
			k.fault("%s: bytes behind its end", who)
		}
	}
	for i, p := range in.direct {
		if p != 0 && k.own(p, who) {
			pages++
			data(p, uint64(i))
		}
	}
	if in.height > 0 {
		pages += k.mapTree(in.root, int(in.height), directPages, who, data)
	}
	return pages
}

func (k *checker) mapTree(p pageNo, level int, first uint64, who string, data func(pageNo, uint64)) (pages uint32) {
	if !k.own(p, who) {
		return 0
	}
	b := k.fs.read(p)
	if mapLevel(b) != level || le.Uint32(b[mapNext:]) != 0 || le.Uint32(b[mapLeft:]) != 0 {
		k.fault("%s: map page %d has a wrong header", who, p)
		return 0
	}
	pages = 1
	for i := range uint64(mapFan) {
		c, at := mapChild(b, i), first+i*mapSpan[level-1]
		switch {
		case c == 0:
		case level > 1:
			pages += k.mapTree(c, level-1, at, who, data)
		case k.own(c, who):
			pages++
			data(c, at)
		}
	}
	if mapTotal(b) != pages {
		k.fault("%s: map page %d says %d pages, has %d", who, p, mapTotal(b), pages)
	}
	return pages
}

// directory looks at both trees of a directory, and notes the links they hold.
func (k *checker) directory(d *inode) (pages uint32) {
	fs, who := k.fs, fmt.Sprintf("directory %d", d.num)
	k.links[d.num]++ // its '.'
	entries, hashes := fs.entries(d), fs.hashes(d)
	names := map[string]uint64{}
	pages = k.tree(&entries, who, func(rec []byte) {
		e := entryOf(rec)
		_, twice := names[string(e.name)]
		if twice || goodName(e.name) != nfs3.OK || isDot(e.name) || isDotDot(e.name) {
			k.fault("%s: name %q is bad, or there twice", who, e.name)
		}
		if e.cookie < cookieFirst || e.cookie >= d.nextCookie {
			k.fault("%s: cookie %d of %q, the next is %d", who, e.cookie, e.name, d.nextCookie)
		}
		names[string(e.name)] = e.cookie
		k.entry(d, e)
	})
	if uint64(len(names)) != d.size {
		k.fault("%s: has %d entries, says %d", who, len(names), d.size)
	}
	if (d.height > 1) != (d.indexHeight > 0) {
		k.fault("%s: heights are %d and %d", who, d.height, d.indexHeight)
	}
	count := 0
	pages += k.tree(&hashes, who, func(rec []byte) { count++ })
	for name, cookie := range names {
		if d.indexHeight > 0 {
			if _, ok := hashes.get(key{nameHash([]byte(name)), cookie}); !ok {
				k.fault("%s: no hash of %q", who, name)
			}
		}
	}
	if d.indexHeight > 0 && count != len(names) {
		k.fault("%s: has %d hashes of %d names", who, count, len(names))
	}
	return pages
}

func (k *checker) entry(d *inode, e entry) {
	var in inode
	if e.inode < firstInode || uint64(e.inode) >= k.fs.config.Inodes {
		k.fault("directory %d: %q is inode %d", d.num, e.name, e.inode)
		return
	}
	k.fs.load(e.inode, &in)
	if in.kind == 0 || in.export != d.export {
		k.fault("directory %d: %q is inode %d of kind %d, export %d", d.num, e.name, e.inode, in.kind, in.export)
	}
	k.links[e.inode]++
	if in.kind == nfs3.TypeDir {
		k.links[d.num]++ // its '..'
		if in.parent != d.num {
			k.fault("directory %d: %q says its parent is %d", d.num, e.name, in.parent)
		}
		k.parents[e.inode] = d.num
	}
}

// tree counts a tree's pages, sees that keys rise and calls f for each record.
func (k *checker) tree(t *tree, who string, f func(rec []byte)) (pages uint32) {
	if *t.height == 0 {
		if *t.root != 0 {
			k.fault("%s: a tree without height has a root", who)
		}
		return 0
	}
	w := treeWalk{k: k, t: t, who: who, f: f}
	w.node(*t.root, int(*t.height), key{}, nil)
	return w.pages
}

type treeWalk struct {
	k     *checker
	t     *tree
	who   string
	f     func(rec []byte)
	pages uint32
	last  key
	any   bool
}

// node looks at a node whose keys must be in [from, to).
func (w *treeWalk) node(p pageNo, level int, from key, to *key) {
	if !w.k.own(p, w.who) {
		return
	}
	w.pages++
	n := w.t.look(p)
	if n.b[nodeForm] != w.t.f.tag || n.level() != level || n.count() == 0 || n.used() > nodeRoom {
		w.k.fault("%s: node %d has a wrong header", w.who, p)
		return
	}
	used := 0
	for i := range n.count() {
		used += len(n.record(i)) + 2
	}
	if gap := n.b[nodeSlots+2*n.count() : n.low()]; used != n.used() || !bytes.Equal(gap, zeros[:len(gap)]) {
		w.k.fault("%s: node %d is not packed", w.who, p)
	}
	for i := range n.count() {
		if level == 1 {
			key := n.key(i)
			if w.any && !w.last.less(key) || key.less(from) || to != nil && !key.less(*to) {
				w.k.fault("%s: node %d: key %x is out of order", w.who, p, key)
			}
			w.last, w.any = key, true
			w.f(n.record(i))
			continue
		}
		low, high := from, to
		if i > 0 {
			low = n.key(i)
		}
		if i+1 < n.count() {
			next := n.key(i + 1)
			high = &next
		}
		w.node(n.child(i), level-1, low, high)
	}
}

// linkCounts compares the names in directories with the inodes' link counts, and checks that every
// directory leads to a root.
func (k *checker) linkCounts() {
	fs := k.fs
	for e := range fs.exports() {
		root := inodeNum(le.Uint32(fs.row(e)[rowRoot:]))
		k.links[root]++ // as if there were a directory that holds it
		k.parents[root] = root
	}
	for n := firstInode; n < inodeNum(fs.counter(superInodeHigh)); n++ {
		var in inode
		fs.load(n, &in)
		if in.kind != 0 && in.nlink != k.links[n] {
			k.fault("inode %d has %d links, says %d", n, k.links[n], in.nlink)
		}
		if in.kind != nfs3.TypeDir {
			continue
		}
		at, steps := n, uint64(0)
		for k.parents[at] != at && steps <= k.used {
			at = k.parents[at]
			steps++
		}
		if steps > k.used || at == 0 {
			k.fault("directory %d is not below a root", n)
		}
	}
}

// accounts compares the pages and inodes found with the counters.
func (k *checker) accounts() {
	fs := k.fs
	for e := range fs.exports() {
		b := fs.row(e)
		if p, i := le.Uint64(b[rowPages:]), le.Uint64(b[rowInodes:]); p != k.pages[e] || i != k.inodes[e] {
			k.fault("export %d uses %d pages and %d inodes, says %d and %d", e, k.pages[e], k.inodes[e], p, i)
		}
	}
	if n := uint64(fs.counter(superInodesUsed)); n != k.used {
		k.fault("%d inodes are in use, the superblock says %d", k.used, n)
	}
	high := pageNo(fs.counter(superPageHigh))
	for p := fs.at.data; p < high; p++ {
		if _, ok := k.owner[p]; !ok {
			k.fault("page %d has no owner", p)
		}
	}
}
