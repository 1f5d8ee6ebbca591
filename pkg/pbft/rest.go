// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"sync"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Reads that are not ordered pass no primary that could serve clients in turn. A request of a hundred bytes has
// a replica copy a mebibyte under its lock, and prove it, while votes wait. So a client whose long reads took a
// replica for some time, while somebody else was served, lets it alone for readShare-1 times as long before its
// connection is read again. With several such clients the share is theirs together. Whoever is alone, or among
// others that only read at length, does not rest.

const (
	readShare   = 6        // long reads have a sixth of a replica's time while others are served
	longRead    = 16 << 10 // cost above which a read is long
	longestRest = time.Second
)

// A reader is what a replica knows of a client's long reads.
type reader struct {
	mu  sync.Mutex
	due time.Time // when it has rested
}

// took notes how long reads took the replica, and returns how long the client is to rest.
func (r *reader) took(d time.Duration, sharing int, now time.Time) time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.due.Before(now) {
		r.due = now
	}
	r.due = r.due.Add(d * time.Duration((readShare-1)*max(sharing, 1)))
	return min(r.due.Sub(now), longestRest)
}

// A readTime measures one goroutine's long reads between two rests.
type readTime struct {
	client  ClientID
	long    bool
	started time.Time // when the lock was taken
}

// note takes in a read that is about to be answered.
func (t *readTime) note(r *Replica, q *message.Request) {
	if r.core == nil || t.long || r.core.Cost(q) <= longRead {
		return
	}
	t.long, t.client, t.started = true, q.Client, time.Now()
}

// contended is to be asked under the lock.
func (t *readTime) contended(r *Replica) bool { return t.long && r.core.Contended(t.client) }

// rest has the caller's client pause for what its long reads took. The caller does not hold the lock.
func (r *Replica) rest(t *readTime) {
	end := r.client(t.client)
	if end == nil {
		return
	}
	now := time.Now()
	sharing := r.resting.Add(1)
	defer r.resting.Add(-1)
	timer := time.NewTimer(end.reader.took(now.Sub(t.started), int(sharing), now))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-r.stop:
	}
}
