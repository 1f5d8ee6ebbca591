// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// A line is one client's requests.
type line struct {
	client      message.ClientID
	fifo        []*message.Request // common requests to be proposed, by arrival; stale entries are skipped
	costly      costlyLine
	arrived     []int               // by slot: tick at which the pending request came
	doubt       []bool              // by slot: the pending request is in doubt
	expired     []bool              // by slot: the pending one has a MAC under a key of before, see Refreshed
	suspect     pause               // while it lasts all that comes is in doubt
	done        []place             // by slot: the last one executed here
	forwardedAt []int               // by slot: tick of our last FORWARD for it, 0 if there was none
	pending     []*message.Request  // by slot: received and not executed
	laidBy      []*message.Request  // by slot: what the client sent to everyone last, and may be named by a proposal
	lastNonce   uint64              // the nonce of the last of these
	inFull      pause               // while it lasts proposals hold them in full
	proposed    []message.Timestamp // by slot: the last one proposed in this view
	bytes       int
	count       int
	underway    int // of these
	inTurn      bool
	taken       []*message.Request // while a batch is made: its requests from this line
	// Requests and bytes that it was served in its present turn.
	served, servedBytes int
	sharing             sharing
	had                 int // by weight, of what was executed; of late
	pacing              pacing
}

// A place says which request a slot executed last: the i-th of batch n, or one that only a fetched
// state knows of, by its digest.
type place struct {
	t      message.Timestamp
	n      message.SeqNum
	i      int
	digest message.Digest // if n is 0
}

// costlyLine holds a line's costly requests.
type costlyLine struct {
	fifo   []*message.Request // to be proposed, in order of arrival; stale entries are skipped
	inTurn bool
	cost   int // of those that are pending
	spent  int // above its turns so far: a request may cost several
}

// sharing is what a line has had of its client's share.
type sharing struct {
	weight int     // of the batch that is being made
	long   int     // of this, of requests that are longer than leastShare and not costly
	served perTick // by weight
	others demand  // what they want
	overAt int     // tick at which it last had its share, and waited for more; 0: never
	debt   int     // weight that it has had beyond its share
}

// perTick is a sum over the present tick.
type perTick struct{ tick, sum int }

func (p *perTick) add(tick, n int) { p.tick, p.sum = tick, p.in(tick)+n }

func (p *perTick) in(tick int) int {
	if p.tick != tick {
		return 0
	}
	return p.sum
}

// proposable: r is pending, not in doubt and not expired, and was not proposed in this
// view, nor was a later one of its slot.
func (l *line) proposable(r *message.Request) bool {
	return l.pending[r.Slot] == r && !l.doubt[r.Slot] && !l.expired[r.Slot] && r.Timestamp > l.proposed[r.Slot]
}

// goes counts a pending request n times among those under way, and returns n, if it is one of them.
func (l *line) goes(r *message.Request, n int) int {
	if r.Timestamp > l.proposed[r.Slot] {
		return 0
	}
	l.underway += n
	return n
}

// undo notes that a request which was executed in batch n had no effect and may come again: it is
// not done, unless a later batch had it again, and that it was proposed in this view does not
// count. No copy of it waits.
func (l *line) undo(r *message.Request, n message.SeqNum) {
	if int(r.Slot) >= len(l.done) {
		return
	}
	done := &l.done[r.Slot]
	switch {
	case done.t > r.Timestamp || done.t == r.Timestamp && done.n > n:
		return
	case done.t == r.Timestamp:
		*done = place{}
	}
	if last := &l.proposed[r.Slot]; *last == r.Timestamp {
		*last = 0
	}
}

// append adds to one of the line's queues. It drops the entries that are no longer to be proposed
// when they are most of it.
func (l *line) append(fifo []*message.Request, r *message.Request) []*message.Request {
	if len(fifo) >= 2*l.count+16 {
		kept := fifo[:0]
		for _, x := range fifo {
			if l.proposable(x) {
				kept = append(kept, x)
			}
		}
		clear(fifo[len(kept):])
		fifo = kept
	}
	return append(fifo, r)
}

// head is the oldest request that is not costly and to be proposed.
func (l *line) head() *message.Request { return l.first(&l.fifo) }

// first returns the oldest request of a queue that is to be proposed, and forgets stale entries
// before it.
func (l *line) first(fifo *[]*message.Request) *message.Request {
	for len(*fifo) > 0 {
		if r := (*fifo)[0]; l.proposable(r) {
			return r
		}
		(*fifo)[0] = nil
		*fifo = (*fifo)[1:]
	}
	return nil
}

// replaces reports whether a request takes the place of the one that its slot has
// waiting: it is a later one, or that has expired and may never have been the client's
// wish.
func (l *line) replaces(old, r *message.Request) bool {
	return old == nil || r.Timestamp > old.Timestamp || l.expired[r.Slot]
}

// sameWish reports whether two requests of one slot are copies of one.
func sameWish(a, b *message.Request) bool {
	return a.Timestamp == b.Timestamp && a.Digest() == b.Digest()
}

// renew gives a pending request the authenticator of a later copy, which its client has
// made for the replicas whose keys have changed since: it is proposed with that one
// (R-OUR-10).
func renew(old, r *message.Request) {
	if r.Auth.Nonce > old.Auth.Nonce && sameWish(old, r) {
		old.Auth, old.Replier, old.Provers, old.Apart = r.Auth, r.Replier, r.Provers, r.Apart
	}
}

// A costlyQueue serves the clients that wait for costly requests, in turn.
type costlyQueue struct {
	turn      []*line // the next to be served first
	allowance int     // cost that is left of what ticks allow; below 0 when the last was larger
}

// earn is a tick.
func (q *costlyQueue) earn() { q.allowance = min(q.allowance+costPerTick, costPerTick) }

// push adds a request at the tail of a line.
func (q *costlyQueue) push(l *line, r *message.Request) {
	l.costly.fifo = l.append(l.costly.fifo, r)
	if !l.costly.inTurn {
		l.costly.inTurn = true
		q.turn = append(q.turn, l)
	}
}

// pop removes the first line of a turn.
func pop(turn []*line) []*line {
	copy(turn, turn[1:])
	turn[len(turn)-1] = nil
	return turn[:len(turn)-1]
}
