// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
)

// directed returns the schedules that were written by hand, each for a case that random
// schedules hardly ever reach. Their faults are lost messages, messages that one faulty replica
// sends or leaves out, a slow disk, a restart, and a primary that is told to hand over. Each
// schedule names what must hold when its faults end, because otherwise it would show nothing.
func directed() []*Schedule {
	return []*Schedule{
		executedAlone(), primaryLeftBehind(), decidedInAnEarlierView(), rootTooLate(),
		forgottenViewChange(), decidedBeforeProposed(), fetchedAboveTheWindow(), collectedByTheLiar(),
		proposedAgain(), votedAfterLeaving(), stableHereAndThere(), whatIsPast(),
		provedElsewhere(),
		forgottenWhileSilent(), forgottenNewView(), forgottenCheckpoint(), forgottenReply(),
		valueThatRecurs(), idleSilence(), stuckWhileSilent(), takenBackAndRepeated(),
		enrolledBeforeFetching(), notEnrolledYet(),
		enrolledAfterItsBatch("enrolled after its batch", 0, false),
		enrolledAfterItsBatch("enrolled after its tentative batch", 0, true),
		enrolledAfterItsBatch("enrolled after its batch, and then another view", 1, true),
		enrolledAfterItsBatch("enrolled after its batch, and in doubt", 2, true),
		chosenAndNotEnrolled("chosen, and its client was not enrolled", false),
		chosenAndNotEnrolled("chosen and tentative, and its client was not enrolled", true),
		provenAfterFetching(),
		timestampOfAnEarlierLife(), latestUnknown(), overtaken(),
		decidedAhead(), preparedAhead(), forgedView(), forgedFirstView(), forgedWay(), lowEstimate(),
		earlyViews(), withheld(), lostFence(), lostPrimary(),
		leftBehindItsPoint(), lostInAnIdleGroup(), silentBeyondItsPoint(),
		slowPrimary(), slowWires(), slowToOne(), slowForever(), starved(),
		silentAboveTheFence(), preparedInSilence(), broughtByOthers(), decidedOnDisk(), slowDisks(),
		proposedBefore(), answeredBefore(),
		confined(), fetchedAboveItsBound(), falseEstimates(), anotherProposal(), checkpointAhead(), fencedForEver(),
		otherState(), forgedLead(), namesNobody(), otherNumbers(), toldOfTheFirst(), anotherWayIn(),
		anotherThanChosen(), inVain(), chosenFarAhead(), chosenOnDisk(), forgottenByTwo(),
		witnessedByTwo(), contradictedByTheLiar(), refreshedBetweenViews(),
		preparedAsAnother(),
	}
}

// scene begins a schedule of four replicas and one client. The client writes one operation
// after the other, and after the last fault begins no call until the last one is answered.
func scene(name string, stop int) *Schedule {
	return &Schedule{Seed: 1, Replicas: 4, name: name, shape: shape{
		replicas: 4, period: 8, log: 16, window: 2, batch: 1, clients: 1, slots: 1, think: 1, stop: stop, quiet: true,
		tentative: true, writes: true,
	}}
}

func (s *Schedule) add(apply func(w *world), format string, args ...any) {
	s.items = append(s.items, item{fmt.Sprintf(format, args...), apply})
}

// loses makes the network lose messages while the faults last.
func (s *Schedule) loses(lost func(w *world, from, to int, m message.Message) bool, format string, args ...any) {
	s.add(func(w *world) {
		w.network.losses = append(w.network.losses, func(from, to int, m message.Message) bool {
			return lost(w, from, to, m)
		})
	}, format, args...)
}

// leavesUnsaid makes replica i the faulty one: it leaves out some messages of a correct replica.
func (s *Schedule) leavesUnsaid(i int, unsaid func(w *world, to int, m message.Message) bool,
	format string, args ...any) {
	s.says(i, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		if unsaid(r.w, to, m) {
			return nil
		}
		return one(m)
	}, format, args...)
}

// says makes replica i the faulty one: edit returns the message that it sends instead of
// a correct replica's.
func (s *Schedule) says(i int, edit func(l *liarMemory, r *replica, to int, m message.Message) []message.Message,
	format string, args ...any) {
	s.add(func(w *world) {
		w.sites[i].lies = append(w.sites[i].lies, lie{"directed", edit})
	}, "replica %d, which is faulty, %s", i, fmt.Sprintf(format, args...))
}

// handsOver makes a primary leave its view, as a primary does before its restart (R-VT-5).
func (s *Schedule) handsOver(i, t int) {
	s.add(func(w *world) {
		w.at(int64(t)*tick, func() {
			r := w.sites[i].copies[0]
			r.running(func() { r.core.StepDown(); r.perform() })
		})
	}, "at %d replica %d hands over", t, i)
}

// reach names what must hold when the faults end.
func (s *Schedule) reach(name string, holds func(w *world) bool) {
	s.reaches = append(s.reaches, stage{name, holds})
}

func (w *world) core(i int) *core.Core { return w.sites[i].copies[0].core }

