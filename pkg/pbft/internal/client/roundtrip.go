// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// Bounds of a timeout.
const (
	// minTimeout is the least wait before a read is sent to more replicas: that costs little.
	minTimeout = 25 * time.Millisecond
	// minRepeat is the least wait before a request is sent again to replicas that have it
	// already: longer than a busy host mostly keeps a process from running. It is a
	// quarter of viewTimeout, so that a stopped primary is left hardly later for it.
	minRepeat = viewTimeout / 4
	// granularity is two looks at the caller's clock, the least by which a timeout is
	// longer than answers take: G in [RFC6298 §2].
	granularity = 20 * time.Millisecond
	// firstTimeout is the wait before the first sample (R-CLI-5).
	firstTimeout = 150 * time.Millisecond
	// viewTimeout is the first period of a replica's view-change timer: TimeoutTicks of
	// pbft.StartReplica. A faulty primary can keep each request waiting for this long without
	// losing its view. It gains little by driving a client's back-off up if that goes no further.
	viewTimeout = 400 * time.Millisecond
	// firstLong is the same for long operations. They wait for each other, and to send one again
	// costs as much as to execute it.
	firstLong = 2 * viewTimeout
	// maxTimeout bounds the timeout, whatever the samples.
	maxTimeout = 2 * time.Second
)

// A roundTrip estimates how long an answer takes, as TCP does [RFC6298], so that the
// first retry comes soon after an answer is late and not while the group is merely busy.
//
// An answer to a request that was sent more than once is no sample, for it may answer any of
// the copies (Karn's rule). If the timeout is shorter than the answers take by now there would
// be no samples, and everything would be sent twice for ever, which keeps a busy group busy. So
// the timeout doubles each time it expires, and returns to the estimate with the next sample.
type roundTrip struct {
	first, least        Time // of the timeout: before the first sample, and ever
	most                Time // to which it doubles
	smoothed, variation Time // SRTT and RTTVAR; 0 before the first sample
	expiries            int  // since the last sample
}

// sample learns from an answer to a request that was sent once.
func (t *roundTrip) sample(d Time) {
	t.answered()
	if t.smoothed == 0 {
		t.smoothed, t.variation = max(d, 1), d/2
		return
	}
	t.variation += ((d - t.smoothed).Abs() - t.variation) / 4
	t.smoothed = max(t.smoothed+(d-t.smoothed)/8, 1)
}

// answered ends the doubling, for a request that was sent once has its answer.
func (t *roundTrip) answered() { t.expiries = 0 }

// estimate is the timeout that the samples call for.
func (t *roundTrip) estimate() Time {
	if t.smoothed == 0 {
		return max(t.first, t.least)
	}
	return min(max(t.expected(), t.least), maxTimeout)
}

// expected is the time in which nearly all answers come; 0 before the first sample.
func (t *roundTrip) expected() Time {
	if t.smoothed == 0 {
		return 0
	}
	return t.smoothed + max(4*t.variation, granularity)
}

// expire doubles the timeout until the next sample.
func (t *roundTrip) expire() { t.expiries = min(t.expiries+1, 8) }

// timeout is the estimate, doubled for each time it has expired since the last sample: up
// to most, or the estimate if that is longer.
func (t *roundTrip) timeout() Time {
	d := t.estimate()
	return max(d, min(d<<t.expiries, t.most))
}
