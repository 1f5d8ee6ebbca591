// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// queue holds authentic requests that wait to be executed: first in first out within a client, in
// turn between clients (R-OUR-13), one for each slot (R-REQ-2). The primary takes its proposals
// from it. A proposed request goes on waiting, because its view may end before it is executed
// (R-VT-1, R-VC-37).
//
// A request that is authentic here only would stall the batch it is in, and all later ones, until
// the view ends. So a request that waited in an earlier view, or comes from a client that stalled
// one, is in doubt: it is proposed only when a quorum has said that it holds it, which makes it
// authentic to everyone (R-HD-2, R-OUR-11).
//
// Costly requests wait by themselves, see cost.go; "first in first out" holds for them
// and for the others.
//
// Its memory is bounded: a line has at most one request for each slot and another that is
// laid by (see separate.go), the operations of all lines share one room, and there is a line
// only for clients that are enrolled.
type queue struct {
	slots    int
	room     waitingRoom
	lines    map[message.ClientID]*line
	recent   *line   // the last that was asked for, if it is in lines: requests of one client come together
	order    []*line // all lines, in the order of their making: to walk them alike everywhere
	turn     []*line // lines with requests to propose, the next to be served first
	total    int     // requests in all lines
	waiting  int     // of these, to be proposed: not proposed in this view, nor in doubt, nor expired
	came     bool    // some request came since the proposals that are held were tried last
	costly   costlyQueue
	busy     busy
	underway int     // pending requests that were proposed in this view: they will be executed soon
	proposed busy    // the clients that something was proposed for
	given    perTick // to all lines, by weight
}

func (q *queue) init(slots, room int) {
	q.slots, q.room.size = slots, room
	q.lines = map[message.ClientID]*line{}
	q.costly.allowance = costPerTick
}

// find is a client's line, nil if it has none.
func (q *queue) find(c message.ClientID) *line {
	if q.recent == nil || q.recent.client != c {
		q.recent = q.lines[c]
	}
	return q.recent
}

func (q *queue) line(c message.ClientID) *line {
	l := q.find(c)
	if l == nil {
		l = &line{
			pending: make([]*message.Request, q.slots), laidBy: make([]*message.Request, q.slots),
			proposed: make([]message.Timestamp, q.slots), arrived: make([]int, q.slots),
			forwardedAt: make([]int, q.slots), doubt: make([]bool, q.slots), done: make([]place, q.slots),
			expired: make([]bool, q.slots),
		}
		l.client = c
		q.order = append(q.order, l)
		q.lines[c], q.recent = l, l
	}
	return l
}

// add takes in a request. A newer one of the same slot replaces the older, at the tail.
func (q *queue) add(r *message.Request, tick int) Refusal {
	if int(r.Slot) >= q.slots {
		return TooManyRequests
	}
	l := q.line(r.Client)
	old := l.pending[r.Slot]
	if q.came = true; !l.replaces(old, r) {
		renew(old, r)
		return OlderRequest
	}
	// The state need not know this yet, because the effects of an event are performed at its end.
	if r.Timestamp <= l.done[r.Slot].t {
		return OlderRequest
	}
	freed, cost := 0, l.costly.cost // without the old one
	if old != nil {
		freed, cost = old.Length(), cost-max(extra(old), 0)
	}
	switch {
	case costly(r) && cost+extra(r) > lineCost && cost > 0:
		return TooManyRequests
	case !q.room.makeFor(l, r, freed, q.remove):
		return TooManyRequests
	}
	copied := old != nil && sameWish(old, r)
	if old != nil {
		q.remove(l, old)
	}
	if a := l.laidBy[r.Slot]; a != nil && a.Timestamp == r.Timestamp {
		q.room.dropLaidBy(l, r.Slot)
	}
	l.pending[r.Slot] = r
	if !copied {
		l.arrived[r.Slot], l.forwardedAt[r.Slot], l.doubt[r.Slot] = tick, 0, false
	}
	q.room.weigh(l, r.Length())
	l.costly.cost += max(extra(r), 0)
	l.count++
	q.total++
	q.underway += l.goes(r, 1)
	if l.doubt[r.Slot] = l.doubt[r.Slot] || !l.suspect.over(tick); l.proposable(r) {
		q.offer(l, r)
	}
	return accepted
}

func (q *queue) remove(l *line, r *message.Request) {
	if l.proposable(r) {
		q.waiting--
	}
	q.underway += l.goes(r, -1)
	l.pending[r.Slot], l.expired[r.Slot] = nil, false
	q.room.weigh(l, -r.Length())
	l.costly.cost -= max(extra(r), 0)
	l.count--
	q.total--
}

