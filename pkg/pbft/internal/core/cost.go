package core

import "bfs/pkg/pbft/internal/message"

// Some operations are a hundred bytes to send and milliseconds to run: an ordered READ of a mebibyte, a
// listing, a long path. Every request has a cost that its bytes alone decide, in bytes copied, which is the
// same at all replicas. A request whose cost is above its length and what any operation costs is costly. It
// waits by itself, so that nothing else waits for it, and while somebody else is served all costly requests
// together have costPerTick: their clients are served in turn, each for a share by cost.
//
// Neither what a tick allows nor who is busy decides a result, and replicas need not agree on it.

const (
	// commonCost is what running any operation may cost beside its length: decoding it, a look-up, a page of
	// result and the attributes around it.
	commonCost = 4<<10 + 512
	// costPerTick is what costly requests have of a tick (10 ms) while other clients are served: about a tenth
	// of it, at 1.6 GB/s.
	costPerTick = 512 << 10
	// costTurn is a client's turn among those that wait for costly requests.
	costTurn = 256 << 10
	// lineCost bounds the costly requests of one client that wait, in sum.
	lineCost = 64 << 20
	// busyTicks is how long a client counts as one that is served, after something was executed for it.
	busyTicks = 10
	// busyRead is the cost up to which a read that is not ordered makes its client count as such. Long reads
	// only compete with their like.
	busyRead = 16 << 10
	// costlyTicks is how much longer than for others a replica waits for a costly request before it leaves the
	// view: four clients that each have lineCost before it are no fault of the primary.
	costlyTicks = 4 * lineCost / costPerTick
)

// cost is what a request costs, computed once.
func (c *Core) cost(r *message.Request) int {
	switch {
	case r.Cost > 0 || r.IsStub():
	case c.cfg.Cost == nil:
		r.Cost = max(r.Length(), 1)
	default:
		r.Cost = max(c.cfg.Cost(r), 1)
	}
	return r.Cost
}

// extra is what a request costs above its length and what any costs; not positive if it is not costly.
func extra(r *message.Request) int { return r.Cost - r.Length() - commonCost }

func costly(r *message.Request) bool { return extra(r) > 0 }

// tooCostly reports whether a batch costs more than the group allows. A single request may, or it could never
// run. All operations must be here.
func (c *Core) tooCostly(b *message.Batch) bool {
	if c.cfg.BatchCost == 0 || len(b.Requests) < 2 {
		return false
	}
	sum := 0
	for _, r := range b.Requests {
		sum += min(c.cost(r), c.cfg.BatchCost+1)
	}
	return sum > c.cfg.BatchCost
}

// noteRead counts the client of a read that is not ordered among those that are served, if the read is short.
func (c *Core) noteRead(r *message.Request) {
	if c.cost(r) <= busyRead {
		c.queue.busy.note(r.Client, c.tick)
	}
}

// room is what a batch has room for.
func (c *Core) room() room { return room{c.cfg.BatchCount, c.cfg.BatchBytes, c.cfg.BatchCost} }

// room is for so many requests, of so many bytes together unless it is one, and of so much cost unless it is
// one; no bound on the cost if that is 0.
type room struct{ requests, bytes, cost int }

// Cost is what a request costs at most, in bytes copied.
func (c *Core) Cost(r *message.Request) int { return c.cost(r) }

// Contended reports whether a client other than this one was served a moment ago. What this one does beyond the
// common is at others' expense then.
func (c *Core) Contended(client message.ClientID) bool { return c.queue.busy.others(client, c.tick) }

// busy remembers the last two clients that were served.
type busy struct {
	last, other     message.ClientID
	lastAt, otherAt int // ticks; 0: never
}

func (b *busy) note(client message.ClientID, tick int) {
	if client != b.last {
		b.other, b.otherAt, b.last = b.last, b.lastAt, client
	}
	b.lastAt = tick
}

// others reports whether another client was served in the last busyTicks.
func (b *busy) others(client message.ClientID, tick int) bool {
	at := b.lastAt
	if b.last == client {
		at = b.otherAt
	}
	return at > 0 && tick-at < busyTicks
}

// A costlyQueue serves the clients that wait for costly requests, in turn.
type costlyQueue struct {
	turn      []*line // the next to be served first
	allowance int     // cost that is left of what ticks allow; below 0 when the last was larger
}

// earn is a tick.
func (q *costlyQueue) earn() { q.allowance = min(q.allowance+costPerTick, costPerTick) }

// spend takes from the allowance. What is spent while nobody else is served is nobody's loss, and need not be
// made up for.
func (q *costlyQueue) spend(cost int, contended bool) {
	if q.allowance -= cost; !contended {
		q.allowance = max(q.allowance, 0)
	}
}

// costlyLine is what a line has of costly requests.
type costlyLine struct {
	fifo   []*message.Request // to be proposed, in order of arrival; an entry that is to be no more is skipped
	inTurn bool
	cost   int // of those that are pending
	spent  int // above its turns so far: a request may cost several
}

// push adds a request at the tail of a line.
func (q *costlyQueue) push(l *line, r *message.Request) {
	l.costly.fifo = l.append(l.costly.fifo, r)
	if !l.costly.inTurn {
		l.costly.inTurn = true
		q.turn = append(q.turn, l)
	}
}

// next is the line whose turn it is, and its request; nil if none waits.
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

// due is the costly request that may be proposed now, with its line; nil if there is none.
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
	for _, l := range q.turn {
		if l.head() != nil {
			return true
		}
	}
	_, r := q.due(tick)
	return r != nil
}

// costly adds the costly requests that are due. They come first: a batch that is full of common ones every time
// would leave them no room, and they leave the rest of it to others.
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
