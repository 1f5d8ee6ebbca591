// SPDX-License-Identifier: Apache-2.0

package nfsstate

import "bfs/pkg/nfs3"

// An inodeNum is the number of an inode, and the fileid that clients see. Inodes 0 and 1
// are never used.
type inodeNum uint32

const (
	inodeSize     = 256
	inodesPerPage = pageSize / inodeSize
	firstInode    = inodeNum(2)
)

// The layout of an inode. A free inode is zero except for its generation and the link to the next.
//
//	  0  kind         u8     nfs3.FileType; 0 is free
//	  1  exclusive    u8     1: verifier is that of an EXCLUSIVE CREATE not yet followed by a SETATTR
//	  2  mode         u16    permission bits
//	  4  generation   u32    rises when the inode is freed
//	  8  nlink        u32    in a free inode: the next free one
//	 12  uid          u32
//	 16  gid          u32
//	 20  export       u32
//	 24  size         u64    bytes; of a directory, its entries
//	 32  atime        u32 seconds, u32 nanoseconds
//	 40  mtime
//	 48  ctime
//	 56  verifier     8 bytes
//	 64  rdev         u32 major, u32 minor
//	 72  pages        u32    pages in use, those of the trees included
//	 76  parent       u32    of a directory
//	 80  root         u32    file: the tree behind the direct pages; directory: the tree of entries
//	 84  height       u8     of it
//	 85  indexHeight  u8
//	 88  direct       u32 × 12   a file's first pages; a long symlink's text is on the first
//	136  nextCookie   u64    of a directory
//	144  index       u32    of a directory: the tree of names' hashes
//	152  text         104 bytes  a symlink's text, if it fits
const (
	inodeText     = 152
	inodeTextSize = inodeSize - inodeText
	directPages   = 12
)

// An inode is the decoded form of one. A function that changes it saves it, and no second
// copy of an inode exists where one is changed.
type inode struct {
	num        inodeNum
	kind       nfs3.FileType
	exclusive  bool
	mode       uint32
	generation uint32
	nlink      uint32
	uid, gid   uint32
	export     exportID
	size       uint64
	atime      nfs3.Time3
	mtime      nfs3.Time3
	ctime      nfs3.Time3
	verifier   nfs3.Verifier
	rdev       nfs3.SpecData3
	pages      uint32
	parent     inodeNum

	root   pageNo
	height uint8
	direct [directPages]pageNo

	nextCookie  uint64
	index       pageNo
	indexHeight uint8
}

// inodeAt says where inode n lies.
func (fs *FS) inodeAt(n inodeNum) (pageNo, int) {
	return fs.at.inodes + pageNo(n/inodesPerPage), int(n%inodesPerPage) * inodeSize
}

// load reads inode n into in.
func (fs *FS) load(n inodeNum, in *inode) {
	p, off := fs.inodeAt(n)
	b := fs.read(p)[off : off+inodeSize]
	in.num = n
	in.kind = nfs3.FileType(b[0])
	in.exclusive = b[1] == 1
	in.mode = uint32(le.Uint16(b[2:]))
	in.generation = le.Uint32(b[4:])
	in.nlink = le.Uint32(b[8:])
	in.uid, in.gid = le.Uint32(b[12:]), le.Uint32(b[16:])
	in.export = exportID(le.Uint32(b[20:]))
	in.size = le.Uint64(b[24:])
	in.atime, in.mtime, in.ctime = getTime(b[32:]), getTime(b[40:]), getTime(b[48:])
	in.verifier = nfs3.Verifier(b[56:64])
	in.rdev = nfs3.SpecData3{Major: le.Uint32(b[64:]), Minor: le.Uint32(b[68:])}
	in.pages = le.Uint32(b[72:])
	in.parent = inodeNum(le.Uint32(b[76:]))
	in.root, in.height, in.indexHeight = pageNo(le.Uint32(b[80:])), b[84], b[85]
	for i := range in.direct {
		in.direct[i] = pageNo(le.Uint32(b[88+4*i:]))
	}
	in.nextCookie, in.index = le.Uint64(b[136:]), pageNo(le.Uint32(b[144:]))
	in.amend()
}

// amend replaces values that clients cannot read by the anonymous user, the anonymous
// group and device 0:0, because earlier versions kept any value they were given. The page
// follows at the next save.
func (in *inode) amend() {
	if in.uid == nfs3.NoID {
		in.uid = Nobody
	}
	if in.gid == nfs3.NoID {
		in.gid = Nobody
	}
	if !goodDevice(in.rdev) {
		in.rdev = nfs3.SpecData3{}
	}
}

// goodDevice says whether clients can read a device's number.
func goodDevice(d nfs3.SpecData3) bool { return d.Major <= nfs3.MaxMajor && d.Minor <= nfs3.MaxMinor }

