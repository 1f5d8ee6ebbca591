// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"io"

	"bfs/pkg/pbft"
)

// about returns replica j's report of replica i, nil if there is none.
func (r *Report) about(j, i int) *pbft.PeerStatus {
	s := r.Replicas[j].Status
	if s == nil || i == j {
		return nil
	}
	for k := range s.Peers {
		if int(s.Peers[k].Replica) == i {
			return &s.Peers[k]
		}
	}
	return nil
}

// accusers are the replicas that say of replica i that its last word on a checkpoint was
// another state than the group's. If they are f+1, one of them is correct.
func (r *Report) accusers(i int) (all []int) {
	for j := range r.Replicas {
		if p := r.about(j, i); p != nil && p.False {
			all = append(all, j)
		}
	}
	return all
}

// writeDisputes shows what replicas count of each other that is not what the group did.
func (r *Report) writeDisputes(w io.Writer) {
	for i := range r.Replicas {
		for j := range r.Replicas {
			if p := r.about(j, i); p != nil && p.WrongVotes+p.WrongRoots > 0 {
				fmt.Fprintf(w, "replica %d counts of replica %d: %d votes against what committed, %d "+
					"checkpoints that are not the group's\n", j, i, p.WrongVotes, p.WrongRoots)
			}
		}
	}
}
