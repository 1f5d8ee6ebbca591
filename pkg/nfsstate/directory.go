// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"bfs/pkg/nfs3"
)

// A directory is a tree of entries in the order of their cookies. A cookie is the number of
// the entry in the life of the directory, from 3 on, and is never given twice. So a listing
// goes on behind any cookie, whichever entries came and went since [RFC1813 §3.3.16].
// RENAME gives no entry a later cookie than it had, because a reader would meet the entry
// again and again: an entry that gets another name in its directory keeps its cookie, and
// so does a name that gets another file. In a directory of one page names are searched one
// by one. A larger one has a second tree, of the pairs (hash of a name, its cookie).
const (
	cookieDot    = 1
	cookieDotDot = 2
	cookieFirst  = 3
	cookieLimit  = 1 << 63
)

// An entry is a name in a directory. The name is lent by the page, until it changes.
type entry struct {
	cookie uint64
	inode  inodeNum
	name   []byte
}

func (fs *FS) entries(d *inode) tree {
	return tree{fs: fs, f: entryForm, dir: d, root: &d.root, height: &d.height}
}

func (fs *FS) hashes(d *inode) tree {
	return tree{fs: fs, f: hashForm, dir: d, root: &d.index, height: &d.indexHeight}
}

// nameHash returns the key of a name in the second tree. Names come from strangers, and
// colliding ones would cost all replicas time, so it is a cryptographic hash, cut to 64 bits.
func nameHash(name []byte) uint64 {
	sum := sha256.Sum256(name)
	return binary.BigEndian.Uint64(sum[:])
}

// entryHead is the length of the part of a record before the name, in the tree of
// entries: cookie u64, inode u32, length of the name u8.
const entryHead = 13

// entryOf reads a record of the tree of entries.
func entryOf(rec []byte) entry {
	return entry{
		cookie: binary.BigEndian.Uint64(rec),
		inode:  inodeNum(le.Uint32(rec[8:])),
		name:   rec[entryHead:],
	}
}

// record writes e as a record of the tree of entries to b.
func (e entry) record(b *[maxRecord]byte) []byte {
	binary.BigEndian.PutUint64(b[:], e.cookie)
	setEntryInode(b[:], e.inode)
	b[entryHead-1] = byte(len(e.name))
	return b[:entryHead+copy(b[entryHead:], e.name)]
}

func setEntryInode(rec []byte, n inodeNum) { le.PutUint32(rec[8:], uint32(n)) }

// find looks name up.
func (fs *FS) find(d *inode, name []byte) (e entry, found bool) {
	entries := fs.entries(d)
	if d.indexHeight == 0 {
		if d.height == 0 {
			return e, false
		}
		n := entries.look(d.root)
		for i := range n.count() {
			if rec := n.record(i); bytes.Equal(rec[entryHead:], name) {
				return entryOf(rec), true
			}
		}
		return e, false
	}
	h := nameHash(name)
	hashes := fs.hashes(d)
	hashes.ascend(key{hi: h}, func(rec []byte) bool {
		if binary.BigEndian.Uint64(rec) != h {
			return false
		}
		at, ok := entries.get(key{hi: binary.BigEndian.Uint64(rec[8:])})
		invariant(ok, "hash without an entry")
		if bytes.Equal(at[entryHead:], name) {
			e, found = entryOf(at), true
		}
		return !found
	})
	return e, found
}

// enterNeeds bounds the number of pages that entering a name will allocate. The bound is
// exact except when a directory outgrows its first page.
func (fs *FS) enterNeeds(d *inode, name []byte) uint64 { return fs.entryNeeds(d, name, d.nextCookie) }

// renameNeeds does the same for an entry that gets another name. The hash of the old name
// is removed first, which never makes the other hash need more pages: nodes that are
// merged then have room for a record.
func (fs *FS) renameNeeds(d *inode, name []byte, cookie uint64) uint64 {
	return fs.entryNeeds(d, name, cookie)
}

// entryNeeds counts the pages that a name needs under a cookie that is new, or has an
// entry whose place the name takes.
func (fs *FS) entryNeeds(d *inode, name []byte, cookie uint64) uint64 {
	entries, hashes := fs.entries(d), fs.hashes(d)
	n := entries.missing(key{hi: cookie}, entryHead+len(name))
	switch {
	case d.indexHeight > 0:
		n += hashes.missing(key{nameHash(name), cookie}, 16)
	case d.height == 1 && n > 0:
		n += indexNeeds
	}
	return n
}

// indexNeeds is the most that the index of a directory of one page takes: three leaves of
// hashes and a root.
const indexNeeds = 4

// enter adds a name that does not exist yet, for inode n. The caller saves the directory.
// Requires room for enterNeeds.
func (fs *FS) enter(d *inode, name []byte, n inodeNum) {
	var b [maxRecord]byte
	e := entry{d.nextCookie, n, name}
	d.nextCookie++
	d.size++
	entries := fs.entries(d)
	entries.insert(e.record(&b))
	fs.index(d, e)
}

// renameEntry gives the entry old of a directory another name, which is not there. Its
// cookie stays. The caller saves the directory. Requires room for renameNeeds.
func (fs *FS) renameEntry(d *inode, old entry, name []byte) {
	var b [maxRecord]byte
	e := entry{old.cookie, old.inode, name}
	if hashes := fs.hashes(d); d.indexHeight > 0 {
		hashes.remove(key{nameHash(old.name), old.cookie})
	}
	entries := fs.entries(d)
	entries.replace(e.record(&b))
	fs.index(d, e)
}

// repoint lets the entry with a cookie name inode n.
func (fs *FS) repoint(d *inode, cookie uint64, n inodeNum) {
	entries := fs.entries(d)
	setEntryInode(entries.own(key{hi: cookie}), n)
}

// index enters the hash of e, which is in the tree of entries already; all hashes, if the
// directory has just outgrown its first page; and drops the index of a directory that has
// shrunk to one.
func (fs *FS) index(d *inode, e entry) {
	hashes, entries := fs.hashes(d), fs.entries(d)
	switch {
	case d.height <= 1:
		hashes.drop()
	case d.indexHeight > 0:
		fs.enterHash(d, e.name, e.cookie)
	default:
		entries.ascend(key{}, func(rec []byte) bool {
			e := entryOf(rec)
			fs.enterHash(d, e.name, e.cookie)
			return true
		})
	}
}

func (fs *FS) enterHash(d *inode, name []byte, cookie uint64) {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], nameHash(name))
	binary.BigEndian.PutUint64(b[8:], cookie)
	hashes := fs.hashes(d)
	hashes.insert(b[:])
}

// removeEntry removes an entry. The caller saves the directory.
func (fs *FS) removeEntry(d *inode, name []byte, cookie uint64) {
	hashes := fs.hashes(d)
	if d.indexHeight > 0 {
		hashes.remove(key{nameHash(name), cookie})
	}
	entries := fs.entries(d)
	entries.remove(key{hi: cookie})
	d.size--
	if d.height <= 1 {
		hashes.drop()
	}
}

// goodName checks a name that is to be looked up or made. ACCES is the RFC's status for
// bytes that cannot be a name [RFC1813 §3.2].
func goodName(name []byte) nfs3.Status {
	switch {
	case len(name) > nfs3.MaxName:
		return nfs3.ErrNameTooLong
	case len(name) == 0, bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0:
		return nfs3.ErrAcces
	}
	return nfs3.OK
}

func isDot(name []byte) bool    { return string(name) == "." }
func isDotDot(name []byte) bool { return string(name) == ".." }
func isDots(name []byte) bool   { return isDot(name) || isDotDot(name) }
