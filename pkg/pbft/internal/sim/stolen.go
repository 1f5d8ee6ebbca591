// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"

	"bfs/pkg/pbft/internal/message"
)

// stolen are the session keys under which a replica spoke when its intruder was expelled. The
// intruder still has them, is on the network, and speaks to the others as that replica until its
// recovery is over. A replica that has executed the recovery request must not accept any of it.
type stolen struct {
	w     *world
	of    int
	rng   *rand.Rand
	under []int  // by replica: the epoch of its keys
	lives []int  // by replica: the life in which it chose them
	since uint64 // the count of the signatures then: the recovery request has a higher one
	seen  []message.Batch
}

// steals lets the intruder in a replica keep its session keys.
func (w *world) steals(i int) *stolen {
	x := &stolen{w: w, of: i, rng: rand.New(rand.NewPCG(uint64(w.now), uint64(i))), since: w.sites[i].counter,
		seen: w.sites[i].memory.batches}
	for to, s := range w.sites {
		x.under, x.lives = append(x.under, w.keys.under(i, to)), append(x.lives, s.copies[0].life)
	}
	return x
}

// speak sends a message to each of the others, and repeats that.
func (x *stolen) speak() {
	if s := x.w.sites[x.of]; !s.corrupt || s.edits() {
		return
	}
	for to, s := range x.w.sites {
		if peer := s.copies[0]; to != x.of && !s.twins && peer.life == x.lives[to] {
			x.w.network.send(x.of, to, func() {
				if peer.life == x.lives[to] {
					peer.running(func() { x.tell(peer) })
				}
			})
		}
	}
	x.w.after(1+x.rng.Int64N(5*tick), x.speak)
}

// tell sends a replica a message that it may act on.
func (x *stolen) tell(r *replica) {
	under := x.under[r.id]
	if r.w.keys.now(r.id, x.of) == under && !r.aside() && !r.installing && r.recoveredSince(x) {
		r.w.fail("replica %d has executed the recovery request of %d, and hears what was sealed "+
			"under a key that an intruder has", r.id, x.of)
		return
	}
	r.gather(x.of, frame{encode(x.forge(r)), under})
}

// recoveredSince reports whether a replica's state has a recovery request of the one
// whose keys were stolen, made since.
func (r *replica) recoveredSince(x *stolen) bool {
	return uint64(r.exec.Ledger().Recovery(message.ReplicaID(x.of)).Timestamp) > x.since
}

// forge is a message that the replica never sent.
func (x *stolen) forge(r *replica) message.Message {
	view, _ := r.core.View()
	n := r.core.Low() + 1 + message.SeqNum(x.rng.Uint64N(uint64(r.w.shape.log)))
	batch := message.Batch{Choice: []byte{byte(x.rng.IntN(3))}}
	if len(x.seen) > 0 {
		batch = x.seen[x.rng.IntN(len(x.seen))]
	}
	switch digest := batch.Digest(); x.rng.IntN(7) {
	case 0:
		return &message.PrePrepare{View: view, Seq: n, Digest: digest, Batch: batch}
	case 1:
		return &message.Prepare{View: view, Seq: n, Digest: digest}
	case 2:
		return &message.Commit{View: view, Seq: n}
	case 3:
		return &message.Decided{Seq: n, Digest: digest}
	case 4:
		return &message.Checkpoint{Seq: n / r.w.shape.period * r.w.shape.period, Digest: digest,
			Stable: x.rng.IntN(2) == 0}
	case 5:
		return &message.ViewChangeAck{View: view, Of: message.ReplicaID(x.rng.IntN(r.w.n)), Digest: digest}
	}
	return &message.Status{View: view + message.View(x.rng.IntN(3)), Active: x.rng.IntN(2) == 0,
		Low: n, LastExecuted: n}
}
