// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
)

// A Schedule is one life of a group: a configuration, and a list of faults. All of it follows
// from the seed, so that a failing run can be repeated, also without some of its faults.
type Schedule struct {
	Seed     uint64
	Replicas int
	shape    shape
	items    []item
	dropped  []int
	before   int // items that are not refreshes of keys

	unlost int // items that are not losses of fences either

	// Of one written by hand:
	name    string
	within  int // ticks after the last fault within which earlier calls are answered; 0: the usual bound
	reaches []stage
}

// A stage is a condition that must hold when a schedule's faults end, so that the
// schedule shows something.
type stage struct {
	name  string
	holds func(w *world) bool
}

// An item is one fault.
type item struct {
	name  string
	apply func(w *world)
}

// Draw makes the schedule of a seed.
func Draw(seed uint64) *Schedule {
	s := &Schedule{Seed: seed}
	recoveries := rand.New(rand.NewPCG(seed, 6))
	kind := recoveries.IntN(4)
	d := &drawing{rng: rand.New(rand.NewPCG(seed, 0)), s: s, honest: kind == 3}
	d.all()
	s.shape.foresees = rand.New(rand.NewPCG(seed, 11)).IntN(2) == 0
	switch {
	case d.alone:
	case kind == 2:
		d.recoveries(recoveries)
		d.cunning()
	case kind == 3:
		d.intrusions(recoveries)
		d.cunning()
	}
	d.refreshes()
	if s.unlost = len(s.items); kind == 3 {
		d.losses()
	}
	return s
}

// all draws the faults.
func (d *drawing) all() {
	s := d.s
	d.shape()
	d.weather()
	for range d.rng.IntN(2) + d.rng.IntN(2) {
		d.faultyClient()
	}
	d.administration()
	more := rand.New(rand.NewPCG(s.Seed, 9)).IntN(9) == 2 // a stream of its own, because rollbacks are rare
	if d.rng.IntN(6) == 0 || more {
		d.minority() // alone, so that no other fault prevents it
		d.alone = true
		return
	}
	for range d.rng.IntN(6) {
		d.misfortune()
	}
	liars := d.liars()
	if d.rng.IntN(3) == 0 {
		for range 1 + d.rng.IntN(3) {
			d.clientRestart()
		}
	}
	if d.rng.IntN(2) == 0 {
		d.amnesia(liars)
	}
	if s.shape.durable {
		d.disks()
	}
	d.absences()
}

// absences cuts off k replicas that the group can do without beside f liars (n = 3f+3).
// They come back when all calls are answered.
func (d *drawing) absences() {
	n, f := d.s.Replicas, (d.s.Replicas-1)/3
	rng := rand.New(rand.NewPCG(d.s.Seed, 7))
	for range n - f - quorum(n, f) {
		first, t, forgets := rng.IntN(n), rng.IntN(d.s.shape.stop), rng.IntN(2) == 0
		if rng.IntN(4) == 0 {
			continue
		}
		d.add(func(w *world) { w.patiently(t, func() bool { return w.absent(first, forgets) }) },
			"from %d on one replica, %d or the next that may, is away "+
				"for good, and then restarts (%v)", t, first, forgets)
	}
}

// absent cuts off the first replica from i on that the group can do without. It reports
// whether there was one.
func (w *world) absent(i int, forgets bool) bool {
	for k := range w.n {
		j := (i + k) % w.n
		if s := w.sites[j]; s.liar() || s.away || s.copies[0].down || !w.mayLose(j) {
			continue
		}
		w.say("replica %d is away", j)
		if w.sites[j].away, w.sites[j].forgets = true, forgets; w.liars() == w.f {
			w.marks.hit(markAway)
		}
		w.alone(j, 1)
		return true
	}
	return false
}

// comeBack ends the absences.
func (w *world) comeBack() {
	for i, s := range w.sites {
		if !s.away {
			continue
		}
		s.away = false
		w.say("replica %d comes back", i)
		for j := range w.network.cut {
			w.network.cut[i][j], w.network.cut[j][i] = 0, 0
		}
		if r := s.copies[0]; s.forgets && !r.down && r.core.SilentUntil() == 0 {
			w.restart(i, tick)
		}
	}
}

