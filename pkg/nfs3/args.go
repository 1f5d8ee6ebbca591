// SPDX-License-Identifier: Apache-2.0

package nfs3

// The arguments of the procedures. Slices alias the bytes they were decoded from. Names
// are as they came: any length, any bytes.

// GetattrArgs of GETATTR [RFC1813 §3.3.1].
type GetattrArgs struct{ Object FileHandle }

// SetattrArgs of SETATTR [RFC1813 §3.3.2].
type SetattrArgs struct {
	Object FileHandle
	New    Sattr3
	Guard  SetattrGuard
}

// SetattrGuard is sattrguard3: change nothing unless the file's ctime is this one.
type SetattrGuard struct {
	Check bool
	Ctime Time3 // zero unless Check
}

// DirOp is diropargs3: a name in a directory [RFC1813 §2.6].
type DirOp struct {
	Dir  FileHandle
	Name []byte
}

// LookupArgs of LOOKUP [RFC1813 §3.3.3].
type LookupArgs struct{ What DirOp }

// AccessArgs of ACCESS [RFC1813 §3.3.4].
type AccessArgs struct {
	Object FileHandle
	Access uint32
}

// ReadlinkArgs of READLINK [RFC1813 §3.3.5].
type ReadlinkArgs struct{ Symlink FileHandle }

// ReadArgs of READ [RFC1813 §3.3.6].
type ReadArgs struct {
	File   FileHandle
	Offset uint64
	Count  uint32
}

// WriteArgs of WRITE [RFC1813 §3.3.7]. The count of the protocol is len(Data): the
// decoder refuses a call where they differ, and one of more than MaxTransfer bytes.
type WriteArgs struct {
	File   FileHandle
	Offset uint64
	Stable StableHow
	Data   []byte
}

// Behind is how many bytes follow the data in the encoding, and so in the call whose
// arguments these are: its padding.
func (a *WriteArgs) Behind() int { return padded(len(a.Data)) - len(a.Data) }

// CreateArgs of CREATE [RFC1813 §3.3.8].
type CreateArgs struct {
	Where    DirOp
	Mode     CreateMode
	Attr     Sattr3   // UNCHECKED and GUARDED
	Verifier Verifier // EXCLUSIVE
}

// MkdirArgs of MKDIR [RFC1813 §3.3.9].
type MkdirArgs struct {
	Where DirOp
	Attr  Sattr3
}

// SymlinkArgs of SYMLINK [RFC1813 §3.3.10].
type SymlinkArgs struct {
	Where DirOp
	Attr  Sattr3
	Path  []byte
}

// MknodArgs of MKNOD [RFC1813 §3.3.11]. Attr and Spec are zero where the type has none.
type MknodArgs struct {
	Where DirOp
	Type  FileType // one of the seven, also those that MKNOD answers with BADTYPE
	Attr  Sattr3   // block and character devices, sockets, pipes
	Spec  SpecData3
}

// RemoveArgs of REMOVE [RFC1813 §3.3.12].
type RemoveArgs struct{ Object DirOp }

// RmdirArgs of RMDIR [RFC1813 §3.3.13].
type RmdirArgs struct{ Object DirOp }

// RenameArgs of RENAME [RFC1813 §3.3.14].
type RenameArgs struct{ From, To DirOp }

// LinkArgs of LINK [RFC1813 §3.3.15].
type LinkArgs struct {
	File FileHandle
	Link DirOp
}

// ReaddirArgs of READDIR [RFC1813 §3.3.16].
type ReaddirArgs struct {
	Dir      FileHandle
	Cookie   uint64
	Verifier Verifier
	Count    uint32 // bytes of the reply behind its status
}

// ReaddirplusArgs of READDIRPLUS [RFC1813 §3.3.17].
type ReaddirplusArgs struct {
	Dir      FileHandle
	Cookie   uint64
	Verifier Verifier
	DirCount uint32 // bytes of the entries as READDIR would have them; see EntrySize
	MaxCount uint32 // bytes of the reply behind its status
}

// FsstatArgs of FSSTAT [RFC1813 §3.3.18].
type FsstatArgs struct{ Root FileHandle }

// FsinfoArgs of FSINFO [RFC1813 §3.3.19].
type FsinfoArgs struct{ Root FileHandle }

// PathconfArgs of PATHCONF [RFC1813 §3.3.20].
type PathconfArgs struct{ Object FileHandle }

// CommitArgs of COMMIT [RFC1813 §3.3.21].
type CommitArgs struct {
	File   FileHandle
	Offset uint64
	Count  uint32
}

// MountArgs of MNT and UMNT [RFC1813 §5.2.1].
type MountArgs struct{ Path []byte }
