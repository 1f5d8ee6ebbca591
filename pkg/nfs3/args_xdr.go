// SPDX-License-Identifier: Apache-2.0

package nfs3

// DecodeVoid judges the arguments of a procedure that has none.
func DecodeVoid(b []byte) error {
	r := reader{b: b}
	return r.end("arguments of a procedure that has none")
}

// DecodeGetattrArgs reads the arguments of GETATTR.
func DecodeGetattrArgs(b []byte) (GetattrArgs, error) {
	r := reader{b: b}
	a := GetattrArgs{Object: r.fileHandle()}
	return a, r.end("GETATTR arguments")
}

// Append appends the XDR of a to b.
func (a *GetattrArgs) Append(b []byte) []byte { return appendOpaque(b, a.Object) }

// DecodeSetattrArgs reads the arguments of SETATTR.
func DecodeSetattrArgs(b []byte) (SetattrArgs, error) {
	r := reader{b: b}
	a := SetattrArgs{Object: r.fileHandle(), New: r.sattr()}
	if a.Guard.Check = r.flag(); a.Guard.Check {
		a.Guard.Ctime = r.time()
	}
	return a, r.end("SETATTR arguments")
}

// Append appends the XDR of a to b.
func (a *SetattrArgs) Append(b []byte) []byte {
	b = appendOpaque(b, a.Object)
	b = appendSattr(b, &a.New)
	b = appendFlag(b, a.Guard.Check)
	if a.Guard.Check {
		b = appendTime(b, a.Guard.Ctime)
	}
	return b
}

// DecodeLookupArgs reads the arguments of LOOKUP.
func DecodeLookupArgs(b []byte) (LookupArgs, error) {
	r := reader{b: b}
	a := LookupArgs{What: r.dirOp()}
	return a, r.end("LOOKUP arguments")
}

// Append appends the XDR of a to b.
func (a *LookupArgs) Append(b []byte) []byte { return appendDirOp(b, a.What) }

// DecodeAccessArgs reads the arguments of ACCESS.
func DecodeAccessArgs(b []byte) (AccessArgs, error) {
	r := reader{b: b}
	a := AccessArgs{Object: r.fileHandle(), Access: r.u32()}
	return a, r.end("ACCESS arguments")
}

// Append appends the XDR of a to b.
func (a *AccessArgs) Append(b []byte) []byte {
	return appendU32(appendOpaque(b, a.Object), a.Access)
}

// DecodeReadlinkArgs reads the arguments of READLINK.
func DecodeReadlinkArgs(b []byte) (ReadlinkArgs, error) {
	r := reader{b: b}
	a := ReadlinkArgs{Symlink: r.fileHandle()}
	return a, r.end("READLINK arguments")
}

// Append appends the XDR of a to b.
func (a *ReadlinkArgs) Append(b []byte) []byte { return appendOpaque(b, a.Symlink) }

// DecodeReadArgs reads the arguments of READ.
func DecodeReadArgs(b []byte) (ReadArgs, error) {
	r := reader{b: b}
	a := ReadArgs{File: r.fileHandle(), Offset: r.u64(), Count: r.u32()}
	return a, r.end("READ arguments")
}

// Append appends the XDR of a to b.
func (a *ReadArgs) Append(b []byte) []byte {
	return appendU32(appendU64(appendOpaque(b, a.File), a.Offset), a.Count)
}

// DecodeWriteArgs reads the arguments of WRITE.
func DecodeWriteArgs(b []byte) (WriteArgs, error) {
	r := reader{b: b}
	a := WriteArgs{File: r.fileHandle(), Offset: r.u64()}
	count := r.u32()
	a.Stable = StableHow(r.enum(uint32(Unstable), uint32(FileSync)))
	a.Data = r.opaque(MaxTransfer)
	if uint64(count) != uint64(len(a.Data)) {
		r.fail()
	}
	return a, r.end("WRITE arguments")
}

// Append appends the XDR of a to b.
func (a *WriteArgs) Append(b []byte) []byte {
	b = appendOpaque(b, a.File)
	b = appendU64(b, a.Offset)
	b = appendU32(b, uint32(len(a.Data)))
	b = appendU32(b, uint32(a.Stable))
	return appendOpaque(b, a.Data)
}

