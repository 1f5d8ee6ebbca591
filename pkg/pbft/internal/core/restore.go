// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// Restore returns the core of a replica that was restarted and remembers. Its state is that of a
// checkpoint, zero if it is the initial one. Its journal has these records, in order, from after
// that checkpoint or an earlier one. The core continues where the records end: in the same view,
// with the same promises, and with the same VIEW-CHANGE and NEW-VIEW to send (R-OUR-4). Its first
// effects run the batches that are known to have committed. When they are performed, and Frozen has
// the roots of all checkpoints that they take, Resume lets it go on. Nothing else may be called
// before: the earlier life may have said that it holds these checkpoints, and a VIEW-CHANGE must
// name them.
func Restore(cfg Config, state message.CheckpointID, records []message.Message) *Core {
	c := New(cfg)
	m := newMemory()
	for _, r := range records {
		m.read(r, cfg.Self)
	}
	if m.own != nil && !c.change.correctViewChange(m.own) {
		m.own = nil // we never made it: an intruder did
	}
	c.restoreMarks(state, m)
	c.restoreView(m)
	c.restoreLog(m)
	c.runDecided(m)
	if c.silent() { // it may have said a VIEW-CHANGE for this view, which is in no record
		c.persist(&message.Status{View: c.view, From: cfg.Self})
	}
	return c
}

// restoreMarks sets the water marks and the known checkpoints. A state that is not known to be
// stable was fetched.
func (c *Core) restoreMarks(state message.CheckpointID, m *memory) {
	x := &c.checkpoints
	if c.stable = m.stable; m.stable.Seq > 0 {
		c.stable.Stable, c.stable.From = true, c.cfg.Self
		c.stability.slide(m.stable.Seq)
	}
	if state.Seq == 0 {
		return
	}
	c.log.lastExec, x.taken = state.Seq, state.Seq
	if state.Seq <= m.stable.Seq {
		return
	}
	x.fetched = state
	if state.Seq > c.log.high { // as claimFetched did
		c.stability.slide(state.Seq - c.cfg.LogSize)
	}
	k := x.at(state.Seq)
	k.ours = true
	k.votes.add(c.cfg.Self, state.Digest)
}

// restoreView sets the view, what we said on our way into it, and P and Q, which are in our VIEW-CHANGE.
func (c *Core) restoreView(m *memory) {
	v, active := m.view()
	if v > c.view {
		c.view, c.active = v, active
	}
	x := &c.change
	if m.own != nil {
		c.pq.restore(m.own, c.log.low, m.bodies)
		if m.own.View == v {
			x.own, x.last[c.cfg.Self], x.digests[c.cfg.Self] = m.own, m.own, m.own.Digest()
		}
	}
	if m.newView == nil || m.newView.View != v {
		return
	}
	x.newView = m.newView
	if start, size := m.newView.Checkpoint.Seq, c.cfg.LogSize; start > c.log.low+size { // as moveTo did
		c.stability.slide(start - size)
	}
	for _, vc := range m.others {
		if vc.View == v {
			x.last[vc.From], x.digests[vc.From] = vc, vc.Digest()
		}
	}
	if c.isPrimary() {
		c.views.witnessChosen(m.newView)
	}
}

// restoreLog sets the slots of the present view, and the batches that committed in any view.
func (c *Core) restoreLog(m *memory) {
	for _, p := range m.accepted {
		if p.View != c.view || !c.active || !c.log.contains(p.Seq) {
			continue
		}
		s := c.log.slot(p.Seq)
		c.voting.adopt(s, p)
		s.ownPrepare = message.Prepare{View: p.View, Seq: p.Seq, Digest: p.Digest, From: c.cfg.Self}
		s.prepares.add(c.cfg.Self, p.Digest)
		c.log.numbered = max(c.log.numbered, p.Seq)
	}
	for _, p := range m.prepared {
		c.execution.remembered = max(c.execution.remembered, p.Seq)
		if p.View != c.view || !c.log.contains(p.Seq) || c.log.slot(p.Seq).proposal == nil {
			continue
		}
		s := c.log.slot(p.Seq)
		s.isPrepared, s.ownCommit = true, p
		s.commits.add(c.cfg.Self, message.Digest{})
	}
	for n, d := range m.decided {
		c.execution.remembered = max(c.execution.remembered, n)
		if b := m.bodies[d]; c.log.contains(n) && b != nil {
			s := c.log.slot(n)
			s.isCommitted, s.batch, s.decision = true, b, d
			c.log.decidedTo = max(c.log.decidedTo, n)
		}
	}
}

// runDecided has the state brought from where it is to where the batches end that are known to have
// committed. No correct replica executes any above its window, and an intruder may have written a
// great many.
func (c *Core) runDecided(m *memory) {
	for n := c.log.lastExec + 1; n <= c.log.high; n++ {
		d, known := m.decided[n]
		b := m.bodies[d]
		if !known || b == nil {
			break
		}
		c.do(Effect{Verb: Execute, Seq: n, Batch: b, Mute: true})
		for i, r := range b.Requests {
			c.queue.complete(r, place{t: r.Timestamp, n: n, i: i}) // who waits for it needs our word that it is done
		}
		c.execution.ran(n, b)
		if n == c.stable.Seq && c.checkpoints.taken < n {
			// The group took one here. Our records are of other batches, which an intruder has left: the root tells whether
			// the state is another, too.
			c.execution.freeze(n)
		}
	}
	stable := c.stable
	if stable.Seq > 0 {
		c.do(Effect{Verb: Discard, Seq: stable.Seq})
	}
	if c.log.lastExec < stable.Seq {
		c.catchUp.fetchState(message.CheckpointID{Seq: stable.Seq, Digest: stable.Digest})
	}
}