// disks draws the faults of replicas that remember.
func (d *drawing) disks() {
	for range d.rng.IntN(3) {
		d.outage()
	}
	if d.rng.IntN(3) == 0 {
		d.yesterday()
	}
	for range d.pick(0, 0, 1, 2) {
		d.fills()
	}
}

// amnesia draws restarts, and the faults that come with them.
func (d *drawing) amnesia(liars bool) {
	switch d.rng.IntN(8) {
	case 0, 1, 2:
		if !d.honest {
			d.turn()
		}
	case 3:
		d.rolling()
	case 4:
		if !liars {
			d.outage()
			return
		}
	}
	for range 1 + d.rng.IntN(3) {
		d.restart()
	}
}

// Without is the schedule without some of its items, in addition to those that are left
// out already.
func (s *Schedule) Without(items ...int) *Schedule {
	t := *s
	t.dropped = append(slices.Clone(s.dropped), items...)
	slices.Sort(t.dropped)
	t.dropped = slices.Compact(t.dropped)
	return &t
}

// Dropped lists the items left out.
func (s *Schedule) Dropped() []int { return s.dropped }

func (s *Schedule) String() string {
	var b strings.Builder
	h := s.shape
	if s.name != "" {
		fmt.Fprintf(&b, "%s, ", s.name)
	}
	fmt.Fprintf(&b, "seed %d: n=%d K=%d L=%d window %d batch %d, %d clients of %d slots, faults end at tick %d",
		s.Seed, h.replicas, h.period, h.log, h.window, h.batch, h.clients, h.slots, h.stop)
	if h.bytes > 0 {
		fmt.Fprintf(&b, ", a checkpoint every %d bytes", h.bytes)
	}
	if h.gather > 0 {
		fmt.Fprintf(&b, ", messages gather for %d hundredths of a tick", h.gather)
	}
	for _, x := range []struct {
		on   bool
		name string
	}{{h.durable, fmt.Sprintf("on disks that sync in %d hundredths of a tick", h.sync)}, {h.stubborn, "liars go on"},
		{h.quiet, "quiet afterwards"}, {h.tentative, "tentative"}, {h.piggyback, "piggyback"},
		{h.foresees, "fences raised early"}, {h.separate, "separate"}} {
		if x.on {
			b.WriteString(", " + x.name)
		}
	}
	for i, x := range s.items {
		if !slices.Contains(s.dropped, i) {
			fmt.Fprintf(&b, "\n  %2d %s", i, x.name)
		}
	}
	return b.String()
}

// A drawing is a schedule being made.
type drawing struct {
	rng    *rand.Rand
	s      *Schedule
	honest bool // no replica lies all the time
	alone  bool // the fault that was drawn must be the only one
}

func (d *drawing) add(apply func(*world), format string, args ...any) {
	d.s.items = append(d.s.items, item{fmt.Sprintf(format, args...), apply})
}

func (d *drawing) pick(all ...int) int { return all[d.rng.IntN(len(all))] }

func (d *drawing) shape() {
	h := &d.s.shape
	h.replicas = d.pick(4, 4, 4, 7)
	switch sizes := rand.New(rand.NewPCG(d.s.Seed, 5)); sizes.IntN(6) {
	case 2:
		h.replicas = 5
	case 3:
		h.replicas = 6
	}
	h.period = message.SeqNum(d.pick(2, 4, 8))
	h.log = h.period * message.SeqNum(d.pick(2, 2, 3, 4))
	h.window = message.SeqNum(d.pick(1, 2, 2, 4))
	h.batch = d.pick(1, 4, 16)
	h.clients = d.pick(1, 2, 3)
	h.slots = d.pick(1, 2, 3)
	h.think = d.pick(1, 5, 20, 60)
	h.stop = d.pick(60, 150, 300, 600)
	h.stubborn = d.rng.IntN(4) == 0
	if h.replicas >= 7 {
		h.stop = min(h.stop, 200)
	}
	more := rand.New(rand.NewPCG(d.s.Seed, 2))
	h.tentative, h.piggyback, h.quiet = more.IntN(4) > 0, more.IntN(4) > 0, more.IntN(2) > 0
	h.separate = more.IntN(4) > 0
	h.bytes = []int{0, 0, 1, 100, 1000}[more.IntN(5)]
	h.gather = []int64{0, 0, 10, 60, 200}[more.IntN(5)]
	d.s.Replicas = h.replicas
	disks := rand.New(rand.NewPCG(d.s.Seed, 3))
	h.durable, h.sync = disks.IntN(2) == 0, []int64{5, 60, 200, 1000}[disks.IntN(4)]
	h.copying = []int64{tick, tick, 40 * tick}[disks.IntN(3)]
}

