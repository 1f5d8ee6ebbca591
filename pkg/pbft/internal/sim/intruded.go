// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// Directed schedules of intruders who know the protocol, and of recoveries that faulty
// replicas disturb.

// intruded puts an intruder into replica i between two ticks, in a schedule on disks.
// Until the intruder goes the replica sends the messages of a correct one. The intruder
// leaves something behind, and the replica recovers.
func (s *Schedule) intruded(i, from, to int, leaves func(r *replica), format string, args ...any) {
	s.intrudedAndDown(i, from, to, 1, leaves, format, args...)
}

// intrudedAndDown does the same, and the replica is down for a while before it recovers.
func (s *Schedule) intrudedAndDown(i, from, to, down int, leaves func(r *replica), format string, args ...any) {
	s.shape.durable, s.shape.sync = true, 5
	s.add(func(w *world) {
		t := trace{leave: func(r *replica, _ *rand.Rand) { leaves(r) }}
		w.patiently(from, func() bool {
			return w.intrudes(i, int64(to-from)*tick, int64(down)*tick, lie{"polite", polite}, t)
		})
	}, "an intruder is in replica %d from %d to %d, and leaves behind "+format, append([]any{i, from, to}, args...)...)
}

// polite is no lie: it sends what a correct replica would.
func polite(_ *liarMemory, _ *replica, _ int, m message.Message) []message.Message { return one(m) }

// write appends records to the journal of a replica that is down.
func (r *replica) write(records ...message.Message) {
	s := r.w.sites[r.id]
	m, err := store.Recall[func()](store.Options{Disk: r.keeper.disk, Group: group, SegmentBytes: segmentBytes,
		Self: message.ReplicaID(r.id), Limits: &r.w.wire}, 0, func() error { return nil })
	if err != nil {
		return // the crash has left nothing to be opened
	}
	for _, x := range records {
		m.Store.Persist(x)
	}
	if durable, err := m.Store.Flush(); err == nil {
		m.Store.Flushed(durable, nil)
	}
	s.position = uint64(m.Store.Position())
	_ = m.Store.Close()
}

// once has f happen as soon as a condition holds.
func (s *Schedule) once(when func(w *world) bool, f func(w *world), format string, args ...any) {
	s.add(func(w *world) {
		w.patiently(0, func() bool {
			if !when(w) {
				return false
			}
			f(w)
			return true
		})
	}, format, args...)
}

// healed reports whether the intruder is expelled from replica i and its recovery is over.
func healed(w *world, i int) bool { return w.cured[i] }

// decidedAhead: the intruder writes into the journal of 3 that batches were decided under
// numbers that the group has yet to reach. They lie beyond all that the recovery looks
// at. But the recovery ends, and an ordinary restart reads the journal once more.
func decidedAhead() *Schedule {
	s := scene("decided ahead", 400)
	batch := message.Batch{Choice: []byte{1}}
	s.intruded(3, 20, 40, func(r *replica) {
		first := r.core.Low() + r.w.shape.log + 1
		all := []message.Message{&message.PrePrepare{View: 0, Seq: first, Digest: batch.Digest(), Batch: batch}}
		for n := first; n < first+200; n++ {
			all = append(all, &message.Decided{Seq: n, Digest: batch.Digest()})
		}
		r.write(all...)
	}, "that other batches were decided ahead")
	s.once(func(w *world) bool { return healed(w, 3) },
		func(w *world) { w.restart(3, tick) }, "3 restarts when it has recovered")
	s.reach("3 has recovered, and was restarted since", func(w *world) bool { return healed(w, 3) && w.lives(3) >= 2 })
	return s
}

// preparedAhead: the intruder writes that proposals were prepared. When 3 has recovered
// and is restarted it must not claim these.
func preparedAhead() *Schedule {
	s := scene("prepared ahead", 400)
	batch := message.Batch{Choice: []byte{1}}
	s.intruded(3, 20, 40, func(r *replica) {
		var all []message.Message
		for n := r.core.Low() + r.w.shape.log + 1; n < r.core.Low()+200; n++ {
			all = append(all, &message.PrePrepare{View: 0, Seq: n, Digest: batch.Digest(), Batch: batch},
				&message.Commit{View: 0, Seq: n})
		}
		r.write(all...)
	}, "that other batches prepared ahead")
	s.once(func(w *world) bool { return healed(w, 3) },
		func(w *world) { w.restart(3, tick) }, "3 restarts when it has recovered")
	s.reach("3 has recovered, and was restarted since", func(w *world) bool { return healed(w, 3) && w.lives(3) >= 2 })
	return s
}

