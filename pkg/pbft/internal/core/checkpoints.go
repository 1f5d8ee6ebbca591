// SPDX-License-Identifier: Apache-2.0

package core

import (
	"cmp"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A checkpoint is taken when K batches have been executed since the last one, or when their
// operations have so many bytes that it pays to let the log forget them: a log of large operations
// lies in fresh memory, and the first touch of that is expensive. Its number follows from the last
// checkpoint and the batches since, so all replicas take the same ones.

// checkpoints holds the last stable checkpoint, and our and the others' CHECKPOINTs above it.
type checkpoints struct {
	*base
	log     *messageLog
	ring    []checkpointSlot     // above it, by number/step
	claims  claims               // also of those above the window
	fetched message.CheckpointID // the last whose state was fetched
	taken   message.SeqNum       // the last that our state holds
	since   int                  // bytes of the operations executed after it
}

func (x *checkpoints) init(b *base, l *messageLog) {
	*x = checkpoints{base: b, log: l, ring: make([]checkpointSlot, b.cfg.LogSize/b.cfg.step()+2), claims: newClaims(b)}
	for i := range x.ring {
		x.ring[i].votes = newVotes(b.cfg.Replicas)
	}
}

// isDue reports whether a checkpoint is due at batch n, given the bytes of operations since the
// last checkpoint.
func (x *checkpoints) isDue(n message.SeqNum, bytes int) bool {
	return n%x.cfg.step() == 0 && (n-x.taken >= x.cfg.CheckpointPeriod ||
		x.cfg.CheckpointBytes > 0 && bytes >= x.cfg.CheckpointBytes)
}

// willBeDue reports whether a batch that has prepared will bring a checkpoint.
func (x *checkpoints) willBeDue(s *slot) bool {
	bytes := x.since
	for n := x.log.next(); n <= s.seq; n++ {
		bytes += x.log.slot(n).size
	}
	return x.isDue(s.seq, bytes)
}

// from is the first checkpoint at or above batch n that null batches will bring.
func (x *checkpoints) from(n message.SeqNum) message.SeqNum {
	k := x.cfg.CheckpointPeriod
	return x.taken + (max(n, x.taken)-x.taken+k-1)/k*k
}

// A checkpointSlot gathers the statements about one checkpoint above the stable one.
type checkpointSlot struct {
	seq   message.SeqNum
	votes votes
	due   bool // our own state was there, and its root is known or being computed
	ours  bool // its root is our vote
}

func (x *checkpoints) at(n message.SeqNum) *checkpointSlot {
	k := &x.ring[uint64(n/x.cfg.step())%uint64(len(x.ring))]
	if k.seq != n {
		k.seq, k.due, k.ours = n, false, false
		k.votes.clear()
	}
	return k
}

// find is what was said of checkpoint n, nil if nothing is kept of that.
func (x *checkpoints) find(n message.SeqNum) *checkpointSlot {
	if k := &x.ring[uint64(n/x.cfg.step())%uint64(len(x.ring))]; k.seq == n {
		return k
	}
	return nil
}

// each calls f for the checkpoints above low that our state has come to and that are not known to
// be stable. A call of f may make one of them stable and move our marks; then those below it are no
// longer ours. A fetched checkpoint comes first, because we hold none below it.
func (x *checkpoints) each(low message.SeqNum, f func(message.CheckpointID)) {
	step := x.cfg.step()
	for n := (max(x.log.low, low)/step + 1) * step; n <= min(x.log.lastExec, x.log.high); n += step {
		if root, known := x.root(n); known {
			f(message.CheckpointID{Seq: n, Digest: root})
		}
	}
}

// root is the root of our state after n, if it is known and n above the low water mark:
// computed here, or of a state that was fetched and may lie above the window.
func (x *checkpoints) root(n message.SeqNum) (message.Digest, bool) {
	if x.fetched.Seq == n {
		return x.fetched.Digest, true
	}
	if !x.log.contains(n) {
		return message.Digest{}, false
	}
	k := x.at(n)
	return k.votes.digests[x.cfg.Self], k.ours
}

// recall counts the others' claims of checkpoints that were above the window and are in it now.
func (x *checkpoints) recall() {
	for _, all := range x.claims.of {
		for _, m := range all {
			if x.log.contains(m.Seq) {
				x.at(m.Seq).votes.add(m.From, m.Digest)
			}
		}
	}
}

// installed: our state is that of checkpoint k now, which was fetched, and it holds no
// other than the one that it was replaced by.
func (x *checkpoints) installed(k message.CheckpointID) {
	x.taken, x.since, x.fetched = k.Seq, 0, k
	for i := range x.ring {
		x.ring[i].due, x.ring[i].ours = false, false
	}
}

// forgetClaims forgets these replicas' claims of checkpoints that are not proven stable.
func (x *checkpoints) forgetClaims(these replicas) {
	for i := range x.ring {
		v := &x.ring[i].votes
		if _, whole := v.with(x.quorum()); !whole {
			v.forget(these, x.cfg.Self)
		}
	}
	proven := make([][]message.Checkpoint, len(x.claims.of))
	for i, all := range x.claims.of {
		for _, k := range all {
			if !these.has(message.ReplicaID(i)) ||
				x.claims.provenStable(message.CheckpointID{Seq: k.Seq, Digest: k.Digest}) {
				proven[i] = append(proven[i], k)
			}
		}
	}
	x.claims.of = proven
}

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
	return slices.BinarySearchFunc(x.of[i], n, func(k message.Checkpoint, n message.SeqNum) int {
		return cmp.Compare(k.Seq, n)
	})
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
		at, known := x.find(message.ReplicaID(i), id.Seq)
		if known && all[at].Digest == id.Digest && (all[at].Stable || !stable) {
			n++
		}
	}
	return n
}
