// SPDX-License-Identifier: Apache-2.0

package watch

import "time"

// A schedule says when a replica is to be recovered. The period T_w is cut into as many
// slots as there are replicas, the same on all hosts because they count from the same
// epoch; clocks that differ by less than a slot keep two replicas from recovering at
// once. The order is by descending number: a primary that is recovered hands over to the
// next higher number, so the new primary comes last, and not next (R-PR-9).
type schedule struct {
	period time.Duration // 0: never
	n      int
	self   int
}

// next is the first start of one of this replica's slots after t; not ok: never.
func (s schedule) next(t time.Time) (at time.Time, ok bool) {
	if s.period <= 0 || s.n <= 1 {
		return at, false
	}
	begin := t.Truncate(s.period).Add(s.period / time.Duration(s.n) * time.Duration(s.n-1-s.self))
	if !begin.After(t) {
		begin = begin.Add(s.period)
	}
	return begin, true
}

// A backoff is the pause before a replica that ended is started again.
type backoff struct{ pause time.Duration }

const (
	leastPause = 500 * time.Millisecond
	mostPause  = time.Minute
	steady     = time.Minute // a replica that ran for so long begins again with leastPause
)

// after is the pause after a run of this length.
func (b *backoff) after(ran time.Duration) time.Duration {
	if ran >= steady || b.pause == 0 {
		b.pause = leastPause
	} else {
		b.pause = min(2*b.pause, mostPause)
	}
	return b.pause
}
