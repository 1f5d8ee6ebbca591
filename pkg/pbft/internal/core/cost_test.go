// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// price is a cost that the operation's first byte says, in units of 64 KiB.
func price(r *message.Request) int { return len(r.Op) + int(r.Op[0])<<16 }

// costing is a primary or a backup of four whose requests have prices.
func costing(self message.ReplicaID) *Core {
	c := New(Config{
		Self: self, Replicas: 4, CheckpointPeriod: 1 << 12, LogSize: 1 << 13, Window: 64,
		Batch:    BatchLimit{Bytes: 1 << 20, Count: 64, Cost: 8 << 20},
		LogBytes: 1 << 30, Clients: 8, Slots: 128, QueueBytes: 1 << 20,
		Ticks: Ticks{Status: 1 << 20, Resend: 2, Forward: 2, Timeout: 20}, Cost: price,
	})
	c.Frozen(0, message.Digest{1})
	return c
}

// wish has a client send n requests of a price, on slots from first on.
func wish(c *Core, client message.ClientID, t message.Timestamp, first, n int, units byte) {
	for s := range n {
		slot := message.Slot(first + s)
		c.Step(&message.Request{Client: client, Slot: slot, Timestamp: t, Op: []byte{units}, Authentic: true})
	}
}

// proposed is the batches that the primary proposes now, each executed at once.
func proposed(c *Core) (batches []*message.Batch) {
	for effects := c.Effects(); len(effects) > 0; effects = c.Effects() {
		for _, e := range append([]Effect(nil), effects...) {
			switch p, _ := e.Message.(*message.PrePrepare); {
			case e.Verb == Choose:
				c.Chosen(e.Seq, nil)
			case p != nil:
				batches = append(batches, &p.Batch)
				for from := message.ReplicaID(1); from < 4; from++ {
					c.Step(&message.Prepare{View: p.View, Seq: p.Seq, Digest: p.Digest, From: from})
					c.Step(&message.Commit{View: p.View, Seq: p.Seq, From: from})
				}
			}
		}
	}
	return batches
}

// meet has the primary know that there is more than one client.
func meet(c *Core) {
	c.Tick()
	for _, client := range []message.ClientID{busyClient, greedyClient} {
		wish(c, client, 1, 100, 1, 0)
		proposed(c)
	}
}

// spent is how many requests of a client batches have, and what these cost.
func spent(batches []*message.Batch, client message.ClientID) (requests, cost int) {
	for _, b := range batches {
		for _, r := range b.Requests {
			if r.Client == client {
				requests, cost = requests+1, cost+r.Cost
			}
		}
	}
	return requests, cost
}

const (
	busyClient   message.ClientID = 1
	greedyClient message.ClientID = 2
	otherClient  message.ClientID = 3
)

// A client whose operations are costly has what a tick allows while somebody else is
// served, and everything when nobody is.
func TestCostlyRequestsWaitForOthers(t *testing.T) {
	c := costing(0)
	wish(c, greedyClient, 1, 0, 100, 8)
	if n, _ := spent(proposed(c), greedyClient); n != 100 {
		t.Fatalf("%d of 100 costly requests were proposed though nobody else was there", n)
	}
	const ticks = 200
	cost, served := 0, 0
	meet(c)
	for tick := range ticks {
		c.Tick()
		wish(c, greedyClient, message.Timestamp(tick+2), 0, 100, 8)
		wish(c, busyClient, message.Timestamp(tick+2), 0, 10, 0)
		batches := proposed(c)
		n, _ := spent(batches, busyClient)
		_, spend := spent(batches, greedyClient)
		served, cost = served+n, cost+spend
	}
	if served != 10*ticks {
		t.Errorf("of the busy client %d requests were proposed, want all %d", served, 10*ticks)
	}
	if most, least := (ticks+4)*costPerTick, (ticks-2)*costPerTick/2; cost > most || cost < least {
		t.Errorf("costly requests cost %d in %d ticks, want %d to %d", cost, ticks, least, most)
	}
	for range busyTicks {
		c.Tick()
		proposed(c)
	}
	if n := c.Pending(); n != 0 {
		t.Errorf("%d requests still wait though nobody else was served for long", n)
	}
}

