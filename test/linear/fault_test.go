// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"context"
	"fmt"
	"math/rand/v2"
	"syscall"
	"time"
)

// A fault is one thing that goes wrong for a while. It makes at most one replica faulty,
// because replicas that are killed remember their promises.
type fault struct {
	name string
	// begin does the damage to replica r, or to the relay or link that the numbers
	// choose. The function that it returns repairs the damage.
	begin func(g *group, r, other int) (end func() error, err error)
}

var faults = []fault{
	{"killed", func(g *group, r, _ int) (func() error, error) {
		g.replicas[r].Kill()
		return func() error {
			if err := g.replicas[r].Start(); err != nil {
				return err
			}
			return g.replicas[r].Ready(g.t.Context())
		}, nil
	}},
	{"killed with all others", func(g *group, _, _ int) (func() error, error) {
		for _, p := range g.replicas {
			p.Kill()
		}
		return func() error {
			for _, p := range g.replicas {
				if err := p.Start(); err != nil {
					return err
				}
			}
			for _, p := range g.replicas {
				if err := p.Ready(g.t.Context()); err != nil {
					return err
				}
			}
			return nil
		}, nil
	}},
	{"stopped", func(g *group, r, _ int) (func() error, error) {
		p := g.replicas[r]
		return func() error { return p.Signal(syscall.SIGCONT) }, p.Signal(syscall.SIGSTOP)
	}},
	{"hears nobody", func(g *group, r, _ int) (func() error, error) { return g.drop(everyone, r) }},
	{"is heard by nobody", func(g *group, r, _ int) (func() error, error) { return g.drop(r, everyone) }},
	{"cut off", func(g *group, r, _ int) (func() error, error) {
		return func() error { return g.links.cut(r, false) }, g.links.cut(r, true)
	}},
	{"does not hear one other", func(g *group, r, other int) (func() error, error) { return g.drop(other, r) }},
	{"killed relay beside", func(g *group, r, _ int) (func() error, error) {
		relay := g.relays[r%len(g.relays)]
		relay.Kill()
		return func() error {
			if err := relay.Start(); err != nil {
				return err
			}
			return relay.Ready(g.t.Context())
		}, nil
	}},
}

func (g *group) drop(from, to int) (end func() error, err error) {
	return func() error { return g.links.drop(from, to, false) }, g.links.drop(from, to, true)
}

// A step of the schedule depends on the seed alone. The primary is looked up when the
// step begins.
type step struct {
	fault   fault
	primary bool // hits the replica that is primary then
	replica int
	other   int
	lasts   time.Duration
}

// schedule draws steps: every fault on the primary and on a backup once, in random order,
// then again.
func schedule(chance *rand.Rand) func() step {
	var bag []step
	return func() step {
		if len(bag) == 0 {
			for _, f := range faults {
				bag = append(bag, step{fault: f, primary: true}, step{fault: f})
			}
			chance.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		s := bag[0]
		bag = bag[1:]
		s.replica, s.other = chance.IntN(members), 1+chance.IntN(members-1)
		s.lasts = 100*time.Millisecond + time.Duration(chance.IntN(1400))*time.Millisecond
		return s
	}
}

// suffer runs the schedule until ctx is done, and leaves the group whole.
func (g *group) suffer(ctx context.Context, seed uint64) (steps int, err error) {
	next := schedule(rand.New(rand.NewPCG(seed, 0)))
	for ; ctx.Err() == nil; steps++ {
		s := next()
		if s.primary {
			s.replica = primaryOf(g.t.Context(), g.admins)
		}
		other := (s.replica + s.other) % members
		begun := time.Now()
		end, err := s.fault.begin(g, s.replica, other)
		if err != nil {
			return steps, err
		}
		select {
		case <-time.After(s.lasts): // not a limit: this long the fault lasts
		case <-ctx.Done():
		}
		if err = end(); err == nil {
			healed := time.Now()
			err = whole(g.t.Context(), g.admins)
			g.t.Logf("%6.2f s: replica %d (primary %t) %s, other %d: lasted %v, whole after %v",
				begun.Sub(g.began).Seconds(), s.replica, s.primary, s.fault.name, other,
				healed.Sub(begun).Round(time.Millisecond), time.Since(healed).Round(time.Millisecond))
		}
		if err != nil {
			return steps, fmt.Errorf("replica %d (primary %t) %s, other %d, for %v: %w",
				s.replica, s.primary, s.fault.name, other, s.lasts, err)
		}
	}
	return steps, nil
}
