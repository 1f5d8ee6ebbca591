// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"

	"bfs/pkg/nfs3"
)

// directory is the directory that a handle names. If it names something else, that comes
// with NOTDIR, so that its attributes go into the reply.
func (m *Model) directory(c Caller, fh nfs3.FileHandle) (*file, Access, nfs3.Status) {
	d, who, s := m.find(c, fh)
	if s == nfs3.OK && !d.dir() {
		s = nfs3.ErrNotDir
	}
	return d, who, s
}

func (m *Model) lookup(c Caller, a nfs3.LookupArgs) nfs3.LookupResult {
	d, who, s := m.directory(c, a.What.Dir)
	var f *file
	if s == nfs3.OK {
		f, s = search(who, d, a.What.Name)
	}
	r := nfs3.LookupResult{Status: s, Dir: c.post(d), Attr: c.post(f)}
	if f != nil {
		r.Object = f.handle
	}
	return r
}

// search finds a name in d.
func search(who Access, d *file, name []byte) (*file, nfs3.Status) {
	if s := badName(name); s != nfs3.OK {
		return nil, s
	}
	if !may(who, d, execute) {
		return nil, nfs3.ErrAcces
	}
	f := d.child(name)
	if f == nil {
		return nil, nfs3.ErrNoEnt
	}
	return f, nfs3.OK
}

// judgeNew says whether the caller may give a new name in d. there is the file that has it already.
func judgeNew(who Access, d *file, name []byte) (there *file, s nfs3.Status) {
	switch {
	case who.ReadOnly:
		return nil, nfs3.ErrROFS
	case dot(name) || dotdot(name):
		return nil, nfs3.ErrExist
	}
	there, s = search(who, d, name)
	switch {
	case s == nfs3.OK:
		return there, nfs3.ErrExist
	case s != nfs3.ErrNoEnt:
		return nil, s
	case !may(who, d, write):
		return nil, nfs3.ErrAcces
	}
	return nil, nfs3.OK
}

// newborn is a file that is about to be made.
type newborn struct {
	kind     nfs3.FileType
	attr     nfs3.Sattr3
	spec     nfs3.SpecData3
	target   []byte
	verifier *nfs3.Verifier
}

// create is the common part of the creating procedures: a free name, attributes, room.
func (m *Model) create(c Caller, where nfs3.DirOp, n newborn,
	exists func(Access, *file) nfs3.Status) nfs3.CreateResult {
	d, who, s := m.directory(c, where.Dir)
	pre := before(d)
	var f *file
	if n.attr = who.wanted(n.attr); !who.root() { // others do not choose, and are not told so
		n.attr.SetUID, n.attr.UID, n.attr.SetGID, n.attr.GID = false, 0, false, 0
	}
	if s == nfs3.OK {
		f, s = judgeNew(who, d, where.Name)
	}
	switch {
	case s == nfs3.ErrExist && f != nil && exists != nil:
		s = exists(who, f)
	case s == nfs3.OK:
		if s = m.judgeNewborn(who, d, &n); s == nfs3.OK {
			f = m.bear(who, d, &n)
			m.put(d, where.Name, f)
		}
	}
	r := nfs3.CreateResult{Status: s, Dir: c.wcc(pre, d)}
	if s == nfs3.OK {
		r.Object, r.Attr = nfs3.PostFH(f.handle), c.post(f)
	}
	return r
}

func (m *Model) judgeNewborn(who Access, d *file, n *newborn) nfs3.Status {
	device := n.kind == nfs3.TypeBlk || n.kind == nfs3.TypeChr
	switch {
	case device && !who.root():
		return nfs3.ErrPerm
	case badTime(n.attr.Atime) || badTime(n.attr.Mtime):
		return nfs3.ErrInval
	case n.kind == nfs3.TypeReg && n.attr.SetSize && n.attr.Size > nfs3.MaxFileSize:
		return nfs3.ErrFBig
	case n.kind == nfs3.TypeDir && d.attr.Nlink >= m.Linkmax:
		return nfs3.ErrMLink
	case m.full():
		return m.Full
	}
	return nfs3.OK
}

// groupIn returns the group of an object that the caller makes in d.
func groupIn(d *file, who Access) uint32 {
	if d.attr.Mode&nfs3.ModeSetGID != 0 {
		return d.attr.GID
	}
	return who.GID
}