// moment is a tick before the faults end.
func (d *drawing) moment() int { return d.rng.IntN(d.s.shape.stop) }

// span draws when a fault begins and ends.
func (d *drawing) span() (from, to int) {
	from = d.moment()
	return from, min(from+d.pick(5, 20, 60, 150)+d.rng.IntN(10), d.s.shape.stop)
}

// weather draws how the network behaves all the time.
func (d *drawing) weather() {
	if d.rng.IntN(2) == 0 {
		p := float64(d.pick(1, 5, 20)) / 100
		d.add(func(w *world) { w.network.loss = p }, "loss %.2f", p)
	}
	if d.rng.IntN(3) == 0 {
		p := float64(d.pick(2, 20)) / 100
		d.add(func(w *world) { w.network.duplication = p }, "duplication %.2f", p)
	}
	if d.rng.IntN(2) == 0 {
		p, by := float64(d.pick(1, 5, 20))/100, int64(d.pick(5, 30, 100))*tick
		d.add(func(w *world) {
			w.network.straggle, w.network.straggleBy = p, by
		}, "one in %.0f messages is up to %d ticks late", 1/p, by/tick)
	}
	if d.rng.IntN(4) == 0 {
		delay, spread := int64(d.pick(1, 60)), int64(d.pick(1, 200))
		d.add(func(w *world) {
			w.network.delay, w.network.spread = delay, spread
		}, "every message takes %d to %d hundredths of a tick", delay, delay+spread)
	}
}

// liars draws at most f liars.
func (d *drawing) liars() bool {
	n := d.s.Replicas
	f := (n - 1) / 3
	if d.rng.IntN(4) == 0 || d.honest {
		return false
	}
	if d.rng.IntN(6) == 0 {
		for _, i := range d.rng.Perm(n)[:f] {
			d.lies(i, scheming)
		}
		return true
	}
	for _, i := range d.rng.Perm(n)[:1+d.rng.IntN(f)] {
		if d.rng.IntN(4) > 0 && d.rng.IntN(2) == 0 {
			i = 0 // the first primary
		}
		if d.rng.IntN(6) == 0 {
			d.add(func(w *world) { w.sites[i].twins = true }, "replica %d is twins", i)
			d.regroup()
			continue
		}
		switch d.rng.IntN(5) {
		case 0, 1:
			d.lies(i, fickle)
			continue
		case 2:
			d.lies(i, scheming)
			continue
		}
		for range 1 + d.rng.IntN(3) {
			d.lies(i, lies[d.rng.IntN(len(lies))])
		}
	}
	return true
}

func (d *drawing) lies(i int, k lie) {
	d.add(func(w *world) { w.sites[i].lies = append(w.sites[i].lies, k) }, "replica %d lies: %s", i, k.name)
}

// regroup changes from time to time which replicas see which of the twins.
func (d *drawing) regroup() {
	for range 1 + d.rng.IntN(4) {
		side := make([]int, d.s.Replicas)
		for i := range side {
			side[i] = d.pick(0, 1, 2)
		}
		t := d.moment()
		d.add(func(w *world) {
			w.at(int64(t)*tick, func() { w.network.side = side })
		}, "at %d the replicas see the twins %s", t, names(side))
	}
}

