// SPDX-License-Identifier: Apache-2.0

package status

import (
	"fmt"
	"slices"
)

// CanStop returns the reasons against stopping replica n now. There are none if a quorum
// of the others agrees and each of these is connected with each other one, so that they
// go on without n and hold the state while it is away.
//
// A replica that is silent, or fetches, does not count: stopping another while it cannot
// serve may lose the state.
func (r *Report) CanStop(n int) (reasons []string) {
	var rest []int
	for i := range r.Replicas {
		switch row := &r.Replicas[i]; {
		case i == n:
		case row.Status == nil:
			reasons = append(reasons, fmt.Sprintf("replica %d does not answer: %s", i, row.Problem))
		case row.Problem != "":
			reasons = append(reasons, fmt.Sprintf("replica %d: %s", i, row.Problem))
		default:
			rest = append(rest, i)
		}
	}
	rest, apart := r.connected(rest)
	reasons = append(reasons, apart...)
	if len(rest) >= r.Quorum {
		return nil
	}
	return append(reasons, fmt.Sprintf("%d of the others would be left, %d are needed", len(rest), r.Quorum))
}

// connected leaves out of a set those replicas that lack most connections, until each
// that is left is connected with each other one, and says which connections are missing.
func (r *Report) connected(set []int) (left []int, missing []string) {
	for i, a := range set {
		for _, b := range set[i+1:] {
			if !r.connects(a, b) {
				missing = append(missing, fmt.Sprintf("replicas %d and %d are not connected with each other", a, b))
			}
		}
	}
	for {
		worst, most := -1, 0
		for i, a := range set {
			lacks := 0
			for _, b := range set {
				if a != b && !r.connects(a, b) {
					lacks++
				}
			}
			if lacks > most {
				worst, most = i, lacks
			}
		}
		if worst < 0 {
			return set, missing
		}
		set = slices.Delete(slices.Clone(set), worst, worst+1)
	}
}

// connects reports whether both replicas say that they hear each other.
func (r *Report) connects(a, b int) bool { return r.hears(a, b) && r.hears(b, a) }

func (r *Report) hears(a, b int) bool {
	for _, p := range r.Replicas[a].Status.Peers {
		if int(p.Replica) == b {
			return p.Connected && p.Keys
		}
	}
	return false
}
