package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// What is past is what was added last, without a gap, and as much of it as there is room for.
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

// Who asks again at once is answered as often as what he says of his progress allows, and that is not more than our own.
func TestHowOftenStatusIsAnswered(t *testing.T) {
	const period = 8
	c := New(Config{
		Self: 1, Replicas: 4, CheckpointPeriod: period, LogSize: 2 * period, Window: 2, BatchBytes: 1 << 10, BatchCount: 4,
		LogBytes: 1 << 12, Clients: 1, Slots: 1, QueueBytes: 1 << 10, StatusTicks: 15, ResendTicks: 5,
	})
	c.lastExec = 15
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
	for range c.cfg.ResendTicks {
		c.Tick()
	}
	answered(1, "a resend interval later")
}
