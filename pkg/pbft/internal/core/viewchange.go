// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// StepDown leaves the view if we are its primary: the others follow at once, without waiting for their timers
// (R-VT-5).
func (c *Core) StepDown() {
	if c.active && c.isPrimary() && !c.silent() && !c.estimating() {
		c.leave(c.view + 1)
	}
}

// leave abandons the present view for view v [TOCS §4.5, R-VC-8]. From here on nothing of an earlier view is sent or
// accepted.
func (c *Core) leave(v message.View) {
	invariant(v > c.view, "views only rise")
	if v.Primary(c.cfg.Replicas) == c.cfg.Self && c.mayHaveProposed(v) {
		v++
	}
	c.suspectStallers()
	c.abandon()
	c.view = v
	x := &c.change
	x.forgetNewView()
	x.reach()
	x.own, x.last[c.cfg.Self] = nil, nil
	if !c.silent() {
		c.sayViewChange()
	}
	if later := x.later; later != nil && later.View <= v {
		x.later = nil
		if later.View == v {
			x.newView = later
		}
	}
	c.startPendingTimer()
	c.sayCheckpoints()
	c.decide()
	c.tryNewView()
}

// abandon ends the votes of the present view. P and Q keep what prepared and what was voted for.
func (c *Core) abandon() {
	c.pq.carry(&c.log, c.view, func(s *slot) bool { return c.isPrimary() || s.prepares.has(c.cfg.Self) })
	c.active, c.choosing = false, false
	c.riding.forget()
	c.log.clear()
	c.bodies.leave()
	c.queue.newView()
	c.queue.each(func(_ *line, r *message.Request) bool {
		c.wait.trust(r)
		return true
	})
	c.wait.stop()
}

// sayViewChange tells the others that we have left for the present view, what we had prepared and pre-prepared by then,
// and which of their VIEW-CHANGEs we hold.
func (c *Core) sayViewChange() {
	x := &c.change
	x.own = c.makeViewChange()
	x.last[c.cfg.Self], x.digests[c.cfg.Self] = x.own, x.own.Digest()
	c.promise(max(c.log.lastExec, c.log.low))
	c.persist(x.own)
	c.multicast(x.own)
	for j := range x.last {
		c.acknowledge(message.ReplicaID(j))
	}
}

// suspectStallers suspects the clients whose requests could not be authenticated here or elsewhere:
// a proposal that did not prepare has them, and too few replicas have said that they hold them.
func (c *Core) suspectStallers() {
	for n := c.log.low + 1; n <= c.log.high; n++ {
		s := c.log.slot(n)
		p := s.held
		if c.isPrimary() {
			p = s.proposal
		}
		if p == nil || s.isPrepared {
			continue
		}
		for _, r := range p.Batch.Requests {
			if c.wait.forwards(r) < c.quorum() && (c.isPrimary() || !r.Authentic) {
				c.queue.suspect(r.Client, c.tick)
			}
		}
	}
}

func (c *Core) makeViewChange() *message.ViewChange {
	m := &message.ViewChange{View: c.view, Low: c.log.low, From: c.cfg.Self}
	if c.stable.Seq == c.log.low {
		m.Checkpoints = append(m.Checkpoints, message.CheckpointID{Seq: c.stable.Seq, Digest: c.stable.Digest})
	}
	c.checkpoints.each(c.log.low, func(k message.CheckpointID) { m.Checkpoints = append(m.Checkpoints, k) })
	m.P, m.Q = c.pq.tuples(c.log.low, min(c.log.low+2*c.cfg.LogSize, c.log.bound))
	return m
}

