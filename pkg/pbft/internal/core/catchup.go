package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A replica that stood still, was restarted or was cut off finds the group far ahead. It fetches a checkpoint (see transfer.go)
// and asks with its STATUS for what follows: the others tell it which batch was decided under each number that they have
// executed, as far back as their logs and what is past reach, and what f+1 say alike is so (R-HD-15). The batches it asks for by
// digest, many at once and each of one of those who have it. A busy group executes thousands of batches a second and has its next
// checkpoint some milliseconds later: so all this is driven by what arrives, and ticks mend only what went wrong.

// tellPast tells the sender of a STATUS what was decided beyond what it has executed and is not in our log any more.
func (c *Core) tellPast(m *message.Status) {
	p := &c.log.past
	for n := max(m.Base(), p.low) + 1; n <= min(p.high, m.Low+c.cfg.LogSize); n++ {
		c.send(m.From, &message.Decided{Seq: n, Digest: p.entry(n).digest, From: c.cfg.Self})
	}
}

// closeGap asks for what is missing below what is proposed now: a primary proposes no more than its window beyond what it has
// executed. It is a short gap, and others may need us to agree on what is above it, so we do not wait for the resend interval.
func (c *Core) closeGap() {
	if c.transfer == nil && c.active && c.proposing.last > c.log.lastExec+c.cfg.Window &&
		c.tick-c.progress >= gapTicks && c.tick-c.reportedAt >= gapTicks {
		c.sendStatus()
	}
}

// gapTicks is how long what is missing may be under way.
const gapTicks = 2

// onFetchBatch serves batches by digest, within the sender's share.
func (c *Core) onFetchBatch(m *message.FetchBatch) {
	c.spellOut(m)
	for _, d := range m.Digests {
		if !c.shares.may(m.From, 1) { // before we look for it
			c.refuse(m, TooSoon)
			return
		}
		if b := c.bodies.find(d); b != nil {
			c.shares.took(m.From, b.Bytes())
			c.send(m.From, &message.BatchBody{PrePrepare: message.PrePrepare{Digest: d, Batch: *b}})
		}
	}
}

// spellOut has the primary send whole, for a while, what those clients ask whose operations a backup lacked. Each of its
// batches is late by the backup's patience, and all behind it.
func (c *Core) spellOut(m *message.FetchBatch) {
	if !c.isPrimary() || !c.active {
		return
	}
	for n := c.log.next(); n <= min(c.proposing.last, c.log.high); n++ {
		p := c.log.slot(n).proposal
		if p == nil || !slices.Contains(m.Digests, p.Digest) {
			continue
		}
		for _, r := range p.Batch.Requests {
			if r.Apart {
				c.queue.line(r.Client).spellOut(c.tick)
			}
		}
	}
}

// onBatchBody takes a batch that we miss, from anyone.
func (c *Core) onBatchBody(m *message.BatchBody) {
	completes := c.bodies.complete(m, c.advance)
	if !c.bodies.take(m, c.choosable) {
		if !completes {
			c.refuse(m, NotAskedFor)
		}
		return
	}
	for n := c.log.low + 1; n <= c.log.high; n++ {
		s := c.log.slot(n)
		if s.proposal == nil && s.chosen == m.Digest {
			c.adoptChosen(s, &m.Batch)
		}
		c.adoptDecision(s)
	}
	c.decide()
}

// onDecided records that a batch committed at another replica.
func (c *Core) onDecided(m *message.Decided) {
	switch {
	case m.Seq <= c.log.low || m.Seq <= c.log.lastExec:
		c.refuse(m, BelowWindow)
		return
	case m.Seq > c.log.high:
		c.refuse(m, AboveWindow)
		return
	}
	s := c.log.slot(m.Seq)
	c.log.told = max(c.log.told, m.Seq)
	if !s.decided.add(m.From, m.Digest) {
		c.refuse(m, SecondVote)
		return
	}
	c.adoptDecision(s)
}

// adoptDecision executes what f+1 replicas say was decided, if we have the batch; else it is asked for. It leaves no trace in
// P and Q: the quorum that prepared it has it there (R-HD-15).
func (c *Core) adoptDecision(s *slot) {
	if s.isCommitted || s.decided.have == 0 {
		return
	}
	d, ok := s.decided.with(c.weak())
	if !ok {
		return
	}
	switch b := c.bodies.fetched[d]; {
	case s.proposal != nil && s.proposal.Digest == d:
		c.commit(s, &s.proposal.Batch, d)
	case b != nil:
		c.commit(s, b, d)
	default:
		c.bodies.wanted()
	}
}
