// SPDX-License-Identifier: Apache-2.0

package sim

import "bfs/pkg/pbft/internal/message"

// Schedules about slow primaries (R-HD-5). Their clients show the backups a request in a tenth of
// a second (package client), and the view-change timer would run for 40 ticks.

// slowly is a scene with two clients, each of which writes all the time.
func slowly(name string, stop int) *Schedule {
	s := scene(name, stop)
	s.shape.clients, s.shape.separate, s.shape.quiet = 2, true, false
	return s
}

// holdsBack makes replica 0 send each message for which held says so that much later.
func (s *Schedule) holdsBack(ticks int64, held func(to int, m message.Message) bool, format string, args ...any) {
	type saying struct {
		to int
		of message.Message
	}
	late := map[saying]bool{}
	s.says(0, func(_ *liarMemory, r *replica, to int, m message.Message) []message.Message {
		x := saying{to, m}
		if !held(to, m) || late[x] {
			return one(m)
		}
		late[x] = true
		r.w.after(ticks*tick, func() { r.running(func() { r.send(to, m) }) })
		return nil
	}, format, args...)
}

// slowPrimary: 0 makes each proposal when it has had its requests for 15 ticks. Requests never wait
// as long as the timer runs, and yet the view ends.
func slowPrimary() *Schedule {
	s := slowly("a slow primary", 300)
	s.holdsBack(15, func(_ int, m message.Message) bool { return m.Type() == message.TypePrePrepare },
		"makes each proposal 15 ticks late")
	s.reach("all are in view 1", func(w *world) bool {
		return w.view(0) == 1 && w.view(1) == 1 && w.view(2) == 1 && w.view(3) == 1
	})
	s.reach("the clients have long been served at full speed", func(w *world) bool {
		return w.clients[0].slots[0].done > 40 && w.clients[1].slots[0].done > 40
	})
	return s
}

// slowWires: every message takes 6 ticks, and so each proposal comes as late as 6 ticks after the
// request that it is for. Agreement takes twice as long, and nobody leaves the view.
func slowWires() *Schedule {
	s := slowly("slow wires", 1500)
	s.add(func(w *world) {
		w.network.delay = 6 * tick
		w.at(1499*tick, func() { w.network.delay = tick / 5 })
	}, "every message takes 6 ticks")
	s.reach("all are in view 0, and the clients are served", func(w *world) bool {
		return w.view(0)+w.view(1)+w.view(2)+w.view(3) == 0 && w.clients[0].slots[0].done > 20
	})
	return s
}

// slowToOne: 0 is slow, or so the faulty 3 says. One liar ends no view.
func slowToOne() *Schedule {
	s := slowly("a liar finds the primary slow", 400)
	s.says(3, func(_ *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
		if x, ok := m.(*message.Status); ok {
			said := *x
			said.SlowPrimary = true
			return one(&said)
		}
		return one(m)
	}, "finds each primary slow")
	s.reach("all are in view 0", func(w *world) bool { return w.view(0)+w.view(1)+w.view(2) == 0 })
	return s
}

// slowForever: each proposal takes 15 ticks, whoever makes it, and agreement is quick. A view ends
// for it, but each next one must be twice as slow.
func slowForever() *Schedule {
	s := slowly("all primaries are slow", 3000)
	s.add(func(w *world) {
		held := map[message.Message]bool{}
		w.network.losses = append(w.network.losses, func(from, to int, m message.Message) bool {
			p, ok := m.(*message.PrePrepare)
			if !ok || int(p.From) != from || held[m] {
				return false
			}
			again := *p
			held[&again] = true
			r := w.sites[from].copies[0]
			w.after(15*tick, func() { r.running(func() { r.send(to, &again) }) })
			return true
		})
	}, "proposals are 15 ticks under way")
	s.reach("views have ended, but few", func(w *world) bool { return w.view(2) >= 1 && w.view(2) <= 8 })
	return s
}

// starved: 0 lets each request of client 1 wait for 20 ticks, and serves client 0 meanwhile.
func starved() *Schedule {
	s := slowly("a client is starved", 600)
	s.add(func(w *world) {
		again := map[message.Message]bool{}
		w.network.losses = append(w.network.losses, func(from, to int, m message.Message) bool {
			q, ok := m.(*message.Request)
			c := w.clients[1]
			if !ok || to != 0 || q.Client != c.id || again[m] || w.view(0) > 0 {
				return false
			}
			if from == c.principal() {
				late := *q
				again[&late] = true
				w.after(20*tick, func() { c.send(0, &late) })
			}
			return true
		})
	}, "replica 0, which is faulty, takes up each request of client 1 when it is 20 ticks old, in view 0")
	s.reach("all are in view 1, and nobody found the primary slow to others", func(w *world) bool {
		left := w.core(1).LeftSlow()
		return w.view(0) == 1 && w.view(1) == 1 && w.view(2) == 1 && w.view(3) == 1 && left.Times == 1 && left.Starved
	})
	return s
}
