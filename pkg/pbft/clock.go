// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/core"
)

const (
	tickPeriod = core.Tick

	// idlePeriod is how often an idle replica wakes. A wake-up costs a processor more
	// than the work of a tick: five idle processes that woke a hundred times a second
	// took a twelfth of one.
	idlePeriod = 15 * tickPeriod
)

// A clock gives the core its ticks. All but turned is under the replica's lock.
type clock struct {
	timer  *time.Timer  // the next tick
	ticked time.Time    // the core has its ticks up to here
	slow   bool         // the core is idle, and ticks come late
	woken  bool         // it was until a moment ago
	turned atomic.Int64 // when the tick last came round, Unix nanoseconds
}

// sinceStart tells the time since now.
func sinceStart() func() time.Duration {
	start := time.Now()
	return func() time.Duration { return time.Since(start) }
}

// start begins the time of the core.
func (x *clock) start() {
	x.timer = time.NewTimer(tickPeriod)
	x.reset()
	x.turned.Store(x.ticked.UnixNano())
}

// reset forgets the ticks that the core has not had.
func (x *clock) reset() { x.ticked = time.Now() }

// tick gives a core that is not idle its next tick.
func (x *clock) tick(c *core.Core) {
	if x.slow {
		return
	}
	if late := time.Since(x.ticked) - tickPeriod; !x.woken && late > 0 {
		c.Late(late)
	}
	x.woken = false
	x.reset()
	c.Tick()
}

// catchUp gives an idle core the ticks that have passed, so that an event finds its time right.
func (x *clock) catchUp(c *core.Core) {
	if !x.slow {
		return
	}
	now := time.Now()
	n := now.Sub(x.ticked) / tickPeriod
	x.ticked = x.ticked.Add(n * tickPeriod)
	// More ticks than that mean that this process stood still: no peer kept it waiting.
	for range min(n, idlePeriod/tickPeriod) {
		c.Tick()
	}
}

// wake ends the idle time: the next tick comes soon.
func (x *clock) wake() {
	x.slow, x.woken = false, true
	x.timer.Reset(tickPeriod)
}

// next sets the timer for the tick after this one.
func (x *clock) next(idle bool) {
	if x.slow || idle {
		x.timer.Reset(idlePeriod)
		return
	}
	x.timer.Reset(tickPeriod)
}