func (w *world) view(i int) message.View {
	v, _ := w.core(i).View()
	return v
}

// orders reports whether m has part in agreeing on a batch, or tells of an agreement.
func orders(m message.Message) bool {
	switch m.(type) {
	case *message.PrePrepare, *message.Prepare, *message.Commit, *message.Decided, *message.BatchBody:
		return true
	}
	return false
}

// executedAlone: the primary falls silent when 2 alone has executed a batch that 1 has prepared
// and 3 has never seen. 1 and 3 cannot agree on it, and cannot leave the view without a third
// replica that still waits for the request. 2 has executed the request, and must join them.
func executedAlone() *Schedule {
	s := scene("executed alone", 30)
	s.leavesUnsaid(0, func(_ *world, to int, m message.Message) bool {
		switch m.(type) {
		case *message.PrePrepare:
			return to == 3
		case *message.Commit:
			return to != 2
		case *message.Decided, *message.BatchBody, *message.Forward, *message.Reply:
			return true
		}
		return false
	}, "proposes to 1 and 2 only, commits to 2 only, and answers nobody")
	s.reach("2 alone has executed the first batch, in view 0", func(w *world) bool {
		return w.core(1).LastExecuted() == 0 && w.core(2).LastExecuted() == 1 && w.core(3).LastExecuted() == 0 &&
			w.view(1)+w.view(2)+w.view(3) == 0
	})
	return s
}

// primaryLeftBehind: 1 has left for view 1 alone, and 3 falls silent when 2 has executed
// a batch with the COMMIT that 3 sent to nobody else. 2 waits for nothing; the primary
// has prepared the batch and needs one COMMIT more. Its own timer must run for the
// request, and 2 must join it in leaving the view. Otherwise it stays until it hands over
// to 1, which takes five seconds and may take minutes.
func primaryLeftBehind() *Schedule {
	s := scene("the primary is left behind", 130)
	s.within = 250
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		return to == 1 && orders(m)
	}, "1 hears nothing of what is agreed on")
	s.leavesUnsaid(3, func(w *world, to int, m message.Message) bool {
		apart := w.view(1) > 0
		switch m := m.(type) {
		case *message.Commit:
			return apart && to != 2
		case *message.Reply:
			return !apart || !m.Answers[0].ReadOnly && m.Answers[0].Timestamp > 101
		case *message.Forward:
			return true
		case *message.Decided:
			return apart
		}
		return false
	}, "answers the first call when 1 has left the view, and then commits to 2 only and answers no more")
	s.reach("1 is in view 1, and 2 has executed one batch more than the primary", func(w *world) bool {
		return w.view(0)+w.view(2) == 0 && w.view(1) == 1 && w.core(2).LastExecuted() == w.core(0).LastExecuted()+1
	})
	return s
}

// decidedInAnEarlierView: the first batch has committed at 0 and 2 in view 0; 3 has
// missed it. View 1 chooses it again, the primary of view 1 falls silent, and 3 waits in
// view 2 alone. No quorum can agree on the batch once more, so 0 and 2, which wait for
// nothing, must still know that it was decided.
func decidedInAnEarlierView() *Schedule {
	s := scene("decided in an earlier view", 110)
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		return to == 3 && (orders(m) || m.Type() == message.TypeNewView || from == 2 && m.Type() == message.TypeStatus)
	},
		"3 hears nothing of what is agreed on, no NEW-VIEW, and no STATUS of 2")
	s.leavesUnsaid(1, func(_ *world, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Reply, *message.Decided:
			return true
		case *message.Status:
			return to == 3
		case *message.Commit:
			return m.View > 0
		}
		return false
	}, "answers nobody, and commits nothing in the view that it begins")
	s.handsOver(0, 20)
	s.reach("0 and 2 are in view 1 and have executed the first batch, 3 has not and is in view 2", func(w *world) bool {
		return w.view(0) == 1 && w.view(2) == 1 && w.view(3) == 2 && w.core(0).LastExecuted() == 1 &&
			w.core(2).LastExecuted() == 1 && w.core(3).LastExecuted() == 0
	})
	return s
}

// rootTooLate: view 1 begins from a checkpoint whose root is still being computed at its
// primary, which has sent its NEW-VIEW and leaves the view before it could begin it. It
// has pre-prepared all the same what it chose, and others have prepared it: a later view
// must find the choice in its Q.
func rootTooLate() *Schedule {
	s := scene("the root comes too late", 100)
	s.shape.period, s.shape.log = 2, 4
	s.add(func(w *world) { w.slowHash(1, 2000*tick) }, "replica 1 takes up to 2000 ticks for a root")
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		c, ok := m.(*message.Commit)
		return ok && c.Seq == 3
	}, "nobody hears the COMMITs for n3")
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		return to == 1 && from == 3 && m.Type() == message.TypeStatus
	},
		"1 does not hear where 3 stands")
	s.handsOver(0, 30)
	s.reach("1 has left view 1 without having begun it", func(w *world) bool {
		return w.view(1) >= 2 && w.sites[1].copies[0].begun == 0
	})
	return s
}