// DecodeCreateArgs reads the arguments of CREATE.
func DecodeCreateArgs(b []byte) (CreateArgs, error) {
	r := reader{b: b}
	a := CreateArgs{Where: r.dirOp(), Mode: CreateMode(r.enum(uint32(Unchecked), uint32(Exclusive)))}
	if a.Mode == Exclusive {
		a.Verifier = r.verifier()
	} else {
		a.Attr = r.sattr()
	}
	return a, r.end("CREATE arguments")
}

// Append appends the XDR of a to b.
func (a *CreateArgs) Append(b []byte) []byte {
	b = appendDirOp(b, a.Where)
	b = appendU32(b, uint32(a.Mode))
	if a.Mode == Exclusive {
		return append(b, a.Verifier[:]...)
	}
	return appendSattr(b, &a.Attr)
}

// DecodeMkdirArgs reads the arguments of MKDIR.
func DecodeMkdirArgs(b []byte) (MkdirArgs, error) {
	r := reader{b: b}
	a := MkdirArgs{Where: r.dirOp(), Attr: r.sattr()}
	return a, r.end("MKDIR arguments")
}

// Append appends the XDR of a to b.
func (a *MkdirArgs) Append(b []byte) []byte { return appendSattr(appendDirOp(b, a.Where), &a.Attr) }

// DecodeSymlinkArgs reads the arguments of SYMLINK.
func DecodeSymlinkArgs(b []byte) (SymlinkArgs, error) {
	r := reader{b: b}
	a := SymlinkArgs{Where: r.dirOp(), Attr: r.sattr(), Path: r.rest()}
	return a, r.end("SYMLINK arguments")
}

// Append appends the XDR of a to b.
func (a *SymlinkArgs) Append(b []byte) []byte {
	return appendOpaque(appendSattr(appendDirOp(b, a.Where), &a.Attr), a.Path)
}

// DecodeMknodArgs reads the arguments of MKNOD.
func DecodeMknodArgs(b []byte) (MknodArgs, error) {
	r := reader{b: b}
	a := MknodArgs{Where: r.dirOp(), Type: FileType(r.enum(uint32(TypeReg), uint32(TypeFifo)))}
	if a.Type.node() {
		a.Attr = r.sattr()
	}
	if a.Type.device() {
		a.Spec = SpecData3{Major: r.u32(), Minor: r.u32()}
	}
	return a, r.end("MKNOD arguments")
}

// Append appends the XDR of a to b.
func (a *MknodArgs) Append(b []byte) []byte {
	b = appendDirOp(b, a.Where)
	b = appendU32(b, uint32(a.Type))
	if a.Type.node() {
		b = appendSattr(b, &a.Attr)
	}
	if a.Type.device() {
		b = appendU32(b, a.Spec.Major)
		b = appendU32(b, a.Spec.Minor)
	}
	return b
}

// device says that MKNOD of the type carries a device number [RFC1813 §3.3.11].
func (t FileType) device() bool { return t == TypeBlk || t == TypeChr }

// node says that MKNOD of the type carries attributes [RFC1813 §3.3.11].
func (t FileType) node() bool { return t.device() || t == TypeSock || t == TypeFifo }

// DecodeRemoveArgs reads the arguments of REMOVE.
func DecodeRemoveArgs(b []byte) (RemoveArgs, error) {
	r := reader{b: b}
	a := RemoveArgs{Object: r.dirOp()}
	return a, r.end("REMOVE arguments")
}

// Append appends the XDR of a to b.
func (a *RemoveArgs) Append(b []byte) []byte { return appendDirOp(b, a.Object) }

// DecodeRmdirArgs reads the arguments of RMDIR.
func DecodeRmdirArgs(b []byte) (RmdirArgs, error) {
	r := reader{b: b}
	a := RmdirArgs{Object: r.dirOp()}
	return a, r.end("RMDIR arguments")
}

// Append appends the XDR of a to b.
func (a *RmdirArgs) Append(b []byte) []byte { return appendDirOp(b, a.Object) }

// DecodeRenameArgs reads the arguments of RENAME.
func DecodeRenameArgs(b []byte) (RenameArgs, error) {
	r := reader{b: b}
	a := RenameArgs{From: r.dirOp(), To: r.dirOp()}
	return a, r.end("RENAME arguments")
}