// forgedBeginning is a NEW-VIEW of a view, and VIEW-CHANGEs of all replicas that justify
// it. For each number in a window it chooses a batch that nobody knows.
func forgedBeginning(r *replica, view message.View) (all []message.Message) {
	low, window := r.core.Low(), r.w.shape.log
	k := message.CheckpointID{Seq: low, Digest: r.core.Stable().Digest}
	var tuples []message.Prepared
	var chosen []message.Digest
	for n := low + 1; n <= low+window; n++ {
		d := message.Digest{'f', byte(n)}
		tuples, chosen = append(tuples, message.Prepared{Seq: n, Digest: d}), append(chosen, d)
	}
	m := &message.NewView{View: view, Checkpoint: k, Chosen: chosen, From: view.Primary(r.w.n)}
	for i := range r.w.n {
		vc := &message.ViewChange{View: view, Low: low, Checkpoints: []message.CheckpointID{k}, P: tuples, Q: tuples,
			From: message.ReplicaID(i)}
		all = append(all, vc)
		m.V = append(m.V, message.Vouched{From: vc.From, Digest: vc.Digest()})
	}
	return append(all, m)
}

// forgedView: the journal of 3 says that it waits for view 1, and holds the NEW-VIEW and
// the VIEW-CHANGEs of that view. No other replica ever left view 0.
func forgedView() *Schedule {
	s := scene("a forged view", 900) // the others follow it into view 1, which takes them 500 ticks
	s.intruded(3, 20, 40, func(r *replica) {
		r.write(forgedBeginning(r, 1)...)
	}, "a NEW-VIEW and the VIEW-CHANGEs that justify it")
	s.reach("3 has recovered", func(w *world) bool { return healed(w, 3) })
	return s
}

// forgedFirstView: the journal of 3 has a NEW-VIEW of view 0, which begins with none.
func forgedFirstView() *Schedule {
	s := scene("a forged first view", 400)
	s.intruded(3, 20, 40, func(r *replica) { r.write(forgedBeginning(r, 0)...) }, "a NEW-VIEW of view 0")
	s.reach("3 has recovered", func(w *world) bool { return healed(w, 3) })
	return s
}

// forgedWay: view 1 has begun, and the journal of 3 has other VIEW-CHANGEs for it than
// were sent. 3 must take those that were sent.
func forgedWay() *Schedule {
	s := scene("a forged way into a view", 400)
	s.handsOver(0, 10)
	s.intruded(3, 40, 60, func(r *replica) {
		all := forgedBeginning(r, 1)
		r.write(all[:len(all)-1]...)
	}, "VIEW-CHANGEs for the present view that nobody sent")
	s.reach("3 has recovered", func(w *world) bool { return healed(w, 3) })
	return s
}

// lowEstimate: 3 is correct, and its recovery has it forget all but its fence. 2 lags
// behind, the faulty 0 says that it does too, and 1 alone has come as far as 3 had. So
// the bound is low. 3 must not take its fence for false because of that: it would vote
// again from a checkpoint below its earlier votes.
func lowEstimate() *Schedule {
	s := scene("a low estimate", 450)
	// Once the faults end, replica 0 does all that a correct replica does: the group needs it
	// while 3 is silent.
	s.shape.stubborn = true
	const recovers, late, last = 300, 330, 48
	number := func(m message.Message) message.SeqNum {
		switch m := m.(type) {
		case *message.PrePrepare:
			return m.Seq
		case *message.Prepare:
			return m.Seq
		case *message.Commit:
			return m.Seq
		case *message.Checkpoint:
			return m.Seq
		case *message.Decided:
			return m.Seq
		}
		return 0
	}
	s.loses(func(w *world, from, to int, m message.Message) bool {
		if to != 2 {
			return false
		}
		switch m.(type) {
		case *message.Request, *message.Forward, *message.Data, *message.BatchBody:
			return true
		}
		n := number(m)
		if n > 8 && n <= last && w.now < late*tick {
			b := frame{encode(m), w.keys.under(from, to)}
			w.at(late*tick+w.now/tick, func() { // in order
				r := w.sites[2].copies[0]
				r.running(func() { r.gather(from, b) })
			})
		}
		return n > 8
	}, "what 2 hears of n9 to n%d comes at %d, and of later ones it hears nothing, nor of requests", last, late)
	s.says(0, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		if r.w.calm {
			return one(m)
		}
		switch m := m.(type) {
		case *message.ReplyStable:
			x := *m
			x.Taken, x.Prepared = 0, 0
			return one(&x)
		case *message.Checkpoint:
			if to == 3 && r.w.now > recovers*tick {
				return nil
			}
		case *message.Status:
			if to == 3 && r.w.now > late*tick {
				return []message.Message{m, &message.Checkpoint{Seq: last, Digest: r.w.judge.roots[last], Stable: true}}
			}
		}
		return one(m)
	}, "says that it has prepared nothing, and tells 3 then that n%d is the stable one", last)
	s.add(func(w *world) {
		w.at(recovers*tick, func() { w.sites[3].copies[0].recover(tick) })
	}, "at %d replica 3 recovers, in replicated mode", recovers)
	s.reach("3 has forgotten, 1 has gone further than the fence can be above the estimate, and 2 holds n48",
		func(w *world) bool {
			return w.lives(3) == 1 && w.core(1).Stable().Seq > 8+2*w.shape.log+4*w.shape.period &&
				w.core(2).Stable().Seq == last
		})
	return s
}

