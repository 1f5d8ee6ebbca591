// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// take removes the requests of a batch, and marks them proposed. A client's requests
// stand together in the batch: each replica looks the client up once, and answers all in
// one REPLY.
//
// So a batch has many requests of few clients. Clients are served in turn, each for an
// eighth of a batch. A client that waits for a few requests does not wait for all these
// turns: when half a batch has been given in turn, such clients are next.
func (q *queue) take(all room, tick int) []*message.Request {
	t := taking{queue: q, tick: tick, room: all, little: max(all.requests/128, 1)}
	t.stretch, t.stretchBytes = max(all.requests/8, 1), all.bytes/8
	t.costly()
	t.inTurn((all.requests+1)/2, all.bytes/2)
	t.few(all.requests, all.bytes)
	t.inTurn(all.requests, all.bytes)
	if t.n == 0 { // all that wait are in debt
		t.forgives = true
		t.inTurn(all.requests, all.bytes)
	}
	return t.batch()
}

// room is what a batch may still take: requests, and their bytes and cost together. A single
// request may exceed both. A cost of 0 is no bound.
type room struct{ requests, bytes, cost int }

// A taking makes a batch.
type taking struct {
	*queue
	tick                  int
	room                  room
	stretch, stretchBytes int     // requests of one turn
	little                int     // requests: a client that waits for no more does not wait for its turn
	served                []*line // lines that the batch has requests of
	n, bytes, cost        int
	forgives              bool // no debt counts
	weight                int
}

// inTurn serves clients in turn until the batch has count requests, or size bytes.
func (t *taking) inTurn(count, size int) {
	for over := 0; over < len(t.turn); {
		l := t.turn[0]
		if l.head() == nil {
			l.inTurn, l.served, l.servedBytes = false, 0, 0
			t.turn = pop(t.turn)
			continue
		}
		if t.over(l) {
			over, l.served, l.servedBytes = over+1, 0, 0
			t.turn = append(pop(t.turn), l)
			continue
		}
		if over = 0; !t.one(l, count, size) {
			return
		}
		if len(t.turn) > 1 && (l.served >= t.stretch || l.servedBytes >= t.stretchBytes) {
			l.served, l.servedBytes = 0, 0
			t.turn = append(pop(t.turn), l)
		}
	}
	for _, l := range t.turn { // they have their shares, and wait for more
		l.sharing.overAt = t.tick
	}
}

// few serves the clients that wait for a few requests only, out of turn.
func (t *taking) few(count, size int) {
	for _, l := range t.turn {
		for more := !t.owes(l, t.tick); more && len(l.fifo) <= t.little; {
			more = t.one(l, count, size)
		}
	}
}

// one adds a client's next request to the batch, if it has one and there is room.
func (t *taking) one(l *line, count, size int) bool {
	r := l.head()
	if r == nil || t.n >= count || t.n > 0 && t.bytes+r.Length() > size || !t.add(l, &l.fifo, r) {
		return false
	}
	l.served, l.servedBytes = l.served+1, l.servedBytes+r.Length()
	return true
}

// add moves a request from the head of a line's queue to the batch, if that has room.
func (t *taking) add(l *line, fifo *[]*message.Request, r *message.Request) bool {
	over := t.n >= t.room.requests || t.bytes+r.Length() > t.room.bytes ||
		t.room.cost > 0 && t.cost+r.Cost > t.room.cost
	if t.n > 0 && over {
		return false
	}
	t.n, t.bytes, t.cost = t.n+1, t.bytes+r.Length(), t.cost+r.Cost
	if len(l.taken) == 0 {
		t.served = append(t.served, l)
	}
	l.taken = append(l.taken, r)
	w := weight(r.Cost, r.Length())
	l.sharing.weight, t.weight = l.sharing.weight+w, t.weight+w
	if w > leastShare && !costly(r) { // what is costly has an allowance of its own
		l.sharing.long += w
	}
	(*fifo)[0] = nil // its bytes are the log's now
	*fifo = (*fifo)[1:]
	t.propose(l, r.Slot, r.Timestamp)
	return true
}

func (t *taking) batch() []*message.Request {
	t.shared()
	batch := make([]*message.Request, 0, t.n)
	for _, l := range t.served {
		batch = append(batch, l.taken...)
		clear(l.taken)
		l.taken = l.taken[:0]
	}
	return batch
}

// due returns the costly request that may be proposed now, with its line; nil if there is none.
func (q *queue) due(tick int) (*line, *message.Request) {
	l, r := q.costly.next()
	if r != nil && q.costly.allowance <= 0 && q.busy.others(l.client, tick) {
		return nil, nil
	}
	return l, r
}

// ready reports whether something may be proposed.
func (q *queue) ready(tick int) bool {
	if q.waiting == 0 {
		return false
	}
	var alone *line
	for _, l := range q.turn {
		switch {
		case l.head() == nil:
		case alone != nil:
			return true
		default:
			alone = l
		}
	}
	if _, r := q.due(tick); r != nil {
		return true
	}
	return alone != nil && !q.rides(alone, tick)
}