// misfortune draws a fault that happens once.
func (d *drawing) misfortune() {
	n := d.s.Replicas
	switch d.rng.IntN(16) {
	case 0, 1:
		d.partition()
	case 2:
		d.oneWay()
	case 3:
		i := d.rng.IntN(n)
		from, to := d.span()
		d.add(func(w *world) {
			w.at(int64(from)*tick, func() { w.sites[i].pause(int64(to) * tick) })
		}, "replica %d stands still from %d to %d", i, from, to)
	case 4:
		d.restart()
	case 5:
		i, by := d.rng.IntN(n), d.pick(2, 20, 100)
		d.add(func(w *world) { w.slowHash(i, int64(by)*tick) }, "replica %d takes up to %d ticks for a root", i, by)
	case 6:
		d.flapping()
	case 9, 10:
		d.jealous()
	case 11, 12:
		d.storm()
	case 13, 14:
		d.sieve()
	case 15:
		d.minority()
	case 7:
		i, t := d.rng.IntN(n), d.moment()
		d.add(func(w *world) {
			w.at(int64(t)*tick, func() {
				for _, r := range w.sites[i].copies {
					r.running(func() { r.core.StepDown(); r.perform() })
				}
			})
		}, "at %d replica %d hands over if it is primary", t, i)
	case 8:
		i, j, t := d.rng.IntN(n), d.rng.IntN(n), d.moment()
		d.add(func(w *world) {
			w.at(int64(t)*tick, func() {
				for _, r := range w.sites[i].copies {
					if i != j {
						r.running(func() { r.core.KeysChanged(message.ReplicaID(j)); r.perform() })
					}
				}
			})
		}, "at %d replica %d has new keys for %d", t, i, j)
	}
}

func (s *site) pause(until int64) {
	for _, r := range s.copies {
		r.paused = max(r.paused, until)
	}
}

func (w *world) slowHash(i int, by int64) {
	w.at(0, func() {
		for _, r := range w.sites[i].copies {
			r.hashing = by
		}
	})
}

// restart ends a replica's life, unless the correct replicas that remember would be no quorum.
func (w *world) restart(i int, rest int64) {
	s := w.sites[i]
	if s.liar() || s.copies[0].down || !w.mayLose(i) {
		return
	}
	w.marks.hit(markRestart)
	s.copies[0].restart(rest)
}

// cutOff adds a number of cuts between two principals, or removes them.
func (w *world) cutOff(from, to, by int) {
	if !w.calm {
		w.network.cut[from][to] += by
	}
}

// partition separates the principals into two groups for a while.
func (d *drawing) partition() {
	all := d.s.Replicas + maxClients
	side := make([]int, all)
	for i := range side {
		side[i] = d.rng.IntN(2)
	}
	from, to := d.span()
	cut := func(by int) func(w *world) {
		return func(w *world) {
			for a := range side {
				for b := range side {
					if side[a] != side[b] {
						w.cutOff(a, b, by)
					}
				}
			}
		}
	}
	d.add(func(w *world) {
		w.at(int64(from)*tick, func() { cut(1)(w) })
		w.at(int64(to)*tick, func() { cut(-1)(w) })
	}, "from %d to %d the replicas are apart: %s, clients %s", from, to, names(side[:d.s.Replicas]),
		names(side[d.s.Replicas:]))
}

// oneWay cuts the way from one replica to some others, or the way back.
func (d *drawing) oneWay() {
	i := d.rng.IntN(d.s.Replicas)
	deaf := d.rng.IntN(2) == 0
	var others []int
	for j := range d.s.Replicas {
		if j != i && d.rng.IntN(2) == 0 {
			others = append(others, j)
		}
	}
	from, to := d.span()
	cut := func(w *world, by int) {
		for _, j := range others {
			if deaf {
				w.cutOff(j, i, by)
			} else {
				w.cutOff(i, j, by)
			}
		}
	}
	what := "is not heard by"
	if deaf {
		what = "does not hear"
	}
	d.add(func(w *world) {
		w.at(int64(from)*tick, func() { cut(w, 1) })
		w.at(int64(to)*tick, func() { cut(w, -1) })
	}, "from %d to %d replica %d %s %s", from, to, i, what, names(others))
}

// flapping cuts one replica off and joins it again many times.
func (d *drawing) flapping() {
	i, on, off := d.rng.IntN(d.s.Replicas), 1+d.rng.IntN(30), 1+d.rng.IntN(60)
	from, to := d.span()
	d.add(func(w *world) {
		for t := from; t < to; t += on + off {
			for by, at := range map[int]int{1: t, -1: t + off} {
				w.at(int64(at)*tick, func() {
					w.alone(i, by)
				})
			}
		}
	}, "from %d to %d replica %d is cut off for %d ticks and back for %d", from, to, i, off, on)
}

