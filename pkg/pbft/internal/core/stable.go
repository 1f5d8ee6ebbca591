// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// stability is the agreement on checkpoints: what we say of ours, what the others say,
// and which are stable [TOCS §4.4].
type stability struct {
	*base
	log         *messageLog
	checkpoints *checkpoints
	change      *viewChange
	catchUp     *catchUp
	bodies      *bodies
	disputes    *disputes

	moved bool // a checkpoint has become stable; what follows from that is still to be done
	ended bool // with it our silence ended
}

// frozen notes that our state after executing n has this root. The others are told [TOCS §4.4].
func (x *stability) frozen(n message.SeqNum, root message.Digest) {
	if n == 0 && x.log.low == 0 {
		x.stable = message.Checkpoint{Digest: root, Stable: true, From: x.cfg.Self}
		return
	}
	if stable := x.stable; n == stable.Seq && root != stable.Digest && !stable.Digest.IsZero() {
		x.catchUp.fetchState(message.CheckpointID{Seq: n, Digest: stable.Digest}) // our journal has led us elsewhere
		return
	}
	if n <= x.log.low || n < x.checkpoints.fetched.Seq {
		return // it is below the mark, or a later state has taken its place
	}
	k := x.checkpoints.at(n)
	invariant(!k.ours && n <= x.log.lastExec, "a checkpoint of the future")
	k.ours = true
	k.votes.add(x.cfg.Self, root)
	if x.estimating() {
		return // it is said when we know that we may
	}
	x.sayCheckpoint(n, root)
	x.stabilise(k)
	x.change.news = true // the view may have waited for this root
}

// sayCheckpoint tells the others that we hold a checkpoint, if we may say so.
func (x *stability) sayCheckpoint(n message.SeqNum, root message.Digest) {
	if x.change.maySay(n) {
		x.promise(n)
		x.persist() // the batches up to n are to be run again after a restart (R-OUR-3)
		x.multicast(&message.Checkpoint{Seq: n, Digest: root, From: x.cfg.Self})
	}
}

// sayCheckpoints sends the CHECKPOINTs that we had to hold back while we were between views.
// All that become stable by that do, before what follows from the first (Core.followUp). So
// we do not vote for the numbers between them: those are below our stable checkpoint then.
func (x *stability) sayCheckpoints() {
	x.checkpoints.each(x.log.low, func(k message.CheckpointID) { x.sayCheckpoint(k.Seq, k.Digest) })
	x.checkpoints.each(x.log.low, func(k message.CheckpointID) { x.stabilise(x.checkpoints.at(k.Seq)) })
}

// onCheckpoint records what another replica says of its state.
func (x *stability) onCheckpoint(m *message.Checkpoint) {
	x.disputes.late(m)
	if x.checkpoints.claims.note(m) {
		x.collectFetched()
	}
	if k := (message.CheckpointID{Seq: m.Seq, Digest: m.Digest}); x.catchUp.passed(k) {
		x.catchUp.astray(k, "the others have a checkpoint where our state has come and taken none")
	}
	if why := x.judgeCheckpoint(m); why != accepted {
		x.refuse(m, why)
		return
	}
	k := x.checkpoints.at(m.Seq)
	if !k.votes.add(m.From, m.Digest) {
		x.refuse(m, SecondVote) // but it may be the first that says it is stable
	}
	x.stabilise(k)
}

func (x *stability) judgeCheckpoint(m *message.Checkpoint) Refusal {
	switch {
	case m.Seq%x.cfg.step() != 0:
		return NotACheckpoint
	case m.Seq <= x.log.low:
		return BelowWindow
	case m.Seq > x.log.high:
		return AboveWindow // the claims keep the highest of each sender (R-GC-5)
	}
	return accepted
}

// stabilise completes a stable certificate: a quorum, we in it, has the same state after
// the same number (R-GC-3). Then all before it can be forgotten [TOCS §4.4].
func (x *stability) stabilise(k *checkpointSlot) {
	if !k.ours || k.seq <= x.log.low {
		return
	}
	root := k.votes.digests[x.cfg.Self]
	switch {
	case x.checkpoints.claims.count(message.CheckpointID{Seq: k.seq, Digest: root}, true) >= x.weak():
		// It is stable without our vote. If that may not be cast we would wait below for ever, and
		// hear of nothing above the window.
	case k.votes.matching(root) < x.quorum():
		x.checkDivergence(k, root)
		return
	case !x.change.maySay(k.seq) && !x.silent():
		return // our own vote is not cast; a silent replica's vote binds nobody, not even its own VIEW-CHANGE
	}
	x.collect(k.seq, root)
}

