// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"time"

	"bfs/cmd/internal/procs"
)

const (
	watchEvery   = 200 * time.Millisecond
	measureEvery = 5 // looks
)

// watch looks at the replicas and the honest client until ctx ends or something is wrong.
func (x *soaking) watch(ctx context.Context) error {
	for n := 0; ; n++ {
		if err := pause(ctx, watchEvery); err != nil {
			return err
		}
		if err := x.look(); err != nil {
			return err
		}
		if n%measureEvery != 0 {
			continue
		}
		if err := x.measure(ctx); err != nil {
			return err
		}
	}
}

// look is an error if a replica has ended by itself, or the honest client is in trouble.
func (x *soaking) look() error {
	if err := x.ended(); err != nil {
		return err
	}
	return x.honest.trouble(x.Stall)
}

func (x *soaking) ended() error {
	x.mu.Lock() // a replica that a fault is to end is taken out before
	defer x.mu.Unlock()
	for _, c := range x.here {
		if c == nil {
			continue
		}
		select {
		case <-c.Exited():
			return fmt.Errorf("a replica ended by itself: %w", c.Failure())
		default:
		}
	}
	return nil
}

// measure asks the replicas that are there what they use. It is an error if one has more memory
// than a replica may take for the size of its state.
func (x *soaking) measure(ctx context.Context) error {
	for i := range x.N {
		if !x.isHere(i) {
			continue
		}
		u, needed, err := x.group.usage(ctx, i)
		if err != nil {
			continue // a fault may have it by now; measureAll misses none
		}
		if err := x.note(i, u, needed); err != nil {
			return err
		}
	}
	return nil
}

// measureAll is measure at the end of a turn, when no replica is away.
func (x *soaking) measureAll(ctx context.Context) error {
	for i := range x.N {
		u, needed, err := x.group.usage(ctx, i)
		if err == nil {
			err = x.note(i, u, needed)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (x *soaking) set(i int, c *procs.Child) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.here[i] = c
}

func (x *soaking) isHere(i int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.here[i] != nil
}

// note adds a replica's usage to the turn's and the round's.
func (x *soaking) note(i int, u usage, needed float64) error {
	if u.Resident > needed {
		return fmt.Errorf("replica %d has %.0f MiB of memory, want at most %.0f for a state of %v, as its "+
			"bfs_memory_needed_bytes says", i, u.Resident, needed, x.group.group.State.Size)
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, thing := range things {
		v, peak, least := *thing.of(&u), thing.of(&x.peak), thing.of(&x.least[i])
		*peak = max(*peak, v)
		if *least == 0 || v < *least {
			*least = v
		}
	}
	return nil
}

func (x *soaking) beginTurn() {
	_, _, _ = x.honest.count() // an error of it stays
	x.mu.Lock()
	defer x.mu.Unlock()
	x.peak = usage{}
}

func (x *soaking) most() usage {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.peak
}

// endRound keeps the least that each replica had.
func (x *soaking) endRound() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for i := range x.figures {
		x.figures[i] = append(x.figures[i], x.least[i])
		x.least[i] = usage{}
	}
}