// Append appends the XDR of a to b.
func (a *RenameArgs) Append(b []byte) []byte { return appendDirOp(appendDirOp(b, a.From), a.To) }

// DecodeLinkArgs reads the arguments of LINK.
func DecodeLinkArgs(b []byte) (LinkArgs, error) {
	r := reader{b: b}
	a := LinkArgs{File: r.fileHandle(), Link: r.dirOp()}
	return a, r.end("LINK arguments")
}

// Append appends the XDR of a to b.
func (a *LinkArgs) Append(b []byte) []byte { return appendDirOp(appendOpaque(b, a.File), a.Link) }

// DecodeReaddirArgs reads the arguments of READDIR.
func DecodeReaddirArgs(b []byte) (ReaddirArgs, error) {
	r := reader{b: b}
	a := ReaddirArgs{Dir: r.fileHandle(), Cookie: r.u64(), Verifier: r.verifier(), Count: r.u32()}
	return a, r.end("READDIR arguments")
}

// Append appends the XDR of a to b.
func (a *ReaddirArgs) Append(b []byte) []byte {
	b = appendU64(appendOpaque(b, a.Dir), a.Cookie)
	return appendU32(append(b, a.Verifier[:]...), a.Count)
}

// DecodeReaddirplusArgs reads the arguments of READDIRPLUS.
func DecodeReaddirplusArgs(b []byte) (ReaddirplusArgs, error) {
	r := reader{b: b}
	a := ReaddirplusArgs{
		Dir: r.fileHandle(), Cookie: r.u64(), Verifier: r.verifier(),
		DirCount: r.u32(), MaxCount: r.u32(),
	}
	return a, r.end("READDIRPLUS arguments")
}

// Append appends the XDR of a to b.
func (a *ReaddirplusArgs) Append(b []byte) []byte {
	b = appendU64(appendOpaque(b, a.Dir), a.Cookie)
	b = appendU32(append(b, a.Verifier[:]...), a.DirCount)
	return appendU32(b, a.MaxCount)
}

// DecodeFsstatArgs reads the arguments of FSSTAT.
func DecodeFsstatArgs(b []byte) (FsstatArgs, error) {
	r := reader{b: b}
	a := FsstatArgs{Root: r.fileHandle()}
	return a, r.end("FSSTAT arguments")
}

// Append appends the XDR of a to b.
func (a *FsstatArgs) Append(b []byte) []byte { return appendOpaque(b, a.Root) }

// DecodeFsinfoArgs reads the arguments of FSINFO.
func DecodeFsinfoArgs(b []byte) (FsinfoArgs, error) {
	r := reader{b: b}
	a := FsinfoArgs{Root: r.fileHandle()}
	return a, r.end("FSINFO arguments")
}

// Append appends the XDR of a to b.
func (a *FsinfoArgs) Append(b []byte) []byte { return appendOpaque(b, a.Root) }

// DecodePathconfArgs reads the arguments of PATHCONF.
func DecodePathconfArgs(b []byte) (PathconfArgs, error) {
	r := reader{b: b}
	a := PathconfArgs{Object: r.fileHandle()}
	return a, r.end("PATHCONF arguments")
}

// Append appends the XDR of a to b.
func (a *PathconfArgs) Append(b []byte) []byte { return appendOpaque(b, a.Object) }

// DecodeCommitArgs reads the arguments of COMMIT.
func DecodeCommitArgs(b []byte) (CommitArgs, error) {
	r := reader{b: b}
	a := CommitArgs{File: r.fileHandle(), Offset: r.u64(), Count: r.u32()}
	return a, r.end("COMMIT arguments")
}

// Append appends the XDR of a to b.
func (a *CommitArgs) Append(b []byte) []byte {
	return appendU32(appendU64(appendOpaque(b, a.File), a.Offset), a.Count)
}

// DecodeMountArgs reads the arguments of MNT and UMNT.
func DecodeMountArgs(b []byte) (MountArgs, error) {
	r := reader{b: b}
	a := MountArgs{Path: r.opaque(MaxMountPath)}
	return a, r.end("MNT arguments")
}

// Append appends the XDR of a to b.
func (a *MountArgs) Append(b []byte) []byte { return appendOpaque(b, a.Path) }
