package core

import (
	"fmt"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A checkpoint is taken when K batches have been executed since the last one, or so many bytes of operations that it pays to let
// the log forget them: what a log of large operations lies in is fresh memory, to be touched for the first time. Which number that is
// follows from the last checkpoint and the batches since, so all replicas take the same.

// step is what the number of every checkpoint is a multiple of: K, or a sixteenth of it if operations of any length may bring one
// about, so that those who cannot tell which numbers have checkpoints know which do not.
func (cfg *Config) step() message.SeqNum {
	if cfg.CheckpointBytes == 0 {
		return cfg.CheckpointPeriod
	}
	for k := message.SeqNum(checkpointSteps); k > 1; k /= 2 {
		if cfg.CheckpointPeriod%k == 0 {
			return cfg.CheckpointPeriod / k
		}
	}
	return cfg.CheckpointPeriod
}

const checkpointSteps = 16 // a power of two

// isDue reports whether batch n brings a checkpoint, when the operations up to it, since the last checkpoint, have so many bytes.
func (c *Core) isDue(n message.SeqNum, bytes int) bool {
	return n%c.cfg.step() == 0 && (n-c.kept >= c.cfg.CheckpointPeriod || c.cfg.CheckpointBytes > 0 && bytes >= c.cfg.CheckpointBytes)
}

// willBeDue reports whether a batch that has prepared will bring a checkpoint.
func (c *Core) willBeDue(s *slot) bool {
	bytes := c.since
	for n := c.log.next(); n <= s.seq; n++ {
		bytes += c.log.slot(n).size
	}
	return c.isDue(s.seq, bytes)
}

// A checkpointSlot gathers the statements about one checkpoint above the stable one.
type checkpointSlot struct {
	seq   message.SeqNum
	votes votes
	ours  bool // our own state was there: its root is our vote
}

func (c *Core) checkpoint(n message.SeqNum) *checkpointSlot {
	k := &c.checkpoints[uint64(n/c.cfg.step())%uint64(len(c.checkpoints))]
	if k.seq != n {
		k.seq, k.ours = n, false
		k.votes.clear()
	}
	return k
}

// Frozen says that our state after executing n has this root. The others are told [TOCS §4.4].
func (c *Core) Frozen(n message.SeqNum, root message.Digest) {
	if n == 0 && c.log.low == 0 {
		c.stable = message.Checkpoint{Digest: root, Stable: true, From: c.cfg.Self}
		return
	}
	if n <= c.log.low || n < c.fetched.Seq {
		return // it is past, or not ours any more: a later state has taken its place
	}
	k := c.checkpoint(n)
	invariant(!k.ours && n <= c.log.lastExec, "a checkpoint of the future")
	k.ours = true
	k.votes.add(c.cfg.Self, root)
	c.sayCheckpoint(n, root)
	c.stabilise(k)
	c.tryNewView() // it may have waited for this root
}

// sayCheckpoint tells the others that we hold a checkpoint, if we may say so.
func (c *Core) sayCheckpoint(n message.SeqNum, root message.Digest) {
	if c.maySay(n) {
		c.promise(n)
		c.multicast(&message.Checkpoint{Seq: n, Digest: root, From: c.cfg.Self})
	}
}

// maySay reports whether we may tell the others that we hold checkpoint n. A silent replica says nothing. One that has left
// a view says no more of checkpoints than its VIEW-CHANGE does: by a later word of it a checkpoint might become stable at
// a replica that has yet to leave and that will name none below it, and the new primary would find no checkpoint that 2f+1
// replicas have not passed and f+1 hold.
func (c *Core) maySay(n message.SeqNum) bool {
	own := c.change.own
	if c.silent() || c.active {
		return c.active && !c.silent()
	}
	named := func(k message.CheckpointID) bool { return k.Seq == n }
	return own != nil && (n <= own.Low || slices.ContainsFunc(own.Checkpoints, named))
}

// sayCheckpoints says what we could not say while we were between views.
func (c *Core) sayCheckpoints() {
	c.eachCheckpoint(c.log.low, func(k message.CheckpointID) { c.sayCheckpoint(k.Seq, k.Digest) })
	c.eachCheckpoint(c.log.low, func(k message.CheckpointID) { c.stabilise(c.checkpoint(k.Seq)) })
}

// eachCheckpoint calls f for the checkpoints above low that our state has come to and that are not known to be stable. F may have
// one of them become stable, and us go on from there: those below it are ours no more then. One that was fetched would be, but it
// comes first, for we hold none below it.
func (c *Core) eachCheckpoint(low message.SeqNum, f func(message.CheckpointID)) {
	step := c.cfg.step()
	for n := (max(c.log.low, low)/step + 1) * step; n <= min(c.log.lastExec, c.log.high); n += step {
		if root, known := c.ownRoot(n); known {
			f(message.CheckpointID{Seq: n, Digest: root})
		}
	}
}

// ownRoot is the root of our state after n, if it is known and n above the low water mark: computed here, or of a state
// that was fetched and may lie above the window.
func (c *Core) ownRoot(n message.SeqNum) (message.Digest, bool) {
	if c.fetched.Seq == n {
		return c.fetched.Digest, true
	}
	if !c.log.contains(n) {
		return message.Digest{}, false
	}
	k := c.checkpoint(n)
	return k.votes.digests[c.cfg.Self], k.ours
}

// onCheckpoint records what another replica says of its state.
func (c *Core) onCheckpoint(m *message.Checkpoint) {
	if c.claims.note(m) {
		c.collectFetched()
	}
	if why := c.judgeCheckpoint(m); why != accepted {
		c.refuse(m, why)
		return
	}
	k := c.checkpoint(m.Seq)
	if !k.votes.add(m.From, m.Digest) {
		c.refuse(m, SecondVote)
		return
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

// stabilise completes a stable certificate: 2f+1 replicas, we among them, have the same state after the same
// number (R-GC-3). Then all before it can be forgotten [TOCS §4.4].
func (c *Core) stabilise(k *checkpointSlot) {
	if !k.ours || k.seq <= c.log.low {
		return
	}
	root := k.votes.digests[c.cfg.Self]
	switch {
	case k.votes.matching(root) < c.quorum():
		c.checkDivergence(k, root)
		return
	case !c.maySay(k.seq) && !c.silent():
		return // our own vote is not cast; that of a silent replica binds nobody, its own VIEW-CHANGE least of all
	}
	c.collect(k.seq, root)
}

// collect forgets what is at or below a new stable checkpoint (R-GC-4). With it a view may begin, and in that a later one become
// stable at once: then this one's place in the ring may be another's when collect returns.
func (c *Core) collect(n message.SeqNum, root message.Digest) {
	silent := c.silent()
	c.stable = message.Checkpoint{Seq: n, Digest: root, Stable: true, From: c.cfg.Self}
	c.slide(n)
	c.do(Effect{Verb: Discard, Seq: n})
	c.bodies.drop()
	c.place()
	if silent && !c.silent() {
		c.endSilence()
	}
	c.decide()     // it may have waited for batches that are behind us now
	c.tryNewView() // and this for the root of a checkpoint that we have passed
}

// slide moves the low water mark up to n, and P and Q with it (R-VC-3).
func (c *Core) slide(n message.SeqNum) {
	c.log.slide(n)
	c.recallCheckpoints()
	c.pq.slide(n)
}

// recallCheckpoints counts what the others said of checkpoints that were above the window and are in it now.
func (c *Core) recallCheckpoints() {
	for _, all := range c.claims.of {
		for _, m := range all {
			if c.log.contains(m.Seq) {
				c.checkpoint(m.Seq).votes.add(m.From, m.Digest)
			}
		}
	}
}

// checkDivergence stops us if a quorum has another state than ours: f+1 correct replicas among them
// cannot all be wrong, so we are, and every reply we give is a lie with our key.
func (c *Core) checkDivergence(k *checkpointSlot, ours message.Digest) {
	for i := range k.votes.digests {
		d := k.votes.digests[i]
		if k.votes.has(message.ReplicaID(i)) && d != ours && k.votes.matching(d) >= c.quorum() {
			c.do(Effect{Verb: Stop, Reason: fmt.Sprintf(
				"our state after batch %d has root %v, but %d replicas have %v: this replica's memory or program is at fault",
				k.seq, ours, k.votes.matching(d), d)})
			return
		}
	}
}
