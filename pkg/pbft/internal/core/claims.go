// SPDX-License-Identifier: Apache-2.0

package core

import (
	"cmp"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// claims are the checkpoints that each replica was heard to speak of, whether in our window or not
// (R-GC-5): the highest maxClaims of each, by rising number. Whether a checkpoint above our window
// exists, or is stable, is known from here alone.
type claims struct {
	*base
	of [][]message.Checkpoint // by replica
}

// maxClaims bounds the checkpoints that are remembered of one replica.
const maxClaims = 16

func newClaims(b *base) claims { return claims{b, make([][]message.Checkpoint, b.cfg.Replicas)} }

// note keeps a replica's claim of a checkpoint. It returns false if no checkpoint can have that
// number.
func (x *claims) note(m *message.Checkpoint) bool {
	if m.Seq%x.cfg.step() != 0 || m.Seq == 0 {
		return false
	}
	all := &x.of[m.From]
	at, known := x.find(m.From, m.Seq)
	switch {
	case known:
		if m.Stable && (*all)[at].Digest == m.Digest {
			(*all)[at].Stable = true
		}
	case len(*all) < maxClaims:
		*all = slices.Insert(*all, at, *m)
	case at > 0:
		copy(*all, (*all)[1:at])
		(*all)[at-1] = *m
	}
	return true
}

// find is where replica i's word for checkpoint n stands, or would stand.
func (x *claims) find(i message.ReplicaID, n message.SeqNum) (at int, known bool) {
	return slices.BinarySearchFunc(x.of[i], n, func(k message.Checkpoint, n message.SeqNum) int { return cmp.Compare(k.Seq, n) })
}

// highest returns the highest checkpoint above some number that f+1 replicas claim with equal
// roots: one of them is correct, so it is a state of the group. With stable, f+1 claim that it is
// stable, so it is, and the low water mark may follow it. It runs in every tick, and mostly no
// replica claims a checkpoint above what was executed here.
func (x *claims) highest(above message.SeqNum, stable bool) (best message.CheckpointID, found bool) {
	for i := range x.of {
		for _, k := range slices.Backward(x.of[i]) {
			if k.Seq <= max(above, best.Seq) {
				break
			}
			id := message.CheckpointID{Seq: k.Seq, Digest: k.Digest}
			if x.provenStable(id) || !stable && x.count(id, false) >= x.weak() {
				best, found = id, true
				break
			}
		}
	}
	return best, found
}

// provenStable: f+1 say that a checkpoint is stable, one of them correct, or a quorum has it.
func (x *claims) provenStable(k message.CheckpointID) bool {
	return x.count(k, true) >= x.weak() || x.count(k, false) >= x.quorum()
}

// count is the number of replicas that speak of a checkpoint, or that say it is stable.
func (x *claims) count(id message.CheckpointID, stable bool) (n int) {
	for i, all := range x.of {
		if at, known := x.find(message.ReplicaID(i), id.Seq); known && all[at].Digest == id.Digest && (all[at].Stable || !stable) {
			n++
		}
	}
	return n
}
