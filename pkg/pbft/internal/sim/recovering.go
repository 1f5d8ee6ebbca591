// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
)

// Directed schedules of what a recovering replica may say and believe.

// recovers makes a correct replica recover at a tick.
func (s *Schedule) recovers(i, t int) {
	s.shape.durable, s.shape.sync = true, 5
	s.add(func(w *world) {
		w.at(int64(t)*tick, func() { w.sites[i].copies[0].recover(tick) })
	}, "at %d replica %d recovers", t, i)
}

// confined: 3 recovers when nothing is stable, so that its bound, H_M, is n16. It hears of the
// checkpoints up to 8 and of no later one. The others go on beyond H_M+K, and need no vote
// of 3, which must not vote there: what an earlier life said above H_M may still count.
func confined() *Schedule {
	s := scene("confined", 150)
	s.shape.period, s.shape.log = 4, 16
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		k, ok := m.(*message.Checkpoint)
		return ok && to == 3 && k.Seq > 8
	}, "3 hears of no checkpoint after 8")
	s.recovers(3, 5)
	s.reach("8 is stable at 3, whose recovery goes on, and the others have come beyond its bound", func(w *world) bool {
		phase, _, _ := w.core(3).Recovery()
		return phase == core.Checking && w.core(3).Stable().Seq == 8 && w.sites[3].bound == 16 &&
			w.core(0).LastExecuted() > 16+2*w.shape.period
	})
	return s
}

// fetchedAboveItsBound: 3 recovers when nothing is stable, so that its bound, H_M, is n8, and is
// cut off until the others have come to n12. Then 0, which is faulty, falls silent, and nobody has
// heard from it that it holds checkpoint 12. 3 fetches that state, and must vote for it although
// no checkpoint at or above its bound has become stable here: 1 and 2 need its vote for all else.
func fetchedAboveItsBound() *Schedule {
	s := scene("fetched above its bound", 150)
	s.shape.period, s.shape.log = 2, 8
	s.recovers(3, 1)
	over := func(w *world) bool { return w.core(1).LastExecuted() >= 12 && w.core(2).LastExecuted() >= 12 }
	s.loses(func(w *world, from, to int, m message.Message) bool {
		if r, ok := m.(*message.Request); ok && from >= w.n {
			return r.Timestamp > 112 || w.now < 5*tick
		}
		if k, ok := m.(*message.Checkpoint); ok && to == 3 && k.Seq < 12 && w.core(3).LastExecuted() < 12 {
			return true
		}
		return (from == 3 || to == 3) && m.Type() != message.TypeQueryStable && m.Type() != message.TypeReplyStable &&
			!over(w)
	}, "nobody gets a call before 5, nor the thirteenth; until 1 and 2 have executed n12 nothing from and to 3 "+
		"arrives but its questions and the answers, and it hears of checkpoint 12 first")
	s.leavesUnsaid(0, func(w *world, to int, m message.Message) bool {
		k, ok := m.(*message.Checkpoint)
		return over(w) || ok && k.Seq == 12
	}, "does not say that it holds checkpoint 12, and nothing at all when 1 and 2 have executed n12")
	s.reach("3 has fetched checkpoint 12, whose bound was n8, and 10 was stable before", func(w *world) bool {
		return w.sites[3].bound == 8 && w.core(3).LastExecuted() >= 12 && w.core(1).Stable().Seq >= 10
	})
	return s
}

// falseEstimates: the faulty 0 tells 2, which recovers, that it has come further than anybody
// has. Later it tells 3 that it has not come to any checkpoint. Neither may be what 2 and 3
// take for the group's estimate: 2 would wait for ever, and 3 set its memory aside.
func falseEstimates() *Schedule {
	s := scene("false estimates", 300)
	s.says(0, func(_ *liarMemory, _ *replica, to int, m message.Message) []message.Message {
		if x, ok := m.(*message.ReplyStable); ok {
			y := *x
			if y.Taken, y.Prepared = 0, 0; to == 2 {
				y.Taken, y.Prepared = 1<<40, 1<<40
			}
			return one(&y)
		}
		return one(m)
	}, "tells 2 that it holds a checkpoint far ahead, and 3 that it holds none")
	s.recovers(2, 60)
	s.recovers(3, 180)
	s.reach("2 and 3 have recovered, and had a stable checkpoint before", func(w *world) bool {
		return w.lives(2) == 1 && !w.sites[2].copies[0].recovers && w.lives(3) == 1 && !w.sites[3].copies[0].recovers &&
			w.sites[2].bound > w.shape.log && w.sites[3].bound > w.shape.log
	})
	return s
}

// anotherProposal: 3 has voted for n1 in view 1, which has not committed, and recovers. The
// view begins anew for it, and the faulty primary proposes another batch as n1 to it. 3
// must remember its vote.
func anotherProposal() *Schedule {
	s := scene("another proposal after a recovery", 55)
	s.loses(func(_ *world, _, _ int, m message.Message) bool {
		p, ok := m.(*message.Prepare)
		return ok && p.View == 0 || m.Type() == message.TypeCommit
	}, "nobody hears the PREPAREs of view 0, or a COMMIT")
	s.says(1, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		if p, ok := m.(*message.PrePrepare); ok && to == 3 && r.w.lives(3) > 0 && p.Seq == 1 {
			return one(&message.PrePrepare{View: p.View, Seq: 1, Digest: message.NullDigest})
		}
		return one(m)
	}, "proposes a null batch as n1 to 3 when 3 has recovered")
	s.handsOver(0, 15)
	s.recovers(3, 32)
	s.reach("3 is active in view 1 once more, where it has voted for n1 before", func(w *world) bool {
		d := w.judge.vows.votes[voteKey{3, slotKey{1, 1}}]
		return w.lives(3) == 1 && w.activeIn(3, 1) && !d.IsZero() && d != message.NullDigest
	})
	return s
}

// anotherWayIn: the faulty 3 leaves view 0 with one VIEW-CHANGE for 0 and 1, and with another
// for 2. View 1 begins with the first, which 2 believes on the word of 0. Then 3 falls silent
// and 0 recovers, and 0 must believe the first on the word of 2.
func anotherWayIn() *Schedule {
	s := scene("another way into the view", 110)
	const turns = 50
	s.says(3, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		v, ok := m.(*message.ViewChange)
		switch {
		case r.w.now > turns*tick:
			return nil
		case ok && int(v.From) == 3 && to == 2:
			x := *v
			x.P, x.Q = nil, nil
			return one(&x)
		}
		return one(m)
	}, "tells 2 another VIEW-CHANGE than 0 and 1, and says nothing from %d on", turns)
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		v, ok := m.(*message.ViewChange)
		return ok && v.From == 2 && to == 1
	}, "1 does not hear the VIEW-CHANGE of 2")
	s.handsOver(0, 20)
	s.recovers(0, turns+5)
	s.reach("0 is active in view 1 again", func(w *world) bool {
		return w.lives(0) == 1 && w.activeIn(0, 1) && w.activeIn(2, 1)
	})
	return s
}
