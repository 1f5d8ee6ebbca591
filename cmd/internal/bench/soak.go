// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"bfs/cmd/internal/procs"
)

// Soak has attacks by clients and strangers on one group, one after the other, again and again, and
// beside each of them a fault of one replica, while an honest client checks what it reads.
type Soak struct {
	Attack               // Rounds is not used
	For    time.Duration // how long; each kind of fault has a turn in any case
	Stall  time.Duration // the longest time in which the honest client may be served nothing
}

// A Soaked is the result of a soak that found nothing wrong.
type Soaked struct {
	Rounds  int      `json:"whole_rounds"` // each attack had a turn
	Growths []Growth `json:"growths"`      // nil: they were too few to judge
	// The honest operations a second of a turn, the median of the first half and of the last. A
	// group that serves ever less shows here.
	First float64 `json:"ops_per_s_first_half"`
	Last  float64 `json:"ops_per_s_last_half"`
}

// list returns the attacks, or tells what a soak cannot do.
func (s Soak) list() ([]combination, error) {
	for name, d := range map[string]time.Duration{"soak": s.For, "phase": s.Phase, "stall": s.Stall} {
		if d <= 0 {
			return nil, fmt.Errorf("--%s: got %v, want more than 0, such as 10s", name, d)
		}
	}
	all, err := s.combinations(func(o Offender) bool { return o.By == ByClient || o.By == ByStranger })
	for _, c := range all {
		if len(c.offences()) > 0 {
			return nil, fmt.Errorf("attack %q: want clients and strangers only in a soak: one replica offends in it "+
				"anyway", c.name)
		}
	}
	return all, err
}

// Run soaks a group, and calls each with every turn that is over. When it fails, the files of the
// group stay.
func (s Soak) Run(ctx context.Context, each func(Turn) error) (r Soaked, err error) {
	all, err := s.list()
	if err != nil {
		return r, err
	}
	x := &soaking{Soak: s}
	if x.dir, err = os.MkdirTemp("", "bfs-soak-"); err != nil {
		return r, err
	}
	err = x.run(ctx, all, each)
	if err != nil && ctx.Err() == nil {
		return r, fmt.Errorf("%w\n(the files and logs of the replicas are in %s)", err, x.dir)
	}
	return x.soaked(), errors.Join(err, os.RemoveAll(x.dir))
}

// A soaking is one soak under way. One goroutine has the turns and one watches.
type soaking struct {
	Soak
	dir       string // of the group's files
	group     *fileGroup
	attackers []*attackers
	honest    *honest
	victims   int           // chosen so far that were not the primary
	took      time.Duration // until the last whole round was over
	rates     []float64     // of the turns

	mu      sync.Mutex
	here    []*procs.Child // by replica; nil: a fault has it
	peak    usage          // the most that a replica had of each in this turn
	least   []usage        // the least that each replica had in this round
	figures [][]usage      // the least of each replica in each round that is over
}

// soakState is the size of the group's state. It is small, because the bound of a replica's memory
// follows from it.
const soakState = 256 << 20

// soakOffence is what the replica that offends does: the offence of a backup that costs the honest
// client most.
const soakOffence = "replica-fetches"

func (x *soaking) run(ctx context.Context, all []combination, each func(Turn) error) error {
	defer x.end()
	if err := x.begin(ctx, all); err != nil {
		return err
	}
	watched, fail := context.WithCancelCause(ctx)
	over := make(chan struct{})
	go func() {
		defer close(over)
		fail(x.watch(watched))
	}()
	err := x.rounds(watched, each)
	fail(nil)
	<-over
	return errors.Join(err, x.judge())
}

// begin starts the group and its honest client, and makes what the attackers need.
func (x *soaking) begin(ctx context.Context, all []combination) (err error) {
	offender, err := combine(soakOffence, x.N)
	if err != nil {
		return err
	}
	x.group, err = startFileGroup(ctx, fileGroupConfig{Program: x.Program, Dir: x.dir, N: x.N, Size: soakState,
		Transport: x.Transport, Durability: x.Durability, Offences: offender.offences()})
	if err != nil {
		return err
	}
	file, err := x.group.prepareAttack(ctx, all...)
	if err != nil {
		return err
	}
	for _, c := range all {
		a, err := x.group.enrolAttackers(ctx, c, x.All)
		if err != nil {
			return err
		}
		x.attackers = append(x.attackers, a)
	}
	x.here = append(x.here, x.group.replicas...)
	x.least, x.figures = make([]usage, x.N), make([][]usage, x.N)
	x.honest = newChecked(x.group.client, file)
	return nil
}

func (x *soaking) end() {
	if x.honest != nil {
		x.honest.stop()
	}
	if x.group != nil {
		x.group.stop()
	}
}

// rounds has one turn after the other until the time is over. In each round each attack meets the
// next fault.
func (x *soaking) rounds(ctx context.Context, each func(Turn) error) error {
	begin, had := time.Now(), map[string]bool{}
	for round := 0; ; round++ {
		for i, a := range x.attackers {
			f := faults[(round+i)%len(faults)]
			t, err := x.turn(ctx, a, f)
			if ctx.Err() != nil {
				err = context.Cause(ctx) // what the watch found, not what the turn failed with for that
			}
			if err != nil {
				return fmt.Errorf("round %d, %s, a replica %s: %w", round+1, a.name, f.name, err)
			}
			t.Round = round + 1
			x.rates = append(x.rates, t.Rate)
			if err := each(t); err != nil {
				return err
			}
			had[f.name] = true
			if len(had) == len(faults) && time.Since(begin) > x.For {
				return nil
			}
		}
		x.endRound()
		x.took = time.Since(begin)
	}
}

// turn has one attack, and one fault beside it, in a group of which all replicas take part. It ends
// when its time is over and the replica takes part again.
func (x *soaking) turn(ctx context.Context, a *attackers, f fault) (t Turn, err error) {
	ctx, cancel := context.WithTimeout(ctx, x.Phase+recoverWithin)
	defer cancel()
	primary, err := x.group.whole(ctx, 0)
	if err != nil {
		return t, err
	}
	on, err := a.begin(ctx)
	if err != nil {
		return t, err
	}
	defer on.end()
	x.beginTurn()
	begin, i := time.Now(), f.who(x, primary)
	if err := x.befall(ctx, f, i); err != nil {
		return t, fmt.Errorf("replica %d: %w", i, err)
	}
	if err := x.measureAll(ctx); err != nil {
		return t, err
	}
	if err := x.look(); err != nil {
		return t, err
	}
	done, stall, err := x.honest.count()
	if err == nil {
		_, err = on.cpu()
	}
	took := time.Since(begin)
	return Turn{Name: a.name, By: a.by(), Fault: f.name, Replica: i, Rate: float64(done) / took.Seconds(),
		Seconds: took.Seconds(), Stall: milliseconds(stall), usage: x.most()}, err
}

// befall has a fault for half a turn, and awaits that the replica takes part again.
func (x *soaking) befall(ctx context.Context, f fault, i int) error {
	over := time.Now().Add(x.Phase)
	if f.away {
		x.set(i, nil)
	}
	if err := f.begin(ctx, x, i); err != nil {
		return err
	}
	if err := pause(ctx, x.Phase/2); err != nil {
		return err
	}
	if err := f.heal(ctx, x, i); err != nil {
		return err
	}
	if err := x.group.takesPart(ctx, i); err != nil {
		return err
	}
	x.set(i, x.group.replicas[i])
	return pause(ctx, time.Until(over))
}