// jealous cuts off the first replica to execute a batch, with the messages that it has
// just sent, a few times over: mistakes hide in what one replica alone knows.
func (d *drawing) jealous() {
	from, _ := d.span()
	times, length := 1+d.rng.IntN(4), int64(d.pick(20, 60, 150))*tick
	d.add(func(w *world) {
		left, until := times, int64(from)*tick
		w.ahead = func(r *replica) {
			if left == 0 || w.calm || w.now < until {
				return
			}
			left--
			until = w.now + length/2
			r.say("is cut off")
			w.alone(r.id, 1)
			w.after(length, func() { w.alone(r.id, -1) })
		}
	}, "from %d on who is the first to execute a batch is cut off for %d ticks, %d times", from, length/tick, times)
}

// storm cuts off one primary after the other, so that views end before they execute a
// batch, and the next view needs a liar's VIEW-CHANGE.
func (d *drawing) storm() {
	from, _ := d.span()
	times, length := 2+d.rng.IntN(3), d.pick(50, 90, 140)
	d.add(func(w *world) {
		for k := range times {
			w.at(int64(from+k*length)*tick, func() {
				i := int(w.latest().Primary(w.n))
				if w.sites[i].liar() || w.calm {
					return
				}
				w.say("primary %d is cut off", i)
				w.alone(i, 1)
				w.after(int64(length)*tick, func() { w.alone(i, -1) })
			})
		}
	}, "from %d on the primary is cut off for %d ticks, %d times", from, length, times)
}

// latest is the highest view that a correct replica has reached.
func (w *world) latest() (v message.View) {
	for _, r := range w.correct() {
		x, _ := r.core.View()
		v = max(v, x)
	}
	return v
}

// minority lets the batches of a view prepare at a few replicas only: no other replica gets
// PREPAREs. Each of the few is cut off when it has executed a batch tentatively, and comes
// back when the others have begun another view without it, most often with another batch.
func (d *drawing) minority() {
	few := d.rng.Perm(d.s.Replicas)[:1+d.rng.IntN((d.s.Replicas-1)/3)]
	from, late := d.rng.IntN(d.s.shape.stop/2), d.pick(0, 1, 5, 20)
	d.s.shape.tentative = true
	d.add(func(w *world) {
		w.at(int64(from)*tick, func() {
			view, left := w.latest(), slices.Clone(few)
			w.network.losses = append(w.network.losses, func(_, to int, m message.Message) bool {
				p, ok := m.(*message.Prepare)
				return ok && p.View == view && !slices.Contains(few, to)
			})
			w.early = append(w.early, func(r *replica, v message.View, n message.SeqNum) {
				i := slices.Index(left, r.id)
				if i < 0 || v != view || w.preparedBeside(few, n) {
					return
				}
				left = slices.Delete(left, i, i+1)
				r.say("is cut off")
				w.alone(r.id, 1)
				var back func()
				back = func() {
					if w.activeAfter(view) {
						w.after(int64(late)*tick, func() { w.alone(r.id, -1) })
					} else {
						w.after(tick, back)
					}
				}
				back()
			})
		})
	}, "from %d on PREPAREs of the present view reach %s only, and who of them has executed what prepared "+
		"nowhere else is cut off until %d ticks after the next begins",
		from, names(few), late)
}

// activeAfter reports whether a correct replica is active in a later view.
func (w *world) activeAfter(v message.View) bool {
	for _, r := range w.correct() {
		if now, active := r.core.View(); active && now > v {
			return true
		}
	}
	return false
}

// preparedBeside reports whether a batch has prepared as n at a correct replica other
// than the few.
func (w *world) preparedBeside(few []int, n message.SeqNum) bool {
	for _, r := range w.correct() {
		if _, prepared := r.core.Prepared(n); prepared && !slices.Contains(few, r.id) {
			return true
		}
	}
	return false
}

