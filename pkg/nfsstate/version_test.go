// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"fmt"
	"testing"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// The version of a read is the last batch that changed anything its answer depends on: a
// write to one file is no reason for replicas to disagree about another (R-OUR-22). A
// client whose rights run out depends on the agreed clock, and so on every write.
func TestVersionOfReads(t *testing.T) {
	fs, u := newFS(t, 4096)
	state := fs.State().(pbft.Versioned)
	lastChange := func(v *user, h nfs3.FileHandle) pbft.SeqNum {
		t.Helper()
		args := nfs3.GetattrArgs{Object: h}
		body := nfs3.AppendCall(nil, &nfs3.Call{Program: nfs3.ProgramNFS, Procedure: nfs3.ProcGetattr,
			Args: args.Append(nil)})
		state.Observe()
		if _, ok := fs.Query(pbft.Operation{Client: v.client, Rights: v.rights, Body: body}); !ok {
			t.Fatal("GETATTR is refused as a read")
		}
		return state.Observed()
	}
	state.Begin(1)
	var files []nfs3.FileHandle
	for i := range 2 * inodesPerPage { // so that the first and the last lie on different pages
		files = append(files, u.create(u.root, fmt.Sprint(i), nfs3.Unchecked, nfs3.Sattr3{}).Object.Handle.FileHandle())
	}
	first, last := files[0], files[len(files)-1]
	state.Begin(2)
	u.write(last, 0, []byte("x"))
	if got := lastChange(u, last); got != 2 {
		t.Errorf("the file that batch 2 wrote was changed last by batch %d", got)
	}
	if got := lastChange(u, first); got != 1 {
		t.Errorf("the file that batch 1 made was changed last by batch %d", got)
	}
	expires := u.with(u.client, Rights{Grants: []Grant{{Export: 1}}, Expires: 1 << 62})
	if got := lastChange(expires, first); got != 2 {
		t.Errorf("whether the client's rights have run out was changed last by batch %d, want 2", got)
	}
}