// earlyViews: 4, which is correct, recovers in view 7, of which it does not hear the
// NEW-VIEW for a while. 5 lags behind in view 0, and the faulty 0 says that it is there
// too. 4 must not take its own view for an intruder's work because of that.
func earlyViews() *Schedule {
	s := scene("early views", 300)
	s.Replicas, s.shape.replicas = 6, 6
	s.shape.durable, s.shape.sync = true, 5
	const recovers, late = 200, 260
	s.loses(func(w *world, from, to int, m message.Message) bool {
		if w.now > late*tick {
			return false
		}
		switch m.(type) {
		case *message.NewView:
			return to == 5 || to == 4 && w.now > recovers*tick
		case *message.ViewChange, *message.Request, *message.Forward:
			return to == 5
		case *message.Status:
			return from == 0 && to == 5
		case *message.Recovered:
			return to == 4 && (from == 2 || from == 3)
		}
		return false
	}, "until %d 5 hears of no view and no request, and from %d on 4 of no NEW-VIEW, nor 2 and 3 "+
		"that its request was executed", late, recovers)
	s.says(0, func(_ *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
		if x, ok := m.(*message.Recovered); ok {
			y := *x
			y.View = 0
			return one(&y)
		}
		return one(m)
	}, "says that it is in view 0 when 4's request was executed")
	for i := range 5 {
		s.handsOver(i, 10*(i+1))
	}
	s.once(func(w *world) bool { v, active := w.core(1).View(); return v == 6 && active }, func(w *world) {
		r := w.sites[0].copies[0]
		r.running(func() { r.core.StepDown(); r.perform() })
	}, "0 hands over in view 6")
	s.add(func(w *world) {
		w.at(recovers*tick, func() { w.sites[4].copies[0].recover(tick) })
	}, "at %d replica 4 recovers", recovers)
	s.reach("4 has recovered in view 7", func(w *world) bool {
		return w.lives(4) == 1 && !w.sites[4].copies[0].recovers && w.view(4) == 7
	})
	return s
}

// withheld: 3 recovers in view 1, whose primary is faulty: it tells 3 nothing of how the
// view began, and does all else well. Until 0 and 2 tell 3, its recovery cannot end.
func withheld() *Schedule {
	s := scene("a NEW-VIEW withheld", 400)
	s.shape.durable, s.shape.sync = true, 5
	const recovers = 60
	s.says(1, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		v, ok := m.(*message.ViewChange)
		if to == 3 && r.w.now > recovers*tick && (ok && int(v.From) != 3 || m.Type() == message.TypeNewView) {
			return nil
		}
		return one(m)
	}, "sends 3 no NEW-VIEW and no VIEW-CHANGEs after %d", recovers)
	s.handsOver(0, 20)
	s.add(func(w *world) {
		w.at(recovers*tick, func() { w.sites[3].copies[0].recover(tick) })
	}, "at %d replica 3 recovers", recovers)
	s.reach("3 has recovered in view 1", func(w *world) bool {
		return w.lives(3) == 1 && !w.sites[3].copies[0].recovers && w.view(3) == 1
	})
	return s
}

// checkpointAhead: the intruder writes that a checkpoint far ahead is stable, of which nobody
// has the state. 3 must find that it cannot be, and set aside what it remembers.
func checkpointAhead() *Schedule {
	s := scene("a checkpoint ahead", 400)
	s.intruded(3, 20, 40, func(r *replica) {
		r.write(&message.Checkpoint{Seq: 100 * r.w.shape.log, Digest: message.Digest{'f'}, Stable: true, From: 3})
	}, "that a checkpoint is stable which nobody has taken")
	s.reach("3 has recovered with the group's state", func(w *world) bool {
		return healed(w, 3) && w.core(3).Stable().Seq < 100*w.shape.log && !w.core(3).Transferring()
	})
	return s
}