// forgottenViewChange: 3, which has voted for nothing yet, leaves view 0 with the others,
// and is restarted before its VIEW-CHANGE has reached anybody; it must not make another. The
// next primary is faulty and silent. Only 3 itself can know that 2f+1 replicas have left.
func forgottenViewChange() *Schedule {
	s := scene("a forgotten VIEW-CHANGE", 40)
	s.leavesUnsaid(1, func(*world, int, message.Message) bool { return true }, "says nothing")
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		return to == 3 && orders(m) || from == 3 && m.Type() == message.TypeViewChange
	}, "3 hears nothing of what is agreed on, and nobody hears its VIEW-CHANGE")
	s.handsOver(0, 15)
	s.add(func(w *world) { w.at(20*tick, func() { w.sites[3].copies[0].restart(tick) }) }, "3 restarts at 20")
	s.reach("0, 2 and 3 have left for view 1, and 3 has forgotten it and may vote", func(w *world) bool {
		r := w.sites[3].copies[0]
		return w.view(0) == 1 && w.view(2) == 1 && w.view(3) == 1 && r.life == 1 && r.core.SilentUntil() == 0
	})
	return s
}

// decidedBeforeProposed: 3 restarts and may not vote for a while. It hears first that a
// batch was decided, and gets the batch itself when the primary proposes it once more. 3
// does not get enough COMMITs for it, since 1 knows only that the batch was decided.
func decidedBeforeProposed() *Schedule {
	s := scene("decided before it is proposed", 120)
	s.shape.think = 60
	again := func(w *world) bool { return w.sites[3].copies[0].life > 0 }
	s.loses(func(w *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Prepare, *message.Commit:
			return to == 1
		case *message.Request:
			return m.Timestamp > 101
		case *message.PrePrepare:
			return to == 3 && again(w) && w.now < 80*tick
		case *message.BatchBody:
			return to == 3
		}
		return false
	}, "1 hears no PREPAREs and COMMITs, 3 no PRE-PREPARE from its restart until 80 and nothing that it asks "+
		"for, and nobody a second call")
	s.add(func(w *world) { w.at(40*tick, func() { w.restart(3, tick) }) }, "3 restarts at 40")
	s.reach("1 has executed the first batch, which has not prepared there, and so has 3, which must not vote",
		func(w *world) bool {
			_, prepared := w.core(1).Prepared(1)
			return !prepared && w.core(1).LastExecuted() == 1 && again(w) && w.core(3).SilentUntil() > 0 &&
				w.core(3).LastExecuted() == 1
		})
	return s
}

// fetchedAboveTheWindow: 1 has missed everything and fetches checkpoint 6 on the word of 3 and
// of the faulty 0. With 1's vote the checkpoint becomes stable at 3, which goes on from there,
// while 2 has come to 5. When all three leave the view, 1 must name the checkpoint that it
// voted for, although it lies above its window: otherwise there is none that two of them hold.
func fetchedAboveTheWindow() *Schedule {
	s := scene("fetched above the window", 104)
	s.shape.period, s.shape.log, s.shape.clients = 2, 4, 2
	s.loses(func(w *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Checkpoint:
			return to == 1 && m.Seq != 6 || to == 2 && m.Seq == 6
		case *message.Commit:
			return to == 1 || to == 2 && m.Seq == 6
		case *message.Decided:
			return to == 1 || to == 2 && m.Seq == 6
		case *message.Forward:
			return w.now < 46*tick
		case *message.ViewChange, *message.NewView:
			return true
		}
		return to == 1 && orders(m)
	}, "1 hears nothing of what is agreed on and of checkpoint 6 only, 2 nothing of that and no COMMIT for "+
		"n6, nobody a FORWARD before 46 or a VIEW-CHANGE")
	s.leavesUnsaid(0, func(_ *world, _ int, m message.Message) bool {
		switch m := m.(type) {
		case *message.PrePrepare:
			return m.Seq > 6
		case *message.Checkpoint:
			return m.Stable
		}
		return false
	}, "proposes nothing after n6, and does not say what is stable")
	s.reach("1 has fetched checkpoint 6, which is stable at 3, 2 has executed n5, and all have left for view 1",
		func(w *world) bool {
			return w.core(1).LastExecuted() == 6 && w.core(3).Stable().Seq == 6 && w.core(2).LastExecuted() == 5 &&
				w.view(1) == 1 && w.view(2) == 1 && w.view(3) == 1
		})
	return s
}

