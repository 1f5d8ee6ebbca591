// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A turnaround is how long the primary took for a request, in ticks.
type turnaround struct {
	at     int // tick at which it was known
	waited int // until the proposal
	idle   int // of these, in which the primary could have proposed
	agreed int // from the proposal until the batch prepared
}

// A pacing is what is known of the primary's turnarounds for one client.
type pacing struct {
	slot      message.Slot      // of the request whose turnaround is being measured
	timestamp message.Timestamp // of that request; 0: none is being measured
	since     int               // tick at which it came
	batch     message.SeqNum    // in which it was proposed; 0: it was not
	proposed  int               // tick at which that came
	idle      int
	results   []turnaround // the latest
}

const (
	// paceFactor is how many times as long as agreement a turnaround may take,
	paceFactor = 4
	// and slackTicks is how much longer. A host that is so busy that a process is kept from running
	// makes it look as if the primary took about a tick.
	slackTicks = 2
	// starvedSlack is the same for what one client waits for. It may wait for a batch of others.
	starvedSlack = 5
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
	p.results = append(p.results, turnaround{tick, p.proposed - p.since, p.idle, tick - p.proposed})
}

// slow reports whether the primary is too slow to the client, and whether enough is known for that.
func (p *pacing) slow(tick, tolerance int) (slow, known bool) {
	return p.exceeds(tick, slackTicks*tolerance, paceFactor*tolerance, func(r *turnaround) int { return r.idle })
}

// starves reports whether the client waits too long, whatever the primary does meanwhile.
func (p *pacing) starves(tick int) bool {
	slow, _ := p.exceeds(tick, starvedSlack, paceFactor, func(r *turnaround) int { return r.waited })
	return slow
}

// exceeds reports whether results are above slack and factor times the agreement, on average, and
// whether there are enough for that. A slow agreement excuses its own result and no other. The
// request that waits is one of them when it has waited so long itself.
func (p *pacing) exceeds(tick, slack, factor int, of func(*turnaround) int) (exceeds, known bool) {
	var excess [keptTurnarounds + 1]int
	all := excess[:0]
	for i := range p.results {
		if r := &p.results[i]; tick-r.at < freshTicks {
			all = append(all, max(0, of(r)-factor*r.agreed))
		}
	}
	if p.timestamp != 0 && p.batch == 0 {
		if so := of(&turnaround{waited: tick - p.since, idle: p.idle}); so > slack {
			all = append(all, so)
		}
	}
	if len(all) < leastTurnarounds {
		return false, false
	}
	slices.Sort(all)
	all = all[:len(all)-len(all)/4]
	sum := 0
	for _, x := range all {
		sum += x
	}
	return sum > slack*len(all), true
}
