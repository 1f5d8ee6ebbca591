// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// waiting is a replica's patience: the requests that it waits for, since when, and which others
// wait for them.
type waiting struct {
	*base
	queue    *queue
	forwards *forwards

	first    int              // the timer's first period, ticks
	timer    pause            // the view-change timer: its period doubles for each view that brought nothing
	on       bool             // it runs
	began    int              // tick at which the present view began here
	request  *message.Request // for which it runs; nil while it runs for a NEW-VIEW
	costly   *message.Request // the costly request that we wait for beside it; nil if there is none
	costlyAt int              // tick at which its wait ends

	handover pause // while it lasts we do not hand over to follow a lone replica
	alone    []int // by replica: tick since when it waits in a later view than ours, as it says; 0: it does not

	telling int // the client's line, in the queue's order, with which FORWARDs go on
	allowed int // bytes of operations that may be passed on again

	working []message.View // by replica: the view it is active in, as its last STATUS says; 0 if in none
	pending []message.View // by replica: the view that it waits for, as its last STATUS says; 0 if none
}

const (
	maxDoubling = 6         // of the view-change timer (R-HD-8)
	tellBudget  = 64        // FORWARDs that a tick sends
	passBytes   = 128 << 10 // of operations that a tick passes on again, if it is not one longer operation
	aloneTicks  = 500       // a replica waits so long in a later view before we follow
)

func (w *waiting) init(b *base, q *queue, f *forwards) {
	n, timeout := b.cfg.Replicas, b.cfg.Ticks.Timeout
	w.base, w.queue, w.forwards = b, q, f
	w.alone = make([]int, n)
	w.first, w.timer.ticks = timeout, timeout
	w.working, w.pending = make([]message.View, n), make([]message.View, n)
}

func (w *waiting) stop() { w.on, w.request, w.costly = false, nil, nil }

func (w *waiting) start(tick int, r *message.Request) {
	w.on, w.request = true, r
	w.timer.repeat(tick)
}

// double has the timer's next period be twice the last, up to a bound (R-HD-8).
func (w *waiting) double(tick int) { w.timer.begin(tick, w.first, w.first<<maxDoubling) }

// expired reports whether the view has brought nothing for too long.
func (w *waiting) expired(tick int) bool {
	return w.on && w.timer.over(tick) || w.costly != nil && tick >= w.costlyAt
}

// patience is the view-change timer's present period, in ticks.
func (w *waiting) patience() int { return w.timer.ticks }

// viewBegan: the view is active. From now on the timer runs only while a request waits (R-OUR-17).
func (w *waiting) viewBegan() {
	w.stop()
	w.began = w.tick
}

// executed: a batch was executed that was not before. An empty one is no progress.
func (w *waiting) executed(b *message.Batch) {
	for _, r := range b.Requests {
		w.forwards.forget(r)
	}
	if len(b.Requests) > 0 {
		w.timer.ticks = w.first
	}
}

// watch runs the timer for the oldest request that a quorum waits for, until it is executed; other
// progress does not stop it (R-VT-2), and a client whose MACs are good for some replicas only
// cannot start it. The primary's timer runs, too: some of the replicas that it needs may have left
// the view, while the others wait for nothing.
//
// For the oldest costly request there is another, longer timer, because a correct primary
// lets costly requests wait. So they neither end a view that serves everyone else nor
// hide that it does not.
func (w *waiting) watch() {
	if w.request != nil {
		w.request = w.stillWaits(w.request)
		w.on = w.request != nil
	}
	if w.costly != nil {
		w.costly = w.stillWaits(w.costly)
	}
	if !w.on {
		if r := w.oldest(false); r != nil {
			w.start(w.tick, r)
		}
	}
	if w.costly == nil {
		w.costly, w.costlyAt = w.oldest(true), w.tick+w.timer.ticks+costlyTicks
	}
}

// stillWaits returns the pending copy of a request that waited, nil if it no longer waits.
func (w *waiting) stillWaits(r *message.Request) *message.Request {
	if p := w.queue.pendingRequest(r.Key()); p == r || p != nil && sameWish(p, r) {
		return p
	}
	return nil
}

// oldest is the oldest request that a quorum waits for, of those that are costly or of the others.
func (w *waiting) oldest(isCostly bool) (oldest *message.Request) {
	arrived := 0
	w.queue.each(func(l *line, r *message.Request) bool {
		if at := l.arrived[r.Slot]; costly(r) == isCostly && (oldest == nil || at < arrived) &&
			w.forwards.count(r) >= w.quorum() {
			oldest, arrived = r, at
		}
		return true
	})
	return oldest
}

// tell multicasts a FORWARD for each request that waits too long, and passes the request on to
// the primary again, unless the primary has said of late that it holds it. A replica between
// views does so too: the replicas that it left behind need to know that it waits as they do. The
// primary does so when it is asked. The next primary, between views, does not wait to be asked,
// or the two would wait for each other. A tick tells of a bounded number, and the next tick goes
// on with the next client. So clients with many waiting requests do not keep us from telling of
// others', and requests that only we can authenticate do not fill our way to the primary for
// ever.
func (w *waiting) tell() {
	if w.queue.total == 0 {
		return
	}
	budget, lines, from := tellBudget, w.queue.order, w.telling
	w.allowed = min(w.allowed+passBytes, passBytes)
	for k := range lines {
		at := (from + k) % len(lines)
		allowed := w.allowed
		for _, r := range lines[at].pending {
			if r == nil || !w.tellOf(lines[at], r) {
				continue
			}
			if budget--; budget == 0 {
				w.telling = at
				return
			}
		}
		if w.allowed < allowed {
			w.telling = at + 1 // others pass on first the next time
		}
	}
}

