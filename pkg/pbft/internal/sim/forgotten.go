// SPDX-License-Identifier: Apache-2.0

package sim

import "bfs/pkg/pbft/internal/message"

// Directed schedules of replicas that are restarted and forget what they promised
// (R-OUR-21), and of a value that recurs (R-OUR-22).

// restarts ends the life of a replica at a tick, even if more than f replicas are then
// faulty, away or without memory.
func (s *Schedule) restarts(i int, ticks ...int) {
	s.add(func(w *world) {
		for _, t := range ticks {
			w.at(int64(t)*tick, func() { w.sites[i].copies[0].restart(tick) })
		}
	}, "replica %d restarts at %v", i, ticks)
}

// lives is how often replica i has been restarted.
func (w *world) lives(i int) int { return w.sites[i].copies[0].life }

// forgottenWhileSilent: 2 is restarted, joins view 1 while it is silent, has its checkpoint
// there, leaves view 0 in the eyes of the others with a VIEW-CHANGE, and is restarted once more.
// 0, the primary of view 0, turns faulty then and goes on in view 0. If 2 did not remember that
// it had left, it would prepare another batch there than the others have executed.
func forgottenWhileSilent() *Schedule {
	s := scene("forgotten while silent", 220)
	s.shape.period, s.shape.log = 2, 4
	const turns = 140
	s.loses(func(w *world, from, to int, m message.Message) bool {
		at := w.now / tick
		switch m := m.(type) {
		case *message.Request:
			return m.Timestamp > 104 && (at < turns+25 || to != 1)
		case *message.Checkpoint, *message.Data, *message.Decided:
			return to == 2 && at >= 30 && at < 60
		case *message.ViewChange:
			return to == 3 && at < turns+25 || to == 2 && from != 0 && at < 62 || to == 2 && at >= 62
		case *message.NewView:
			return to == 2 || to == 3 && at < turns+25
		case *message.Forward:
			return true
		}
		return false
	}, "2 hears nothing of checkpoints from 30 to 60, no NEW-VIEW, and of VIEW-CHANGEs only that of 0 and "+
		"only before 62; 3 hears of view 1 late; nobody gets a fifth call before that")
	d := message.Batch{Choice: []byte{1}}
	s.says(0, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		if _, ok := m.(*message.Status); ok && r.w.now >= turns*tick && (to == 2 || to == 3) {
			return []message.Message{m, &message.PrePrepare{View: 0, Seq: 5, Digest: d.Digest(), Batch: d},
				&message.Commit{View: 0, Seq: 5}}
		}
		return one(m)
	}, "is correct until %d, and then goes on as primary of view 0", turns)
	s.handsOver(0, 45)
	s.restarts(2, 40, 110)
	s.reach("2 was restarted twice, and 0 and 1 are in view 1", func(w *world) bool {
		return w.lives(2) == 2 && w.view(0) >= 1 && w.view(1) >= 1
	})
	return s
}

// forgottenNewView: 1 has voted for nothing in view 0 and begins view 1 with what
// prepared there. It is restarted before the batch has committed; then 3 falls silent.
// The NEW-VIEW was its PRE-PREPARE, so it must not vote before that batch is behind it.
func forgottenNewView() *Schedule {
	s := scene("a forgotten NEW-VIEW", 40)
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.PrePrepare, *message.Prepare:
			return to == 1
		case *message.Commit:
			return true
		case *message.NewView:
			return to == 0
		case *message.Request:
			return m.Timestamp > 101
		}
		return false
	}, "1 hears no PRE-PREPAREs and PREPAREs, nobody a COMMIT, 0 no NEW-VIEW, and nobody gets a second call")
	s.handsOver(0, 15)
	s.restarts(1, 22)
	s.reach("1 was restarted and is silent, and view 2 began with what prepared in view 1", func(w *world) bool {
		m := w.core(2).Beginning()
		return w.lives(1) == 1 && w.core(1).SilentUntil() > 0 && w.view(2) == 2 && m != nil && len(m.Chosen) == 1 &&
			m.Chosen[0] != message.NullDigest
	})
	return s
}

