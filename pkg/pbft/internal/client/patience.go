// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// Bounds of the long operations that a client has under way.
const (
	// bulkBytes bounds the bytes of long operations under way; a single one may be longer. The
	// group is no faster when it is sent more of them, and they fill the connections.
	bulkBytes = 8 << 20
	// bulkLength is the length from which an operation counts as long.
	bulkLength = 32 << 10
	// slowestBytes is how much of long operations passes in a second at least: our other
	// operations wait behind them.
	slowestBytes = 32 << 20
)

// patience is how long a client waits before it sends something again.
type patience struct {
	ordered, reads stream
	result         roundTrip // from the agreement on a result to the result, or the last of its proofs
	under          int       // bytes of the long operations under way
}

func (p *patience) init() {
	p.ordered.init(viewTimeout)
	p.reads.init(0)
	p.result.least = minRepeat
}

// of is the stream that a call belongs to.
func (p *patience) of(k *call) *stream {
	if k.request.ReadOnly {
		return &p.reads
	}
	return &p.ordered
}

// bulk is how many bytes an operation of n bytes counts as.
func bulk(n int) int {
	if n < bulkLength {
		return 0
	}
	return n
}

// room reports whether an operation of n bytes finds room beside the long ones.
func (p *patience) room(n int) bool { return bulk(n) == 0 || p.under == 0 || p.under+n <= bulkBytes }

func (p *patience) begin(n int) { p.under += bulk(n) }
func (p *patience) end(n int)   { p.under -= bulk(n) }

// behind is how much longer an answer may take because of our long operations before it.
func (p *patience) behind() Time { return Time(p.under) * time.Second / slowestBytes }

// widen is how long a read may take that was sent to some replicas only, before the
// others are asked.
func (p *patience) widen() Time {
	return min(max(p.reads.trip.expected(), minTimeout), maxTimeout) + p.behind()
}

// rekeyed is how long a request may take to be executed after a replica's new key, before
// it is sent to all replicas again: as long as most answers take. Otherwise a busy group
// would get everything again with each new key.
func (p *patience) rekeyed() Time {
	return min(max(p.ordered.trip.expected(), rekeyDelay), maxTimeout) + p.behind()
}

// forResult is how long an agreed result may take to come: at least as long as a whole
// answer, because where answers take long a named replica may be that far behind the
// others. If none of the named replicas is to answer yet, no more will come from them,
// and the wait is short.
func (p *patience) forResult(k *call, owing bool) Time {
	if !owing {
		return minTimeout
	}
	return max(p.result.timeout(), p.of(k).trip.timeout())
}

// backOff is the wait after the given number of tries: doubled each time and spread, so
// that clients do not come back together.
func (p *patience) backOff(k *call, chance Edge) Time {
	d := min(p.of(k).trip.estimate()<<min(k.tries, 8), maxTimeout)
	return d + Time(chance.Chance(int64(d)/4))
}

// answered learns from a call that has its result.
func (p *patience) answered(now Time, k *call) {
	if k.agreed != never && !k.repeated && !k.widened {
		p.result.sample(now - k.agreed)
	}
	p.of(k).answered(now, k.sent, k.repeated, k.widened)
}

// due returns the time at which a call is sent again if no result comes before.
func (p *patience) due(k *call) Time {
	if k.tries > 0 {
		return k.due
	}
	return min(k.due, p.of(k).late(k.sent, p.behind()))
}
