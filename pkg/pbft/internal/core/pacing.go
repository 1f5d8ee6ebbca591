// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A turnaround is how long the primary took for a request, ticks.
type turnaround struct {
	at     int // tick at which it was known
	idle   int // in which the primary had the request, and could have proposed
	agreed int // from the proposal until the batch committed
}

// A pacing is what is known of the primary's turnarounds for one client.
type pacing struct {
	request  *message.Request // whose turnaround is being measured; nil: none
	since    int              // tick at which it came
	batch    message.SeqNum   // in which it was proposed; 0: it was not
	proposed int              // tick at which that came
	idle     int
	results  []turnaround // the latest
}

const (
	// slackTicks is how much longer than a multiple of the agreement a turnaround may be.
	slackTicks = 2
	// paceFactor is that multiple.
	paceFactor = 4
	// keptTurnarounds is how many results of one client count, and leastTurnarounds how many are
	// needed. A fourth of them, the worst, is left out.
	keptTurnarounds, leastTurnarounds = 8, 4
	// freshTicks is how long a result counts.
	freshTicks = 500
)

// add adds the result of the request that is measured.
func (p *pacing) add(tick int) {
	if len(p.results) >= keptTurnarounds {
		p.results = slices.Delete(p.results, 0, 1)
	}
	p.results = append(p.results, turnaround{tick, p.idle, tick - p.proposed})
}

// judge says whether the primary is slow to a client, 1 or 0, and whether enough is known for that.
func (p *pacing) judge(tick, tolerance int) (slow int, known bool) {
	var excess []int
	for _, r := range p.results {
		if tick-r.at < freshTicks {
			excess = append(excess, r.idle-paceFactor*tolerance*r.agreed)
		}
	}
	if p.request != nil && p.batch == 0 && p.idle > slackTicks*tolerance {
		excess = append(excess, p.idle)
	}
	if len(excess) < leastTurnarounds {
		return 0, false
	}
	slices.Sort(excess)
	excess = excess[:len(excess)-len(excess)/4]
	sum := 0
	for _, d := range excess {
		sum += d
	}
	if sum > slackTicks*tolerance*len(excess) {
		return 1, true
	}
	return 0, true
}
