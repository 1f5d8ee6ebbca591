// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// views leaves views and begins them [TOCS §4.5]. What it knows of the others' leaving is
// in change.
type views struct {
	*base
	log         *messageLog
	change      *viewChange
	journal     *journal
	wait        *waiting
	bodies      *bodies
	voting      *voting
	turnarounds *turnarounds
	stability   *stability
}

// begin tries to begin the present view, which is tried again whenever there is news.
func (x *views) begin() {
	x.change.news = false
	x.decide()
	x.tryNewView()
}

// leave abandons the present view for view v [TOCS §4.5, R-VC-8]. From here on nothing of
// an earlier view is sent or accepted.
func (x *views) leave(v message.View) {
	invariant(v > x.view, "views only rise")
	if v.Primary(x.cfg.Replicas) == x.cfg.Self && x.mayHaveProposed(v) {
		v++
	}
	if !x.turnarounds.tooSlow() { // what is under way then has had no time to prepare
		x.suspectStallers()
	}
	x.abandon()
	x.view = v
	x.change.forgetNewView()
	x.change.reach()
	x.change.own, x.change.last[x.cfg.Self] = nil, nil
	if !x.silent() {
		x.sayViewChange()
	}
	if later := x.change.later; later != nil && later.View <= v {
		x.change.later = nil
		if later.View == v {
			x.change.newView = later
		}
	}
	x.startPendingTimer()
	x.stability.sayCheckpoints()
	x.change.news = true
}

// abandon ends the votes of the present view. P and Q keep what prepared and what was voted for.
func (x *views) abandon() {
	x.log.carry(x.view, func(s *slot) bool { return x.isPrimary() || s.prepares.has(x.cfg.Self) })
	x.turnarounds.leave()
	x.active = false
	x.voting.abandon()
	x.wait.leave()
}

// sayViewChange tells the others that we have left for the present view, what we had
// prepared and pre-prepared by then, and which of their VIEW-CHANGEs we hold.
func (x *views) sayViewChange() {
	x.change.own = x.makeViewChange()
	x.change.last[x.cfg.Self], x.change.digests[x.cfg.Self] = x.change.own, x.change.own.Digest()
	x.promise(max(x.log.lastExec, x.log.low))
	x.persist(x.change.own)
	x.multicast(x.change.own)
	for j := range x.change.last {
		x.acknowledge(message.ReplicaID(j))
	}
}

// suspectStallers suspects the clients whose requests could not be authenticated here or elsewhere:
// a proposal that did not prepare has them, and too few replicas have said that they hold them. A
// view may end for another reason, and an honest client has requests under way then. So the
// proposal must have stood for as long as a request waits before a view ends: by then an honest
// client has sent its requests to all.
func (x *views) suspectStallers() {
	for n := x.log.low + 1; n <= x.log.high; n++ {
		s := x.log.slot(n)
		p := s.held
		if x.isPrimary() {
			p = s.proposal
		}
		if p == nil || s.isPrepared || x.tick-s.since < x.cfg.Ticks.Timeout {
			continue
		}
		for _, r := range p.Batch.Requests {
			if x.isPrimary() || !r.Authentic {
				x.wait.suspect(r)
			}
		}
	}
}

func (x *views) makeViewChange() *message.ViewChange {
	m := &message.ViewChange{View: x.view, Low: x.log.low, Checkpoints: x.stability.named(), From: x.cfg.Self}
	m.P, m.Q = x.log.tuples()
	return m
}

// onViewChange records another replica's leaving, acknowledges it, and follows if enough
// others left [TOCS §4.5].
func (x *views) onViewChange(m *message.ViewChange) {
	switch {
	case m.View < x.view:
		x.refuse(m, EarlierView)
		return
	case !x.change.correctViewChange(m):
		x.refuse(m, BadViewChange)
		return
	case m.Relayed:
		x.onRelayed(m)
		return
	case x.change.latest(int(m.From)) != nil && x.change.latest(int(m.From)).View >= m.View:
		x.refuse(m, SecondVote) // the first for a view counts (R-VC-14)
		return
	}
	x.change.record(m, x.view)
	if m.View == x.view {
		x.acknowledge(m.From)
	}
	if m.From == x.primary() && m.View == x.view+1 && x.active {
		x.leave(m.View) // the primary itself steps down (R-VT-5)
		return
	}
	if v := x.change.joinable(); v > x.view {
		x.leave(v)
		return
	}
	x.startPendingTimer()
	x.change.news = x.change.news || m.View == x.view
}