func (m *Model) bear(who Access, d *file, n *newborn) *file {
	f := &file{handle: m.NewHandle(), target: n.target}
	f.attr = nfs3.Fattr3{
		Type: n.kind, Nlink: 1, UID: who.UID, GID: groupIn(d, who), Rdev: n.spec,
		Atime: m.Now, Mtime: m.Now, Ctime: m.Now,
	}
	if n.attr.SetUID {
		f.attr.UID = n.attr.UID
	}
	if n.attr.SetGID {
		f.attr.GID = n.attr.GID
	}
	switch {
	case n.kind == nfs3.TypeLnk:
		f.attr.Mode = nfs3.ModePerm
	case n.attr.SetMode:
		f.attr.Mode = allowedMode(who, n.attr.Mode, f.attr.GID)
	}
	switch n.kind {
	case nfs3.TypeReg:
		f.pages = map[uint64]*[pageSize]byte{}
		if n.attr.SetSize {
			f.size = n.attr.Size
		}
	case nfs3.TypeDir:
		f.entries, f.cookie, f.attr.Nlink = map[string]*entry{}, 3, 2
		f.attr.Mode |= d.attr.Mode & nfs3.ModeSetGID
	}
	if n.verifier != nil {
		f.exclusive, f.verifier = true, *n.verifier
	}
	m.setTime(&f.attr.Atime, n.attr.Atime)
	m.setTime(&f.attr.Mtime, n.attr.Mtime)
	m.files[f.handle] = f
	return f
}

func (m *Model) createFile(c Caller, a nfs3.CreateArgs) nfs3.CreateResult {
	n := newborn{kind: nfs3.TypeReg}
	switch a.Mode {
	case nfs3.Exclusive:
		n.verifier = &a.Verifier
		return m.create(c, a.Where, n, func(_ Access, f *file) nfs3.Status {
			if f.exclusive && f.verifier == a.Verifier {
				return nfs3.OK
			}
			return nfs3.ErrExist
		})
	case nfs3.Guarded:
		n.attr = a.Attr
		return m.create(c, a.Where, n, nil)
	}
	n.attr = a.Attr
	return m.create(c, a.Where, n, func(who Access, f *file) nfs3.Status {
		if !f.reg() {
			return nfs3.ErrExist
		}
		only := nfs3.SetattrArgs{New: nfs3.Sattr3{SetSize: a.Attr.SetSize, Size: a.Attr.Size}}
		s := m.judgeSetattr(who, f, &only)
		if s == nfs3.OK {
			exclusive := f.exclusive
			m.set(who, f, &only.New)
			f.exclusive = exclusive // this is not the SETATTR that its maker owes
		}
		return s
	})
}

func (m *Model) mkdir(c Caller, a nfs3.MkdirArgs) nfs3.CreateResult {
	return m.create(c, a.Where, newborn{kind: nfs3.TypeDir, attr: a.Attr}, nil)
}

func (m *Model) symlink(c Caller, a nfs3.SymlinkArgs) nfs3.CreateResult {
	if len(a.Path) == 0 || len(a.Path) > nfs3.MaxPath || bytes.IndexByte(a.Path, 0) >= 0 {
		d, _, s := m.directory(c, a.Where.Dir)
		switch {
		case s != nfs3.OK:
		case len(a.Path) > nfs3.MaxPath:
			s = nfs3.ErrNameTooLong
		default:
			s = nfs3.ErrInval
		}
		return nfs3.CreateResult{Status: s, Dir: c.wcc(before(d), d)}
	}
	return m.create(c, a.Where, newborn{kind: nfs3.TypeLnk, attr: a.Attr, target: append([]byte(nil), a.Path...)}, nil)
}

func (m *Model) mknod(c Caller, a nfs3.MknodArgs) nfs3.CreateResult {
	impossible := nfs3.ErrBadType
	switch a.Type {
	case nfs3.TypeBlk, nfs3.TypeChr, nfs3.TypeSock, nfs3.TypeFifo:
		if a.Spec.Major >= 1<<12 || a.Spec.Minor >= 1<<20 {
			impossible = nfs3.ErrInval
			break
		}
		return m.create(c, a.Where, newborn{kind: a.Type, attr: a.Attr, spec: a.Spec}, nil)
	}
	d, _, s := m.directory(c, a.Where.Dir)
	if s == nfs3.OK {
		s = impossible
	}
	return nfs3.CreateResult{Status: s, Dir: c.wcc(before(d), d)}
}

// judgeOld says whether the caller may take a name out of d.
func judgeOld(who Access, d *file, name []byte) (*file, nfs3.Status) {
	if who.ReadOnly {
		return nil, nfs3.ErrROFS
	}
	f, s := search(who, d, name)
	switch {
	case s != nfs3.OK:
		return nil, s
	case !may(who, d, write):
		return nil, nfs3.ErrAcces
	case sticky(who, d, f):
		return nil, nfs3.ErrPerm
	}
	return f, nfs3.OK
}

func (m *Model) remove(c Caller, a nfs3.RemoveArgs) nfs3.RemoveResult {
	d, who, s := m.directory(c, a.Object.Dir)
	pre := before(d)
	if s == nfs3.OK {
		s = m.removeFrom(who, d, a.Object.Name)
	}
	return nfs3.RemoveResult{Status: s, Dir: c.wcc(pre, d)}
}

func (m *Model) removeFrom(who Access, d *file, name []byte) nfs3.Status {
	if !who.ReadOnly && (dot(name) || dotdot(name)) {
		return nfs3.ErrIsDir
	}
	f, s := judgeOld(who, d, name)
	switch {
	case s != nfs3.OK:
		return s
	case f.dir():
		return nfs3.ErrIsDir
	}
	m.take(d, name)
	m.unlink(f)
	return nfs3.OK
}

