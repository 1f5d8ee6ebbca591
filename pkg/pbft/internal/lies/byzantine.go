// SPDX-License-Identifier: Apache-2.0

package lies

import (
	"slices"
	"sync/atomic"

	"bfs/pkg/pbft/internal/message"
)

// Byzantine has a replica say something false in every vote and result: PREPAREs for batches that
// nobody proposed, COMMITs for batches that did not prepare here, CHECKPOINTs of states that
// no replica has, results with a byte changed. All other messages are true, so that
// the others do not cut it off. It counts its lies.
type Byzantine struct{ Votes, Checkpoints, Results atomic.Uint64 }

// Habits are those of a replica that lies.
func (b *Byzantine) Habits() Habits { return Habits{Message: b.message, Result: b.result} }

func (b *Byzantine) message(m message.Message) message.Message {
	switch m := m.(type) {
	case *message.Prepare:
		lie := *m
		lie.Digest[0] ^= 0xff
		b.Votes.Add(1)
		return &lie
	case *message.Commit:
		lie := *m
		lie.Seq++
		b.Votes.Add(1)
		return &lie
	case *message.Checkpoint:
		lie := *m
		lie.Digest[0] ^= 0xff
		b.Checkpoints.Add(1)
		return &lie
	}
	return m
}

func (b *Byzantine) result(r []byte) []byte {
	if len(r) == 0 {
		return r
	}
	lie := slices.Clone(r)
	lie[len(lie)-1] ^= 0xff
	b.Results.Add(1)
	return lie
}
