// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"context"
	"fmt"

	"bfs/pkg/nfs3"
)

// An Invoker runs one operation on the group and waits for its reply; readOnly is true
// for operations that cannot change anything. *pbft.Client is one.
type Invoker interface {
	Invoke(ctx context.Context, body []byte, readOnly bool) ([]byte, error)
}

// maxOutstanding bounds the calls that one Mount has under way, well below the number
// that a client may queue.
const maxOutstanding = 64

// A mount is the state that the FS, Subs and Files of one Mount share.
type mount struct {
	group Invoker
	cred  nfs3.Credentials
	calls chan struct{} // a token for each call under way
	open  openFiles
}

// arguments of a procedure.
type arguments interface{ Append(b []byte) []byte }

// call runs one procedure. The caller owns the slices in its results.
func call[R any](ctx context.Context, m *mount, program, procedure uint32, a arguments, size int,
	decode func([]byte) (R, error)) (r R, err error) {
	const head = 128 // bytes, at most
	body := nfs3.AppendCall(make([]byte, 0, head+4*len(m.cred.Groups)+size),
		&nfs3.Call{Program: program, Procedure: procedure, Cred: m.cred})
	body = a.Append(body)
	select {
	case m.calls <- struct{}{}:
	case <-ctx.Done():
		return r, ctx.Err()
	}
	reply, err := m.group.Invoke(ctx, body, nfs3.ReadOnly(program, procedure))
	<-m.calls
	if err != nil {
		return r, err
	}
	stat, results, err := nfs3.ParseReply(reply)
	if err != nil {
		return r, err
	}
	if err := acceptError(stat); err != nil {
		return r, err
	}
	if r, err = decode(results); err != nil {
		return r, fmt.Errorf("results of procedure %d: %w", procedure, err)
	}
	return r, nil
}

const smallArguments = 512 // handles and names

func nfs[R any](f *FS, procedure uint32, a arguments, decode func([]byte) (R, error)) (R, error) {
	return call(f.ctx, f.mount, nfs3.ProgramNFS, procedure, a, smallArguments, decode)
}

// A node is a file as a call found it.
type node struct {
	handle nfs3.Handle
	attr   nfs3.Fattr3
}

func (n *node) is(t nfs3.FileType) bool { return n.attr.Type == t }

func (f *FS) getattr(h nfs3.Handle) (nfs3.Fattr3, error) {
	r, err := nfs(f, nfs3.ProcGetattr, &nfs3.GetattrArgs{Object: h.FileHandle()}, nfs3.DecodeGetattrResult)
	if err == nil {
		err = statusError(r.Status)
	}
	return r.Attr, err
}

func (f *FS) setattr(h nfs3.Handle, s nfs3.Sattr3) error {
	r, err := nfs(f, nfs3.ProcSetattr, &nfs3.SetattrArgs{Object: h.FileHandle(), New: s}, nfs3.DecodeSetattrResult)
	if err != nil {
		return err
	}
	return statusError(r.Status)
}

func (f *FS) lookup(dir nfs3.Handle, name string) (node, error) {
	a := &nfs3.LookupArgs{What: dirOp(dir, name)}
	r, err := nfs(f, nfs3.ProcLookup, a, nfs3.DecodeLookupResult)
	if err == nil {
		err = statusError(r.Status)
	}
	if err != nil {
		return node{}, err
	}
	return f.nodeOf(r.Object, r.Attr)
}

// nodeOf is a node of which the attributes may have come along [RFC1813 §2.6].
func (f *FS) nodeOf(h nfs3.Handle, p nfs3.PostOpAttr) (n node, err error) {
	n = node{handle: h, attr: p.Attr}
	if !p.Present {
		n.attr, err = f.getattr(h)
	}
	return n, err
}

func dirOp(dir nfs3.Handle, name string) nfs3.DirOp {
	return nfs3.DirOp{Dir: dir.FileHandle(), Name: []byte(name)}
}

