// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	seedFlag  = flag.Uint64("sim.seed", 0, "live this one schedule")
	dropFlag  = flag.String("sim.drop", "", "without these items of it, separated by commas")
	fixedFlag = flag.Int("sim.fixed", 500, "live so many schedules that are always the same")
	seedsFlag = flag.Int("sim.seeds", 0, "live so many fresh schedules besides the fixed ones; 0: 50")
	nameFlag  = flag.String("sim.name", "",
		"tell everything that happens in the schedule of this name that was written by hand")
	tellFlag = flag.Bool("sim.v", false, "tell everything that happens in the schedule of -sim.seed")
)

// share is how much shorter a run is under the race detector, which has nothing to find
// in one goroutine and takes its time.
var share = 1

// A schedule lives in a few megabytes and makes much that is soon forgotten.
func TestMain(m *testing.M) {
	debug.SetGCPercent(800)
	os.Exit(m.Run())
}

// TestOne repeats one schedule: go test ./pkg/pbft/internal/sim -run TestOne -sim.seed=S
// -sim.drop=1,2 -sim.v
func TestOne(t *testing.T) {
	if *seedFlag == 0 {
		t.Skip("give -sim.seed to live one schedule")
	}
	s := Draw(*seedFlag)
	for _, f := range strings.Split(*dropFlag, ",") {
		var i int
		if _, err := fmt.Sscan(f, &i); err == nil {
			s = s.Without(i)
		}
	}
	t.Log(s)
	var log func(string)
	if *tellFlag {
		log = func(line string) { fmt.Println(line) }
	}
	if o := s.run(log); o.Err != nil {
		t.Error(o.Err)
	}
}

// liveAll lives schedules on all processors and reports the first few that end badly, shrunk.
func liveAll(t *testing.T, seeds []uint64) (all marks) {
	began := time.Now()
	var mu sync.Mutex
	var wg sync.WaitGroup
	next, failures, slowest, events, recovered, cured := 0, 0, 0, 0, 0, 0
	for range runtime.GOMAXPROCS(0) {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				mu.Lock()
				if next == len(seeds) || failures >= 5 {
					mu.Unlock()
					return
				}
				seed := seeds[next]
				next++
				mu.Unlock()
				s := Draw(seed)
				o := s.Run()
				mu.Lock()
				all.add(o.marks)
				slowest, events = max(slowest, o.Calm), events+o.Events
				recovered, cured = recovered+o.marks[markRecovered], cured+o.marks[markCured]
				if o.Err != nil {
					failures++
				}
				mu.Unlock()
				if o.Err != nil {
					report(t, s)
				}
			}
		}()
	}
	wg.Wait()
	took := time.Since(began)
	t.Logf("%d schedules in %v, %.0f a minute, %d events each; the longest wait after the last fault was %d ticks",
		next, took.Round(time.Millisecond), float64(next)/took.Minutes(), events/max(next, 1), slowest)
	t.Logf("%d recoveries ended, %d of them of replicas in which an intruder was", recovered, cured)
	t.Logf("visited by so many schedules: %v", all)
	return all
}

func report(t *testing.T, s *Schedule) {
	s = Reduce(s)
	o := s.Run()
	t.Errorf("%v\n%v\nrepeat it with: %s", o.Err, s, s.Command())
}

func TestFixedSeeds(t *testing.T) {
	seeds := make([]uint64, *fixedFlag/share)
	for i := range seeds {
		seeds[i] = uint64(i + 1)
	}
	all := liveAll(t, seeds)
	if missing := all.missing(len(seeds)); len(missing) > 0 && !t.Failed() && share == 1 {
		t.Errorf("too few schedules have seen: %s", strings.Join(missing, ", "))
	}
}

func TestFreshSeeds(t *testing.T) {
	n := *seedsFlag
	if n == 0 {
		n = 50 / share
	}
	first := uint64(time.Now().UnixNano()) &^ 0xfffff
	seeds := make([]uint64, n)
	for i := range seeds {
		seeds[i] = first + uint64(i)
	}
	t.Logf("seeds from %d", first)
	liveAll(t, seeds)
}

// TestRemembered lives the schedules that found a mistake once.
func TestRemembered(t *testing.T) {
	for _, x := range remembered {
		if o := x.schedule().Run(); o.Err != nil {
			t.Errorf("%s: %v", x.mistake, o.Err)
		}
	}
}