// checkDivergence stops us if a quorum has another state than ours: f+1 correct replicas among them
// cannot all be wrong, so we are, and every reply we give is a lie with our key.
func (x *stability) checkDivergence(k *checkpointSlot, ours message.Digest) {
	for i := range k.votes.digests {
		d := k.votes.digests[i]
		if k.votes.has(message.ReplicaID(i)) && d != ours && k.votes.matching(d) >= x.quorum() {
			x.catchUp.astray(message.CheckpointID{Seq: k.seq, Digest: d}, fmt.Sprintf(
				"our state after batch %d has root %v, but %d replicas have %v: this replica's "+
					"memory or program is at fault", k.seq, ours, k.votes.matching(d), d))
			return
		}
	}
}

// collect forgets what is at or below a new stable checkpoint (R-GC-4). What else follows
// from that is done when the present message or tick has been taken in: see Core.followUp.
func (x *stability) collect(n message.SeqNum, root message.Digest) {
	silent := x.silent()
	if k := x.checkpoints.find(n); k != nil {
		x.disputes.roots(&k.votes, root)
	}
	x.log.release(n)
	x.stable = message.Checkpoint{Seq: n, Digest: root, Stable: true, From: x.cfg.Self}
	x.slide(n)
	stable := x.stable
	x.note(&stable)
	x.do(Effect{Verb: Discard, Seq: n})
	x.bodies.drop()
	x.moved = true
	x.ended = x.ended || silent && !x.silent()
}

// slide moves the low water mark up to n.
func (x *stability) slide(n message.SeqNum) {
	x.log.slide(n)
	x.checkpoints.recall()
}

// fetched votes for the checkpoint whose state was fetched, unless it is certain to be stable. A
// correct replica has this state, so it may end the bound of a recovery.
func (x *stability) fetched() {
	x.log.release(x.checkpoints.fetched.Seq)
	x.collectFetched()
	if x.stable.Seq != x.checkpoints.fetched.Seq {
		x.claimFetched()
	}
}

// collectFetched moves the low water mark to the checkpoint we fetched last, if it is certain to be
// stable. Elsewise too few might hold it: no view could begin from it, nor from one below our mark.
func (x *stability) collectFetched() {
	k := x.checkpoints.fetched
	if k.Seq == 0 || k.Seq < x.log.low || x.stable.Seq == k.Seq || x.catchUp.fetching() {
		return
	}
	if x.checkpoints.claims.provenStable(k) {
		x.collect(k.Seq, k.Digest)
	}
}

// claimFetched votes for the checkpoint we fetched, which is not known to be stable yet: we hold it
// now (R-GC-2). Our state may have come to this number before by what an intruder had left, with
// another root.
func (x *stability) claimFetched() {
	k := x.checkpoints.fetched
	if k.Seq > x.log.high {
		// A replica that votes for it must be able to name it in a VIEW-CHANGE. One no more than L
		// below is stable somewhere (R-ST-17).
		x.slide(k.Seq - x.cfg.LogSize)
	}
	x.sayCheckpoint(k.Seq, k.Digest)
	if x.log.contains(k.Seq) {
		slot := x.checkpoints.at(k.Seq)
		slot.ours = true
		slot.votes.replace(x.cfg.Self, k.Digest)
		x.stabilise(slot)
	}
}

// moveTo readies us for a view that begins from a checkpoint. Our own water marks, P and Q stay
// where they are until it is stable here: f+1 hold it, of whom f may lie, so that the next view may
// have to begin from an earlier one [TOCS Fig. 24]. If we are behind it we fetch its state. Not ok:
// our own root for it is still being computed, and is news when it comes.
func (x *stability) moveTo(start message.CheckpointID) bool {
	if start.Seq <= x.log.low {
		return true
	}
	if size := x.cfg.LogSize; start.Seq > x.log.low+size {
		// A correct replica that holds it has a stable one no more than L below (R-ST-17). We may
		// hold it ourselves, fetched.
		x.slide(start.Seq - size)
	}
	if x.log.lastExec < start.Seq {
		x.catchUp.fetchState(start)
		return true
	}
	root, known := x.checkpoints.root(start.Seq)
	if !known {
		// our state was fetched from a later checkpoint, and never was this one's
		return start.Seq < x.checkpoints.fetched.Seq
	}
	if root != start.Digest {
		x.catchUp.astray(start, "our state is not the one that the new view begins from: this replica's "+
			"memory or program is at fault")
		return x.catchUp.fetching()
	}
	return true
}

// named are the checkpoints that a VIEW-CHANGE names: those that we hold.
func (x *stability) named() (all []message.CheckpointID) {
	if x.stable.Seq == x.log.low {
		all = append(all, message.CheckpointID{Seq: x.stable.Seq, Digest: x.stable.Digest})
	}
	x.checkpoints.each(x.log.low, func(k message.CheckpointID) { all = append(all, k) })
	return all
}

// lastTaken is the last checkpoint that our state has come to.
func (x *stability) lastTaken() message.SeqNum { return max(x.checkpoints.taken, x.stable.Seq) }
