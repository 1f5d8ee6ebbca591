// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// A client with hundreds of requests outstanding would have hundreds of the requests of each batch, and one with eight, eight:
// the second gets its answers when the first has got all of its own. So a batch has of one client no more than of all others
// together, by weight, or leastShare if that is more; what is beyond waits for the next batch. Clients that wait for much
// alike have much of a batch alike, as they take turns (see take.go), and a client that is alone has all of it.
//
// With that alone the primary would make batches for the client that waits for much in between the others' batches, and a batch
// costs more than what is in it. So a client that was served leastShare more than all others together in a tick (10 ms) has no
// batch to itself in that tick: its requests ride in the batches of others. In the next tick it has one again, of loneShare,
// and so goes on when the others want little.
//
// The rule decides no result, and replicas need not agree on it.

const (
	// leastShare is the weight that a client may have of a batch, whatever the others have.
	leastShare = 64 << 10
	// loneShare is the weight of a batch in which others have nothing, while they are served.
	loneShare = 4 * leastShare
	// shareTicks is how long a client that something was proposed for counts as one that is served.
	shareTicks = 2
	// overTicks is how long a client counts as over its share after some of its requests were held back.
	overTicks = 100
)

// weight is a request's part of a batch: what it costs, as bytes copied, and what any operation costs.
func weight(cost, length int) int { return max(cost, length) + commonCost }

// sharing is what a line has had of its client's share.
type sharing struct {
	weight int     // of the batch that is being made
	served perTick // by weight
	overAt int     // tick at which it last had its share, and waited for more; 0: never
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

// contends reports whether somebody else was served lately.
func (q *queue) contends(l *line, tick int) bool {
	return q.proposed.othersWithin(l.client, tick, shareTicks)
}

// over reports whether a client has its share of the batch that is being made. What the others wait for is reckoned as common
// requests.
func (t *taking) over(l *line) bool {
	x := &l.sharing
	if x.weight < leastShare {
		return false
	}
	waiting := max(0, t.waiting-len(l.fifo)) * commonCost
	others := t.weight - x.weight + waiting
	alone := others == 0 && (x.weight < loneShare || !t.contends(l, t.tick))
	return !alone && x.weight >= others
}

// rides reports whether a client, which alone waits, is to wait for a batch of others.
func (q *queue) rides(l *line, tick int) bool {
	own := l.sharing.served.in(tick)
	if 2*own-q.given.in(tick) < leastShare || !q.contends(l, tick) {
		return false
	}
	l.sharing.overAt = tick
	return true
}

// shared notes of whom a batch was made.
func (t *taking) shared() {
	for _, l := range t.served {
		t.proposed.note(l.client, t.tick)
		l.sharing.served.add(t.tick, l.sharing.weight)
		l.sharing.weight = 0
	}
	t.given.add(t.tick, t.weight)
}

// overShare calls f for each client that had more to be proposed lately than its share let through.
func (q *queue) overShare(tick int, f func(client message.ClientID)) {
	for _, l := range q.order {
		if at := l.sharing.overAt; at > 0 && tick-at < overTicks {
			f(l.client)
		}
	}
}
