// SPDX-License-Identifier: Apache-2.0

package model

import "bfs/pkg/nfs3"

func (m *Model) getattr(c Caller, a nfs3.GetattrArgs) nfs3.GetattrResult {
	f, _, s := m.find(c, a.Object)
	if s != nfs3.OK {
		return nfs3.GetattrResult{Status: s}
	}
	return nfs3.GetattrResult{Attr: c.shown(f)}
}

func (m *Model) setattr(c Caller, a nfs3.SetattrArgs) nfs3.SetattrResult {
	f, who, s := m.find(c, a.Object)
	pre := before(f)
	a.New = who.wanted(a.New)
	if s == nfs3.OK {
		s = m.judgeSetattr(who, f, &a)
	}
	if s == nfs3.OK {
		m.set(who, f, &a.New)
	}
	return nfs3.SetattrResult{Status: s, Wcc: c.wcc(pre, f)}
}

func (m *Model) judgeSetattr(who Access, f *file, a *nfs3.SetattrArgs) nfs3.Status {
	n := &a.New
	owner := who.root() || who.UID == f.attr.UID
	switch {
	case who.ReadOnly:
		return nfs3.ErrROFS
	case a.Guard.Check && a.Guard.Ctime != f.attr.Ctime:
		return nfs3.ErrNotSync
	case badTime(n.Atime) || badTime(n.Mtime):
		return nfs3.ErrInval
	case n.SetSize && f.dir():
		return nfs3.ErrIsDir
	case n.SetSize && !f.reg():
		return nfs3.ErrInval
	case n.SetSize && n.Size > nfs3.MaxFileSize:
		return nfs3.ErrFBig
	case n.SetMode && !owner:
		return nfs3.ErrPerm
	case n.SetUID && !who.root() && (!owner || n.UID != f.attr.UID):
		return nfs3.ErrPerm
	case n.SetGID && !who.root() && (!owner || n.GID != f.attr.GID && !who.in(n.GID)):
		return nfs3.ErrPerm
	case (n.Atime.How == nfs3.SetToClientTime || n.Mtime.How == nfs3.SetToClientTime) && !owner:
		return nfs3.ErrPerm
	case (n.Atime.How == nfs3.SetToServerTime || n.Mtime.How == nfs3.SetToServerTime) && !owner && !may(who, f, write):
		return nfs3.ErrAcces
	case n.SetSize && !owner && !may(who, f, write):
		return nfs3.ErrAcces
	}
	return nfs3.OK
}

func badTime(t nfs3.SetTime) bool {
	return t.How == nfs3.SetToClientTime && t.Time.Nanoseconds >= 1e9
}

// set carries out a SETATTR that judgeSetattr allowed.
func (m *Model) set(who Access, f *file, n *nfs3.Sattr3) {
	f.exclusive = false
	if *n == (nfs3.Sattr3{}) {
		return
	}
	if n.SetUID {
		f.attr.UID = n.UID
	}
	if n.SetGID {
		f.attr.GID = n.GID
	}
	if (n.SetUID || n.SetGID) && !f.dir() {
		dropPrivilege(f)
	}
	if n.SetSize {
		f.resize(n.Size)
		f.attr.Mtime = m.Now
		if !who.root() {
			dropPrivilege(f)
		}
	}
	if n.SetMode {
		f.attr.Mode = allowedMode(who, n.Mode, f.attr.GID)
	}
	m.setTime(&f.attr.Atime, n.Atime)
	m.setTime(&f.attr.Mtime, n.Mtime)
	f.attr.Ctime = m.Now
}

func (m *Model) setTime(t *nfs3.Time3, to nfs3.SetTime) {
	switch to.How {
	case nfs3.SetToServerTime:
		*t = m.Now
	case nfs3.SetToClientTime:
		*t = to.Time
	}
}

// dropPrivilege clears setuid, and setgid where the group may execute; without that
// permission it marks mandatory locking.
func dropPrivilege(f *file) {
	f.attr.Mode &^= nfs3.ModeSetUID
	if f.attr.Mode&0o010 != 0 {
		f.attr.Mode &^= nfs3.ModeSetGID
	}
}

// allowedMode returns the mode that the caller gets when it asks for one, on a file of group gid.
func allowedMode(who Access, mode, gid uint32) uint32 {
	mode &= nfs3.ModeSettable
	if !who.root() && !who.in(gid) {
		mode &^= nfs3.ModeSetGID
	}
	return mode
}

// resize cuts the file or lets it grow by a hole.
func (f *file) resize(size uint64) {
	for n, page := range f.pages {
		switch start := n * pageSize; {
		case start >= size:
			delete(f.pages, n)
		case start+pageSize > size:
			clear(page[size-start:])
		}
	}
	f.size = size
}

func (m *Model) access(c Caller, a nfs3.AccessArgs) nfs3.AccessResult {
	f, who, s := m.find(c, a.Object)
	if s != nfs3.OK {
		return nfs3.AccessResult{Status: s}
	}
	var can uint32
	if may(who, f, read) {
		can |= nfs3.AccessRead
	}
	if f.dir() {
		if may(who, f, execute) {
			can |= nfs3.AccessLookup
		}
		if may(who, f, write|execute) && !who.ReadOnly {
			can |= nfs3.AccessModify | nfs3.AccessExtend | nfs3.AccessDelete
		}
	} else {
		if may(who, f, execute) {
			can |= nfs3.AccessExecute
		}
		if may(who, f, write) && !who.ReadOnly {
			can |= nfs3.AccessModify | nfs3.AccessExtend
		}
	}
	return nfs3.AccessResult{Attr: c.post(f), Access: can & a.Access}
}

func (m *Model) fsstat(c Caller, a nfs3.FsstatArgs) nfs3.FsstatResult {
	f, _, s := m.find(c, a.Root)
	return nfs3.FsstatResult{Status: s, Attr: c.post(f)} // the numbers are the layout's
}

func (m *Model) fsinfo(c Caller, a nfs3.FsinfoArgs) nfs3.FsinfoResult {
	f, _, s := m.find(c, a.Root)
	return nfs3.FsinfoResult{
		Status: s, Attr: c.post(f),
		Rtmax: nfs3.MaxTransfer, Rtpref: nfs3.MaxTransfer, Rtmult: pageSize,
		Wtmax: nfs3.MaxTransfer, Wtpref: nfs3.MaxTransfer, Wtmult: pageSize,
		Dtpref: m.Dtpref, MaxFileSize: nfs3.MaxFileSize, TimeDelta: nfs3.Time3{Nanoseconds: 1},
		Properties: nfs3.FSLink | nfs3.FSSymlink | nfs3.FSHomogeneous | nfs3.FSCanSetTime,
	}
}

func (m *Model) pathconf(c Caller, a nfs3.PathconfArgs) nfs3.PathconfResult {
	f, _, s := m.find(c, a.Object)
	return nfs3.PathconfResult{
		Status: s, Attr: c.post(f),
		Linkmax: m.Linkmax, NameMax: nfs3.MaxName, NoTrunc: true, ChownRestricted: true, CasePreserving: true,
	}
}
