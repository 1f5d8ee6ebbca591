// SPDX-License-Identifier: Apache-2.0

package nfs3

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Bounds of the protocol, and this implementation's where the protocol has none.
const (
	MaxFileHandle = 64        // NFS3_FHSIZE [RFC1813 §2.4]
	MaxMountPath  = 1024      // MNTPATHLEN [RFC1813 §5.1.3]
	MaxMountName  = 255       // MNTNAMLEN [RFC1813 §5.1.3]
	MaxName       = 255       // longest name in a directory; a longer one is NAMETOOLONG, not garbage
	MaxPath       = 4096 - 1  // longest text of a symbolic link: PATH_MAX, and a page of the kernel
	MaxTransfer   = 1 << 20   // rtmax, wtmax: bytes that one READ or WRITE moves at most
	MaxFileSize   = 1<<43 - 1 // largest size of a file
	MaxMajor      = 1<<12 - 1 // of a device: Linux keeps 12 bits of the major number,
	MaxMinor      = 1<<20 - 1 // and 20 of the minor one; a client reads others as device 0:0
)

// NoID is no user and no group: (uid_t)-1, which chown takes for "leave it". XDR can carry
// it, but a Linux client that reads it in attributes drops the whole reply, a listing for
// instance, and asks again. So it is never kept nor told: in credentials it is the
// anonymous user or group, in a Sattr3 it asks for nothing, elsewhere it is an error.
const NoID uint32 = 1<<32 - 1

// CheckID returns an error if id cannot be a user or a group.
func CheckID(id uint32) error {
	if id == NoID {
		return fmt.Errorf("got %d, want <= %d: NFS clients take this number (-1) for no id at all", id, NoID-1)
	}
	return nil
}

// FileType is ftype3 [RFC1813 §2.6].
type FileType uint32

// The values of FileType.
const (
	TypeReg  FileType = 1 // regular file
	TypeDir  FileType = 2 // directory
	TypeBlk  FileType = 3 // block special device
	TypeChr  FileType = 4 // character special device
	TypeLnk  FileType = 5 // symbolic link
	TypeSock FileType = 6 // socket
	TypeFifo FileType = 7 // named pipe
)

// Mode bits, as in fattr3 and sattr3 [RFC1813 §2.6].
const (
	ModeSetUID   uint32 = 0o4000
	ModeSetGID   uint32 = 0o2000
	ModeSticky   uint32 = 0o1000
	ModePerm     uint32 = 0o777
	ModeSettable uint32 = 0o7777
)

// Access bits of ACCESS [RFC1813 §3.3.4].
const (
	AccessRead    uint32 = 0x01
	AccessLookup  uint32 = 0x02
	AccessModify  uint32 = 0x04
	AccessExtend  uint32 = 0x08
	AccessDelete  uint32 = 0x10
	AccessExecute uint32 = 0x20
	AccessAll     uint32 = 0x3f
)

// Properties of FSINFO [RFC1813 §3.3.19].
const (
	FSLink        uint32 = 0x01 // hard links
	FSSymlink     uint32 = 0x02 // symbolic links
	FSHomogeneous uint32 = 0x08 // PATHCONF is the same everywhere
	FSCanSetTime  uint32 = 0x10 // SETATTR sets times exactly
)

// CreateMode is createmode3 [RFC1813 §3.3.8].
type CreateMode uint32

// The values of CreateMode.
const (
	Unchecked CreateMode = 0
	Guarded   CreateMode = 1
	Exclusive CreateMode = 2
)

// StableHow is stable_how [RFC1813 §3.3.7].
type StableHow uint32

// The values of StableHow.
const (
	Unstable StableHow = 0
	DataSync StableHow = 1
	FileSync StableHow = 2
)

// TimeHow is time_how [RFC1813 §2.6].
type TimeHow uint32

// The values of TimeHow.
const (
	DontChange      TimeHow = 0
	SetToServerTime TimeHow = 1
	SetToClientTime TimeHow = 2
)

// A Verifier is the eight bytes of cookieverf3, createverf3 and writeverf3 [RFC1813 §2.4].
type Verifier [8]byte

// Time3 is nfstime3: seconds since 1970 [RFC1813 §2.5]. The decoder does not judge the
// nanoseconds; a value of 10^9 or more in a Sattr3 is INVAL to the file system.
type Time3 struct {
	Seconds     uint32
	Nanoseconds uint32
}

// Time is t for Go programs.
func (t Time3) Time() time.Time { return time.Unix(int64(t.Seconds), int64(t.Nanoseconds)) }

