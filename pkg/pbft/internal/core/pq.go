// SPDX-License-Identifier: Apache-2.0

package core

import (
	"bytes"
	"maps"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// pq holds P and Q: the batches that prepared, and those that were pre-prepared here, carried
// across views [TOCS §4.5]. Both are empty while view 0 lasts. P holds at most one tuple for a
// number, Q at most maxCarried.
type pq struct {
	prepared    map[message.SeqNum]carried
	preprepared map[message.SeqNum][]carried
}

// carried is a tuple of P or Q with the batch it is about, which is kept as long as the tuple
// (R-VC-3).
type carried struct {
	message.Prepared
	batch *message.Batch
}

// maxCarried bounds the digests that Q keeps for one number: the newest are kept. Forgetting older
// ones costs liveness only, and only after that many fruitless views with different digests
// (R-VC-7).
const maxCarried = 16

func newPQ() pq {
	return pq{prepared: map[message.SeqNum]carried{}, preprepared: map[message.SeqNum][]carried{}}
}

// carry updates P and Q with a batch that was proposed in the view that we are leaving,
// and that prepared there, or that we pre-prepared [TOCS Fig. 3].
func (x *pq) carry(entry carried, prepared, voted bool) {
	if prepared {
		x.prepared[entry.Seq] = entry
	}
	if prepared || voted { // prepared without our vote: while we were silent
		x.witness(entry)
	}
}

// witness keeps in Q that we pre-prepared a batch.
func (x *pq) witness(entry carried) {
	n := entry.Seq
	q := slices.DeleteFunc(x.preprepared[n], func(x carried) bool { return x.Digest == entry.Digest })
	if q = append(q, entry); len(q) > maxCarried {
		q = q[1:] // the oldest view
	}
	x.preprepared[n] = q
}

// slide forgets the tuples at or below n, which is stable (R-VC-3).
func (x *pq) slide(n message.SeqNum) {
	maps.DeleteFunc(x.prepared, func(old message.SeqNum, _ carried) bool { return old <= n })
	maps.DeleteFunc(x.preprepared, func(old message.SeqNum, _ []carried) bool { return old <= n })
}

// confine forgets the tuples of P above p, and those of Q above q.
func (x *pq) confine(p, q message.SeqNum) {
	maps.DeleteFunc(x.prepared, func(old message.SeqNum, _ carried) bool { return old > p })
	maps.DeleteFunc(x.preprepared, func(old message.SeqNum, _ []carried) bool { return old > q })
}

// otherwise reports whether we voted in view v for another batch than d as number n.
func (x *pq) otherwise(n message.SeqNum, v message.View, d message.Digest) bool {
	return slices.ContainsFunc(x.preprepared[n], func(q carried) bool { return q.View == v && q.Digest != d })
}

// find is the batch with digest d that was carried as number n, nil if there is none.
func (x *pq) find(n message.SeqNum, d message.Digest) *message.Batch {
	if p, ok := x.prepared[n]; ok && p.Digest == d {
		return p.batch
	}
	for _, q := range x.preprepared[n] {
		if q.Digest == d {
			return q.batch
		}
	}
	return nil
}

// tuples are P and Q as a VIEW-CHANGE has them: P for numbers in (low, high] by number, Q
// by number and digest.
func (x *pq) tuples(low, high message.SeqNum) (p, q []message.Prepared) {
	for n := low + 1; n <= high; n++ {
		if t, ok := x.prepared[n]; ok {
			p = append(p, t.Prepared)
		}
		from := len(q)
		for _, t := range x.preprepared[n] {
			q = append(q, t.Prepared)
		}
		slices.SortFunc(q[from:], func(a, b message.Prepared) int { return bytes.Compare(a.Digest[:], b.Digest[:]) })
	}
	return p, q
}

// last is the highest number in P, 0 if P is empty.
func (x *pq) last() (last message.SeqNum) {
	for n := range x.prepared {
		last = max(last, n)
	}
	return last
}

// restore sets P and Q to what a VIEW-CHANGE says. Batches that we chose above the window and no
// longer hold are held by others.
func (x *pq) restore(m *message.ViewChange, low message.SeqNum, bodies map[message.Digest]*message.Batch) {
	for _, p := range m.P {
		if p.Seq > low {
			x.prepared[p.Seq] = carried{p, bodies[p.Digest]}
		}
	}
	for _, q := range m.Q {
		if q.Seq > low && len(x.preprepared[q.Seq]) < maxCarried {
			x.preprepared[q.Seq] = append(x.preprepared[q.Seq], carried{q, bodies[q.Digest]})
		}
	}
}
