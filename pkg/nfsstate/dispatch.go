// SPDX-License-Identifier: Apache-2.0

package nfsstate

import "bfs/pkg/nfs3"

// A reply is an AcceptStat and the results. Success is 0, so a reply begins as four zero bytes.

// refuse returns the reply to a call that was not run.
func refuse(stat nfs3.AcceptStat) []byte { return nfs3.AppendReply(nil, stat) }

// begin returns a reply that has no results yet, and room for size bytes of them. It uses
// the memory of the last reply again, because fresh memory for a READ of 1 MiB costs
// eight times as much as filling it.
func (fs *FS) begin(size int) []byte {
	if cap(fs.reply) < 4+size {
		fs.reply = make([]byte, 4, 4+size)
	}
	clear(fs.reply[:4])
	return fs.reply[:4]
}

// smallReply bounds the results of every procedure except READ, READLINK and the
// listings: at most two wcc_data.
const smallReply = 256

// answer runs a call and encodes its results.
func (fs *FS) answer(c *caller, call *nfs3.Call) []byte {
	var reply []byte
	var err error
	switch proc, args := call.Procedure, call.Args; call.Program {
	case nfs3.ProgramNFS:
		if proc >= uint32(len(fs.procedures)) {
			return refuse(nfs3.ProcUnavail)
		}
		reply, err = fs.procedures[proc](c, args)
	case nfs3.ProgramMount:
		if proc > nfs3.MountProcExport {
			return refuse(nfs3.ProcUnavail)
		}
		reply, err = fs.answerMount(c, proc, args)
	case nfs3.ProgramAdmin:
		if proc > AdminExportRemove {
			return refuse(nfs3.ProcUnavail)
		}
		reply, err = fs.answerAdmin(c, proc, args)
	default:
		return refuse(nfs3.ProgUnavail)
	}
	if err != nil {
		return refuse(nfs3.GarbageArgs)
	}
	return reply
}

// A procedure decodes its arguments, runs for a caller, and returns a reply. It fails
// only if it cannot decode them.
type procedure func(c *caller, args []byte) (reply []byte, err error)

// nfsProcedures returns the 22 procedures of NFS by number [RFC1813 §3.3].
func (fs *FS) nfsProcedures() [nfs3.ProcCommit + 1]procedure {
	return [...]procedure{
		nfs3.ProcNull: func(_ *caller, args []byte) ([]byte, error) { return fs.begin(0), nfs3.DecodeVoid(args) },

		nfs3.ProcGetattr:     small(fs, nfs3.DecodeGetattrArgs, fs.getattr),
		nfs3.ProcSetattr:     small(fs, nfs3.DecodeSetattrArgs, fs.setattr),
		nfs3.ProcLookup:      small(fs, nfs3.DecodeLookupArgs, fs.lookup),
		nfs3.ProcAccess:      small(fs, nfs3.DecodeAccessArgs, fs.access),
		nfs3.ProcReadlink:    large(fs, nfs3.DecodeReadlinkArgs, fs.readlink),
		nfs3.ProcRead:        large(fs, nfs3.DecodeReadArgs, fs.readData),
		nfs3.ProcWrite:       small(fs, nfs3.DecodeWriteArgs, fs.write),
		nfs3.ProcCreate:      small(fs, nfs3.DecodeCreateArgs, fs.create),
		nfs3.ProcMkdir:       small(fs, nfs3.DecodeMkdirArgs, fs.mkdir),
		nfs3.ProcSymlink:     small(fs, nfs3.DecodeSymlinkArgs, fs.symlink),
		nfs3.ProcMknod:       small(fs, nfs3.DecodeMknodArgs, fs.mknod),
		nfs3.ProcRemove:      small(fs, nfs3.DecodeRemoveArgs, fs.remove),
		nfs3.ProcRmdir:       small(fs, nfs3.DecodeRmdirArgs, fs.rmdir),
		nfs3.ProcRename:      small(fs, nfs3.DecodeRenameArgs, fs.rename),
		nfs3.ProcLink:        small(fs, nfs3.DecodeLinkArgs, fs.link),
		nfs3.ProcReaddir:     large(fs, nfs3.DecodeReaddirArgs, fs.readdir),
		nfs3.ProcReaddirplus: large(fs, nfs3.DecodeReaddirplusArgs, fs.readdirplus),
		nfs3.ProcFsstat:      small(fs, nfs3.DecodeFsstatArgs, fs.fsstat),
		nfs3.ProcFsinfo:      small(fs, nfs3.DecodeFsinfoArgs, fs.fsinfo),
		nfs3.ProcPathconf:    small(fs, nfs3.DecodePathconfArgs, fs.pathconf),
		nfs3.ProcCommit:      small(fs, nfs3.DecodeCommitArgs, fs.commit),
	}
}

// small makes a procedure of a decoder and a method whose results take at most smallReply bytes.
func small[A, R any, P interface {
	*R
	Append([]byte) []byte
}](fs *FS, decode func([]byte) (A, error), run func(*caller, *A) R) procedure {
	return withArgs(decode, run, func(r *R) []byte { return P(r).Append(fs.begin(smallReply)) })
}

// large makes a procedure of a decoder and a method whose results say how many bytes they take.
func large[A, R any, P interface {
	*R
	Append([]byte) []byte
	Size() int
}](fs *FS, decode func([]byte) (A, error), run func(*caller, *A) R) procedure {
	return withArgs(decode, run, func(r *R) []byte { return P(r).Append(fs.begin(P(r).Size())) })
}

// withArgs makes a procedure of a decoder, a method and an encoder. Arguments and results
// lie in memory that the procedure uses again, so that a call allocates nothing; it is
// cleared after each call, because they refer to the operation's bytes.
func withArgs[A, R any](decode func([]byte) (A, error), run func(*caller, *A) R, encode func(*R) []byte) procedure {
	type memory struct {
		args    A
		results R
	}
	call := new(memory)
	return func(c *caller, args []byte) (reply []byte, err error) {
		if call.args, err = decode(args); err != nil {
			return nil, err
		}
		call.results = run(c, &call.args)
		reply = encode(&call.results)
		*call = memory{}
		return reply, nil
	}
}
