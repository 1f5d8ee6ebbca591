// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"

	"bfs/pkg/nfs3"
)

const pageSize = 4096

// Access is a client's access to one export, and its identity there: squash and rights
// are already applied.
type Access struct {
	UID, GID uint32
	Groups   []uint32
	ReadOnly bool

	// In translates an id of the client's in attributes that a call sets, Out one of the
	// export's in attributes that a reply tells. Nil changes nothing.
	UserIn, UserOut   func(id uint32) uint32
	GroupIn, GroupOut func(id uint32) uint32
}

// wanted returns the attributes that a call asks to set, in the export's ids. An id of
// 2^32-1 asks for nothing.
func (a Access) wanted(s nfs3.Sattr3) nfs3.Sattr3 {
	one := func(set *bool, id *uint32, in func(uint32) uint32) {
		switch {
		case !*set:
		case *id == 1<<32-1:
			*set, *id = false, 0
		case in != nil:
			*id = in(*id)
		}
	}
	one(&s.SetUID, &s.UID, a.UserIn)
	one(&s.SetGID, &s.GID, a.GroupIn)
	return s
}

// root may all.
func (a Access) root() bool { return a.UID == 0 }

// in says that the caller is in the group.
func (a Access) in(group uint32) bool {
	for _, g := range a.Groups {
		if g == group {
			return true
		}
	}
	return a.GID == group
}

// Caller holds the exports a client was given, by number.
type Caller map[uint32]Access

// A file is a file of any type.
type file struct {
	handle nfs3.Handle
	attr   nfs3.Fattr3 // all but Size and Used, which follow from the rest

	size      uint64                     // of a regular file
	pages     map[uint64]*[pageSize]byte // its pages that are not holes
	exclusive bool                       // made by an EXCLUSIVE CREATE, no SETATTR since
	verifier  nfs3.Verifier              // of that
	target    []byte                     // of a symbolic link
	entries   map[string]*entry          // of a directory
	cookie    uint64                     // of a directory: the next one
	parent    *file                      // of a directory
}

// An entry is a name in a directory.
type entry struct {
	cookie uint64
	file   *file
}

func (f *file) dir() bool { return f.attr.Type == nfs3.TypeDir }
func (f *file) reg() bool { return f.attr.Type == nfs3.TypeReg }
func (f *file) lnk() bool { return f.attr.Type == nfs3.TypeLnk }

// Model is the file systems of a group.
type Model struct {
	// Now is the time of the next call; the caller sets it.
	Now nfs3.Time3
	// Full is OK while there is room. Otherwise it is the status of a call that would
	// take room, and Took says afterwards whether it did: the model does not count pages,
	// so the test tells it.
	Full nfs3.Status
	Took bool
	// NewHandle gives the handle for a file that is now made: the model does not number
	// files itself.
	NewHandle func() nfs3.Handle
	// Verifier is the write verifier of WRITE and COMMIT.
	Verifier nfs3.Verifier
	// Linkmax and Dtpref are answered by PATHCONF and FSINFO. MaxListing bounds listings.
	Linkmax, Dtpref, MaxListing uint32

	files   map[nfs3.Handle]*file
	exports []export // in the order of their numbers
}

// An export is a file system of its own.
type export struct {
	name string
	root *file
}

// New makes a model without exports.
func New() *Model { return &Model{files: map[nfs3.Handle]*file{}} }

// AddExport makes an empty file system with the given root. Exports come in the order of
// their numbers.
func (m *Model) AddExport(name string, root nfs3.Handle, attr nfs3.Fattr3) {
	f := &file{handle: root, attr: attr, entries: map[string]*entry{}, cookie: 3}
	f.parent = f
	m.files[root] = f
	m.exports = append(m.exports, export{name, f})
}

// Files is the number of files alive, in all exports.
func (m *Model) Files() int { return len(m.files) }

// Alive says that a handle names a file.
func (m *Model) Alive(h nfs3.Handle) bool { return m.files[h] != nil }

// find is the file that a handle names, and as whom the caller comes to it.
func (m *Model) find(c Caller, fh nfs3.FileHandle) (*file, Access, nfs3.Status) {
	h, ok := fh.Parse()
	if !ok {
		return nil, Access{}, nfs3.ErrBadHandle
	}
	who, ok := c[h.Export]
	if !ok {
		return nil, Access{}, nfs3.ErrAcces
	}
	f := m.files[h]
	if f == nil {
		return nil, Access{}, nfs3.ErrStale
	}
	return f, who, nfs3.OK
}

