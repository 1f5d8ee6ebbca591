// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"time"

	"bfs/pkg/pbft/internal/client"
)

// A clientClock wakes the client at intervals, so that it does the work that is due, and tells
// the rule the time. While calls are under way the client looks at the clock at least every
// lookPeriod. If it has not for much longer, this process did not run: replies may be here,
// unread, and that none was read says nothing of the group. So the rule's time goes on by
// mostStep at most from one look to the next.
type clientClock struct {
	timer *time.Timer
	idle  bool        // nothing can be due, and it ticks slowly
	now   client.Time // the rule's time, at the last look
	real  time.Time   // of the last look
}

// Periods of a client's clock.
const (
	lookPeriod = 10 * time.Millisecond // a late request is noticed within this time
	restPeriod = time.Second           // an idle client's, which asks for missing keys this often
	mostStep   = 2 * lookPeriod        // of the rule's time
)

// look returns the rule's time.
func (x *clientClock) look() client.Time { return x.lookAt(time.Now()) }

func (x *clientClock) lookAt(real time.Time) client.Time {
	step := real.Sub(x.real)
	if !x.idle {
		step = min(step, mostStep)
	}
	x.now, x.real = x.now+step, real
	return x.now
}

// set makes the clock tick again.
func (x *clientClock) set(idle bool) {
	if x.idle = idle; idle {
		x.timer.Reset(restPeriod)
	} else {
		x.timer.Reset(lookPeriod)
	}
}

// wake starts the fast ticks of the clock, which an idle client does not need.
func (x *clientClock) wake() {
	if x.idle {
		x.set(false)
	}
}
