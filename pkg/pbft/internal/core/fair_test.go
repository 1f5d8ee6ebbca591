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
	q.waits(light, 1, 100)
	q.take(room{512, 1 << 20, 0}, 3) // and so one of the light client's is under way
	for _, r := range q.line(heavy).pending {
		if r != nil && !q.line(heavy).proposable(r) {
			q.remove(q.line(heavy), r)
		}
	}
	if n := q.servedIn(3, 10, alone)[heavy]; n != 0 {
		t.Errorf("%d requests in batches of its own, in a tick in which it had its share", n)
	}
	if n := q.servedIn(4, 10, alone)[heavy]; n == 0 || n > 2*loneShare/commonCost {
		t.Errorf("%d requests in a tick in which others have nothing that waits, and something under way", n)
	}
	q.remove(q.line(light), q.line(light).pending[0])
	q.line(heavy).sharing.others, q.line(heavy).sharing.debt = demand{}, 0
	if n := q.servedIn(4, 10, alone)[heavy]; n < 9*loneShare/commonCost || n > 10*(loneShare/commonCost+1) {
		t.Errorf("%d requests in a tick in which others were served, and have nothing under way", n)
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
// short: half as much as the other, and leastShare a tick. If the other seldom wants anything, it
// has far more. Each is ordered at once when nobody else is served, and one is always ordered if
// all clients have such requests.
func TestLongRequestsAreShared(t *testing.T) {
	const long, light, length = 1, 2, 1 << 20
	var q queue
	q.init(8, 64<<20)
	waits := func() { q.waits(long, 8, length) }
	both := func() { waits(); q.waits(light, 8, 1<<10) }
	ticks := func(from, ticks int, want func()) map[message.ClientID]int {
		of := map[message.ClientID]int{}
		for tick := from; tick < from+ticks; tick++ {
			want()
			(&waiting{queue: &q}).tickQueue()
			for c, n := range q.servedIn(tick, 4, both) {
				of[c] += n
			}
		}
		return of
	}
	ticks(1, 4*demandTicks, both)
	of := ticks(101, 100, both)
	most := 2 + 100*(leastShare+4*8*(1<<10+commonCost)/2)/length
	if n := of[long]; of[light] < 8*(400-n) || n > most || n < most/2 {
		t.Errorf("%d long requests beside %d short ones, want at most %d, and 8 short ones in each other batch",
			n, of[light], most)
	}
	ticks(201, 4*demandTicks, waits)
	if n := ticks(301, 100, waits)[long]; n < 3*most {
		t.Errorf("%d long requests beside a client that wants little, and %d beside one that always waits", n, most)
	}
	if n := q.servedIn(500, 8, waits)[long]; n != 8 {
		t.Errorf("%d long requests in 8 batches of a client that is alone", n)
	}
	all := q.servedIn(600, 8, func() { waits(); q.waits(light, 8, length) })
	if all[long]+all[light] != 8 {
		t.Errorf("%d long requests in 8 batches of clients that have nothing else, want one in each",
			all[long]+all[light])
	}
}

// Beside a client that wants little another may have several long requests in a tick.
func TestCredit(t *testing.T) {
	const long, light, length = 1, 2, 200 << 10
	for _, c := range []struct {
		wanted      int
		least, most int
	}{{wantAlways, 1, 1}, {0, 4, 6}} {
		var q queue
		q.init(8, 64<<20)
		q.waits(light, 1, 100)
		q.servedIn(1, 1, func() {})
		q.line(long).sharing.others.wanted = c.wanted
		if n := q.servedIn(1, 8, func() { q.waits(long, 8, length); q.waits(light, 1, 100) })[long]; n < c.least ||
			n > c.most {
			t.Errorf("%d long requests in a tick where others want %d of %d, want %d to %d", n, c.wanted, wantAlways,
				c.least, c.most)
		}
	}
}
