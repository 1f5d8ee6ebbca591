// SPDX-License-Identifier: Apache-2.0

package model

import "bfs/pkg/nfs3"

// A Result is the result of a procedure.
type Result interface{ Append([]byte) []byte }

// nfs answers a call of the NFS program.
func (m *Model) nfs(c Caller, procedure uint32, args []byte) (r Result, stat nfs3.AcceptStat) {
	m.Took = false
	p := procedures[procedure]
	if p == nil {
		return nil, nfs3.ProcUnavail
	}
	r, err := p(m, c, args)
	if err != nil {
		return nil, nfs3.GarbageArgs
	}
	return r, nfs3.Success
}

// procedures is the 22 of them by number [RFC1813 §3.3].
var procedures = map[uint32]func(*Model, Caller, []byte) (Result, error){
	nfs3.ProcNull: func(_ *Model, _ Caller, b []byte) (Result, error) { return void{}, nfs3.DecodeVoid(b) },

	nfs3.ProcGetattr:     procedure(nfs3.DecodeGetattrArgs, (*Model).getattr),
	nfs3.ProcSetattr:     procedure(nfs3.DecodeSetattrArgs, (*Model).setattr),
	nfs3.ProcLookup:      procedure(nfs3.DecodeLookupArgs, (*Model).lookup),
	nfs3.ProcAccess:      procedure(nfs3.DecodeAccessArgs, (*Model).access),
	nfs3.ProcReadlink:    procedure(nfs3.DecodeReadlinkArgs, (*Model).readlink),
	nfs3.ProcRead:        procedure(nfs3.DecodeReadArgs, (*Model).read),
	nfs3.ProcWrite:       procedure(nfs3.DecodeWriteArgs, (*Model).write),
	nfs3.ProcCreate:      procedure(nfs3.DecodeCreateArgs, (*Model).createFile),
	nfs3.ProcMkdir:       procedure(nfs3.DecodeMkdirArgs, (*Model).mkdir),
	nfs3.ProcSymlink:     procedure(nfs3.DecodeSymlinkArgs, (*Model).symlink),
	nfs3.ProcMknod:       procedure(nfs3.DecodeMknodArgs, (*Model).mknod),
	nfs3.ProcRemove:      procedure(nfs3.DecodeRemoveArgs, (*Model).remove),
	nfs3.ProcRmdir:       procedure(nfs3.DecodeRmdirArgs, (*Model).rmdir),
	nfs3.ProcRename:      procedure(nfs3.DecodeRenameArgs, (*Model).rename),
	nfs3.ProcLink:        procedure(nfs3.DecodeLinkArgs, (*Model).link),
	nfs3.ProcReaddir:     procedure(nfs3.DecodeReaddirArgs, (*Model).readdir),
	nfs3.ProcReaddirplus: procedure(nfs3.DecodeReaddirplusArgs, (*Model).readdirplus),
	nfs3.ProcFsstat:      procedure(nfs3.DecodeFsstatArgs, (*Model).fsstat),
	nfs3.ProcFsinfo:      procedure(nfs3.DecodeFsinfoArgs, (*Model).fsinfo),
	nfs3.ProcPathconf:    procedure(nfs3.DecodePathconfArgs, (*Model).pathconf),
	nfs3.ProcCommit:      procedure(nfs3.DecodeCommitArgs, (*Model).commit),
}

// void is the result of NULL.
type void struct{}

func (void) Append(b []byte) []byte { return b }

// procedure puts a decoder before a method.
func procedure[A, R any, P interface {
	*R
	Result
}](decode func([]byte) (A, error), run func(*Model, Caller, A) R) func(*Model, Caller, []byte) (Result, error) {
	return func(m *Model, c Caller, b []byte) (Result, error) {
		a, err := decode(b)
		if err != nil {
			return nil, err
		}
		r := run(m, c, a)
		return P(&r), nil
	}
}
