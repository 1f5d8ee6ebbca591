// SPDX-License-Identifier: Apache-2.0

package nfsstate

import "bfs/pkg/nfs3"

// attr returns the attributes of an inode as the caller's client sees them. Requires that
// the client was granted its export.
func (c *caller) attr(in *inode) nfs3.Fattr3 {
	a, g := in.attr(), c.rights.grant(uint32(in.export))
	a.UID, a.GID = shown(a.UID, g.UIDs), shown(a.GID, g.GIDs)
	return a
}

// post returns an inode's attributes for a reply that has room for them; none if no
// handle named it.
func (c *caller) post(in *inode) nfs3.PostOpAttr {
	if in.num == 0 {
		return nfs3.PostOpAttr{}
	}
	return nfs3.PostAttr(c.attr(in))
}

// pre returns the attributes of an inode before an operation, for wcc_data.
func pre(in *inode) nfs3.PreOpAttr {
	if in.num == 0 {
		return nfs3.PreOpAttr{}
	}
	return nfs3.PreOpAttr{Present: true, Attr: nfs3.WccAttr{Size: in.size, Mtime: in.mtime, Ctime: in.ctime}}
}

// wcc is weak cache consistency data: the operation is atomic, so the two are all there
// was [RFC1813 §2.6].
func (c *caller) wcc(before nfs3.PreOpAttr, in *inode) nfs3.WccData {
	return nfs3.WccData{Before: before, After: c.post(in)}
}

// getattr is GETATTR [RFC1813 §3.3.1].
func (fs *FS) getattr(c *caller, a *nfs3.GetattrArgs) (r nfs3.GetattrResult) {
	var in inode
	if r.Status = fs.open(c, a.Object, &in); r.Status == nfs3.OK {
		r.Attr = c.attr(&in)
	}
	return r
}

// setattr is SETATTR [RFC1813 §3.3.2].
func (fs *FS) setattr(c *caller, a *nfs3.SetattrArgs) (r nfs3.SetattrResult) {
	var in inode
	r.Status = fs.open(c, a.Object, &in)
	before := pre(&in)
	switch {
	case r.Status != nfs3.OK:
	case c.readOnly:
		r.Status = nfs3.ErrROFS
	case a.Guard.Check && a.Guard.Ctime != in.ctime:
		r.Status = nfs3.ErrNotSync
	default:
		s := c.grant.wanted(a.New)
		if r.Status = c.maySet(&in, &s); r.Status == nfs3.OK {
			fs.set(c, &in, &s)
		}
	}
	r.Wcc = c.wcc(before, &in)
	return r
}

// maySet checks all of a SETATTR before any of it is done. Only the owner changes mode and owner,
// regardless of the mode. Only root gives files away, and an owner chooses among its own groups
// (chown_restricted).
func (c *caller) maySet(in *inode, s *nfs3.Sattr3) nfs3.Status {
	root, owner := c.who.root(), c.who.root() || c.who.UID == in.uid
	switch {
	case !goodTimes(s):
		return nfs3.ErrInval
	case s.SetSize && in.kind == nfs3.TypeDir:
		return nfs3.ErrIsDir
	case s.SetSize && in.kind != nfs3.TypeReg:
		return nfs3.ErrInval
	case s.SetSize && s.Size > nfs3.MaxFileSize:
		return nfs3.ErrFBig
	case s.SetMode && !owner:
		return nfs3.ErrPerm
	case s.SetUID && !root && (!owner || s.UID != in.uid):
		return nfs3.ErrPerm
	case s.SetGID && !root && (!owner || s.GID != in.gid && !c.who.member(s.GID)):
		return nfs3.ErrPerm
	case setsTime(s, nfs3.SetToClientTime) && !owner:
		return nfs3.ErrPerm
	case setsTime(s, nfs3.SetToServerTime) && !owner && !c.who.may(in, mayWrite):
		return nfs3.ErrAcces
	case s.SetSize && !c.who.mayData(in, mayWrite):
		return nfs3.ErrAcces
	}
	return nfs3.OK
}

func goodTimes(s *nfs3.Sattr3) bool {
	return goodTime(s.Atime.Time) && goodTime(s.Mtime.Time)
}

func goodTime(t nfs3.Time3) bool { return t.Nanoseconds < 1_000_000_000 }

func setsTime(s *nfs3.Sattr3, how nfs3.TimeHow) bool { return s.Atime.How == how || s.Mtime.How == how }

// set carries out a SETATTR that maySet allowed. One that sets nothing leaves even ctime
// alone, but any SETATTR clears an exclusive verifier [RFC1813 §3.3.8].
func (fs *FS) set(c *caller, in *inode, s *nfs3.Sattr3) {
	in.exclusive = false
	if *s != (nfs3.Sattr3{}) {
		in.ctime = c.now
	}
	if s.SetUID {
		in.uid = s.UID
	}
	if s.SetGID {
		in.gid = s.GID
	}
	if (s.SetUID || s.SetGID) && in.kind != nfs3.TypeDir {
		in.dropSetID()
	}
	if s.SetSize {
		fs.resize(in, s.Size)
		in.mtime = c.now
		c.touchData(in)
	}
	if s.SetMode {
		in.mode = c.modeFor(s.Mode, in.gid)
	}
	in.atime = pickTime(s.Atime, in.atime, c.now)
	in.mtime = pickTime(s.Mtime, in.mtime, c.now)
	fs.save(in)
}

