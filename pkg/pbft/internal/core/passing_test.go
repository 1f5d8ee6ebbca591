// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A client sends long operations to the backups alone, one in ten ticks, so that each time another
// is passed on when the oldest would be. The oldest is passed on all the same, or the backups would
// leave a primary that never had it.
func TestWhatTheTimerRunsForIsPassedOn(t *testing.T) {
	const forward, timeout = 3, 40
	c := New(Config{
		Self: 1, Replicas: 4, CheckpointPeriod: 4, LogSize: 8, Window: 2, Separate: true,
		Batch: BatchLimit{Bytes: 1 << 20, Count: 8}, LogBytes: 1 << 22, Clients: 4, Slots: 8, QueueBytes: 1 << 24,
		Ticks: Ticks{Status: 100, Resend: 5, Forward: forward, Timeout: timeout},
	})
	perform(c)
	send := func(slot message.Slot, at int) (r *message.Request) {
		for _, apart := range []bool{true, false} {
			r = &message.Request{Client: 9, Slot: slot, Timestamp: message.Timestamp(at), Apart: apart,
				Op: make([]byte, 1<<20), PassedBy: 1, Authentic: true}
			c.Step(r)
		}
		return r
	}
	const oldest = 7
	passed := map[message.Slot]int{}
	for tick := 1; passed[oldest] == 0; tick++ {
		switch {
		case tick == 5:
			r := send(oldest, tick)
			for _, i := range []message.ReplicaID{2, 3} {
				c.Step(&message.Forward{Client: 9, Slot: r.Slot, Timestamp: r.Timestamp, Digest: r.Digest(), From: i})
			}
		case tick%tellTicks == 2:
			send(message.Slot(tick/tellTicks%2), tick)
		}
		c.Tick()
		for _, m := range perform(c) {
			if r, ok := m.(*message.Request); ok && !r.IsStub() {
				passed[r.Slot]++
			}
		}
		if v, _ := c.View(); v > 0 {
			t.Fatalf("it leaves the view at tick %d, and the primary was sent %v of each slot", tick, passed)
		}
	}
	if passed[0] == 0 {
		t.Error("nothing else was passed on")
	}
}