// collectedByTheLiar: a batch prepares as n1 at 0 alone in view 0, and another one at 1
// alone in view 1. The primary of view 3 says that it has collected n1, and chooses the
// earlier of the two: without its word, only 0 and 2 do not contradict that choice (A1).
func collectedByTheLiar() *Schedule {
	s := scene("collected by the liar", 130)
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Prepare:
			return m.View < 2 && to != int(m.View)
		case *message.ViewChange:
			return m.View == 1 && from == 0 && to == 1
		case *message.ViewChangeAck:
			return m.View == 2 && to == 2
		}
		return false
	}, "PREPAREs of views 0 and 1 reach their primaries only, 1 does not hear that 0 leaves for view 1, nor "+
		"2 what is acknowledged in view 2")
	s.handsOver(0, 20)
	s.handsOver(1, 40)
	s.says(3, func(l *liarMemory, r *replica, _ int, m message.Message) []message.Message {
		switch m := m.(type) {
		case *message.ViewChange:
			if int(m.From) != r.id || m.View != 3 {
				break
			}
			x := *m
			x.Low, x.Checkpoints, x.P, x.Q = r.w.shape.period, []message.CheckpointID{{Seq: r.w.shape.period}}, nil, nil
			l.forged = &x
			return one(&x)
		case *message.NewView:
			if m.View != 3 {
				break
			}
			x := message.NewView{View: 3, From: m.From, Checkpoint: message.CheckpointID{Digest: r.w.judge.roots[0]}}
			for i := range r.w.n {
				vc := l.changes[message.ReplicaID(i)]
				if i == r.id {
					vc = l.forged
				}
				if vc == nil || vc.View != 3 {
					return nil
				}
				x.V = append(x.V, message.Vouched{From: message.ReplicaID(i), Digest: vc.Digest()})
				if i == 0 && len(vc.P) > 0 {
					x.Chosen = []message.Digest{vc.P[0].Digest}
				}
			}
			return one(&x)
		}
		return one(m)
	}, "says in view 3 that it has collected n1, and chooses for it what prepared in view 0")
	s.reach("one batch has prepared at 0 in view 0 and another at 1 in view 1, and 3 "+
		"has shown its NEW-VIEW of view 3", func(w *world) bool {
		v := w.judge.vows
		return v.certified[slotKey{0, 1}] == 1<<0 && v.certified[slotKey{1, 1}] == 1<<1 &&
			v.prepared[slotKey{0, 1}] != v.prepared[slotKey{1, 1}] &&
			w.view(0) >= 3 && w.view(1) >= 3 && w.view(2) >= 3
	})
	return s
}

// proposedAgain: the first batch has been executed, and its client has no answer. The
// primary has proposed the request again, as n2, to 2 and 3. They have executed n2
// tentatively, and must not wait for it to commit before they repeat their answer: they
// know that the request is done, so they would leave no view for it.
func proposedAgain() *Schedule {
	s := scene("proposed again", 60)
	s.loses(func(w *world, _, to int, _ message.Message) bool { return to >= w.n }, "clients hear no answers")
	s.says(0, func(_ *liarMemory, _ *replica, to int, m message.Message) []message.Message {
		if p, ok := m.(*message.PrePrepare); ok && to != 1 && p.Seq == 1 {
			again := *p
			again.Seq = 2
			return []message.Message{m, &again}
		}
		return one(m)
	}, "proposes the first batch to 2 and 3 as the second, too")
	s.reach("all have executed the first batch, and 2 and 3 the second tentatively", func(w *world) bool {
		for i := range 4 {
			if w.core(i).LastExecuted() != 1 {
				return false
			}
		}
		return w.sites[2].copies[0].ahead != nil && w.core(2).UnderWay() == 0 && w.core(3).UnderWay() == 0 &&
			w.core(1).UnderWay() == 2
	})
	return s
}

// votedAfterLeaving: 1 and 3 have left view 0 before batch 4 committed there. 3 hears
// that batch 4 was decided, and comes to checkpoint 4, which would be stable at 2 with
// its vote. Then 2 would name no other checkpoint when it leaves too, and neither 1 nor 3
// names that one. The VIEW-CHANGE of the faulty 0 helps nobody.
func votedAfterLeaving() *Schedule {
	s := scene("voted after leaving", 58)
	s.Seed = 3 // 1 and 3 leave before the fourth batch has committed
	s.shape.period, s.shape.log = 4, 8
	s.loses(func(w *world, from, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Commit:
			return m.Seq == 4 && (to == 1 || to == 3)
		case *message.Decided:
			return m.Seq == 4 && (to == 1 || to == 3 && w.view(3) == 0)
		case *message.Checkpoint:
			return to == 1 || to == 3
		case *message.ViewChange:
			return to == 2
		}
		return false
	}, "1 and 3 hear no COMMIT for n4 and of no checkpoint, 1 not that n4 was decided, nor 3 in view "+
		"0, and 2 hears no VIEW-CHANGE")
	s.says(0, func(_ *liarMemory, _ *replica, to int, m message.Message) []message.Message {
		switch m := m.(type) {
		case *message.PrePrepare:
			if m.Seq > 4 {
				return nil
			}
		case *message.ViewChange:
			if to == 3 {
				x := *m
				x.P = nil
				return one(&x)
			}
		}
		return one(m)
	}, "proposes nothing after n4, and tells 3 another VIEW-CHANGE than 1")
	s.handsOver(0, 50)
	s.reach("1 and 3 have left for view 1, 1 with three batches, 3 has executed the fourth since, as 2 has in view 0",
		func(w *world) bool {
			return w.view(1) == 1 && w.view(3) == 1 && w.view(2) == 0 && w.core(1).LastExecuted() == 3 &&
				w.core(2).LastExecuted() == 4 && w.core(3).LastExecuted() == 4 &&
				len(w.core(3).Leaving().Checkpoints) == 1
		})
	return s
}