// forgottenCheckpoint: 3 votes for nothing, executes the batches that the others say were
// decided, and says that it holds checkpoint 2, which becomes stable by that. 3 is
// restarted. If it did not know that it may have said so, 2 could be restarted next. Then
// only 0, and 1, which has executed nothing, would be left of the group.
func forgottenCheckpoint() *Schedule {
	s := scene("a forgotten CHECKPOINT", 100)
	s.shape.period, s.shape.log = 2, 4
	s.loses(func(w *world, _, to int, m message.Message) bool {
		again := w.lives(3) > 0
		switch m := m.(type) {
		case *message.PrePrepare, *message.Prepare:
			return to == 3
		case *message.Commit:
			return to == 3 || to == 1
		case *message.Decided, *message.Checkpoint:
			return to == 1 || to == 3 && again
		case *message.Request:
			return m.Timestamp > 102
		}
		return false
	}, "3 hears no PRE-PREPAREs, PREPAREs and COMMITs, 1 no COMMITs and nothing of what was decided and of "+
		"checkpoints, 3 neither after its restart, and nobody gets a third call")
	s.add(func(w *world) {
		w.at(60*tick, func() { w.restart(3, tick) })
		w.at(80*tick, func() { w.restart(2, tick) })
	}, "3 restarts at 60, 2 at 80 if the group can spare it")
	s.reach("3 was restarted and is silent, so that 2 was not", func(w *world) bool {
		return w.lives(3) == 1 && w.core(3).SilentUntil() > 0 && w.lives(2) == 0 && w.core(0).Stable().Seq == 2 &&
			w.clients[0].slots[0].done == 2
	})
	return s
}

// forgottenReply: without tentative execution, 3's answer to the first call is one of the
// 2f+1. It is restarted, and the client reads. 2 is faulty by then and answers the reader
// from the initial state. 3 has forgotten, and must not do the same.
func forgottenReply() *Schedule {
	s := scene("a forgotten REPLY", 100)
	s.shape.stubborn = true // 2 does all else that a correct replica does: with 3 silent the group needs it
	s.shape.tentative, s.shape.think = false, 5000
	s.loses(func(w *world, from, to int, m message.Message) bool {
		again := w.lives(3) > 0
		switch m := m.(type) {
		case *message.PrePrepare, *message.Prepare:
			return to == 3
		case *message.Commit:
			return to == 3 || to == 1
		case *message.Decided, *message.Checkpoint:
			return to == 1 || to == 3 && again
		case *message.Reply:
			return from == 0 && m.Answers[0].ReadOnly
		}
		return false
	}, "3 hears no PRE-PREPAREs, PREPAREs and COMMITs, 1 no COMMITs and nothing of what was "+
		"decided, and the reader nothing of 0")
	s.says(2, func(_ *liarMemory, r *replica, _ int, m message.Message) []message.Message {
		if p, ok := m.(*message.Reply); ok && r.w.now > 65*tick && p.Answers[0].ReadOnly {
			x, a := *p, p.Answers[0]
			a.Result, a.Version = make([]byte, 16), 0
			x.Seq, x.Tentative, x.Answers = 0, false, []message.Answer{a}
			return one(&x)
		}
		return one(m)
	}, "is correct until 3 is back, and then gives a reader the initial state")
	s.restarts(3, 60)
	s.calls(0, 66, append([]byte{opRead}, make([]byte, 11)...), true)
	s.reach("3 was restarted and is silent, and the reader has asked", func(w *world) bool {
		return w.lives(3) == 1 && w.core(3).SilentUntil() > 0 && w.clients[0].latest() > 101
	})
	return s
}

// calls makes a client issue a request at a tick, whether or not it waits for another.
func (s *Schedule) calls(c, t int, op []byte, readOnly bool) {
	s.add(func(w *world) {
		w.at(int64(t)*tick, func() {
			if k := w.clients[c].slots[0]; k.call == nil {
				k.issue(op, readOnly)
			}
		})
	}, "at %d client %d asks for %q", t, c, op[0])
}

// hush stops all calls of clients but those of the schedule.
func (s *Schedule) hush() {
	s.add(func(w *world) {
		for _, c := range w.clients {
			for _, k := range c.slots {
				k.quota = 0
			}
			c.idle = true
		}
	}, "no client calls for anything else")
}

