// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"bfs/pkg/bfs"
	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
	"bfs/pkg/pbft"
)

// root is not squashed in these tests.
var root = nfs3.Credentials{UID: 0, GID: 0}

// A direct group is the file system itself, without a group around it.
type direct struct {
	mu     sync.Mutex
	fs     *nfsstate.FS
	rights []byte
	calls  map[uint32]int // by procedure of NFS
	most   int            // calls under way at once
	inside int
	before func(proc uint32) // if not nil, called at each operation
}

const testPages = 1 << 16 // 256 MiB

func newService(t testing.TB, reserved uint64) *nfsstate.FS {
	t.Helper()
	store, err := fsmerkle.New(fsmerkle.Options{Pages: testPages})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	fs, err := nfsstate.New(store, nfsstate.Config{
		Pages: testPages, Reserved: reserved, Inodes: testPages,
		Exports: []nfsstate.Export{{Name: "export", Mode: 0o755}, {Name: "small", Mode: 0o777, QuotaBytes: 256 << 10}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func grants(readOnly bool) []byte {
	r := nfsstate.Rights{Grants: []nfsstate.Grant{
		{Export: 1, ReadOnly: readOnly, AnonUID: nfsstate.Nobody, AnonGID: nfsstate.Nobody},
		{Export: 2, ReadOnly: readOnly, AnonUID: nfsstate.Nobody, AnonGID: nfsstate.Nobody},
	}}
	return r.Append(nil)
}

func newDirect(t testing.TB) *direct {
	return &direct{fs: newService(t, 1), rights: grants(false), calls: make(map[uint32]int)}
}

func (d *direct) Invoke(ctx context.Context, body []byte, readOnly bool) ([]byte, error) {
	call, err := nfs3.ParseCall(body)
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	d.inside++
	d.most = max(d.most, d.inside)
	d.calls[call.Procedure]++
	before := d.before
	d.mu.Unlock()
	if before != nil {
		before(call.Procedure)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.inside--
	op := pbft.Operation{Client: 7, Rights: d.rights, Body: body}
	if readOnly {
		if reply, ok := d.fs.Query(op); ok {
			return bytes.Clone(reply), nil
		}
	}
	op.Choice = d.fs.Choose(0)
	reply, _ := d.fs.Execute(op)
	return bytes.Clone(reply), nil
}

// mount mounts the export of a new file system, with no umask.
func mount(t testing.TB) (*bfs.FS, *direct) {
	t.Helper()
	d := newDirect(t)
	return mountOn(t, d, "/export", root), d
}

func mountOn(t testing.TB, group bfs.Invoker, export string, cred nfs3.Credentials) *bfs.FS {
	t.Helper()
	fsys, err := bfs.Mount(context.Background(), group, export, cred)
	if err != nil {
		t.Fatal(err)
	}
	return fsys
}

func ok(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
