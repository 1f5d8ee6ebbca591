// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bfs/pkg/nfs3"
)

// search finds a name in a directory for which the caller has execute permission.
func (fs *FS) search(c *caller, d *inode, name []byte) (e entry, st nfs3.Status) {
	if st = goodName(name); st != nfs3.OK {
		return e, st
	}
	if !c.who.may(d, mayExec) {
		return e, nfs3.ErrAcces
	}
	switch {
	case isDot(name):
		return entry{cookie: cookieDot, inode: d.num}, nfs3.OK
	case isDotDot(name):
		return entry{cookie: cookieDotDot, inode: d.parent}, nfs3.OK
	}
	e, found := fs.find(d, name)
	if !found {
		return e, nfs3.ErrNoEnt
	}
	return e, nfs3.OK
}

// mayEnter checks whether the caller may add a name to a directory. If the name is taken,
// the status is EXIST, and its entry is returned unless the name is one of the dots.
func (fs *FS) mayEnter(c *caller, d *inode, name []byte) (e entry, st nfs3.Status) {
	switch {
	case c.readOnly:
		return e, nfs3.ErrROFS
	case isDots(name):
		return e, nfs3.ErrExist
	}
	switch e, st = fs.search(c, d, name); {
	case st == nfs3.OK:
		return e, nfs3.ErrExist
	case st != nfs3.ErrNoEnt:
		return e, st
	case !c.who.may(d, mayWrite):
		return e, nfs3.ErrAcces
	}
	return e, nfs3.OK
}

// lookup is LOOKUP [RFC1813 §3.3.3].
func (fs *FS) lookup(c *caller, a *nfs3.LookupArgs) (r nfs3.LookupResult) {
	var d, in inode
	r.Status = fs.openDir(c, a.What.Dir, &d)
	r.Dir = c.post(&d)
	if r.Status != nfs3.OK {
		return r
	}
	var e entry
	if e, r.Status = fs.search(c, &d, a.What.Name); r.Status != nfs3.OK {
		return r
	}
	fs.load(e.inode, &in)
	r.Object, r.Attr = in.handle(), c.post(&in)
	return r
}

// A creation describes the object that a creating procedure asks for. All except CREATE
// are GUARDED: they never use an existing object.
type creation struct {
	kind     nfs3.FileType
	attr     *nfs3.Sattr3
	mode     nfs3.CreateMode // of CREATE
	verifier nfs3.Verifier   // of an exclusive CREATE
	rdev     nfs3.SpecData3  // of a device
	text     []byte          // of a symlink
	node     bool            // asked for by MKNOD
}

// create is CREATE [RFC1813 §3.3.8].
func (fs *FS) create(c *caller, a *nfs3.CreateArgs) nfs3.CreateResult {
	b := creation{kind: nfs3.TypeReg, attr: &a.Attr, mode: a.Mode, verifier: a.Verifier}
	return fs.createObject(c, &a.Where, &b)
}

// mkdir is MKDIR [RFC1813 §3.3.9].
func (fs *FS) mkdir(c *caller, a *nfs3.MkdirArgs) nfs3.CreateResult {
	return fs.createObject(c, &a.Where, &creation{kind: nfs3.TypeDir, attr: &a.Attr, mode: nfs3.Guarded})
}

// symlink is SYMLINK [RFC1813 §3.3.10].
func (fs *FS) symlink(c *caller, a *nfs3.SymlinkArgs) nfs3.CreateResult {
	return fs.createObject(c, &a.Where, &creation{kind: nfs3.TypeLnk, attr: &a.Attr, mode: nfs3.Guarded, text: a.Path})
}

// mknod is MKNOD [RFC1813 §3.3.11].
func (fs *FS) mknod(c *caller, a *nfs3.MknodArgs) (r nfs3.CreateResult) {
	switch a.Type {
	case nfs3.TypeReg, nfs3.TypeDir, nfs3.TypeLnk: // these have procedures of their own
		var d inode
		if r.Status = fs.open(c, a.Where.Dir, &d); r.Status != nfs3.OK {
			return r
		}
		r.Status, r.Dir = nfs3.ErrBadType, c.wcc(pre(&d), &d)
		if d.kind != nfs3.TypeDir {
			r.Status = nfs3.ErrNotDir
		}
		return r
	}
	return fs.createObject(c, &a.Where, &creation{kind: a.Type, attr: &a.Attr, mode: nfs3.Guarded,
		rdev: a.Spec, node: true})
}

