// SPDX-License-Identifier: Apache-2.0

package core

import (
	"bytes"
	"cmp"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A decision applies the conditions of the decision procedure to a set of VIEW-CHANGEs.
type decision struct {
	*base
	set []*message.ViewChange
}

func (d decision) count(f func(*message.ViewChange) bool) (n int) {
	for _, m := range d.set {
		if f(m) {
			n++
		}
	}
	return n
}

// checkpoint is the highest that f+1 of the set hold and a quorum has not gone beyond (R-VC-21).
func (d decision) checkpoint() (best message.CheckpointID, found bool) {
	for _, m := range d.set {
		for _, k := range m.Checkpoints {
			if found && k.Seq <= best.Seq {
				continue
			}
			reach := d.count(func(m *message.ViewChange) bool { return m.Low <= k.Seq })
			hold := d.count(func(m *message.ViewChange) bool { return slices.Contains(m.Checkpoints, k) })
			if reach >= d.quorum() && hold >= d.weak() {
				best, found = k, true
			}
		}
	}
	return best, found
}

// choose finds a digest for every number above the checkpoint, up to the last one that B
// does not leave empty. Not ok: more VIEW-CHANGEs are needed (R-VC-22).
func (d decision) choose(start message.SeqNum) (chosen []message.Digest, ok bool) {
	end := 0
	for n := start + 1; n <= start+d.cfg.LogSize; n++ {
		digest, ok := d.candidate(n)
		if ok {
			end = int(n - start)
		} else if !d.empty(n) {
			return nil, false
		} else {
			digest = message.NullDigest
		}
		chosen = append(chosen, digest)
	}
	return chosen[:end], true
}

// candidate is the digest that A gives for n: of the highest view, and of these the smallest.
func (d decision) candidate(n message.SeqNum) (best message.Digest, found bool) {
	var view message.View
	for _, m := range d.set {
		p, ok := entry(m.P, n)
		if !ok || !d.holds(p) {
			continue
		}
		if !found || p.View > view || p.View == view && bytes.Compare(p.Digest[:], best[:]) < 0 {
			best, view, found = p.Digest, p.View, true
		}
	}
	return best, found
}

// holds is condition A for a tuple of a P. A1: a quorum has collected nothing at n and prepared
// nothing there that contradicts it. A2: f+1 say that they pre-prepared it then or later, so that
// one correct replica did [TOCS Fig. 4].
func (d decision) holds(p message.Prepared) bool {
	a1 := d.count(func(m *message.ViewChange) bool {
		q, has := entry(m.P, p.Seq)
		return m.Low < p.Seq && (!has || q.View < p.View || q.View == p.View && q.Digest == p.Digest)
	})
	return a1 >= d.quorum() && d.witnessed(p)
}

// witnessed is condition A2.
func (d decision) witnessed(p message.Prepared) bool {
	return d.count(func(m *message.ViewChange) bool {
		i, has := slices.BinarySearchFunc(m.Q, p, func(q, p message.Prepared) int {
			return cmp.Or(cmp.Compare(q.Seq, p.Seq), bytes.Compare(q.Digest[:], p.Digest[:]))
		})
		return has && m.Q[i].View >= p.View
	}) >= d.weak()
}

// empty is condition B: a quorum has collected nothing at n and prepared nothing there.
func (d decision) empty(n message.SeqNum) bool {
	return d.count(func(m *message.ViewChange) bool {
		_, has := entry(m.P, n)
		return m.Low < n && !has
	}) >= d.quorum()
}

// entry finds number n in a P, which rises.
func entry(all []message.Prepared, n message.SeqNum) (message.Prepared, bool) {
	i, has := slices.BinarySearchFunc(all, n, func(p message.Prepared, n message.SeqNum) int {
		return cmp.Compare(p.Seq, n)
	})
	if !has {
		return message.Prepared{}, false
	}
	return all[i], true
}

// justified checks a NEW-VIEW by its conditions, not by making it again: more than one
// choice may be right (R-VC-24, R-VC-31). A applies to every digest, null included
// (R-VC-24a).
func (d decision) justified(m *message.NewView) bool {
	start, ok := d.checkpoint()
	if !ok || start != m.Checkpoint || len(d.set) < d.quorum() {
		return false
	}
	for i := range d.cfg.LogSize {
		n := start.Seq + 1 + i
		if int(i) >= len(m.Chosen) {
			if !d.empty(n) {
				return false
			}
			continue
		}
		digest := m.Chosen[i]
		prepared := slices.ContainsFunc(d.set, func(vc *message.ViewChange) bool {
			p, has := entry(vc.P, n)
			return has && p.Digest == digest && d.holds(p)
		})
		if !prepared && !(digest == message.NullDigest && d.empty(n)) {
			return false
		}
	}
	return true
}
