// SPDX-License-Identifier: Apache-2.0

package executor

import (
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
)

// recover runs a recovery request. Its only effect on the state is to be recorded there. A replica
// that executes it, or fetches a state that has it, changes its keys and tells the recovering
// replica in which batch it was [TOCS §5.2.3].
func (x *Executor) recover(i message.ReplicaID, r *message.Request) (a Answer, ran bool) {
	if a, seen := x.recovered(i, r); seen {
		return a, false
	}
	asked, ok := message.RecoveryOf(r)
	if !ok {
		return Answer{Outcome: message.NotEnrolled}, false
	}
	x.ledger.Recover(i, ledger.Recovery{Timestamp: r.Timestamp, Bound: asked.Bound, Seq: x.last})
	return Answer{Outcome: message.Executed}, true
}

// recovered is the answer to a recovery request that was executed, or overtaken by a later one.
func (x *Executor) recovered(i message.ReplicaID, r *message.Request) (Answer, bool) {
	switch last := x.ledger.Recovery(i).Timestamp; {
	case r.Timestamp == last:
		return Answer{Outcome: message.Executed}, true
	case r.Timestamp < last:
		return Answer{Outcome: message.Superseded}, true
	}
	return Answer{}, false
}

// A Recovery is a recovery request that the state records.
type Recovery struct {
	Replica message.ReplicaID
	ledger.Recovery
}

// News returns the recovery requests that have come into the state since its last call,
// by execution or because the state was replaced: at most one of each replica, its last.
func (x *Executor) News() (all []Recovery) {
	for i := range x.recoveries {
		last := x.ledger.Recovery(message.ReplicaID(i))
		if last.Timestamp > x.recoveries[i] {
			x.recoveries[i] = last.Timestamp
			all = append(all, Recovery{message.ReplicaID(i), last})
		}
	}
	return all
}

// forgetNews forgets recoveries that the new state does not have, so that they are reported when
// they come: an intruder may have written recoveries into an earlier state that never happened.
func (x *Executor) forgetNews() {
	for i := range x.recoveries {
		x.recoveries[i] = min(x.recoveries[i], x.ledger.Recovery(message.ReplicaID(i)).Timestamp)
	}
}

// Settled says that the state is the group's as of checkpoint n. No version before n is named any
// more: an intruder may have written the batches before it (R-OUR-22).
func (x *Executor) Settled(n message.SeqNum) { x.checkpoint = max(x.checkpoint, n) }
