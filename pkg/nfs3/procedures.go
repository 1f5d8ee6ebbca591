// SPDX-License-Identifier: Apache-2.0

package nfs3

// Procedures of the NFS program [RFC1813 §3.3].
const (
	ProcNull        uint32 = 0
	ProcGetattr     uint32 = 1
	ProcSetattr     uint32 = 2
	ProcLookup      uint32 = 3
	ProcAccess      uint32 = 4
	ProcReadlink    uint32 = 5
	ProcRead        uint32 = 6
	ProcWrite       uint32 = 7
	ProcCreate      uint32 = 8
	ProcMkdir       uint32 = 9
	ProcSymlink     uint32 = 10
	ProcMknod       uint32 = 11
	ProcRemove      uint32 = 12
	ProcRmdir       uint32 = 13
	ProcRename      uint32 = 14
	ProcLink        uint32 = 15
	ProcReaddir     uint32 = 16
	ProcReaddirplus uint32 = 17
	ProcFsstat      uint32 = 18
	ProcFsinfo      uint32 = 19
	ProcPathconf    uint32 = 20
	ProcCommit      uint32 = 21
)

// Procedures of the MOUNT program [RFC1813 §5.2].
const (
	MountProcNull    uint32 = 0
	MountProcMnt     uint32 = 1
	MountProcDump    uint32 = 2
	MountProcUmnt    uint32 = 3
	MountProcUmntall uint32 = 4
	MountProcExport  uint32 = 5
)

// Flavours of credentials that MNT answers with [RFC5531 §8.2].
const (
	AuthNone uint32 = 0
	AuthSys  uint32 = 1
)

// ReadOnly says that a procedure cannot change the state, so that a relay may take the
// short way of reads without looking at the arguments [TOCS §6.1]. COMMIT is not among
// them: it is ordered behind the WRITEs it speaks of.
func ReadOnly(program, procedure uint32) bool {
	switch program {
	case ProgramNFS:
		switch procedure {
		case ProcNull, ProcGetattr, ProcLookup, ProcAccess, ProcReadlink, ProcRead, ProcReaddir,
			ProcReaddirplus, ProcFsstat, ProcFsinfo, ProcPathconf:
			return true
		}
	case ProgramMount:
		return procedure <= MountProcExport // the list of mounts is not kept, so UMNT changes nothing
	}
	return false
}
