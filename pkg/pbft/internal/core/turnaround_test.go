// SPDX-License-Identifier: Apache-2.0

package core

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A backup judges the primary by how long it keeps requests, beside how long the backups take to
// agree on the same batches. It does not count that COMMITs wait for the primary's next proposal,
// and an agreement that was slow once excuses nothing else.
func TestSlowPrimary(t *testing.T) {
	const batches = 8
	for _, c := range []struct {
		name         string
		late, agreed func(n message.SeqNum) int // ticks
		want         bool
	}{
		{"quick", always(0), always(0), false},
		{"as slow as the wires", always(8), always(4), false},
		{"slow", always(10), always(0), true},
		{"slow, and COMMITs come with the next proposal", always(20), always(1), true},
		{"slow, and one agreement too", always(10), only(4, 60), true},
		{"slow once", only(3, 60), always(0), false},
	} {
		f := newForgetful(1, 0)
		for n := message.SeqNum(1); n <= batches; n++ {
			r := &message.Request{Client: 5, Timestamp: message.Timestamp(n), Apart: true, Op: []byte{byte(n)},
				Authentic: true, PassedBy: 1}
			f.hear(r)
			f.pass(c.late(n))
			b := message.Batch{Requests: []*message.Request{r}}
			f.hear(&message.PrePrepare{Seq: n, Digest: b.Digest(), Batch: b, From: 0})
			f.pass(c.agreed(n))
			var earlier []message.SeqNum
			if n > 1 {
				earlier = append(earlier, n-1)
			}
			for _, i := range []message.ReplicaID{2, 3} {
				f.hear(&message.Prepare{Seq: n, Digest: b.Digest(), Commits: earlier, From: i})
			}
		}
		f.said = nil
		f.pass(2 * 15)
		says := false
		for _, m := range f.said {
			s, ok := m.(*message.Status)
			says = says || ok && s.SlowPrimary
		}
		if f.LastExecuted() < batches-1 || says != c.want {
			t.Errorf("%s: executed %d batches, slow %v, want %v", c.name, f.LastExecuted(), says, c.want)
		}
	}
}

func always(ticks int) func(message.SeqNum) int { return func(message.SeqNum) int { return ticks } }

// only is so many ticks for one batch, and none for the others.
func only(n message.SeqNum, ticks int) func(message.SeqNum) int {
	return func(m message.SeqNum) int {
		if m == n {
			return ticks
		}
		return 0
	}
}
