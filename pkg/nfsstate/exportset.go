// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"encoding/binary"

	"bfs/pkg/nfs3"
)

// A Change holds the properties that SET changes of an export; nil leaves one as it is.
type Change struct {
	Mode        *uint32 // of the root directory, and so are the next two
	UID         *uint32
	GID         *uint32
	QuotaBytes  *uint64 // 0 is no limit, and so below
	QuotaInodes *uint64
}

// The bits of SET's word that say which of its values count.
const (
	setMode = 1 << iota
	setUID
	setGID
	setQuotaBytes
	setQuotaInodes
)

// ExportSetCall is the operation that changes an export; its reply is for ParseAdminStatus.
func ExportSetCall(export uint32, c *Change) []byte {
	var x Export
	which := pick(c.Mode, setMode, &x.Mode) | pick(c.UID, setUID, &x.UID) | pick(c.GID, setGID, &x.GID) |
		pick(c.QuotaBytes, setQuotaBytes, &x.QuotaBytes) | pick(c.QuotaInodes, setQuotaInodes, &x.QuotaInodes)
	b := binary.BigEndian.AppendUint32(nil, export)
	b = binary.BigEndian.AppendUint32(b, which)
	return adminCall(AdminExportSet, appendProperties(b, &x))
}

// pick copies a value that is there, and returns its bit.
func pick[V any](from *V, bit uint32, to *V) uint32 {
	if from == nil {
		return 0
	}
	*to = *from
	return bit
}

// ExportRemoveCall is the operation that removes an empty export; its reply is for
// ParseAdminStatus.
func ExportRemoveCall(export uint32) []byte {
	return adminCall(AdminExportRemove, binary.BigEndian.AppendUint32(nil, export))
}

// changeExport runs SET and REMOVE.
func (fs *FS) changeExport(c *caller, proc uint32, in *adminReader, admin bool) (nfs3.Status, error) {
	e, which, x := in.u32(), uint32(0), Export{}
	if proc == AdminExportSet {
		which = in.u32()
		x = in.properties("")
	}
	switch err := in.end(); {
	case err != nil:
		return 0, err
	case !admin:
		return nfs3.ErrPerm, nil
	case !fs.exported(e):
		return nfs3.ErrNoEnt, nil
	case proc == AdminExportRemove:
		return fs.removeExport(exportID(e)), nil
	case which&setUID != 0 && nfs3.CheckID(x.UID) != nil, which&setGID != 0 && nfs3.CheckID(x.GID) != nil:
		return nfs3.ErrInval, nil
	}
	fs.setQuota(exportID(e), which, &x)
	fs.setRoot(c, exportID(e), which, &x)
	return nfs3.OK, nil
}

// setQuota changes a quota. One below the space in use lets nothing more be made, and
// removes nothing.
func (fs *FS) setQuota(e exportID, which uint32, x *Export) {
	p, off := fs.rowAt(e)
	b := fs.modify(p)[off:]
	if which&setQuotaBytes != 0 {
		le.PutUint64(b[rowQuotaPages:], quotaPages(x.QuotaBytes))
	}
	if which&setQuotaInodes != 0 {
		le.PutUint64(b[rowQuotaInodes:], x.QuotaInodes)
	}
}

// setRoot changes the owner and the mode of an export's root directory.
func (fs *FS) setRoot(c *caller, e exportID, which uint32, x *Export) {
	if which&(setMode|setUID|setGID) == 0 {
		return
	}
	var root inode
	fs.load(inodeNum(le.Uint32(fs.row(e)[rowRoot:])), &root)
	if which&setMode != 0 {
		root.mode = x.Mode & nfs3.ModeSettable
	}
	if which&setUID != 0 {
		root.uid = x.UID
	}
	if which&setGID != 0 {
		root.gid = x.GID
	}
	root.ctime = c.now
	fs.save(&root)
}

// removeExport removes an export whose root directory is empty: nothing is lost by it,
// and it takes one step. Its row stays without a name, so that its number is not given to
// another export.
func (fs *FS) removeExport(e exportID) nfs3.Status {
	var root inode
	fs.load(inodeNum(le.Uint32(fs.row(e)[rowRoot:])), &root)
	if root.size > 0 {
		return nfs3.ErrNotEmpty
	}
	fs.freeInode(&root)
	p, off := fs.rowAt(e)
	b := fs.modify(p)[off : off+exportSize]
	invariant(le.Uint64(b[rowPages:]) == 0 && le.Uint64(b[rowInodes:]) == 0, "empty export uses something")
	clear(b)
	return nfs3.OK
}