// stableHereAndThere: 1 has missed everything. Checkpoint 6 is stable at 0. At 2 only
// checkpoint 4 is, because the faulty 3 does not tell 2 that it holds checkpoint 6. 2
// alone has the first batches, which 1 needs, and no two replicas say that one checkpoint
// is stable. Two say that they hold checkpoint 6, and that must be enough: the next call
// needs 1, or all would have to leave the view.
func stableHereAndThere() *Schedule {
	s := scene("stable here and there", 60)
	s.within = 60
	s.shape.period, s.shape.log = 2, 4
	s.loses(func(_ *world, from, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Request:
			return m.Timestamp > 106
		case *message.Checkpoint:
			return to == 1
		}
		return to == 1 && orders(m)
	}, "1 hears nothing of what is agreed on and of no checkpoint, nobody a seventh call")
	s.leavesUnsaid(3, func(_ *world, to int, m message.Message) bool {
		k, ok := m.(*message.Checkpoint)
		return ok && k.Seq == 6 && to == 2
	}, "does not tell 2 that it holds checkpoint 6")
	s.reach("6 is stable at 0, 4 at 2, and 1 has executed nothing, all in view 0", func(w *world) bool {
		return w.core(0).Stable().Seq == 6 && w.core(2).Stable().Seq == 4 && w.core(2).LastExecuted() == 6 &&
			w.core(1).LastExecuted() == 0 && w.view(0)+w.view(1)+w.view(2) == 0
	})
	return s
}

// whatIsPast: 3 has missed six batches, the others have forgotten as much of these as the
// protocol allows, and 3 hears of no checkpoint. It must catch up by their DECIDEDs and
// by old batches.
func whatIsPast() *Schedule {
	s := scene("what is past", 120)
	s.shape.period, s.shape.log = 4, 8
	s.loses(func(w *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.PrePrepare, *message.Prepare, *message.Commit, *message.Checkpoint:
			return to == 3
		case *message.Decided:
			return to == 3 && w.core(0).Stable().Seq < 4
		case *message.Request:
			return m.Timestamp > 106
		}
		return false
	}, "3 hears nothing of what is agreed on and of no checkpoint, and of what was decided only when "+
		"checkpoint 4 is stable; nobody hears a seventh call")
	s.reach("checkpoint 4 is stable at 0, 1 and 2, and 3 has executed as much as they", func(w *world) bool {
		return w.core(0).Stable().Seq == 4 && w.core(1).Stable().Seq == 4 && w.core(2).Stable().Seq == 4 &&
			w.core(0).LastExecuted() == 6 && w.core(3).LastExecuted() == 6
	})
	return s
}

// provedElsewhere: 3 alone has executed the first call in view 0, and gives its result.
// In view 1 the call is executed anew, with another choice and so another result, at 1
// and 2, which say only that they executed it, and at the faulty 0, which proves the
// result that 3 gave. So f+1 replicas have that result and 2f+1 have executed the call on
// one ground. But f+1 of those on that ground must have the result.
func provedElsewhere() *Schedule {
	s := scene("proved elsewhere", 60)
	s.Seed = 2 // the client names 3 for the result, and 0 for a proof of it
	s.shape.long = true
	var given []byte // by 3, in view 0
	s.loses(func(w *world, from, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Request:
			return m.Replier == message.AnyReplier || m.Timestamp > 101
		case *message.Reply:
			if from == 3 && m.View == 0 && m.Answers[0].Full {
				given = m.Answers[0].Result
			}
		case *message.Prepare:
			return from == 3 || to == 3 && w.view(1) > 0
		case *message.Commit:
			return from == 3 || m.View == 0 || to == 3
		case *message.ViewChange:
			return from == 3
		case *message.PrePrepare:
			return to == 3 && m.View > 0
		case *message.NewView, *message.Decided, *message.BatchBody:
			return to == 3
		}
		return false
	}, "nobody hears PREPAREs, COMMITs and VIEW-CHANGEs of 3, no COMMITs of view 0 and no request a second "+
		"time, and 3 nothing of view 1")
	s.says(0, func(_ *liarMemory, _ *replica, to int, m message.Message) []message.Message {
		switch m := m.(type) {
		case *message.PrePrepare:
			if to == 2 && m.View == 0 {
				return nil
			}
		case *message.Reply:
			if a := m.Answers[0]; a.Long() && given != nil {
				x := *m
				a.Full, a.Proved, a.Proof = false, true, prove(0, given)
				x.Answers = []message.Answer{a}
				return one(&x)
			}
		}
		return one(m)
	}, "proposes to 1 and 3 only in view 0, and proves the result that 3 gave")
	s.handsOver(0, 10)
	s.reach("1 and 2 have executed the first call in view 1, 3 in view 0, and the client has four answers",
		func(w *world) bool {
			c := w.clients[0]
			return given != nil && w.view(1) == 1 && w.view(2) == 1 && w.core(1).LastExecuted() == 1 &&
				w.core(2).LastExecuted() == 1 &&
				w.core(3).LastExecuted() == 0 && c.rule.Calling(0) && c.rule.Request(0).Timestamp == 101 &&
				c.rule.Tally(0).Heard() == 15
		})
	return s
}

