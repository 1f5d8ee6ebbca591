// SPDX-License-Identifier: Apache-2.0

package nfsstate

import "bfs/pkg/nfs3"

// Free pages.
//
// A page of the data area is in use, on the free list, waiting in a detached tree (an
// orphan), or above the high-water mark. The list is the one of the seventh edition of
// Unix: a free page becomes a block that holds the numbers of further free pages, and
// those are all zero, so that they cost no memory. Taking and giving are O(1), last in
// first out, and depend on nothing but the pages.
//
//	block of the free list
//	  0  next   u32     the next block, 0 at the end
//	  4  count  u32
//	  8  pages  u32 × freeBlock
const (
	freeNext  = 0
	freeCount = 4
	freeFirst = 8
	freeBlock = (pageSize - freeFirst) / 4
)

// reclaimPages is how many pages of orphans one operation gives back beyond its own work.
// It is more than an operation of 1 MiB takes, so orphans dwindle even while others write.
const reclaimPages = 512

// room says whether an operation that needs that many more pages and inodes may begin,
// and makes sure that allocations up to this number succeed: after it, an operation runs
// to its end, and nothing is ever half done.
func (fs *FS) room(e exportID, pages, inodes uint64) nfs3.Status {
	if st := fs.quota(e, pages, inodes); st != nfs3.OK {
		return st
	}
	if pages > fs.freeAtAll() || inodes > fs.freeInodes() {
		return nfs3.ErrNoSpc
	}
	if at := fs.freeAtOnce(); pages > at {
		fs.reclaim(int(pages - at))
	}
	return nfs3.OK
}

// freeAtOnce counts the pages that allocPage can give now.
func (fs *FS) freeAtOnce() uint64 {
	b := fs.read(fs.at.super)
	return uint64(le.Uint32(b[superFreePages:])) + uint64(uint32(fs.at.pages)-le.Uint32(b[superPageHigh:]))
}

// freeAtAll counts the free pages including the orphans, which can be freed at any time.
func (fs *FS) freeAtAll() uint64 { return fs.freeAtOnce() + uint64(fs.counter(superOrphanPages)) }

// allocPage allocates a page of zeros and charges the export for it. Requires room.
func (fs *FS) allocPage(e exportID) pageNo {
	fs.charge(e, 1, 0)
	s := fs.modify(fs.at.super)
	head := pageNo(le.Uint32(s[superFreeHead:]))
	if head == 0 {
		p := le.Uint32(s[superPageHigh:])
		invariant(p < uint32(fs.at.pages), "page allocated without room")
		le.PutUint32(s[superPageHigh:], p+1)
		return pageNo(p)
	}
	le.PutUint32(s[superFreePages:], le.Uint32(s[superFreePages:])-1)
	block := fs.read(head)
	n := le.Uint32(block[freeCount:])
	if n == 0 {
		le.PutUint32(s[superFreeHead:], le.Uint32(block[freeNext:]))
		fs.zero(head)
		return head
	}
	b := fs.modify(head)
	slot := b[freeFirst+4*(n-1):]
	p := pageNo(le.Uint32(slot))
	le.PutUint32(slot, 0)
	le.PutUint32(b[freeCount:], n-1)
	return p
}

// freePage gives a page of the export back.
func (fs *FS) freePage(e exportID, p pageNo) {
	fs.charge(e, -1, 0)
	fs.release(p)
}

// release puts a page that no export is charged for on the free list.
func (fs *FS) release(p pageNo) {
	invariant(p >= fs.at.data && p < fs.at.pages, "freed page is not of the data area")
	s := fs.modify(fs.at.super)
	le.PutUint32(s[superFreePages:], le.Uint32(s[superFreePages:])+1)
	head := pageNo(le.Uint32(s[superFreeHead:]))
	if head != 0 {
		if n := le.Uint32(fs.read(head)[freeCount:]); n < freeBlock {
			b := fs.modify(head)
			le.PutUint32(b[freeFirst+4*n:], uint32(p))
			le.PutUint32(b[freeCount:], n+1)
			fs.zero(p)
			return
		}
	}
	b := fs.overwrite(p)
	clear(b)
	le.PutUint32(b[freeNext:], uint32(head))
	le.PutUint32(s[superFreeHead:], uint32(p))
}

// Orphans.
//
// Removing a file of gigabytes must not stall the group. Its tree is detached from the
// inode whole, in one step, and put on a list that runs through the headers of its own
// pages. Every later operation that writes frees a bounded number of them. They count as
// free everywhere, and an operation that needs them at once frees them at once.

// orphan detaches the subtree at map page p, which is charged to the export no longer.
func (fs *FS) orphan(e exportID, p pageNo) {
	total := mapTotal(fs.read(p))
	fs.charge(e, -int64(total), 0)
	fs.addCounter(superOrphanPages, int64(total))
	fs.pushOrphan(p)
}

// pushOrphan makes p the first of the list.
func (fs *FS) pushOrphan(p pageNo) {
	b := fs.modify(p)
	le.PutUint32(b[mapNext:], fs.counter(superOrphanHead))
	le.PutUint32(b[mapLeft:], mapFan)
	fs.setCounter(superOrphanHead, uint32(p))
}

// reclaim frees that many pages of orphans, or all there are.
func (fs *FS) reclaim(pages int) {
	for pages > 0 {
		head := pageNo(fs.counter(superOrphanHead))
		if head == 0 {
			return
		}
		pages -= fs.reclaimFrom(head, pages)
	}
}

// reclaimFrom works on the first orphan: it frees its data pages, or makes its last child the
// first orphan, or frees p itself once it has no child left. It says how many pages it freed.
func (fs *FS) reclaimFrom(p pageNo, most int) int {
	b := fs.modify(p)
	freed, left := 0, le.Uint32(b[mapLeft:])
	for ; left > 0 && freed < most; left-- {
		c := mapChild(b, uint64(left-1))
		switch {
		case c == 0:
		case mapLevel(b) > 1:
			le.PutUint32(b[mapLeft:], left-1)
			fs.pushOrphan(c)
			return freed
		default:
			fs.release(c)
			freed++
		}
	}
	le.PutUint32(b[mapLeft:], left)
	if left == 0 && freed < most {
		fs.setCounter(superOrphanHead, le.Uint32(b[mapNext:]))
		fs.release(p)
		freed++
	}
	fs.addCounter(superOrphanPages, -int64(freed))
	return freed
}
