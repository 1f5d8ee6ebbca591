// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"encoding/binary"
	"errors"
	"fmt"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// Procedures of nfs3.ProgramAdmin. Those that change something are for the group's
// administrator alone: PERM to others.
//
//	ADD     name as opaque<64>, mode, uid, gid u32, quota bytes, quota inodes u64 → status, export u32
//	LIST    → count u32, then as many of: export, mode, uid, gid u32, name, quota bytes, quota inodes, used bytes,
//	        used inodes u64
//	SET     export, which u32, mode, uid, gid u32, quota bytes, quota inodes u64 → status u32
//	REMOVE  export u32 → status u32: NOTEMPTY unless its root directory is empty
//	ADMIT   see admit.go; only within FS.Admit
//
// A client that is not the administrator is listed the exports it was granted.
const (
	AdminExportAdd    uint32 = 1
	AdminExportList   uint32 = 2
	AdminExportSet    uint32 = 3
	AdminExportRemove uint32 = 4
	AdminAdmit        uint32 = 5
)

// An ExportInfo is an export as LIST tells it.
type ExportInfo struct {
	ID          uint32
	Mode        uint32 // of the root directory, and so are the next two
	UID         uint32
	GID         uint32
	Name        string
	QuotaBytes  uint64
	QuotaInodes uint64
	UsedBytes   uint64
	UsedInodes  uint64
}

var errAdmin = errors.New("malformed arguments")

// ExportAddCall is the operation that adds an export; its reply is for ParseExportAdd.
func ExportAddCall(x *Export) []byte {
	return adminCall(AdminExportAdd, appendProperties(appendOpaque(nil, []byte(x.Name)), x))
}

// appendProperties appends the properties of an export except its name.
func appendProperties(b []byte, x *Export) []byte {
	for _, v := range [...]uint32{x.Mode, x.UID, x.GID} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	b = binary.BigEndian.AppendUint64(b, x.QuotaBytes)
	return binary.BigEndian.AppendUint64(b, x.QuotaInodes)
}

// ExportListCall is the operation, which only reads, that lists the exports; its reply is
// for ParseExportList.
func ExportListCall() []byte { return adminCall(AdminExportList, nil) }

func adminCall(proc uint32, args []byte) []byte {
	return nfs3.AppendCall(nil, &nfs3.Call{
		Program: nfs3.ProgramAdmin, Procedure: proc, Cred: nfs3.Credentials{None: true}, Args: args,
	})
}

func appendOpaque(b, v []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(v)))
	b = append(b, v...)
	return append(b, make([]byte, -len(v)&3)...)
}

// adminReader reads the encodings of the functions above. When bytes are missing it notes
// an error, and reads zeros from then on.
type adminReader struct {
	b   []byte
	err error
}

func (r *adminReader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.b, r.err = nil, errAdmin
		return make([]byte, 8)
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

func (r *adminReader) u32() uint32 { return binary.BigEndian.Uint32(r.take(4)) }
func (r *adminReader) u64() uint64 { return binary.BigEndian.Uint64(r.take(8)) }

func (r *adminReader) name() []byte {
	n := r.u32()
	if n > MaxExportName {
		r.err = errAdmin
		return nil
	}
	v := r.take(int(n))
	r.take(-int(n) & 3)
	return v
}

// properties reads the encoding of appendProperties.
func (r *adminReader) properties(name string) Export {
	return Export{Name: name, Mode: r.u32(), UID: r.u32(), GID: r.u32(), QuotaBytes: r.u64(), QuotaInodes: r.u64()}
}

func (r *adminReader) end() error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errAdmin
	}
	return r.err
}

// answerAdmin runs a call of the administration program.
func (fs *FS) answerAdmin(c *caller, proc uint32, args []byte) ([]byte, error) {
	in := adminReader{b: args}
	reply := fs.begin(smallReply)
	put := func(v uint32) { reply = binary.BigEndian.AppendUint32(reply, v) }
	admin := c.client == pbft.Administrator
	switch proc {
	case AdminExportAdd:
		x := in.properties(string(in.name()))
		if err := in.end(); err != nil {
			return nil, err
		}
		e, st := exportID(0), nfs3.ErrPerm
		if admin {
			e, st = fs.addExport(c.now, &x)
		}
		put(uint32(st))
		put(uint32(e))
	case AdminExportSet, AdminExportRemove:
		st, err := fs.changeExport(c, proc, &in, admin)
		if err != nil {
			return nil, err
		}
		put(uint32(st))
	default: // AdminExportList, and procedure 0, which does nothing
		if err := in.end(); err != nil {
			return nil, err
		}
		if proc == AdminExportList {
			reply = fs.appendExportList(reply, c, admin)
		}
	}
	return reply, nil
}

func (fs *FS) appendExportList(reply []byte, c *caller, admin bool) []byte {
	at, count := len(reply), uint32(0)
	reply = append(reply, 0, 0, 0, 0)
	for e := range fs.exports() {
		if !admin && c.enter(uint32(e)) != nfs3.OK {
			continue
		}
		count++
		b := fs.row(e)
		var root inode
		fs.load(inodeNum(le.Uint32(b[rowRoot:])), &root)
		for _, v := range [...]uint32{uint32(e), root.mode, root.uid, root.gid} {
			reply = binary.BigEndian.AppendUint32(reply, v)
		}
		reply = appendOpaque(reply, fs.exportName(e))
		for _, v := range [...]uint64{
			le.Uint64(b[rowQuotaPages:]) * pageSize, le.Uint64(b[rowQuotaInodes:]),
			le.Uint64(b[rowPages:]) * pageSize, le.Uint64(b[rowInodes:]),
		} {
			reply = binary.BigEndian.AppendUint64(reply, v)
		}
	}
	binary.BigEndian.PutUint32(reply[at:], count)
	return reply
}

// adminResults returns a reader of the results behind the head of a successful reply.
func adminResults(reply []byte) (adminReader, error) {
	stat, results, err := nfs3.ParseReply(reply)
	if err == nil && stat != nfs3.Success {
		err = fmt.Errorf("nfsstate: call refused with accept status %d", stat)
	}
	return adminReader{b: results}, err
}

// ParseAdminStatus reads the reply to an operation that answers with a status alone. A refusal is a
// nfs3.Status as error.
func ParseAdminStatus(reply []byte) error {
	r, err := adminResults(reply)
	if err != nil {
		return err
	}
	st := nfs3.Status(r.u32())
	if err := r.end(); err != nil {
		return err
	}
	if st != nfs3.OK {
		return st
	}
	return nil
}

// ParseExportAdd reads the reply to ExportAddCall: the number of the export, which rights
// and handles name it by.
func ParseExportAdd(reply []byte) (export uint32, err error) {
	r, err := adminResults(reply)
	if err != nil {
		return 0, err
	}
	st := nfs3.Status(r.u32())
	export = r.u32()
	if err := r.end(); err != nil {
		return 0, err
	}
	if st != nfs3.OK {
		return 0, st
	}
	return export, nil
}

// ParseExportList reads the reply to ExportListCall.
func ParseExportList(reply []byte) ([]ExportInfo, error) {
	r, err := adminResults(reply)
	if err != nil {
		return nil, err
	}
	var list []ExportInfo
	for range min(r.u32(), maxExports) {
		list = append(list, ExportInfo{
			ID: r.u32(), Mode: r.u32(), UID: r.u32(), GID: r.u32(), Name: string(r.name()),
			QuotaBytes: r.u64(), QuotaInodes: r.u64(), UsedBytes: r.u64(), UsedInodes: r.u64(),
		})
	}
	return list, r.end()
}