// takenBackAndRepeated: 3 alone has executed the first call tentatively in view 0, as n1. In view
// 1 another call is n1 and the first one n2. The faulty 0 sends 3 the batch that shows this, and
// the first call once more behind it. Before 3 has undone its execution it must not repeat that
// answer as if the call had committed. 0 proves the same result and 2 says only that the call was
// executed, so there would be f+1 with the result and 2f+1 that know that the call has committed.
func takenBackAndRepeated() *Schedule {
	s := scene("taken back and repeated", 200)
	s.Seed = 2 // the client names 3 for the result, and 0 for a proof of it
	s.shape.clients, s.shape.gather = 2, 100
	var given []byte // by 3, in view 0
	brought := false
	first := func(m *message.Request) bool { return m.Op[0] == opKept }
	s.add(func(w *world) { w.network.spread = 0 }, "messages do not overtake each other")
	s.loses(func(w *world, from, to int, m message.Message) bool {
		at := w.now / tick
		switch m := m.(type) {
		case *message.Request:
			return first(m) && (from >= w.n && m.Replier == message.AnyReplier || from < w.n && to != 1 &&
				to != 3 || to == 1 && at < 50)
		case *message.Reply:
			if from == 3 && m.View == 0 && m.Answers[0].Full && m.Answers[0].Long() && given == nil {
				given = m.Answers[0].Result
			}
		case *message.PrePrepare:
			return m.View > 0 && to == 3
		case *message.Prepare:
			return from == 3 || m.View > 0 && to == 3
		case *message.Commit:
			return from == 3 || m.View == 0 || to == 3 || to == 2 && m.Seq == 1 && at < 90
		case *message.ViewChange:
			return from == 3
		case *message.NewView:
			return to == 3
		case *message.Decided:
			return to == 3 && at < 120 || to == 2 && at < 90
		case *message.BatchBody:
			return to == 3 && from != 0
		}
		return false
	}, "PREPAREs, COMMITs and VIEW-CHANGEs of 3, COMMITs of view 0, what 3 would hear of view 1 before 120, "+
		"and batches for 3 but from 0, are lost")
	s.says(0, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		switch m := m.(type) {
		case *message.PrePrepare:
			if to == 2 && m.View == 0 {
				return nil
			}
		case *message.Reply:
			if a := m.Answers[0]; a.Long() && given != nil {
				x := *m
				a.Full, a.Proved, a.Proof = false, true, prove(0, given)
				x.Seq, x.Tentative, x.Answers = 0, false, []message.Answer{a}
				return one(&x)
			}
		case *message.BatchBody:
			if k := r.w.clients[0].slots[0].call; to == 3 && k != nil {
				brought = true
				return []message.Message{m, k.q}
			}
		}
		return one(m)
	}, "proposes to 1 and 3 only in view 0, proves the result that 3 gave, and brings 3 the first call behind a batch")
	s.hush()
	s.calls(0, 10, append([]byte{opKept}, make([]byte, 11)...), false)
	s.handsOver(0, 25)
	s.calls(1, 35, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.reach("3 has given a result in view 0, and has taken it back", func(w *world) bool {
		return given != nil && brought && w.core(3).LastExecuted() >= 1
	})
	return s
}

// administers adds the guest, as client 1, and the administrator, as client 2.
func (s *Schedule) administers() {
	s.add(func(w *world) {
		w.clients = append(w.clients, newClient(w, guest), newAdministrator(w))
	}, "there is an administrator, and client %d", guest)
}

// guestHearsFrom loses all that is sent to the guest before a tick.
func (s *Schedule) guestHearsFrom(t int64) {
	s.loses(func(w *world, _, to int, _ message.Message) bool {
		return to == w.n+guest && w.now < t*tick
	}, "client %d hears nothing before %d", guest, t)
}

// enrolledBeforeFetching: a client is revoked before checkpoint 4 and enrolled again after it,
// at 3 too, which then falls behind and fetches the state of a later checkpoint. Meanwhile the
// pages of 3 are those of checkpoint 4, and it must not tell the client that it is not enrolled.
func enrolledBeforeFetching() *Schedule {
	s := scene("enrolled before fetching", 160)
	s.shape.period, s.shape.log = 4, 8
	s.administers()
	s.hush()
	key := clientKey(guest)
	s.calls(2, 5, append([]byte{executor.AdminRevoke}, key...), false)
	s.calls(2, 30, append([]byte{executor.AdminEnrol}, key...), false)
	for _, t := range []int{10, 16, 22, 37, 50, 56, 62, 68, 74, 80, 86, 92, 98} {
		s.calls(0, t, append([]byte{opWrite}, make([]byte, 11)...), false)
	}
	s.add(func(w *world) {
		w.at(45*tick, func() { w.alone(3, 1) })
		w.at(110*tick, func() { w.alone(3, -1) })
	}, "3 is cut off from 45 to 110")
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		_, data := m.(*message.Data)
		return data && to == 3
	}, "3 is sent no pages")
	s.calls(1, 140, append([]byte{opRead}, make([]byte, 11)...), true)
	s.reach("3 fetches, and had executed the enrolment", func(w *world) bool {
		return w.core(3).Transferring() && w.core(3).LastExecuted() == 6 && w.clients[1].latest() > 100
	})
	return s
}

