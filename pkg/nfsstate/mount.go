// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"

	"bfs/pkg/nfs3"
)

// answerMount runs a call of the MOUNT program [RFC1813 §5.2]. Exports and paths are
// replicated state, so MNT and EXPORT are answered from it. The replicas keep no list of
// mounts, so DUMP is empty and UMNT does nothing.
func (fs *FS) answerMount(c *caller, proc uint32, args []byte) ([]byte, error) {
	reply := fs.begin(smallReply)
	switch proc {
	case nfs3.MountProcMnt:
		a, err := nfs3.DecodeMountArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.mount(c, &a)
		return r.Append(reply), nil
	case nfs3.MountProcUmnt:
		_, err := nfs3.DecodeMountArgs(args)
		return reply, err
	}
	if err := nfs3.DecodeVoid(args); err != nil {
		return nil, err
	}
	switch proc {
	case nfs3.MountProcDump:
		r := nfs3.DumpResult{}
		return r.Append(reply), nil
	case nfs3.MountProcExport:
		r := fs.exportList(c)
		return r.Append(reply), nil
	default: // NULL, UMNTALL
		return reply, nil
	}
}

// mount is MNT [RFC1813 §5.2.1]. The path is an export's name, and perhaps directories
// below it, which the caller must be allowed to search.
func (fs *FS) mount(c *caller, a *nfs3.MountArgs) (r nfs3.MountResult) {
	if len(a.Path) > nfs3.MaxMountPath {
		r.Status = nfs3.MountErrNameTooLong
		return r
	}
	if len(a.Path) == 0 || a.Path[0] != '/' {
		r.Status = nfs3.MountErrNoEnt
		return r
	}
	name, rest, _ := bytes.Cut(bytes.TrimLeft(a.Path, "/"), []byte{'/'})
	e := fs.exportNamed(name)
	if e == 0 {
		r.Status = nfs3.MountErrNoEnt
		return r
	}
	if st := c.enter(uint32(e)); st != nfs3.OK {
		r.Status = nfs3.MountStatus(st)
		return r
	}
	var d inode
	fs.load(inodeNum(le.Uint32(fs.row(e)[rowRoot:])), &d)
	for len(rest) > 0 {
		name, rest, _ = bytes.Cut(rest, []byte{'/'})
		if len(name) == 0 {
			continue
		}
		if d.kind != nfs3.TypeDir {
			r.Status = nfs3.MountErrNotDir
			return r
		}
		next, st := fs.search(c, &d, name)
		if st != nfs3.OK {
			r.Status = nfs3.MountStatus(st)
			return r
		}
		fs.load(next.inode, &d)
	}
	if d.kind != nfs3.TypeDir {
		r.Status = nfs3.MountErrNotDir
		return r
	}
	r.Handle, r.Flavors = d.handle(), sysFlavor
	return r
}

var sysFlavor = []uint32{nfs3.AuthSys}

// exportList is EXPORT [RFC1813 §5.2.5]: the exports that this client was granted.
func (fs *FS) exportList(c *caller) (r nfs3.ExportResult) {
	for e := range fs.exports() {
		if c.enter(uint32(e)) == nfs3.OK {
			r.Exports = append(r.Exports, nfs3.Export{Dir: append([]byte{'/'}, fs.exportName(e)...)})
		}
	}
	return r
}
