// SPDX-License-Identifier: Apache-2.0

package core

import (
	"cmp"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// testimony is what the others say to this replica while it recovers, and what follows from that.
type testimony struct {
	*base
	estimates []estimate           // by replica, our own too
	answers   []*message.Recovered // by replica
}

func newTestimony(b *base) testimony {
	return testimony{b, make([]estimate, b.cfg.Replicas), make([]*message.Recovered, b.cfg.Replicas)}
}

// An estimate is what a replica says of how far it has come: the least and the most of
// its answers [TOCS §5.2.3].
type estimate struct {
	known    bool
	taken    message.SeqNum // its last checkpoint, the least that it named
	prepared message.SeqNum // the most
	view     message.View   // the last that it named
}

func (x *testimony) note(i message.ReplicaID, taken, prepared message.SeqNum, v message.View) {
	e := &x.estimates[i]
	if !e.known {
		*e = estimate{true, taken, prepared, v}
		return
	}
	e.taken, e.prepared, e.view = min(e.taken, taken), max(e.prepared, prepared), v
}

// deniers is how many of the others must deny something that only a quorum can have
// brought about before we take it for false. If we are correct, at most n-q of the others
// were outside that quorum, and at most f are faulty: that many may deny it wrongly. The
// bound H_M is no such denial if we forgot, because f liars and a replica that lags
// behind can make it as low as that replica is.
func (x *testimony) deniers() int { return x.cfg.Replicas - x.quorum() + x.f + 1 }

// best is c_M: the highest checkpoint that a replica names which q-1 others do not exceed, and
// f others have come to. If we are correct no checkpoint that was stable here is above it, for f+1
// correct replicas had taken that; and it is no higher than what a correct replica has prepared, so
// that liars cannot make the recovery long (R-PR-15).
func (x *testimony) best() (best message.SeqNum, found bool) {
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

// fenceIsFalse reports whether our fence cannot be true. A correct fence is raised not far ahead of
// the promises (R-OUR-5), and these are not far ahead of what a quorum has executed. The fence is
// in doubt while more answers may yet show that it is false.
func (x *testimony) fenceIsFalse() (no, inDoubt bool) {
	denied, open := 0, 0
	for i, e := range x.estimates {
		switch far := e.prepared + 2*x.cfg.LogSize + 6*x.cfg.CheckpointPeriod; {
		case message.ReplicaID(i) == x.cfg.Self:
		case !e.known:
			open++
		case x.cfg.Fence > far:
			denied++
		}
	}
	no = denied >= x.deniers()
	return no, !no && denied+open >= x.deniers()
}

// commonView is a view that a correct replica has reached: f+1 of the others have.
func (x *testimony) commonView() message.View {
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

// ordered is n_R, if a quorum has executed the request as part of that batch, f+1 of the
// others in it, and in which views these are. ran is the batch it was part of here, 0 if
// it was not executed yet.
func (x *testimony) ordered(ran message.SeqNum) (n message.SeqNum, views []message.View) {
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
		if ran == a.Seq {
			own = 1
		}
		if len(views) >= x.weak() && len(views)+own >= x.quorum() {
			slices.SortFunc(views, func(a, b message.View) int { return cmp.Compare(b, a) })
			return a.Seq, views
		}
	}
	return 0, nil
}

// deniesView reports whether enough of the others are in views so early that we cannot have come to
// ours: a replica enters a view only after a quorum has left the one before.
func (x *testimony) deniesView() bool {
	n := 0
	for _, a := range x.answers {
		if a != nil && x.view > a.View+message.View(x.cfg.Replicas) {
			n++
		}
	}
	return n >= x.deniers()
}

// forget forgets these replicas' answers that do not make an estimate or a recovery point yet.
func (x *testimony) forget(these replicas, pointKnown bool) {
	for i := range x.answers {
		if id := message.ReplicaID(i); id == x.cfg.Self || !these.has(id) {
			continue
		}
		if x.estimating() {
			x.estimates[i] = estimate{}
		}
		if !pointKnown {
			x.answers[i] = nil
		}
	}
}
