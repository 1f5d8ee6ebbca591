// SPDX-License-Identifier: Apache-2.0

package client

import (
	"math/bits"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// askAgain is how often the origin is asked for until it is known.
const askAgain = 100 * time.Millisecond

// An origin is the timestamp above which a client's requests begin. It is the clock's, or the
// latest one that the group knows of an earlier life if that is higher: a clock that was ahead
// once would else have every request answered as superseded until it is as late again (R-OUR-15).
//
// Of a quorum of answers the (f+1)-th highest counts. A correct replica has said as much
// or more, so liars cannot drive a client's timestamps up; and they cannot hide what f+1
// of the others have executed.
type origin struct {
	known   bool
	nonce   uint64 // of the present question; answers to an earlier one do not count
	asked   Time   // when all were asked last
	answers []message.Timestamp
	heard   uint32 // bit i: replica i is among them
}

// firstNonce keeps these questions apart from others that the caller asks with QUERY-STABLE.
const firstNonce = 1 << 63

func (o *origin) init() { o.nonce, o.asked = firstNonce, never }

// isDue reports whether all are to be asked now, and counts that as done.
func (o *origin) isDue(now Time) bool {
	if o.known || now-o.asked < askAgain {
		return false
	}
	o.asked = now
	return true
}

// forget makes the client ask for the origin again.
func (o *origin) forget() { *o = origin{nonce: o.nonce + 1, asked: never} }

// add counts the answer of one of n replicas. With the one that decides it returns the
// origin, and true.
func (o *origin) add(i message.ReplicaID, nonce uint64, t message.Timestamp,
	n message.GroupSize) (message.Timestamp, bool) {
	if o.known || nonce != o.nonce || o.heard&(1<<i) != 0 {
		return 0, false
	}
	o.heard |= 1 << i
	o.answers = append(o.answers, t)
	if bits.OnesCount32(o.heard) < n.Quorum() {
		return 0, false
	}
	slices.Sort(o.answers)
	o.known = true
	return o.answers[len(o.answers)-n.Weak()], true
}
