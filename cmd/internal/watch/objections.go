// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"fmt"

	"bfs/cmd/internal/status"
	"bfs/pkg/pbft"
)

// objections are the reasons against stopping replica self now for its recovery: none if
// every other replica takes part in the group, so that no other is under recovery and the
// group is not on its reserve. This replica's own state does not matter.
//
// A replica that answers tells for itself. For one whose status cannot be asked from
// here, which bfsd init serves on its own host only, this replica's account counts:
// whether the two are connected and how far the other one has come.
func objections(r *status.Report, self int, period pbft.SeqNum) (reasons []string) {
	own := r.Replicas[self].Status
	for i, row := range r.Replicas {
		switch {
		case i == self:
		case row.Status != nil && row.Status.Recovery.Phase != "":
			reasons = append(reasons, fmt.Sprintf("replica %d is recovering: %.20s", i, row.Status.Recovery.Phase))
		case row.Status != nil && row.Problem != "":
			reasons = append(reasons, fmt.Sprintf("replica %d: %s", i, row.Problem))
		case row.Status == nil && own == nil:
			reasons = append(reasons, fmt.Sprintf("replica %d does not answer: %s", i, row.Problem))
		case row.Status == nil:
			if why := seen(&own.Status, i, period); why != "" {
				reasons = append(reasons, fmt.Sprintf("replica %d %s", i, why))
			}
		}
	}
	return reasons
}

// seen returns what another replica finds wrong with replica i, "" if nothing is.
func seen(by *pbft.Status, i int, period pbft.SeqNum) string {
	for _, p := range by.Peers {
		switch {
		case int(p.Replica) != i:
		case !p.Connected || !p.Keys:
			return "is not connected with this one"
		case p.LastExecuted+period < by.LastExecuted:
			return fmt.Sprintf("is %d batches behind", by.LastExecuted-p.LastExecuted)
		default:
			return ""
		}
	}
	return "is unknown to this one"
}

// unfinished is the objection that the last recovery of replica self is not over, nil if
// it is. Self says so, and may lie, so the objection counts for patienceTurns only,
// whatever the durability.
func unfinished(r *status.Report, self, skipped int) []string {
	s := r.Replicas[self].Status
	if s == nil || s.Recovery.Phase == "" || skipped >= patienceTurns {
		return nil
	}
	return []string{fmt.Sprintf("this replica is still recovering: %.20s", s.Recovery.Phase)}
}

// patienceTurns is how many turns in a row a replica gives up for the sake of others.
const patienceTurns = 3

// A decision about a turn.
type decision int

const (
	skip  decision = iota // and wait for the next turn
	due                   // recover
	force                 // recover against the objections
)

// decide decides whether a scheduled recovery takes place. Objections come from replicas,
// one of which may lie for ever to put off the recovery of an intruder's other hosts. So
// after patienceTurns they count no more, if the replica's promises and state are on
// disk: the group may pause while it restarts, and loses nothing. A replica that has its
// state in memory stays, because with a faulty one beside it the group would stand still.
func decide(reasons []string, skipped int, d pbft.Durability) decision {
	switch {
	case len(reasons) == 0:
		return due
	case skipped >= patienceTurns && d == pbft.DurabilityDisk:
		return force
	}
	return skip
}
