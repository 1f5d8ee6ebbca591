// SPDX-License-Identifier: Apache-2.0

package client

import (
	"time"

	"bfs/pkg/pbft/internal/message"
)

// RivalPeriod is how long two processes are believed to share a key after they were seen to.
const RivalPeriod = 10 * time.Second

// holdPeriod is how long calls fail after f+1 replicas said that the key is in use. Then the client
// tries again, for the other process may have ended.
const holdPeriod = RivalPeriod / 2

// A rivalry counts the replicas that know of another process with the client's key.
type rivalry struct {
	told  []Time // by replica: when it said so last
	err   error
	until Time // calls fail with err until then
}

func (r *rivalry) init(replicas int) {
	r.told, r.until = make([]Time, replicas), never
	for i := range r.told {
		r.told[i] = never
	}
}

// add notes that a replica says so. Believed: f+1 do. News: they had not before.
func (r *rivalry) add(now Time, i message.ReplicaID, why error) (believed, news bool) {
	r.told[i] = now
	count := 0
	for _, at := range r.told {
		if now-at < RivalPeriod {
			count++
		}
	}
	if count < message.GroupSize(len(r.told)).Weak() {
		return false, false
	}
	if news = now >= r.until; news {
		r.err = why
	}
	r.until = now + holdPeriod
	return true, news
}

func (r *rivalry) inUse(now Time) error {
	if now >= r.until {
		return nil
	}
	return r.err
}
