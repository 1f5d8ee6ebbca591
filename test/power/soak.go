// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"bfs/test/cluster"
	"bfs/test/patience"
)

const (
	replicas = 4

	// The cut of a round comes after each crew has had leastAcked operations acknowledged
	// for each worker, and by chance up to furtherMost more.
	leastAcked  = 5
	furtherMost = 30

	// Bounds of waits, on a quiet machine.
	settleIn = 2 * time.Minute // boots, elections and fetches
	checkIn  = time.Minute

	lookEvery = 5 * time.Millisecond
)

// A soak is one run of this program.
type soak struct {
	rounds  int
	seed    uint64
	dir     string
	guests  bool          // replicas run under kernels of their own
	mounted bool          // there are workers on a mount
	disks   bool          // one disk breaks in each round, instead of the power being cut
	replays bool          // the writes of one disk are recorded, and looked at one after the other
	points  int           // bounds the points at which a replay stops in a round; 0: every flush
	life    time.Duration // a recording goes on until the image has followed the journal, but no longer
	only    string        // how it breaks; "": as chance has it
	until   time.Time     // when to end early; zero: never
	say     func(format string, args ...any)

	group  *cluster.Group // for relays and commands
	room   room
	crews  []crew
	chance *rand.Rand
	cuts   atomic.Int64
	serves time.Duration // from the last return of the power to the first acknowledged operations
	done   totals

	promised standing // with replays: in the rounds that are over
}

// A room is the environment in which replicas run. Only off is called while another method runs.
type room interface {
	make(ctx context.Context) error           // a new group, switched off
	on(ctx context.Context, kind int64) error // starts all replicas; of what kind is up to the room
	off()                                     // ends all replicas in one instant
	ended() string                            // names replicas that have ended by themselves
	admins() []string                         // addresses of the replicas' administration
	logs() string                             // the last lines of each replica's log
	close()
}

// A crew is a number of workers at one client.
type crew interface {
	name() string
	size() int
	acked() int64                               // operations
	failure() error                             // of the first worker that failed; nil: none has
	check(ctx context.Context) ([]error, tally) // compares each directory with its worker's log, while the others go on
	close()
}

// totals holds the figures of a soak.
type totals struct {
	rounds, cuts, early int // early: cuts while replicas started
	acked               map[string]int64
	wrong               tally
	slowest             time.Duration // until all were served again
	examined            examined      // with replays
}

func (t totals) String() string {
	if t.examined.Looked > 0 {
		return fmt.Sprintf("%v; operations acknowledged %v; %v", t.examined, t.acked, t.wrong)
	}
	return fmt.Sprintf("%d cuts, of these %d while replicas started; operations acknowledged %v; "+
		"%v; served again within %.1f s", t.cuts, t.early, t.acked, t.wrong, t.slowest.Seconds())
}

func (s *soak) run(ctx context.Context) error {
	began := time.Now()
	s.chance = rand.New(rand.NewPCG(s.seed, 0))
	s.done.acked = map[string]int64{}
	err := s.begin(ctx)
	if err == nil {
		s.say("seed %d: the group serves after %v", s.seed, time.Since(began).Round(time.Second))
		err = s.goOn(ctx)
	}
	if err != nil && s.room != nil {
		err = fmt.Errorf("after %d rounds: %w\n%s", s.done.rounds, err, s.room.logs())
	}
	for _, c := range s.crews {
		s.done.acked[c.name()] = c.acked()
		c.close()
	}
	if s.group != nil {
		s.group.Stop()
	}
	if s.room != nil {
		s.room.close()
	}
	s.done.cuts = int(s.cuts.Load())
	s.say("%d rounds in %v, seed %d: %v", s.done.rounds, time.Since(began).Round(time.Second), s.seed, s.done)
	return err
}

// begin makes the group and its crews, and starts both.
func (s *soak) begin(ctx context.Context) (err error) {
	if s.dir, err = filepath.Abs(s.dir); err != nil {
		return err
	}
	if s.group, err = cluster.Of(s.dir, "tls"); err != nil {
		return err
	}
	if s.guests {
		s.room = &hosts{group: s.group, mapped: s.disks, records: s.replays}
	} else {
		s.room = &processes{group: s.group}
	}
	if err := s.room.make(ctx); err != nil {
		return err
	}
	began := time.Now()
	if err := s.room.on(ctx, 0); err != nil {
		return err
	}
	if err := s.employ(ctx); err != nil {
		return err
	}
	s.serves = time.Since(began)
	return s.await(ctx, s.goals(func(c crew) int { return c.size() }))
}

// employ makes the crews.
func (s *soak) employ(ctx context.Context) error {
	direct, err := s.newDirect(ctx)
	if err != nil {
		return err
	}
	s.crews = append(s.crews, direct)
	if !s.mounted {
		return nil
	}
	mounted, err := s.newMounted(ctx)
	if err != nil {
		return err
	}
	s.crews = append(s.crews, mounted)
	return nil
}