// save writes in back. The text of a symlink stays as it is.
func (fs *FS) save(in *inode) {
	p, off := fs.inodeAt(in.num)
	b := fs.modify(p)[off : off+inodeSize]
	b[0], b[1] = byte(in.kind), 0
	if in.exclusive {
		b[1] = 1
	}
	le.PutUint16(b[2:], uint16(in.mode))
	le.PutUint32(b[4:], in.generation)
	le.PutUint32(b[8:], in.nlink)
	le.PutUint32(b[12:], in.uid)
	le.PutUint32(b[16:], in.gid)
	le.PutUint32(b[20:], uint32(in.export))
	le.PutUint64(b[24:], in.size)
	putTime(b[32:], in.atime)
	putTime(b[40:], in.mtime)
	putTime(b[48:], in.ctime)
	copy(b[56:64], in.verifier[:])
	le.PutUint32(b[64:], in.rdev.Major)
	le.PutUint32(b[68:], in.rdev.Minor)
	le.PutUint32(b[72:], in.pages)
	le.PutUint32(b[76:], uint32(in.parent))
	le.PutUint32(b[80:], uint32(in.root))
	b[84], b[85] = in.height, in.indexHeight
	for i, d := range in.direct {
		le.PutUint32(b[88+4*i:], uint32(d))
	}
	le.PutUint64(b[136:], in.nextCookie)
	le.PutUint32(b[144:], uint32(in.index))
}

func getTime(b []byte) nfs3.Time3 {
	return nfs3.Time3{Seconds: le.Uint32(b), Nanoseconds: le.Uint32(b[4:])}
}

func putTime(b []byte, t nfs3.Time3) {
	le.PutUint32(b, t.Seconds)
	le.PutUint32(b[4:], t.Nanoseconds)
}

// freeInodes counts the inodes that are left.
func (fs *FS) freeInodes() uint64 {
	return fs.config.Inodes - uint64(firstInode) - uint64(fs.counter(superInodesUsed))
}

// allocInode takes an inode for the export: the one freed last, or the first never used.
// Requires room.
func (fs *FS) allocInode(e exportID, kind nfs3.FileType, in *inode) {
	fs.charge(e, 0, 1)
	fs.addCounter(superInodesUsed, 1)
	if n := inodeNum(fs.counter(superInodeFree)); n != 0 {
		fs.load(n, in)
		fs.setCounter(superInodeFree, in.nlink)
		in.nlink, in.generation = 0, max(in.generation, fs.firstGeneration())
	} else {
		n = inodeNum(fs.counter(superInodeHigh))
		invariant(uint64(n) < fs.config.Inodes, "inode allocated without room")
		fs.setCounter(superInodeHigh, uint32(n)+1)
		*in = inode{num: n, generation: fs.firstGeneration()}
	}
	in.kind, in.export = kind, e
}

// firstGeneration is the least generation that an inode is given in this epoch. An epoch that
// begins with a backup does not know which generations were given between that and the loss: a
// client that has a handle from then shall not find another file by it. So an epoch has 2^20
// generations of an inode to itself.
func (fs *FS) firstGeneration() uint32 { return uint32(max(fs.config.Epoch, 1)-1)<<20 + 1 }

// freeInode gives it back, and all pages that hang on it. Handles of it are STALE from now on.
func (fs *FS) freeInode(in *inode) {
	if in.kind == nfs3.TypeReg || in.kind == nfs3.TypeLnk {
		fs.mapCut(in, 0)
	}
	invariant(in.pages == 0 && in.root == 0 && in.index == 0, "freed inode has pages")
	fs.charge(in.export, 0, -1)
	fs.addCounter(superInodesUsed, -1)
	p, off := fs.inodeAt(in.num)
	b := fs.modify(p)[off : off+inodeSize]
	clear(b)
	le.PutUint32(b[4:], in.generation+1)
	le.PutUint32(b[8:], fs.counter(superInodeFree))
	fs.setCounter(superInodeFree, uint32(in.num))
}

// handle names the file that in is.
func (in *inode) handle() nfs3.Handle {
	return nfs3.Handle{Export: uint32(in.export), Inode: uint64(in.num), Generation: in.generation}
}

// attr returns the attributes that clients see [RFC1813 §2.6]. An export is a file
// system, so its number is the fsid.
func (in *inode) attr() nfs3.Fattr3 {
	return nfs3.Fattr3{
		Type: in.kind, Mode: in.mode, Nlink: in.nlink, UID: in.uid, GID: in.gid,
		Size: in.size, Used: uint64(in.pages) * pageSize, Rdev: in.rdev,
		FSID: uint64(in.export), FileID: uint64(in.num),
		Atime: in.atime, Mtime: in.mtime, Ctime: in.ctime,
	}
}

// parentOf is the directory that directory n is in; an export's root is in itself.
func (fs *FS) parentOf(n inodeNum) inodeNum {
	p, off := fs.inodeAt(n)
	return inodeNum(le.Uint32(fs.read(p)[off+76:]))
}
