// SPDX-License-Identifier: Apache-2.0

package core

import (
	"maps"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// waiting is a replica's patience: the requests that it waits for, since when, and which others
// wait for them.
type waiting struct {
	*base
	queue *queue
	log   *messageLog

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

	// forwarded[i] is what replica i says it holds and the primary has not proposed (R-OUR-11): one
	// request for each slot of each client at most, as many as a correct replica can hold.
	forwarded []map[message.RequestKey]forward
	// unproven[i] are requests that replica i passed on and that are not authentic here, the latest few.
	unproven [][]*message.Request
}

type forward struct {
	t      message.Timestamp
	digest message.Digest
}

const (
	maxUnproven = 8         // requests kept of one replica that are not authentic here
	maxDoubling = 6         // of the view-change timer (R-HD-8)
	tellTicks   = 10        // ticks before a FORWARD is repeated
	tellCostly  = 200       // the same, for a costly request: it may well wait for its turn
	tellBudget  = 64        // FORWARDs that a tick sends
	passBytes   = 128 << 10 // of operations that a tick passes on again, if it is not one longer operation
	aloneTicks  = 500       // a replica waits so long in a later view before we follow
)

func (w *waiting) init(b *base, q *queue, l *messageLog) {
	n, timeout := b.cfg.Replicas, b.cfg.Ticks.Timeout
	w.base, w.queue, w.log = b, q, l
	w.alone = make([]int, n)
	w.first, w.timer.ticks = timeout, timeout
	w.working, w.pending = make([]message.View, n), make([]message.View, n)
	w.forwarded = make([]map[message.RequestKey]forward, n)
	for i := range w.forwarded {
		w.forwarded[i] = map[message.RequestKey]forward{}
	}
	w.unproven = make([][]*message.Request, n)
}

func (w *waiting) stop() { w.on, w.request, w.costly = false, nil, nil }

func (w *waiting) start(tick int, r *message.Request) {
	w.on, w.request = true, r
	w.timer.repeat(tick)
}

// viewBegan: the view is active. From now on the timer runs only while a request waits (R-OUR-17).
func (w *waiting) viewBegan() {
	w.stop()
	w.began = w.tick
}

// progress: a batch was executed that was not before. An empty one proves nothing.
func (w *waiting) progress(b *message.Batch) {
	if len(b.Requests) > 0 {
		w.timer.ticks = w.first
	}
}

// double has the timer's next period be twice the last, up to a bound (R-HD-8).
func (w *waiting) double(tick int) { w.timer.begin(tick, w.first, w.first<<maxDoubling) }

// vouches counts the replicas that say so of a slot's request.
func (w *waiting) vouches(k message.RequestKey, f forward) (n int) {
	for _, m := range w.forwarded {
		if x, ok := m[k]; ok && x == f {
			n++
		}
	}
	return n
}

// forwards counts the replicas that say they hold this very request.
func (w *waiting) forwards(r *message.Request) (n int) {
	for _, m := range w.forwarded {
		if f, ok := m[r.Key()]; ok && f.t == r.Timestamp && f.digest == r.Digest() {
			n++
		}
	}
	return n
}

// retain forgets the clients that are no longer enrolled, and their waiting requests.
func (w *waiting) retain(has func(message.ClientID) bool) {
	enrolled := func(id message.ClientID) bool {
		_, recovers := id.Recoverer()
		return recovers || has(id)
	}
	w.queue.retain(enrolled)
	for _, m := range w.forwarded {
		maps.DeleteFunc(m, func(k message.RequestKey, _ forward) bool { return !enrolled(k.Client) })
	}
}

// doubt puts a client's requests in doubt until a quorum says that it holds them: the client has
// restarted, or changed its keys, and they are authentic here by a key that the others may have
// forgotten. A costly request can wait for seconds, and would stall the batch that it comes in.
func (w *waiting) doubt(client message.ClientID) {
	w.queue.doubt(client)
	w.queue.eachOf(client, w.trust)
}

// forget drops the FORWARDs for a request that was executed, and for earlier ones of its slot.
func (w *waiting) forget(r *message.Request) {
	for _, m := range w.forwarded {
		if len(m) == 0 { // mostly
			continue
		}
		if f, ok := m[r.Key()]; ok && f.t <= r.Timestamp {
			delete(m, r.Key())
		}
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

// noteStatus keeps the view in which a replica says it works, or since when it waits in a later one.
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

// tell multicasts a FORWARD for each request that waits too long, and passes the request on to the
// primary again. A replica between views does so too: the replicas that it left behind need to know
// that it waits as they do. The primary does so when it is asked. The next primary, between views,
// does not wait to be asked, or the two would wait for each other. A tick tells of a bounded
// number, and the next tick goes on with the next client. So clients with many waiting requests do
// not keep us from telling of others', and requests that only we can authenticate do not fill our
// way to the primary for ever.
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
	last, interval := l.forwardedAt[r.Slot], tellTicks
	if costly(r) {
		interval = tellCostly
	}
	switch {
	case l.expired[r.Slot], w.tick-l.arrived[r.Slot] < w.cfg.Ticks.Forward, last > 0 && w.tick-last < interval:
		return false
	case w.active && w.isPrimary() && w.forwards(r) == 0:
		return false
	case last > 0 && !w.isPrimary() && w.allowed > 0:
		w.allowed -= len(r.Op) // below 0 it takes some ticks until the next
		w.send(w.primary(), r)
	}
	l.forwardedAt[r.Slot] = w.tick
	w.forwardFrom(w.cfg.Self, r.Key(), forward{r.Timestamp, r.Digest()})
	w.multicast(&message.Forward{Client: r.Client, Slot: r.Slot, Timestamp: r.Timestamp, Digest: r.Digest(), From: w.cfg.Self})
	return true
}

// watch runs the timer for the oldest request that a quorum waits for, until it is executed; other
// progress does not stop it (R-VT-2), and a client whose MACs are good for some replicas only
// cannot start it. The primary's timer runs, too: some of the replicas that it needs may have left
// the view, while the others wait for nothing.
//
// For the oldest costly request there is another, longer timer, because a correct primary lets costly requests wait. So
// they neither end a view that serves everyone else nor hide that it does not.
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
			w.forwards(r) >= w.quorum() {
			oldest, arrived = r, at
		}
		return true
	})
	return oldest
}

