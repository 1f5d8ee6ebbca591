// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"strings"
)

// A mark is a situation that a schedule has reached. A set of schedules that does not
// reach all of them proves less than it seems to.
type mark int

const (
	markStable                mark = iota // a checkpoint became stable
	markViewChange                        // a correct replica left a view
	markPrepared                          // a VIEW-CHANGE with a non-empty P
	markChosen                            // a NEW-VIEW that chose batches
	markNullBatch                         // an empty batch was executed
	markThreeViews                        // three views without an execution in between
	markUnstableStart                     // a view began from a checkpoint that was not known to be stable here
	markTransfer                          // a state was fetched
	markTransferUnderLoad                 // while clients were calling
	markDecided                           // a batch was executed because f+1 said that it was decided
	markForwarded                         // a primary proposed a request that only others could authenticate
	markDuplicate                         // a request was ordered twice and executed once
	markFastRead                          // a read in one round trip
	markRestart                           // a replica restarted with nothing but its fence
	markRejoined                          // and votes again
	markTentative                         // a client believed a prepared batch not known to commit
	markRollback                          // a tentative execution was undone
	markApart                             // a batch was proposed without an operation
	markLacked                            // a proposal waited for an operation
	markFetched                           // an operation was fetched
	markBlocks                            // an operation of several blocks was executed
	markTurned                            // a replica turned faulty after another, or itself, had been restarted
	markNullFill                          // a silence ended by null batches in an idle group
	markEnrolled                          // an operation of the administrator was executed that enrols or revokes
	markRevoked                           // a client was revoked
	markResumed                           // a client was restarted
	markLost                              // more than f replicas forgot their state
	markPower                             // all replicas lost power at once, and remembered
	markLoaded                            // a replica loaded its image
	markFollowed                          // an image followed to a later checkpoint
	markAbandoned                         // an update of an image was given up, for the group had come too far
	markRecovered                         // a recovery ended
	markCured                             // the recovery of a replica in which an intruder was
	markSetAside                          // a recovering replica found that its memory was false
	markBeyondF                           // more than f replicas were faulty, one after the other
	markForgot                            // a replica found that its disk had lost durable records
	markAway                              // a replica was away while f others were faulty
	markFull                              // a replica stood aside, for its disk was full
	markRoom                              // and went on when there was room
	markNoRoom                            // an image had no room to follow
	markAllFull                           // the disks of all replicas filled
	markRefreshed                         // a replica refreshed its keys
	markRefreshedAtWork                   // while a batch was being agreed on
	markRefreshedBetweenViews             // while it waited for a view to begin
	markRefreshedOne                      // a replica refreshed the key of a recovering one
	markRobbed                            // a replica lost its fence
	markOldKey                            // a message was refused that was sealed before a refresh
	markFilled                            // a request came again without its operation, which was here
	markMissing                           // or was not
	marksCount
)

var markNames = [marksCount]string{
	"stable checkpoint", "view change", "view change with P", "NEW-VIEW with batches",
	"null batch", "three views in a row", "view from an unstable checkpoint", "state transfer",
	"state transfer under load", "DECIDED used", "authentic by FORWARDs",
	"duplicate ordered", "read in one round trip", "restart", "votes again after a restart",
	"tentative reply", "tentative rollback", "proposed without an operation",
	"waited for an operation", "operation fetched", "operation of several blocks", "turned faulty after a restart",
	"null batch for a silent replica", "enrolment or revocation", "revocation",
	"client restarted", "group lost", "power lost", "image loaded", "image followed", "image gave up", "recovered",
	"recovered from an intruder", "memory set aside", "more than f intruders", "disk lied",
	"away beside f faulty",
	"disk full", "room again", "image without room", "all disks full",
	"keys refreshed", "keys refreshed at work", "keys refreshed between views", "key of one refreshed",
	"fence lost", "message under an old key", "sent again without its operation", "operation missing",
}

// least is how often 500 schedules must reach a mark, if more often than once.
var least = map[mark]int{markRollback: 25}

// marks counts how often each was reached.
type marks [marksCount]int

func (m *marks) hit(k mark) { m[k]++ }

func (m *marks) add(other marks) {
	for i, n := range other {
		if n > 0 {
			m[i]++
		}
	}
}

// missing lists the marks that too few of the schedules have reached.
func (m *marks) missing(schedules int) (all []string) {
	for i, n := range m {
		if want := max(1, least[mark(i)]*schedules/500); n < want {
			all = append(all, fmt.Sprintf("%s: got %d, want >= %d", markNames[i], n, want))
		}
	}
	return all
}

func (m marks) String() string {
	var b strings.Builder
	for i, n := range m {
		fmt.Fprintf(&b, "%s %d, ", markNames[i], n)
	}
	return strings.TrimSuffix(b.String(), ", ")
}
