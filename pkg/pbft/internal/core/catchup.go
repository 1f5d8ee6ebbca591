// SPDX-License-Identifier: Apache-2.0

package core

import (
	"maps"

	"bfs/pkg/pbft/internal/message"
)

// A replica that stood still, was restarted or was cut off finds the group far ahead. It fetches a
// checkpoint (see transfer.go) and asks with its STATUS for what follows: the others tell it which
// batch was decided under each number that they have executed, as far back as their log and their
// kept decisions reach. It believes what f+1 say alike (R-HD-15). It asks for the batches by
// digest, many at once, each from a replica that has it. A busy group executes thousands of batches
// a second and has its next checkpoint some milliseconds later: so arriving messages drive all
// this, and ticks only repair what went wrong.

// onBatchBody takes a batch that we miss, from anyone, and reports whether it did: a view may begin with it.
func (c *Core) onBatchBody(m *message.BatchBody) bool {
	completes := c.bodies.complete(m, c.advance)
	if !c.bodies.take(m, c.change.choosable) {
		if !completes {
			c.refuse(m, NotAskedFor)
		}
		return false
	}
	for n := c.log.low + 1; n <= c.log.high; n++ {
		s := c.log.slot(n)
		if s.proposal == nil && s.chosen == m.Digest {
			c.adoptChosen(s, &m.Batch)
		}
		c.adoptDecision(s)
	}
	return true
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
	c.log.decidedTo = max(c.log.decidedTo, m.Seq)
	if !s.decided.add(m.From, m.Digest) {
		c.refuse(m, SecondVote)
		return
	}
	c.adoptDecision(s)
}

// StateSize says how many pages the state takes, about.
func (c *Core) StateSize(pages int) { c.shares.credit = max(leastCredit, 2*pages) }

// Forget drops waiting requests that were executed in batches we never saw, as the fetched state
// shows. If they stayed in the queue it would seem that the primary leaves them waiting, and we
// would leave the view alone.
func (c *Core) Forget(executed func(r *message.Request) bool) {
	c.queue.each(func(_ *line, r *message.Request) bool {
		if executed(r) {
			c.queue.complete(r, place{t: r.Timestamp, digest: r.Digest()})
			c.wait.forget(r)
		}
		return true
	})
	for _, l := range c.queue.order {
		for _, r := range l.laidBy {
			if r != nil && executed(r) {
				c.queue.complete(r, place{t: r.Timestamp, digest: r.Digest()})
			}
		}
	}
}

// Retain forgets the clients that are no longer enrolled, and their waiting requests.
func (c *Core) Retain(has func(message.ClientID) bool) {
	enrolled := func(id message.ClientID) bool {
		_, recovers := id.Recoverer()
		return recovers || has(id)
	}
	c.queue.retain(enrolled)
	for _, m := range c.wait.forwarded {
		maps.DeleteFunc(m, func(k message.RequestKey, _ forward) bool { return !enrolled(k.Client) })
	}
}

// Installed answers Install: the state is that of the checkpoint now, and we go on from there.
func (c *Core) Installed(n message.SeqNum) {
	t := c.catchUp.transfer
	invariant(t != nil && t.seq == n, "a state installed that was not asked for")
	c.catchUp.transfer = nil
	c.log.lastExec, c.log.progress = t.seq, c.tick
	c.ahead, c.checkpoints.taken, c.checkpoints.since = tentative{}, t.seq, 0 // it was number t.seq at most
	c.log.numbered = max(c.log.numbered, t.seq)
	c.checkpoints.fetched = message.CheckpointID{Seq: t.seq, Digest: t.root}
	for i := range c.checkpoints.ring {
		c.checkpoints.ring[i].due, c.checkpoints.ring[i].ours = false, false // the state holds no other than the one it was replaced by
	}
	c.collectFetched()
	if c.stable.Seq != t.seq {
		c.claimFetched()
	}
	if !c.silent() {
		c.promise(t.seq) // answers come from this state from now on
		c.persist()
		own := c.stable
		c.multicast(&own)
	}
	c.reports.sendStatus()
	c.executeReady()
}
