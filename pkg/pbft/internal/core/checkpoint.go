// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// Frozen says that our state after executing n has this root. The others are told [TOCS §4.4].
func (c *Core) Frozen(n message.SeqNum, root message.Digest) {
	if n == 0 && c.log.low == 0 {
		c.stable = message.Checkpoint{Digest: root, Stable: true, From: c.cfg.Self}
		return
	}
	if stable := c.stable; n == stable.Seq && root != stable.Digest && !stable.Digest.IsZero() {
		c.catchUp.fetchState(message.CheckpointID{Seq: n, Digest: stable.Digest}) // our journal has led us elsewhere
		return
	}
	if n <= c.log.low || n < c.checkpoints.fetched.Seq {
		return // it is below the mark, or a later state has taken its place
	}
	k := c.checkpoints.at(n)
	invariant(!k.ours && n <= c.log.lastExec, "a checkpoint of the future")
	k.ours = true
	k.votes.add(c.cfg.Self, root)
	if c.estimating() {
		return // it is said when we know that we may
	}
	c.sayCheckpoint(n, root)
	c.stabilise(k)
	c.tryNewView() // it may have waited for this root
}

// sayCheckpoint tells the others that we hold a checkpoint, if we may say so.
func (c *Core) sayCheckpoint(n message.SeqNum, root message.Digest) {
	if c.change.maySay(n) {
		c.promise(n)
		c.persist() // the batches up to n are to be run again after a restart (R-OUR-3)
		c.multicast(&message.Checkpoint{Seq: n, Digest: root, From: c.cfg.Self})
	}
}

// sayCheckpoints sends the CHECKPOINTs that we had to hold back while we were between views.
func (c *Core) sayCheckpoints() {
	c.checkpoints.each(c.log.low, func(k message.CheckpointID) { c.sayCheckpoint(k.Seq, k.Digest) })
	c.checkpoints.each(c.log.low, func(k message.CheckpointID) { c.stabilise(c.checkpoints.at(k.Seq)) })
}

// onCheckpoint records what another replica says of its state.
func (c *Core) onCheckpoint(m *message.Checkpoint) {
	c.disputeLate(m)
	if c.checkpoints.claims.note(m) {
		c.collectFetched()
	}
	if k := (message.CheckpointID{Seq: m.Seq, Digest: m.Digest}); c.catchUp.passed(k) {
		c.catchUp.astray(k, "the others have a checkpoint where our state has come and taken none")
	}
	if why := c.judgeCheckpoint(m); why != accepted {
		c.refuse(m, why)
		return
	}
	k := c.checkpoints.at(m.Seq)
	if !k.votes.add(m.From, m.Digest) {
		c.refuse(m, SecondVote) // but it may be the first that says it is stable
	}
	c.stabilise(k)
}

func (c *Core) judgeCheckpoint(m *message.Checkpoint) Refusal {
	switch {
	case m.Seq%c.cfg.step() != 0:
		return NotACheckpoint
	case m.Seq <= c.log.low:
		return BelowWindow
	case m.Seq > c.log.high:
		return AboveWindow // the claims keep the highest of each sender (R-GC-5)
	}
	return accepted
}

// stabilise completes a stable certificate: a quorum, we in it, has the same state after the same number
// (R-GC-3). Then all before it can be forgotten [TOCS §4.4].
func (c *Core) stabilise(k *checkpointSlot) {
	if !k.ours || k.seq <= c.log.low {
		return
	}
	root := k.votes.digests[c.cfg.Self]
	switch {
	case c.checkpoints.claims.count(message.CheckpointID{Seq: k.seq, Digest: root}, true) >= c.weak():
		// It is stable without our vote. If that may not be cast we would wait below for ever, and
		// hear of nothing above the window.
	case k.votes.matching(root) < c.quorum():
		c.checkDivergence(k, root)
		return
	case !c.change.maySay(k.seq) && !c.silent():
		return // our own vote is not cast; a silent replica's vote binds nobody, not even its own VIEW-CHANGE
	}
	c.collect(k.seq, root)
}

