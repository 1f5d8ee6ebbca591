// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"encoding/binary"

	"bfs/pkg/nfs3"
)

// The costs of procedures beyond those that all have in common, in bytes that could be
// copied in the time (pbft.Service). They are measured and rounded up: see BenchmarkCost.
// A byte is about half a nanosecond.
const (
	costOfEntry     = 4       // READDIR and READDIRPLUS, for each byte of the listing
	costOfComponent = 4 << 10 // MNT looks each up, in a directory of any size
	costOfStep      = 64      // RENAME looks at each directory between the new name and the root
	costOfExport    = 128     // EXPORT judges and lists each
)

// Cost implements pbft.Service. The few procedures that do more than look up a name and
// touch some pages say in their arguments how much more at most; a WRITE's length is
// reckoned with by the library.
func (fs *FS) Cost(body []byte) int {
	if len(body) < 8 {
		return 0
	}
	program, proc := binary.BigEndian.Uint32(body), binary.BigEndian.Uint32(body[4:])
	switch program {
	case nfs3.ProgramNFS:
		switch proc {
		case nfs3.ProcRead, nfs3.ProcReaddir, nfs3.ProcReaddirplus, nfs3.ProcRename:
			return costOfCall(body)
		}
	case nfs3.ProgramMount:
		switch proc {
		case nfs3.MountProcMnt:
			return costOfCall(body)
		case nfs3.MountProcExport:
			return maxExports * costOfExport
		}
	case nfs3.ProgramAdmin:
		if proc == AdminExportList {
			return maxExports * costOfExport
		}
	}
	return 0
}

// costOfCall is the cost of a call whose arguments decide it. A malformed call is
// refused, at no cost.
func costOfCall(body []byte) int {
	call, err := nfs3.ParseCall(body)
	if err != nil {
		return 0
	}
	if call.Program == nfs3.ProgramMount {
		a, err := nfs3.DecodeMountArgs(call.Args)
		if err != nil {
			return 0
		}
		return components(a.Path) * costOfComponent
	}
	switch call.Procedure {
	case nfs3.ProcRead:
		if a, err := nfs3.DecodeReadArgs(call.Args); err == nil {
			return int(min(a.Count, nfs3.MaxTransfer))
		}
	case nfs3.ProcReaddir:
		if a, err := nfs3.DecodeReaddirArgs(call.Args); err == nil {
			return costOfEntry * int(min(a.Count, maxListing))
		}
	case nfs3.ProcReaddirplus:
		if a, err := nfs3.DecodeReaddirplusArgs(call.Args); err == nil {
			return costOfEntry * int(min(a.MaxCount, maxListing))
		}
	case nfs3.ProcRename:
		// Within one directory nothing is walked. The handles tell: each directory has one.
		if a, err := nfs3.DecodeRenameArgs(call.Args); err == nil && !bytes.Equal(a.From.Dir, a.To.Dir) {
			return maxDepth * costOfStep
		}
	}
	return 0
}

// components is how many names of directories a path has behind its export's, at most.
func components(path []byte) int {
	n := 0
	for i, b := range path {
		if b == '/' && i+1 < len(path) && path[i+1] != '/' {
			n++
		}
	}
	return max(n-1, 0)
}