// fencedForEver: the intruder raises the fence of 3, which has no journal, so high that no
// checkpoint will ever be above it. 3 must find that the fence is false, or be silent for ever.
func fencedForEver() *Schedule {
	s := scene("fenced for ever", 400)
	s.intruded(3, 20, 40, func(r *replica) { r.w.sites[r.id].fence = 1 << 40 }, "a fence above everything")
	s.shape.durable, s.shape.sync = false, 0
	speaks := false
	s.once(func(w *world) bool { return healed(w, 3) && w.core(3).SilentUntil() == 0 },
		func(w *world) { speaks = w.lives(3) == 1 }, "it is noted in which life 3 votes again")
	s.reach("3 has recovered, and voted again before another start", func(*world) bool { return speaks })
	return s
}

// otherState: the intruder writes that other batches were decided than the others will decide,
// up to the next checkpoint. So 3 comes to another state than the group's. It must fetch that,
// without another start.
func otherState() *Schedule {
	s := scene("another state", 400)
	s.intruded(3, 20, 40, func(r *replica) {
		batch := message.Batch{Choice: []byte{1}, Requests: []*message.Request{{
			Client: r.w.clients[0].id, Timestamp: 1 << 20, Op: append([]byte{opWrite}, make([]byte, 11)...),
		}}}
		n := r.core.LastExecuted()
		var all []message.Message
		for last := (n/r.w.shape.period + 1) * r.w.shape.period; n < last; {
			n++
			all = append(all, &message.PrePrepare{View: 0, Seq: n, Digest: batch.Digest(), Batch: batch},
				&message.Decided{Seq: n, Digest: batch.Digest()})
		}
		r.write(all...)
	}, "other batches than the others will decide")
	found := false
	s.once(func(w *world) bool { return healed(w, 3) }, func(w *world) {
		_, _, corrupt := w.core(3).Recovery()
		found = corrupt && w.lives(3) == 1
	}, "it is noted how 3 has recovered")
	s.reach("3 has found that its state was another, and recovered before another start", func(*world) bool {
		return found
	})
	return s
}

// forgedLead: view 2 has begun. The journal of 3 says that all have left for view 3, and how
// that begins. 3 leads view 3, and the others come there later. The VIEW-CHANGEs that they
// send then must count, and not those in the journal.
func forgedLead() *Schedule {
	s := scene("a forged way into its own view", 150)
	s.handsOver(0, 5)
	s.handsOver(1, 15)
	s.intruded(3, 30, 50, func(r *replica) { r.write(forgedBeginning(r, 3)...) }, "a NEW-VIEW of its own")
	s.handsOver(2, 100)
	begun := false
	s.once(func(w *world) bool { return healed(w, 3) && w.activeIn(0, 3) }, func(*world) { begun = true },
		"it is noted that 3 has recovered in view 3")
	s.reach("3 has begun view 3 and recovered in it", func(*world) bool { return begun })
	return s
}

// namesNobody: the intruder writes that checkpoint 24 has another root than the group's, which
// has come there when 3 recovers. What the others say of that checkpoint is not what 3
// remembers. It must not name them for that.
func namesNobody() *Schedule {
	s := scene("names nobody", 200)
	told := false
	s.loses(func(w *world, from, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Request:
			return from >= w.n && w.core(0).LastProposed() >= 24 && !healed(w, 3)
		case *message.Checkpoint:
			if from != 0 || to != 3 || m.Seq != 24 || told {
				return false
			}
			told = true
			w.after(33*tick, func() {
				w.sites[3].copies[0].gather(from, frame{encode(m), w.keys.under(from, to)})
			})
			return true
		}
		return false
	}, "nobody hears a call from n24 on until 3 has recovered, and 3 hears 33 ticks late that 0 holds checkpoint 24")
	s.intrudedAndDown(3, 40, 41, 40, func(r *replica) {
		r.write(&message.Checkpoint{Seq: 24, Digest: message.Digest{'f'}, Stable: true, From: 3})
	}, "that checkpoint 24 is another")
	s.reach("3 has recovered, and 0 has spoken of checkpoint 24", func(w *world) bool { return healed(w, 3) && told })
	return s
}