// enrolledAfterItsBatch: a client's request is proposed behind the operation that revokes the
// client, so that nothing happens when its batch is executed. The client does not hear of it, is
// enrolled again, and sends the request again. It must be proposed a second time, in the same
// view and in the next, whose NEW-VIEW chooses the first batch once more.
func enrolledAfterItsBatch(name string, views message.View, tentative bool) *Schedule {
	s := scene(name, 400)
	s.shape.window, s.shape.tentative = 4, tentative
	s.administers()
	s.guestHearsFrom(40)
	s.hush()
	key := clientKey(guest)
	s.calls(2, 5, append([]byte{executor.AdminRevoke}, key...), false)
	s.calls(1, 5, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.calls(2, 30, append([]byte{executor.AdminEnrol}, key...), false)
	if views > 0 {
		s.handsOver(0, 18)
	}
	if views > 1 {
		s.loses(func(w *world, from, _ int, m message.Message) bool {
			return w.now >= 40*tick && from == 1 && orders(m)
		}, "1, the next primary, orders nothing from 40")
	}
	s.reach("the request is in two batches, and nobody's timer ran out", func(w *world) bool {
		return w.core(1).LastExecuted() == 4 && w.clients[1].slots[0].done == 1 && w.view(1) == views
	})
	return s
}

// chosenAndNotEnrolled: two requests of a client are proposed behind the operation that revokes it.
// The second of these batches commits in the next view only, where it has no effect. The client is
// enrolled again and sends both requests again. They must be proposed in that view.
func chosenAndNotEnrolled(name string, tentative bool) *Schedule {
	s := scene(name, 400)
	s.shape.window, s.shape.tentative, s.shape.slots = 4, tentative, 2
	s.administers()
	s.guestHearsFrom(40)
	s.loses(func(_ *world, _, _ int, m message.Message) bool {
		c, ok := m.(*message.Commit)
		return ok && c.View == 0 && c.Seq == 3
	}, "COMMITs of the third batch are lost in view 0")
	s.hush()
	key := clientKey(guest)
	s.calls(2, 5, append([]byte{executor.AdminRevoke}, key...), false)
	s.calls(1, 5, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.add(func(w *world) {
		w.at(5*tick+1, func() { w.clients[1].slots[1].issue(append([]byte{opWrite}, make([]byte, 11)...), false) })
	}, "and then for %q, in its other slot", opWrite)
	s.calls(2, 30, append([]byte{executor.AdminEnrol}, key...), false)
	s.handsOver(0, 14)
	s.reach("both requests are in two batches each, and nobody's timer ran out", func(w *world) bool {
		c := w.clients[1]
		return w.core(1).LastExecuted() == 6 && c.slots[0].done == 1 && c.slots[1].done == 1 && w.view(1) == 1
	})
	return s
}

// provenAfterFetching: 3 hears of a request from the faulty 0 only, as one that is not authentic
// there, and 2 says that it waits for it. 3 fetches a state in which the request was executed. Then
// 0 says that it waits, too, which makes the request authentic. But 3 must not wait for it.
func provenAfterFetching() *Schedule {
	s := scene("proven after fetching", 200)
	s.shape.period, s.shape.log = 4, 8
	s.add(func(w *world) { w.clients = append(w.clients, newClient(w, guest)) }, "there is client %d", guest)
	var late *message.Request
	s.loses(func(w *world, from, to int, m message.Message) bool {
		switch m.(type) {
		case *message.Request:
			return to == 0 && w.now < 30*tick || to == 3 && from != 0
		case *message.Forward:
			return from == 1 && to == 3
		}
		return to == 3 && orders(m)
	}, "0 hears of no request before 30; 3 of none but from 0, of no FORWARD of 1, and of nothing that is agreed on")
	s.says(0, func(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
		if to != 3 {
			return one(m)
		}
		if _, ok := m.(*message.Forward); ok {
			return nil
		}
		k := r.w.clients[1].slots[0]
		switch {
		case late == nil && k.call != nil:
			x := *k.call.q
			x.Auth.Tags = make([]byte, len(x.Auth.Tags))
			late = &x
			return []message.Message{m, late}
		case late != nil && r.w.core(3).LastExecuted() >= 4:
			return []message.Message{m, &message.Forward{Client: late.Client, Slot: late.Slot,
				Timestamp: late.Timestamp, Digest: late.Digest()}}
		}
		return one(m)
	}, "passes a request on to 3 with a bad MAC, and says that it waits for it when 3 has fetched")
	s.hush()
	s.calls(1, 5, append([]byte{opWrite}, make([]byte, 11)...), false)
	for t := 50; t < 110; t += 6 {
		s.calls(0, t, append([]byte{opWrite}, make([]byte, 11)...), false)
	}
	s.reach("3 has fetched, and the others have no reason to leave", func(w *world) bool {
		return late != nil && w.core(3).LastExecuted() >= 4 && w.clients[1].slots[0].done == 1 && w.view(1) == 0
	})
	return s
}

// notEnrolledYet: a client is revoked and enrolled again, and 3 does not hear of the
// second enrolment. When the client reads, 3 and the faulty 0 say that it is not
// enrolled. The word of f+1 replicas must not be believed in this.
func notEnrolledYet() *Schedule {
	s := scene("not enrolled yet", 100)
	s.administers()
	s.hush()
	key := clientKey(guest)
	s.calls(2, 5, append([]byte{executor.AdminRevoke}, key...), false)
	s.calls(2, 30, append([]byte{executor.AdminEnrol}, key...), false)
	s.loses(func(w *world, _, to int, m message.Message) bool {
		return to == 3 && orders(m) && w.now >= 20*tick
	}, "3 hears nothing of what is agreed on from 20")
	s.says(0, func(_ *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
		if p, ok := m.(*message.Reply); ok && p.Answers[0].ReadOnly {
			x, a := *p, p.Answers[0]
			a.Outcome, a.Result, a.Length, a.Full, a.Version = message.NotEnrolled, nil, 0, true, 0
			x.Answers = []message.Answer{a}
			return one(&x)
		}
		return one(m)
	}, "tells a reader that it is not enrolled")
	s.calls(1, 60, append([]byte{opRead}, make([]byte, 11)...), true)
	s.reach("3 has executed the revocation alone, and the client has its result", func(w *world) bool {
		return w.core(3).LastExecuted() == 1 && w.clients[1].slots[0].done == 1
	})
	return s
}

// earlierLife is a client that has written twice when it restarts at 45, and then writes
// something else. Its clock has gone back to the given time. The faulty 0 says that it knows
// of no timestamp, and 2 is not asked. If late is set, 3 hears late of the second write.
func earlierLife(name string, clock message.Timestamp, late bool) *Schedule {
	s := scene(name, 90)
	s.loses(func(w *world, _, to int, m message.Message) bool {
		_, question := m.(*message.QueryStable)
		return question && to == 2 || late && to == 3 && orders(m) && w.now >= 20*tick
	}, "nobody asks 2 where timestamps begin, and 3 hears late of what is agreed on from 20: %t", late)
	s.says(0, func(_ *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
		if x, ok := m.(*message.ReplyStable); ok {
			y := *x
			y.Latest = 0
			return one(&y)
		}
		return one(m)
	}, "knows of no timestamp")
	s.hush()
	s.calls(0, 5, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.calls(0, 25, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.add(func(w *world) {
		w.at(45*tick, func() { w.clients[0].restartAt(clock) })
	}, "the client restarts at 45, when its clock shows %d", clock)
	s.calls(0, 55, append([]byte{opLong}, make([]byte, 11)...), false)
	return s
}

// timestampOfAnEarlierLife: the next timestamp by the clock is that of the second write.
// The client must learn this from 1 and 3. Otherwise it would take the result of that
// write for the result of its third call.
func timestampOfAnEarlierLife() *Schedule {
	s := earlierLife("a timestamp of an earlier life", 101, false)
	s.reach("the third call has its result, under a later timestamp", func(w *world) bool {
		return w.clients[0].life == 1 && w.clients[0].slots[0].done == 3 && w.clients[0].latest() > 102
	})
	return s
}

// latestUnknown: the client hears of no later timestamp than the first write's, since 3
// has not executed the second. It must leave room for that.
func latestUnknown() *Schedule {
	s := earlierLife("a timestamp that is not known", 50, true)
	s.reach("the third call has its result, and 3 has not executed the second", func(w *world) bool {
		return w.core(3).LastExecuted() == 1 && w.clients[0].slots[0].done == 3 && w.clients[0].latest() > 102
	})
	return s
}

// overtaken: 3 has executed nothing, so that the client hears of no timestamp above its
// clock. Its third call is superseded, which the client must report. The timestamp of the
// call after that must be later than all that the group knows.
func overtaken() *Schedule {
	s := earlierLife("overtaken by an earlier life", 50, true)
	s.add(func(w *world) {
		w.network.losses = append(w.network.losses, func(_, to int, m message.Message) bool {
			return to == 3 && orders(m)
		})
	}, "3 hears of nothing that is agreed on")
	s.calls(0, 75, append([]byte{opLong}, make([]byte, 11)...), false)
	s.reach("the third call was superseded, and the fourth has its result", func(w *world) bool {
		c := w.clients[0]
		return c.passed == 1 && c.slots[0].done == 4 && c.latest() > 102
	})
	return s
}
