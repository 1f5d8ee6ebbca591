// SPDX-License-Identifier: Apache-2.0

package wire

import "sync/atomic"

// Refusals counts messages refused for one reason.
type Refusals struct {
	Reason string `json:"reason"`
	Count  uint64 `json:"count"`
}

// EdgeCounts counts refusals at the edge.
type EdgeCounts struct {
	Malformed, BadKey, Unexpected, Dropped, KeyInUse atomic.Uint64
	Repeated, Chatter                                atomic.Uint64

	badMAC, oldKey atomic.Uint64
}

// List returns them, each with its reason.
func (e *EdgeCounts) List() []Refusals {
	return []Refusals{
		{"malformed", e.Malformed.Load()},
		{"bad MAC", e.badMAC.Load()},
		{"under a key of the last epoch", e.oldKey.Load()},
		{"bad NEW-KEY", e.BadKey.Load()},
		{"unexpected on this connection", e.Unexpected.Load()},
		{"queue to peer full", e.Dropped.Load()},
		{"a client's key in use by two processes", e.KeyInUse.Load()},
		{"asked again too often", e.Repeated.Load()},
		{"replica says too much", e.Chatter.Load()},
	}
}

// GateCounts counts refusals of the gate.
type GateCounts struct{ hello, often, frames atomic.Uint64 }

// List returns them, each with its reason.
func (c *GateCounts) List() []Refusals {
	return []Refusals{
		{"hello of nobody we know", c.hello.Load()},
		{"connections too often", c.often.Load()},
		{"frames too often", c.frames.Load()},
	}
}