func (m *Model) rmdir(c Caller, a nfs3.RmdirArgs) nfs3.RmdirResult {
	d, who, s := m.directory(c, a.Object.Dir)
	pre := before(d)
	if s == nfs3.OK {
		s = m.rmdirFrom(who, d, a.Object.Name)
	}
	return nfs3.RmdirResult{Status: s, Dir: c.wcc(pre, d)}
}

func (m *Model) rmdirFrom(who Access, d *file, name []byte) nfs3.Status {
	switch {
	case who.ReadOnly:
		return nfs3.ErrROFS
	case dot(name):
		return nfs3.ErrInval
	case dotdot(name):
		return nfs3.ErrExist
	}
	f, s := judgeOld(who, d, name)
	switch {
	case s != nfs3.OK:
		return s
	case !f.dir():
		return nfs3.ErrNotDir
	case len(f.entries) > 0:
		return nfs3.ErrNotEmpty
	}
	m.take(d, name)
	m.unlink(f)
	return nfs3.OK
}

func (m *Model) rename(c Caller, a nfs3.RenameArgs) nfs3.RenameResult {
	from, who, s := m.find(c, a.From.Dir)
	to, _, s2 := m.find(c, a.To.Dir)
	preFrom, preTo := before(from), before(to)
	switch {
	case s != nfs3.OK:
	case s2 != nfs3.OK:
		s = s2
	case from.handle.Export != to.handle.Export:
		s = nfs3.ErrXDev
	case !from.dir() || !to.dir():
		s = nfs3.ErrNotDir
	default:
		s = m.renameIn(who, from, a.From.Name, to, a.To.Name)
	}
	return nfs3.RenameResult{Status: s, From: c.wcc(preFrom, from), To: c.wcc(preTo, to)}
}

func (m *Model) renameIn(who Access, from *file, old []byte, to *file, name []byte) nfs3.Status {
	switch {
	case who.ReadOnly:
		return nfs3.ErrROFS
	case dot(old) || dotdot(old) || dot(name) || dotdot(name):
		return nfs3.ErrInval
	case badName(old) != nfs3.OK:
		return badName(old)
	case badName(name) != nfs3.OK:
		return badName(name)
	}
	f, s := search(who, from, old)
	if s != nfs3.OK {
		return s
	}
	over, s := search(who, to, name)
	switch {
	case s == nfs3.ErrAcces:
		return s
	case over == f:
		return nfs3.OK
	case !may(who, from, write) || !may(who, to, write):
		return nfs3.ErrAcces
	case sticky(who, from, f):
		return nfs3.ErrPerm
	case over != nil && sticky(who, to, over):
		return nfs3.ErrPerm
	case f.dir() && below(to, f):
		return nfs3.ErrInval
	}
	if over != nil {
		switch {
		case f.dir() && !over.dir():
			return nfs3.ErrNotDir
		case !f.dir() && over.dir():
			return nfs3.ErrIsDir
		case len(over.entries) > 0:
			return nfs3.ErrNotEmpty
		}
	}
	switch {
	case f.dir() && from != to && !may(who, f, write):
		return nfs3.ErrAcces
	case f.dir() && from != to && over == nil && to.attr.Nlink >= m.Linkmax:
		return nfs3.ErrMLink
	case over == nil && m.full():
		return m.Full
	}
	cookie := to.cookie
	if over != nil {
		cookie = to.entries[string(name)].cookie
		m.take(to, name)
		m.unlink(over)
	} else if from == to {
		cookie = from.entries[string(old)].cookie
	}
	m.take(from, old)
	m.putAt(to, name, f, cookie)
	f.attr.Ctime = m.Now
	return nfs3.OK
}

// below says that d is top or lies under it.
func below(d, top *file) bool {
	for d != top {
		if d == d.parent {
			return false
		}
		d = d.parent
	}
	return true
}

func (m *Model) link(c Caller, a nfs3.LinkArgs) nfs3.LinkResult {
	f, who, s := m.find(c, a.File)
	d, _, s2 := m.find(c, a.Link.Dir)
	pre := before(d)
	switch {
	case s != nfs3.OK:
	case s2 != nfs3.OK:
		s = s2
	case f.handle.Export != d.handle.Export:
		s = nfs3.ErrXDev
	case !d.dir():
		s = nfs3.ErrNotDir
	case who.ReadOnly:
		s = nfs3.ErrROFS
	case f.dir():
		s = nfs3.ErrIsDir
	default:
		s = m.linkIn(who, f, d, a.Link.Name)
	}
	return nfs3.LinkResult{Status: s, Attr: c.post(f), Dir: c.wcc(pre, d)}
}

func (m *Model) linkIn(who Access, f, d *file, name []byte) nfs3.Status {
	_, s := judgeNew(who, d, name)
	switch {
	case s != nfs3.OK:
		return s
	case f.attr.Nlink >= m.Linkmax:
		return nfs3.ErrMLink
	case m.full():
		return m.Full
	}
	f.attr.Nlink++
	f.attr.Ctime = m.Now
	m.put(d, name, f)
	return nfs3.OK
}
