// SPDX-License-Identifier: Apache-2.0

package client

import (
	"errors"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// answer is what a correct replica says of a request that has committed.
func answer(i message.ReplicaID, q *message.Request) *message.Reply {
	a := message.Answer{Slot: q.Slot, Timestamp: q.Timestamp, Full: true, Length: 1, Result: []byte("r")}
	return &message.Reply{From: i, Answers: []message.Answer{a}}
}

// begun is a client of four replicas that knows where its timestamps begin.
func begun(slots int) *Client {
	c := New(Config{Client: 9, Replicas: 4, Slots: slots}, &play{})
	for i := range message.ReplicaID(3) {
		c.Latest(i, c.Nonce(), 0)
	}
	return c
}

// A call uses the memory of the one before it in its slot.
func TestCallsUseMemoryAgain(t *testing.T) {
	c := begun(1)
	var replies [3]*message.Reply
	for i := range replies {
		replies[i] = answer(message.ReplicaID(i), &message.Request{})
	}
	op := Operation{Body: []byte("w")}
	call := func() {
		s := c.Start(0, op)
		for _, m := range replies {
			m.Answers[0].Slot, m.Answers[0].Timestamp = s, c.Request(s).Timestamp
			c.Reply(0, m)
		}
		done := c.Effects()
		if len(done) != 2 || done[1].Verb != Done || string(done[1].Result) != "r" {
			t.Fatalf("got %v", done)
		}
		c.Free(s)
	}
	call()
	call() // two lists of effects take turns
	if n := testing.AllocsPerRun(100, call); n > 0 {
		t.Errorf("%v allocations a call, want none", n)
	}
}

// A call that could not be sent ends with the reason, and one that is over does not end twice.
func TestFail(t *testing.T) {
	c, full := begun(1), errors.New("disk full")
	s := c.Start(0, Operation{Body: []byte("w")})
	c.Fail(s, full)
	c.Fail(s, full)
	effects := c.Effects()
	if len(effects) != 2 || !errors.Is(effects[1].Err, full) {
		t.Fatalf("got %v, want a request and its end", effects)
	}
	if c.Free(s); !c.Room(1) {
		t.Error("its slot is not free")
	}
}

// That another process uses the key is believed of f+1, for as long as they say so.
func TestRivalry(t *testing.T) {
	c, why := begun(1), errors.New("in use")
	for range 10 {
		if c.Rival(0, 2, why) || c.InUse(0) != nil {
			t.Fatal("one replica is believed")
		}
	}
	if !c.Rival(0, 1, why) || c.Rival(0, 1, why) {
		t.Error("it is news the first time, and not the second")
	}
	if c.InUse(holdPeriod-1) == nil || c.InUse(holdPeriod) != nil {
		t.Error("calls fail for a while, and not for ever")
	}
	if c.Rival(RivalPeriod, 1, why) {
		t.Error("what replica 2 said long ago counts")
	}
}

// Long operations are under way one by one if they are very long; short ones do not wait
// for them, but more patiently.
func TestLongOperationsShareARoom(t *testing.T) {
	c := begun(4)
	before := c.patience.behind()
	s := c.Start(0, Operation{Body: make([]byte, firstBulk)})
	if c.Room(bulkLength) || !c.Room(bulkLength-1) {
		t.Error("there is room for another long operation, or for no short one")
	}
	if c.patience.behind() <= before {
		t.Error("nobody waits longer for it")
	}
	if c.Free(s); !c.Room(bulkLength) || c.patience.behind() != before {
		t.Error("it is under way after its end")
	}
}

// Next is no later than the time at which Tick has something to do.
func TestNext(t *testing.T) {
	c := begun(2)
	if _, ok := c.Next(0); ok {
		t.Error("a client without calls waits for something")
	}
	c.Start(0, Operation{Body: []byte("w")})
	c.Effects()
	for now, sent := Time(0), 0; sent < 5; {
		at, ok := c.Next(now)
		if !ok || at <= now {
			t.Fatalf("at %v the next look is at %v, %t", now, at, ok)
		}
		if c.Tick(at - 1); len(c.Effects()) > 0 {
			t.Fatalf("something was due before %v", at)
		}
		c.Tick(at)
		now, sent = at, sent+len(c.Effects())
	}
}
