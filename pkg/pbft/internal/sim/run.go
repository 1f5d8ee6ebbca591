// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"fmt"
	"strings"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
)

// patience is how long a group may take after the last fault, in ticks: the view-change timer
// may have doubled six times before, and has to run out for a few primaries that are silent.
const patience = 12000

// An Outcome is how a schedule ended.
type Outcome struct {
	Err    error // nil: nothing went wrong
	Ticks  int   // the group's age at the end
	Events int
	Calm   int // ticks from the last fault until every client had its answers

	marks  marks
	missed string // the stage that a schedule written by hand has not reached
}

// Run runs the schedule.
func (s *Schedule) Run() Outcome { return s.run(nil) }

// Tell runs the schedule and logs everything that happens.
func (s *Schedule) Tell(log func(string)) Outcome { return s.run(log) }

func (s *Schedule) run(log func(string)) Outcome {
	w := newWorld(s.shape, s.Seed)
	w.log = log
	for i, x := range s.items {
		if !contains(s.dropped, i) {
			x.apply(w)
		}
	}
	w.guarded(w.start)
	stop := int64(s.shape.stop) * tick
	w.runUntil(stop, nil)
	for _, p := range s.reaches {
		if w.err == nil && !p.holds(w) {
			return Outcome{missed: p.name}
		}
	}
	w.pacify()
	calm := 0
	if w.lost {
		w.runUntil(w.now+mourning*tick, nil)
	} else {
		calm = w.recover(s)
	}
	w.judge.end()
	return Outcome{Err: w.err, Ticks: int(w.now / tick), Events: w.stepped, Calm: calm, marks: w.marks}
}

// mourning is how many ticks a group that has lost its state is watched for.
const mourning = 1000

// recover judges whether all is well after the faults have ended, and how many ticks that takes.
func (w *world) recover(s *Schedule) (calm int) {
	if s.shape.quiet {
		w.hush(s.within)
	}
	w.resume()
	w.runUntil(w.now+patience*tick, w.finished)
	calm = int(w.now/tick) - s.shape.stop
	if w.err == nil && !w.finished() {
		w.fail("liveness: %d ticks after the last fault, with at most f replicas silent, %s", calm, w.account())
	}
	w.comeBack()
	w.settle()
	return calm
}

func contains(all []int, i int) bool {
	for _, x := range all {
		if x == i {
			return true
		}
	}
	return false
}

// pacify ends all faults: liars fall silent, and replicas that stood still go on.
func (w *world) pacify() {
	w.calm = true
	w.say("all faults end")
	w.judge.vows.calm()
	w.network.delay, w.network.spread = 20, 30
	w.network.sieve, w.network.losses, w.early = nil, nil, nil
	for i := range w.network.cut {
		clear(w.network.cut[i])
	}
	for i, s := range w.sites {
		if s.away {
			w.network.cutOff(i)
		}
	}
	for _, s := range w.sites {
		for _, r := range s.copies {
			r.paused, r.hashing = min(r.paused, w.now), 0
			if r.keeper != nil {
				r.keeper.disk.Limit(-1)
			}
		}
	}
}

// hush waits for the calls from before the end of the faults, while no client begins a
// call: a new request could get a group to move that an old one could not.
func (w *world) hush(within int) {
	if within == 0 {
		within = patience
	}
	w.quiet = true
	if w.runUntil(w.now+int64(within)*tick, w.answered); w.err == nil && !w.answered() {
		w.fail("liveness: %d ticks after the last fault, with at most f replicas silent "+
			"and nothing else asked for, %s", within, w.account())
	}
	w.quiet = false
}

// resume lets the clients call again.
func (w *world) resume() {
	for _, c := range w.clients {
		for _, k := range c.slots {
			if k.call == nil && c.mischief == nil {
				w.after(w.rng.Int64N(tick), k.begin)
			}
		}
	}
}

// answered reports whether no correct client waits.
func (w *world) answered() bool {
	for _, c := range w.clients {
		for _, s := range c.slots {
			if s.call != nil && c.mischief == nil {
				return false
			}
		}
	}
	return true
}

// finished reports whether all correct clients have their answers.
func (w *world) finished() bool {
	for _, c := range w.clients {
		if c.mischief == nil && !c.finished() {
			return false
		}
	}
	return true
}

// settle lets all replicas catch up that can, and judges whether they do.
func (w *world) settle() {
	if w.err != nil {
		return
	}
	caught := func() bool {
		most := w.most()
		for _, r := range w.correct() {
			if r.core.LastExecuted() != most || r.core.Transferring() || r.recovers {
				return false
			}
		}
		for _, s := range w.sites {
			if s.corrupt && !s.edits() {
				return false // its recovery has to end
			}
		}
		return true
	}
	w.runUntil(w.now+patience*tick, caught)
	if w.err == nil && !caught() {
		w.fail("liveness: not all correct replicas catch up when all is quiet: %s", w.account())
	}
	for _, r := range w.correct() {
		if r.life > 0 && r.core.SilentUntil() == 0 {
			w.marks.hit(markRejoined)
		}
	}
}

// most is how far any correct replica has come.
func (w *world) most() (n message.SeqNum) {
	for _, r := range w.correct() {
		n = max(n, r.core.LastExecuted())
	}
	return n
}

// account describes all replicas and clients.
func (w *world) account() string {
	var b strings.Builder
	waiting := 0
	for _, c := range w.clients {
		for _, s := range c.slots {
			if s.call != nil && c.mischief == nil {
				waiting++
			}
		}
	}
	fmt.Fprintf(&b, "%d calls wait", waiting)
	for _, s := range w.sites {
		r := s.copies[0]
		view, active := r.core.View()
		fmt.Fprintf(&b, "; replica %d: view %d active %v executed %d stable %d pending %d", r.id, view, active,
			r.core.LastExecuted(), r.core.Stable().Seq, r.core.Pending())
		if s.liar() {
			b.WriteString(" liar")
		}
		if n := r.core.SilentUntil(); n > 0 {
			fmt.Fprintf(&b, " silent until %d", n)
		}
		if r.core.Transferring() {
			b.WriteString(" fetching")
		}
		if phase, point, _ := r.core.Recovery(); phase != core.NotRecovering {
			fmt.Fprintf(&b, " recovers: %v, point %d", phase, point)
		}
		if r.aside() {
			b.WriteString(" disk full")
		}
	}
	return b.String()
}
