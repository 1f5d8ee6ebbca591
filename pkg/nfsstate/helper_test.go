// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"encoding/binary"
	"testing"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// A user sends calls to an FS as one client's user, each a millisecond after the one before.
type user struct {
	t      testing.TB
	fs     *FS
	client pbft.ClientID
	rights []byte
	cred   nfs3.Credentials
	clock  *uint64
	root   nfs3.FileHandle
}

// newFS is a file system on pages of its own, with one export.
func newFS(t testing.TB, pages uint64, change ...func(*Config)) (*FS, *user) {
	t.Helper()
	c := Config{Pages: pages, Reserved: 4, Exports: []Export{{Name: "export", Mode: 0o777}}}
	for _, f := range change {
		f(&c)
	}
	store, err := fsmerkle.New(fsmerkle.Options{Pages: fsmerkle.PageNum(pages)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	fs, err := New(store, c)
	if err != nil {
		t.Fatal(err)
	}
	clock := uint64(1_600_000_000 * time.Second)
	r := Rights{Grants: []Grant{{Export: 1}}}
	u := &user{t: t, fs: fs, client: 7, rights: r.Append(nil), clock: &clock}
	u.root = u.mount("/export")
	return fs, u
}

// as is the same client's user with other ids.
func (u *user) as(uid, gid uint32, groups ...uint32) *user {
	v := *u
	v.cred = nfs3.Credentials{UID: uid, GID: gid, Groups: groups}
	return &v
}

// with is a user of a client with other rights.
func (u *user) with(client pbft.ClientID, r Rights) *user {
	v := *u
	v.client, v.rights = client, r.Append(nil)
	return &v
}

// call runs one operation and returns its results.
func (u *user) call(program, proc uint32, args []byte) []byte {
	u.t.Helper()
	*u.clock += uint64(time.Millisecond)
	body := nfs3.AppendCall(nil, &nfs3.Call{Program: program, Procedure: proc, Cred: u.cred, Args: args})
	op := pbft.Operation{Client: u.client, Rights: u.rights, Body: body,
		Choice: binary.BigEndian.AppendUint64(nil, *u.clock)}
	reply, _ := u.fs.Execute(op)
	stat, results, err := nfs3.ParseReply(reply)
	if err != nil || stat != nfs3.Success {
		u.t.Fatalf("program %d procedure %d: accept status %d, %v", program, proc, stat, err)
	}
	return results
}

func must[T any](t testing.TB, v T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (u *user) mount(path string) nfs3.FileHandle {
	u.t.Helper()
	a := nfs3.MountArgs{Path: []byte(path)}
	b := u.call(nfs3.ProgramMount, nfs3.MountProcMnt, a.Append(nil))
	r, err := nfs3.DecodeMountResult(b)
	if err != nil || r.Status != nfs3.MountOK {
		return nil
	}
	return r.Handle.FileHandle()
}

func (u *user) create(dir nfs3.FileHandle, name string, mode nfs3.CreateMode, attr nfs3.Sattr3) nfs3.CreateResult {
	u.t.Helper()
	a := nfs3.CreateArgs{Where: nfs3.DirOp{Dir: dir, Name: []byte(name)}, Mode: mode, Attr: attr}
	b := u.call(nfs3.ProgramNFS, nfs3.ProcCreate, a.Append(nil))
	r, err := nfs3.DecodeCreateResult(b)
	return must(u.t, r, err)
}

func (u *user) mkdir(dir nfs3.FileHandle, name string) nfs3.CreateResult {
	u.t.Helper()
	a := nfs3.MkdirArgs{Where: nfs3.DirOp{Dir: dir, Name: []byte(name)}, Attr: nfs3.Sattr3{SetMode: true, Mode: 0o755}}
	r, err := nfs3.DecodeCreateResult(u.call(nfs3.ProgramNFS, nfs3.ProcMkdir, a.Append(nil)))
	return must(u.t, r, err)
}

func (u *user) symlink(dir nfs3.FileHandle, name, text string) nfs3.CreateResult {
	u.t.Helper()
	a := nfs3.SymlinkArgs{Where: nfs3.DirOp{Dir: dir, Name: []byte(name)}, Path: []byte(text)}
	r, err := nfs3.DecodeCreateResult(u.call(nfs3.ProgramNFS, nfs3.ProcSymlink, a.Append(nil)))
	return must(u.t, r, err)
}

func (u *user) readlink(h nfs3.FileHandle) nfs3.ReadlinkResult {
	u.t.Helper()
	a := nfs3.ReadlinkArgs{Symlink: h}
	r, err := nfs3.DecodeReadlinkResult(u.call(nfs3.ProgramNFS, nfs3.ProcReadlink, a.Append(nil)))
	return must(u.t, r, err)
}

func (u *user) lookup(dir nfs3.FileHandle, name string) nfs3.LookupResult {
	u.t.Helper()
	a := nfs3.LookupArgs{What: nfs3.DirOp{Dir: dir, Name: []byte(name)}}
	r, err := nfs3.DecodeLookupResult(u.call(nfs3.ProgramNFS, nfs3.ProcLookup, a.Append(nil)))
	return must(u.t, r, err)
}

func (u *user) getattr(h nfs3.FileHandle) nfs3.GetattrResult {
	u.t.Helper()
	a := nfs3.GetattrArgs{Object: h}
	r, err := nfs3.DecodeGetattrResult(u.call(nfs3.ProgramNFS, nfs3.ProcGetattr, a.Append(nil)))
	return must(u.t, r, err)
}

func (u *user) setattr(h nfs3.FileHandle, s nfs3.Sattr3) nfs3.SetattrResult {
	u.t.Helper()
	a := nfs3.SetattrArgs{Object: h, New: s}
	r, err := nfs3.DecodeSetattrResult(u.call(nfs3.ProgramNFS, nfs3.ProcSetattr, a.Append(nil)))
	return must(u.t, r, err)
}

func (u *user) write(h nfs3.FileHandle, offset uint64, data []byte) nfs3.WriteResult {
	u.t.Helper()
	a := nfs3.WriteArgs{File: h, Offset: offset, Data: data}
	r, err := nfs3.DecodeWriteResult(u.call(nfs3.ProgramNFS, nfs3.ProcWrite, a.Append(nil)))
	return must(u.t, r, err)
}

func (u *user) read(h nfs3.FileHandle, offset uint64, count uint32) (nfs3.ReadResult, []byte) {
	u.t.Helper()
	a := nfs3.ReadArgs{File: h, Offset: offset, Count: count}
	r, err := nfs3.DecodeReadResult(u.call(nfs3.ProgramNFS, nfs3.ProcRead, a.Append(nil)))
	var data []byte
	for _, p := range r.Data {
		data = append(data, p...)
	}
	return must(u.t, r, err), data
}

func (u *user) remove(dir nfs3.FileHandle, name string) nfs3.Status {
	u.t.Helper()
	a := nfs3.RemoveArgs{Object: nfs3.DirOp{Dir: dir, Name: []byte(name)}}
	r, err := nfs3.DecodeRemoveResult(u.call(nfs3.ProgramNFS, nfs3.ProcRemove, a.Append(nil)))
	return must(u.t, r, err).Status
}

func (u *user) rmdir(dir nfs3.FileHandle, name string) nfs3.Status {
	u.t.Helper()
	a := nfs3.RmdirArgs{Object: nfs3.DirOp{Dir: dir, Name: []byte(name)}}
	r, err := nfs3.DecodeRemoveResult(u.call(nfs3.ProgramNFS, nfs3.ProcRmdir, a.Append(nil)))
	return must(u.t, r, err).Status
}

func (u *user) rename(from nfs3.FileHandle, old string, to nfs3.FileHandle, name string) nfs3.Status {
	u.t.Helper()
	a := nfs3.RenameArgs{From: nfs3.DirOp{Dir: from, Name: []byte(old)}, To: nfs3.DirOp{Dir: to, Name: []byte(name)}}
	r, err := nfs3.DecodeRenameResult(u.call(nfs3.ProgramNFS, nfs3.ProcRename, a.Append(nil)))
	return must(u.t, r, err).Status
}

func (u *user) fsstat() nfs3.FsstatResult {
	u.t.Helper()
	a := nfs3.FsstatArgs{Root: u.root}
	r, err := nfs3.DecodeFsstatResult(u.call(nfs3.ProgramNFS, nfs3.ProcFsstat, a.Append(nil)))
	return must(u.t, r, err)
}

// check fails the test unless every page of the state is in order.
func (u *user) check() {
	u.t.Helper()
	if err := u.fs.Check(); err != nil {
		u.t.Fatal(err)
	}
}

// digest is the root digest of the state now.
func digest(t testing.TB, fs *FS, seq fsmerkle.Seq) fsmerkle.Digest {
	t.Helper()
	fs.store.Freeze(seq, nil)
	d, err := fs.store.Root(seq)
	return must(t, d, err)
}
