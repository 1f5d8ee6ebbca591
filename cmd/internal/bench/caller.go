// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// A caller speaks NFS without a mount.
type caller struct{ client *pbft.Client }

func body(program, proc uint32, args []byte) []byte {
	return nfs3.AppendCall(nil, &nfs3.Call{Program: program, Procedure: proc, Args: args})
}

func (c caller) call(ctx context.Context, program, proc uint32, args []byte, readOnly bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	reply, err := c.client.Invoke(ctx, body(program, proc, args), readOnly)
	if err != nil {
		return nil, err
	}
	stat, results, err := nfs3.ParseReply(reply)
	if err == nil && stat != nfs3.Success {
		err = fmt.Errorf("program %d procedure %d: accept status %d", program, proc, stat)
	}
	return results, err
}

func (c caller) mount(ctx context.Context, path string) (nfs3.FileHandle, error) {
	a := nfs3.MountArgs{Path: []byte(path)}
	b, err := c.call(ctx, nfs3.ProgramMount, nfs3.MountProcMnt, a.Append(nil), true)
	if err != nil {
		return nil, err
	}
	r, err := nfs3.DecodeMountResult(b)
	if err == nil && r.Status != nfs3.MountOK {
		err = fmt.Errorf("mount %.40s: status %d", path, r.Status)
	}
	return r.Handle.FileHandle(), err
}

func (c caller) lookup(ctx context.Context, dir nfs3.FileHandle, name string) (nfs3.FileHandle, error) {
	a := nfs3.LookupArgs{What: nfs3.DirOp{Dir: dir, Name: []byte(name)}}
	b, err := c.call(ctx, nfs3.ProgramNFS, nfs3.ProcLookup, a.Append(nil), true)
	if err != nil {
		return nil, err
	}
	r, err := nfs3.DecodeLookupResult(b)
	if err == nil && r.Status != nfs3.OK {
		err = r.Status
	}
	return r.Object.FileHandle(), err
}

func (c caller) mkdir(ctx context.Context, dir nfs3.FileHandle, name string) (nfs3.FileHandle, error) {
	a := nfs3.MkdirArgs{Where: nfs3.DirOp{Dir: dir, Name: []byte(name)}, Attr: nfs3.Sattr3{SetMode: true, Mode: 0o755}}
	b, err := c.call(ctx, nfs3.ProgramNFS, nfs3.ProcMkdir, a.Append(nil), false)
	if err != nil {
		return nil, err
	}
	r, err := nfs3.DecodeCreateResult(b)
	if err == nil && r.Status != nfs3.OK {
		err = r.Status
	}
	return r.Object.Handle.FileHandle(), err
}

// find looks names up, one below the other.
func (c caller) find(ctx context.Context, names ...string) (at nfs3.FileHandle, err error) {
	if at, err = c.mount(ctx, exportPath); err != nil {
		return nil, err
	}
	for _, name := range names {
		if at, err = c.lookup(ctx, at, name); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return at, nil
}
