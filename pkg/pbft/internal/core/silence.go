package core

import "bfs/pkg/pbft/internal/message"

// A promise is a statement that others may count after its sender has forgotten it: PRE-PREPARE, PREPARE, COMMIT, NEW-VIEW for
// every number that it chose, VIEW-CHANGE for its view and its exact contents, CHECKPOINT, and REPLY, tentative or not
// (R-OUR-21). A replica that was restarted without its memory must not contradict what it promised before. So it keeps a
// fence, which is durable before the promise leaves: no promise was for a number or a view above it.
//
// After such a restart the replica is silent: it makes no promise until a checkpoint at or above the fence is stable here. All
// that it may have promised about batches lies below that checkpoint then, where nobody counts it any more. It also
// begins in the view of the fence, and never sends a VIEW-CHANGE for that view or an earlier one: the group may be about to
// use the one that it has forgotten. Nothing that was built during a silence is sent after it.
//
// A silent replica listens, executes what the others commit, fetches what it lacks and serves others. What it says of
// itself in STATUS has the primary fill an idle group with null batches until the checkpoint is there.

// silent reports whether we may promise nothing, because we may have promised otherwise before we forgot.
func (c *Core) silent() bool { return c.stable.Seq < c.cfg.Fence }

// promise is called before a promise for batch n, or for the present view, leaves. The fence is raised to the end of the
// next checkpoint period, so that this happens once in a period (R-OUR-5).
func (c *Core) promise(n message.SeqNum) {
	invariant(!c.silent(), "a promise of a silent replica")
	if n <= c.fence && c.view <= c.fencedView {
		return
	}
	if n > c.fence {
		c.fence = (n/c.cfg.CheckpointPeriod + 2) * c.cfg.CheckpointPeriod
	}
	c.fencedView = max(c.fencedView, c.view)
	c.do(Effect{Verb: Fence, Seq: c.fence, View: c.fencedView})
}

// endSilence says what we may say from now on. The others have said all that they have to say of what came meanwhile, and a
// vote of theirs that comes twice moves nothing, so we vote for it now. If we have left a view meanwhile, our
// VIEW-CHANGE is made now: it knows of the stable checkpoint that ended the silence.
func (c *Core) endSilence() {
	leaves := !c.active && c.view > c.fencedView
	c.promise(c.log.lastExec) // clients are answered from this state, and it holds checkpoints
	c.do(Effect{Verb: Speak})
	if leaves {
		c.sayViewChange()
		c.startPendingTimer()
	}
	if stable := c.stable; c.maySay(stable.Seq) {
		c.multicast(&stable) // others may lack our word for it
	}
	c.sayCheckpoints()
	for n := c.log.low + 1; n <= c.log.high; n++ {
		c.advance(c.log.slot(n))
	}
	c.executeReady()
	c.sendStatus()
}

// noteSilence notes how long the sender of a STATUS is silent. A primary that is silent can do nothing for its view, nor can one
// that has left it and forgotten that it did. It cannot say so in a VIEW-CHANGE, so the others leave at this word of it, as they
// do when a primary steps down (R-VT-5).
func (c *Core) noteSilence(m *message.Status) {
	c.peers[m.From].silence = m.SilentUntil
	if m.From == c.primary() && c.active && (m.SilentUntil > 0 || m.View > c.view) {
		c.leave(c.view + 1)
	}
}

// SilenceOf is the checkpoint that must be stable before replica i votes, as it said last; 0: it votes.
func (c *Core) SilenceOf(i message.ReplicaID) message.SeqNum { return c.peers[i].silence }

// fillPeriodTicks is the period in which a replica's silence causes a bounded number of null batches.
const fillPeriodTicks = 3000

// fillsPerPeriod is how many null batches end the longest silence of a correct replica: its fence is at most 2.5 periods above
// what it voted for, that at most L above the stable checkpoint, and the next checkpoint up to a period higher.
func (c *Core) fillsPerPeriod() int { return int(c.cfg.LogSize + 4*c.cfg.CheckpointPeriod) }

// tickFills begins a new period now and then.
func (c *Core) tickFills() {
	if c.tick%fillPeriodTicks == 0 {
		for i := range c.peers {
			c.peers[i].fills = c.fillsPerPeriod()
		}
	}
}

// fillDue reports whether we are the primary of an idle group in which a replica waits for a checkpoint.
func (c *Core) fillDue() bool {
	if !c.active || !c.isPrimary() || c.silent() {
		return false
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.silence > c.stable.Seq && p.fills > 0 {
			return true
		}
	}
	return false
}

// proposeNull proposes a null batch, to bring the checkpoint about for which a silent replica waits. A replica that says so
// without need causes a bounded number of them.
func (c *Core) proposeNull() {
	if !c.fillDue() {
		return
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.silence > c.stable.Seq && p.fills > 0 {
			p.fills--
		}
	}
	c.assign(message.Batch{})
}
