// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"encoding/binary"
	"fmt"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/pbft"
)

// Numbers on pages are little-endian; those on the wire are big-endian, as XDR has them.
var le = binary.LittleEndian

// A pageNo is the number of a page as pages write it. 0 is no page: page 0 is never the
// data area's.
type pageNo uint32

const pageSize = fsmerkle.PageSize

// The superblock is the first page behind the library's. All counters of the whole state are here.
//
//	 0  magic        u64   "BFSstat" 1
//	 8  pages        u64   Config.Pages
//	16  reserved     u64   Config.Reserved
//	24  inodes       u64   Config.Inodes
//	32  epoch        u64   Config.Epoch
//	40  clock        u64   the agreed time of the last operation that wrote, Unix nanoseconds
//	48  pageHigh     u32   pages from here on were never used
//	52  freeHead     u32   first block of the list of free pages
//	56  freePages    u32   pages on that list, its blocks included
//	60  orphanHead   u32   first detached subtree that waits to be freed
//	64  orphanPages  u32   pages in all of them
//	68  inodeHigh    u32   inodes from here on were never used
//	72  inodeFree    u32   first of the list of free inodes
//	76  inodesUsed   u32
//	80  exports      u32   rows of the export table in use
const (
	superMagic       = 0
	superPages       = 8
	superReserved    = 16
	superInodes      = 24
	superEpoch       = 32
	superClock       = 40
	superPageHigh    = 48
	superFreeHead    = 52
	superFreePages   = 56
	superOrphanHead  = 60
	superOrphanPages = 64
	superInodeHigh   = 68
	superInodeFree   = 72
	superInodesUsed  = 76
	superExports     = 80
)

const magic = uint64('B') | 'F'<<8 | 'S'<<16 | 's'<<24 | 't'<<32 | 'a'<<40 | 't'<<48 | 1<<56

// layout says where the areas of the state begin. It follows from the Config alone.
type layout struct {
	super   pageNo // the superblock
	exports pageNo // the export table, exportPages pages
	inodes  pageNo // inode n is at page inodes + n/inodesPerPage
	data    pageNo // the first page the allocator may give
	pages   pageNo // the first page beyond the state
}

func layoutOf(c *Config) (layout, error) {
	inodePages := (c.Inodes + inodesPerPage - 1) / inodesPerPage
	need := c.Reserved + 1 + exportPages + inodePages + 1
	if c.Pages > maxPages || c.Inodes > maxPages || need > c.Pages {
		return layout{}, fmt.Errorf("nfsstate: got %d pages, want > %d (reserved %d, inodes %d) and <= %d",
			c.Pages, need, c.Reserved, c.Inodes, uint64(maxPages))
	}
	var l layout
	l.super = pageNo(c.Reserved)
	l.exports = l.super + 1
	l.inodes = l.exports + exportPages
	l.data = l.inodes + pageNo(inodePages)
	l.pages = pageNo(c.Pages)
	return l, nil
}

// format writes the superblock of an empty state. Nothing in it comes from this machine.
func (fs *FS) format() {
	b := fs.modify(fs.at.super)
	le.PutUint64(b[superMagic:], magic)
	le.PutUint64(b[superPages:], fs.config.Pages)
	le.PutUint64(b[superReserved:], fs.config.Reserved)
	le.PutUint64(b[superInodes:], fs.config.Inodes)
	le.PutUint64(b[superEpoch:], fs.config.Epoch)
	le.PutUint32(b[superPageHigh:], uint32(fs.at.data))
	le.PutUint32(b[superInodeHigh:], uint32(firstInode))
}

// formatted checks that the pages hold a state of this Config.
func (fs *FS) formatted() error {
	b := fs.read(fs.at.super)
	if err := fs.madeFor(b); err != nil {
		return err
	}
	if got := le.Uint64(b[superEpoch:]); got != fs.config.Epoch {
		return fmt.Errorf("nfsstate: superblock: got epoch %d, want %d", got, fs.config.Epoch)
	}
	return nil
}

// madeFor checks a superblock against the Config, but for the epoch.
func (fs *FS) madeFor(b []byte) error {
	for _, f := range [...]struct {
		name string
		at   int
		want uint64
	}{
		{"magic", superMagic, magic},
		{"pages", superPages, fs.config.Pages},
		{"reserved pages", superReserved, fs.config.Reserved},
		{"inodes", superInodes, fs.config.Inodes},
	} {
		if got := le.Uint64(b[f.at:]); got != f.want {
			return fmt.Errorf("nfsstate: superblock: got %s %#x, want %#x", f.name, got, f.want)
		}
	}
	return nil
}

// Renew implements pbft.Renewer: the superblock of an earlier epoch becomes this one's. Nothing
// else on the pages names the epoch.
func (fs *FS) Renew(n pbft.PageNum, contents []byte) (changed bool, err error) {
	if n != pbft.PageNum(fs.at.super) {
		return false, nil
	}
	if err := fs.madeFor(contents); err != nil {
		return false, err
	}
	if old := le.Uint64(contents[superEpoch:]); old >= fs.config.Epoch {
		return false, fmt.Errorf("nfsstate: superblock: it is of epoch %d, and the new one is to be later than %d",
			old, fs.config.Epoch)
	}
	le.PutUint64(contents[superEpoch:], fs.config.Epoch)
	return true, nil
}

// counter reads a number of the superblock.
func (fs *FS) counter(at int) uint32 { return le.Uint32(fs.read(fs.at.super)[at:]) }

// setCounter writes one.
func (fs *FS) setCounter(at int, v uint32) { le.PutUint32(fs.modify(fs.at.super)[at:], v) }

// addCounter changes one.
func (fs *FS) addCounter(at int, delta int64) {
	b := fs.modify(fs.at.super)[at:]
	v := int64(le.Uint32(b)) + delta
	invariant(v >= 0 && v <= maxPages, "counter of the superblock below zero or beyond the state")
	le.PutUint32(b, uint32(v))
}

// The pages. A slice from read is valid until the next change of that page by any function, so it
// is not kept across a call that writes. A slice from modify is valid until the operation ends.

func (fs *FS) read(p pageNo) []byte      { return fs.store.Read(fsmerkle.PageNum(p)) }
func (fs *FS) modify(p pageNo) []byte    { return fs.store.Modify(fsmerkle.PageNum(p)) }
func (fs *FS) overwrite(p pageNo) []byte { return fs.store.Overwrite(fsmerkle.PageNum(p)) }
func (fs *FS) zero(p pageNo)             { fs.store.Zero(fsmerkle.PageNum(p)) }

// put fills a page with contents of which the library knows the digest.
func (fs *FS) put(p pageNo, contents []byte, block pbft.Digest) {
	fs.store.Put(fsmerkle.PageNum(p), contents, block)
}

// invariant stops the process at a bug of its own: a stopped replica is one of the f, a
// wrong one lies with its key. It never checks the bytes of an operation.
func invariant(ok bool, what string) {
	if !ok {
		panic("nfsstate: " + what)
	}
}