// remembered are the schedules of seeds that found mistakes.
var remembered = []memorable{
	{"a replica between views waits below a checkpoint that the others have passed", 1795971250493877347, []int{8, 9}, false, false},
	{"replicas that forgot their VIEW-CHANGEs are not counted among those who wait for the view", 1795971250493884309,
		[]int{0, 1, 2, 3, 4, 5, 6, 9, 10, 13, 14}, false, false},
	{"a window restored below the NEW-VIEW that the journal holds", 1795982141491777576, []int{0, 2, 3}, false, false},
	{"a view reached in silence is forgotten by a second restart", 1795982141491776214, []int{3, 4}, false, false},
	{"a replica waits in a view that the others have passed, and most of " +
		"them forgot their VIEW-CHANGEs", 1795993255215630532,
		[]int{1, 2, 3, 4, 5, 6, 8, 10, 15}, true, false},
	{"a VIEW-CHANGE that was made anew is vouched for, and not the one that the NEW-VIEW names", 1795993752143140666, []int{1, 2, 3}, true, false},
	{"a replica behind its own answers calls a client a stranger", 1795982141491774357, []int{4, 5, 6, 7, 8, 9, 10}, false, false},
	{"a replica that recovers names others for contradicting what an intruder left it", 1796002780710701084, nil, true, false},
	{"a replica that forgot its VIEW-CHANGE, and made another, is told of the first and sends it", 1796004722483658939,
		[]int{3, 4, 5, 6, 7, 10, 11, 14, 15, 16}, true, false},
	{"a planted batch that changes nothing moves the next checkpoint of a recovering replica", 1796005173480392619, []int{1, 2}, true, false},
	{"a replica stops at a proposal without operations that an intruder left in its journal", 1796005595306793542, []int{7, 8, 9}, true, false},
	{"a replica that is restarted does not say what it has executed", 199, []int{4, 7, 8, 9}, true, false},
	{"a restarted primary proposes before it goes on", 1796039762375624654, []int{3, 4, 5, 6, 9, 10, 11, 13}, true, false},
	{"what an intruder left above the window is in a VIEW-CHANGE", 1796040071420325124, nil, true, false},
	{"a batch that others say has committed is answered from, and forgotten", 1796040071420328706, nil, true, false},
	{"a replica whose fence was lost is left one checkpoint short of its recovery point", 1796040663154831722,
		[]int{2, 4, 5, 8, 10, 14, 15}, true, false},
	{"the judge does not know that what was executed in one view has prepared in a later one", 1796044584509244735,
		[]int{2, 3, 5, 7, 8, 10, 11}, false, false},
	{"a primary that recovers forgets in Q what it chose above its window", 1796046114103759103,
		[]int{0, 3, 5, 7, 8, 11, 12, 13}, true, false},
	{"a restarted replica forgets how far its window was moved for an earlier view", 1796052874533277730,
		[]int{4, 5, 6, 7}, false, false},
	{"the journal lets go what prepared, because the image has passed it and it is not stable", 1796053118351316778,
		[]int{3, 7, 8, 10, 12, 13}, true, false},
	{"the judge takes a replica whose disk is full for one that waits for a view", 1796053118351311454, []int{2, 6}, true, false},
	{"the judge holds a NEW-VIEW that an intruder forged against who has recovered", 1796060639387454814,
		[]int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12}, true, false},
	{"the power is cut while one replica recovers, one is away and one lies", 1796060455418987259,
		[]int{4, 5, 7, 9, 12, 15, 18, 19}, true, false},
	{"a request whose client was not enrolled when its batch was executed, and is now", 1796064959317151664, []int{6, 7}, true, true},
	{"the judge takes a NEW-VIEW for that of a recovering replica, which passes it on", 1796064959317164355,
		[]int{3, 5, 7, 10, 11}, true, true},
	{"the judge wants a primary that recovers to begin a view above its bound", 1796074087691325604, []int{7, 8, 9}, true, true},
	{"a request that is not authentic outlives the enrolment of its client", 1796074350961500164, []int{2, 3, 7}, true, true},
	{"a restart runs as many batches as an intruder has written", 1796076502532501162, nil, true, true},
	{"a replica has recovered, and its journal is not trusted", 1796040071420314647, []int{1, 2, 3, 5, 7, 11}, true, true},
}

type memorable struct {
	mistake   string
	seed      uint64
	without   []int
	refreshes bool // it is among what went wrong that keys were refreshed,
	losses    bool // and that fences were lost
}

func (x memorable) schedule() *Schedule {
	s := Draw(x.seed).Without(x.without...)
	if !x.losses {
		s = s.beforeLosses()
	}
	if !x.refreshes {
		s = s.beforeRefreshes()
	}
	return s
}

// TestDirectedSchedules lives the schedules that were written by hand;
// -sim.name='executed alone' tells that one.
func TestDirectedSchedules(t *testing.T) {
	for _, s := range directed() {
		var log func(string)
		if *nameFlag == s.name {
			log = func(line string) { fmt.Println(line) }
		}
		switch o := s.run(log); {
		case o.Err != nil:
			t.Errorf("%v\n%v", o.Err, s)
		case o.missed != "":
			t.Errorf("%s: it has not come so far that %s", s.name, o.missed)
		default:
			t.Logf("%s: %d ticks after the last fault all was well", s.name, o.Calm)
		}
	}
}

// TestMutant stops at the first schedule that ends badly: it is for a core with a mistake
// in it, see test/mutants.
func TestMutant(t *testing.T) {
	if *seedsFlag == 0 {
		t.Skip("give -sim.seeds to look for a mistake")
	}
	for _, s := range directed() {
		switch o := s.Run(); {
		case o.Err != nil:
			t.Fatalf("noticed by %q: %v", s.name, o.Err)
		case o.missed != "":
			t.Fatalf("noticed by %q: it has not come so far that %s", s.name, o.missed)
		}
	}
	for _, x := range remembered {
		if o := x.schedule().Run(); o.Err != nil {
			t.Fatalf("noticed by seed %d: %v", x.seed, o.Err)
		}
	}
	for seed := range uint64(*seedsFlag) {
		if o := Draw(seed + 1).Run(); o.Err != nil {
			t.Fatalf("noticed by seed %d: %v", seed+1, o.Err)
		}
	}
}
