// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// A turnaround is how long the primary took for a request.
type turnaround struct {
	tick   int           // at which it was known
	waited time.Duration // until the proposal
	idle   time.Duration // of this, in which the primary could have proposed
	agreed time.Duration // from the proposal until the batch prepared
	passed int           // batches that had room for it, and were proposed without it
}

// A pacing is what is known of the primary's turnarounds for one client.
type pacing struct {
	slot      message.Slot      // of the request whose turnaround is being measured
	timestamp message.Timestamp // of that request; 0: none is being measured
	asked     int               // tick at which it came
	since     time.Duration     // when that was
	idleThen  time.Duration     // the primary's idle time before that
	batch     message.SeqNum    // in which it was proposed; 0: it was not
	proposed  time.Duration     // when that came
	idle      time.Duration     // of the primary, until then
	passed    int               // batches that had room for it, and were proposed before that
	results   []turnaround      // the latest
}

// A yardstick is what the turnarounds of one client are judged by.
type yardstick struct {
	tick   int
	slack  time.Duration // that they may be longer than
	factor int           // times the agreement
	passes int           // batches that may pass a request over
	idle   idleTime      // of the primary
}

const (
	// paceFactor is how many times as long as agreement a turnaround may take.
	paceFactor = 4
	// starvedSlack is how much longer one client may wait, whatever the primary does meanwhile. It
	// may wait for a batch of others.
	starvedSlack = 50 * time.Millisecond
	// keptTurnarounds is how many results of one client count, and leastTurnarounds how many are
	// needed. A fourth of them, the worst, is left out.
	keptTurnarounds, leastTurnarounds = 8, 4
	// freshTicks is how long a result counts.
	freshTicks = 500
)

// wasProposed notes that the request which is measured was proposed as part of batch n.
func (p *pacing) wasProposed(n message.SeqNum, t *idleTime) {
	p.batch, p.proposed, p.idle = n, t.at, t.total-p.idleThen
}

// add adds the result of the request that is measured.
func (p *pacing) add(tick int, now time.Duration) {
	if len(p.results) >= keptTurnarounds {
		p.results = slices.Delete(p.results, 0, 1)
	}
	p.results = append(p.results, turnaround{tick, p.proposed - p.since, p.idle, now - p.proposed, p.passed})
}

// slow reports whether the primary is too slow to the client, and whether enough is known for that.
func (p *pacing) slow(y *yardstick) (slow, known bool) {
	slow, known = p.exceeds(y, func(r *turnaround) time.Duration { return r.idle })
	return slow || p.passedOver(y), known
}

// passedOver reports whether batches with room leave the client's requests out.
func (p *pacing) passedOver(y *yardstick) bool {
	var passed [keptTurnarounds]int
	all := passed[:0]
	for i := range p.results {
		if r := &p.results[i]; y.fresh(r) {
			all = append(all, r.passed)
		}
	}
	over, _ := above(all, y.passes)
	return over
}

// starves reports whether the client waits too long, whatever the primary does meanwhile.
func (p *pacing) starves(y *yardstick) bool {
	slow, _ := p.exceeds(y, func(r *turnaround) time.Duration { return r.waited })
	return slow
}

// exceeds reports whether results are above the slack and the factor times the agreement, on
// average, and whether there are enough for that. A slow agreement excuses its own result and no
// other. The request that waits is one of them when it has waited so long itself.
func (p *pacing) exceeds(y *yardstick, of func(*turnaround) time.Duration) (exceeds, known bool) {
	var excess [keptTurnarounds + 1]time.Duration
	all := excess[:0]
	for i := range p.results {
		if r := &p.results[i]; y.fresh(r) {
			all = append(all, max(0, of(r)-time.Duration(y.factor)*r.agreed))
		}
	}
	if p.timestamp != 0 && p.batch == 0 {
		if so := of(&turnaround{waited: y.idle.at - p.since, idle: y.idle.total - p.idleThen}); so > y.slack {
			all = append(all, so)
		}
	}
	return above(all, y.slack)
}

// fresh reports whether a result still counts.
func (y *yardstick) fresh(r *turnaround) bool { return y.tick-r.tick < freshTicks }

// above reports whether values are above a limit on average of all but the worst fourth, and
// whether there are enough for that. It sorts the values.
func above[T int | time.Duration](all []T, limit T) (above, known bool) {
	if len(all) < leastTurnarounds {
		return false, false
	}
	slices.Sort(all)
	all = all[:len(all)-len(all)/4]
	sum := T(0)
	for _, x := range all {
		sum += x
	}
	return sum > limit*T(len(all)), true
}

// An idleTime is the time in which the primary could have proposed.
type idleTime struct {
	at    time.Duration // when it was right
	free  bool          // the primary could propose from then on
	total time.Duration
}

func (t *idleTime) mark(now time.Duration, free bool) {
	if t.free {
		t.total += now - t.at
	}
	t.at, t.free = now, free
}

// A lateness is how late our own ticks have come of late: how long a process waits for a processor
// on this host. It is that of the worst tick, and wears off.
type lateness time.Duration

const (
	// A primary that has what it needs answers in some tenths of a millisecond, and is allowed
	// leastAllowed; or lateFactor times our lateness, at most mostAllowed: a host that is so busy
	// that each process is kept from running makes a correct primary look that slow.
	leastAllowed, lateFactor, mostAllowed = 2 * time.Millisecond, 4, 2 * Tick
	// lateTicks is in how many ticks most of it wears off.
	lateTicks = 256
)

func (l *lateness) note(late time.Duration) { *l = max(*l, lateness(late)) }

// tick lets a tick's part wear off.
func (l *lateness) tick() { *l -= *l / lateTicks }

func (l lateness) allowed() time.Duration {
	return max(leastAllowed, min(lateFactor*time.Duration(l), mostAllowed))
}
