// SPDX-License-Identifier: Apache-2.0

package patience

import (
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// quiet is how long the piece of work takes on the quiet machine that limits are chosen for: two
// virtual CPUs of a server, with nothing else to do. It depends little on the number of CPUs,
// because there is one worker for each.
const quiet = 45 * time.Millisecond

// most bounds the factor, and so how long a test that hangs stays undetected: the Usual limit
// becomes a quarter of an hour at most.
const most = 30

// The piece of work: one worker for each CPU computes, and after each of the rounds waits for all
// others. Computing shows how fast the CPUs are and what share of them we get; the waits show how
// long a thread that is woken waits for a CPU. Tests of several processes that answer each other
// need both.
const (
	rounds = 50
	steps  = 300_000 // additions in a round; a little less than a millisecond
)

var measured struct {
	sync.Mutex
	factor float64 // 0: not measured yet
}

// stopwatch does the piece of work and says how long it took. The tests of this package replace it.
var stopwatch = work

// Factor says how many times slower this machine is than a quiet one: at least 1, at most 30. It is
// measured at the first call, and again by Measure.
func Factor() float64 {
	measured.Lock()
	defer measured.Unlock()
	if measured.factor == 0 {
		measured.factor = measure()
	}
	return measured.factor
}

// Measure measures Factor anew, which takes a twentieth of a second on a quiet machine.
func Measure() float64 {
	measured.Lock()
	defer measured.Unlock()
	measured.factor = measure()
	return measured.factor
}

func measure() float64 { return min(max(1, float64(stopwatch())/float64(quiet)), most) }

// work does the piece of work and says how long it took.
func work() time.Duration {
	begun := time.Now()
	workers := runtime.GOMAXPROCS(0)
	m := meeting{missing: workers, of: workers, over: make(chan struct{})}
	var all sync.WaitGroup
	for range workers {
		all.Go(func() {
			runtime.LockOSThread() // so that a wake-up is one of the kernel's
			defer runtime.UnlockOSThread()
			for range rounds {
				compute(steps)
				m.wait()
			}
		})
	}
	all.Wait()
	return time.Since(begun)
}

var sink atomic.Uint64 // keeps the compiler from leaving the computation out

// compute adds up words that it has to load, so that the race detector slows it down as
// it slows down other code.
func compute(n int) {
	words := make([]uint64, 64)
	sum := uint64(n)
	for i := range n {
		sum = sum*31 + words[sum%64]
		words[i%64] = sum
	}
	sink.Add(sum + words[0])
}

// A meeting is where a number of workers wait for each other, any number of times.
type meeting struct {
	mu      sync.Mutex
	missing int           // workers that have yet to come
	of      int           // all of them
	over    chan struct{} // closed when the last has come
}

func (m *meeting) wait() {
	m.mu.Lock()
	over := m.over
	if m.missing--; m.missing == 0 {
		m.missing, m.over = m.of, make(chan struct{})
		close(over)
	}
	m.mu.Unlock()
	<-over
}
