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
	drains bool          // no call begins, so that those under way end before the refresh
	ended  chan struct{} // filled when they have ended
}

// drainPeriod is how long a client waits for its calls to end before it refreshes its keys all
// the same. An answer that is under way then is asked for again, and a long one may not be kept.
const drainPeriod = 200 * time.Millisecond

// newClientRenewal has clients that were started at once refresh their keys at different times.
func newClientRenewal(period time.Duration) clientRenewal {
	period = keyPeriod(period)
	return clientRenewal{period: period, due: time.Now().Add(period/2 + rand.N(period/2+1)),
		ended: make(chan struct{}, 1)}
}

// begins reports whether the keys are to be refreshed, after due: as soon as no call is
// under way, or after drainPeriod.
func (x *clientRenewal) begins(now time.Time, underWay int) bool {
	if x.drains = true; underWay > 0 && now.Sub(x.due) < drainPeriod {
		return false
	}
	x.drains, x.due = false, now.Add(x.period)
	return true
}

// drained wakes the goroutine that refreshes the keys if it waits for the last call to end.
func (x *clientRenewal) drained(underWay int) {
	if !x.drains || underWay > 0 {
		return
	}
	select {
	case x.ended <- struct{}{}:
	default:
	}
}
