// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// recoveryEffect does what a recovery asks for, its own or another replica's.
func (r *replica) recoveryEffect(e *core.Effect) {
	switch e.Verb {
	case core.Renew:
		if err := r.keeper.store.Renew(e.Records...); err != nil {
			r.fills(err)
		}
	case core.Renewed:
		durable, err := r.keeper.store.Renewed(e.Seq, e.Records...)
		if err == nil || r.fills(err) {
			r.keeper.store.Flushed(durable, func(f func()) { f() })
		}
	case core.Hush:
		r.mute = true
	case core.Refresh:
		r.w.keys.renewFor(r, int(e.To))
	case core.Sign:
		r.sign(e.Seq)
	case core.Distrust:
		r.distrust(e)
	case core.Healed:
		r.healed(e)
	}
}

// sign makes a recovery request, as the keeper of the replica's key does.
func (r *replica) sign(bound message.SeqNum) {
	w, s := r.w, r.w.sites[r.id]
	s.bound = bound
	s.counter++
	q := message.Recovery{Replica: message.ReplicaID(r.id), Counter: s.counter, Bound: bound}.Request(nil)
	w.seal(q, w.everyone)
	w.judge.in[q.Digest()] = true
	r.say("asks for its recovery, H_M n%d", bound)
	q.Authentic, q.PassedBy = true, message.ReplicaID(r.id)
	r.core.Signed(q)
}

// distrust makes the replica forget the contents of its disk, and recover as one that
// remembers nothing.
func (r *replica) distrust(e *core.Effect) {
	r.say("believes nothing of what it remembers: %s", e.Reason)
	if !r.lies() {
		r.w.fail("replica %d, which is correct, sets aside what it remembers: %s", r.id, e.Reason)
		return
	}
	s := r.w.sites[r.id]
	s.fence, s.view = e.Seq, e.View
	r.setAside()
}

// setAside begins a recovery that knows nothing: the one before it did not come to its end.
func (r *replica) setAside() {
	r.w.marks.hit(markSetAside)
	r.w.sites[r.id].position = store.NoJournal
	r.recover(tick)
}

// trustJournal has the fence say from now on that the journal holds all promises. Not ok: the
// process ends, because the journal's first record must be durable.
func (r *replica) trustJournal() (ok bool) {
	if r.keeper == nil || r.remembers {
		return true
	}
	if !r.flushNow() {
		r.say("stops: it cannot begin its journal")
		r.restart(20 * tick)
		return false
	}
	r.remembers = true
	r.w.sites[r.id].position = uint64(r.keeper.store.Position())
	return true
}

// healed ends the recovery.
func (r *replica) healed(e *core.Effect) {
	w, s := r.w, r.w.sites[r.id]
	r.say("has recovered, at n%d", r.core.Stable().Seq)
	r.recovers, s.lost, s.fence, s.view = false, false, e.Seq, e.View
	if !r.trustJournal() {
		return
	}
	r.exec.Settled(r.core.Stable().Seq)
	w.marks.hit(markRecovered)
	if !s.corrupt || s.edits() {
		return
	}
	// No message about numbers above the window was sent yet.
	s.corrupt, s.cured, s.memory = false, r.core.Stable().Seq+w.shape.log, nil
	w.judge.vows.cures(r.id)
	w.judge.disputes(r)
	if m := r.core.Beginning(); m != nil {
		w.judge.beginning(r, m)
	}
	for n := message.SeqNum(len(w.judge.history)); n <= r.core.LastExecuted(); n++ {
		r.judged(n, r.core.Ran(n)) // this replica may be the first to have executed it
	}
	w.marks.hit(markCured)
	if w.cunning != nil && w.cunning.restarts {
		w.after(1, func() { w.restart(r.id, tick) })
	}
	if w.cured[r.id] = true; len(w.cured) > w.f {
		w.marks.hit(markBeyondF)
	}
	if w.rng.IntN(2) == 0 { // an ordinary restart must not find what the intruder left
		w.after(w.rng.Int64N(100*tick), func() { w.restart(r.id, tick) })
	}
}

// estimates reports whether the replica still asks the others how far they have come, and
// does not take part.
func (r *replica) estimates() bool {
	phase, _, _ := r.core.Recovery()
	return phase == core.Estimating
}

// recoveries draws recoveries, from a stream of their own: the rest of a seed's schedule
// does not change.
func (d *drawing) recoveries(rng *rand.Rand) {
	for range 1 + rng.IntN(4) {
		i, t, rest := rng.IntN(d.s.Replicas), rng.IntN(d.s.shape.stop), rng.IntN(20)
		d.add(func(w *world) {
			w.patiently(t, func() bool { return w.recovers(i, int64(rest)*tick) })
		}, "from %d on replica %d recovers as soon as it may, and is away for %d ticks", t, i, rest)
	}
}

// recovers makes a replica recover, unless the correct replicas that remember would be no quorum.
func (w *world) recovers(i int, rest int64) (begun bool) {
	s := w.sites[i]
	if s.liar() || s.copies[0].down || s.copies[0].stopped != "" || s.away || !w.mayLose(i) {
		return s.liar()
	}
	s.copies[0].recover(rest)
	return true
}

// above reports whether batch n is above what a replica may speak of that recovers: H_M+K, until a
// checkpoint at or above H_M is stable there (R-PR-16).
func (w *world) above(r *replica, n message.SeqNum) bool {
	bound := w.sites[r.id].bound
	return n > bound+w.shape.period && max(r.core.Stable().Seq, r.fetched) < bound
}

// bounded judges that a recovering replica promises nothing before it knows H_M, and sends nothing
// about a number above what it may speak of.
func (v *vows) bounded(r *replica, m message.Message) {
	if _, promises := promised(r, m); promises && r.estimates() {
		v.j.w.fail("replica %d recovers, and sends %s before it knows its bound", r.id, describe(m))
	}
	var n message.SeqNum
	switch m := m.(type) {
	case *message.PrePrepare:
		n = m.Seq
	case *message.Prepare:
		n = m.Seq
	case *message.Commit:
		n = m.Seq
	case *message.Checkpoint:
		n = m.Seq
	case *message.NewView:
		if int(m.View.Primary(v.j.w.n)) == r.id { // else it passes on what another primary has chosen
			n = m.Checkpoint.Seq + message.SeqNum(len(m.Chosen))
		}
	case *message.ViewChange:
		if len(m.Q) > 0 && int(m.From) == r.id {
			n = m.Q[len(m.Q)-1].Seq
		}
	}
	if v.j.w.above(r, n) {
		v.j.w.fail("replica %d recovers, and sends %s above its bound, n%d", r.id, describe(m), v.j.w.sites[r.id].bound)
	}
}