// valueThatRecurs: client 0 writes a, b and a again. Only 0 has executed the third write
// when client 1 reads: 0 says a, of batch 3, 1 says a, of batch 1, and and 3, which is
// faulty, says a, of any batch. Counted together these would be believed, and the next
// reader would get b: from 1, which has come to batch 2, from 2, and from 3.
func valueThatRecurs() *Schedule {
	s := scene("a value that recurs", 200)
	s.shape.clients = 3
	first, second := s.shape.replicas+1, s.shape.replicas+2 // readers
	s.loses(func(w *world, from, to int, m message.Message) bool {
		late := w.now > 110*tick
		switch m := m.(type) {
		case *message.PrePrepare:
			return to == 1 && (m.Seq == 3 || m.Seq == 2 && !late)
		case *message.Commit:
			return (m.Seq == 2 || m.Seq == 3) && to != 0
		case *message.Reply:
			return m.Answers[0].ReadOnly && (to == first && from == 2 || to == second && from == 0)
		case *message.BatchBody, *message.Decided, *message.ViewChange, *message.Forward, *message.Checkpoint:
			return true
		}
		return false
	}, "1 hears of n2 late and of n3 not at all, 2 and 3 no COMMITs for n2 and n3; the first reader is not "+
		"answered by 2, the second not by 0")
	s.says(3, func(_ *liarMemory, _ *replica, to int, m message.Message) []message.Message {
		p, ok := m.(*message.Reply)
		if !ok || !p.Answers[0].ReadOnly {
			return one(m)
		}
		read := func(value string, n message.SeqNum, tentative bool) message.Message {
			x, a := *p, p.Answers[0]
			a.Result, a.Version, x.Seq, x.Tentative = []byte(value), n, n, tentative
			x.Answers = []message.Answer{a}
			return &x
		}
		if to == second {
			return one(read("b", 2, true))
		}
		return []message.Message{read("a", 0, false), read("a", 1, false), read("a", 2, false), read("a", 3, false)}
	}, "tells the first reader a, of every batch, and the second b")
	set := func(value byte) []byte { return append([]byte{opSet}, append(make([]byte, 10), value)...) }
	get := append([]byte{opGet}, make([]byte, 11)...)
	s.hush()
	s.calls(0, 20, set(0), false)
	s.calls(0, 40, set(1), false)
	s.calls(0, 70, set(0), false)
	s.calls(1, 100, get, true)
	s.calls(2, 140, get, true)
	s.reach("0 alone has executed the third write, and 1 was slow with the second", func(w *world) bool {
		return w.core(0).LastExecuted() >= 3 && w.core(1).LastExecuted() < 3 && w.clients[1].latest() > 100
	})
	return s
}

