// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// waits adds n more requests of a client, each of size bytes.
func (q *queue) waits(c message.ClientID, n, size int) {
	l := q.line(c)
	for s := range q.slots {
		if n > 0 && l.pending[s] == nil {
			n--
			q.add(&message.Request{Client: c, Slot: message.Slot(s), Timestamp: l.proposed[s] + 1,
				Op: make([]byte, size)}, 1)
		}
	}
}

// takeAll takes a batch, has it executed, and counts what it has of each client.
func (q *queue) takeAll(count, size int) map[message.ClientID]int {
	of := map[message.ClientID]int{}
	for _, r := range q.take(room{count, size, 0}, 1) {
		of[r.Client]++
		q.remove(q.line(r.Client), r)
	}
	return of
}

// Clients that wait for much have whole stretches of a batch, and over some batches as much as each
// other. One that waits for little is in the next batch, and does not keep those from their turns.
func TestTurns(t *testing.T) {
	for _, x := range []struct {
		name             string
		length           int
		count, size      int
		batch, most      int // requests in a batch; clients that it has more than one of
		heavy, light     int // clients
		stretch, between int // requests in a turn; by how many heavy clients may differ
	}{
		{"short operations", 10, 64, 1 << 20, 64, 9, 20, 3, 8, 8},
		{"operations that fill a batch by their bytes", 1000, 64, 16000, 16, 9, 6, 2, 2, 2},
		{"operations of a batch's length", 16000, 64, 16000, 1, 0, 6, 0, 1, 1},
		{"one operation a batch", 10, 1, 1 << 20, 1, 0, 6, 0, 1, 1},
		{"more of little than a batch holds", 10, 8, 1 << 20, 8, 0, 3, 40, 1, 1},
	} {
		t.Run(x.name, func(t *testing.T) {
			var q queue
			q.init(128, 64<<20)
			served := map[message.ClientID]int{}
			const batches = 60
			for range batches {
				for c := range x.heavy {
					q.waits(message.ClientID(100+c), 128, x.length)
				}
				for c := range x.light {
					q.waits(message.ClientID(200+c), 1, x.length)
				}
				of := q.takeAll(x.count, x.size)
				n, much, light := 0, 0, 0
				for c, k := range of {
					n += k
					served[c] += k
					if c >= 200 {
						light++
					} else if k > 1 {
						much++
					}
				}
				if n != x.batch || much > x.most {
					t.Fatalf("a batch has %d requests, much of %d clients, want %d and at most %d: %v",
						n, much, x.batch, x.most, of)
				}
				if x.light < x.count/2 && light != x.light {
					t.Fatalf("a batch has something of %d clients that wait for little, want all %d", light, x.light)
				}
			}
			least, most := 1<<30, 0
			for c := range x.heavy {
				least, most = min(least, served[message.ClientID(100+c)]), max(most, served[message.ClientID(100+c)])
			}
			if most-least > x.between || least == 0 {
				t.Errorf("in %d batches a client that waits for much was served %d requests, and another %d",
					batches, least, most)
			}
		})
	}
}

// A request that was executed does not wait again, whatever copy of it comes. But a fetched state
// decides what was executed: an intruder may have had batches executed that the group never had.
func TestDoneWaitsNoMore(t *testing.T) {
	var q queue
	q.init(1, 1<<20)
	request := func(at message.Timestamp) *message.Request { return &message.Request{Client: 7, Timestamp: at} }
	comes := func(at message.Timestamp, want Refusal) {
		t.Helper()
		if got := q.add(request(at), 1); got != want {
			t.Errorf("a request with timestamp %d: %v, want %v", at, got, want)
		}
	}
	comes(5, accepted)
	q.executed(request(5), 1, 0)
	comes(5, OlderRequest)
	comes(4, OlderRequest)
	q.executed(request(9), 2, 0)
	comes(8, OlderRequest)
	group := func(r *message.Request) bool { return r.Timestamp <= 5 }
	q.drop(group, func(*message.Request) {})
	comes(8, accepted)
}

// A replica that was behind executes several batches at once, and then hears what was in vain. A
// request that had no effect in the first of them is done if a later one had it again.
func TestDoneInALaterBatch(t *testing.T) {
	var q queue
	q.init(1, 1<<20)
	r := &message.Request{Client: 7, Timestamp: 5}
	q.executed(r, 1, 0)
	q.executed(r, 3, 0)
	q.find(7).undo(r, 1)
	if got := q.lastDone(r.Key()); got.n != 3 {
		t.Errorf("done in batch %d, want 3", got.n)
	}
	if q.find(7).undo(r, 3); q.add(r, 1) != accepted {
		t.Error("it had no effect in the last one, and does not wait when it comes again")
	}
}
