// SPDX-License-Identifier: Apache-2.0

package client

import (
	"testing"
	"time"

	"bfs/pkg/pbft/internal/message"
)

const mebibyte = 1 << 20

// A crowd is clients that write at length, as much at a time as they may, and a group that serves
// them in turn. It takes the same time for each request that comes, for the first time or again;
// only the former waits for its turn.
type crowd struct {
	clients []*Client
	waiting [][]wish // what has reached the group, by client
	turn    int      // the client that is served next
	each    Time     // that the group takes for a request
	far     Time     // of the way to the group and back
	apart   Time     // between the first operations of two clients
	busy    Time     // until when the group does something
	again   int      // requests that came again
	results []int    // by client
	longest Time     // wait for a result, of late
}

type wish struct {
	slot message.Slot
	came Time
}

func newCrowd(clients int, each, far Time) *crowd {
	g := &crowd{each: each, far: far, results: make([]int, clients), waiting: make([][]wish, clients)}
	for range clients {
		g.clients = append(g.clients, begun(64))
	}
	return g
}

// run lets time pass. The group serves one request after the other.
func (g *crowd) run(from, until Time) {
	g.longest = 0
	for now := from; now < until; now += ms {
		for i, c := range g.clients {
			for now >= Time(i)*g.apart && c.Room(mebibyte) {
				c.Start(now, Operation{Body: make([]byte, mebibyte)})
			}
			if now%(10*ms) == 0 {
				c.Tick(now)
			}
			g.perform(now, i)
		}
		if g.busy <= now {
			g.serve(now)
		}
	}
}

func (g *crowd) perform(now Time, i int) {
	c := g.clients[i]
	for _, e := range c.Effects() {
		switch e.Verb {
		case Send:
			if e.New {
				g.waiting[i] = append(g.waiting[i], wish{e.Slot, now})
				break
			}
			g.again++
			g.busy = max(g.busy, now) + g.each
		case Done:
			g.results[i]++
			c.Free(e.Slot)
		}
	}
}

// serve is the turn of the next client of which a request has come.
func (g *crowd) serve(now Time) {
	for range g.clients {
		i := g.turn
		g.turn = (g.turn + 1) % len(g.clients)
		if w := g.waiting[i]; len(w) == 0 || now < w[0].came+g.far {
			continue
		}
		w := g.waiting[i][0]
		g.waiting[i] = g.waiting[i][1:]
		g.longest, g.busy = max(g.longest, now-w.came), now+g.each
		for r := range message.ReplicaID(3) {
			g.clients[i].Reply(now, answer(r, g.clients[i].Request(w.slot)))
		}
		g.perform(now, i)
		return
	}
}

func (g *crowd) total() (n int) {
	for _, r := range g.results {
		n += r
	}
	return n
}

// However many clients write at length, the group executes nearly all the time what it has not
// executed yet, and each client has its share. With a fixed number of operations each they would
// wait so long that all are sent again and again. Who came first had the group alone for a while.
func TestManyWritersDoNotCollapse(t *testing.T) {
	for _, clients := range []int{1, 4, 16, 64} {
		g := newCrowd(clients, 10*ms, ms)
		g.apart = 2 * time.Second / Time(clients)
		g.run(0, 10*time.Second)
		before := g.total()
		g.again = 0
		g.run(10*time.Second, 20*time.Second)
		served := g.total() - before
		if served < 950 {
			t.Errorf("%d clients: %d of 1000 requests were served", clients, served)
		}
		if g.again > served/20 {
			t.Errorf("%d clients: %d requests were served, and %d came again", clients, served, g.again)
		}
		if least := Time(clients) * g.each; g.longest > 2*max(bulkDelay, least)+100*ms {
			t.Errorf("%d clients: a request takes %v", clients, g.longest)
		}
		for i, n := range g.results {
			if fair := 2000 / clients; n < fair/3 || n > 3*fair {
				t.Errorf("%d clients: client %d has %d of 2000 results", clients, i, n)
			}
		}
	}
}

// A client alone has as many operations under way as it takes to keep the group busy, and the wire
// full.
func TestOneWriterFillsTheWire(t *testing.T) {
	for _, x := range []struct {
		name      string
		each, far Time
		limit     int // at least
	}{
		{"a fast group", 2 * ms, ms, mostBulk},
		{"a long wire", 10 * ms, 300 * ms, mostBulk},
		{"a slow group", 200 * ms, ms, mebibyte},
	} {
		g := newCrowd(1, x.each, x.far)
		g.run(0, 20*time.Second)
		if got := g.clients[0].patience.bulk.limit; got < x.limit {
			t.Errorf("%s: %d bytes, want >= %d", x.name, got, x.limit)
		}
	}
}

// When one operation is late a client has half as many under way. The others that were under way
// with it do not halve that again.
func TestLateHalves(t *testing.T) {
	var b bulk
	b.init()
	b.limit = mostBulk
	for range 8 {
		b.late(10*ms, ms, mebibyte)
	}
	if b.limit != mostBulk/2 {
		t.Errorf("got %d, want %d", b.limit, mostBulk/2)
	}
	b.late(20*ms, 11*ms, bulkLength-1)
	if b.limit != mostBulk/2 {
		t.Error("a short operation counts")
	}
	for now := 20 * ms; now < time.Second; now += ms {
		b.late(now, now, mebibyte)
	}
	if b.limit != bulkLength || !b.room(mebibyte) {
		t.Errorf("the limit falls to %d, and there is room for one operation: %t", b.limit, b.room(mebibyte))
	}
}
