// SPDX-License-Identifier: Apache-2.0

package core

import (
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
//  2. It sends nothing for a number above H_M+K until a checkpoint at or above H_M is stable here,
//     or its state was fetched: there is one in between, which the paper has at H_M itself. A view
//     that has begun, as it remembers, begins anew with the NEW-VIEW that its primary sends again.
//  3. It has the group order a signed recovery request. Every replica that executes it gives its
//     sender a new key, and answers with the number of the batch, n_R. What was forged with the old
//     key is for numbers below the end of the window at n_R.
//  4. When a checkpoint is stable here at or above that, H_M+K and the fence of a silent one, the
//     recovery point H, its state is the group's, and it holds nothing that an intruder left. An
//     idle group is filled with null batches up to there.
//
// A page that somebody changed on the disk is noticed when the image is read, for its digest; a
// whole state that is consistent and false by the first checkpoint's root. Then the state is
// fetched.

// recovery is this replica's own.
type recovery struct {
	*base
	log       *messageLog
	silences  *silences
	journal   *journal
	execution *execution
	proposing *proposing
	stability *stability
	views     *views

	others  testimony
	bound   message.SeqNum   // H_M: memory above it is false
	point   message.SeqNum   // H; 0: not known yet
	request *message.Request // nil until it is signed
	ran     message.SeqNum   // n_R as executed here; 0: not yet
	again   limit            // of asking again
	queried []limit          // by replica: of its QUERY-STABLEs
}

// newRecovery is a recovery with what it stands on, of which nothing is known yet.
func newRecovery(x recovery) recovery {
	x.others, x.queried = newTestimony(x.base), make([]limit, x.cfg.Replicas)
	return x
}

// askAgainTicks is how often a recovering replica repeats questions that were not answered.
const askAgainTicks = 10

// askEstimate asks the others how far they have come, and reports whether we take part from now on.
func (x *recovery) askEstimate() bool {
	if x.again.take(x.tick, askAgainTicks, 1) {
		x.multicast(&message.QueryStable{Nonce: x.cfg.Recovery, From: x.cfg.Self})
	}
	return x.tryEstimate()
}

// onQueryStable tells a recovering replica how far we have come, a little oftener than it asks.
func (x *recovery) onQueryStable(m *message.QueryStable) {
	if !x.queried[m.From].take(x.tick, askAgainTicks/2, 2) {
		x.refuse(m, TooSoon)
		return
	}
	stable := x.stable
	x.send(m.From, &message.ReplyStable{Nonce: m.Nonce, Seq: stable.Seq, Digest: stable.Digest, View: x.view,
		Taken: x.stability.lastTaken(), Prepared: x.lastPrepared(), From: x.cfg.Self})
}

// lastPrepared is the highest number that has prepared here, or was executed.
func (x *recovery) lastPrepared() message.SeqNum {
	return max(x.execution.last(), x.log.lastPrepared())
}

// onReplyStable takes in how far another replica has come, and reports whether we take
// part from now on.
func (x *recovery) onReplyStable(m *message.ReplyStable) bool {
	if !x.estimating() || m.Nonce != x.cfg.Recovery {
		x.refuse(m, NotAskedFor)
		return false
	}
	x.others.note(m.From, m.Taken, m.Prepared, m.View)
	return x.tryEstimate()
}

// tryEstimate goes on when enough have answered. It reports whether it does.
func (x *recovery) tryEstimate() bool {
	taken := max(x.stability.lastTaken(), x.views.start()) // we may have chosen batches for numbers up to L above
	x.others.note(x.cfg.Self, taken, x.lastPrepared(), x.view)
	missing := slices.ContainsFunc(x.others.estimates, func(e estimate) bool { return !e.known })
	if missing && x.tick < leastEstimateTicks {
		return false // the more answer the better the estimate, and most answer at once
	}
	_, inDoubt := x.others.fenceIsFalse()
	best, found := x.others.best()
	return found && !inDoubt && x.bounded(best+x.cfg.LogSize)
}

// leastEstimateTicks is how long a recovering replica waits for the last of the others.
const leastEstimateTicks = 5

// bounded goes on with H_M. If our memory has something that a correct replica's cannot have, all
// of it is set aside. Else we take part from now on.
func (x *recovery) bounded(bound message.SeqNum) bool {
	x.bound = bound
	if x.log.low > bound-x.cfg.LogSize || x.lastPrepared() > bound || x.stability.lastTaken() > bound {
		x.distrust(x.others.commonView(), fmt.Sprintf("it remembers batch %d, and the group "+
			"can have come no further than %d", x.lastPrepared(), bound))
		return false
	}
	x.phase = Requesting
	x.log.confine(x.mostSaid(bound), bound)
	if x.silent() || !x.cfg.Durable {
		x.fenceOff(bound)
		x.do(Effect{Verb: Hush})
	}
	x.views.beginAnew()
	x.again = limit{}
	x.askRecovery()
	x.stability.sayCheckpoints()
	return true
}

// fenceOff has a replica that remembers nothing be silent up to H_M, and up to its fence
// if that can be true.
func (x *recovery) fenceOff(bound message.SeqNum) {
	if no, _ := x.others.fenceIsFalse(); no {
		x.cfg.Fence = 0
	}
	x.cfg.Fence = max(x.cfg.Fence, bound)
}

// mostSaid is the highest number for which a replica with this H_M sends anything before its bound
// ends.
func (x *recovery) mostSaid(bound message.SeqNum) message.SeqNum {
	return bound + x.cfg.CheckpointPeriod
}

// distrust has all be set aside that this replica remembers: it starts again as one that
// has forgotten, in view v.
func (x *recovery) distrust(v message.View, why string) {
	x.do(Effect{Verb: Distrust, View: v, Seq: x.bound, Reason: why})
}

// signed takes the answer to Sign: the recovery request, signed, is for the group to order.
func (x *recovery) signed(r *message.Request) {
	x.request, x.again = r, limit{}
	x.askRecovery()
}

// askRecovery sends the recovery request, or sends it again.
func (x *recovery) askRecovery() {
	if x.phase != Requesting || !x.again.take(x.tick, askAgainTicks, 1) {
		return
	}
	if x.request == nil {
		x.do(Effect{Verb: Sign, Seq: x.bound}) // the keeper may be away for a moment
		return
	}
	for i := range x.cfg.Replicas {
		if id := message.ReplicaID(i); id != x.cfg.Self {
			x.send(id, x.request)
		}
	}
	if x.ran == 0 {
		own := *x.request
		own.Authentic, own.PassedBy = true, x.cfg.Self
		x.proposing.onRequest(&own)
	}
}

// recovered notes that the state has a recovery request of replica i: it was executed as
// part of batch n, or was in the fetched state. From now on the key under which the
// replica spoke to us must be useless to a thief (R-PR-19). The replica had no other key
// of ours.
func (x *recovery) recovered(i message.ReplicaID, n, bound message.SeqNum, t message.Timestamp) {
	if int(i) >= x.cfg.Replicas {
		return
	}
	x.silences.recovered(i, max(x.windowEnd(n), min(x.mostSaid(bound), x.windowEnd(n)+x.cfg.LogSize)))
	if i == x.cfg.Self {
		if x.request != nil && x.request.Timestamp == t {
			x.ran = n
			x.tryPoint()
		}
		return
	}
	x.do(Effect{Verb: Refresh, To: i})
	x.answer(i, n, t)
}

// answer tells a recovering replica in which batch its request with timestamp t was.
func (x *recovery) answer(i message.ReplicaID, n message.SeqNum, t message.Timestamp) {
	if i != x.cfg.Self && !x.silent() && !x.estimating() {
		x.send(i, &message.Recovered{View: x.view, Seq: n, Timestamp: t, From: x.cfg.Self})
	}
}

// windowEnd is the largest high water mark that a correct replica can have had when it
// executed n (R-PR-20).
func (x *recovery) windowEnd(n message.SeqNum) message.SeqNum {
	return n/x.cfg.step()*x.cfg.step() + x.cfg.LogSize
}

// onRecovered takes in that our request was executed elsewhere.
func (x *recovery) onRecovered(m *message.Recovered) {
	if x.phase != Requesting || x.request == nil || m.Timestamp != x.request.Timestamp {
		x.refuse(m, NotAskedFor)
		return
	}
	x.others.answers[m.From] = m
	x.tryPoint()
}

// tryPoint sets the recovery point when the request is known to have been executed, and our view is
// one that a correct replica can have reached: it has begun since we recover, or it is at most one
// of the next beyond that which f+1 of the others have reached, for which we may have left alone
// (R-PR-22). The others follow there, as they do with every replica that waits alone.
func (x *recovery) tryPoint() {
	n, views := x.others.ordered(x.ran)
	if x.phase != Requesting || n == 0 {
		return
	}
	if v := views[x.weak()-1]; !x.active && x.view > v+message.View(x.cfg.Replicas) {
		if x.others.deniesView() {
			x.distrust(v, fmt.Sprintf("it remembers view %d, and the others are in view %d", x.view, v))
		}
		return // f liars and a replica that lags behind may say so: the next that answers will tell
	}
	// One that remembers nothing is silent up to its fence, which may be above all else: then its
	// recovery is not over before it votes.
	x.phase, x.point = Checking, max(x.mostSaid(x.bound), x.windowEnd(n), x.cfg.Fence)
	if x.cfg.Lost {
		x.endLoss()
	}
}

// endLoss has a replica whose fence is lost be silent until its recovery point. All
// that it can have promised is for numbers up to H_R: its request was made when its
// earlier life was over, and so it comes in the order after every batch that this life
// had executed, and after every checkpoint from which it had begun a view; a promise is
// for a number at most L above one of these. The first checkpoint above H_R proves
// moreover that a quorum of the others has executed the request, and so has forgotten
// the VIEW-CHANGEs of the earlier life: a replica that voted for that checkpoint's
// batch had a stable one above n_R.
func (x *recovery) endLoss() {
	x.point++
	x.cfg.Fence, x.cfg.Lost = max(x.cfg.Fence, x.point), false
	if !x.silent() { // that checkpoint is stable already
		x.stability.moved, x.stability.ended = true, true
	}
}

// finish ends the recovery if it is over.
func (x *recovery) finish() {
	if x.phase != Checking || x.stable.Seq < x.point || !x.active {
		return
	}
	invariant(!x.silent(), "a recovery that is over, and the replica is silent")
	x.phase = NotRecovering
	x.execution.trustState()
	x.journal.renew()
	x.log.dropPast() // an intruder may have put it there
	// No promise of ours is above these. The fence that we read may be an intruder's.
	x.fence, x.fencedView = x.log.low+2*x.cfg.LogSize+x.cfg.CheckpointPeriod, x.view
	x.do(Effect{Verb: Healed, Seq: x.fence, View: x.fencedView})
}

// forget forgets these replicas' words that decide nothing yet.
func (x *recovery) forget(these replicas) { x.others.forget(these, x.point != 0) }
