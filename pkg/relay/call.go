// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"errors"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// systemErr is the reply to a call that could not be done. It holds no NFS status, because only the
// replicas may decide one.
var systemErr = binary.BigEndian.AppendUint32(nil, uint32(nfs3.SystemErr))

// sending notes the call in the journal before it leaves (R-OUR-15). The client may choose a
// new slot or timestamp for a call whose result the group did not keep; then the note moves.
func (k *call) sending(slot pbft.Slot, t pbft.Timestamp) error {
	j := k.server.config.Journal
	if k.journaled {
		k.journaled = false
		j.finish(k, nil, 0)
	}
	if j != nil {
		if err := j.begin(slot, t, k); err != nil {
			return err
		}
	}
	k.journaled, k.left, k.slot, k.t = j != nil, true, slot, t
	return nil
}

// done ends a call. It runs on a goroutine of the client and does not wait. It writes the
// answer to the journal, then to the table, then to the kernel, so that an answer that a
// kernel has seen survives this process. The failure of a call that has left is its answer,
// too: the call may have been executed, and done again it would be executed twice.
func (k *call) done(reply []byte, err error) {
	s := k.server
	if errors.Is(err, pbft.ErrClosed) {
		k.giveUp()
		return
	}
	reply, result := s.judge(k, reply, err)
	kept := reply
	if result == answeredFailed && !k.left {
		kept = nil
	}
	var a *answered
	if kept != nil && !k.readOnly {
		a = &answered{key: k.key, reply: kept}
	}
	if k.journaled {
		note := s.config.Journal.finish(k, kept, s.table.now())
		if a != nil {
			a.note = note
		}
	}
	if k.mount != "" && mountedOK(reply) {
		s.mounts.add(mounted{hostName(k.key.peer), k.mount})
	}
	s.counters.count(k.program, k.procedure, result)
	s.counters.took(time.Duration(s.table.now() - k.began))
	c, alone := s.table.finish(k, a)
	if c != nil {
		c.answer(k.key.xid, reply, alone, a)
	}
	recycleRecord(k.record) // the client no longer uses it, and an answer is never in it
	s.table.release(c, k.reserved)
	s.wakeBusy()
}

// giveUp ends a call that the client will not answer. The kernel gets a closed connection
// instead of an answer. It asks again, here or at the relay's next life, and the journal
// still has the call.
func (k *call) giveUp() {
	s := k.server
	s.counters.count(k.program, k.procedure, unanswered)
	c, _ := s.table.finish(k, nil)
	if c != nil {
		c.close()
	}
	s.table.release(c, k.reserved)
	s.wakeBusy()
}

// wakeBusy tells one reader that the client may have room.
func (s *Server) wakeBusy() {
	if s.busy.Load() > 0 {
		select {
		case s.freed <- struct{}{}:
		default:
		}
	}
}

// judge makes a well-formed reply of the client's result. Only a reply with SUCCESS has results.
func (s *Server) judge(k *call, reply []byte, err error) ([]byte, outcome) {
	if err != nil {
		s.adviseFailure(k, err)
		return systemErr, answeredFailed
	}
	stat, _, err := nfs3.ParseReply(reply)
	if err == nil {
		switch stat {
		case nfs3.Success:
			return reply, answeredOK
		case nfs3.ProgUnavail, nfs3.ProcUnavail, nfs3.GarbageArgs, nfs3.SystemErr:
			return reply[:4:4], answeredRefused
		case nfs3.ProgMismatch:
			b := binary.BigEndian.AppendUint32(reply[:4:4], nfs3.Version)
			return binary.BigEndian.AppendUint32(b, nfs3.Version), answeredRefused
		}
	}
	s.advise("reply", "the group gave a reply that is none: does it run another service or version?",
		"bytes", len(reply), "err", err)
	return systemErr, answeredFailed
}

// adviseFailure tells the administrator, now and then for each kind, why calls fail.
func (s *Server) adviseFailure(k *call, err error) {
	switch {
	case errors.Is(err, pbft.ErrNotEnrolled):
		s.advise("enrolled", "the group does not know this client, or has revoked it: all calls fail; "+
			"enrol it with `bfsd client add --key ...` (bfs-relay init prints the key)", "err", err)
	case errors.Is(err, pbft.ErrKeyInUse):
		s.advise("key", "another process uses this relay's key, so calls of both fail: a cloned machine, or "+
			"gonfs beside the relay; stop one of the two, or give it a key of its own "+
			"(bfs-relay init, bfsd client add)", "err", err)
	case errors.Is(err, pbft.ErrResultLost):
		s.advise("lost", "an operation was executed but its result is no longer kept; the caller sees an I/O "+
			"error. Does another process use this relay's key (a copy of this machine, or bfs-relay gonfs)? "+
			"Give each its own: bfs-relay init", "slot", k.slot, "err", err)
	default:
		s.advise("failed", "a call could not be done; the caller sees an I/O error; further ones are only counted",
			"err", err)
	}
}

// mountedOK reports whether a reply to MNT says MNT3_OK. That is the only word of results
// that the relay reads.
func mountedOK(reply []byte) bool {
	return len(reply) >= 8 && binary.BigEndian.Uint64(reply) == uint64(nfs3.Success)<<32
}
