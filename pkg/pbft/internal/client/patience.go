// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// Bounds of a client's waits.
const (
	minTimeout = 25 * time.Millisecond
	maxFloor   = 10 * minTimeout // a primary that serves no first try costs each request no more
	maxTimeout = 2 * time.Second
)

// Bounds of the long operations that a client has under way.
const (
	// bulkBytes is how many bytes of them there are at most, a single one apart. The group executes no
	// more of them at a time for being sent more, and they fill the connections that the votes of other
	// clients' requests share.
	bulkBytes = 8 << 20
	// bulkLength is the length from which an operation counts as long.
	bulkLength = 32 << 10
	// slowestBytes of them take a second at most: so long others of ours wait for them.
	slowestBytes = 32 << 20
)

// patience is how long a client waits before it sends something again.
type patience struct {
	trip     roundTrip
	lag      Time // by which results, or the last of their proofs, follow the agreement, where they do
	progress Time // when an ordered operation had its result last
	under    int  // bytes of the long operations under way
}

func (p *patience) init() { p.progress = never; p.trip.reset() }

// bulk is what an operation of n bytes counts as.
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

// behind is how much longer an answer may take for the long operations of ours that are before it.
func (p *patience) behind() Time { return Time(p.under) * time.Second / slowestBytes }

// forResult is how long a result that is agreed on may take to come.
func (p *patience) forResult() Time { return max(minTimeout, 4*p.lag) }

// timeout is the wait after the first try.
func (p *patience) timeout() Time { return p.trip.timeout() }

// backOff is the wait after the given number of tries: doubled each time and spread, so that clients do
// not come back together.
func (p *patience) backOff(tries int, chance Edge) Time {
	d := min(p.trip.timeout()<<min(tries, 8), maxTimeout)
	return d + Time(chance.Chance(int64(d)/4))
}

// answered learns from a call that has its result.
func (p *patience) answered(now Time, k *call) {
	if k.agreed != never && k.tries == 0 {
		p.lag += (now - k.agreed - p.lag) / 4
	}
	p.trip.sample(now-k.sent, k.tries)
	if !k.request.ReadOnly {
		p.progress = now
	}
}

// busy reports whether the group is busy with others of ours: they get their results, and the group
// would be busier yet if everything were sent twice. Nothing waits for longer than maxFloor, since a
// primary may serve others to starve it.
func (p *patience) busy(now, sent Time) bool {
	return now-sent <= maxFloor+p.behind() && now-p.progress <= minTimeout
}

// A roundTrip estimates how long an answer takes, as TCP does [RFC6298], so that the first retry comes
// soon after an answer is late and not while the group is merely busy.
//
// An answer to a request that was sent more than once is no sample, for it may answer any of the
// copies. But then the present timeout is shorter than a busy group needs, and if nothing were learnt
// from it every request would be sent twice, which keeps the group busy. So the time it took bounds the
// next timeouts from below, and that bound is forgotten as requests are answered at their first try.
type roundTrip struct{ smoothed, variation, floor Time }

func (t *roundTrip) reset() { t.smoothed, t.variation = 10*time.Millisecond, 5*time.Millisecond }

func (t *roundTrip) sample(d Time, tries int) {
	if tries > 0 {
		t.floor = max(t.floor, min(d, maxFloor))
		return
	}
	t.floor -= t.floor / 4
	t.variation += ((d - t.smoothed).Abs() - t.variation) / 4
	t.smoothed += (d - t.smoothed) / 8
}

func (t *roundTrip) timeout() Time {
	return min(max(t.smoothed+4*t.variation, minTimeout, t.floor), maxTimeout)
}
