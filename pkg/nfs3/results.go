// SPDX-License-Identifier: Apache-2.0

package nfs3

// The results of the procedures. Fields that a failed call does not have on the wire are
// not encoded, and zero after decoding: on failure only Status and the attributes travel.

// GetattrResult of GETATTR [RFC1813 §3.3.1].
type GetattrResult struct {
	Status Status
	Attr   Fattr3 // if OK
}

// SetattrResult of SETATTR [RFC1813 §3.3.2].
type SetattrResult struct {
	Status Status
	Wcc    WccData
}

// LookupResult of LOOKUP [RFC1813 §3.3.3].
type LookupResult struct {
	Status Status
	Object Handle     // if OK
	Attr   PostOpAttr // if OK
	Dir    PostOpAttr
}

// AccessResult of ACCESS [RFC1813 §3.3.4].
type AccessResult struct {
	Status Status
	Attr   PostOpAttr
	Access uint32 // if OK
}

// ReadlinkResult of READLINK [RFC1813 §3.3.5].
type ReadlinkResult struct {
	Status Status
	Attr   PostOpAttr
	Path   []byte // if OK
}

// ReadResult of READ [RFC1813 §3.3.6]. Data are the bytes in pieces, so that the file
// system can lend its pages and they are copied once, into the reply; the protocol's
// count is the sum. A decoded result has one piece, or none if it is empty.
type ReadResult struct {
	Status Status
	Attr   PostOpAttr
	EOF    bool     // if OK
	Data   [][]byte // if OK
}

// WriteResult of WRITE [RFC1813 §3.3.7].
type WriteResult struct {
	Status    Status
	Wcc       WccData
	Count     uint32    // if OK
	Committed StableHow // if OK
	Verifier  Verifier  // if OK
}

// CreateResult of CREATE [RFC1813 §3.3.8], and of the other creators: they are alike.
type CreateResult struct {
	Status Status
	Object PostOpFH   // if OK
	Attr   PostOpAttr // if OK
	Dir    WccData
}

// MkdirResult of MKDIR [RFC1813 §3.3.9].
type MkdirResult = CreateResult

// SymlinkResult of SYMLINK [RFC1813 §3.3.10].
type SymlinkResult = CreateResult

// MknodResult of MKNOD [RFC1813 §3.3.11].
type MknodResult = CreateResult

// RemoveResult of REMOVE [RFC1813 §3.3.12].
type RemoveResult struct {
	Status Status
	Dir    WccData
}

// RmdirResult of RMDIR [RFC1813 §3.3.13].
type RmdirResult = RemoveResult

// RenameResult of RENAME [RFC1813 §3.3.14].
type RenameResult struct {
	Status Status
	From   WccData
	To     WccData
}

// LinkResult of LINK [RFC1813 §3.3.15].
type LinkResult struct {
	Status Status
	Attr   PostOpAttr
	Dir    WccData
}

// An Entry is one name of READDIR [RFC1813 §3.3.16].
type Entry struct {
	FileID uint64
	Name   []byte
	Cookie uint64
}

// ReaddirResult of READDIR [RFC1813 §3.3.16].
type ReaddirResult struct {
	Status   Status
	Dir      PostOpAttr
	Verifier Verifier // if OK
	Entries  []Entry  // if OK
	EOF      bool     // if OK
}

// An EntryPlus is one name of READDIRPLUS [RFC1813 §3.3.17].
type EntryPlus struct {
	FileID uint64
	Name   []byte
	Cookie uint64
	Attr   PostOpAttr
	Handle PostOpFH
}

// ReaddirplusResult of READDIRPLUS [RFC1813 §3.3.17].
type ReaddirplusResult struct {
	Status   Status
	Dir      PostOpAttr
	Verifier Verifier    // if OK
	Entries  []EntryPlus // if OK
	EOF      bool        // if OK
}

// Sizes of directory listings on the wire, for servers that must honour Count, DirCount and
// MaxCount: the READDIR3resok structure is ListingSize(true) and the entries [RFC1813 §3.3.16].

// ListingSize is the size of READDIR3resok or READDIRPLUS3resok without entries: the
// directory's attributes, the verifier, the end of the list and eof.
func ListingSize(attributes bool) int {
	if attributes {
		return 4 + fattrSize + 8 + 4 + 4
	}
	return 4 + 8 + 4 + 4
}

// EntrySize returns the bytes of an Entry in READDIR, which are also those that count
// against DirCount in READDIRPLUS.
func EntrySize(name int) int { return 4 + 8 + 4 + padded(name) + 8 }

// EntryPlusSize returns the bytes of an EntryPlus with attributes and handle in READDIRPLUS.
func EntryPlusSize(name int) int { return EntrySize(name) + 4 + fattrSize + 4 + 4 + padded(HandleSize) }

// FsstatResult of FSSTAT [RFC1813 §3.3.18].
type FsstatResult struct {
	Status   Status
	Attr     PostOpAttr
	Tbytes   uint64 // these if OK
	Fbytes   uint64
	Abytes   uint64
	Tfiles   uint64
	Ffiles   uint64
	Afiles   uint64
	Invarsec uint32
}

// FsinfoResult of FSINFO [RFC1813 §3.3.19].
type FsinfoResult struct {
	Status      Status
	Attr        PostOpAttr
	Rtmax       uint32 // these if OK
	Rtpref      uint32
	Rtmult      uint32
	Wtmax       uint32
	Wtpref      uint32
	Wtmult      uint32
	Dtpref      uint32
	MaxFileSize uint64
	TimeDelta   Time3
	Properties  uint32
}

// PathconfResult of PATHCONF [RFC1813 §3.3.20].
type PathconfResult struct {
	Status          Status
	Attr            PostOpAttr
	Linkmax         uint32 // these if OK
	NameMax         uint32
	NoTrunc         bool
	ChownRestricted bool
	CaseInsensitive bool
	CasePreserving  bool
}

// CommitResult of COMMIT [RFC1813 §3.3.21].
type CommitResult struct {
	Status   Status
	Wcc      WccData
	Verifier Verifier // if OK
}

// MountResult of MNT [RFC1813 §5.2.1].
type MountResult struct {
	Status  MountStatus
	Handle  Handle   // if MountOK
	Flavors []uint32 // if MountOK
}

// A Mount is one line of DUMP [RFC1813 §5.2.2].
type Mount struct{ Host, Dir []byte }

// DumpResult of DUMP [RFC1813 §5.2.2]. The replicas keep no list of mounts, so theirs is empty.
type DumpResult struct{ Mounts []Mount }

// An Export is one line of EXPORT [RFC1813 §5.2.5]. No Groups means all hosts.
type Export struct {
	Dir    []byte
	Groups [][]byte
}

// ExportResult of EXPORT [RFC1813 §5.2.5].
type ExportResult struct{ Exports []Export }
