// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"math/rand/v2"
	"time"
)

// A clientRenewal is when a client refreshes its keys.
type clientRenewal struct {
	period time.Duration
	due    time.Time
	last   time.Time     // when they were refreshed last, or when it was made
	served bool          // a call has ended since
	drains bool          // no call begins, so that those under way end before the refresh
	ended  chan struct{} // filled when they have ended
}

// drainPeriod is how long a client waits for its calls to end before it refreshes its keys all
// the same. An answer that is under way then is asked for again, and a long one may not be kept.
const drainPeriod = 200 * time.Millisecond

// newClientRenewal has clients that were started at once refresh their keys at different times.
func newClientRenewal(period time.Duration) clientRenewal {
	period = keyPeriod(period)
	now := time.Now()
	return clientRenewal{period: period, due: now.Add(period/2 + rand.N(period/2+1)), last: now,
		ended: make(chan struct{}, 1)}
}

// begins reports whether the keys are to be refreshed, after due: as soon as no call is
// under way, or after drainPeriod. If no call has ended since the last refresh it waits for one,
// as a replica does: see newKeys.waitsSince.
func (x *clientRenewal) begins(now time.Time, underWay int) bool {
	if underWay > 0 && !x.served && now.Sub(x.last) < longestPostponed {
		x.due = now.Add(x.period / 4)
		return false
	}
	if x.drains = true; underWay > 0 && now.Sub(x.due) < drainPeriod {
		return false
	}
	x.drains, x.served, x.due, x.last = false, false, now.Add(x.period), now
	return true
}

// drained notes that calls have ended. It wakes the goroutine that refreshes the keys if that waits
// for the last call to end.
func (x *clientRenewal) drained(underWay int) {
	if x.served = true; !x.drains || underWay > 0 {
		return
	}
	select {
	case x.ended <- struct{}{}:
	default:
	}
}
