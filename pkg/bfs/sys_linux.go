// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"syscall"

	"golang.org/x/sys/unix"

	"bfs/pkg/nfs3"
)

// blockSize is the unit of Stat_t.Blocks in bytes.
const blockSize = 512

func sys(a *nfs3.Fattr3) any {
	s := &syscall.Stat_t{
		Dev: a.FSID, Ino: a.FileID, Mode: a.Mode&nfs3.ModeSettable | typeBits(a.Type), Uid: a.UID, Gid: a.GID,
		Rdev: unix.Mkdev(a.Rdev.Major, a.Rdev.Minor), Size: int64(a.Size),
		Blocks: int64((a.Used + blockSize - 1) / blockSize), Atim: timespec(a.Atime), Mtim: timespec(a.Mtime),
		Ctim: timespec(a.Ctime),
	}
	set(&s.Nlink, uint64(a.Nlink)) // the fields' types differ between machines
	set(&s.Blksize, nfs3.MaxTransfer)
	return s
}

func set[T ~uint32 | ~uint64 | ~int32 | ~int64](p *T, v uint64) { *p = T(v) }

func timespec(t nfs3.Time3) syscall.Timespec { return syscall.NsecToTimespec(t.Time().UnixNano()) }

func typeBits(t nfs3.FileType) uint32 {
	switch t {
	case nfs3.TypeReg:
		return syscall.S_IFREG
	case nfs3.TypeDir:
		return syscall.S_IFDIR
	case nfs3.TypeBlk:
		return syscall.S_IFBLK
	case nfs3.TypeChr:
		return syscall.S_IFCHR
	case nfs3.TypeLnk:
		return syscall.S_IFLNK
	case nfs3.TypeSock:
		return syscall.S_IFSOCK
	case nfs3.TypeFifo:
		return syscall.S_IFIFO
	default:
		return 0
	}
}
