package nfsstate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"

	"bfs/pkg/nfsstate/nfs3"
)

// A directory is a tree of entries in the order of their cookies. A cookie is the number of the entry in the
// life of the directory, from 3 on, and never given twice: so a listing goes on behind any cookie, whatever
// came and went since [RFC1813 §3.3.16]. Names of a directory of one page are looked for one by one. A larger one
// has a second tree, of the pairs (hash of a name, its cookie).
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

// nameHash is what the second tree is sorted by. Names come from strangers, and a hash they could make collide
// would cost all replicas their time, so it is a cryptographic one, cut to 64 bits.
func nameHash(name []byte) uint64 {
	sum := sha256.Sum256(name)
	return binary.BigEndian.Uint64(sum[:])
}

// entryOf reads a record of the tree of entries.
func entryOf(rec []byte) entry {
	return entry{
		cookie: binary.BigEndian.Uint64(rec),
		inode:  inodeNum(le.Uint32(rec[8:])),
		name:   rec[13:],
	}
}

// find looks name up.
func (fs *FS) find(d *inode, name []byte) (e entry, found bool) {
	entries := fs.entries(d)
	if d.indexHeight == 0 {
		if d.height == 0 {
			return e, false
		}
		n := entries.look(d.root)
		for i := range n.count() {
			if rec := n.record(i); bytes.Equal(rec[13:], name) {
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
		if bytes.Equal(at[13:], name) {
			e, found = entryOf(at), true
		}
		return !found
	})
	return e, found
}

// enterNeeds counts the pages that entering a name will allocate, at most: it is exact but for the moment when a
// directory outgrows its first page.
func (fs *FS) enterNeeds(d *inode, name []byte) uint64 {
	entries, hashes := fs.entries(d), fs.hashes(d)
	n := entries.missing(key{hi: d.nextCookie}, 13+len(name))
	switch {
	case d.indexHeight > 0:
		n += hashes.missing(key{nameHash(name), d.nextCookie}, 16)
	case d.height == 1 && n > 0:
		n += indexNeeds
	}
	return n
}

// indexNeeds is the most that the index of a directory of one page takes: three leaves of hashes and a root.
const indexNeeds = 4

// reenterNeeds is enterNeeds for a name that is entered after others were struck out. Striking gives back at least
// what it makes entering take more, with one exception: a directory that shrinks to one page drops its index, and if it then
// grows again the new one may be larger.
func (fs *FS) reenterNeeds(d *inode, name []byte) uint64 {
	n := fs.enterNeeds(d, name)
	if d.height == 2 {
		n += indexNeeds
	}
	return n
}

// enter adds a name that is not there, for inode n. The caller saves the directory. Requires room.
func (fs *FS) enter(d *inode, name []byte, n inodeNum) {
	var b [maxRecord]byte
	cookie := d.nextCookie
	d.nextCookie++
	d.size++
	binary.BigEndian.PutUint64(b[:], cookie)
	le.PutUint32(b[8:], uint32(n))
	b[12] = byte(len(name))
	copy(b[13:], name)
	entries := fs.entries(d)
	entries.insert(b[:13+len(name)])
	switch {
	case d.indexHeight > 0:
		fs.enterHash(d, name, cookie)
	case d.height > 1:
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

// strike removes an entry. The caller saves the directory.
func (fs *FS) strike(d *inode, name []byte, cookie uint64) {
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

// goodName judges a name that is to be looked up or made [RFC1813 §3.2]. ACCES is the RFC's word for what cannot be a name [RFC1813 §3.2].
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
