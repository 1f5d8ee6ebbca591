// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// Replica 2 votes for other batches and names other roots than the group does, sooner or
// later than what is right is certain. It is named, and nobody else is; and it is not
// called false any more when its word on a checkpoint is right again.
func TestDisputes(t *testing.T) {
	c := newAttacked(1, 0)
	c.Frozen(0, message.Digest{1})
	const liar, late = 2, 3
	wrong := message.Digest{0xff}
	for n := message.SeqNum(1); n <= 8; n++ {
		p := proposal(n, "x")
		c.Step(p)
		perform(c)
		vote := func(i message.ReplicaID, d message.Digest) { c.Step(&message.Prepare{Seq: n, Digest: d, From: i}) }
		lie := func() { vote(liar, wrong) }
		if n%2 == 0 {
			lie()
		}
		vote(late, p.Digest)
		for _, i := range []message.ReplicaID{0, late} {
			c.Step(&message.Commit{Seq: n, From: i})
		}
		perform(c)
		if n%2 == 1 {
			lie()
		}
		if n%4 == 0 {
			root := message.Digest{byte(n)}
			said := wrong
			if n == 8 {
				said = root
			}
			if n == 4 {
				c.Step(&message.Checkpoint{Seq: n, Digest: said, From: liar})
			}
			for _, i := range []message.ReplicaID{0, late} {
				c.Step(&message.Checkpoint{Seq: n, Digest: root, From: i})
			}
			c.Step(&message.Checkpoint{Seq: n, Digest: said, From: liar}) // again, or for the first time
			perform(c)
			if d := c.Dispute(liar); d.False != (n == 4) {
				t.Errorf("after checkpoint %d: got %+v", n, d)
			}
		}
	}
	if got, want := c.Dispute(liar), (Dispute{Votes: 8, Roots: 2}); got != want {
		t.Errorf("the liar: got %+v, want %+v", got, want)
	}
	for _, i := range []message.ReplicaID{0, 1, late} {
		if got := c.Dispute(i); got != (Dispute{}) {
			t.Errorf("replica %d: got %+v", i, got)
		}
	}
}