// idleSilence: a replica is restarted in a group that nobody calls. The primary fills
// numbers with null batches until the checkpoint is stable for which the replica is silent.
func idleSilence() *Schedule {
	s := scene("silence in an idle group", 200)
	s.hush()
	s.calls(0, 20, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.restarts(2, 60)
	s.reach("2 was restarted and votes again in view 0, and nobody has called for more", func(w *world) bool {
		return w.lives(2) == 1 && w.core(2).SilentUntil() == 0 && w.view(2) == 0 && w.clients[0].slots[0].done == 1
	})
	return s
}

// stuckWhileSilent: while 2 is silent in a group that nobody calls, a client gives the primary a
// request that it alone can authenticate. The batch with it never commits, and no null batch can
// follow. Nobody's timer runs for the request, so the primary must leave its view.
func stuckWhileSilent() *Schedule {
	s := scene("stuck while one is silent", 400)
	s.shape.clients = 2
	s.hush()
	s.calls(0, 20, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.restarts(2, 60)
	s.once(func(w *world) bool { return w.lives(2) == 1 && w.core(2).SilentUntil() > 0 }, func(w *world) {
		c, good := w.clients[1], make([]bool, w.n)
		good[0] = true
		q := &message.Request{Client: c.id, Timestamp: 500, Op: append([]byte{opWrite}, make([]byte, 11)...)}
		w.seal(q, good)
		w.judge.requested(c, q)
		c.send(0, q)
	}, "when 2 is silent 0 gets a request with a MAC for 0 alone")
	s.reach("0 has left view 0, and 2 votes again", func(w *world) bool {
		return w.view(0) > 0 && w.core(2).SilentUntil() == 0
	})
	return s
}

// silentAboveTheFence: 3 has promised something for n1 and is restarted. It misses all that
// follows, and fetches checkpoint 12 on the word of 0 and 1. With its own word three of five
// hold it, which are too few to make it stable. So the window of 3 begins above its fence, and
// nothing that is stable at 3 does. It must go on to be silent.
func silentAboveTheFence() *Schedule {
	s := scene("silent above the fence", 130)
	s.Replicas, s.shape.replicas = 5, 5
	s.shape.period, s.shape.log = 2, 4
	s.loses(func(w *world, from, to int, m message.Message) bool {
		again := w.lives(3) > 0
		switch m := m.(type) {
		case *message.Checkpoint:
			return to == 3 && (m.Seq != 12 || m.Stable || from > 1)
		case *message.Request:
			return m.Timestamp > 101 && !again || w.core(0).LastProposed() >= 12
		}
		return to == 3 && again && orders(m)
	}, "nobody hears a second call before 3 is restarted, nor any when n12 is proposed; from its restart on 3 "+
		"hears nothing of what is agreed on, and of checkpoints only that 0 and 1 have the 12th")
	s.restarts(3, 20)
	s.reach("3 has fetched checkpoint 12, which is not stable there, and is silent", func(w *world) bool {
		r := w.core(3)
		return r.LastExecuted() == 12 && r.Low() >= w.sites[3].fence && r.Stable().Seq == 0 && r.SilentUntil() > 0
	})
	return s
}

// preparedInSilence: 3 has promised something for n1 and is restarted. It is silent until
// checkpoint 4, and hears late that this is stable. Meanwhile n5 has prepared there. 1 is
// faulty and commits to nothing after n4, so 0 and 2 need the COMMIT that 3 could not send.
func preparedInSilence() *Schedule {
	s := scene("prepared in a silence", 70)
	s.shape.period = 2
	s.loses(func(w *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Checkpoint:
			return to == 3 && w.now < 45*tick
		case *message.Request:
			return m.Timestamp > 101 && w.lives(3) == 0
		}
		return false
	}, "nobody hears a second call before 3 is restarted, and 3 hears of no checkpoint before 45")
	s.leavesUnsaid(1, func(_ *world, _ int, m message.Message) bool {
		c, ok := m.(*message.Commit)
		return ok && c.Seq > 4
	}, "commits to nothing after n4")
	s.restarts(3, 20)
	s.reach("3 is silent no more, and n5 was executed in view 0", func(w *world) bool {
		return w.lives(3) == 1 && w.core(3).SilentUntil() == 0 && w.core(0).LastExecuted() >= 5 &&
			w.view(0)+w.view(2)+w.view(3) == 0
	})
	return s
}

// losesPower restarts a replica with a disk that lost what was not synced.
func (s *Schedule) losesPower(i, t int) {
	s.add(func(w *world) {
		w.at(int64(t)*tick, func() {
			r := w.sites[i].copies[0]
			r.keeper.disk.Crash()
			r.restart(tick)
		})
	}, "replica %d loses power at %d", i, t)
}

// holder is a schedule in which checkpoint 2 becomes stable at 0 and 2 with the word of 3,
// which does not hear that it is. 3 loses power, and 2 is faulty from then on. 1 has prepared
// the batches up to 2 and executed none. When the others leave the view 3 must be able to name
// checkpoint 2: 0 alone cannot begin a view from it.
func holder(name string) *Schedule {
	s := scene(name, 110)
	s.shape.period, s.shape.log = 2, 4
	s.shape.durable, s.shape.sync = true, 5
	const turns = 60
	s.loses(func(w *world, _, to int, m message.Message) bool {
		switch m := m.(type) {
		case *message.Commit:
			return to == 1
		case *message.Checkpoint:
			return to == 3 || to == 1
		case *message.Decided:
			return to == 1 || to == 3 && w.lives(3) > 0
		case *message.Request:
			return m.Timestamp > 102
		}
		return false
	}, "1 hears no COMMITs, 1 and 3 of no checkpoint, 1 nothing of what was decided, nor 3 after its restart, and "+
		"nobody gets a third call")
	s.leavesUnsaid(2, func(w *world, _ int, _ message.Message) bool { return w.now >= turns*tick },
		"says nothing from %d on", turns)
	s.losesPower(3, turns)
	s.handsOver(0, turns+20)
	s.reach("view 1 has begun from checkpoint 2, which is not stable at 3, and 3 holds that", func(w *world) bool {
		m := w.core(3).Beginning()
		return w.lives(3) == 1 && w.activeIn(3, 1) && m.Checkpoint.Seq == 2 && w.core(3).LastExecuted() == 2
	})
	return s
}

// broughtByOthers: 3 votes for nothing. What it has executed was brought by others, and its
// disk must have that before it says that it holds the checkpoint.
func broughtByOthers() *Schedule {
	s := holder("brought by others")
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		switch m.(type) {
		case *message.PrePrepare, *message.Prepare, *message.Commit:
			return to == 3
		}
		return false
	}, "3 hears no PRE-PREPAREs, PREPAREs and COMMITs")
	return s
}

