// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// A replica loses its fence, and recovers
// (core.Config.Lost). Until its recovery is over it counts among the f, as one in which
// an intruder was, and nobody else lies then. But it must not contradict what it
// promised before: a replica that says nothing is faulty in no other way.

// beforeLosses leaves out the losses of fences.
func (s *Schedule) beforeLosses() *Schedule {
	for i := s.unlost; i < len(s.items); i++ {
		s = s.Without(i)
	}
	return s
}

// losses draws, from a stream of its own and behind all else, when replicas lose
// their fences, and whether intruders take them along.
func (d *drawing) losses() {
	rng := rand.New(rand.NewPCG(d.s.Seed, 10))
	if d.alone || rng.IntN(3) > 0 {
		return
	}
	for range rng.IntN(4) {
		i, t, rest := rng.IntN(d.s.Replicas), rng.IntN(d.s.shape.stop), rng.IntN(20)
		d.add(func(w *world) {
			w.patiently(t, func() bool { return w.robbed(i, int64(rest)*tick) })
		}, "from %d on replica %d loses its fence as soon as it may, and recovers %d ticks later", t, i, rest)
	}
	seed := rng.Uint64()
	d.add(func(w *world) { w.robber = rand.New(rand.NewPCG(seed, 10)) }, "some intruders take the fence along")
}

// robbed has a correct replica lose its fence, unless more than f could not be counted on
// then.
func (w *world) robbed(i int, rest int64) bool {
	s := w.sites[i]
	if r := s.copies[0]; s.liar() || s.away || r.down || r.recovers || !w.mayLose(i) || w.liars() >= w.f {
		return false
	}
	s.corrupt = true
	w.remember(i)
	s.copies[0].recover(rest)
	s.copies[0].rob()
	return true
}

// rob takes a replica's fence away. What its disk holds is removed by the next start.
func (r *replica) rob() {
	r.say("has lost its fence")
	r.w.sites[r.id].lost = true
	r.w.marks.hit(markRobbed)
}

// forsaken is called before a life begins: without a fence nothing counts that an
// earlier life has left, and nothing that was written since.
func (s *site) forsaken() {
	if s.lost {
		s.fence, s.view, s.position = 0, 0, store.NoJournal
	}
}

// afterLoss judges what a replica says that has lost its fence and has not recovered,
// whoever may have been in it: it promises nothing before its recovery point is stable,
// and nothing for a number for which it had promised something when it remembered.
func (v *vows) afterLoss(r *replica, m message.Message) {
	s := v.j.w.sites[r.id]
	n, promises := promised(r, m)
	switch {
	case !promises:
	case !s.lost:
		s.promised = max(s.promised, n)
	default:
		if _, point, _ := r.core.Recovery(); point == 0 || r.core.Stable().Seq < point {
			v.j.w.fail("replica %d has lost its fence, and sends %s before its recovery point, n%d, is stable",
				r.id, describe(m), point)
		}
		if n > 0 && n <= s.promised {
			v.j.w.fail("replica %d has lost its fence, and sends %s; before that it made promises up to n%d",
				r.id, describe(m), s.promised)
		}
	}
}

// promised is the highest number for which a message promises something in its sender's
// name, if it does; 0 if the promise is not about a number.
func promised(r *replica, m message.Message) (n message.SeqNum, promises bool) {
	switch m := m.(type) {
	case *message.PrePrepare:
		return m.Seq, true
	case *message.Prepare:
		return m.Seq, true
	case *message.Commit:
		return m.Seq, true
	case *message.Checkpoint:
		return m.Seq, true
	case *message.Reply:
		return 0, true
	case *message.ViewChange:
		return 0, int(m.From) == r.id
	case *message.NewView:
		return m.Checkpoint.Seq + message.SeqNum(len(m.Chosen)), int(m.View.Primary(r.w.n)) == r.id
	}
	return 0, false
}

// A directed schedule in which replica i loses all that it remembers at t.
func (s *Schedule) robs(i, t int) {
	s.add(func(w *world) {
		w.patiently(t, func() bool { return w.robbed(i, tick) })
	}, "replica %d loses its fence at %d, and recovers", i, t)
}

// lostFence: 3 has voted for batches that have not committed, and loses its fence and
// its journal. It may not vote for them again, and the group goes on without it until
// they are behind its recovery point.
func lostFence() *Schedule {
	s := scene("a lost fence", 400)
	s.shape.durable, s.shape.sync = true, 5
	s.shape.clients = 2
	s.loses(func(w *world, from, to int, m message.Message) bool {
		c, commits := m.(*message.Commit)
		return commits && c.Seq >= 6 && w.now < 60*tick
	}, "COMMITs for n6 and above are lost before 60")
	s.robs(3, 40)
	s.reach("3 has recovered, and voted for batches before", func(w *world) bool {
		return healed(w, 3) && w.sites[3].promised > 6 && !w.sites[3].lost
	})
	return s
}

// lostPrimary: the primary loses its fence and its journal, and with them the NEW-VIEW
// that it has sent to some only.
func lostPrimary() *Schedule {
	s := scene("a primary's lost fence", 900)
	s.shape.durable, s.shape.sync = true, 5
	s.handsOver(0, 20)
	s.loses(func(w *world, from, to int, m message.Message) bool {
		v, begins := m.(*message.NewView)
		return begins && v.View == 1 && to == 3 && w.now < 80*tick
	}, "3 does not hear how view 1 begins before 80")
	s.robs(1, 40)
	s.reach("1 has recovered, and the others are in a later view than the one that it had begun", func(w *world) bool {
		return healed(w, 1) && w.view(0) > 1 && w.view(3) > 1 && !w.sites[1].lost
	})
	return s
}

// leftBehindItsPoint: a replica that lost its fence is silent for longer than its request tells the
// others: until the checkpoint above H_M+K. The primary is faulty and leaves it there.
func leftBehindItsPoint() *Schedule {
	s := scene("left behind its recovery point", 600)
	s.Replicas, s.shape.replicas = 6, 6
	s.shape.durable, s.shape.sync = true, 5
	s.hush()
	s.calls(0, 20, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.robs(5, 60)
	withholds := func(_ *liarMemory, r *replica, _ int, m message.Message) []message.Message {
		_, agrees := m.(*message.Commit)
		if r.core.LastProposed() > r.w.shape.log+r.w.shape.period && !agrees {
			return nil
		}
		return one(m)
	}
	s.once(func(w *world) bool { return w.lives(5) > 0 }, func(w *world) {
		w.sites[0].lies = append(w.sites[0].lies, lie{"directed", withholds})
		w.remember(0)
	}, "when 5 has begun again 0 turns faulty, and says nothing but COMMITs when it has proposed above H_M+K")
	s.reach("5 has recovered in a later view", func(w *world) bool { return healed(w, 5) && w.view(5) > 0 })
	return s
}

// lostInAnIdleGroup: nobody calls. The others order the recovery request of 2, and null
// batches until its recovery point.
func lostInAnIdleGroup() *Schedule {
	s := scene("a lost fence in an idle group", 400)
	s.shape.durable, s.shape.sync = true, 5
	s.hush()
	s.calls(0, 20, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.robs(2, 60)
	s.reach("2 has recovered, and nobody has called for more", func(w *world) bool {
		phase, _, _ := w.core(2).Recovery()
		return healed(w, 2) && phase == core.NotRecovering && w.clients[0].slots[0].done == 1
	})
	return s
}
