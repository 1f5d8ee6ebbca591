// SPDX-License-Identifier: Apache-2.0

package nfs3

// The structures that many procedures share [RFC1813 §2.6].

func (r *reader) fileHandle() FileHandle { return r.opaque(MaxFileHandle) }

// handle reads a handle that must have this project's form, as handles in results have.
func (r *reader) handle() Handle {
	h, ok := r.fileHandle().Parse()
	if !ok {
		r.fail()
	}
	return h
}

func appendHandle(b []byte, h Handle) []byte {
	b = appendU32(b, HandleSize)
	return appendPadding(h.Append(b), HandleSize)
}

func (r *reader) dirOp() DirOp { return DirOp{Dir: r.fileHandle(), Name: r.rest()} }

func appendDirOp(b []byte, d DirOp) []byte {
	return appendOpaque(appendOpaque(b, d.Dir), d.Name)
}

func (r *reader) time() Time3 { return Time3{Seconds: r.u32(), Nanoseconds: r.u32()} }

func appendTime(b []byte, t Time3) []byte {
	return appendU32(appendU32(b, t.Seconds), t.Nanoseconds)
}

func (r *reader) fattr() Fattr3 {
	return Fattr3{
		Type:   FileType(r.enum(uint32(TypeReg), uint32(TypeFifo))),
		Mode:   r.u32(),
		Nlink:  r.u32(),
		UID:    r.u32(),
		GID:    r.u32(),
		Size:   r.u64(),
		Used:   r.u64(),
		Rdev:   SpecData3{Major: r.u32(), Minor: r.u32()},
		FSID:   r.u64(),
		FileID: r.u64(),
		Atime:  r.time(),
		Mtime:  r.time(),
		Ctime:  r.time(),
	}
}

func appendFattr(b []byte, a *Fattr3) []byte {
	b = appendU32(b, uint32(a.Type))
	b = appendU32(b, a.Mode)
	b = appendU32(b, a.Nlink)
	b = appendU32(b, a.UID)
	b = appendU32(b, a.GID)
	b = appendU64(b, a.Size)
	b = appendU64(b, a.Used)
	b = appendU32(b, a.Rdev.Major)
	b = appendU32(b, a.Rdev.Minor)
	b = appendU64(b, a.FSID)
	b = appendU64(b, a.FileID)
	b = appendTime(b, a.Atime)
	b = appendTime(b, a.Mtime)
	return appendTime(b, a.Ctime)
}

func (r *reader) postOpAttr() (p PostOpAttr) {
	if p.Present = r.flag(); p.Present {
		p.Attr = r.fattr()
	}
	return p
}

func appendPostOpAttr(b []byte, p *PostOpAttr) []byte {
	b = appendFlag(b, p.Present)
	if !p.Present {
		return b
	}
	return appendFattr(b, &p.Attr)
}

func (r *reader) wcc() (w WccData) {
	if w.Before.Present = r.flag(); w.Before.Present {
		w.Before.Attr = WccAttr{Size: r.u64(), Mtime: r.time(), Ctime: r.time()}
	}
	w.After = r.postOpAttr()
	return w
}

func appendWcc(b []byte, w *WccData) []byte {
	b = appendFlag(b, w.Before.Present)
	if w.Before.Present {
		b = appendU64(b, w.Before.Attr.Size)
		b = appendTime(b, w.Before.Attr.Mtime)
		b = appendTime(b, w.Before.Attr.Ctime)
	}
	return appendPostOpAttr(b, &w.After)
}

func (r *reader) postOpFH() (p PostOpFH) {
	if p.Present = r.flag(); p.Present {
		p.Handle = r.handle()
	}
	return p
}

func appendPostOpFH(b []byte, p PostOpFH) []byte {
	b = appendFlag(b, p.Present)
	if !p.Present {
		return b
	}
	return appendHandle(b, p.Handle)
}

func (r *reader) sattr() (s Sattr3) {
	if s.SetMode = r.flag(); s.SetMode {
		s.Mode = r.u32()
	}
	if s.SetUID = r.flag(); s.SetUID {
		s.UID = r.u32()
	}
	if s.SetGID = r.flag(); s.SetGID {
		s.GID = r.u32()
	}
	if s.SetSize = r.flag(); s.SetSize {
		s.Size = r.u64()
	}
	s.Atime = r.setTime()
	s.Mtime = r.setTime()
	return s
}

func appendSattr(b []byte, s *Sattr3) []byte {
	b = appendOptionalU32(b, s.SetMode, s.Mode)
	b = appendOptionalU32(b, s.SetUID, s.UID)
	b = appendOptionalU32(b, s.SetGID, s.GID)
	b = appendFlag(b, s.SetSize)
	if s.SetSize {
		b = appendU64(b, s.Size)
	}
	b = appendSetTime(b, s.Atime)
	return appendSetTime(b, s.Mtime)
}

func appendOptionalU32(b []byte, set bool, v uint32) []byte {
	b = appendFlag(b, set)
	if set {
		b = appendU32(b, v)
	}
	return b
}

func (r *reader) setTime() SetTime {
	s := SetTime{How: TimeHow(r.enum(uint32(DontChange), uint32(SetToClientTime)))}
	if s.How == SetToClientTime {
		s.Time = r.time()
	}
	return s
}

func appendSetTime(b []byte, s SetTime) []byte {
	b = appendU32(b, uint32(s.How))
	if s.How == SetToClientTime {
		b = appendTime(b, s.Time)
	}
	return b
}

// status reads a verdict. Clients meet the values they do not know as they are.
func (r *reader) status() Status { return Status(r.u32()) }

func appendStatus(b []byte, s Status) []byte { return appendU32(b, uint32(s)) }