// createObject is the common part of the creating procedures.
func (fs *FS) createObject(c *caller, where *nfs3.DirOp, b *creation) (r nfs3.CreateResult) {
	var d, child inode
	r.Status = fs.openDir(c, where.Dir, &d)
	before := pre(&d)
	if r.Status == nfs3.OK {
		r.Status = b.possible()
	}
	if r.Status == nfs3.OK {
		wanted := c.wantedAtCreation(b.attr)
		b.attr = &wanted
	}
	if r.Status == nfs3.OK {
		var e entry
		switch e, r.Status = fs.mayEnter(c, &d, where.Name); {
		case r.Status == nfs3.ErrExist && e.inode != 0:
			r.Status = fs.createExisting(c, b, e, &child)
		case r.Status == nfs3.OK:
			if r.Status = fs.mayCreate(c, &d, where.Name, b); r.Status == nfs3.OK {
				fs.makeObject(c, &d, where.Name, b, &child)
			}
		}
	}
	if r.Status == nfs3.OK {
		r.Object, r.Attr = nfs3.PostFH(child.handle()), c.post(&child)
	}
	r.Dir = c.wcc(before, &d)
	return r
}

// wantedAtCreation returns the attributes that a creating procedure asks to set. Only
// root chooses an owner and a group. For others these are left out, not refused: some
// clients send the ids that they believe to have, which squash and maps may have changed.
func (c *caller) wantedAtCreation(s *nfs3.Sattr3) nfs3.Sattr3 {
	w := c.grant.wanted(*s)
	if !c.who.root() {
		w.SetUID, w.UID, w.SetGID, w.GID = false, 0, false, 0
	}
	return w
}

// possible refuses objects that cannot be made anywhere: a link's text and a device's
// number that clients cannot read back, and types that MKNOD does not make.
func (b *creation) possible() nfs3.Status {
	switch {
	case b.kind == nfs3.TypeLnk && goodText(b.text) != nfs3.OK:
		return goodText(b.text)
	case !goodDevice(b.rdev):
		return nfs3.ErrInval
	case b.node && (b.kind == nfs3.TypeReg || b.kind == nfs3.TypeDir || b.kind == nfs3.TypeLnk):
		return nfs3.ErrBadType
	}
	return nfs3.OK
}

// createExisting handles a creating procedure that finds its name taken. Only CREATE may
// then succeed: UNCHECKED for a regular file, of which it sets the size if one is given,
// and nothing else; EXCLUSIVE for the file that its first transmission made.
func (fs *FS) createExisting(c *caller, b *creation, e entry, child *inode) nfs3.Status {
	if b.mode == nfs3.Guarded {
		return nfs3.ErrExist
	}
	fs.load(e.inode, child)
	switch {
	case child.kind != nfs3.TypeReg:
		return nfs3.ErrExist
	case b.mode == nfs3.Exclusive && child.exclusive && child.verifier == b.verifier:
		return nfs3.OK
	case b.mode == nfs3.Exclusive:
		return nfs3.ErrExist
	}
	only := nfs3.Sattr3{SetSize: b.attr.SetSize, Size: b.attr.Size}
	st, exclusive := c.maySet(child, &only), child.exclusive
	if st == nfs3.OK && only.SetSize {
		fs.set(c, child, &only)
		if child.exclusive = exclusive; exclusive { // only the SETATTR after an EXCLUSIVE CREATE clears the verifier
			fs.save(child)
		}
	}
	return st
}

// mayCreate checks that a new object may be made, and that there is room for it.
func (fs *FS) mayCreate(c *caller, d *inode, name []byte, b *creation) nfs3.Status {
	s := b.attr
	switch {
	case (b.kind == nfs3.TypeBlk || b.kind == nfs3.TypeChr) && !c.who.root():
		return nfs3.ErrPerm
	case !goodTimes(s):
		return nfs3.ErrInval
	case b.kind == nfs3.TypeReg && s.SetSize && s.Size > nfs3.MaxFileSize:
		return nfs3.ErrFBig
	case b.kind == nfs3.TypeDir && d.nlink >= maxLinks:
		return nfs3.ErrMLink
	}
	return fs.room(d.export, fs.enterNeeds(d, name)+textNeeds(b.text), 1)
}