// offer puts a pending request up for being proposed.
func (q *queue) offer(l *line, r *message.Request) {
	q.waiting++
	if costly(r) {
		q.costly.push(l, r)
		return
	}
	l.fifo = l.append(l.fifo, r)
	if !l.inTurn {
		l.inTurn = true
		q.turn = append(q.turn, l)
	}
}

// trust ends the doubt about a pending request.
func (q *queue) trust(r *message.Request) {
	l := q.find(r.Client)
	if l == nil || l.pending[r.Slot] != r || !l.doubt[r.Slot] {
		return
	}
	if l.doubt[r.Slot] = false; l.proposable(r) {
		q.offer(l, r)
	}
}

// doubt puts a client's requests in doubt that wait to be proposed.
func (q *queue) doubt(c message.ClientID) {
	q.eachOf(c, func(r *message.Request) {
		l := q.find(c)
		if l.proposable(r) {
			q.waiting--
		}
		l.doubt[r.Slot] = true
	})
}

// suspicion is how long, in ticks, a client that stalled a view is suspected of doing so again. It
// doubles each time, up to most of an hour, and halves when the client has behaved for as long. So
// even many clients that take turns can stall fewer and fewer views.
const (
	suspicion       = 2000
	suspicionDouble = 7
)

func (q *queue) suspect(c message.ClientID, tick int) {
	l := q.lines[c]
	if l == nil || l.suspect.until > 0 && l.suspect.until == tick+l.suspect.ticks {
		return // it stalled with several requests
	}
	l.suspect.halve(tick)
	l.suspect.begin(tick, suspicion, suspicion<<suspicionDouble)
}

// propose notes that a request of the slot with timestamp t is proposed: pending ones up to t need
// no proposal any more.
func (q *queue) propose(l *line, s message.Slot, t message.Timestamp) {
	p := l.pending[s]
	if p != nil && l.proposable(p) && p.Timestamp <= t {
		q.waiting--
	}
	if t <= l.proposed[s] {
		return
	}
	if p != nil {
		q.underway += l.goes(p, -1)
	}
	if l.proposed[s] = t; p != nil {
		q.underway += l.goes(p, 1)
	}
}

// markProposed notes the requests of batches that a NEW-VIEW chose, so that they are not proposed a
// second time.
func (q *queue) markProposed(r *message.Request) {
	if l := q.find(r.Client); l != nil && int(r.Slot) < q.slots {
		q.propose(l, r.Slot, r.Timestamp)
	}
}

// newView forgets what was proposed in the view that is over: requests that were not executed must
// be proposable again (R-VC-37), once they are no longer in doubt.
func (q *queue) newView() {
	clear(q.turn)
	clear(q.costly.turn)
	q.turn, q.costly.turn, q.waiting = q.turn[:0], q.costly.turn[:0], 0
	q.underway = 0
	for _, l := range q.order {
		l.underway = 0
		clear(l.proposed)
		clear(l.fifo)
		clear(l.costly.fifo)
		l.fifo, l.inTurn = l.fifo[:0], false
		l.costly.fifo, l.costly.inTurn = l.costly.fifo[:0], false
		for s, r := range l.pending {
			l.doubt[s] = r != nil
		}
	}
}

// executed notes that a request was executed as the i-th of batch n.
func (q *queue) executed(r *message.Request, n message.SeqNum, i int) {
	if p := q.complete(r); p != nil {
		*p = place{t: r.Timestamp, n: n, i: i}
	}
	if int(r.Slot) < q.slots {
		q.line(r.Client).had += weight(r.Cost, r.Length())
	}
}

// complete removes a slot's waiting requests up to that of r: they were executed, whichever copy of
// them was (R-REQ-5). It returns where to note the place of r; nil if a later one is noted.
func (q *queue) complete(r *message.Request) (note *place) {
	if int(r.Slot) >= q.slots {
		return nil
	}
	l := q.line(r.Client)
	if note = &l.done[r.Slot]; note.t > r.Timestamp {
		note = nil
	}
	if p := l.pending[r.Slot]; p != nil && p.Timestamp <= r.Timestamp {
		q.remove(l, p)
	}
	if a := l.laidBy[r.Slot]; a != nil && a.Timestamp <= r.Timestamp {
		q.room.dropLaidBy(l, r.Slot)
	}
	return note
}

// lastDone is the last request that the slot executed here.
func (q *queue) lastDone(k message.RequestKey) place {
	if l := q.find(k.Client); l != nil && int(k.Slot) < q.slots {
		return l.done[k.Slot]
	}
	return place{}
}

