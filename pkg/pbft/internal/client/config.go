// SPDX-License-Identifier: Apache-2.0

package client

import (
	"math"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Time is the time on the caller's monotonic clock, from 0 on. It never goes back.
type Time = time.Duration

// never is a time before all others, and far enough from them that a difference does not overflow.
const never Time = math.MinInt64 / 2

// unset is a time after all others.
const unset Time = math.MaxInt64

// An Edge answers a client's questions about its connections and keys, and gives it chance.
type Edge interface {
	Open(i message.ReplicaID) bool                                    // replica i can be spoken to now
	Queued(i message.ReplicaID) int                                   // bytes that wait on the connection to replica i
	Proves(i message.ReplicaID, p *message.Proof, result []byte) bool // replica i made this proof of this result
	Chance(n int64) int64                                             // any number of at least 0 and less than n
}

// A Config holds for the whole life of a client.
type Config struct {
	Client   message.ClientID
	Replicas int
	Slots    int
	Clock    message.Timestamp // requests have later timestamps than the clock showed at the start (R-CLI-1)
	Turn     message.ReplicaID // the replica after it is the first that returns a long result
	Lent     int               // results up to this length lie in lent memory, and are copied when they are kept

	// Separate is the length of the longest operation that goes to the primary alone; 0:
	// all do. A longer one goes to every replica at once, and the primary proposes it by
	// its digest [TOCS §6.1; R-OPT-BR-1].
	Separate int

	// Found, unless nil, is told each finding from the replies to a call, for the
	// simulator to judge.
	Found func(s message.Slot, x Finding)
}
