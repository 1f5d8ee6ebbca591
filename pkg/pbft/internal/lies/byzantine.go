// SPDX-License-Identifier: Apache-2.0

package lies

import (
	"slices"
	"sync/atomic"

	"bfs/pkg/pbft/internal/message"
)

// Byzantine is a Teller whose every vote and result is false: PREPAREs for batches that
// nobody proposed, COMMITs for batches that did not prepare here, CHECKPOINTs of states
// that no replica has, results with a byte changed. All other messages are true, so that
// the others do not cut it off.
type Byzantine struct{ Votes, Checkpoints, Results atomic.Uint64 }

// Message implements Teller.
func (b *Byzantine) Message(m message.Message) message.Message {
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

// Result implements Teller.
func (b *Byzantine) Result(r []byte) []byte {
	if len(r) == 0 {
		return r
	}
	lie := slices.Clone(r)
	lie[len(lie)-1] ^= 0xff
	b.Results.Add(1)
	return lie
}
