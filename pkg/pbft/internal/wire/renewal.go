// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// # Session keys
//
// Every principal refreshes its session keys each KeyPeriod: those under which others
// speak to it, for the receiver chooses them [TOCS §5.2.2; R-PR-4, R-PR-6]. In one taking
// of the lock the ring begins a new epoch, and the protocol forgets the messages of
// others that it has counted, unless they make a whole certificate. Then NEW-KEYs go out
// on all connections. From the instant at which the ring's epoch rises, nothing counts
// that was sealed before. Frames are opened without the lock. So a goroutine asks for the
// epoch before it opens frames, and compares it under the lock before they count.
//
// When a replica recovers, an intruder in it may know the keys that it had, which are
// those between it and each of the others. It chooses anew those under which others speak
// to it, when it starts. The other replicas choose anew the one under which it speaks to
// them, when they execute its recovery request (R-PR-19), and clients when they hear from
// its new process. All other keys stay, so the messages that clients and the other
// replicas have under way still count.
//
// A replica has nothing to discard of a client that refreshes no keys (R-PR-5): the key
// under which that client speaks to it was chosen here and is replaced here.

// A Renewal is what an endpoint knows of its refreshes.
type Renewal struct {
	last   atomic.Int64  // when the last refresh was, Unix nanoseconds; 0: there was none
	Count  atomic.Uint64 // of them
	Tell   chan struct{} // filled when NEW-KEYs are due on all connections
	Over   chan struct{} // closed when the goroutine that sends them has ended
	Single Single
}

// A Single is what a replica knows of keys that it refreshes one at a time, because the
// replica that speaks under it recovers.
type Single struct {
	Tell chan struct{} // filled when there is a NEW-KEY due

	due  atomic.Uint32 // bit i: a NEW-KEY is due to replica i
	last atomic.Int64  // when the last such key was refreshed, Unix nanoseconds
}

// Owe notes that a NEW-KEY is due to replica i.
func (x *Single) Owe(i message.ReplicaID) {
	x.due.Or(1 << i)
	select {
	case x.Tell <- struct{}{}:
	default:
	}
}

// Due returns the replicas to which a NEW-KEY is due, bit i being replica i, and notes
// that none is due any more.
func (x *Single) Due() uint32 { return x.due.Swap(0) }

func newRenewal() Renewal {
	return Renewal{Tell: make(chan struct{}, 1), Over: make(chan struct{}),
		Single: Single{Tell: make(chan struct{}, 1)}}
}

// settlePeriod is how long after a refresh a frame that does not open is taken for one
// that was under way during the refresh. No NEW-KEY is sent because of it: its sender has
// just been sent one, or sends more after that time.
const settlePeriod = 500 * time.Millisecond

// Settling reports whether the last refresh was less than settlePeriod ago.
func (n *Renewal) Settling() bool {
	return time.Since(time.Unix(0, max(n.last.Load(), n.Single.last.Load()))) < settlePeriod
}

// Age is the age of the session keys that an endpoint has chosen. It was started at the
// given time.
func (n *Renewal) Age(started time.Time) time.Duration {
	if last := n.last.Load(); last > 0 {
		started = time.Unix(0, last)
	}
	return time.Since(started)
}
