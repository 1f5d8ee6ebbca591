// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"fmt"
	"iter"

	"bfs/pkg/nfs3"
)

// An exportID numbers an export from 1 on. It is the fsid that clients see, and in every handle.
type exportID uint32

// An Export is a file system of its own: a root, a quota, and no way in or out by RENAME or LINK.
type Export struct {
	Name        string // mounted as "/" and this; letters, digits, '.', '_', '-'
	Mode        uint32 // of the root directory
	UID         uint32
	GID         uint32
	QuotaBytes  uint64 // in use at most, whole pages; 0 is no limit
	QuotaInodes uint64 // 0 is no limit
}

// Bounds of exports.
const (
	MaxExportName = 64                          // bytes
	MaxExports    = exportPages * exportPerPage // that a state sees in its life, those removed included
)

// The layout of a row of the export table:
//
//	 0  nameLength   u32   0: no export, or one that was removed
//	 4  root         u32   inode of the root directory
//	 8  quotaPages   u64
//	16  quotaInodes  u64
//	24  pages        u64   in use
//	32  inodes       u64   in use
//	64  name         64 bytes
const (
	exportPages   = 16
	exportSize    = 256
	exportPerPage = pageSize / exportSize
	maxExports    = MaxExports

	rowNameLength  = 0
	rowRoot        = 4
	rowQuotaPages  = 8
	rowQuotaInodes = 16
	rowPages       = 24
	rowInodes      = 32
	rowName        = 64
)

func (fs *FS) rowAt(e exportID) (pageNo, int) {
	i := uint32(e) - 1
	return fs.at.exports + pageNo(i/exportPerPage), int(i%exportPerPage) * exportSize
}

// row reads an export's row. Requires that the export is there or was there.
func (fs *FS) row(e exportID) []byte {
	p, off := fs.rowAt(e)
	return fs.read(p)[off : off+exportSize]
}

// exported reports whether there is an export with this number.
func (fs *FS) exported(e uint32) bool {
	return e >= 1 && e <= fs.counter(superExports) && le.Uint32(fs.row(exportID(e))[rowNameLength:]) > 0
}

// exports yields the exports, in the order of their numbers.
func (fs *FS) exports() iter.Seq[exportID] {
	return func(yield func(exportID) bool) {
		for e := uint32(1); e <= fs.counter(superExports); e++ {
			if fs.exported(e) && !yield(exportID(e)) {
				return
			}
		}
	}
}

// charge counts pages and inodes to an export.
func (fs *FS) charge(e exportID, pages, inodes int64) {
	p, off := fs.rowAt(e)
	b := fs.modify(p)[off : off+exportSize]
	le.PutUint64(b[rowPages:], uint64(int64(le.Uint64(b[rowPages:]))+pages))
	le.PutUint64(b[rowInodes:], uint64(int64(le.Uint64(b[rowInodes:]))+inodes))
	invariant(int64(le.Uint64(b[rowPages:])) >= 0 && int64(le.Uint64(b[rowInodes:])) >= 0,
		"export uses less than nothing")
}

// quota says whether the export may use that much more.
func (fs *FS) quota(e exportID, pages, inodes uint64) nfs3.Status {
	b := fs.row(e)
	over := func(more, limit, used int) bool {
		l := le.Uint64(b[limit:])
		return more > 0 && l > 0 && le.Uint64(b[used:])+uint64(more) > l
	}
	if over(int(pages), rowQuotaPages, rowPages) || over(int(inodes), rowQuotaInodes, rowInodes) {
		return nfs3.ErrDQuot
	}
	return nfs3.OK
}

// quotaPages is a quota of bytes in whole pages; even the smallest is not 0, which would be none.
func quotaPages(bytes uint64) uint64 {
	if bytes > 0 && bytes < pageSize {
		return 1
	}
	return bytes / pageSize
}

// checkExport returns an error if x cannot be an export.
func checkExport(x *Export) error {
	ok := len(x.Name) >= 1 && len(x.Name) <= MaxExportName && x.Name != "." && x.Name != ".."
	for _, c := range []byte(x.Name) {
		ok = ok && ('a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
			c == '.' || c == '_' || c == '-')
	}
	if !ok {
		return fmt.Errorf("nfsstate: export name %q: want 1 to %d of letters, digits, '.', '_', '-'",
			x.Name, MaxExportName)
	}
	if err := nfs3.CheckID(x.UID); err != nil {
		return fmt.Errorf("nfsstate: export %q: owner: %w", x.Name, err)
	}
	if err := nfs3.CheckID(x.GID); err != nil {
		return fmt.Errorf("nfsstate: export %q: group: %w", x.Name, err)
	}
	return nil
}

// mayAddExport returns the status that refuses to make an export, OK if it can be made.
func (fs *FS) mayAddExport(x *Export) nfs3.Status {
	switch {
	case checkExport(x) != nil:
		return nfs3.ErrInval
	case fs.exportNamed([]byte(x.Name)) != 0:
		return nfs3.ErrExist
	case fs.counter(superExports) == maxExports || fs.freeInodes() == 0:
		return nfs3.ErrNoSpc
	}
	return nfs3.OK
}

// addExport makes an export and its root directory. The number of a removed export is not
// given again: a client's rights may still name it. So a state sees at most maxExports
// exports in its life.
func (fs *FS) addExport(now nfs3.Time3, x *Export) (exportID, nfs3.Status) {
	if st := fs.mayAddExport(x); st != nfs3.OK {
		return 0, st
	}
	n := fs.counter(superExports)
	e := exportID(n + 1)
	fs.setCounter(superExports, n+1)
	p, off := fs.rowAt(e)
	b := fs.modify(p)[off : off+exportSize]
	le.PutUint32(b[rowNameLength:], uint32(len(x.Name)))
	le.PutUint64(b[rowQuotaPages:], quotaPages(x.QuotaBytes))
	le.PutUint64(b[rowQuotaInodes:], x.QuotaInodes)
	copy(b[rowName:], x.Name)

	var root inode
	fs.allocInode(e, nfs3.TypeDir, &root)
	le.PutUint32(b[rowRoot:], uint32(root.num))
	root.mode, root.uid, root.gid = x.Mode&nfs3.ModeSettable, x.UID, x.GID
	root.nlink, root.parent, root.nextCookie = 2, root.num, cookieFirst
	root.atime, root.mtime, root.ctime = now, now, now
	fs.save(&root)
	return e, nfs3.OK
}

// exportNamed finds an export by its name, 0 if there is none.
func (fs *FS) exportNamed(name []byte) exportID {
	for e := range fs.exports() {
		if bytes.Equal(fs.exportName(e), name) {
			return e
		}
	}
	return 0
}

// exportName is lent by the page.
func (fs *FS) exportName(e exportID) []byte {
	b := fs.row(e)
	return b[rowName : rowName+le.Uint32(b[rowNameLength:])]
}
