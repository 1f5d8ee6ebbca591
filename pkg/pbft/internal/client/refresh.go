// SPDX-License-Identifier: Apache-2.0

package client

import (
	"math"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Refreshed notes that the replicas' answers are refused from now on if they were made under
// the keys of before. Those that were counted and have not ended a call are forgotten, so that
// all answers that are believed together are of one epoch (R-PR-6). Again has them asked for.
func (c *Client) Refreshed() {
	if !c.origin.known {
		c.origin.forget()
	}
	for s := range c.slots {
		if x := &c.slots[s]; x.phase == calling {
			x.call.tally.Reset(c.cfg.Replicas, c.cfg.Lent)
			x.call.agreed, x.call.parted = never, false
		}
	}
}

// Again sends all outstanding requests to all replicas again, authenticated anew (R-OUR-10).
func (c *Client) Again(now Time) {
	for s := range c.slots {
		if x := &c.slots[s]; x.phase == calling {
			c.send(now, &x.call, true, false)
		}
	}
}

// rekey sends requests again whose MAC for replica i is under a key that it has replaced: at once
// to the primary, which proposes them with MACs that are good for all. The others accept a request
// that most of them find authentic, so they need the new MACs only if the request is not executed
// soon; then it is sent to all.
func (c *Client) rekey(now Time, i message.ReplicaID) {
	lead := i == c.audience.primary() && now-c.rekeyed[i] >= rekeyPeriod
	if lead {
		c.rekeyed[i] = now
	}
	for s := range c.slots {
		x := &c.slots[s]
		if x.phase != calling {
			continue
		}
		c.owed, x.call.stale = min(c.owed, now+c.patience.rekeyed()), true
		if lead && !x.call.request.ReadOnly {
			k := &x.call
			brief := k.shorten(1<<i, true)
			k.had |= 1 << i
			c.do(Effect{Verb: Send, Slot: k.request.Slot, To: 1 << i, Apart: k.apart && brief != 0, Brief: brief})
		}
	}
}

// rekeyDelay is how long after a replica's new key a request is sent to all again that is
// not executed by then. It bounds as well how often new keys have requests sent again.
const rekeyDelay = 50 * time.Millisecond

// payOwed sends again the requests that new keys have made due.
func (c *Client) payOwed(now Time) {
	if now < c.owed {
		return
	}
	c.owed = notOwed
	for s := range c.slots {
		if x := &c.slots[s]; x.phase == calling && x.call.stale {
			x.call.due = max(x.call.due, now+minTimeout) // or it would be sent twice if it is late as well
			c.send(now, &x.call, true, false)
		}
	}
}

// notOwed is the due time when no request needs to be sent again.
const notOwed Time = math.MaxInt64
