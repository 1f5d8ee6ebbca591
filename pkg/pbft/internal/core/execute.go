package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// tentative is a batch that was executed when it had prepared, and is not known to have committed: number lastExec+1, or
// nothing. It stays so across views until its number commits: most often as what it is, and then it was executed; else it
// is rolled back first [TOCS §6.1; R-OPT-TE-4, R-OUR-16].
//
// Checkpoints are taken when a batch commits. Nothing behind it was executed by then, so none is ever tentative (R-OPT-TE-5
// has no case here).
type tentative struct {
	seq    message.SeqNum // 0: nothing
	view   message.View   // in which it prepared
	digest message.Digest
	batch  *message.Batch
	again  []int // which of its requests had been executed before
}

// executeReady executes what committed, strictly in order (R-NRM-8), takes a checkpoint when one is due
// [TOCS §4.4], and goes one batch further if that has prepared.
func (c *Core) executeReady() {
	for c.transfer == nil && c.log.contains(c.log.lastExec+1) {
		s := c.log.slot(c.log.lastExec + 1)
		if !s.isCommitted {
			c.executeTentatively(s)
			return
		}
		switch c.ahead.seq {
		case 0:
			c.execute(s.seq, s.batch, c.standing(s))
		default:
			c.settle(s)
		}
		c.executed(s)
	}
}

// execute has a batch run. Its replies are promises, and so is every answer from the state that it leaves.
func (c *Core) execute(n message.SeqNum, b *message.Batch, st Standing) {
	if !c.silent() {
		c.promise(n)
	}
	c.do(Effect{Verb: Execute, Seq: n, Batch: b, Standing: st, Mute: c.silent()})
}

// executed follows an execution that will stay.
func (c *Core) executed(s *slot) {
	c.log.lastExec++
	c.progress = c.tick
	for i, r := range s.batch.Requests {
		c.queue.busy.note(r.Client, c.tick)
		c.queue.executed(r, place{t: r.Timestamp, n: s.seq, i: i})
		c.wait.executed(r)
	}
	c.wait.progress(s.batch)
	c.since += s.batch.Bytes()
	if c.isDue(s.seq, c.since) {
		c.kept, c.since = s.seq, 0
		c.do(Effect{Verb: Freeze, Seq: s.seq})
	}
}

// standing is the ground for the replies of a batch that committed.
func (c *Core) standing(s *slot) Standing {
	if s.isPrepared && !c.silent() && s.proposal.Digest == s.decision {
		return Standing{View: c.view, Seq: s.seq}
	}
	return Standing{View: c.view}
}

// executeTentatively executes a batch that has prepared, all before it having committed (R-OPT-TE-1). Clients that get such
// replies from 2f+1 replicas know that it will commit: these hold prepared certificates, and a view change cannot
// pass them by. What an administrator asks waits for the commit, for it decides who is answered at all.
func (c *Core) executeTentatively(s *slot) {
	if !c.cfg.Tentative || !s.isPrepared || c.ahead.seq != 0 || !c.active || c.silent() || administrative(&s.proposal.Batch) {
		return
	}
	c.ahead = tentative{seq: s.seq, view: c.view, digest: s.proposal.Digest, batch: &s.proposal.Batch}
	c.execute(s.seq, c.ahead.batch, Standing{c.view, s.seq, true})
}

func administrative(b *message.Batch) bool {
	return slices.ContainsFunc(b.Requests, func(r *message.Request) bool { return r.Client == message.Administrator })
}

// settle ends the wait of the batch that was executed tentatively: its number has committed.
func (c *Core) settle(s *slot) {
	a := c.ahead
	invariant(a.seq == s.seq, "a tentative execution out of order")
	c.ahead = tentative{}
	if a.digest == s.decision {
		c.do(Effect{Verb: Confirm, Seq: s.seq})
		return
	}
	// Clients that believed our reply had it from fewer than 2f+1. All since the last checkpoint is executed again.
	c.do(Effect{Verb: Rollback, Seq: c.kept})
	for n := c.kept + 1; n < s.seq; n++ {
		c.do(Effect{Verb: Repeat, Seq: n, Batch: c.log.slot(n).batch})
	}
	c.execute(s.seq, s.batch, c.standing(s))
}

// UnderWay is the lowest number for which something was proposed or voted and nothing executed, tentatively or not; 0 if there
// is none.
func (c *Core) UnderWay() message.SeqNum {
	for n := max(c.log.lastExec, c.ahead.seq, c.log.low) + 1; n <= min(max(c.log.heard, c.log.told), c.log.high); n++ {
		if s := c.log.slot(n); s.proposal != nil || s.held != nil || s.prepares.have != 0 || c.bodies.underWay(n) {
			return n
		}
	}
	return 0
}

