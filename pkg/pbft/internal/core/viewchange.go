package core

import (
	"bytes"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// viewChange is what is known about the way into the present view, or a later one.
type viewChange struct {
	own     *message.ViewChange   // ours for the present view; nil in view 0, and if we have sent none in this life
	last    []*message.ViewChange // by replica: its own for our view, authentic to us, or the latest for a later one
	digests []message.Digest      // of last
	next    []*message.ViewChange // by replica: its latest for a later view, if last has the one for ours
	relayed []*message.ViewChange // by replica: a copy the new primary relayed, named by the NEW-VIEW below
	acks    [][]ack               // [of][from]: the latest
	newView *message.NewView      // of the present view: ours, or received and not refused
	later   *message.NewView      // one for a view we have not reached
}

type ack struct {
	view   message.View
	digest message.Digest
}

func (x *viewChange) init(n int) {
	x.last = make([]*message.ViewChange, n)
	x.digests = make([]message.Digest, n)
	x.next = make([]*message.ViewChange, n)
	x.relayed = make([]*message.ViewChange, n)
	x.acks = make([][]ack, n)
	for i := range x.acks {
		x.acks[i] = make([]ack, n)
	}
}

// latest is the VIEW-CHANGE for the highest view that replica i has sent us, nil if there is none.
func (x *viewChange) latest(i int) *message.ViewChange {
	if x.next[i] != nil {
		return x.next[i]
	}
	return x.last[i]
}

// keep notes a VIEW-CHANGE that its sender brought. One for our view, v, stays when the next comes: a NEW-VIEW may name it,
// and those who have not had it need it from us, or our ack (R-RTX-4).
func (x *viewChange) keep(m *message.ViewChange, v message.View) {
	if old := x.last[m.From]; old != nil && old.View == v {
		x.next[m.From] = m
		return
	}
	x.last[m.From], x.digests[m.From] = m, m.Digest()
}

// adopt keeps the VIEW-CHANGEs with which our view begins as if their senders had brought them. Those that were relayed we believe
// because a correct replica had them, and so may others on our word: a replica that is restarted in this view needs f acks
// for each, and those that were restarted before it would have none to give.
func (x *viewChange) adopt(set []*message.ViewChange) {
	for _, m := range set {
		switch old := x.last[m.From]; {
		case old != nil && old.View == m.View:
			continue
		case old != nil && old.View > m.View:
			x.next[m.From] = old
		}
		x.last[m.From], x.digests[m.From] = m, m.Digest()
	}
}

// reach is called when our view has become a later one.
func (x *viewChange) reach() {
	for i, m := range x.next {
		if m != nil {
			x.last[i], x.digests[i], x.next[i] = m, m.Digest(), nil
		}
	}
}

// StepDown leaves the view if we are its primary: the others follow at once, without waiting for their timers
// (R-VT-5).
func (c *Core) StepDown() {
	if c.active && c.isPrimary() && !c.silent() {
		c.leave(c.view + 1)
	}
}

// leave abandons the present view for view v [TOCS §4.5, R-VC-8]. From here on nothing of an earlier view is sent or
// accepted.
func (c *Core) leave(v message.View) {
	invariant(v > c.view, "views only rise")
	c.pq.carry(&c.log, c.view, func(s *slot) bool { return c.isPrimary() || s.prepares.has(c.cfg.Self) })
	c.suspectStallers()
	c.view, c.active, c.proposing.choosing = v, false, false
	c.riding.forget()
	c.log.clear()
	c.bodies.leave()
	c.queue.newView()
	c.queue.each(func(_ *line, r *message.Request) bool {
		c.wait.trust(r)
		return true
	})
	c.wait.stop()
	x := &c.change
	x.newView = nil
	clear(x.relayed)
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

// sayViewChange tells the others that we have left for the present view, what we had prepared and pre-prepared by then,
// and which of their VIEW-CHANGEs we hold.
func (c *Core) sayViewChange() {
	x := &c.change
	x.own = c.makeViewChange()
	x.last[c.cfg.Self], x.digests[c.cfg.Self] = x.own, x.own.Digest()
	c.promise(max(c.log.lastExec, c.log.low))
	c.multicast(x.own)
	for j := range x.last {
		c.acknowledge(message.ReplicaID(j))
	}
}

// suspectStallers suspects the clients whose requests, here or elsewhere, could not be told to be theirs: a proposal
// that did not prepare holds them, and too few have said that they hold them too.
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
	if c.checkpoints.stable.Seq == c.log.low {
		m.Checkpoints = append(m.Checkpoints, message.CheckpointID{Seq: c.checkpoints.stable.Seq, Digest: c.checkpoints.stable.Digest})
	}
	c.checkpoints.each(c.log.low, func(k message.CheckpointID) { m.Checkpoints = append(m.Checkpoints, k) })
	m.P, m.Q = c.pq.tuples(c.log.low, c.log.high+c.cfg.LogSize)
	return m
}

// correctViewChange is what every correct replica's VIEW-CHANGE satisfies (R-VC-13).
func (c *Core) correctViewChange(m *message.ViewChange) bool {
	if m.View == 0 {
		return false
	}
	in := func(n message.SeqNum) bool { return m.Low < n && n <= m.Low+c.cfg.LogSize }
	for _, k := range m.Checkpoints {
		if k.Seq%c.cfg.step() != 0 || k.Seq != m.Low && !in(k.Seq) {
			return false
		}
	}
	for i, p := range m.P {
		if p.View >= m.View || !in(p.Seq) || i > 0 && m.P[i-1].Seq >= p.Seq {
			return false
		}
	}
	for i, q := range m.Q {
		if q.View >= m.View || !in(q.Seq) && !in(q.Seq-c.cfg.LogSize) { // a primary may have chosen above its window
			return false
		}
		if i > 0 {
			b := m.Q[i-1]
			if b.Seq > q.Seq || b.Seq == q.Seq && bytes.Compare(b.Digest[:], q.Digest[:]) >= 0 {
				return false
			}
		}
	}
	return true
}

// onViewChange records another replica's leaving, acknowledges it, and follows if enough others left
// [TOCS §4.5].
func (c *Core) onViewChange(m *message.ViewChange) {
	x := &c.change
	switch {
	case m.View < c.view:
		c.refuse(m, EarlierView)
		return
	case !c.correctViewChange(m):
		c.refuse(m, BadViewChange)
		return
	case m.Relayed:
		c.onRelayed(m)
		return
	case x.latest(int(m.From)) != nil && x.latest(int(m.From)).View >= m.View:
		c.refuse(m, SecondVote) // the first for a view counts (R-VC-14)
		return
	}
	x.keep(m, c.view)
	if m.View == c.view {
		c.acknowledge(m.From)
	}
	if m.From == c.primary() && m.View == c.view+1 && c.active {
		c.leave(m.View) // the primary itself steps down (R-VT-5)
		return
	}
	if v := c.joinable(); v > c.view {
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

// LeftFor is the highest view for which replica i has sent a VIEW-CHANGE, as far as we know.
func (c *Core) LeftFor(i message.ReplicaID) message.View {
	if m := c.change.latest(int(i)); m != nil {
		return m.View
	}
	return 0
}

// joinable is the view that f+1 other replicas have reached or passed (R-VT-4): one of them is correct.
func (c *Core) joinable() message.View {
	views := make([]message.View, 0, len(c.change.last))
	for i := range c.change.last {
		if m := c.change.latest(i); m != nil && message.ReplicaID(i) != c.cfg.Self {
			views = append(views, m.View)
		}
	}
	if len(views) < c.weak() {
		return 0
	}
	slices.Sort(views)
	return views[len(views)-c.weak()]
}

// acknowledge tells the new primary that we hold j's VIEW-CHANGE for the present view (R-VC-15).
func (c *Core) acknowledge(j message.ReplicaID) {
	if a := c.ackFor(j); a != nil && !c.active {
		c.send(c.primary(), a)
	}
}

// ackFor is our ack for j's VIEW-CHANGE, nil if there is nothing to acknowledge.
func (c *Core) ackFor(j message.ReplicaID) *message.ViewChangeAck {
	m := c.change.last[j]
	if m == nil || m.View != c.view || c.isPrimary() || j == c.cfg.Self || j == c.primary() || c.silent() {
		return nil
	}
	return &message.ViewChangeAck{View: c.view, Of: j, Digest: c.change.digests[j], From: c.cfg.Self}
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

// vouchers counts the replicas, other than j itself, the view's primary and we, whose acks for j's VIEW-CHANGE
// carry digest d.
func (c *Core) vouchers(j message.ReplicaID, d message.Digest) (n int) {
	for i, a := range c.change.acks[j] {
		from := message.ReplicaID(i)
		if a.view == c.view && a.digest == d && from != j && from != c.primary() && from != c.cfg.Self {
			n++
		}
	}
	return n
}

// startPendingTimer runs the timer for the NEW-VIEW once 2f+1 replicas have come as far as we: before that the new
// primary cannot send it (R-VT-3).
func (c *Core) startPendingTimer() {
	if c.active || c.wait.on {
		return
	}
	n := 1 // we have: if our VIEW-CHANGE is one of an earlier life, which we forgot and must not make again, we can leave all the same
	for i := range c.change.last {
		if m := c.change.latest(i); m != nil && m.View >= c.view && message.ReplicaID(i) != c.cfg.Self {
			n++
		}
	}
	if n >= c.quorum() {
		c.wait.start(c.tick, nil)
	}
}

// tickWaiting complains about requests that the primary leaves waiting, and leaves its view when it is time
// [TOCS §4.5.1].
func (c *Core) tickWaiting() {
	w := &c.wait
	w.tell()
	if c.active {
		if w.watch(); w.yields() {
			c.StepDown()
		}
	}
	if w.expired(c.tick) && c.transfer == nil && !c.silent() { // a silent one could tell nobody that it left
		if w.on && w.request == nil && w.othersWork() {
			w.start(c.tick, nil)
			return
		}
		w.double(c.tick)
		c.leave(c.view + 1)
	}
}