// tellOf tells of one request, if it is time to.
func (w *waiting) tellOf(l *line, r *message.Request) bool {
	last := l.forwardedAt[r.Slot]
	switch {
	case l.expired[r.Slot], w.tick-l.arrived[r.Slot] < w.cfg.Ticks.Forward,
		last > 0 && w.tick-last < tellInterval(r):
		return false
	case w.active && w.isPrimary() && w.forwards.count(r) == 0:
		return false
	case last > 0 && !w.isPrimary() && w.mayPass(r) && !w.forwards.holds(w.primary(), r):
		w.allowed -= len(r.Op) // below 0 it takes some ticks until the next
		w.send(w.primary(), r)
	}
	l.forwardedAt[r.Slot] = w.tick
	w.forwards.note(w.cfg.Self, r.Key(), forward{r.Timestamp, r.Digest()})
	w.multicast(&message.Forward{Client: r.Client, Slot: r.Slot, Timestamp: r.Timestamp,
		Digest: r.Digest(), From: w.cfg.Self})
	return true
}

// mayPass reports whether a request may be passed on again. One that the timer runs for may in any
// case: other requests must not keep from the primary what it would be left for.
func (w *waiting) mayPass(r *message.Request) bool {
	return w.allowed > 0 || r == w.request || r == w.costly
}

// passOn gives the new primary the requests that came to us while the view began, or while we were
// the old primary. The others do not have these yet, and their clients would have to send them
// again. The others have requests that wait for longer.
func (w *waiting) passOn() {
	if w.isPrimary() {
		return
	}
	budget := passedOn
	w.queue.each(func(l *line, r *message.Request) bool {
		if l.forwardedAt[r.Slot] == 0 {
			w.send(w.primary(), r)
			budget--
		}
		return budget > 0
	})
}

// passedOn bounds the requests that a backup gives to the primary of a view that begins.
const passedOn = 256

// leave: the present view is over, and what waits must be proposable in the next.
func (w *waiting) leave() {
	w.queue.newView()
	w.queue.each(func(_ *line, r *message.Request) bool {
		w.forwards.trust(r)
		return true
	})
	w.stop()
}

// suspect puts in doubt for a while what comes from the client of a request that too few
// replicas say they hold.
func (w *waiting) suspect(r *message.Request) {
	if w.forwards.count(r) < w.quorum() {
		w.queue.suspect(r.Client, w.tick)
	}
}

// drop drops waiting requests that were executed in batches we never saw, as the fetched state
// shows. If they stayed in the queue it would seem that the primary leaves them waiting, and we
// would leave the view alone.
func (w *waiting) drop(executed func(r *message.Request) bool) {
	w.queue.drop(executed, w.forwards.forget)
	w.forwards.dropUnproven(executed)
}

// tickQueue begins a tick of the queue: a client wants something while one of its requests waits
// or is under way.
func (w *waiting) tickQueue() {
	w.queue.costly.earn()
	for _, l := range w.queue.order {
		l.sharing.tick(w.queue.total > l.count)
	}
}

// yields reports whether we leave the view because a replica has waited in a later one for long: it
// cannot come back, nobody would join it while all goes well, and until then it is of no more use
// than a faulty one. A faulty replica may claim this without end, so the pauses grow. The primary
// leaves first, and takes the others along; if it is faulty and caused the wait itself, the backups
// leave.
func (w *waiting) yields() bool {
	if !w.handover.over(w.tick) {
		return false
	}
	patience := aloneTicks
	if !w.isPrimary() {
		patience *= 2
	}
	for i, since := range w.alone {
		if since > 0 && w.tick-since >= patience {
			w.handover.begin(w.tick, aloneTicks, aloneTicks<<maxDoubling)
			w.alone[i] = 0
			return true
		}
	}
	return false
}

// noteStatus keeps the view in which a replica says it works, or since when it waits in a
// later one.
func (w *waiting) noteStatus(m *message.Status) {
	if w.working[m.From], w.pending[m.From] = 0, m.View; m.Active {
		w.working[m.From], w.pending[m.From] = m.View, 0
	}
	switch {
	case m.Active || m.View <= w.view:
		w.alone[m.From] = 0
	case w.alone[m.From] == 0:
		w.alone[m.From] = w.tick
	}
}

// reached is the view that f+1 other replicas have reached or passed, as they say.
func (w *waiting) reached() message.View {
	views := make([]message.View, 0, len(w.working))
	for i := range w.working {
		if message.ReplicaID(i) != w.cfg.Self {
			views = append(views, max(w.working[i], w.pending[i]))
		}
	}
	slices.Sort(views)
	return views[len(views)-w.weak()]
}

// waits reports whether a replica says that it waits for our view, or for a later one.
func (w *waiting) waits(i message.ReplicaID) bool { return w.pending[i] > 0 && w.pending[i] >= w.view }

// othersWork reports whether 2f others beside the primary work in the view whose NEW-VIEW we wait
// for. If the primary is correct it sends that again, and else f+1 of them are, and tell us of it.
// If we left we would leave alone, and be of no use before the next view change. Should that view
// bring nothing, f+1 of them will leave it and take us along.
func (w *waiting) othersWork() bool {
	n := 0
	for i, v := range w.working {
		if id := message.ReplicaID(i); v == w.view && id != w.cfg.Self && id != w.primary() {
			n++
		}
	}
	return n >= 2*w.f
}

// forgetViews forgets in which views these replicas said that they are.
func (w *waiting) forgetViews(these replicas) {
	for i := range w.working {
		if these.has(message.ReplicaID(i)) {
			w.working[i], w.pending[i] = 0, 0
		}
	}
}