// onRelayed takes a copy of a VIEW-CHANGE from the new primary, if the NEW-VIEW we hold names it.
func (x *views) onRelayed(m *message.ViewChange) {
	if nv := x.change.newView; nv != nil && m.View == x.view {
		d := m.Digest()
		for _, v := range nv.V {
			if v.From == m.From && v.Digest == d {
				x.change.relayed[m.From] = m
				x.change.news = true
				return
			}
		}
	}
	x.refuse(m, NotAskedFor)
}

// acknowledge tells the new primary that we hold j's VIEW-CHANGE for the present view (R-VC-15).
func (x *views) acknowledge(j message.ReplicaID) {
	if a := x.change.ackFor(j); a != nil && !x.active {
		x.send(x.primary(), a)
	}
}

// onViewChangeAck records what another replica says it holds. The new primary counts acks
// to admit a VIEW-CHANGE, a backup to believe a relayed one.
func (x *views) onViewChangeAck(m *message.ViewChangeAck) {
	a := &x.change.acks[m.Of][m.From]
	switch {
	case m.View < x.view:
		x.refuse(m, EarlierView)
		return
	case m.View <= a.view || m.From == m.Of:
		x.refuse(m, SecondVote)
		return
	}
	*a = ack{m.View, m.Digest}
	// For another view it decides nothing yet, and costs its sender less than us.
	x.change.news = x.change.news || m.View == x.view
}

// startPendingTimer runs the timer for the NEW-VIEW once a quorum has come as far as we:
// before that the new primary cannot send it (R-VT-3).
func (x *views) startPendingTimer() {
	if x.active || x.wait.on {
		return
	}
	if x.change.reached(x.wait.waits) >= x.quorum() {
		x.wait.start(x.tick, nil)
	}
}

// tickWaiting complains about requests that the primary leaves waiting, and leaves its
// view when it is time [TOCS §4.5.1]: also if that is late with null batches, but not for
// requests while the state is being fetched.
func (x *views) tickWaiting(late, fetching bool) {
	w := x.wait
	w.tell()
	if x.active {
		if w.watch(); !x.silent() && !x.estimating() && w.yields() {
			x.leave(x.view + 1)
			return
		}
	}
	if late {
		w.double(x.tick)
		x.leave(x.view + 1)
		return
	}
	if w.expired(x.tick) && !fetching && !x.silent() { // a silent replica could tell nobody that it left
		if w.on && w.request == nil && w.othersWork() {
			w.start(x.tick, nil)
			return
		}
		w.double(x.tick)
		x.leave(x.view + 1)
	}
}

// decide has the new primary begin the view as soon as the VIEW-CHANGEs it may use allow
// it. It is tried again whenever there is one more, or one more batch [TOCS §4.5, Fig. 4;
// R-VC-18].
func (x *views) decide() {
	if x.active || !x.isPrimary() || x.change.newView != nil || x.silent() || x.change.own == nil {
		return
	}
	var set []*message.ViewChange
	m := &message.NewView{View: x.view, From: x.cfg.Self}
	for j, vc := range x.change.last {
		id := message.ReplicaID(j)
		if vc == nil || vc.View != x.view || id != x.cfg.Self && !x.change.acknowledged(id) {
			continue
		}
		set = append(set, vc)
		m.V = append(m.V, message.Vouched{From: id, Digest: x.change.digests[j]})
	}
	d := decision{x.base, set}
	start, ok := d.checkpoint()
	if !ok {
		return
	}
	m.Checkpoint = start
	if m.Chosen, ok = d.choose(start.Seq); !ok {
		return
	}
	for _, digest := range m.Chosen {
		if x.bodies.find(digest) == nil {
			return // A3: not before we can serve it (R-VC-19); bodies.askAll asks for it
		}
	}
	last := m.Checkpoint.Seq + message.SeqNum(len(m.Chosen))
	if last > x.log.bound {
		return // we may not say so yet, and another primary will
	}
	x.change.newView = m
	x.witnessChosen(m)
	x.promise(last) // it is the PRE-PREPARE of all that it chose
	x.journal.newView(set, m)
	x.multicast(m)
}

