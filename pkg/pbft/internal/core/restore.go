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

// memory is the outcome of a journal's records.
type memory struct {
	bodies   map[message.Digest]*message.Batch
	decided  map[message.SeqNum]message.Digest
	accepted []*message.PrePrepare // the proposals that we voted for, in whatever view
	prepared []message.Commit      // what prepared
	stable   message.Checkpoint
	own      *message.ViewChange
	others   []*message.ViewChange // of newView
	newView  *message.NewView
	reached  message.View // the view in which a silence began
	renewed  *memory      // records since a recovery began to write the journal anew; nil: none did
	active   message.View // the last view that was active; 0 also if none was
}

func newMemory() *memory {
	return &memory{bodies: map[message.Digest]*message.Batch{message.NullDigest: {}}, decided: map[message.SeqNum]message.Digest{}}
}

// read takes in a record. A recovery's records replace all earlier ones once they are complete.
func (m *memory) read(r message.Message, self message.ReplicaID) {
	if mark, ok := r.(*message.Recovered); ok {
		switch {
		case mark.View == renewBegins:
			m.renewed = newMemory()
		case m.renewed != nil:
			m.replace(mark.Seq)
		}
		return
	}
	if m.renewed != nil {
		m.renewed.read(r, self)
	}
	switch r := r.(type) {
	case *message.PrePrepare:
		if !r.Batch.Complete() {
			return // an intruder's: a replica votes for what it can execute
		}
		m.bodies[r.Digest] = &r.Batch
		m.accepted = append(m.accepted, r)
	case *message.Commit:
		m.prepared = append(m.prepared, *r)
	case *message.BatchBody:
		if r.Batch.Complete() {
			m.bodies[r.Digest] = &r.Batch
		}
	case *message.Decided:
		m.decided[r.Seq] = r.Digest
	case *message.Checkpoint:
		if r.Seq > m.stable.Seq {
			m.stable = *r
		}
	case *message.ViewChange:
		m.readViewChange(r, self)
	case *message.NewView:
		if m.newView == nil || r.View > m.newView.View {
			m.newView = r
		}
	case *message.Status:
		if m.reached = max(m.reached, r.View); r.Active {
			m.active = max(m.active, r.View)
		}
	}
}

// replace lets the records that a recovery wrote stand for all earlier ones, except for the batches
// decided up to the checkpoint that was stable then.
func (m *memory) replace(stable message.SeqNum) {
	old := *m
	*m = *old.renewed
	for n, d := range old.decided {
		if _, known := m.decided[n]; known || n > stable {
			continue
		}
		m.decided[n] = d
		if b := old.bodies[d]; b != nil {
			m.bodies[d] = b
		}
	}
}

// readViewChange takes in our VIEW-CHANGE, or one that a NEW-VIEW was made of.
func (m *memory) readViewChange(r *message.ViewChange, self message.ReplicaID) {
	switch {
	case r.From != self:
		m.others = append(m.others, r)
	case m.own == nil || r.View > m.own.View:
		m.own = r
	}
}

// view is the last view that we reached, and whether it was active.
func (m *memory) view() (v message.View, active bool) {
	v = m.reached
	if m.own != nil {
		v = max(v, m.own.View)
	}
	if m.newView != nil {
		v = max(v, m.newView.View)
	}
	return v, v == m.active
}

// restoreMarks sets the water marks and the known checkpoints. A state that is not known to be
// stable was fetched.
func (c *Core) restoreMarks(state message.CheckpointID, m *memory) {
	x := &c.checkpoints
	if c.stable = m.stable; m.stable.Seq > 0 {
		c.stable.Stable, c.stable.From = true, c.cfg.Self
		c.slide(m.stable.Seq)
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
		c.slide(state.Seq - c.cfg.LogSize)
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
		c.slide(start - size)
	}
	for _, vc := range m.others {
		if vc.View == v {
			x.last[vc.From], x.digests[vc.From] = vc, vc.Digest()
		}
	}
	if c.isPrimary() {
		c.witnessChosen(m.newView)
	}
}

// restore sets P and Q to what a VIEW-CHANGE says. Batches that we chose above the window and no
// longer hold are held by others.
func (x *pq) restore(m *message.ViewChange, low message.SeqNum, bodies map[message.Digest]*message.Batch) {
	for _, p := range m.P {
		if p.Seq > low {
			x.prepared[p.Seq] = carried{p, bodies[p.Digest]}
		}
	}
	for _, q := range m.Q {
		if q.Seq > low && len(x.preprepared[q.Seq]) < maxCarried {
			x.preprepared[q.Seq] = append(x.preprepared[q.Seq], carried{q, bodies[q.Digest]})
		}
	}
}

// restoreLog sets the slots of the present view, and the batches that committed in any view.
func (c *Core) restoreLog(m *memory) {
	for _, p := range m.accepted {
		if p.View != c.view || !c.active || !c.log.contains(p.Seq) {
			continue
		}
		s := c.log.slot(p.Seq)
		c.adopt(s, p)
		s.ownPrepare = message.Prepare{View: p.View, Seq: p.Seq, Digest: p.Digest, From: c.cfg.Self}
		s.prepares.add(c.cfg.Self, p.Digest)
		c.log.numbered = max(c.log.numbered, p.Seq)
	}
	for _, p := range m.prepared {
		c.remembered = max(c.remembered, p.Seq)
		if p.View != c.view || !c.log.contains(p.Seq) || c.log.slot(p.Seq).proposal == nil {
			continue
		}
		s := c.log.slot(p.Seq)
		s.isPrepared, s.ownCommit = true, p
		s.commits.add(c.cfg.Self, message.Digest{})
	}
	for n, d := range m.decided {
		c.remembered = max(c.remembered, n)
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
		c.ran(n, b)
		if n == c.stable.Seq && c.checkpoints.taken < n {
			// The group took one here. Our records are of other batches, which an intruder has left: the root tells whether
			// the state is another, too.
			c.freeze(n)
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

// mayHaveProposed reports whether an earlier life may have made proposals, in a view that we lead,
// that no record has: then we do not lead it.
func (c *Core) mayHaveProposed(v message.View) bool {
	return c.cfg.Durable && c.cfg.Replicas > 1 && v <= c.cfg.RaisedView && (c.cfg.Raised > 0 || c.cfg.RaisedView > 0)
}

// Resume lets a core go on that was restored. A primary leaves its view, whether or not that is
// known to have begun: its PRE-PREPAREs leave before anything is in the journal, so it may have
// made some that it does not know of. A fence that was raised says that it may have.
func (c *Core) Resume() {
	if c.estimating() {
		c.beginRecovery()
		return
	}
	c.goOn()
}

// goOn takes part in the protocol.
func (c *Core) goOn() {
	if m := c.change.newView; c.active && m != nil {
		c.log.numbered = max(c.log.numbered, m.Checkpoint.Seq+message.SeqNum(len(m.Chosen)))
	}
	c.log.numbered = max(c.log.numbered, c.log.low, c.log.lastExec)
	if c.silent() {
		return
	}
	if c.isPrimary() && c.mayHaveProposed(c.view) {
		c.leave(c.view + 1)
		return
	}
	c.placeChosen()
	c.startPendingTimer()
	c.decide()
	c.tryNewView()
	c.executeReady()
}
