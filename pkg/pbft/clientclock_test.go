// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"testing"
	"time"
)

// A process that did not run for a while has not waited that long for anybody.
func TestClientClockStandsStillWithItsProcess(t *testing.T) {
	real := time.Unix(1000, 0)
	x := clientClock{real: real}
	for _, c := range []struct {
		idle        bool
		after, want time.Duration
	}{
		{false, time.Millisecond, time.Millisecond},
		{false, lookPeriod, 11 * time.Millisecond},
		{false, time.Minute, 11*time.Millisecond + mostStep},
		{false, lookPeriod, 21*time.Millisecond + mostStep},
		{true, restPeriod, 1021*time.Millisecond + mostStep}, // it was not to look sooner
	} {
		x.idle, real = c.idle, real.Add(c.after)
		if got := x.lookAt(real); got != c.want {
			t.Errorf("after %v: got %v, want %v", c.after, got, c.want)
		}
	}
}