// groupIn returns the group of a new object in a directory: the directory's if its
// set-group-id bit is set, else the caller's.
func (c *caller) groupIn(d *inode) uint32 {
	if d.mode&nfs3.ModeSetGID != 0 {
		return d.gid
	}
	return c.who.GID
}

// makeObject makes the object and enters its name.
func (fs *FS) makeObject(c *caller, d *inode, name []byte, b *creation, child *inode) {
	fs.allocInode(d.export, b.kind, child)
	child.nlink, child.rdev = 1, b.rdev
	child.uid, child.gid = c.who.UID, c.groupIn(d)
	child.atime, child.mtime, child.ctime = c.now, c.now, c.now
	c.setInitial(child, b.attr)
	if b.mode == nfs3.Exclusive {
		child.exclusive, child.verifier = true, b.verifier
	}
	switch b.kind {
	case nfs3.TypeDir:
		child.nlink, child.parent, child.nextCookie = 2, d.num, cookieFirst
		child.mode |= d.mode & nfs3.ModeSetGID
		d.nlink++
	case nfs3.TypeLnk:
		fs.setText(child, b.text)
	}
	fs.save(child)
	fs.enter(d, name, child.num)
	d.mtime, d.ctime = c.now, c.now
	fs.save(d)
}

// setInitial gives a new object the attributes that were asked for. A mode that was not
// asked for is 0, until the SETATTR that follows. The mode of a symlink has no meaning,
// so it allows everything.
func (c *caller) setInitial(in *inode, s *nfs3.Sattr3) {
	if s.SetUID {
		in.uid = s.UID
	}
	if s.SetGID {
		in.gid = s.GID
	}
	if s.SetMode {
		in.mode = c.modeFor(s.Mode, in.gid)
	}
	if in.kind == nfs3.TypeLnk {
		in.mode = nfs3.ModePerm
	}
	if in.kind == nfs3.TypeReg && s.SetSize {
		in.size = s.Size
	}
	in.atime = pickTime(s.Atime, in.atime, c.now)
	in.mtime = pickTime(s.Mtime, in.mtime, c.now)
}

// remove is REMOVE [RFC1813 §3.3.12].
func (fs *FS) remove(c *caller, a *nfs3.RemoveArgs) nfs3.RemoveResult {
	return fs.unlink(c, &a.Object, false)
}

// rmdir is RMDIR [RFC1813 §3.3.13].
func (fs *FS) rmdir(c *caller, a *nfs3.RmdirArgs) nfs3.RemoveResult {
	return fs.unlink(c, &a.Object, true)
}

// unlink removes a name, and the object with its last name.
func (fs *FS) unlink(c *caller, where *nfs3.DirOp, dir bool) (r nfs3.RemoveResult) {
	var d, in inode
	r.Status = fs.openDir(c, where.Dir, &d)
	before := pre(&d)
	if r.Status == nfs3.OK {
		var e entry
		if e, r.Status = fs.mayUnlink(c, &d, where.Name, dir, &in); r.Status == nfs3.OK {
			fs.removeEntry(&d, where.Name, e.cookie)
			d.mtime, d.ctime = c.now, c.now
			fs.drop(c, &d, &in)
			fs.save(&d)
		}
	}
	r.Dir = c.wcc(before, &d)
	return r
}

// mayUnlink checks a REMOVE or an RMDIR, and loads the object.
func (fs *FS) mayUnlink(c *caller, d *inode, name []byte, dir bool, in *inode) (e entry, st nfs3.Status) {
	switch {
	case c.readOnly:
		return e, nfs3.ErrROFS
	case isDots(name) && !dir:
		return e, nfs3.ErrIsDir
	case isDot(name):
		return e, nfs3.ErrInval // [RFC1813 §3.3.13]
	case isDotDot(name):
		return e, nfs3.ErrExist // [RFC1813 §3.3.13]
	}
	if e, st = fs.search(c, d, name); st != nfs3.OK {
		return e, st
	}
	fs.load(e.inode, in)
	switch {
	case !c.who.may(d, mayWrite):
		return e, nfs3.ErrAcces
	case !c.mayRemoveEntry(d, in):
		return e, nfs3.ErrPerm
	case dir && in.kind != nfs3.TypeDir:
		return e, nfs3.ErrNotDir
	case !dir && in.kind == nfs3.TypeDir:
		return e, nfs3.ErrIsDir
	case dir && in.size > 0:
		return e, nfs3.ErrNotEmpty
	}
	return e, nfs3.OK
}

