// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// A Dispute is what a replica has said, since we began, that is not what the group did.
// Nothing in the protocol depends on it: a wrong vote is one that is missing. It names
// those whose host operators are to look at. A replica that recovers counts nothing: what
// it compares with may be an intruder's work.
type Dispute struct {
	// Votes are PREPAREs for another batch than the one that committed in that view.
	// Either their sender lies or the primary, which then has proposed something else to
	// it.
	Votes uint64
	// Roots are CHECKPOINTs that name another root than the stable one. Their sender
	// lies, or its state is false.
	Roots uint64
	// False: its last word on a checkpoint was such a root.
	False bool
}

// disputes are what each replica has said against what the group did.
type disputes struct {
	*base
	of []Dispute // by replica
}

// votes counts the votes against what has just committed in the slot.
func (x *disputes) votes(s *slot) {
	for i := range x.of {
		if s.prepares.has(message.ReplicaID(i)) {
			x.vote(s, message.ReplicaID(i))
		}
	}
}

// vote counts replica i's vote in a slot if it is against what committed there in this view.
func (x *disputes) vote(s *slot, i message.ReplicaID) {
	if x.phase == NotRecovering && s.committedLocal(x.quorum()) && s.prepares.digests[i] != s.proposal.Digest {
		x.of[i].Votes++
	}
}

// roots counts the votes for a checkpoint against its root: it is about to become the stable one.
func (x *disputes) roots(said *votes, root message.Digest) {
	for i := range x.of {
		if j := message.ReplicaID(i); said.has(j) && j != x.cfg.Self {
			x.root(j, said.digests[i] != root)
		}
	}
}

// late counts what comes later of the stable checkpoint.
func (x *disputes) late(m *message.Checkpoint) {
	if stable := x.stable; m.Seq == stable.Seq && !stable.Digest.IsZero() {
		x.root(m.From, m.Digest != stable.Digest)
	}
}

func (x *disputes) root(i message.ReplicaID, wrong bool) {
	if x.phase != NotRecovering {
		return
	}
	d := &x.of[i]
	if d.False = wrong; wrong {
		d.Roots++
	}
}