// Clients that wait for costly requests are served in turn, each for as much cost; and
// what is not costly does not wait behind what is, of the same client either.
func TestCostlyRequestsInTurn(t *testing.T) {
	c := costing(0)
	costs, common := map[message.ClientID]int{}, 0
	meet(c)
	for tick := range 400 {
		c.Tick()
		wish(c, greedyClient, message.Timestamp(tick+1), 0, 60, 16)
		wish(c, otherClient, message.Timestamp(tick+1), 0, 60, 1)
		wish(c, greedyClient, message.Timestamp(tick+1), 60, 1, 0)
		wish(c, busyClient, message.Timestamp(tick+1), 0, 1, 0)
		batches := proposed(c)
		for _, id := range []message.ClientID{greedyClient, otherClient} {
			_, cost := spent(batches, id)
			costs[id] += cost
		}
		for _, b := range batches {
			for _, r := range b.Requests {
				if r.Client == greedyClient && !costly(r) {
					common++
				}
			}
		}
	}
	if common != 400 {
		t.Errorf("%d common requests of the client with costly ones were proposed at once, want 400", common)
	}
	if a, b := costs[greedyClient], costs[otherClient]; 10*a > 11*b || 10*b > 11*a {
		t.Errorf("in turn two clients were served costs of %d and %d", a, b)
	}
}

// One client has so much cost waiting, and a batch no more than the group allows.
func TestCostIsBounded(t *testing.T) {
	c := costing(0)
	wish(c, greedyClient, 1, 0, 100, 16)
	if sum := c.queue.find(greedyClient).costly.cost; sum > lineCost || c.Refused(TooManyRequests) == 0 {
		t.Errorf("a client has a cost of %d waiting, want at most %d, and %d refused",
			sum, lineCost, c.Refused(TooManyRequests))
	}
	for _, b := range proposed(c) {
		sum := 0
		for _, r := range b.Requests {
			sum += r.Cost
		}
		if sum > c.cfg.Batch.Cost {
			t.Errorf("a batch costs %d, want at most %d", sum, c.cfg.Batch.Cost)
		}
	}
	wish(c, busyClient, 1, 0, 1, 255) // more than a batch may cost
	if n, _ := spent(proposed(c), busyClient); n != 1 {
		t.Error("a request that costs more than a batch may is never proposed")
	}
}

// A costly request that waits for its turn is no reason to leave the view, for as long as
// four clients may be before it. One that is not costly is, whatever waits beside it.
func TestViewOutlivesCostlyRequests(t *testing.T) {
	waits := func(units ...byte) (ticks int) {
		c := costing(1)
		for i, u := range units {
			r := &message.Request{Client: greedyClient, Slot: message.Slot(i), Timestamp: 1, Op: []byte{u}}
			r.Authentic = true
			c.Step(r)
			for from := message.ReplicaID(2); from < 4; from++ {
				c.Step(&message.Forward{Client: r.Client, Slot: r.Slot, Timestamp: 1, Digest: r.Digest(), From: from})
			}
			c.Tick()
		}
		for ; ticks < 10*costlyTicks; ticks++ {
			if _, active := c.View(); !active {
				break
			}
			c.Tick()
			c.Effects()
		}
		return ticks
	}
	if n := waits(16); n < costlyTicks || n > 2*costlyTicks {
		t.Errorf("the view was left %d ticks after a costly request came, want after %d or a little more",
			n, costlyTicks)
	}
	for _, units := range [][]byte{{0}, {16, 0}} {
		if n := waits(units...); n > 40 {
			t.Errorf("the view was left after %d ticks, want after about 20: requests of %d units wait", n, units)
		}
	}
}

// A request that a client sent before it began a new life is not proposed until 2f+1
// replicas hold it: others may not be able to check it any more.
func TestOldKeysAreInDoubt(t *testing.T) {
	c := costing(0)
	c.Tick()
	wish(c, busyClient, 1, 0, 1, 0)
	proposed(c)
	wish(c, greedyClient, 1, 0, 3, 16)
	proposed(c) // one of them, for which there is an allowance
	c.ClientKeysChanged(greedyClient)
	var batches []*message.Batch
	for range 10 * busyTicks {
		c.Tick()
		batches = append(batches, proposed(c)...)
	}
	if n, _ := spent(batches, greedyClient); n != 0 {
		t.Fatalf("%d requests were proposed that others may not be able to check", n)
	}
	r := c.queue.find(greedyClient).pending[2]
	for from := message.ReplicaID(1); from < 4; from++ {
		c.Step(&message.Forward{Client: r.Client, Slot: r.Slot, Timestamp: 1, Digest: r.Digest(), From: from})
	}
	if n, _ := spent(proposed(c), greedyClient); n != 1 {
		t.Error("a request that all hold is not proposed")
	}
}
