// SPDX-License-Identifier: Apache-2.0

package core

import (
	"maps"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A replica that stood still, was restarted or was cut off finds the group far ahead. It fetches a
// checkpoint (see transfer.go) and asks with its STATUS for what follows: the others tell it which
// batch was decided under each number that they have executed, as far back as their log and their
// kept decisions reach. It believes what f+1 say alike (R-HD-15). It asks for the batches by
// digest, many at once, each from a replica that has it. A busy group executes thousands of batches
// a second and has its next checkpoint some milliseconds later: so arriving messages drive all
// this, and ticks only repair what went wrong.

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

// spellOut makes the primary propose in full, for a while, the operations of clients whose
// operations a backup lacked. Each batch with such an operation, and all batches behind it, would
// be late by the backup's patience.
func (c *Core) spellOut(m *message.FetchBatch) {
	if !c.isPrimary() || !c.active {
		return
	}
	for n := c.log.next(); n <= min(c.log.numbered, c.log.high); n++ {
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

// tickTransfer notices that we are behind, and that those we asked are silent.
func (c *Core) tickTransfer() {
	target, certain := c.checkpoints.claims.highest(c.log.lastExec, true)
	switch t := c.transfer; {
	case t == nil && certain && (target.Seq > c.log.high || c.tick-c.log.progress > stallTicks):
		c.fetchState(target)
	case t == nil && c.tick-c.log.progress > 2*stallTicks:
		// Each replica ahead of us may have another stable checkpoint, and none of them the batches
		// that we need.
		if k, ok := c.checkpoints.claims.highest(c.log.lastExec, false); ok {
			c.fetchState(k)
		}
	case t != nil:
		t.tickAsks()
	}
}

// Fetching answers Fetch.
func (c *Core) Fetching(s Session) {
	t := c.transfer
	t.session = s
	if t.moved {
		t.retarget(message.CheckpointID{Seq: t.seq, Digest: t.root})
		return
	}
	t.proceed()
}

// StateSize says how many pages the state takes, about.
func (c *Core) StateSize(pages int) { c.shares.credit = max(leastCredit, 2*pages) }

// onFetch answers a replica that fetches, within its share.
func (c *Core) onFetch(m *message.Fetch) {
	if !c.shares.may(m.From, max(1, len(m.Nodes))) {
		c.refuse(m, TooSoon)
		return
	}
	c.do(Effect{Verb: Serve, To: m.From, Message: m})
}

// onData takes in nodes and pages that a replica sent for our state.
func (c *Core) onData(m *message.Data) {
	t := c.transfer
	i, asked := 0, false
	if t != nil {
		i, asked = t.find(m)
	}
	if !asked {
		c.refuse(m, NotAskedFor)
		return
	}
	t.answers |= 1 << m.From
	if m.Gone {
		t.giveUp(i)
		c.moveOn(m.From)
		return
	}
	if !t.take(i, m) {
		c.refuse(m, FalseData)
	}
	t.proceed()
}

// moveOn follows the group to a newer checkpoint when a replica no longer has the one we fetch.
func (c *Core) moveOn(gone message.ReplicaID) {
	t := c.transfer
	target, later := c.checkpoints.claims.highest(t.seq, false)
	if !later {
		c.shunned[gone] = c.tick + 2 // its news are under way
		c.reports.noticeLag()
		t.ask()
		return
	}
	t.retarget(target)
}

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
	t := c.transfer
	invariant(t != nil && t.seq == n, "a state installed that was not asked for")
	c.transfer = nil
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

// fetchState begins to fetch a checkpoint whose root is certain, or follows to it.
func (c *Core) fetchState(target message.CheckpointID) {
	if t := c.transfer; t != nil {
		if t.seq < target.Seq && !t.done { // a fetched state is being installed, and the next is fetched after that
			t.retarget(target)
		}
		return
	}
	c.transfer = &transfer{base: c.base, shunned: c.shunned, seq: target.Seq, root: target.Digest}
	c.do(Effect{Verb: Fetch, Seq: target.Seq, Digest: target.Digest})
}
