// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// decide has the new primary begin the view as soon as the VIEW-CHANGEs it may use allow it. It is tried again whenever
// there is one more, or one more batch [TOCS §4.5, Fig. 4; R-VC-18].
func (c *Core) decide() {
	x := &c.change
	if c.active || !c.isPrimary() || x.newView != nil || c.silent() || x.own == nil {
		return
	}
	var set []*message.ViewChange
	m := &message.NewView{View: c.view, From: c.cfg.Self}
	for j, vc := range x.last {
		id := message.ReplicaID(j)
		if vc == nil || vc.View != c.view || id != c.cfg.Self && !x.acknowledged(id) {
			continue
		}
		set = append(set, vc)
		m.V = append(m.V, message.Vouched{From: id, Digest: x.digests[j]})
	}
	d := decision{c.base, set}
	start, ok := d.checkpoint()
	if !ok {
		return
	}
	m.Checkpoint = start
	if m.Chosen, ok = d.choose(start.Seq); !ok {
		return
	}
	for _, digest := range m.Chosen {
		if c.bodies.find(digest) == nil {
			return // A3: not before we can serve it (R-VC-19); bodies.askAll asks for it
		}
	}
	last := m.Checkpoint.Seq + message.SeqNum(len(m.Chosen))
	if last > c.log.bound {
		return // we may not say so yet, and another primary will
	}
	x.newView = m
	c.witnessChosen(m)
	c.promise(last) // it is the PRE-PREPARE of all that it chose
	c.recordNewView(set, m)
	c.multicast(m)
	c.tryNewView()
}

// onNewView takes the new primary's word for how the view begins, and then checks it [TOCS §4.5].
func (c *Core) onNewView(m *message.NewView) {
	x := &c.change
	switch {
	case m.View == 0:
		c.refuse(m, NotFromPrimary)
	case m.From != m.View.Primary(c.cfg.Replicas):
		c.onToldNewView(m)
	case m.View < c.view:
		c.refuse(m, EarlierView)
	case m.View > c.view:
		if x.later == nil || x.later.View < m.View {
			x.later = m // until we get there (R-VC-28)
		}
	case x.newView != nil:
		c.refuse(m, SecondProposal)
	default:
		x.newView = m
		c.tryNewView()
	}
}

// onToldNewView takes a NEW-VIEW from another than its primary, while we wait for it.
func (c *Core) onToldNewView(m *message.NewView) {
	if m.View != c.view || c.active || c.isPrimary() {
		c.refuse(m, NotAskedFor)
		return
	}
	c.change.hear(m)
	c.tryNewView()
}

// tryNewView begins the view if the NEW-VIEW and all VIEW-CHANGEs that it names are here, authentic to us or vouched
// for by f others beside the primary (R-VC-29). If it is not justified the primary is faulty, and we
// move on at once (R-VC-32).
func (c *Core) tryNewView() {
	m := c.change.newView
	if c.active || m == nil {
		return
	}
	var set []*message.ViewChange
	for _, v := range m.V {
		vc := c.change.usable(v.From, v.Digest)
		if vc == nil {
			return // STATUS asks for it
		}
		set = append(set, vc)
	}
	if !(decision{c.base, set}).justified(m) {
		c.refuse(m, BadNewView)
		c.leave(c.view + 1)
		return
	}
	if c.moveTo(m.Checkpoint) {
		c.change.adopt(set)
		if !c.isPrimary() {
			c.recordNewView(set, m)
		}
		c.persist(&message.Status{View: c.view, Active: true, From: c.cfg.Self})
		c.beginView(m)
	}
}

// recordNewView records a NEW-VIEW and what it was made of: after our restart others may need the
// NEW-VIEW from us, or our acks.
func (c *Core) recordNewView(set []*message.ViewChange, m *message.NewView) {
	if !c.cfg.Durable {
		return
	}
	var record []message.Message
	for _, vc := range set {
		if vc.From != c.cfg.Self {
			record = append(record, vc)
		}
	}
	c.persist(append(record, m)...)
}

// moveTo readies us for a view that begins from a checkpoint. Our own water marks, P and Q stay
// where they are until it is stable here: f+1 hold it, of whom f may lie, so that the next view may
// have to begin from an earlier one [TOCS Fig. 24]. If we are behind it we fetch its state. Not ok:
// our own root for it is still being computed, and Frozen tries again.
func (c *Core) moveTo(start message.CheckpointID) bool {
	if start.Seq <= c.log.low {
		return true
	}
	if size := c.cfg.LogSize; start.Seq > c.log.low+size {
		// A correct replica that holds it has a stable one no more than L below (R-ST-17). We may
		// hold it ourselves, fetched.
		c.slide(start.Seq - size)
	}
	if c.log.lastExec < start.Seq {
		c.catchUp.fetchState(start)
		return true
	}
	root, known := c.checkpoints.root(start.Seq)
	if !known {
		return start.Seq < c.checkpoints.fetched.Seq // our state was fetched from a later checkpoint, and never was this one's
	}
	if root != start.Digest {
		c.catchUp.astray(start, "our state is not the one that the new view begins from: this replica's memory or program is at fault")
		return c.catchUp.fetching()
	}
	return true
}

// beginView begins the view: what X chose is pre-prepared again [TOCS §4.5, R-VC-33].
func (c *Core) beginView(m *message.NewView) {
	c.active = true
	clear(c.change.told)
	c.wait.viewBegan()
	last := m.Checkpoint.Seq + message.SeqNum(len(m.Chosen))
	c.log.numbered = max(last, c.log.low)
	if c.log.numbered < c.log.lastExec {
		// All batches that we executed have committed, and are in X unless a stable checkpoint
		// covers them.
		c.log.numbered = c.log.lastExec
	}
	c.sayCheckpoints() // the one that the view begins from among them, so that it becomes stable everywhere (R-VC-34)
	c.placeChosen()
	c.bodies.askAll(c.change.choosable)
	c.passOn()
	c.finishRecovery()
}

// witnessChosen makes the primary remember in Q the batches that it chose, above its own window
// too. Its NEW-VIEW is their PRE-PREPARE: others prepare with it whether or not the view ever
// begins here, and a later view must find f+1 replicas that pre-prepared them (A2).
func (c *Core) witnessChosen(m *message.NewView) {
	for i, digest := range m.Chosen {
		if n := m.Checkpoint.Seq + 1 + message.SeqNum(i); n > c.log.low {
			c.pq.witness(carried{message.Prepared{Seq: n, Digest: digest, View: c.view}, c.bodies.find(digest)})
		}
	}
}

// passOn gives the new primary the requests that came to us while the view began, or while we were
// the old primary. The others do not have these yet, and their clients would have to send them
// again. The others have requests that wait for longer.
func (c *Core) passOn() {
	if c.isPrimary() {
		return
	}
	budget := passedOn
	c.queue.each(func(l *line, r *message.Request) bool {
		if l.forwardedAt[r.Slot] == 0 {
			c.send(c.primary(), r)
			budget--
		}
		return budget > 0
	})
}

// passedOn bounds the requests that a backup gives to the primary of a view that begins.
const passedOn = 256
