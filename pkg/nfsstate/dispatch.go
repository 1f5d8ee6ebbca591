package nfsstate

import "bfs/pkg/nfs3"

// A reply is an AcceptStat and the results. Success is 0, so a reply begins as four zero bytes.

// refuse is the reply to a call that was not run.
func refuse(stat nfs3.AcceptStat) []byte { return nfs3.AppendReply(nil, stat) }

// begin is a reply with room for results of that size, and a little more for a listing's head. It lies where the last one did:
// fresh memory for a READ of a mebibyte costs eight times what filling it does.
func (fs *FS) begin(size int) []byte {
	if cap(fs.reply) < 4+size {
		fs.reply = make([]byte, 4, 4+size)
	}
	clear(fs.reply[:4])
	return fs.reply[:4]
}

// smallReply has room for the results of every procedure but READ, READLINK and the listings: at most two wcc_data.
const smallReply = 256

// answer runs a call and encodes its results.
func (fs *FS) answer(c *caller, call *nfs3.Call) []byte {
	var reply []byte
	var err error
	proc, args := call.Procedure, call.Args
	switch call.Program {
	case nfs3.ProgramNFS:
		switch proc {
		case nfs3.ProcNull:
			reply, err = fs.begin(0), nfs3.DecodeVoid(args)
		case nfs3.ProcGetattr, nfs3.ProcSetattr, nfs3.ProcAccess, nfs3.ProcFsstat, nfs3.ProcFsinfo, nfs3.ProcPathconf:
			reply, err = fs.answerAttributes(c, proc, args)
		case nfs3.ProcReadlink, nfs3.ProcRead, nfs3.ProcWrite, nfs3.ProcCommit, nfs3.ProcReaddir, nfs3.ProcReaddirplus:
			reply, err = fs.answerData(c, proc, args)
		case nfs3.ProcLookup, nfs3.ProcCreate, nfs3.ProcMkdir, nfs3.ProcSymlink, nfs3.ProcMknod,
			nfs3.ProcRemove, nfs3.ProcRmdir, nfs3.ProcRename, nfs3.ProcLink:
			reply, err = fs.answerNames(c, proc, args)
		default:
			return refuse(nfs3.ProcUnavail)
		}
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

func (fs *FS) answerAttributes(c *caller, proc uint32, args []byte) ([]byte, error) {
	reply := fs.begin(smallReply)
	switch proc {
	case nfs3.ProcGetattr:
		a, err := nfs3.DecodeGetattrArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.getattr(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcSetattr:
		a, err := nfs3.DecodeSetattrArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.setattr(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcAccess:
		a, err := nfs3.DecodeAccessArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.access(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcFsstat:
		a, err := nfs3.DecodeFsstatArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.fsstat(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcFsinfo:
		a, err := nfs3.DecodeFsinfoArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.fsinfo(c, &a)
		return r.Append(reply), nil
	default: // ProcPathconf
		a, err := nfs3.DecodePathconfArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.pathconf(c, &a)
		return r.Append(reply), nil
	}
}

func (fs *FS) answerData(c *caller, proc uint32, args []byte) ([]byte, error) {
	switch proc {
	case nfs3.ProcReadlink:
		a, err := nfs3.DecodeReadlinkArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.readlink(c, &a)
		return r.Append(fs.begin(smallReply + len(r.Path))), nil
	case nfs3.ProcRead:
		a, err := nfs3.DecodeReadArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.readData(c, &a)
		return r.Append(fs.begin(r.Size())), nil
	case nfs3.ProcWrite:
		a, err := nfs3.DecodeWriteArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.write(c, &a)
		return r.Append(fs.begin(smallReply)), nil
	case nfs3.ProcCommit:
		a, err := nfs3.DecodeCommitArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.commit(c, &a)
		return r.Append(fs.begin(smallReply)), nil
	case nfs3.ProcReaddir:
		a, err := nfs3.DecodeReaddirArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.readdir(c, &a)
		return r.Append(fs.begin(r.Size())), nil
	default: // ProcReaddirplus
		a, err := nfs3.DecodeReaddirplusArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.readdirplus(c, &a)
		return r.Append(fs.begin(r.Size())), nil
	}
}

func (fs *FS) answerNames(c *caller, proc uint32, args []byte) ([]byte, error) {
	reply := fs.begin(smallReply)
	switch proc {
	case nfs3.ProcLookup:
		a, err := nfs3.DecodeLookupArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.lookup(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcRemove:
		a, err := nfs3.DecodeRemoveArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.remove(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcRmdir:
		a, err := nfs3.DecodeRmdirArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.rmdir(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcRename:
		a, err := nfs3.DecodeRenameArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.rename(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcLink:
		a, err := nfs3.DecodeLinkArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.link(c, &a)
		return r.Append(reply), nil
	default:
		return fs.answerCreators(c, proc, args, reply)
	}
}

func (fs *FS) answerCreators(c *caller, proc uint32, args, reply []byte) ([]byte, error) {
	switch proc {
	case nfs3.ProcCreate:
		a, err := nfs3.DecodeCreateArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.create(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcMkdir:
		a, err := nfs3.DecodeMkdirArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.mkdir(c, &a)
		return r.Append(reply), nil
	case nfs3.ProcSymlink:
		a, err := nfs3.DecodeSymlinkArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.symlink(c, &a)
		return r.Append(reply), nil
	default: // ProcMknod
		a, err := nfs3.DecodeMknodArgs(args)
		if err != nil {
			return nil, err
		}
		r := fs.mknod(c, &a)
		return r.Append(reply), nil
	}
}