// restart ends a replica's life. One time in three it does so again soon, most often
// before the replica has voted.
func (d *drawing) restart() {
	i, t, rest := d.rng.IntN(d.s.Replicas), d.moment(), d.rng.IntN(60)
	again := 0
	if d.rng.IntN(3) == 0 {
		again = 1 + d.rng.IntN(40)
	}
	d.add(func(w *world) {
		w.at(int64(t)*tick, func() {
			w.restart(i, int64(rest)*tick)
			if again > 0 {
				w.after(int64(rest+again)*tick, func() { w.restart(i, tick) })
			}
		})
	}, "replica %d restarts at %d, %d ticks later, and again %d ticks after that (0: not)", i, t, rest, again)
}

// patiently has f happen from a moment on, as soon as it can: f reports whether it has.
func (w *world) patiently(from int, f func() bool) {
	var try func()
	try = func() {
		if !w.calm && !f() {
			w.after(3*tick, try)
		}
	}
	w.at(int64(from)*tick, try)
}

// turn makes a replica correct for a while, and then a liar: from a moment on when
// another replica, or it, has been restarted, and no more than f are faulty with it. The
// messages that it sent while it was correct count in the proof.
func (d *drawing) turn() {
	n := d.s.Replicas
	i, first := d.rng.IntN(n), d.rng.IntN(n)
	t, rest := d.rng.IntN(d.s.shape.stop/2), d.rng.IntN(20)
	turned := []lie{fickle, scheming, lies[d.rng.IntN(len(lies))]}[d.rng.IntN(3)]
	d.add(func(w *world) {
		w.patiently(t, func() bool {
			lives := w.sites[first].copies[0].life
			w.restart(first, int64(rest)*tick)
			return w.sites[first].copies[0].life > lives || w.sites[first].liar()
		})
		w.patiently(t+rest, func() bool {
			s := w.sites[i]
			if s.liar() || w.sites[first].copies[0].life == 0 || s.copies[0].down || s.copies[0].mute || s.away ||
				!w.mayLose(i) || w.liars() >= w.f {
				return s.liar()
			}
			w.say("replica %d turns faulty", i)
			w.marks.hit(markTurned)
			s.lies = append(s.lies, turned)
			w.remember(i)
			return true
		})
	}, "from %d on replica %d restarts for %d ticks as soon as it may, and after that replica %d turns "+
		"faulty as soon as it may: %s", t, first, rest, i, turned.name)
}

// rolling restarts the replicas one after the other, each as soon as that is allowed.
func (d *drawing) rolling() {
	t, rest := d.rng.IntN(d.s.shape.stop/2), d.rng.IntN(10)
	order := d.rng.Perm(d.s.Replicas)
	d.add(func(w *world) {
		next := 0
		w.patiently(t, func() bool {
			if next < len(order) {
				r := w.sites[order[next]].copies[0]
				lives := r.life
				if w.restart(order[next], int64(rest)*tick); r.life > lives || r.lies() {
					next++
				}
			}
			return next == len(order)
		})
	}, "from %d on the replicas %s restart one after the other, each "+
		"as soon as it may, for %d ticks", t, names(order), rest)
}

// outage restarts all replicas at once, as a power cut does. A group without durable
// state is lost then, and must do no harm.
func (d *drawing) outage() {
	t, rest := d.moment(), d.rng.IntN(30)
	d.add(func(w *world) {
		w.patiently(t, func() bool {
			if w.shape.durable && w.lostByRestart() > w.n-w.q {
				return false
			}
			if w.lost = !w.shape.durable; w.lost {
				w.marks.hit(markLost)
			} else {
				w.marks.hit(markPower)
			}
			for i, s := range w.sites {
				if !s.liar() && !s.copies[0].down {
					s.copies[0].restart(int64(rest+i) * tick)
				}
			}
			return true
		})
	}, "at %d all replicas restart, after %d ticks or so", t, rest)
}

