// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"io/fs"
	"time"

	"bfs/pkg/nfs3"
)

// info is a file's attributes as fs.FileInfo and fs.DirEntry.
type info struct {
	name string
	attr nfs3.Fattr3
}

var (
	_ fs.FileInfo = (*info)(nil)
	_ fs.DirEntry = (*info)(nil)
)

func (i *info) Name() string               { return i.name }
func (i *info) Size() int64                { return int64(i.attr.Size) }
func (i *info) Mode() fs.FileMode          { return modeOf(&i.attr) }
func (i *info) Type() fs.FileMode          { return i.Mode().Type() }
func (i *info) ModTime() time.Time         { return i.attr.Mtime.Time() }
func (i *info) IsDir() bool                { return i.attr.Type == nfs3.TypeDir }
func (i *info) Info() (fs.FileInfo, error) { return i, nil }
func (i *info) String() string             { return fs.FormatFileInfo(i) }

// Sys returns a *syscall.Stat_t where the system has one, so that programs written for a local
// file system find owner, inode and times. Attributes returns all attributes of the protocol.
func (i *info) Sys() any { return sys(&i.attr) }

// Attributes returns the attributes of GETATTR [RFC1813 §2.6]. It is not ok if the info
// is not of this package.
func Attributes(fi fs.FileInfo) (nfs3.Fattr3, bool) {
	if i, ok := fi.(*info); ok {
		return i.attr, true
	}
	return nfs3.Fattr3{}, false
}

var typeModes = [...]fs.FileMode{
	nfs3.TypeDir:  fs.ModeDir,
	nfs3.TypeBlk:  fs.ModeDevice,
	nfs3.TypeChr:  fs.ModeDevice | fs.ModeCharDevice,
	nfs3.TypeLnk:  fs.ModeSymlink,
	nfs3.TypeSock: fs.ModeSocket,
	nfs3.TypeFifo: fs.ModeNamedPipe,
}

// special are the three bits that Go keeps elsewhere.
var special = [...]struct {
	bit  uint32
	mode fs.FileMode
}{
	{nfs3.ModeSetUID, fs.ModeSetuid},
	{nfs3.ModeSetGID, fs.ModeSetgid},
	{nfs3.ModeSticky, fs.ModeSticky},
}

func modeOf(a *nfs3.Fattr3) fs.FileMode {
	m := fs.FileMode(a.Mode & nfs3.ModePerm)
	for _, s := range special {
		if a.Mode&s.bit != 0 {
			m |= s.mode
		}
	}
	if int(a.Type) < len(typeModes) {
		return m | typeModes[a.Type]
	}
	return m | fs.ModeIrregular
}

// bitsOf are the settable bits of a mode.
func bitsOf(m fs.FileMode) uint32 {
	b := uint32(m.Perm())
	for _, s := range special {
		if m&s.mode != 0 {
			b |= s.bit
		}
	}
	return b
}
