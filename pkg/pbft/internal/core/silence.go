// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// A promise is a statement that others may count after its sender has forgotten it: PRE-PREPARE,
// PREPARE, COMMIT, NEW-VIEW for every number that it chose, VIEW-CHANGE for its view and its exact
// contents, CHECKPOINT, and REPLY, tentative or not (R-OUR-21). A replica that was restarted
// without its memory must not contradict what it promised before. So it keeps a fence, which is
// durable before the promise leaves: no promise was for a number or a view above it.
//
// After such a restart the replica is silent: it makes no promise until a checkpoint at or above
// the fence is stable here. All that it may have promised about batches lies below that checkpoint
// then, where nobody counts it any more. It also begins in the view of the fence, and never sends a
// VIEW-CHANGE for that view or an earlier one: the group may be about to use the one that it has
// forgotten. Nothing that was built during a silence is sent after it.
//
// In disk mode a replica that is restarted remembers its promises: its journal has each before it
// leaves. Then the fence tells it only whether the journal is whole.
//
// A silent replica listens, executes what the others commit, fetches what it lacks and
// serves others. What it says of itself in STATUS has the primary fill an idle group with
// null batches until the checkpoint is there.

// silences are how long this replica and the others are silent, as they say, and what
// their recoveries wait for.
type silences struct {
	*base
	of   []silence // by replica
	free int       // last tick at which our proposals did not keep anybody waiting for null batches
}

// A silence is what a replica says of its own.
type silence struct {
	until message.SeqNum // the checkpoint that must be stable before it votes; 0: it votes
	rose  int            // tick at which that rose last
	fills int            // null batches that its silence, or its recovery, may still cause in the present period

	point     message.SeqNum // the checkpoint that must be stable before its last recovery is over; 0: it had none
	recovered int            // tick at which the request for that was executed
}

func newSilences(b *base) silences {
	x := silences{base: b, of: make([]silence, b.cfg.Replicas)}
	x.refill()
	return x
}

// fillPeriodTicks is the period in which a replica's silence causes a bounded number of
// null batches.
const fillPeriodTicks = 3000

// fillsPerPeriod is how many null batches end the longest silence of a correct replica: its fence
// is at most 4 periods above what it voted for, that at most L above the stable checkpoint, and
// the next checkpoint up to a period higher.
func (x *silences) fillsPerPeriod() int { return int(x.cfg.LogSize + 5*x.cfg.CheckpointPeriod) }

// tickFills begins a new period now and then.
func (x *silences) tickFills() {
	if x.tick%fillPeriodTicks == 0 {
		x.refill()
	}
}

func (x *silences) refill() {
	for i := range x.of {
		x.of[i].fills = x.fillsPerPeriod()
	}
}

// fillDue reports whether we are the primary of an idle group in which a replica waits
// for a checkpoint.
func (x *silences) fillDue() bool {
	if !x.active || !x.isPrimary() || x.silent() {
		return false
	}
	for i := range x.of {
		if x.waitsForFill(i) {
			return true
		}
	}
	return false
}

func (x *silences) waitsForFill(i int) bool {
	s := &x.of[i]
	return max(s.until, s.point) > x.stable.Seq && s.fills > 0
}

// awaited is the batch that the checkpoint must hold for which replicas wait.
func (x *silences) awaited() (n message.SeqNum) {
	for i := range x.of {
		if s := &x.of[i]; x.waitsForFill(i) {
			n = max(n, s.until, s.point)
		}
	}
	return n
}

// spendFill notes that a null batch is proposed.
func (x *silences) spendFill() {
	for i := range x.of {
		if x.waitsForFill(i) {
			x.of[i].fills--
		}
	}
}

// recoveryGapTicks is how long after a replica's last recovery another is taken in: each costs
// everyone a new key, and a window of null batches (R-PR-18, R-OUR-19).
const recoveryGapTicks = 100

// recoversAgain reports whether a request is for a recovery that comes too soon after the
// same replica's last.
func (x *silences) recoversAgain(r *message.Request) bool {
	i, ok := r.Client.Recoverer()
	if !ok {
		return false
	}
	if int(i) >= x.cfg.Replicas {
		return true
	}
	last := x.of[i].recovered
	return last > 0 && x.tick-last < recoveryGapTicks
}

// late reports whether a recovering replica has waited for null batches for longer than patience,
// in ticks, and nothing has come since. One that was silent when its request was executed says how
// long it is, which may be for longer than its request tells: until its fence. A liar gains as many
// batches by that as a fence can be ahead, and once for each recovery.
func (x *silences) late(since, patience int) bool {
	for i := range x.of {
		s := &x.of[i]
		over := max(s.point, min(s.until, s.point+message.SeqNum(x.fillsPerPeriod())))
		if s.point > 0 && over > x.stable.Seq && s.fills > 0 && x.tick-max(since, s.recovered, s.rose) > patience {
			return true
		}
	}
	return false
}

// stuck reports whether a batch that we proposed has kept somebody waiting for null batches for
// longer than patience, in ticks, and nothing has come since. It is called at each tick.
func (x *silences) stuck(proposed bool, since, patience int) bool {
	if !proposed || !x.fillDue() {
		x.free = x.tick
		return false
	}
	return x.tick-max(since, x.free) > patience
}

// hear notes until when replica i says that it is silent.
func (x *silences) hear(i message.ReplicaID, until message.SeqNum) {
	s := &x.of[i]
	if until > s.until {
		s.rose = x.tick
	}
	s.until = until
}

// recovered notes that a recovery request of replica i was executed, whose recovery is
// over when a checkpoint at or above point is stable.
func (x *silences) recovered(i message.ReplicaID, point message.SeqNum) {
	s := &x.of[i]
	s.point = point
	s.fills, s.recovered = x.fillsPerPeriod()+2*int(x.cfg.LogSize), x.tick
}
