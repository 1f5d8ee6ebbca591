// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"testing"
	"time"
)

// A client whose calls take longer than its period refreshes its keys when a call has ended, and
// after a minute at the latest.
func TestRenewalWaitsForAnAnswer(t *testing.T) {
	x := newClientRenewal(time.Second)
	now := x.last.Add(time.Second)
	begins := func(after time.Duration, underWay int, want bool) {
		t.Helper()
		if now = now.Add(after); x.begins(now, underWay) != want {
			t.Errorf("after %v with %d calls under way: got %t, want %t", now.Sub(x.last), underWay, !want, want)
		}
	}
	begins(0, 1, false) // nobody has been answered
	if x.drains || x.due != now.Add(time.Second/4) {
		t.Error("calls may not begin, or the refresh is not tried again in a quarter of the period")
	}
	begins(time.Second, 0, true) // nothing waits
	begins(time.Second, 1, false)
	x.drained(1) // one of two has ended
	begins(time.Second/4, 1, false)
	if !x.drains {
		t.Error("the calls under way do not end before the refresh")
	}
	begins(drainPeriod, 1, true)
	begins(time.Second, 1, false)
	begins(longestPostponed-2*time.Second, 1, false)
	begins(time.Second+drainPeriod, 1, true)
}