// Idle reports whether there is nothing that a tick could bring forward, but for STATUS, COMMITs that nobody waits for, and what
// others may say meanwhile: whoever ticks may then do so later, for several ticks at once.
func (c *Core) Idle() bool {
	return c.active && c.transfer == nil && c.queue.held == 0 && !c.wait.on && c.UnderWay() == 0 && !c.fillDue()
}

// Again answers Execute for batch n: its i-th request was not executed, for the state knows the slot's answer to it, or to a
// later one. A primary may propose a request as often as it likes, and never let the last of these batches commit; what was
// answered before does not wait for that.
func (c *Core) Again(n message.SeqNum, i int) {
	if c.ahead.seq == n {
		c.ahead.again = append(c.ahead.again, i)
	}
}

// Standing is the ground on which the answer to a request that was executed can be repeated. Not ok: that it was
// superseded is not certain yet, or the state is not where we are, for effects are still to be performed. A Rollback may
// be among them: what the state says was executed tentatively then, and we know that it has not committed.
func (c *Core) Standing(q *message.Request) (st Standing, ok bool) {
	if len(c.out) > 0 {
		return st, false
	}
	if c.ahead.seq != 0 {
		for i, r := range c.ahead.batch.Requests {
			if r.Key() == q.Key() && !slices.Contains(c.ahead.again, i) {
				return Standing{c.ahead.view, c.ahead.seq, true}, r.Timestamp == q.Timestamp
			}
		}
	}
	return Standing{View: c.view}, true
}

// Ground is the ground of an answer to a read of the given version: the number of the last batch in the state that
// changed anything the answer depends on, or of a later one (R-OUR-22). The answer can be given before that batch is
// known to have committed: 2f+1 replicas that have prepared the same make it certain to commit, and no reader has to
// wait for COMMITs (the paper's R-OPT-RO-2 does).
func (c *Core) Ground(version message.SeqNum) Standing {
	if version > 0 && version == c.ahead.seq {
		return Standing{c.ahead.view, version, true}
	}
	if c.log.contains(version) {
		return c.standing(c.log.slot(version))
	}
	return Standing{View: c.view}
}

// heldCommits are the numbers of the present view whose COMMITs we hold back, to let them ride on what we say next.
// Clients do not wait for them: the replies are out (R-OPT-PC).
type heldCommits struct {
	numbers []message.SeqNum
	since   int // tick at which the first was held
}

// companyTicks is how long COMMITs wait for company. A kernel that compiles writes every thirty milliseconds or so, and n COMMITs to
// n-1 replicas each would wake everyone in between for nothing.
const companyTicks = 10

// sayCommit tells the others that a slot has prepared here, at once if somebody may wait for it: a checkpoint, a primary
// whose window is full, or a client whose batch is not executed before it commits.
func (c *Core) sayCommit(s *slot) {
	wait := c.cfg.Tentative && c.cfg.Piggyback && c.seqno < c.log.lastExec+c.cfg.Window &&
		!c.willBeDue(s) && len(c.held.numbers) < message.MaxCommits && !administrative(&s.proposal.Batch)
	if wait {
		if len(c.held.numbers) == 0 {
			c.held.since = c.tick
		}
		c.held.numbers = append(c.held.numbers, s.seq)
		return
	}
	c.flushCommits()
	vote := s.ownCommit // a copy: the slot may be reset before it is sent
	c.multicast(&vote)
}

// takeCommits gives the held COMMITs to a message that is multicast now.
func (c *Core) takeCommits() []message.SeqNum {
	if len(c.held.numbers) == 0 {
		return nil
	}
	all := c.held.numbers
	c.held = heldCommits{}
	return all
}

// flushCommits sends the held COMMITs by themselves.
func (c *Core) flushCommits() {
	for _, n := range c.held.numbers {
		if c.log.contains(n) {
			c.log.slot(n).sent.restart(c.tick, c.cfg.ResendTicks)
		}
		c.multicast(&message.Commit{View: c.view, Seq: n, From: c.cfg.Self})
	}
	c.held = heldCommits{numbers: c.held.numbers[:0]}
}

// flushOldCommits sends what was held for long: nothing came along to ride on.
func (c *Core) flushOldCommits() {
	if len(c.held.numbers) > 0 && c.tick-c.held.since >= companyTicks {
		c.flushCommits()
	}
}