// mayRemoveEntry is the rule of the sticky bit: only root and the owners of the directory
// and of the object remove names from a sticky directory.
func (c *caller) mayRemoveEntry(d, in *inode) bool {
	return d.mode&nfs3.ModeSticky == 0 || c.who.root() || c.who.UID == d.uid || c.who.UID == in.uid
}

// drop removes one link from an object whose name was removed from directory d.
func (fs *FS) drop(c *caller, d, in *inode) {
	in.nlink--
	switch {
	case in.kind == nfs3.TypeDir:
		d.nlink--
		fs.freeInode(in)
	case in.nlink == 0:
		fs.freeInode(in)
	default:
		in.ctime = c.now
		fs.save(in)
	}
}

// link is LINK [RFC1813 §3.3.15].
func (fs *FS) link(c *caller, a *nfs3.LinkArgs) (r nfs3.LinkResult) {
	var in, d inode
	r.Status = fs.open(c, a.File, &in)
	if st := fs.open(c, a.Link.Dir, &d); r.Status == nfs3.OK {
		r.Status = st
	}
	before := pre(&d)
	if r.Status == nfs3.OK {
		r.Status = fs.mayLink(c, &in, &d, a.Link.Name)
	}
	if r.Status == nfs3.OK {
		fs.enter(&d, a.Link.Name, in.num)
		d.mtime, d.ctime = c.now, c.now
		fs.save(&d)
		in.nlink++
		in.ctime = c.now
		fs.save(&in)
	}
	r.Attr, r.Dir = c.post(&in), c.wcc(before, &d)
	return r
}

// mayLink judges a LINK, and sees that there is room for it.
func (fs *FS) mayLink(c *caller, in, d *inode, name []byte) nfs3.Status {
	switch {
	case in.export != d.export:
		return nfs3.ErrXDev
	case d.kind != nfs3.TypeDir:
		return nfs3.ErrNotDir
	case c.readOnly:
		return nfs3.ErrROFS
	case in.kind == nfs3.TypeDir:
		return nfs3.ErrIsDir
	}
	switch _, st := fs.mayEnter(c, d, name); {
	case st != nfs3.OK:
		return st
	case in.nlink >= maxLinks:
		return nfs3.ErrMLink
	}
	return fs.room(d.export, fs.enterNeeds(d, name), 0)
}

// rename is RENAME [RFC1813 §3.3.14].
func (fs *FS) rename(c *caller, a *nfs3.RenameArgs) (r nfs3.RenameResult) {
	var f, t inode
	m := move{c: c, from: &f, to: &t, oldName: a.From.Name, newName: a.To.Name}
	r.Status = fs.open(c, a.From.Dir, &f)
	if st := fs.open(c, a.To.Dir, &t); r.Status == nfs3.OK {
		r.Status = st
	}
	beforeF, beforeT := pre(&f), pre(&t)
	if f.num == t.num {
		m.to = m.from // one directory, one copy of its inode
	}
	if r.Status == nfs3.OK {
		if r.Status = fs.mayMove(&m); r.Status == nfs3.OK && !m.nothing {
			fs.move(&m)
		}
	}
	r.From, r.To = c.wcc(beforeF, m.from), c.wcc(beforeT, m.to)
	return r
}

// A move is a RENAME under way.
type move struct {
	c                *caller
	from, to         *inode // the directories, which may be one
	oldName, newName []byte

	// Set by mayMove:
	cookie  uint64 // of the old name
	in      inode  // the object that moves
	over    uint64 // cookie of the new name, 0 if it is free
	victim  inode  // the object that it names so far
	nothing bool   // both names are of the same object, so nothing is done
}