// created runs one of the four procedures that create a file, and returns the file.
func (f *FS) created(procedure uint32, where nfs3.DirOp, a arguments) (node, error) {
	r, err := nfs(f, procedure, a, nfs3.DecodeCreateResult)
	if err == nil {
		err = statusError(r.Status)
	}
	if err != nil {
		return node{}, err
	}
	if r.Object.Present {
		return f.nodeOf(r.Object.Handle, r.Attr)
	}
	dir, ok := where.Dir.Parse()
	if !ok {
		return node{}, statusError(nfs3.ErrBadHandle)
	}
	return f.lookup(dir, string(where.Name))
}

// create makes a regular file that must not exist yet. The group runs every operation
// once, however often it is sent, so GUARDED is as good as EXCLUSIVE and sets the mode
// too [RFC1813 §3.3.8].
func (f *FS) create(dir nfs3.Handle, name string, mode uint32) (node, error) {
	a := &nfs3.CreateArgs{Where: dirOp(dir, name), Mode: nfs3.Guarded, Attr: nfs3.Sattr3{SetMode: true, Mode: mode}}
	return f.created(nfs3.ProcCreate, a.Where, a)
}

func (f *FS) mkdir(dir nfs3.Handle, name string, mode uint32) (node, error) {
	a := &nfs3.MkdirArgs{Where: dirOp(dir, name), Attr: nfs3.Sattr3{SetMode: true, Mode: mode}}
	return f.created(nfs3.ProcMkdir, a.Where, a)
}

func (f *FS) symlink(dir nfs3.Handle, name, target string) error {
	a := &nfs3.SymlinkArgs{Where: dirOp(dir, name), Path: []byte(target),
		Attr: nfs3.Sattr3{SetMode: true, Mode: nfs3.ModePerm}}
	_, err := f.created(nfs3.ProcSymlink, a.Where, a)
	return err
}

func (f *FS) mknod(dir nfs3.Handle, name string, kind nfs3.FileType, mode uint32, dev nfs3.SpecData3) error {
	a := &nfs3.MknodArgs{Where: dirOp(dir, name), Type: kind, Attr: nfs3.Sattr3{SetMode: true, Mode: mode}, Spec: dev}
	_, err := f.created(nfs3.ProcMknod, a.Where, a)
	return err
}

func (f *FS) readlink(h nfs3.Handle) (string, error) {
	r, err := nfs(f, nfs3.ProcReadlink, &nfs3.ReadlinkArgs{Symlink: h.FileHandle()}, nfs3.DecodeReadlinkResult)
	if err == nil {
		err = statusError(r.Status)
	}
	return string(r.Path), err
}

// access asks whether all of the wanted bits are granted. The mode does not tell: the
// client may be squashed.
func (f *FS) access(h nfs3.Handle, want uint32) error {
	r, err := nfs(f, nfs3.ProcAccess, &nfs3.AccessArgs{Object: h.FileHandle(), Access: want}, nfs3.DecodeAccessResult)
	if err == nil {
		err = statusError(r.Status)
	}
	if err == nil && r.Access&want != want {
		err = statusError(nfs3.ErrAcces)
	}
	return err
}

func (f *FS) remove(dir nfs3.Handle, name string, directory bool) error {
	var r nfs3.RemoveResult
	var err error
	if directory {
		r, err = nfs(f, nfs3.ProcRmdir, &nfs3.RmdirArgs{Object: dirOp(dir, name)}, nfs3.DecodeRmdirResult)
	} else {
		r, err = nfs(f, nfs3.ProcRemove, &nfs3.RemoveArgs{Object: dirOp(dir, name)}, nfs3.DecodeRemoveResult)
	}
	if err != nil {
		return err
	}
	return statusError(r.Status)
}

func (f *FS) rename(from, to nfs3.DirOp) error {
	r, err := nfs(f, nfs3.ProcRename, &nfs3.RenameArgs{From: from, To: to}, nfs3.DecodeRenameResult)
	if err != nil {
		return err
	}
	return statusError(r.Status)
}

func (f *FS) link(file nfs3.Handle, to nfs3.DirOp) error {
	r, err := nfs(f, nfs3.ProcLink, &nfs3.LinkArgs{File: file.FileHandle(), Link: to}, nfs3.DecodeLinkResult)
	if err != nil {
		return err
	}
	return statusError(r.Status)
}