// collect forgets what is at or below a new stable checkpoint (R-GC-4). A view may begin with it,
// and a later checkpoint may become stable in that view at once. So this one's place in the ring
// may belong to another when collect returns.
func (c *Core) collect(n message.SeqNum, root message.Digest) {
	silent := c.silent()
	c.disputeRoots(n, root)
	c.recovery.collects(n, &c.log)
	c.stable = message.Checkpoint{Seq: n, Digest: root, Stable: true, From: c.cfg.Self}
	c.slide(n)
	stable := c.stable
	c.note(&stable)
	c.do(Effect{Verb: Discard, Seq: n})
	c.bodies.drop()
	c.placeChosen()
	if silent && !c.silent() {
		c.endSilence()
	}
	c.decide()     // it may have waited for batches that are behind us now
	c.tryNewView() // and this for the root of a checkpoint that we have passed
	c.finishRecovery()
}

// endSilence makes the statements that we may make from now on. The others have cast all their
// votes for the batches that came meanwhile, and a repeated vote of theirs has no effect, so we
// vote now. If we have left a view meanwhile, our VIEW-CHANGE is made now: it names the stable
// checkpoint that ended the silence.
func (c *Core) endSilence() {
	leaves := !c.active && c.view > c.fencedView
	c.promise(c.log.lastExec) // clients are answered from this state, and it holds checkpoints
	c.do(Effect{Verb: Speak})
	if leaves {
		c.sayViewChange()
		c.startPendingTimer()
	}
	if stable := c.stable; c.change.maySay(stable.Seq) {
		c.multicast(&stable) // others may lack our word for it
	}
	c.sayCheckpoints()
	for n := c.log.low + 1; n <= c.log.high; n++ {
		c.advance(c.log.slot(n))
	}
	c.executeReady()
	c.reports.sendStatus()
}

// slide moves the low water mark up to n, and P and Q with it (R-VC-3).
func (c *Core) slide(n message.SeqNum) {
	c.log.slide(n)
	c.checkpoints.recall()
	c.pq.slide(n)
}

// checkDivergence stops us if a quorum has another state than ours: f+1 correct replicas among them
// cannot all be wrong, so we are, and every reply we give is a lie with our key.
func (c *Core) checkDivergence(k *checkpointSlot, ours message.Digest) {
	for i := range k.votes.digests {
		d := k.votes.digests[i]
		if k.votes.has(message.ReplicaID(i)) && d != ours && k.votes.matching(d) >= c.quorum() {
			c.catchUp.astray(message.CheckpointID{Seq: k.seq, Digest: d}, fmt.Sprintf(
				"our state after batch %d has root %v, but %d replicas have %v: this replica's memory or program is at fault",
				k.seq, ours, k.votes.matching(d), d))
			return
		}
	}
}

// collectFetched moves the low water mark to the checkpoint we fetched last, if it is certain to be
// stable. Elsewise too few might hold it: no view could begin from it, nor from one below our mark.
func (c *Core) collectFetched() {
	k := c.checkpoints.fetched
	if k.Seq == 0 || k.Seq < c.log.low || c.stable.Seq == k.Seq || c.catchUp.fetching() {
		return
	}
	if c.checkpoints.claims.provenStable(k) {
		c.collect(k.Seq, k.Digest)
	}
}

// claimFetched votes for the checkpoint we fetched, which is not known to be stable yet: we hold it now (R-GC-2).
func (c *Core) claimFetched() {
	k := c.checkpoints.fetched
	if k.Seq > c.log.high {
		// A replica that votes for it must be able to name it in a VIEW-CHANGE. One no more than L
		// below is stable somewhere (R-ST-17).
		c.slide(k.Seq - c.cfg.LogSize)
	}
	c.sayCheckpoint(k.Seq, k.Digest)
	if c.log.contains(k.Seq) {
		slot := c.checkpoints.at(k.Seq)
		slot.ours = true
		slot.votes.add(c.cfg.Self, k.Digest)
		c.stabilise(slot)
	}
}
