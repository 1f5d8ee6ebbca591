// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// A promise is a statement that others may count after its sender has forgotten it: PRE-PREPARE,
// PREPARE, COMMIT, NEW-VIEW for every number that it chose, VIEW-CHANGE for its view and its exact
// contents, CHECKPOINT, and REPLY, tentative or not (R-OUR-21). A replica that was restarted
// without its memory must not contradict what it promised before. So it keeps a fence, which is
// durable before the promise leaves: no promise was for a number or a view above it.
//
// After such a restart the replica is silent: it makes no promise until a checkpoint at or above
// the fence is stable here. All that it may have promised about batches lies below that checkpoint
// then, where nobody counts it any more. It also begins in the view of the fence, and never sends a
// VIEW-CHANGE for that view or an earlier one: the group may be about to use the one that it has
// forgotten. Nothing that was built during a silence is sent after it.
//
// In disk mode a replica that is restarted remembers its promises: its journal has each before it
// leaves. Then the fence tells it only whether the journal is whole.
//
// A silent replica listens, executes what the others commit, fetches what it lacks and serves others. What it says of
// itself in STATUS has the primary fill an idle group with null batches until the checkpoint is there.

// promises are what this replica may have promised, and how long it and the others are silent.
type promises struct {
	*base
	checkpoints *checkpoints
	fence       message.SeqNum // no promise of ours is for a number above it, nor
	fencedView  message.View   // for a view above this: both are durable
	silences    []silence      // by replica
}

// A silence is what a replica says of its own.
type silence struct {
	until message.SeqNum // the checkpoint that must be stable before it votes; 0: it votes
	fills int            // null batches that its silence, or its recovery, may still cause in the present period

	point     message.SeqNum // the checkpoint that must be stable before its last recovery is over; 0: it had none
	recovered int            // tick at which the request for that was executed
}

func (p *promises) init(b *base, x *checkpoints) {
	*p = promises{base: b, checkpoints: x, fence: max(b.cfg.Fence, b.cfg.Raised), fencedView: max(b.cfg.FenceView, b.cfg.RaisedView), silences: make([]silence, b.cfg.Replicas)}
	p.refill()
}

// silent reports whether we may promise nothing, because we may have promised otherwise before we forgot.
func (p *promises) silent() bool { return p.checkpoints.stable.Seq < p.cfg.Fence }

// promise is called before a promise for batch n, or for the present view, leaves. The fence is
// raised to the end of the next checkpoint period, so that this happens once in a period (R-OUR-5).
func (p *promises) promise(n message.SeqNum) {
	invariant(!p.silent(), "a promise of a silent replica")
	if n <= p.fence && p.view <= p.fencedView {
		return
	}
	if n > p.fence {
		p.fence = (n/p.cfg.CheckpointPeriod + 2) * p.cfg.CheckpointPeriod
	}
	p.fencedView = max(p.fencedView, p.view)
	p.do(Effect{Verb: Fence, Seq: p.fence, View: p.fencedView})
}

// fillPeriodTicks is the period in which a replica's silence causes a bounded number of null batches.
const fillPeriodTicks = 3000

// fillsPerPeriod is how many null batches end the longest silence of a correct replica: its fence
// is at most 2.5 periods above what it voted for, that at most L above the stable checkpoint, and
// the next checkpoint up to a period higher.
func (p *promises) fillsPerPeriod() int { return int(p.cfg.LogSize + 4*p.cfg.CheckpointPeriod) }

// tickFills begins a new period now and then.
func (p *promises) tickFills() {
	if p.tick%fillPeriodTicks == 0 {
		p.refill()
	}
}

func (p *promises) refill() {
	for i := range p.silences {
		p.silences[i].fills = p.fillsPerPeriod()
	}
}

// fillDue reports whether we are the primary of an idle group in which a replica waits for a checkpoint.
func (p *promises) fillDue() bool {
	if !p.active || !p.isPrimary() || p.silent() {
		return false
	}
	for i := range p.silences {
		if p.waitsForFill(i) {
			return true
		}
	}
	return false
}

func (p *promises) waitsForFill(i int) bool {
	s := &p.silences[i]
	return max(s.until, s.point) > p.checkpoints.stable.Seq && s.fills > 0
}

// Await makes the primary of an idle group propose null batches until a checkpoint is stable that
// holds all batches up to n, or up to the last one proposed if that is higher. It returns that
// number. Numbers above the window are not waited for. All replicas are asked, for each may be the
// primary; how many null batches this causes is bounded as with a silence of our own.
func (c *Core) Await(n message.SeqNum) message.SeqNum {
	last := max(c.proposing.last, c.log.lastExec)
	s := &c.silences[c.cfg.Self]
	s.until = max(s.until, last, min(n, c.log.high))
	c.propose()
	return last
}

// spendFill notes that a null batch is proposed.
func (p *promises) spendFill() {
	for i := range p.silences {
		if p.waitsForFill(i) {
			p.silences[i].fills--
		}
	}
}
