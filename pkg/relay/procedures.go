// SPDX-License-Identifier: Apache-2.0

package relay

import "bfs/pkg/nfs3"

// Procedures of NFS that the relay names. It passes on all 22 [RFC1813 §3].
const (
	nfsNull   = 0
	nfsCommit = 21
)

// Procedures of MOUNT [RFC1813 appendix I].
const (
	mountNull    = 0
	mountMnt     = 1
	mountDump    = 2
	mountUmnt    = 3
	mountUmntAll = 4
	mountExport  = 5
)

var nfsNames = [...]string{
	"NULL", "GETATTR", "SETATTR", "LOOKUP", "ACCESS", "READLINK", "READ", "WRITE", "CREATE", "MKDIR", "SYMLINK",
	"MKNOD", "REMOVE", "RMDIR", "RENAME", "LINK", "READDIR", "READDIRPLUS", "FSSTAT", "FSINFO", "PATHCONF", "COMMIT",
}

var mountNames = [...]string{"NULL", "MNT", "DUMP", "UMNT", "UMNTALL", "EXPORT"}

// nfsReads are the procedures that change nothing. COMMIT is one of them: every WRITE is answered
// FILE_SYNC, so nothing is left for it to do (R-OUR-1).
const nfsReads = 1<<nfsNull | 1<<1 | 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<16 | 1<<17 | 1<<18 | 1<<19 | 1<<20 | 1<<nfsCommit

// A destination says which side answers a call.
type destination uint8

const (
	toGroup destination = iota
	toUs                // NULL, and the procedures on the list of mounts
	toNobody
)

// route returns the side that answers h, and for toNobody the accept_stat of the answer.
func route(h *header) (destination, nfs3.AcceptStat) {
	var procedures int
	switch h.program {
	case nfs3.ProgramNFS:
		procedures = len(nfsNames)
	case nfs3.ProgramMount:
		procedures = len(mountNames)
	default: // ProgramAdmin too: the administrator does not come through a kernel
		return toNobody, nfs3.ProgUnavail
	}
	switch {
	case h.version != nfs3.Version:
		return toNobody, nfs3.ProgMismatch
	case h.procedure >= uint32(procedures):
		return toNobody, nfs3.ProcUnavail
	case h.procedure == 0:
		return toUs, 0
	case h.program == nfs3.ProgramMount && h.procedure != mountMnt && h.procedure != mountExport:
		return toUs, 0
	}
	return toGroup, 0
}

// readOnly reports whether a call for the group only reads.
func readOnly(h *header) bool {
	return h.program == nfs3.ProgramMount || nfsReads>>h.procedure&1 != 0
}