// MakeTime3 is t in the protocol's words; beyond 1970..2106 it is the nearest end.
func MakeTime3(t time.Time) Time3 {
	switch s := t.Unix(); {
	case s < 0:
		return Time3{}
	case s > 1<<32-1:
		return Time3{Seconds: 1<<32 - 1, Nanoseconds: 999_999_999}
	default:
		return Time3{Seconds: uint32(s), Nanoseconds: uint32(t.Nanosecond())}
	}
}

// SpecData3 is the number of a device [RFC1813 §2.6].
type SpecData3 struct {
	Major uint32
	Minor uint32
}

// Fattr3 holds the attributes of a file [RFC1813 §2.6].
type Fattr3 struct {
	Type   FileType
	Mode   uint32
	Nlink  uint32
	UID    uint32
	GID    uint32
	Size   uint64
	Used   uint64
	Rdev   SpecData3
	FSID   uint64
	FileID uint64
	Atime  Time3
	Mtime  Time3
	Ctime  Time3
}

// PostOpAttr is post_op_attr: attributes after the operation, where there are any [RFC1813 §2.6].
type PostOpAttr struct {
	Present bool
	Attr    Fattr3 // zero if not Present
}

// WccAttr is wcc_attr, the part of the attributes that changes with the contents [RFC1813 §2.6].
type WccAttr struct {
	Size  uint64
	Mtime Time3
	Ctime Time3
}

// PreOpAttr is pre_op_attr: attributes before the operation [RFC1813 §2.6].
type PreOpAttr struct {
	Present bool
	Attr    WccAttr // zero if not Present
}

// WccData is wcc_data: weak cache consistency [RFC1813 §2.6].
type WccData struct {
	Before PreOpAttr
	After  PostOpAttr
}

// PostAttr is a with its flag set.
func PostAttr(a Fattr3) PostOpAttr { return PostOpAttr{Present: true, Attr: a} }

// PreAttr is the part of a that wcc_data keeps, with its flag set.
func PreAttr(a Fattr3) PreOpAttr {
	return PreOpAttr{Present: true, Attr: WccAttr{Size: a.Size, Mtime: a.Mtime, Ctime: a.Ctime}}
}

// SetTime is set_atime and set_mtime; Time counts only for SetToClientTime, and is zero otherwise.
type SetTime struct {
	How  TimeHow
	Time Time3
}

// Sattr3 holds the attributes that SETATTR and the creating procedures may set [RFC1813
// §2.6]. A value counts only if its Set flag is true, and is zero otherwise. The decoder
// judges none: mode bits beyond ModeSettable, sizes and nanoseconds are as received.
type Sattr3 struct {
	SetMode, SetUID, SetGID, SetSize bool
	Mode                             uint32
	UID                              uint32
	GID                              uint32
	Size                             uint64
	Atime                            SetTime
	Mtime                            SetTime
}

// A FileHandle is an nfs_fh3 as received: at most MaxFileHandle bytes, not checked yet.
type FileHandle []byte

// HandleSize is the length of a Handle in bytes.
const HandleSize = 20

// handleFormat opens every handle: "BFS" and the version of the layout.
const handleFormat uint32 = 'B'<<24 | 'F'<<16 | 'S'<<8 | 1

// A Handle names a file of an export for as long as the file lives: across rename,
// restart, relay and replica. It holds no secret; rights are checked at every call.
//
//	format      u32   "BFS" 1
//	export      u32
//	inode       u64
//	generation  u32
type Handle struct {
	Export     uint32
	Inode      uint64
	Generation uint32 // tells the files apart that had the same inode one after the other
}

// Append appends the HandleSize bytes of h to b.
func (h Handle) Append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, handleFormat)
	b = binary.BigEndian.AppendUint32(b, h.Export)
	b = binary.BigEndian.AppendUint64(b, h.Inode)
	return binary.BigEndian.AppendUint32(b, h.Generation)
}

// FileHandle is h as an argument of a call.
func (h Handle) FileHandle() FileHandle { return h.Append(make([]byte, 0, HandleSize)) }

// Parse reads a Handle. It is not ok if fh does not have its form: BADHANDLE.
func (fh FileHandle) Parse() (h Handle, ok bool) {
	if len(fh) != HandleSize || binary.BigEndian.Uint32(fh) != handleFormat {
		return Handle{}, false
	}
	return Handle{
		Export:     binary.BigEndian.Uint32(fh[4:]),
		Inode:      binary.BigEndian.Uint64(fh[8:]),
		Generation: binary.BigEndian.Uint32(fh[16:]),
	}, true
}

// PostOpFH is post_op_fh3 [RFC1813 §2.6]. Its handle is a Handle, because a replica made it.
type PostOpFH struct {
	Present bool
	Handle  Handle // zero if not Present
}

// PostFH is h with its flag set.
func PostFH(h Handle) PostOpFH { return PostOpFH{Present: true, Handle: h} }