// onNewView takes the new primary's word for how the view begins, and then checks it [TOCS §4.5].
func (x *views) onNewView(m *message.NewView) {
	switch {
	case m.View == 0:
		x.refuse(m, NotFromPrimary)
	case m.From != m.View.Primary(x.cfg.Replicas):
		x.onToldNewView(m)
	case m.View < x.view:
		x.refuse(m, EarlierView)
	case m.View > x.view:
		if x.change.later == nil || x.change.later.View < m.View {
			x.change.later = m // until we get there (R-VC-28)
		}
	case x.change.newView != nil:
		x.refuse(m, SecondProposal)
	default:
		x.change.newView = m
		x.change.news = true
	}
}

// onToldNewView takes a NEW-VIEW from another than its primary, while we wait for it.
func (x *views) onToldNewView(m *message.NewView) {
	if m.View != x.view || x.active || x.isPrimary() {
		x.refuse(m, NotAskedFor)
		return
	}
	x.change.hear(m)
	x.change.news = true
}

// tryNewView begins the view if the NEW-VIEW and all VIEW-CHANGEs that it names are here,
// authentic to us or vouched for by f others beside the primary (R-VC-29). If it is not
// justified the primary is faulty, and we move on at once (R-VC-32).
func (x *views) tryNewView() {
	m := x.change.newView
	if x.active || m == nil {
		return
	}
	var set []*message.ViewChange
	for _, v := range m.V {
		vc := x.change.usable(v.From, v.Digest)
		if vc == nil {
			return // STATUS asks for it
		}
		set = append(set, vc)
	}
	if !(decision{x.base, set}).justified(m) {
		x.refuse(m, BadNewView)
		x.leave(x.view + 1)
		return
	}
	if x.stability.moveTo(m.Checkpoint) {
		x.change.adopt(set)
		if !x.isPrimary() {
			x.journal.newView(set, m)
		}
		x.persist(&message.Status{View: x.view, Active: true, From: x.cfg.Self})
		x.beginView(m)
	}
}

// beginView begins the view: what X chose is pre-prepared again [TOCS §4.5, R-VC-33].
func (x *views) beginView(m *message.NewView) {
	x.active = true
	clear(x.change.told)
	x.wait.viewBegan()
	last := m.Checkpoint.Seq + message.SeqNum(len(m.Chosen))
	x.log.numbered = max(last, x.log.low)
	if x.log.numbered < x.log.lastExec {
		// All batches that we executed have committed, and are in X unless a stable checkpoint
		// covers them.
		x.log.numbered = x.log.lastExec
	}
	// the one that the view begins from among them, so that it becomes stable everywhere
	// (R-VC-34)
	x.stability.sayCheckpoints()
	x.voting.placeChosen()
	x.bodies.askAll(x.change.choosable)
	x.wait.passOn()
}

// witnessChosen makes the primary remember in Q the batches that it chose, above its own window
// too. Its NEW-VIEW is their PRE-PREPARE: others prepare with it whether or not the view ever
// begins here, and a later view must find f+1 replicas that pre-prepared them (A2).
func (x *views) witnessChosen(m *message.NewView) {
	for i, digest := range m.Chosen {
		if n := m.Checkpoint.Seq + 1 + message.SeqNum(i); n > x.log.low {
			x.log.witness(message.Prepared{Seq: n, Digest: digest, View: x.view}, x.bodies.find(digest))
		}
	}
}

// mayHaveProposed reports whether an earlier life may have made proposals, in a view that we lead,
// that no record has: then we do not lead it.
func (x *views) mayHaveProposed(v message.View) bool {
	return x.cfg.Durable && x.cfg.Replicas > 1 && v <= x.cfg.RaisedView && (x.cfg.Raised > 0 || x.cfg.RaisedView > 0)
}

// beginAnew waits for the NEW-VIEW of the present view once more, and for the VIEW-CHANGEs that it
// was made of, because those that we remember may be an intruder's. Our votes of this view stay in
// Q, and we vote for nothing else.
func (x *views) beginAnew() {
	if x.active && x.view > 0 { // view 0 begins with nothing
		x.abandon()
	}
	x.change.forgetNewView()
	x.change.forgetAll()
}

// start is the number from which the present view began, or is to begin, as the NEW-VIEW
// says that is here; else 0.
func (x *views) start() message.SeqNum {
	if m := x.change.newView; m != nil && m.View == x.view {
		return m.Checkpoint.Seq
	}
	return 0
}
