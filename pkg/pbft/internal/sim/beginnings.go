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
		return w.activeIn(3, 1) && len(m.Chosen) == 1 && m.Chosen[0] != message.NullDigest &&
			!w.core(3).Holds(m.Chosen[0])
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

// farAhead is a schedule in which 1 has missed eight batches when view 1 begins, whose primary
// it is. It chooses for n9 what prepared there, and its NEW-VIEW is its vote for that. It has
// not fetched the state when it leaves the view at 100, and its VIEW-CHANGE must name its vote
// all the same.
func farAhead(name string) *Schedule {
	s := scene(name, 140)
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
	s.reach("1 has left view 1, which had begun with n9, without the state that it began from", func(w *world) bool {
		m := w.judge.vows.oaths[1].begins[1]
		return !m.IsZero() && w.view(1) == 2 && w.core(1).LastExecuted() == 0 && w.core(0).LastExecuted() == 8
	})
	return s
}

// chosenFarAhead: it hands over.
func chosenFarAhead() *Schedule {
	s := farAhead("chosen far ahead")
	s.handsOver(1, 100)
	return s
}

// chosenOnDisk: it loses power, and its NEW-VIEW must be on its disk.
func chosenOnDisk() *Schedule {
	s := farAhead("chosen on disk")
	s.shape.durable, s.shape.sync = true, 5
	s.losesPower(1, 100)
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
	s.reach("0, 2 and 3 wait for view 1; 2 and 3 have forgotten that they left, and may vote", func(w *world) bool {
		for _, i := range []int{0, 2, 3} {
			if w.view(i) != 1 || w.core(i).SilentUntil() > 0 || (i > 0) != (w.core(i).Leaving() == nil) {
				return false
			}
		}
		return w.lives(2) == 1 && w.lives(3) == 1
	})
	return s
}

// witnessedByTwo: in a group of six a batch prepares at 1, with the votes of 0, of 4 and of the
// faulty 5. Then 4 goes away, and 5 falls silent. Two of the four that are left have
// pre-prepared the batch, which must be enough for the next view (A2): 1 has it in its P, so
// nothing else can be chosen.
func witnessedByTwo() *Schedule {
	s := scene("witnessed by two of six", 60)
	s.Replicas, s.shape.replicas = 6, 6
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.PrePrepare:
			return m.View == 0 && (to == 2 || to == 3)
		case *message.Prepare:
			return m.View == 0 && to != 1
		case *message.Request:
			return m.Timestamp > 101
		}
		return false
	}, "2 and 3 hear no proposal of view 0, only 1 hears its PREPAREs, and nobody hears a second call")
	silent := func(w *world, _ int, _ message.Message) bool { return w.now >= 20*tick }
	s.leavesUnsaid(5, silent, "says nothing from 20 on")
	s.add(func(w *world) {
		w.at(20*tick, func() {
			w.sites[4].away = true
			w.network.cutOff(4)
		})
	}, "4 is away from 20 on")
	s.handsOver(0, 25)
	s.reach("a batch has prepared at 1 alone in view 0, and at 0, 1, 2 and 3 in view 1", func(w *world) bool {
		v := w.judge.vows
		return v.certified[slotKey{0, 1}] == 1<<1 && v.certified[slotKey{1, 1}] == 0b1111
	})
	return s
}

// contradictedByTheLiar: in a group of six a batch prepares at 1 in view 0. The faulty 5 says
// that another one prepared in view 1, which nobody else has seen. The VIEW-CHANGEs of 3 and 4
// come late to the primary of view 2. Before that three replicas do not contradict 1, which is
// too few (A1).
func contradictedByTheLiar() *Schedule {
	s := scene("contradicted by the liar", 80)
	s.Replicas, s.shape.replicas = 6, 6
	s.loses(func(w *world, from, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.NewView:
			return m.View == 1
		case *message.Prepare:
			return m.View == 0 && to != 1
		case *message.ViewChange:
			return m.View == 2 && to == 2 && (from == 3 || from == 4) && w.now < 60*tick
		case *message.Request:
			return m.Timestamp > 101
		}
		return false
	}, "only 1 hears the PREPAREs of view 0, nobody the NEW-VIEW of view 1, 2 does not hear before 60 that 3 "+
		"and 4 leave for view 2, and nobody hears a second call")
	other := message.Prepared{Seq: 1, Digest: message.Digest{'f'}, View: 1}
	s.says(5, func(_ *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
		if v, ok := m.(*message.ViewChange); ok && v.From == 5 && v.View == 2 {
			x := *v
			x.P, x.Q = []message.Prepared{other}, []message.Prepared{other}
			return one(&x)
		}
		return one(m)
	}, "says in view 2 that another batch prepared in view 1")
	s.handsOver(0, 20)
	s.handsOver(1, 40)
	s.reach("view 2 has begun with the batch that prepared at 1 alone in view 0", func(w *world) bool {
		m, v := w.core(2).Beginning(), w.judge.vows
		return w.activeIn(2, 2) && len(m.Chosen) == 1 && m.Chosen[0] == v.prepared[slotKey{0, 1}] &&
			v.certified[slotKey{0, 1}] == 1<<1
	})
	return s
}

// refreshedBetweenViews: 1, the primary of view 1, refreshes its keys when it has the
// VIEW-CHANGE of 0, and before it has that of 2; that of 3 does not reach it. A thief of its
// former keys may have sent the first. 1 must wait until 0 has sent it again.
func refreshedBetweenViews() *Schedule {
	s := scene("refreshed between views", 60)
	const refresh, again = 22, 40
	s.loses(func(w *world, from, to int, m message.Message) bool {
		v, ok := m.(*message.ViewChange)
		return ok && v.View == 1 && to == 1 && (from == 3 || from == 2 && w.now < (refresh+1)*tick ||
			from == 0 && w.now > refresh*tick && w.now < again*tick)
	}, "1 hears the VIEW-CHANGE of 2 after its refresh only, that of 3 never, and that of 0 not again before %d", again)
	s.handsOver(0, 20)
	s.add(func(w *world) { w.at(refresh*tick, func() { w.keys.refresh(1) }) }, "1 refreshes its keys at %d", refresh)
	s.reach("view 1 has begun with the VIEW-CHANGEs of 0, 1 and 2", func(w *world) bool {
		m := w.core(1).Beginning()
		return w.activeIn(1, 1) && len(m.V) == 3 && m.V[0].From == 0 && m.V[2].From == 2
	})
	return s
}

// preparedAsAnother: a batch prepares as n1 at 3 alone, in view 0. In view 1, of which 3 hears
// nothing, another batch is n1. 3 is told that this was decided, and takes back what it has
// executed. It must not answer as if the other batch had prepared in view 0.
func preparedAsAnother() *Schedule {
	s := scene("prepared as another batch", 60)
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Prepare:
			return (m.View == 0) != (to == 3)
		case *message.ViewChange:
			return to == 3 || from == 3
		case *message.NewView:
			return to == 3
		case *message.Status:
			return to == 3 && from == 0
		case *message.Request:
			return m.Timestamp > 101
		}
		return false
	}, "PREPAREs of view 0 reach 3 only, and nothing that says that view 0 is over; nobody hears a second call")
	s.handsOver(0, 15)
	s.reach("3 has executed another batch as n1 than prepared there, in view 0", func(w *world) bool {
		v := w.judge.vows
		return w.activeIn(3, 0) && w.core(3).LastExecuted() == 1 && v.certified[slotKey{0, 1}] == 1<<3 &&
			v.prepared[slotKey{0, 1}] != w.judge.history[1].digest
	})
	return s
}
