// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// served is what some batches in a row have of each client, all in one tick.
func (q *queue) servedIn(tick, batches int, wait func()) map[message.ClientID]int {
	of := map[message.ClientID]int{}
	for range batches {
		wait()
		if !q.ready(tick) {
			continue
		}
		for _, r := range q.take(room{512, 1 << 20, 0}, tick) {
			of[r.Client]++
			q.remove(q.line(r.Client), r)
		}
	}
	return of
}

// A client with 256 requests outstanding has of each batch no more than its share beside
// one that has eight. When the other ends, it has whole batches again two ticks later.
func TestManyOutstanding(t *testing.T) {
	const heavy, light, batches = 1, 2, 20
	var q queue
	q.init(256, 64<<20)
	both := func() { q.waits(heavy, 256, 100); q.waits(light, 8, 1<<10) }
	for tick := 1; tick < 4; tick++ {
		of := q.servedIn(tick, batches, both)
		if n := of[heavy]; of[light] != 8*batches || n < 8*batches || n > 2*8*batches+loneShare/commonCost {
			t.Errorf("tick %d: %d requests of the client that has many outstanding, beside %d of the other",
				tick, n, of[light])
		}
	}
	if q.line(heavy).sharing.overAt != 3 || q.line(light).sharing.overAt != 0 {
		t.Errorf("over their shares at tick %d and %d, want the heavy client alone",
			q.line(heavy).sharing.overAt, q.line(light).sharing.overAt)
	}
	alone := func() { q.waits(heavy, 256, 100) }
	if n := q.servedIn(3, 10, alone)[heavy]; n != 0 {
		t.Errorf("%d requests in batches of its own, in a tick in which it had its share", n)
	}
	if n := q.servedIn(4, 10, alone)[heavy]; n == 0 || n > 2*loneShare/commonCost {
		t.Errorf("%d requests in a tick in which others are served, and have nothing waiting", n)
	}
	if n := q.servedIn(3+shareTicks+1, 10, alone)[heavy]; n != 2560 {
		t.Errorf("%d requests of a client that is alone, want all 2560", n)
	}
}

// Clients that have much outstanding alike are served alike, and nothing waits: whole
// batches are made of what there is.
func TestSharesOfEqualClients(t *testing.T) {
	const clients, outstanding, batches = 7, 64, 20
	var q queue
	q.init(256, 64<<20)
	of := q.servedIn(1, batches, func() {
		for c := range clients {
			q.waits(message.ClientID(1+c), outstanding, 100)
		}
	})
	for c := range clients {
		if n := of[message.ClientID(1+c)]; n != outstanding*batches {
			t.Errorf("client %d was served %d requests, want all %d", c, n, outstanding*batches)
		}
	}
}

// Two clients that want little do not wait for each other.
func TestLittleDoesNotRide(t *testing.T) {
	var q queue
	q.init(256, 64<<20)
	turn := message.ClientID(0)
	of := q.servedIn(1, 10, func() { turn++; q.waits(1+turn%2, 1, 100) })
	if of[1]+of[2] != 10 {
		t.Errorf("%d of 10 requests were served at once", of[1]+of[2])
	}
}

// A client with requests of a mebibyte each has one in many batches, beside one whose requests are
// short: as much as the other, or leastShare a batch and loneShare a tick. Each is ordered at once
// when nobody else is served, and one is always ordered if all clients have such requests.
func TestLongRequestsAreShared(t *testing.T) {
	const long, light, length = 1, 2, 1 << 20
	var q queue
	q.init(8, 64<<20)
	both := func() { q.waits(long, 8, length); q.waits(light, 8, 1<<10) }
	of := map[message.ClientID]int{}
	for tick := 1; tick <= 100; tick++ {
		for c, n := range q.servedIn(tick, 4, both) {
			of[c] += n
		}
	}
	most := 1 + 100*(4*max(leastShare, 8*(1<<10+commonCost))+loneShare)/(length-loneShare)
	if n := of[long]; of[light] < 8*(400-n) || n > most || n < most/2 {
		t.Errorf("%d long requests beside %d short ones, want at most %d, and 8 short ones in each other batch",
			n, of[light], most)
	}
	if n := q.servedIn(200, 8, func() { q.waits(long, 8, length) })[long]; n != 8 {
		t.Errorf("%d long requests in 8 batches of a client that is alone", n)
	}
	all := q.servedIn(300, 8, func() { q.waits(long, 8, length); q.waits(light, 8, length) })
	if all[long]+all[light] != 8 {
		t.Errorf("%d long requests in 8 batches of clients that have nothing else, want one in each",
			all[long]+all[light])
	}
}
