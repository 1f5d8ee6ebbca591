// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math/rand/v2"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A roomy is a queue to which clients bring operations of one length.
type roomy struct {
	*testing.T
	queue
	length int
}

func newRoomy(t *testing.T, room, length int) *roomy {
	x := &roomy{T: t, length: length}
	x.init(16, room)
	return x
}

func (x *roomy) request(c message.ClientID, s message.Slot) *message.Request {
	return &message.Request{Client: c, Slot: s, Timestamp: 1, Op: make([]byte, x.length)}
}

// fill brings requests of a client until one is refused, and counts those that wait.
func (x *roomy) fill(c message.ClientID) int {
	for s := range message.Slot(x.slots) {
		if x.add(x.request(c, s), 1) == TooManyRequests {
			break
		}
	}
	return x.line(c).count
}

// A client leaves as much of the room as it has, so that one that comes later finds the same.
func TestRoomIsShared(t *testing.T) {
	x := newRoomy(t, 1200, 100)
	for i, want := range []int{6, 3, 1, 1} {
		if got := x.fill(message.ClientID(i)); got != want {
			t.Errorf("client %d: %d operations wait, want %d", i, got, want)
		}
	}
	x.complete(x.line(0).pending[0])
	x.complete(x.line(0).pending[1])
	if got := x.fill(2); got != 2 {
		t.Errorf("when two were executed %d of client 2 wait, want another", got)
	}
	if got := x.fill(0); got != 4 {
		t.Errorf("%d of client 0 wait, want no more than the four that are left: too little is free for a fifth", got)
	}
}

// However full the room is, an operation of any length finds a place in it for a client that has
// none, waiting or laid by, and all together stay within the bound.
func TestRoomForOneOfEach(t *testing.T) {
	const clients, longest = 40, 700
	x := newRoomy(t, 1000, 10)
	for c := range message.ClientID(10) {
		x.fill(c)
	}
	x.length = longest
	for c := range message.ClientID(clients) {
		if c >= 20 {
			if why := x.layBy(x.request(c, 3)); why != accepted {
				t.Errorf("client %d: its only operation is not laid by: %v", c, why)
			}
		}
		if c >= 10 && x.fill(c) != 1 {
			t.Errorf("client %d: %d operations wait, want one", c, x.line(c).count)
		}
		if x.layBy(x.request(c, 4)) == accepted {
			t.Errorf("client %d: another operation is laid by", c)
		}
	}
	if x.room.bytes > x.room.size+clients*longest {
		t.Errorf("%d bytes wait, want at most %d and %d of each of %d clients", x.room.bytes, x.room.size,
			longest, clients)
	}
}

// Replicas without room come to hold the same request of a client, in whatever order its requests
// reach them: only for a request that a quorum holds does anybody's timer run.
func TestRoomIsForTheLowestSlot(t *testing.T) {
	for seed := range uint64(50) {
		x := newRoomy(t, 1000, 100)
		for c := message.ClientID(1); x.room.bytes < 950; c++ {
			x.fill(c)
		}
		const lowest = 3
		order := rand.New(rand.NewPCG(seed, 0)).Perm(x.slots - lowest)
		for _, s := range order {
			x.add(x.request(99, message.Slot(lowest+s)), 1)
		}
		if l := x.line(99); l.pending[lowest] == nil || l.count != 1 {
			t.Fatalf("order %v: %d requests wait, the one in the lowest slot: %t", order, l.count,
				l.pending[lowest] != nil)
		}
		r := x.request(99, lowest)
		if r.Timestamp++; x.add(r, 1) != accepted || x.line(99).count != 1 || x.line(99).pending[lowest] != r {
			t.Fatal("a later request of the slot has no place")
		}
	}
}

// The room is as full as the operations in it are long, whatever comes, goes, and is refused.
func TestRoomIsGivenBack(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	x := newRoomy(t, 2000, 0)
	for range 20000 {
		c, s := message.ClientID(random.IntN(5)), message.Slot(random.IntN(x.slots))
		x.length = random.IntN(300)
		r := x.request(c, s)
		r.Timestamp = message.Timestamp(random.IntN(1000))
		switch random.IntN(12) {
		case 0:
			x.complete(r)
			x.line(c).done[s].t = 0
		case 1:
			x.retain(func(other message.ClientID) bool { return other != c })
		case 2, 3, 4, 5:
			x.layBy(r)
		default:
			x.add(r, 1)
		}
		sum, count := 0, 0
		for _, l := range x.order {
			own := 0
			for s := range l.pending {
				if l.pending[s] != nil {
					own, count = own+l.pending[s].Length(), count+1
				}
				if l.laidBy[s] != nil {
					own += l.laidBy[s].Length()
				}
			}
			if l.bytes != own {
				t.Fatalf("client %d has %d bytes and counts %d", l.client, own, l.bytes)
			}
			sum += own
		}
		if x.room.bytes != sum || x.total != count {
			t.Fatalf("%d requests and %d bytes wait, and %d and %d are counted", count, sum, x.total, x.room.bytes)
		}
	}
}