// modeFor returns the mode that the caller gets when it asks for one: without the
// set-group-id bit, if that would give it the rights of a group to which it does not belong.
func (c *caller) modeFor(mode, gid uint32) uint32 {
	mode &= nfs3.ModeSettable
	if !c.who.root() && !c.who.member(gid) {
		mode &^= nfs3.ModeSetGID
	}
	return mode
}

// touchData clears the set-id bits of the mode when a user other than root changes a file's data.
func (c *caller) touchData(in *inode) {
	if !c.who.root() {
		in.dropSetID()
	}
}

// dropSetID clears the set-user-id bit, and the set-group-id bit if the group may
// execute; without that permission the bit marks mandatory locking.
func (in *inode) dropSetID() {
	in.mode &^= nfs3.ModeSetUID
	if in.mode&0o010 != 0 {
		in.mode &^= nfs3.ModeSetGID
	}
}

// access is ACCESS [RFC1813 §3.3.4]. It answers from the mode alone, although owners may
// always write to a file that they have open.
func (fs *FS) access(c *caller, a *nfs3.AccessArgs) (r nfs3.AccessResult) {
	var in inode
	if r.Status = fs.open(c, a.Object, &in); r.Status != nfs3.OK {
		return r
	}
	r.Attr = c.post(&in)
	dir := in.kind == nfs3.TypeDir
	if c.who.may(&in, mayRead) {
		r.Access |= nfs3.AccessRead
	}
	if c.who.may(&in, mayExec) {
		if dir {
			r.Access |= nfs3.AccessLookup
		} else {
			r.Access |= nfs3.AccessExecute
		}
	}
	switch {
	case c.readOnly:
	case dir && c.who.may(&in, mayWrite|mayExec):
		r.Access |= nfs3.AccessModify | nfs3.AccessExtend | nfs3.AccessDelete
	case !dir && c.who.may(&in, mayWrite):
		r.Access |= nfs3.AccessModify | nfs3.AccessExtend
	}
	r.Access &= a.Access
	return r
}

// fsstat is FSSTAT [RFC1813 §3.3.18]: the pages and inodes of the state, or those that
// the quota leaves.
func (fs *FS) fsstat(c *caller, a *nfs3.FsstatArgs) (r nfs3.FsstatResult) {
	var in inode
	if r.Status = fs.open(c, a.Root, &in); r.Status != nfs3.OK {
		return r
	}
	r.Attr = c.post(&in)
	row := fs.row(in.export)
	limit := func(total, free uint64, quota, used int) (uint64, uint64) {
		q, u := le.Uint64(row[quota:]), le.Uint64(row[used:])
		if q == 0 {
			return total, free
		}
		return min(total, q), min(free, q-min(q, u))
	}
	pages, free := limit(uint64(fs.at.pages-fs.at.data), fs.freeAtAll(), rowQuotaPages, rowPages)
	r.Tbytes, r.Fbytes, r.Abytes = pages*pageSize, free*pageSize, free*pageSize
	r.Tfiles, r.Ffiles = limit(fs.config.Inodes-uint64(firstInode), fs.freeInodes(), rowQuotaInodes, rowInodes)
	r.Afiles = r.Ffiles
	return r
}

// fsinfo is FSINFO [RFC1813 §3.3.19].
func (fs *FS) fsinfo(c *caller, a *nfs3.FsinfoArgs) (r nfs3.FsinfoResult) {
	var in inode
	if r.Status = fs.open(c, a.Root, &in); r.Status != nfs3.OK {
		return r
	}
	r.Attr = c.post(&in)
	r.Rtmax, r.Rtpref, r.Rtmult = nfs3.MaxTransfer, nfs3.MaxTransfer, pageSize
	r.Wtmax, r.Wtpref, r.Wtmult = nfs3.MaxTransfer, nfs3.MaxTransfer, pageSize
	r.Dtpref = 64 << 10
	r.MaxFileSize = nfs3.MaxFileSize
	r.TimeDelta = nfs3.Time3{Nanoseconds: 1}
	r.Properties = nfs3.FSLink | nfs3.FSSymlink | nfs3.FSHomogeneous | nfs3.FSCanSetTime
	return r
}

// maxLinks bounds the hard links of a file and the sub-directories of a directory.
const maxLinks = 1 << 30

// pathconf is PATHCONF [RFC1813 §3.3.20].
func (fs *FS) pathconf(c *caller, a *nfs3.PathconfArgs) (r nfs3.PathconfResult) {
	var in inode
	if r.Status = fs.open(c, a.Object, &in); r.Status != nfs3.OK {
		return r
	}
	r.Attr = c.post(&in)
	r.Linkmax, r.NameMax = maxLinks, nfs3.MaxName
	r.NoTrunc, r.ChownRestricted, r.CasePreserving = true, true, true
	return r
}

// pickTime returns the new value of one of the times.
func pickTime(s nfs3.SetTime, old, now nfs3.Time3) nfs3.Time3 {
	switch s.How {
	case nfs3.SetToServerTime:
		return now
	case nfs3.SetToClientTime:
		return s.Time
	default:
		return old
	}
}
