// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// A Dispute is what a replica has said, since we began, that is not what the group did. Nothing in the protocol depends on it: a wrong
// vote is one that is missing. It names those whose host operators are to look at. A replica that recovers counts nothing: what it
// compares with may be an intruder's work.
type Dispute struct {
	// Votes are PREPAREs for another batch than the one that committed in that view. Either their sender lies or the primary, which
	// then has proposed something else to it.
	Votes uint64
	// Roots are CHECKPOINTs that name another root than the stable one. Their sender lies, or its state is false.
	Roots uint64
	// False: its last word on a checkpoint was such a root.
	False bool
}

// Dispute is what replica i has said against what the group did.
func (c *Core) Dispute(i message.ReplicaID) Dispute { return c.disputes[i] }

// disputeVotes counts the votes against what has just committed in the slot.
func (c *Core) disputeVotes(s *slot) {
	for i := range c.disputes {
		if s.prepares.has(message.ReplicaID(i)) {
			c.disputeVote(s, message.ReplicaID(i))
		}
	}
}

// disputeVote counts replica i's vote in a slot if it is against what committed there in this view.
func (c *Core) disputeVote(s *slot, i message.ReplicaID) {
	if c.phase == NotRecovering && s.committedLocal(c.quorum()) && s.prepares.digests[i] != s.proposal.Digest {
		c.disputes[i].Votes++
	}
}

// disputeRoots counts what was said against the root of a checkpoint that is about to become the stable one.
func (c *Core) disputeRoots(n message.SeqNum, root message.Digest) {
	k := c.checkpoints.find(n)
	if k == nil {
		return
	}
	for i := range c.disputes {
		if j := message.ReplicaID(i); k.votes.has(j) && j != c.cfg.Self {
			c.disputeRoot(j, k.votes.digests[i] != root)
		}
	}
}

// disputeLate counts what comes later of the stable checkpoint.
func (c *Core) disputeLate(m *message.Checkpoint) {
	if stable := c.stable; m.Seq == stable.Seq && !stable.Digest.IsZero() {
		c.disputeRoot(m.From, m.Digest != stable.Digest)
	}
}

func (c *Core) disputeRoot(i message.ReplicaID, wrong bool) {
	if c.phase != NotRecovering {
		return
	}
	d := &c.disputes[i]
	if d.False = wrong; wrong {
		d.Roots++
	}
}