func (s *soak) goOn(ctx context.Context) error {
	for s.done.rounds < s.rounds {
		if !s.until.IsZero() && time.Now().After(s.until) {
			return nil
		}
		next := s.round
		switch {
		case s.disks:
			next = s.breakDisk
		case s.replays:
			next = s.replay
		}
		if err := next(ctx); err != nil {
			return err
		}
	}
	return nil
}

// round lets the workers work, cuts the power, and judges.
func (s *soak) round(ctx context.Context) error {
	before := s.goals(func(crew) int { return 0 })
	began := time.Now()
	err := s.await(ctx, s.goals(func(c crew) int { return c.size()*leastAcked + s.chance.IntN(c.size()*furtherMost) }))
	if err != nil {
		return err
	}
	worked := time.Since(began)
	s.cut()
	acked := s.goals(func(crew) int { return 0 })
	early := 0
	if s.chance.IntN(3) == 0 {
		early = 1 + s.chance.IntN(3)
	}
	for range early {
		if err := s.room.on(ctx, s.chance.Int64()); err != nil {
			return err
		}
		if err := s.wait(ctx, time.Duration(s.chance.Int64N(int64(s.serves)+1))); err != nil {
			return err
		}
		s.cut()
	}
	s.done.early += early
	back := time.Now()
	if err := s.room.on(ctx, s.chance.Int64()); err != nil {
		return err
	}
	// Each worker may have had one operation under way at the cut, so at least one of
	// these began after it.
	if err := s.await(ctx, s.goals(func(c crew) int { return c.size() + 1 })); err != nil {
		return err
	}
	s.serves = time.Since(back)
	s.done.slowest = max(s.done.slowest, s.serves)
	if err := s.check(ctx); err != nil {
		return err
	}
	checked := time.Since(back)
	whole := "not waited for"
	if s.chance.IntN(4) != 0 { // else the next cut may come while a replica still catches up
		if err := s.whole(ctx); err != nil {
			return err
		}
		whole = fmt.Sprintf("%.1f s", time.Since(back).Seconds())
	}
	s.done.rounds++
	counts := make([]string, len(s.crews))
	for i, c := range s.crews {
		counts[i] = fmt.Sprintf("%d %s", acked[i]-before[i], c.name())
	}
	s.say("round %d: %s operations in %.1f s, %d cuts; served again after %.1f s, checked %.1f s, "+
		"all replicas take part %s; %v", s.done.rounds, strings.Join(counts, ", "), worked.Seconds(), 1+early,
		s.serves.Seconds(), checked.Seconds(), whole, s.done.wrong)
	return nil
}

func (s *soak) cut() {
	s.cuts.Add(1)
	s.room.off()
}

// wait lets time pass: until the power is cut again.
func (s *soak) wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d): // not a limit: when the power is cut
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// goals returns for each crew the number of its acknowledged operations plus more(crew).
func (s *soak) goals(more func(crew) int) (all []int64) {
	for _, c := range s.crews {
		all = append(all, c.acked()+int64(more(c)))
	}
	return all
}

// await waits until each crew has acknowledged its goal.
func (s *soak) await(ctx context.Context, goals []int64) error {
	ctx, cancel := patience.Context(ctx, settleIn)
	defer cancel()
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		open := ""
		for i, c := range s.crews {
			if err := c.failure(); err != nil {
				return fmt.Errorf("after %d cuts: %s: %w", s.cuts.Load(), c.name(), err)
			}
			if c.acked() < goals[i] {
				open += fmt.Sprintf(" %s: %d operations acknowledged, want %d;", c.name(), c.acked(), goals[i])
			}
		}
		if open == "" {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			_, missing := s.survey(context.WithoutCancel(ctx))
			return fmt.Errorf("after %d cuts: %w:%s%s", s.cuts.Load(), ctx.Err(), open, missing)
		}
	}
}

// check lets all crews compare their directories with their logs at the same time.
func (s *soak) check(ctx context.Context) error {
	ctx, cancel := patience.Context(ctx, checkIn)
	defer cancel()
	var checks sync.WaitGroup
	wrong, sums := make([][]error, len(s.crews)), make([]tally, len(s.crews))
	for i, c := range s.crews {
		checks.Go(func() { wrong[i], sums[i] = c.check(ctx) })
	}
	checks.Wait()
	var all []error
	s.done.wrong = tally{}
	for i, c := range s.crews {
		for _, err := range wrong[i] {
			all = append(all, fmt.Errorf("after %d cuts: %s: %w", s.cuts.Load(), c.name(), err))
		}
		s.done.wrong.add(sums[i])
	}
	return errors.Join(all...)
}

// lastLines returns the end of a file.
func lastLines(file string, n int) string {
	text, _ := os.ReadFile(file)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