// decidedOnDisk: 3 votes, and it must have on its disk which batches committed before it says
// that it holds the checkpoint.
func decidedOnDisk() *Schedule { return holder("decided on disk") }

// slowDisks: nothing fails, and each sync takes up to three ticks. So the primary's own vote often
// comes later than those of the others, and COMMITs ride on what is sent next.
func slowDisks() *Schedule {
	s := scene("slow disks", 200)
	s.shape.durable, s.shape.sync, s.shape.piggyback, s.shape.clients = true, 3*tick, true, 3
	s.reach("ten batches are executed in view 0", func(w *world) bool {
		return w.core(0).LastExecuted() >= 10 && w.view(0)+w.view(1)+w.view(2)+w.view(3) == 0
	})
	return s
}

// proposedBefore: 0 has proposed n1 when it loses power, and its disk has nothing of that. It
// must not stay primary of view 0: it would give the number to the next call that it hears.
func proposedBefore() *Schedule {
	s := scene("proposed before the power was lost", 60)
	s.shape.durable, s.shape.sync, s.shape.clients = true, 10*tick, 2
	s.loses(func(w *world, from, to int, m message.Message) bool {
		q, ok := m.(*message.Request)
		return ok && q.Client == w.clients[0].id && w.lives(0) > 0
	}, "nobody hears the first call again")
	s.hush()
	s.calls(0, 5, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.losesPower(0, 6)
	s.calls(1, 12, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.reach("0 had proposed n1 in view 0, and has left it", func(w *world) bool {
		return !w.judge.vows.proposed[voteKey{0, slotKey{0, 1}}].IsZero() && w.lives(0) == 1 && w.view(0) > 0
	})
	return s
}

// answeredBefore: 3 has executed n1 tentatively and answered. It leaves the view, and loses
// power. When it is back it waits for view 1, and n1 is not executed. It must not answer a
// reader from the state before n1.
func answeredBefore() *Schedule {
	s := scene("answered before the power was lost", 60)
	s.shape.durable, s.shape.sync, s.shape.clients = true, 5, 2
	s.loses(func(_ *world, _, to int, m message.Message) bool {
		switch m.(type) {
		case *message.Commit:
			return true
		case *message.NewView, *message.Decided:
			return to == 3
		}
		return false
	}, "nobody hears a COMMIT, and 3 neither how view 1 begins nor what was decided")
	s.hush()
	s.calls(0, 5, append([]byte{opWrite}, make([]byte, 11)...), false)
	s.handsOver(0, 20)
	s.losesPower(3, 30)
	s.calls(1, 40, append([]byte{opRead}, make([]byte, 11)...), true)
	s.reach("3 has answered from n1 and has lost power, and the reader has asked", func(w *world) bool {
		return w.judge.vows.oaths[3].answered == 1 && w.lives(3) == 1 && w.core(3).LastExecuted() == 0 &&
			w.core(3).Ahead() == 0 && w.clients[1].latest() > 100
	})
	return s
}