// costly adds the costly requests that are due. They come first: a batch that is full of
// common ones every time would leave them no room, and they leave the rest of it to
// others.
func (t *taking) costly() {
	for {
		l, r := t.due(t.tick)
		if r == nil || !t.add(l, &l.costly.fifo, r) {
			return
		}
		l.costly.spent += extra(r)
		t.queue.costly.spend(extra(r), t.busy.others(l.client, t.tick))
	}
}

// next returns the line whose turn it is, and its request; nil if none waits.
func (q *costlyQueue) next() (*line, *message.Request) {
	for len(q.turn) > 0 {
		l := q.turn[0]
		r := l.first(&l.costly.fifo)
		switch {
		case r == nil:
			l.costly.inTurn, l.costly.spent = false, 0
			q.turn = pop(q.turn)
		case len(q.turn) > 1 && l.costly.spent >= costTurn:
			l.costly.spent -= costTurn
			q.turn = append(pop(q.turn), l)
		default:
			return l, r
		}
	}
	return nil, nil
}

// spend takes from the allowance. Cost that is spent while no other client is served harms nobody,
// and is not charged.
func (q *costlyQueue) spend(cost int, contended bool) {
	if q.allowance -= cost; !contended {
		q.allowance = max(q.allowance, 0)
	}
}

// A client with hundreds of requests outstanding would have hundreds of the requests of
// each batch, and one with eight, eight: the second gets its answers when the first has
// got all of its own. So a batch has of one client no more than of all others together,
// by weight, or leastShare if that is more; what is beyond waits for the next batch.
// Clients that wait for much alike have much of a batch alike, as they take turns, and a
// client that is alone has all of it.
//
// With that alone the primary would make batches for the client that waits for much in
// between the others' batches, and a batch costs more than what is in it. So a client
// that was served leastShare more than all others together in a tick (10 ms) has no batch
// to itself while something of theirs is under way: its requests ride in the batches of
// others. A batch that it has to itself while others are served is the smaller the more
// they want (see demand), leastShare to loneShare.
//
// A batch takes a single request of any length, for otherwise it would never be ordered. What a
// client has had so beyond what others had in the same batch, it owes: until others have had three
// times as much, or ticks have passed, batches have nothing of it. When others want little it has
// credit.
//
// The rule decides no result, and replicas need not agree on it.

const (
	// leastShare is the weight that a client may have of a batch, whatever the others have.
	leastShare = 40 << 10
	// loneShare is the weight of a batch in which others have nothing, while they are served but
	// want little.
	loneShare = 256 << 10
	// idleShare is the credit of a client beside others who want nothing, and forgiven in a tick.
	idleShare = 1 << 20
	// shareTicks is how long a client that something was proposed for counts as one that is served.
	shareTicks = 2
)

// contends reports whether somebody else was served lately.
func (q *queue) contends(l *line, tick int) bool {
	return q.proposed.othersWithin(l.client, tick, shareTicks)
}

// over reports whether a client has its share of the batch that is being made. What the
// others wait for is reckoned as common requests.
func (t *taking) over(l *line) bool {
	x := &l.sharing
	if !t.forgives && t.owes(l, t.tick) {
		return true
	}
	if x.weight < leastShare {
		return false
	}
	waiting := max(0, t.waiting-len(l.fifo)) * commonCost
	others := t.weight - x.weight + waiting
	alone := others == 0 && (x.weight < leastShare+x.others.spare(loneShare-leastShare) || !t.contends(l, t.tick))
	return !alone && x.weight >= others
}

// rides reports whether a client, which alone waits, is to wait for a batch of others.
func (q *queue) rides(l *line, tick int) bool {
	own := l.sharing.served.in(tick)
	if !q.owes(l, tick) && (q.underway == l.underway || 2*own-q.given.in(tick) < leastShare || !q.contends(l, tick)) {
		return false
	}
	l.sharing.overAt = tick
	return true
}

// owes reports whether a client has had more than its share, while others are served.
func (q *queue) owes(l *line, tick int) bool {
	x := &l.sharing
	if x.debt == 0 {
		return false
	}
	if !q.contends(l, tick) {
		x.debt = 0
	}
	return x.debt > x.credit()
}

// credit is the debt that a client may have: none if others always want something. It is by the
// cube of the time that they leave, for a long request makes each of theirs wait.
func (x *sharing) credit() int { return x.others.spare(x.others.spare(x.others.spare(idleShare))) }

// tick takes in whether others want something, and gives back some of the debt.
func (x *sharing) tick(wanted bool) {
	x.others.sample(wanted)
	if x.debt > 0 {
		x.debt = max(0, x.debt-leastShare-x.credit())
	}
}

// shared notes of whom a batch was made.
func (t *taking) shared() {
	for _, l := range t.turn { // others have had this much
		l.sharing.debt = max(0, l.sharing.debt-(t.weight-l.sharing.weight)/3)
	}
	for _, l := range t.served {
		x := &l.sharing
		if t.contends(l, t.tick) || len(t.served) > 1 {
			t.owes(l, t.tick)
			x.debt += max(0, x.long-(t.weight-x.weight))
		}
	}
	for _, l := range t.served {
		t.proposed.note(l.client, t.tick)
		l.sharing.served.add(t.tick, l.sharing.weight)
		l.sharing.weight, l.sharing.long = 0, 0
	}
	t.given.add(t.tick, t.weight)
}
