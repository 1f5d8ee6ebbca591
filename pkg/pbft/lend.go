// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A loan keeps a stable checkpoint in the state while a backup reads it by FETCH, as a replica would that
// fetches the state. There is one loan at a time. As long as it lasts the state keeps the later checkpoints
// too, so the loan ends when the reader is silent for loanIdle, and when the pages that only checkpoints hold
// come to more than loanPages. The backup then begins again.
type loan struct {
	seq  SeqNum    // 0: there is none
	read time.Time // last
}

// loanIdle is how long a loan lasts that nobody uses.
const loanIdle = 10 * time.Second

// loanPages bounds the pages that checkpoints hold beside the live ones during a loan: an eighth of these, or
// 64 MiB if that is more. (A variable for tests.)
var loanPages = func(live int) int { return max(live/8, 64<<20/PageSize) }

// A Recorded State knows how many pages it keeps for checkpoints alone. Without that a loan ends when the
// window has moved once.
type Recorded interface{ Recorded() int }

// mayRead reports whether a client may read the whole state: the administrator, who can have anybody enrolled
// for it, and each member, which holds it. A member runs bfsd backup under its own key.
func (r *Replica) mayRead(s *auth.Session) bool {
	if s.Owner(r.group.Administrator) {
		return true
	}
	for _, m := range r.group.Members {
		if s.Owner(m.Key) {
			return true
		}
	}
	return false
}

// lend answers a FETCH of a client that may read the state. One that asks for no pages has an idle group take a
// checkpoint of all batches so far and up to Seq, and is told the last batch so far.
func (r *Replica) lend(c *transport.Conn, s *auth.Session, m *message.Fetch) {
	answer := &message.Data{Seq: m.Seq, Tag: m.Tag, Gone: true}
	c.Trust() // a member is no enrolled client, and its connection would end in ten seconds
	switch {
	case r.core == nil || c.Queued()+message.MaxData > queueBytes:
		return
	case len(m.Nodes) == 0:
		answer.Seq, answer.Gone = r.core.Await(m.Seq), false
	default:
		if r.borrow(m.Seq); r.session == nil {
			answer = r.readCheckpoint(m)
		}
	}
	if answer == nil { // a later checkpoint is being digested
		answer = &message.Data{Seq: m.Seq, Tag: m.Tag}
	}
	var pieces [][]byte
	pieces, r.buffer = answer.Pieces(r.buffer)
	if r.trailer = r.ring.SealBody(s, &r.scratch, r.trailer[:0], answer, pieces[0]); r.trailer != nil {
		c.Send(append(pieces, r.trailer)...)
		r.dirty.add(c)
	}
}

// borrow notes that a checkpoint is read. The stable one is lent if there is no other loan.
func (r *Replica) borrow(n SeqNum) {
	l := &r.loan
	if l.seq != n && (n != r.core.Stable().Seq || l.seq > 0 && time.Since(l.read) < loanIdle) {
		return
	}
	*l = loan{n, time.Now()}
}

// lent is the lowest checkpoint that the state must keep when n is all that others need. It ends a loan that
// has lasted too long.
func (r *Replica) lent(n SeqNum) SeqNum {
	l := &r.loan
	if l.seq == 0 || l.seq >= n {
		return n
	}
	if time.Since(l.read) < loanIdle && r.affordsLoan(n) {
		return l.seq
	}
	r.log.Info("a checkpoint is not kept for a backup any longer", "checkpoint", l.seq, "stable", n)
	*l = loan{}
	return n
}

func (r *Replica) affordsLoan(stable SeqNum) bool {
	state := r.cfg.Service.State()
	x, ok := state.(Recorded)
	if !ok {
		return stable <= r.loan.seq+r.group.Limits.LogSize
	}
	live := 0
	if s, ok := state.(Sized); ok {
		live = s.Pages()
	}
	return x.Recorded() <= loanPages(live)
}
