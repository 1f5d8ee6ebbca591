// SPDX-License-Identifier: Apache-2.0

package core

import (
	"maps"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// forwards are what this replica and the others say they hold and the primary has not
// proposed (R-OUR-11), and what follows for the requests in the queue. f+1 such words
// make a request authentic, because a correct replica has seen a good MAC; those of a
// quorum let it be proposed even if it is in doubt.
type forwards struct {
	*base
	log   *messageLog
	queue *queue

	// of[i] is what replica i says: one request for each slot of each client at most, as
	// many as a correct replica can hold.
	of []map[message.RequestKey]word
	// unproven[i] are requests that replica i passed on and that are not authentic here,
	// the latest few.
	unproven [][]*message.Request
}

type forward struct {
	t      message.Timestamp
	digest message.Digest
}

// names reports whether a FORWARD is for this very request.
func (f forward) names(r *message.Request) bool { return f.t == r.Timestamp && f.digest == r.Digest() }

// A word is a forward, and the tick at which it was last said.
type word struct {
	forward
	at int
}

// MaxUnproven bounds the requests kept of one replica that are not authentic here.
const MaxUnproven = 8

const (
	tellTicks  = 10  // ticks before a FORWARD is repeated
	tellCostly = 200 // the same, for a costly request: it may well wait for its turn
)

// tellInterval is the number of ticks before a FORWARD for a request is repeated.
func tellInterval(r *message.Request) int {
	if costly(r) {
		return tellCostly
	}
	return tellTicks
}

func (x *forwards) init(b *base, l *messageLog, q *queue) {
	n := b.cfg.Replicas
	*x = forwards{b, l, q, make([]map[message.RequestKey]word, n), make([][]*message.Request, n)}
	for i := range x.of {
		x.of[i] = map[message.RequestKey]word{}
	}
}

func (x *forwards) note(i message.ReplicaID, k message.RequestKey, f forward) bool {
	m := x.of[i]
	old, known := m[k]
	if known && old.forward == f {
		m[k] = word{f, x.tick}
	}
	if known && old.t >= f.t || !known && len(m) >= x.cfg.Clients*x.cfg.Slots {
		return false
	}
	m[k] = word{f, x.tick}
	if r := x.queue.pendingRequest(k); r != nil {
		x.trust(r)
	}
	return true
}

// vouches counts the replicas that say so of a slot's request.
func (x *forwards) vouches(k message.RequestKey, f forward) (n int) {
	for _, m := range x.of {
		if said, ok := m[k]; ok && said.forward == f {
			n++
		}
	}
	return n
}

// count counts the replicas that say they hold this very request.
func (x *forwards) count(r *message.Request) (n int) {
	for _, m := range x.of {
		if len(m) == 0 { // a lookup would copy a zero value, and most replicas forward nothing
			continue
		}
		if f, ok := m[r.Key()]; ok && f.names(r) {
			n++
		}
	}
	return n
}

// isHeld reports whether a quorum says that it holds a long request, and with it the operation.
func (x *forwards) isHeld(r *message.Request) bool {
	return r.Length() > message.ShortOperation && x.count(r) >= x.quorum()
}

// holds reports whether replica i says that it holds this very request, and has said so of late: a
// replica that restarts forgets what it held, and one that had no room left has dropped it.
func (x *forwards) holds(i message.ReplicaID, r *message.Request) bool {
	f, ok := x.of[i][r.Key()]
	return ok && f.names(r) && x.tick-f.at <= 2*tellInterval(r)
}

// trust lets a pending request that a quorum holds be proposed, even if it is in doubt. The word of
// f+1 replaces the client's MAC.
func (x *forwards) trust(r *message.Request) {
	n := x.count(r)
	if n >= x.weak() {
		x.queue.vouch(r)
	}
	if n >= x.quorum() {
		x.queue.trust(r)
	}
}

// wasDone reports whether this very request was the last that its slot executed here. It looks the
// request up in the log, so that digests are computed only for requests that are asked about. When
// its checkpoint is stable the log has forgotten it. Nobody needs the answer then: a quorum has
// that checkpoint, and a replica that still waits for the request should fetch the state, not leave
// the view.
func (x *forwards) wasDone(k message.RequestKey, f forward) bool {
	p := x.queue.lastDone(k)
	switch {
	case p.t != f.t:
		return false
	case p.n == 0:
		return p.digest == f.digest
	case !x.log.contains(p.n):
		return false
	}
	b := x.log.slot(p.n).batch
	return b != nil && p.i < len(b.Requests) && b.Requests[p.i].Digest() == f.digest
}

// forget drops the FORWARDs for a request that was executed, and for earlier ones of its slot.
func (x *forwards) forget(r *message.Request) {
	for _, m := range x.of {
		if len(m) == 0 { // mostly
			continue
		}
		if f, ok := m[r.Key()]; ok && f.t <= r.Timestamp {
			delete(m, r.Key())
		}
	}
}

// keepUnproven keeps a request that is not authentic here and that another replica passed
// on, in case f+1 vouch for it.
func (x *forwards) keepUnproven(r *message.Request) {
	x.refuse(r, NotAuthentic)
	from := r.PassedBy
	if int(from) >= len(x.unproven) || from == x.cfg.Self {
		return
	}
	u := append(x.unproven[from], r)
	if len(u) > MaxUnproven {
		u = u[1:]
	}
	x.unproven[from] = u
	x.prove()
}

// prove queues the requests that enough FORWARDs have made authentic.
func (x *forwards) prove() {
	for i, u := range x.unproven {
		kept := u[:0]
		for _, r := range u {
			if x.count(r) < x.weak() {
				kept = append(kept, r)
				continue
			}
			r.Authentic = true
			x.cost(r)
			x.queue.add(r, x.tick)
		}
		clear(u[len(kept):])
		x.unproven[i] = kept
	}
}

// dropUnproven drops requests that are not authentic here: those that were executed in batches that
// we never saw, or whose client is no longer enrolled. FORWARDs that come now would make them wait.
func (x *forwards) dropUnproven(which func(*message.Request) bool) {
	for i := range x.unproven {
		x.unproven[i] = slices.DeleteFunc(x.unproven[i], which)
	}
}

// doubt puts a client's requests in doubt until a quorum says that it holds them: the client has
// restarted, or changed its keys, and they are authentic here by a key that the others may have
// forgotten. A costly request can wait for seconds, and would stall the batch that it comes in.
func (x *forwards) doubt(client message.ClientID) {
	x.queue.doubt(client)
	x.queue.eachOf(client, x.trust)
}

// retain forgets the clients that are no longer enrolled, and their waiting requests.
func (x *forwards) retain(has func(message.ClientID) bool) {
	enrolled := func(id message.ClientID) bool {
		_, recovers := id.Recoverer()
		return recovers || has(id)
	}
	x.queue.retain(enrolled)
	x.dropUnproven(func(r *message.Request) bool { return !enrolled(r.Client) })
	for _, m := range x.of {
		maps.DeleteFunc(m, func(k message.RequestKey, _ word) bool { return !enrolled(k.Client) })
	}
}

// expire marks the pending requests that only a client's MAC under our earlier keys vouches for.
func (x *forwards) expire() {
	x.queue.expire(func(r *message.Request) bool { return x.count(r) >= x.weak() })
}

// forgetWords forgets these replicas' FORWARDs for requests that fewer than f+1 vouch for, ours too
// if it is one of them, because it relies on a client's old key.
func (x *forwards) forgetWords(these replicas) {
	whole := make([]map[message.RequestKey]word, len(x.of))
	for i, m := range x.of {
		whole[i] = m
		if these.has(message.ReplicaID(i)) {
			whole[i] = maps.Clone(m)
			maps.DeleteFunc(whole[i], func(k message.RequestKey, said word) bool {
				return x.vouches(k, said.forward) < x.weak()
			})
		}
	}
	x.of = whole
}