// onViewChange records another replica's leaving, acknowledges it, and follows if enough others left
// [TOCS §4.5].
func (c *Core) onViewChange(m *message.ViewChange) {
	x := &c.change
	switch {
	case m.View < c.view:
		c.refuse(m, EarlierView)
		return
	case !c.change.correctViewChange(m):
		c.refuse(m, BadViewChange)
		return
	case m.Relayed:
		c.onRelayed(m)
		return
	case x.latest(int(m.From)) != nil && x.latest(int(m.From)).View >= m.View:
		c.refuse(m, SecondVote) // the first for a view counts (R-VC-14)
		return
	}
	x.record(m, c.view)
	if m.View == c.view {
		c.acknowledge(m.From)
	}
	if m.From == c.primary() && m.View == c.view+1 && c.active {
		c.leave(m.View) // the primary itself steps down (R-VT-5)
		return
	}
	if v := c.change.joinable(); v > c.view {
		c.leave(v)
		return
	}
	c.startPendingTimer()
	if m.View == c.view {
		c.decide()
		c.tryNewView()
	}
}

// onRelayed takes a copy of a VIEW-CHANGE from the new primary, if the NEW-VIEW we hold names it.
func (c *Core) onRelayed(m *message.ViewChange) {
	x := &c.change
	if nv := x.newView; nv != nil && m.View == c.view {
		d := m.Digest()
		for _, v := range nv.V {
			if v.From == m.From && v.Digest == d {
				x.relayed[m.From] = m
				c.tryNewView()
				return
			}
		}
	}
	c.refuse(m, NotAskedFor)
}

// acknowledge tells the new primary that we hold j's VIEW-CHANGE for the present view (R-VC-15).
func (c *Core) acknowledge(j message.ReplicaID) {
	if a := c.change.ackFor(j); a != nil && !c.active {
		c.send(c.primary(), a)
	}
}

// onViewChangeAck records what another replica says it holds. The new primary counts acks to admit a VIEW-CHANGE, a
// backup to believe a relayed one.
func (c *Core) onViewChangeAck(m *message.ViewChangeAck) {
	a := &c.change.acks[m.Of][m.From]
	switch {
	case m.View < c.view:
		c.refuse(m, EarlierView)
		return
	case m.View <= a.view || m.From == m.Of:
		c.refuse(m, SecondVote)
		return
	}
	*a = ack{m.View, m.Digest}
	if m.View == c.view { // else it decides nothing yet, and costs its sender less than us
		c.decide()
		c.tryNewView()
	}
}

// startPendingTimer runs the timer for the NEW-VIEW once a quorum has come as far as we: before that the new
// primary cannot send it (R-VT-3).
func (c *Core) startPendingTimer() {
	if c.active || c.wait.on {
		return
	}
	if c.change.reached(c.wait.waits) >= c.quorum() {
		c.wait.start(c.tick, nil)
	}
}

// tickWaiting complains about requests that the primary leaves waiting, and leaves its view when it is time
// [TOCS §4.5.1].
func (c *Core) tickWaiting() {
	w := &c.wait
	w.tell()
	if c.active {
		if w.watch(); !c.silent() && !c.estimating() && w.yields() {
			c.leave(c.view + 1)
			return
		}
	}
	if c.fillLate() {
		w.double(c.tick)
		c.leave(c.view + 1)
		return
	}
	if w.expired(c.tick) && !c.catchUp.fetching() && !c.silent() { // a silent replica could tell nobody that it left
		if w.on && w.request == nil && w.othersWork() {
			w.start(c.tick, nil)
			return
		}
		w.double(c.tick)
		c.leave(c.view + 1)
	}
}

// noteView notes in which view the sender of a STATUS is, and how long it is silent. A primary that
// is silent can do nothing for its view, nor can one that has left it and forgotten that it did. It
// cannot say so in a VIEW-CHANGE, so the others leave at this word of it, as they do when a primary
// steps down (R-VT-5).
func (c *Core) noteView(m *message.Status) {
	c.silences.of[m.From].until = m.SilentUntil
	if m.From == c.primary() && c.active && (m.SilentUntil > 0 || m.View > c.view) {
		c.leave(c.view + 1)
	}
	c.wait.noteStatus(m)
	if v := c.wait.reached(); !c.active && v > c.view {
		c.leave(v) // too few of the others may have a VIEW-CHANGE to send: replicas that forgot theirs have none
		return
	}
	c.startPendingTimer()
}
