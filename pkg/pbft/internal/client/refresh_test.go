// SPDX-License-Identifier: Apache-2.0

package client

import (
	"slices"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// sends lists the sets of replicas that the effects send to, and reports whether a call
// has ended.
func sends(c *Client) (to []uint32, over bool) {
	for _, e := range c.Effects() {
		switch e.Verb {
		case Send:
			to = append(to, e.To)
		case Done:
			over = true
		}
	}
	return to, over
}

// Answers that were made under keys of before and others make no quorum, and everything
// is asked for again.
func TestAnswersAreOfOneEpoch(t *testing.T) {
	c := begun(1)
	s := c.Start(0, Operation{Body: []byte("w")})
	hear := func(i message.ReplicaID) { c.Reply(0, answer(i, c.Request(s))) }
	hear(0)
	hear(1)
	sends(c)
	c.Refreshed()
	c.Again(0)
	if to, _ := sends(c); len(to) != 1 || to[0] != 15 {
		t.Errorf("sent again to %b, want to all", to)
	}
	if hear(2); c.slots[s].phase != calling {
		t.Fatal("two answers of one epoch and one of another are believed")
	}
	hear(0)
	hear(1)
	if _, over := sends(c); !over {
		t.Error("three answers of one epoch are not believed")
	}
}

// When the primary's key is new the outstanding requests go to it at once, and again to
// all if they are not executed soon; when a backup's is, only that.
func TestNewKeysHaveRequestsSentAgain(t *testing.T) {
	for _, x := range []struct {
		name  string
		of    []message.ReplicaID // whose keys change
		now   []uint32            // the sets of replicas that the request is sent to at once
		after []uint32            // and after a while
	}{
		{"the primary", []message.ReplicaID{0}, []uint32{1}, []uint32{15}},
		{"the primary, twice in a moment", []message.ReplicaID{0, 0}, []uint32{1}, []uint32{15}},
		{"a backup", []message.ReplicaID{2}, nil, []uint32{15}},
		{"all", []message.ReplicaID{1, 2, 0, 3}, []uint32{1}, []uint32{15}},
	} {
		c := begun(1)
		c.Start(0, Operation{Body: []byte("w")})
		sends(c)
		for _, i := range x.of {
			c.KeyAccepted(0, i, true)
		}
		if to, _ := sends(c); !slices.Equal(to, x.now) {
			t.Errorf("%s: sent again to %b at once, want %b", x.name, to, x.now)
		}
		if at, ok := c.Next(0); !ok || at > rekeyDelay {
			t.Errorf("%s: the rule has something to do at %v", x.name, at)
		}
		for look, want := range [][]uint32{x.after, nil} {
			c.Tick(rekeyDelay)
			if to, _ := sends(c); !slices.Equal(to, want) {
				t.Errorf("%s: look %d after a while: sent again to %b, want %b", x.name, look+1, to, want)
			}
		}
	}
}

// In a group that takes long for each answer a request has as long after a new key: sent
// to all earlier, all that is outstanding would come twice at each refresh of a replica.
func TestNewKeysOfABusyGroup(t *testing.T) {
	c := begun(1)
	for range 20 {
		c.patience.ordered.trip.sample(8 * rekeyDelay)
	}
	c.Start(0, Operation{Body: []byte("w")})
	sends(c)
	c.KeyAccepted(0, 2, true)
	c.Tick(7 * rekeyDelay)
	if to, _ := sends(c); to != nil {
		t.Errorf("sent again to %b before most answers have come", to)
	}
	c.Tick(12 * rekeyDelay)
	if to, _ := sends(c); len(to) == 0 || to[0] != 15 {
		t.Errorf("sent again to %b when they have, want all", to)
	}
}