// expired reports whether the view has brought nothing for too long.
func (w *waiting) expired(tick int) bool {
	return w.on && w.timer.over(tick) || w.costly != nil && tick >= w.costlyAt
}

func (w *waiting) forwardFrom(i message.ReplicaID, k message.RequestKey, f forward) bool {
	m := w.forwarded[i]
	old, known := m[k]
	if known && old.t >= f.t || !known && len(m) >= w.cfg.Clients*w.cfg.Slots {
		return false
	}
	m[k] = f
	if r := w.queue.pendingRequest(k); r != nil {
		w.trust(r)
	}
	return true
}

// trust lets a pending request that a quorum holds be proposed, even if it is in doubt. The word of
// f+1 replaces the client's MAC.
func (w *waiting) trust(r *message.Request) {
	n := w.forwards(r)
	if n >= w.weak() {
		w.queue.vouch(r)
	}
	if n >= w.quorum() {
		w.queue.trust(r)
	}
}

// wasDone reports whether this very request was the last that its slot executed here. It looks the
// request up in the log, so that digests are computed only for requests that are asked about. When
// its checkpoint is stable the log has forgotten it. Nobody needs the answer then: a quorum has
// that checkpoint, and a replica that still waits for the request should fetch the state, not leave
// the view.
func (w *waiting) wasDone(k message.RequestKey, f forward) bool {
	p := w.queue.lastDone(k)
	switch {
	case p.t != f.t:
		return false
	case p.n == 0:
		return p.digest == f.digest
	case !w.log.contains(p.n):
		return false
	}
	b := w.log.slot(p.n).batch
	return b != nil && p.i < len(b.Requests) && b.Requests[p.i].Digest() == f.digest
}

// keepUnproven keeps a request that is not authentic here and that another replica passed on, in case f+1 vouch for
// it.
func (w *waiting) keepUnproven(r *message.Request) {
	w.refuse(r, NotAuthentic)
	from := r.PassedBy
	if int(from) >= len(w.unproven) || from == w.cfg.Self {
		return
	}
	u := append(w.unproven[from], r)
	if len(u) > maxUnproven {
		u = u[1:]
	}
	w.unproven[from] = u
	w.prove()
}

// prove queues the requests that enough FORWARDs have made authentic.
func (w *waiting) prove() {
	for i, u := range w.unproven {
		kept := u[:0]
		for _, r := range u {
			if w.forwards(r) < w.weak() {
				kept = append(kept, r)
				continue
			}
			r.Authentic = true
			w.cost(r)
			w.queue.add(r, w.tick)
		}
		clear(u[len(kept):])
		w.unproven[i] = kept
	}
}

// forgetReports forgets these replicas' FORWARDs for requests that fewer than f+1 vouch for, ours too
// if it is one of them, because it relies on a client's old key. It also forgets in which views they
// said that they are.
func (w *waiting) forgetReports(these replicas) {
	whole := make([]map[message.RequestKey]forward, len(w.forwarded))
	for i, m := range w.forwarded {
		whole[i] = m
		if these.has(message.ReplicaID(i)) {
			whole[i] = maps.Clone(m)
			maps.DeleteFunc(whole[i], func(k message.RequestKey, f forward) bool { return w.vouches(k, f) < w.weak() })
			w.working[i], w.pending[i] = 0, 0
		}
	}
	w.forwarded = whole
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

// patience is the view-change timer's present period, in ticks.
func (w *waiting) patience() int { return w.timer.ticks }