// drop drops the requests that were executed in batches that we never saw, and calls f
// for those that waited.
func (q *queue) drop(executed func(*message.Request) bool, f func(*message.Request)) {
	complete := func(r *message.Request) {
		if p := q.complete(r); p != nil {
			*p = place{t: r.Timestamp, digest: r.Digest()}
		}
	}
	q.each(func(_ *line, r *message.Request) bool {
		if executed(r) {
			complete(r)
			f(r)
		}
		return true
	})
	for _, l := range q.order {
		for _, r := range l.laidBy {
			if r != nil && executed(r) {
				complete(r)
			}
		}
		for i, p := range l.done { // an intruder may have had batches executed that the group's state lacks
			slot := message.Slot(i)
			if p.t > 0 && !executed(&message.Request{Client: l.client, Slot: slot, Timestamp: p.t}) {
				l.done[i] = place{}
			}
		}
	}
}

// holds reports whether the very request with this digest is here, authentic.
func (q *queue) holds(r *message.Request) bool {
	l := q.find(r.Client)
	if l == nil || int(r.Slot) >= q.slots {
		return false
	}
	p := l.pending[r.Slot]
	return p != nil && !l.expired[r.Slot] && sameWish(p, r)
}

// pendingRequest is a slot's waiting request.
func (q *queue) pendingRequest(k message.RequestKey) *message.Request {
	if l := q.find(k.Client); l != nil && int(k.Slot) < q.slots {
		return l.pending[k.Slot]
	}
	return nil
}

// each calls f for every pending request until it returns false.
func (q *queue) each(f func(l *line, r *message.Request) bool) {
	if q.total == 0 {
		return
	}
	for _, l := range q.order {
		if l.count == 0 {
			continue
		}
		for _, r := range l.pending {
			if r != nil && !f(l, r) {
				return
			}
		}
	}
}

// eachOf calls f for every pending request of a client.
func (q *queue) eachOf(c message.ClientID, f func(r *message.Request)) {
	l := q.find(c)
	if l == nil {
		return
	}
	for _, r := range l.pending {
		if r != nil {
			f(r)
		}
	}
}

// expire marks the pending requests that nothing but a client's old MAC authenticates. They are not
// proposed, and we vouch for none of them, until the client has sent them again. But they go on
// waiting, and their timer runs on (R-OUR-10). Requests that f+1 vouch for stay as they are, and so
// do the administrator's, which are signed.
func (q *queue) expire(vouched func(*message.Request) bool) {
	q.each(func(l *line, r *message.Request) bool {
		if r.Client != message.Administrator && !vouched(r) {
			if l.proposable(r) {
				q.waiting--
			}
			l.expired[r.Slot] = true
		}
		return true
	})
}

// vouch makes a pending request whose client's MAC has expired count again: f+1 replicas say that
// they hold it.
func (q *queue) vouch(r *message.Request) {
	l := q.find(r.Client)
	if l == nil || l.pending[r.Slot] != r || !l.expired[r.Slot] {
		return
	}
	if l.expired[r.Slot] = false; l.proposable(r) {
		q.offer(l, r)
	}
}

// retain drops the lines of clients that are not enrolled any more.
func (q *queue) retain(enrolled func(message.ClientID) bool) {
	gone := func(l *line) bool { return q.lines[l.client] != l }
	for _, l := range q.order {
		if enrolled(l.client) {
			continue
		}
		for _, r := range l.pending {
			if r != nil {
				q.remove(l, r)
			}
		}
		q.room.weigh(l, -l.bytes) // what is laid by
		delete(q.lines, l.client)
		q.recent = nil
	}
	q.order, q.turn = slices.DeleteFunc(q.order, gone), slices.DeleteFunc(q.turn, gone)
	q.costly.turn = slices.DeleteFunc(q.costly.turn, gone)
}

// serves notes that a client is being served.
func (q *queue) serves(c message.ClientID, tick int) { q.busy.note(c, tick) }

// reads notes that a client is being served if its unordered read is a short one.
func (q *queue) reads(r *message.Request, tick int) {
	if r.Cost <= busyRead {
		q.busy.note(r.Client, tick)
	}
}

// contended is explained at Answers.Contended.
func (q *queue) contended(c message.ClientID, tick int) float64 {
	if !q.busy.others(c, tick) {
		return 0
	}
	return 1 / float64(max(1, tick-q.busy.othersAt(c)))
}

// overTicks is how long a client counts as over its share after some of its requests were
// held back.
const overTicks = 100

// overShare calls f for each client that had more to be proposed lately than its share let through.
func (q *queue) overShare(tick int, f func(client message.ClientID)) {
	for _, l := range q.order {
		if at := l.sharing.overAt; at > 0 && tick-at < overTicks {
			f(l.client)
		}
	}
}

// sizes counts the lines, the longest of them, and the most bytes of one.
func (q *queue) sizes() (lines, longest, bytes int) {
	for _, l := range q.order {
		longest, bytes = max(longest, len(l.fifo), len(l.costly.fifo)), max(bytes, l.bytes)
	}
	return len(q.order), longest, bytes
}