// fills fills the disk of one replica, or of all, for a while.
func (d *drawing) fills() {
	who, whose := []int{d.rng.IntN(d.s.Replicas)}, "a replica"
	if d.rng.IntN(2) == 0 {
		who, whose = d.rng.Perm(d.s.Replicas), "all replicas"
	}
	from, to := d.span()
	room, apart := int64(d.pick(0, 0, 8<<10, 100<<10)), d.pick(0, 0, 10)
	each := func(w *world, start int, f func(k *disk.Mem)) {
		for i, n := range who {
			w.at(int64(start+i*apart)*tick, func() {
				for _, r := range w.sites[n].copies {
					f(r.keeper.disk)
				}
			})
		}
	}
	d.add(func(w *world) {
		each(w, from, func(k *disk.Mem) {
			if !w.calm {
				k.Fill(room)
			}
		})
		each(w, to, func(k *disk.Mem) { k.Limit(-1) })
		if len(who) > 1 {
			w.marks.hit(markAllFull)
		}
	}, "from %d to %d the disks of %s, %s, have room for %d "+
		"bytes, %d ticks one after the other", from, to, whose, names(who), room, apart)
}

// yesterday stops a replica and puts back an older copy of its disk.
func (d *drawing) yesterday() {
	i, t, age := d.rng.IntN(d.s.Replicas), d.moment(), d.rng.IntN(100)
	d.add(func(w *world) {
		var old *disk.Snapshot
		var held uint64
		w.at(int64(t)*tick, func() {
			k := w.sites[i].copies[0].keeper
			old, held = k.disk.Snapshot(), uint64(k.store.Position())
		})
		w.patiently(t+age, func() bool {
			r := w.sites[i].copies[0]
			lives := r.life
			if w.sites[i].position <= held {
				return false // the copy does not differ
			}
			if w.restart(i, tick); r.life > lives {
				r.keeper.disk.Restore(old)
				r.say("has the disk of tick %d", t)
			}
			return r.life > lives || r.lies()
		})
	}, "replica %d has its disk of %d put back, %d ticks later or when it may", i, t, age)
}

// clientRestart ends a client's life. The next life sends the unanswered requests again.
func (d *drawing) clientRestart() {
	i, t := d.rng.IntN(d.s.shape.clients), d.moment()
	d.add(func(w *world) { w.at(int64(t)*tick, w.clients[i].restart) }, "client %d restarts at %d", i, t)
}

// administration adds the administrator, and the guest, which is revoked and enrolled again.
func (d *drawing) administration() {
	if d.rng.IntN(4) > 0 {
		return
	}
	d.add(func(w *world) {
		g := newClient(w, guest)
		w.clients = append(w.clients, g, newAdministrator(w))
	}, "the administrator revokes and enrols client %d", guest)
}

// sieve loses all messages of some types between some replicas, and after a while between others:
// so a batch prepares at some replicas and commits at one only, and a view begins for some.
func (d *drawing) sieve() {
	types := []message.Type{message.TypePrePrepare, message.TypePrepare, message.TypeCommit,
		message.TypeCheckpoint, message.TypeDecided, message.TypeViewChange, message.TypeViewChangeAck,
		message.TypeNewView, message.TypeBatchBody, message.TypeFetchBatch}
	odds := make([]float64, len(types))
	for i := range odds {
		odds[i] = float64(d.pick(0, 0, 20, 50, 80)) / 100
	}
	from, to := d.span()
	every := d.pick(5, 20, 60)
	d.add(func(w *world) {
		for t := from; t < to; t += every {
			w.at(int64(t)*tick, func() {
				if !w.calm {
					w.network.sieve = w.drawSieve(types, odds)
				}
			})
		}
		w.at(int64(to)*tick, func() { w.network.sieve = nil })
	}, "from %d to %d some messages do not reach some replicas, "+
		"others every %d ticks: %v, of %v", from, to, every, odds, types)
}

func (w *world) drawSieve(types []message.Type, odds []float64) map[message.Type][]uint32 {
	all := map[message.Type][]uint32{}
	for i, t := range types {
		if odds[i] == 0 {
			continue
		}
		lost := make([]uint32, w.n)
		for from := range lost {
			for to := range w.n {
				if w.chance(odds[i]) {
					lost[from] |= 1 << to
				}
			}
		}
		all[t] = lost
	}
	return all
}

// alone cuts a replica off from everyone, or joins it again.
func (w *world) alone(i, by int) {
	for j := range w.network.cut {
		if j != i {
			w.cutOff(i, j, by)
			w.cutOff(j, i, by)
		}
	}
}