// mayMove checks a RENAME.
func (fs *FS) mayMove(m *move) nfs3.Status {
	switch {
	case m.from.export != m.to.export:
		return nfs3.ErrXDev
	case m.from.kind != nfs3.TypeDir || m.to.kind != nfs3.TypeDir:
		return nfs3.ErrNotDir
	case m.c.readOnly:
		return nfs3.ErrROFS
	case isDots(m.oldName) || isDots(m.newName):
		return nfs3.ErrInval
	case goodName(m.oldName) != nfs3.OK:
		return goodName(m.oldName)
	case goodName(m.newName) != nfs3.OK:
		return goodName(m.newName)
	}
	old, st := fs.search(m.c, m.from, m.oldName)
	if st != nfs3.OK {
		return st
	}
	taken, st := fs.search(m.c, m.to, m.newName)
	if st == nfs3.ErrAcces {
		return st
	}
	m.cookie, m.over = old.cookie, taken.cookie
	fs.load(old.inode, &m.in)
	if m.over != 0 {
		fs.load(taken.inode, &m.victim)
	}
	if m.nothing = m.victim.num == m.in.num; m.nothing {
		return nfs3.OK
	}
	if st := fs.mayTake(m); st != nfs3.OK {
		return st
	}
	return fs.room(m.to.export, fs.moveNeeds(m), 0)
}

// moveNeeds bounds the number of pages that move will allocate. A name that exists
// already needs none.
func (fs *FS) moveNeeds(m *move) uint64 {
	switch {
	case m.over != 0:
		return 0
	case m.from == m.to:
		return fs.renameNeeds(m.to, m.newName, m.cookie)
	}
	return fs.enterNeeds(m.to, m.newName)
}

// mayTake checks permissions and types of a RENAME: a file may replace a file, a directory an empty
// directory. A directory that changes its parent must be writable itself, because its '..' changes.
func (fs *FS) mayTake(m *move) nfs3.Status {
	c, taken, dir := m.c, m.over != 0, m.in.kind == nfs3.TypeDir
	switch {
	case !c.who.may(m.from, mayWrite) || !c.who.may(m.to, mayWrite):
		return nfs3.ErrAcces
	case !c.mayRemoveEntry(m.from, &m.in), taken && !c.mayRemoveEntry(m.to, &m.victim):
		return nfs3.ErrPerm
	case dir && m.from != m.to && fs.within(m.to, m.in.num):
		return nfs3.ErrInval
	case taken && dir && m.victim.kind != nfs3.TypeDir:
		return nfs3.ErrNotDir
	case taken && !dir && m.victim.kind == nfs3.TypeDir:
		return nfs3.ErrIsDir
	case taken && m.victim.kind == nfs3.TypeDir && m.victim.size > 0:
		return nfs3.ErrNotEmpty
	case dir && m.from != m.to && !c.who.may(&m.in, mayWrite):
		return nfs3.ErrAcces
	case dir && m.from != m.to && !taken && m.to.nlink >= maxLinks:
		return nfs3.ErrMLink
	}
	return nfs3.OK
}

// maxDepth bounds how far below the root a directory may be moved to. RENAME walks from
// there up to the root, at some 30 ns a step, to check that it does not move a directory
// below itself. A path of this many names of seven letters is as long as POSIX's
// PATH_MAX. Directories may be made deeper, and files moved there.
const maxDepth = 1 << 9

// within reports whether directory d is n or lies below it. It also returns true if d
// lies too deep to tell.
func (fs *FS) within(d *inode, n inodeNum) bool {
	at, parent := d.num, d.parent
	for range maxDepth {
		switch at {
		case n:
			return true
		case parent:
			return false // the root
		}
		at, parent = parent, fs.parentOf(parent)
	}
	return true
}

// move carries out a RENAME that mayMove allowed.
func (fs *FS) move(m *move) {
	switch {
	case m.over != 0:
		fs.removeEntry(m.from, m.oldName, m.cookie)
		fs.repoint(m.to, m.over, m.in.num)
		fs.drop(m.c, m.to, &m.victim)
	case m.from == m.to:
		fs.renameEntry(m.to, entry{m.cookie, m.in.num, m.oldName}, m.newName)
	default:
		fs.removeEntry(m.from, m.oldName, m.cookie)
		fs.enter(m.to, m.newName, m.in.num)
	}
	if m.in.kind == nfs3.TypeDir {
		m.in.parent = m.to.num
		m.from.nlink--
		m.to.nlink++
	}
	m.in.ctime = m.c.now
	fs.save(&m.in)
	for _, d := range [2]*inode{m.from, m.to} {
		d.mtime, d.ctime = m.c.now, m.c.now
		fs.save(d)
	}
}