// otherNumbers: a checkpoint is due when the operations since the last are so long, after four
// writes. The intruder writes that a long batch was decided which changes nothing. So 3 takes
// its next checkpoints at other numbers than the group, and can compare its root with none of
// theirs. That itself must show that it has executed other batches.
func otherNumbers() *Schedule {
	s := scene("checkpoints at other numbers", 200)
	s.shape.bytes = 48
	s.hush()
	for t := 4; t <= 36; t += 4 {
		s.calls(0, t, append([]byte{opWrite}, make([]byte, 11)...), false)
	}
	s.intruded(3, 20, 40, func(r *replica) {
		batch := message.Batch{Choice: []byte{1}, Requests: []*message.Request{{
			Client: r.w.clients[0].id, Timestamp: 1, Op: append([]byte{opWrite}, make([]byte, 60)...),
		}}}
		n := r.core.LastExecuted() + 1
		r.write(&message.PrePrepare{View: 0, Seq: n, Digest: batch.Digest(), Batch: batch},
			&message.Decided{Seq: n, Digest: batch.Digest()})
	}, "a long batch that changes nothing")
	found := false
	s.once(func(w *world) bool { return healed(w, 3) }, func(w *world) {
		_, _, corrupt := w.core(3).Recovery()
		found = corrupt && w.lives(3) == 1
	}, "it is noted how 3 has recovered")
	s.reach("3 has found that its batches were others, and recovered before another start", func(*world) bool {
		return found
	})
	return s
}

// toldOfTheFirst: 3 leaves view 0 with a VIEW-CHANGE that an intruder makes it forget, and makes
// another. View 1 begins with the first. Later 0 recovers, and 1, which is faulty then, tells
// it nothing of how the view began. 2 and 3 do, but 3 must not send the first beside the
// second.
func toldOfTheFirst() *Schedule {
	s := scene("told of the first VIEW-CHANGE", 400)
	s.handsOver(0, 20)
	s.loses(func(w *world, from, to int, m message.Message) bool {
		switch m.(type) {
		case *message.ViewChange:
			return from == 2 && to == 1 && w.now < 60*tick
		case *message.NewView:
			return to == 3 && w.now < 40*tick
		}
		return false
	}, "1 does not hear the VIEW-CHANGE of 2, nor 3 the NEW-VIEW before 40")
	s.intruded(3, 21, 22, func(r *replica) {
		r.keeper.disk, r.w.sites[3].position = disk.NewMem(rand.New(rand.NewPCG(1, 5))), 0
	}, "an empty disk that passes for whole")
	withholds := func(_ *liarMemory, _ *replica, to int, m message.Message) []message.Message {
		v, ok := m.(*message.ViewChange)
		if to == 0 && (ok && int(v.From) != 0 || m.Type() == message.TypeNewView) {
			return nil
		}
		return one(m)
	}
	s.once(func(w *world) bool { return healed(w, 3) }, func(w *world) {
		w.sites[1].lies = append(w.sites[1].lies, lie{"directed", withholds})
		w.remember(1)
		w.sites[0].copies[0].recover(tick)
	}, "when 3 has recovered 1 turns faulty, and sends 0 no NEW-VIEW and no VIEW-CHANGEs; and 0 recovers")
	s.reach("0 and 3 have recovered in view 1", func(w *world) bool {
		return healed(w, 3) && w.lives(0) == 1 && !w.sites[0].copies[0].recovers && w.view(0) == 1
	})
	return s
}

// silentBeyondItsPoint: the fence of 3 is as high as it can be above what it has voted for. 3 loses
// its journal when nothing is stable, and recovers in an idle group. Its fence is above all that
// the others have it wait for. It must not say that it has recovered before it votes.
func silentBeyondItsPoint() *Schedule {
	s := scene("silent beyond its recovery point", 400)
	s.shape.foresees = true
	s.hush()
	s.calls(0, 5, append([]byte{opWrite}, make([]byte, 11)...), false)
	fence, silent := message.SeqNum(0), true
	s.intruded(3, 40, 41, func(r *replica) {
		r.keeper.disk, fence = disk.NewMem(rand.New(rand.NewPCG(1, 5))), r.w.sites[3].fence
	}, "an empty disk")
	s.once(func(w *world) bool { return healed(w, 3) }, func(w *world) { silent = w.core(3).SilentUntil() > 0 },
		"it is noted whether 3 votes when it has recovered")
	s.reach("3 votes when it has recovered, and its fence was above H_M+K", func(w *world) bool {
		return !silent && fence > w.sites[3].bound+w.shape.period
	})
	return s
}
