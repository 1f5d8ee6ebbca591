// SPDX-License-Identifier: Apache-2.0

package pbft

import "bfs/pkg/pbft/internal/message"

// sparing has n-q replicas follow the others at some distance. What is ordered needs a quorum of q, and these are enough while they
// are quick: so what the three phases say to the last n-q in line for primary is not written at once, but with the next tick, all of
// it together. It costs them and us a fraction of the system calls and wake-ups, and nobody waits for them: for long
// results clients name replicas that came first twice (client.audience.first). It is a matter of
// time alone: everything is said to everyone, in order, and a rule that counts votes counts the same.
//
// A caller who thinks between two calls has some tens of them ordered in that time at most, and then three replicas, one after
// the other, wake the spared one, whose votes wake them in turn: so the period is no shorter than it needs to be.
//
// When no batch is executed before the tick after the one that came after it was proposed, somebody among the q is not quick:
// silent perhaps, so that each batch waits for us to speak to the spared one. Then nobody is spared for a while, which is
// longer the more often it happens.
type sparing struct {
	off    bool
	brisk  int    // ticks for which nobody is spared
	length int    // of the last such period
	calm   int    // ticks since
	queued bool   // something waits for the next tick
	under  bool   // something was under way when what had waited was written last
	known  SeqNum // and so much was proposed
}

const (
	briskTicks    = 100
	maxBriskTicks = 64 * briskTicks
	spareBytes    = 256 << 10 // queued for a spared replica at most before it is written
)

// spares reports whether a message to replica i may wait.
func (r *Replica) spares(i ReplicaID, m message.Message) bool {
	if r.sparing.off || r.sparing.brisk > 0 {
		return false
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		if !m.Batch.Complete() {
			return false // the next operations may come from their clients before it, in place of those it names
		}
	case *message.Prepare, *message.Commit, *message.Checkpoint:
	default:
		return false
	}
	view, active := r.core.View()
	n := r.group.N()
	return active && (int(i)-int(view.Primary(n))+n)%n >= r.group.Quorum()
}

// endSparing has what is queued for those who were spared written, and looks whether the others do without them.
func (r *Replica) endSparing() {
	s := &r.sparing
	if !s.queued {
		return
	}
	s.queued = false
	if s.waited(r.core.UnderWay() > 0, r.core.LastExecuted(), r.core.LastProposed()) {
		r.beBrisk()
	}
	for _, p := range r.peers {
		if p != nil {
			if c := p.link.Conn(); c != nil && c.Queued() > 0 {
				r.dirty.add(c)
			}
		}
	}
}

// waited is told, whenever what had waited is written, whether something is under way, and how far we have executed and know of
// proposals. It reports whether it may have been us that all of it was waiting for: nothing that was proposed since the last time
// is executed yet, though something was under way all the while.
func (s *sparing) waited(under bool, executed, proposed SeqNum) bool {
	idle := under && s.under && executed <= s.known
	s.under, s.known = under, proposed
	return idle
}

// beBrisk spares nobody for a while.
func (r *Replica) beBrisk() {
	s := &r.sparing
	if s.brisk == 0 {
		if s.calm > 10*s.length {
			s.length = 0
		}
		s.length = min(max(2*s.length, briskTicks), maxBriskTicks)
	}
	s.brisk, s.calm = s.length, 0
}

// refreshTicks is for how many ticks nobody is spared when keys are refreshed.
const refreshTicks = 3

// refreshed notes that a replica has refreshed its keys. What is under way to it is lost and comes again; the others do
// without it sooner if nobody is spared meanwhile, and that they waited for it says nothing of how quick it is.
func (s *sparing) refreshed() { s.brisk, s.under = max(s.brisk, refreshTicks), false }

// pace decides once a tick whether somebody may be spared.
func (r *Replica) pace() {
	s := &r.sparing
	if s.brisk > 0 {
		s.brisk--
	} else {
		s.calm = min(s.calm+1, 1<<30)
	}
	for _, p := range r.peers {
		if p != nil && p.link.Conn() == nil {
			r.beBrisk()
			return
		}
	}
}
