// SPDX-License-Identifier: Apache-2.0

package core

import (
	"cmp"
	"fmt"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A replica recovers from time to time, whether or not it is suspected: it is stopped, its program
// is checked, and it is started again with new keys [TOCS §5.2]. It cannot know whether an intruder
// has changed its memory. If none has, it must not forget, or its recovery would be one more fault.
// So it believes its memory, within bounds that follow from the others' answers. Until the group
// has gone on beyond all that it can have said, it counts as faulty if it was.
//
//  1. It asks the others how far they have come, with QUERY-STABLE, and takes part in nothing
//     meanwhile. From their answers follows H_M, a number that is not below any that it can have
//     voted for if it was correct. Its memory above H_M is false.
//  2. It sends nothing for a number above H_M+K until a checkpoint at or above H_M is stable here:
//     there is one in between, which the paper has at H_M itself. A view that has begun, as it
//     remembers, begins anew with the NEW-VIEW that its primary sends again.
//  3. It has the group order a signed recovery request. Every replica that executes it gives its
//     sender a new key, and answers with the number of the batch, n_R. What was forged with the old
//     key is for numbers below the end of the window at n_R.
//  4. When a checkpoint is stable here at or above that and H_M+K, the recovery point H, its state
//     is the group's, and it holds nothing that an intruder left. An idle group is filled with null
//     batches up to there.
//
// A page that somebody changed on the disk is noticed when the image is read, for its digest; a
// whole state that is consistent and false by the first checkpoint's root. Then the state is
// fetched.

// recovery is this replica's own.
type recovery struct {
	*base
	estimates []estimate
	bound     message.SeqNum       // H_M: memory above it is false
	point     message.SeqNum       // H; 0: not known yet
	request   *message.Request     // nil until it is signed
	answers   []*message.Recovered // by replica
	ran       message.SeqNum       // n_R as executed here; 0: not yet
	collected message.SeqNum       // the last checkpoint that became stable here since it began
	again     limit                // of asking again
}

// An estimate is what a replica says of how far it has come: the least and the most of its answers [TOCS §5.2.3].
type estimate struct {
	known    bool
	taken    message.SeqNum // its last checkpoint, the least that it named
	prepared message.SeqNum // the most
	view     message.View   // the last that it named
}

func (x *recovery) init(b *base) {
	*x = recovery{base: b, estimates: make([]estimate, b.cfg.Replicas), answers: make([]*message.Recovered, b.cfg.Replicas)}
}

// askAgainTicks is how often a recovering replica repeats questions that were not answered.
const askAgainTicks = 10

// beginRecovery asks the others how far they have come.
func (c *Core) beginRecovery() {
	x := &c.recovery
	if x.again.take(c.tick, askAgainTicks, 1) {
		c.multicast(&message.QueryStable{Nonce: c.cfg.Recovery, From: c.cfg.Self})
	}
	c.tryEstimate()
}

// onQueryStable tells a recovering replica how far we have come, a little oftener than it asks.
func (c *Core) onQueryStable(m *message.QueryStable) {
	if !c.reports.peers[m.From].queried.take(c.tick, askAgainTicks/2, 2) {
		c.refuse(m, TooSoon)
		return
	}
	stable := c.stable
	c.send(m.From, &message.ReplyStable{Nonce: m.Nonce, Seq: stable.Seq, Digest: stable.Digest, View: c.view,
		Taken: c.lastTaken(), Prepared: c.lastPrepared(), From: c.cfg.Self})
}

// lastTaken is the last checkpoint that our state has come to.
func (c *Core) lastTaken() message.SeqNum { return max(c.checkpoints.taken, c.stable.Seq) }

// lastPrepared is the highest number that has prepared here, or was executed.
func (c *Core) lastPrepared() message.SeqNum {
	last := max(c.log.lastExec, c.ahead.seq)
	for n := range c.pq.prepared {
		last = max(last, n)
	}
	for n := max(last, c.log.low) + 1; n <= c.log.high; n++ {
		if c.log.slot(n).isPrepared {
			last = n
		}
	}
	return last
}

// onReplyStable takes in how far another replica has come.
func (c *Core) onReplyStable(m *message.ReplyStable) {
	x := &c.recovery
	if !x.estimating() || m.Nonce != c.cfg.Recovery {
		c.refuse(m, NotAskedFor)
		return
	}
	x.note(m.From, m.Taken, m.Prepared, m.View)
	c.tryEstimate()
}

func (x *recovery) note(i message.ReplicaID, taken, prepared message.SeqNum, v message.View) {
	e := &x.estimates[i]
	if !e.known {
		*e = estimate{true, taken, prepared, v}
		return
	}
	e.taken, e.prepared, e.view = min(e.taken, taken), max(e.prepared, prepared), v
}

// deniers is how many of the others must deny something that only a quorum can have brought about
// before we take it for false. If we are correct, at most n-q of the others were outside that quorum,
// and at most f are faulty: that many may deny it wrongly. The bound H_M is no such denial if we
// forgot, because f liars and a replica that lags behind can make it as low as that replica is.
func (b *base) deniers() int { return b.cfg.Replicas - b.quorum() + b.f + 1 }

// estimate is c_M: the highest checkpoint that a replica names which q-1 others do not exceed, and
// f others have come to. If we are correct no checkpoint that was stable here is above it, for f+1
// correct replicas had taken that; and it is no higher than what a correct replica has prepared, so
// that liars cannot make the recovery long (R-PR-15).
func (x *recovery) estimate() (best message.SeqNum, found bool) {
	for j, e := range x.estimates {
		if !e.known || found && e.taken <= best {
			continue
		}
		within, reach := 0, 0
		for k, other := range x.estimates {
			if !other.known || k == j {
				continue
			}
			if other.taken <= e.taken {
				within++
			}
			if other.prepared >= e.taken {
				reach++
			}
		}
		if within >= x.quorum()-1 && reach >= x.weak()-1 {
			best, found = e.taken, true
		}
	}
	return best, found
}

// tryEstimate goes on when enough have answered.
func (c *Core) tryEstimate() {
	x := &c.recovery
	taken := c.lastTaken()
	if m := c.change.newView; m != nil && m.View == c.view {
		taken = max(taken, m.Checkpoint.Seq) // we may have chosen batches for numbers up to L above
	}
	x.note(c.cfg.Self, taken, c.lastPrepared(), c.view)
	missing := slices.ContainsFunc(x.estimates, func(e estimate) bool { return !e.known })
	if missing && c.tick < leastEstimateTicks {
		return // the more answer the better the estimate, and most answer at once
	}
	_, inDoubt := c.fenceIsFalse()
	if best, found := x.estimate(); found && !inDoubt {
		c.bounded(best + c.cfg.LogSize)
	}
}

// leastEstimateTicks is how long a recovering replica waits for the last of the others.
const leastEstimateTicks = 5

// bounded goes on with H_M. If our memory has something that a correct replica's cannot have, all
// of it is set aside.
func (c *Core) bounded(bound message.SeqNum) {
	x := &c.recovery
	x.bound = bound
	if c.log.low > bound-c.cfg.LogSize || c.lastPrepared() > bound || c.lastTaken() > bound {
		c.distrust(x.commonView(), fmt.Sprintf("it remembers batch %d, and the group can have come no further than %d", c.lastPrepared(), bound))
		return
	}
	x.phase = Requesting
	c.log.confine(c.mostSaid(bound))
	c.pq.confine(bound)
	if c.silent() || !c.cfg.Durable {
		c.fenceOff(bound)
		c.do(Effect{Verb: Hush})
	}
	c.enterAnew()
	x.again = limit{}
	c.askRecovery()
	c.sayCheckpoints()
	c.goOn()
	c.reports.sendStatus()
}

// fenceOff has a replica that remembers nothing be silent up to H_M, and up to its fence if that can be true.
func (c *Core) fenceOff(bound message.SeqNum) {
	if no, _ := c.fenceIsFalse(); no {
		c.cfg.Fence = 0
	}
	c.cfg.Fence = max(c.cfg.Fence, bound)
}

// fenceIsFalse reports whether our fence cannot be true. A correct fence is raised not far ahead of
// the promises (R-OUR-5), and these are not far ahead of what a quorum has executed. The fence is
// in doubt while more answers may yet show that it is false.
func (c *Core) fenceIsFalse() (no, inDoubt bool) {
	denied, open := 0, 0
	for i, e := range c.recovery.estimates {
		switch far := e.prepared + 2*c.cfg.LogSize + 4*c.cfg.CheckpointPeriod; {
		case message.ReplicaID(i) == c.cfg.Self:
		case !e.known:
			open++
		case c.cfg.Fence > far:
			denied++
		}
	}
	no = denied >= c.deniers()
	return no, !no && denied+open >= c.deniers()
}

// mostSaid is the highest number for which a replica with this H_M sends anything before its bound
// ends.
func (c *Core) mostSaid(bound message.SeqNum) message.SeqNum { return bound + c.cfg.CheckpointPeriod }

// commonView is a view that a correct replica has reached: f+1 of the others have.
func (x *recovery) commonView() message.View {
	var views []message.View
	for i, e := range x.estimates {
		if e.known && message.ReplicaID(i) != x.cfg.Self {
			views = append(views, e.view)
		}
	}
	if len(views) < x.weak() {
		return 0
	}
	slices.Sort(views)
	return views[len(views)-x.weak()]
}

// distrust has all be set aside that this replica remembers: it starts again as one that has forgotten, in view v.
func (c *Core) distrust(v message.View, why string) {
	c.do(Effect{Verb: Distrust, View: v, Seq: c.recovery.bound, Reason: why})
}

// enterAnew waits for the NEW-VIEW of the present view once more, and for the VIEW-CHANGEs that it
// was made of, because those that we remember may be an intruder's. Our votes of this view stay in
// Q, and we vote for nothing else.
func (c *Core) enterAnew() {
	if c.active && c.view > 0 { // view 0 begins with nothing
		c.abandon()
	}
	x := &c.change
	x.forgetNewView()
	for i := range x.last {
		if message.ReplicaID(i) != c.cfg.Self {
			x.last[i], x.digests[i] = nil, message.Digest{}
		}
	}
}

// Signed answers Sign: the recovery request, signed, is for the group to order.
func (c *Core) Signed(r *message.Request) {
	c.recovery.request, c.recovery.again = r, limit{}
	c.askRecovery()
}

// askRecovery sends the recovery request, or sends it again.
func (c *Core) askRecovery() {
	x := &c.recovery
	if x.phase != Requesting || !x.again.take(c.tick, askAgainTicks, 1) {
		return
	}
	if x.request == nil {
		c.do(Effect{Verb: Sign, Seq: x.bound}) // the keeper may be away for a moment
		return
	}
	for i := range c.cfg.Replicas {
		if id := message.ReplicaID(i); id != c.cfg.Self {
			c.send(id, x.request)
		}
	}
	if x.ran == 0 {
		own := *x.request
		own.Authentic, own.PassedBy = true, c.cfg.Self
		c.onRequest(&own)
	}
}

// tickRecovery asks again.
func (c *Core) tickRecovery() {
	if c.estimating() {
		c.beginRecovery()
	}
	c.askRecovery()
}

// Recovered says that the state has a recovery request of replica i: it was executed as part of
// batch n, or was in the fetched state. From now on the key under which the replica spoke to us must
// be useless to a thief (R-PR-19). The replica had no other key of ours.
func (c *Core) Recovered(i message.ReplicaID, n, bound message.SeqNum, t message.Timestamp) {
	if int(i) >= c.cfg.Replicas {
		return
	}
	s := &c.silences.of[i]
	s.point = max(c.windowEnd(n), min(c.mostSaid(bound), c.windowEnd(n)+c.cfg.LogSize))
	s.fills, s.recovered = c.silences.fillsPerPeriod()+int(c.cfg.LogSize), c.tick
	if i == c.cfg.Self {
		if x := &c.recovery; x.request != nil && x.request.Timestamp == t {
			x.ran = n
			c.tryPoint()
		}
		return
	}
	c.do(Effect{Verb: Refresh, To: i})
	c.AnswerRecovery(i, n, t)
}

// windowEnd is the largest high water mark that a correct replica can have had when it executed n (R-PR-20).
func (c *Core) windowEnd(n message.SeqNum) message.SeqNum {
	return n/c.cfg.step()*c.cfg.step() + c.cfg.LogSize
}

// AnswerRecovery tells a recovering replica in which batch its request with timestamp t was.
func (c *Core) AnswerRecovery(i message.ReplicaID, n message.SeqNum, t message.Timestamp) {
	if i != c.cfg.Self && !c.silent() && !c.estimating() {
		c.send(i, &message.Recovered{View: c.view, Seq: n, Timestamp: t, From: c.cfg.Self})
	}
}

// onRecovered takes in that our request was executed elsewhere.
func (c *Core) onRecovered(m *message.Recovered) {
	x := &c.recovery
	if x.phase != Requesting || x.request == nil || m.Timestamp != x.request.Timestamp {
		c.refuse(m, NotAskedFor)
		return
	}
	x.answers[m.From] = m
	c.tryPoint()
}

// ordered is n_R, if a quorum has executed the request as part of that batch, f+1 of the others in
// it, and in which views these are.
func (x *recovery) ordered() (n message.SeqNum, views []message.View) {
	for _, a := range x.answers {
		if a == nil {
			continue
		}
		views = views[:0]
		for _, b := range x.answers {
			if b != nil && b.Seq == a.Seq {
				views = append(views, b.View)
			}
		}
		own := 0
		if x.ran == a.Seq {
			own = 1
		}
		if len(views) >= x.weak() && len(views)+own >= x.quorum() {
			slices.SortFunc(views, func(a, b message.View) int { return cmp.Compare(b, a) })
			return a.Seq, views
		}
	}
	return 0, nil
}

// tryPoint sets the recovery point when the request is known to have been executed, and our view is
// one that a correct replica can have reached: it has begun since we recover, or it is at most one
// of the next beyond that which f+1 of the others have reached, for which we may have left alone
// (R-PR-22). The others follow there, as they do with every replica that waits alone.
func (c *Core) tryPoint() {
	x := &c.recovery
	n, views := x.ordered()
	if x.phase != Requesting || n == 0 {
		return
	}
	if v := views[x.weak()-1]; !c.active && c.view > v+message.View(c.cfg.Replicas) {
		if x.deniesView() {
			c.distrust(v, fmt.Sprintf("it remembers view %d, and the others are in view %d", c.view, v))
		}
		return // f liars and a replica that lags behind may say so: the next that answers will tell
	}
	x.phase, x.point = Checking, max(c.mostSaid(x.bound), c.windowEnd(n))
	c.finishRecovery()
}

// deniesView reports whether enough of the others are in views so early that we cannot have come to
// ours: a replica enters a view only after a quorum has left the one before.
func (x *recovery) deniesView() bool {
	n := 0
	for _, a := range x.answers {
		if a != nil && x.view > a.View+message.View(x.cfg.Replicas) {
			n++
		}
	}
	return n >= x.deniers()
}

// collects notes that a checkpoint is becoming stable here. At or above H_M it ends the bound.
func (x *recovery) collects(n message.SeqNum, l *messageLog) {
	if x.phase < Requesting {
		return
	}
	if x.collected = max(x.collected, n); n >= x.bound {
		l.free()
	}
}

// finishRecovery ends the recovery if it is over.
func (c *Core) finishRecovery() {
	x := &c.recovery
	if x.phase != Checking || x.collected < x.point || !c.active {
		return
	}
	x.phase = NotRecovering
	c.remembered = min(c.remembered, c.log.lastExec) // or it would answer no reads, because it waits for a batch that never existed
	c.renewJournal()
	c.log.past.drop(c.log.past.high) // an intruder may have put it there
	// No promise of ours is above these. The fence that we read may be an intruder's.
	c.fence, c.fencedView = c.log.low+2*c.cfg.LogSize+c.cfg.CheckpointPeriod, c.view
	c.do(Effect{Verb: Healed, Seq: c.fence, View: c.fencedView})
}

// renewJournal replaces the journal's records by what we remember: an intruder may have put records
// there for numbers that are yet to come, and a later restart would believe them. Old records of
// batches up to the stable checkpoint stay, because a restart may need them to make the state. If
// that state is then not the checkpoint's, it is fetched.
func (c *Core) renewJournal() {
	if !c.cfg.Durable {
		return
	}
	mark := func(which message.View) []message.Message {
		return []message.Message{&message.Recovered{View: which, Seq: c.log.low, Timestamp: message.Timestamp(c.cfg.Recovery), From: c.cfg.Self}}
	}
	c.do(Effect{Verb: Renew, Records: mark(renewBegins)})
	stable := c.stable
	c.note(&stable)
	x := &c.change
	if x.own != nil {
		c.note(x.own)
	}
	if m := x.newView; m != nil {
		var set []*message.ViewChange
		for _, v := range m.V {
			if vc := x.usable(v.From, v.Digest); vc != nil {
				set = append(set, vc)
			}
		}
		c.recordNewView(set, m)
	}
	c.note(&message.Status{View: c.view, Active: true, From: c.cfg.Self}) // a recovery ends in a view that has begun
	for n := c.log.low + 1; n <= c.log.high; n++ {
		c.recordSlot(c.log.slot(n))
	}
	c.do(Effect{Verb: Renewed, Seq: c.log.low, Records: mark(renewEnds)})
}

// The views that the marks of a renewed journal name. Their number is the stable checkpoint.
const (
	renewBegins = iota
	renewEnds
)

// recordSlot records our statements about a number, and its decided batch.
func (c *Core) recordSlot(s *slot) {
	if s.proposal != nil && s.prepares.has(c.cfg.Self) {
		c.note(s.proposal)
	}
	if s.isPrepared && s.commits.has(c.cfg.Self) {
		vote := s.ownCommit
		c.note(&vote)
	}
	if s.isCommitted {
		c.remember(s)
	}
}

// Recovery is how far our recovery has come, its recovery point, 0 if that is not known yet, and
// whether the state was found to be another than the group's.
func (c *Core) Recovery() (p Phase, point message.SeqNum, corrupt bool) {
	return c.phase, c.recovery.point, c.catchUp.corrupt
}

// RecoveryOf is the recovery point of replica i's last recovery that we know of, and whether it is
// seen to have ended: the replica has said that it holds a checkpoint at or above it (R-PR-26).
func (c *Core) RecoveryOf(i message.ReplicaID) (point message.SeqNum, over bool) {
	point = c.silences.of[i].point
	all := c.checkpoints.claims.of[i]
	return point, point == 0 || len(all) > 0 && all[len(all)-1].Seq >= point || c.reports.peers[i].low >= point
}

// recoveryGapTicks is how long after a replica's last recovery another is taken in: each costs
// everyone a new key, and a window of null batches (R-PR-18, R-OUR-19).
const recoveryGapTicks = 100

// recoversAgain reports whether a request is for a recovery that comes too soon after the same replica's last.
func (c *Core) recoversAgain(r *message.Request) bool {
	i, ok := r.Client.Recoverer()
	if !ok {
		return false
	}
	if int(i) >= c.cfg.Replicas {
		return true
	}
	last := c.silences.of[i].recovered
	return last > 0 && c.tick-last < recoveryGapTicks
}

// fillLate reports whether the primary of an idle group leaves a recovering replica waiting for null batches (R-PR-25).
func (c *Core) fillLate() bool {
	if !c.active || c.isPrimary() || c.catchUp.fetching() || c.silent() {
		return false
	}
	since := max(c.log.progress, c.wait.began)
	for i := range c.silences.of {
		if s := &c.silences.of[i]; s.point > c.stable.Seq && s.fills > 0 && c.tick-max(since, s.recovered) > c.wait.timer.ticks {
			return true
		}
	}
	return false
}
