// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// slowestBytes is how much of long operations passes in a second at least: our other operations
// wait behind them.
const slowestBytes = 32 << 20

// patience is how long a client waits before it sends something again.
type patience struct {
	ordered, long, reads stream

	result roundTrip // from the agreement on a result to the result, or the last of its proofs
	bulk   bulk
}

func (p *patience) init() {
	p.ordered.init(viewTimeout, firstTimeout, viewTimeout)
	p.long.init(viewTimeout, firstLong, maxTimeout)
	p.reads.init(0, firstTimeout, viewTimeout)
	p.result = roundTrip{first: firstTimeout, least: minRepeat, most: viewTimeout}
	p.bulk.init()
}

// of is the stream that a call belongs to.
func (p *patience) of(k *call) *stream {
	switch {
	case k.request.ReadOnly:
		return &p.reads
	case p.bulk.of(len(k.operation.Body)) > 0:
		return &p.long
	}
	return &p.ordered
}

// behind is how much longer an answer may take because of our long operations before it.
func (p *patience) behind() Time { return Time(p.bulk.under) * time.Second / slowestBytes }

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
	if !k.repeated {
		p.bulk.answered(len(k.operation.Body), now-k.sent)
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
