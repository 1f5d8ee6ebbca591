// SPDX-License-Identifier: Apache-2.0

package core

import (
	"strconv"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// The past has the batches that were added last, without a gap, as many as there is room for.
func TestPast(t *testing.T) {
	p := past{entries: make([]pastBatch, 4)}
	digest := func(n message.SeqNum) message.Digest { return message.Digest{byte(n)} }
	add := func(n message.SeqNum, size int) {
		p.add(n, pastBatch{digest(n), &message.Batch{}, size})
	}
	holds := func(low, high message.SeqNum, bytes int) {
		t.Helper()
		if p.low != low || p.high != high || p.bytes != bytes {
			t.Fatalf("holds (%d, %d], %d bytes; want (%d, %d], %d bytes", p.low, p.high, p.bytes, low, high, bytes)
		}
		for n := message.SeqNum(1); n < 32; n++ {
			if held := p.find(digest(n)) != nil; held != (low < n && n <= high) {
				t.Errorf("batch %d held: %t", n, held)
			}
		}
	}
	for n := message.SeqNum(1); n <= 6; n++ {
		add(n, 10)
	}
	holds(2, 6, 40)
	p.fit(29)
	holds(4, 6, 20)
	add(9, 5) // 7 and 8 were never here
	holds(8, 9, 5)
	add(10, 7)
	p.fit(0)
	holds(10, 10, 0)
	p.fit(-1)
	add(11, 1)
	holds(10, 11, 1)
}

// A replica that asks again at once is answered as often as the progress that it reports allows.
// More than our own progress is not believed.
func TestHowOftenStatusIsAnswered(t *testing.T) {
	const period = 8
	c := New(Config{
		Self: 1, Replicas: 4, CheckpointPeriod: period, LogSize: 2 * period, Window: 2,
		Batch: BatchLimit{Bytes: 1 << 10, Count: 4}, LogBytes: 1 << 12, Clients: 1, Slots: 1, QueueBytes: 1 << 10,
		Ticks: Ticks{Status: 15, Resend: 5},
	})
	c.log.lastExec = 15
	ask := func(n message.SeqNum) {
		c.Step(&message.Status{Active: true, LastExecuted: n, From: 2})
		c.Effects()
	}
	answered := func(want uint64, when string) {
		t.Helper()
		const asked = 1000
		refused := c.Refused(TooSoon)
		for i := range message.SeqNum(asked) {
			ask(i % 64)
		}
		if got := asked - (c.Refused(TooSoon) - refused); got != want {
			t.Errorf("%s: answered %d STATUSes, want %d", when, got, want)
		}
	}
	answered(askBurst+2, "at first") // 0, 1, 2, and then 7 and 12
	answered(0, "in the same tick")
	for range c.cfg.Ticks.Resend {
		c.Tick()
	}
	answered(1, "a resend interval later")
}

// Batches that were decided are asked for no faster than they are served, however short or long
// they are and however short the way: so nobody is left alone for not answering what came too soon,
// and of long ones no more are under way than take a moment. One that is longer than what is served
// in a moment is asked for all the same.
func TestPullsKeepToWhatIsServed(t *testing.T) {
	for _, x := range []struct{ count, size, atOnce int }{{256, 8, pullsPerReplica}, {128, 100 << 10, 10},
		{64, 1 << 20, 1}, {8, 8 << 20, 1}} {
		t.Run(strconv.Itoa(x.size), func(t *testing.T) {
			cores := make([]*Core, 4)
			for i := range cores {
				cores[i] = New(Config{
					Self: message.ReplicaID(i), Replicas: 4, CheckpointPeriod: 128, LogSize: 256, Window: 2,
					Batch: BatchLimit{Bytes: 1 << 20, Count: 4}, LogBytes: 1 << 30, Clients: 1, Slots: 1,
					QueueBytes: 1 << 10, Ticks: Ticks{Status: 1000, Resend: 5},
				})
			}
			others, behind := cores[:3], cores[3]
			behind.Frozen(0, message.Digest{})
			for n := 1; n <= x.count; n++ {
				op := make([]byte, x.size)
				copy(op, strconv.Itoa(n))
				b := batchOf(string(op))
				for i, c := range others {
					c.bodies.fetched[b.Digest()] = &b
					behind.Step(&message.Decided{Seq: message.SeqNum(n), Digest: b.Digest(),
						From: message.ReplicaID(i)})
				}
			}
			most := 0 // batches asked of one replica at once, when it is known how long they are
			for int(behind.log.lastExec) < x.count {
				if behind.tick == 100 {
					t.Fatalf("%d of %d batches are here after 100 ticks", behind.log.lastExec, x.count)
				}
				for effects := behind.Effects(); len(effects) > 0; effects = behind.Effects() {
					for _, e := range append([]Effect(nil), effects...) {
						m, ok := e.Message.(*message.FetchBatch)
						if !ok {
							continue
						}
						if e.Verb == Multicast {
							t.Fatal("everyone is asked")
						}
						if int(behind.log.lastExec) > x.count/2 {
							most = max(most, len(m.Digests))
						}
						others[e.To].Step(m)
						for _, answer := range perform(others[e.To]) {
							behind.Step(answer)
						}
					}
				}
				for _, c := range cores {
					c.Tick()
				}
			}
			for i, c := range others {
				if n := c.Refused(TooSoon); n > 0 || behind.catchUp.shunned[i] > 0 {
					t.Errorf("replica %d was asked too soon %d times, and is left alone until tick %d",
						i, n, behind.catchUp.shunned[i])
				}
			}
			if most > x.atOnce {
				t.Errorf("%d batches of %d bytes were asked of one replica at once, want <= %d", most, x.size, x.atOnce)
			}
		})
	}
}
