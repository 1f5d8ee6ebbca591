// SPDX-License-Identifier: Apache-2.0

package sim

import "bfs/pkg/pbft/internal/message"

// Directed schedules of how views are left, and how they begin.

// activeIn reports whether replica i is active in view v.
func (w *world) activeIn(i int, v message.View) bool {
	now, active := w.core(i).View()
	return active && now == v
}

// anotherThanChosen: view 1 begins with the batch that prepared as n1 in view 0. 3 has never
// had that batch, so nothing of its own tells it what n1 is. The faulty primary of view 1
// proposes a null batch to it instead. 3 must know what the NEW-VIEW chose.
func anotherThanChosen() *Schedule {
	s := scene("another batch than the NEW-VIEW chose", 45)
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.PrePrepare:
			return to == 3 && m.Digest != message.NullDigest
		case *message.Commit:
			return true
		case *message.BatchBody:
			return to == 3
		case *message.Request:
			return m.Timestamp > 101
		}
		return false
	}, "3 hears of no proposal but null batches, and is sent no batch; nobody hears a COMMIT or a second call")
	s.says(1, func(_ *liarMemory, _ *replica, to int, m message.Message) []message.Message {
		if x, ok := m.(*message.Status); ok && to == 3 && x.View == 1 {
			return []message.Message{m, &message.PrePrepare{View: 1, Seq: 1, Digest: message.NullDigest}}
		}
		return one(m)
	}, "proposes to 3 a null batch as n1 in view 1")
	s.handsOver(0, 20)
	s.reach("view 1 has begun at 3 with a batch that 3 does not have", func(w *world) bool {
		m := w.core(3).Beginning()
		return w.activeIn(3, 1) && len(m.Chosen) == 1 && m.Chosen[0] != message.NullDigest && !w.core(3).Holds(m.Chosen[0])
	})
	return s
}

// inVain: each replica in its turn is primary and proposes the first call, and no PREPARE
// reaches anybody. Each must propose it again when its turn comes anew: there is no
// replica left that has not proposed it.
func inVain() *Schedule {
	s := scene("proposed in vain", 90)
	s.within = 500
	s.loses(func(_ *world, _, _ int, m message.Message) bool {
		_, votes := m.(*message.Prepare)
		return votes
	}, "nobody hears a PREPARE")
	for i := range 4 {
		s.handsOver(i, 20*(i+1))
	}
	s.reach("all have proposed the first call, and it is the turn of 0 again", func(w *world) bool {
		proposed := 0
		for k := range w.judge.vows.proposed {
			if k.seq == 1 && int(k.view) == k.by && k.view < 4 {
				proposed++
			}
		}
		return proposed == 4 && w.view(1) == 4 && w.core(1).LastExecuted() == 0
	})
	return s
}

// chosenFarAhead: 1 has missed eight batches when view 1 begins, whose primary it is. It
// chooses for n9 what prepared there, and its NEW-VIEW is its vote for that. It has not
// fetched the state when it leaves the view, and its VIEW-CHANGE must name its vote all the
// same.
func chosenFarAhead() *Schedule {
	s := scene("chosen far ahead", 140)
	s.shape.period, s.shape.log = 2, 4
	s.loses(func(w *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Commit:
			return m.Seq > 8 || to == 1
		case *message.PrePrepare, *message.Prepare, *message.Decided, *message.Checkpoint, *message.Data:
			return to == 1
		case *message.Request:
			return m.Timestamp > 109
		}
		return false
	}, "1 hears nothing of what is agreed on and of no checkpoint, and is sent no pages; nobody hears a COMMIT "+
		"for n9 or a tenth call")
	s.handsOver(0, 80)
	s.handsOver(1, 100)
	s.reach("1 has left view 1, which had begun with n9, without the state that it began from", func(w *world) bool {
		m := w.judge.vows.oaths[1].begins[1]
		return !m.IsZero() && w.view(1) == 2 && w.core(1).LastExecuted() == 0 && w.core(0).LastExecuted() == 8
	})
	return s
}

// forgottenByTwo: all leave view 0, and nobody has voted for anything. 2 and 3 are restarted
// and have forgotten their VIEW-CHANGEs, which have reached nobody. The primary of view 1 is
// faulty and silent. 2 and 3 wait for the view like 0, and each must count itself among
// those that do: else only 0 ever leaves that view.
func forgottenByTwo() *Schedule {
	s := scene("VIEW-CHANGEs forgotten by two", 40)
	s.leavesUnsaid(1, func(*world, int, message.Message) bool { return true }, "says nothing")
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		v, leaves := m.(*message.ViewChange)
		return orders(m) || leaves && v.View == 1 && from >= 2
	}, "nobody hears what is agreed on, or a VIEW-CHANGE of 2 and 3")
	s.handsOver(0, 10)
	s.restarts(2, 20)
	s.restarts(3, 22)
	s.reach("0, 2 and 3 wait for view 1, 2 and 3 have forgotten that they left, and both may vote", func(w *world) bool {
		for _, i := range []int{0, 2, 3} {
			if w.view(i) != 1 || w.core(i).SilentUntil() > 0 || (i > 0) != (w.core(i).Leaving() == nil) {
				return false
			}
		}
		return w.lives(2) == 1 && w.lives(3) == 1
	})
	return s
}