// attributes returns the attributes of a file for GETATTR. Used is left to the caller,
// because the amount of metadata depends on the layout.
func (f *file) attributes() nfs3.Fattr3 {
	a := f.attr
	a.FSID, a.FileID = uint64(f.handle.Export), f.handle.Inode
	a.Used = uint64(len(f.pages)) * pageSize
	switch {
	case f.reg():
		a.Size = f.size
	case f.lnk():
		a.Size = uint64(len(f.target))
	case f.dir():
		a.Size = uint64(len(f.entries))
	}
	return a
}

// shown are a file's attributes for a client, with its own ids.
func (c Caller) shown(f *file) nfs3.Fattr3 {
	a, who := f.attributes(), c[f.handle.Export]
	if who.UserOut != nil {
		a.UID = who.UserOut(a.UID)
	}
	if who.GroupOut != nil {
		a.GID = who.GroupOut(a.GID)
	}
	return a
}

func (c Caller) post(f *file) nfs3.PostOpAttr {
	if f == nil {
		return nfs3.PostOpAttr{}
	}
	return nfs3.PostAttr(c.shown(f))
}

// before is the first half of f's wcc_data, and wcc the whole.
func before(f *file) nfs3.PreOpAttr {
	if f == nil {
		return nfs3.PreOpAttr{}
	}
	return nfs3.PreAttr(f.attributes())
}

func (c Caller) wcc(pre nfs3.PreOpAttr, f *file) nfs3.WccData {
	return nfs3.WccData{Before: pre, After: c.post(f)}
}

// Permissions to ask for, as in one digit of a mode.
const (
	execute = 1
	write   = 2
	read    = 4
)

// may says that the mode of f allows all bits of want.
func may(who Access, f *file, want uint32) bool {
	mode := f.attr.Mode
	if who.root() {
		return want&execute == 0 || f.dir() || mode&0o111 != 0
	}
	switch {
	case who.UID == f.attr.UID:
		mode >>= 6
	case who.in(f.attr.GID):
		mode >>= 3
	}
	return mode&want == want
}

// sticky says that the caller may not take the name of f out of d.
func sticky(who Access, d, f *file) bool {
	return d.attr.Mode&nfs3.ModeSticky != 0 && !who.root() && who.UID != d.attr.UID && who.UID != f.attr.UID
}

// full says that there is no room.
func (m *Model) full() bool {
	if m.Full == nfs3.OK {
		return false
	}
	m.Took = true
	return true
}

// badName judges the syntax of a name [RFC1813 §3.2].
func badName(name []byte) nfs3.Status {
	switch {
	case len(name) > nfs3.MaxName:
		return nfs3.ErrNameTooLong
	case len(name) == 0, bytes.IndexByte(name, '/') >= 0, bytes.IndexByte(name, 0) >= 0:
		return nfs3.ErrAcces
	}
	return nfs3.OK
}

func dot(name []byte) bool    { return string(name) == "." }
func dotdot(name []byte) bool { return string(name) == ".." }

// child is the file of a name in d, the dot names included, or nil.
func (f *file) child(name []byte) *file {
	switch {
	case dot(name):
		return f
	case dotdot(name):
		return f.parent
	}
	if e := f.entries[string(name)]; e != nil {
		return e.file
	}
	return nil
}

// put gives child a name in f, whose entry gets the next cookie.
func (m *Model) put(f *file, name []byte, child *file) { m.putAt(f, name, child, f.cookie) }

// putAt gives child a name in f, under a cookie of its own or the next.
func (m *Model) putAt(f *file, name []byte, child *file, cookie uint64) {
	f.entries[string(name)] = &entry{cookie: cookie, file: child}
	f.cookie = max(f.cookie, cookie+1)
	if child.dir() {
		child.parent = f
		f.attr.Nlink++
	}
	m.changed(f)
}

// take removes a name from f. The file that it named stays.
func (m *Model) take(f *file, name []byte) {
	if f.entries[string(name)].file.dir() {
		f.attr.Nlink--
	}
	delete(f.entries, string(name))
	m.changed(f)
}

// unlink takes one name from f, and removes f with its last name.
func (m *Model) unlink(f *file) {
	f.attr.Nlink--
	if f.dir() || f.attr.Nlink == 0 {
		delete(m.files, f.handle)
	}
	f.attr.Ctime = m.Now
}

// changed sets the times of a file whose contents changed.
func (m *Model) changed(f *file) { f.attr.Mtime, f.attr.Ctime = m.Now, m.Now }
