// SPDX-License-Identifier: Apache-2.0

// Package patience holds the one rule for time limits in tests: a test waits for a condition,
// and a limit only ends the wait for a condition that never comes. A limit decides nothing else.
//
// The caller says how long would be generous on a quiet machine. The package multiplies that by how
// slow this machine is at the moment (Factor), because a test that has a tenth of the CPU waits ten
// times as long for the same condition. Load may come after a wait has begun, so a limit that is
// reached measures again, and the wait goes on if the machine has become slower.
//
// Three ways to use it, by what the wait is made of:
//
//	ctx, cancel := patience.Context(t.Context(), time.Minute)      // calls that take a context
//	patience.Until(t, "the group agrees", func() bool { ... })     // a condition that can only be looked at
//	select { case v := <-c: ... case <-patience.After(time.Minute): t.Fatal("nothing came") }
//
// For gives a plain duration, for limits that another program enforces: a mount option, a command's
// --timeout, go test -timeout.
package patience

import (
	"context"
	"sync"
	"testing"
	"time"
)

// Usual is how long a test waits for anything that takes less than a second on a quiet machine.
const Usual = 30 * time.Second

// pollEvery is how often Until looks. Nothing is decided by it.
const pollEvery = 2 * time.Millisecond

// For multiplies d, a limit that is generous on a quiet machine, by the factor of this machine.
func For(d time.Duration) time.Duration { return times(d, Factor()) }

// ForNow is For with a factor measured now, for long waits that cannot be prolonged.
func ForNow(d time.Duration) time.Duration { return times(d, Measure()) }

func times(d time.Duration, factor float64) time.Duration { return time.Duration(float64(d) * factor) }

// AfterFunc calls f in a goroutine of its own when the limit d is reached. The function
// it returns prevents that.
func AfterFunc(d time.Duration, f func()) (stop func()) {
	l := &limit{begun: time.Now(), length: d, reached: f}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer = time.AfterFunc(For(d), l.check)
	return l.stop
}

// After returns a channel that is closed when the limit d is reached.
func After(d time.Duration) <-chan struct{} {
	c := make(chan struct{})
	AfterFunc(d, func() { close(c) })
	return c
}

// Context returns a context that ends with parent, or with the error DeadlineExceeded when the
// limit d is reached. It names no deadline, because a limit may be prolonged.
func Context(parent context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(parent)
	stop := AfterFunc(d, func() { cancel(context.DeadlineExceeded) })
	return limited{ctx}, func() {
		stop()
		cancel(context.Canceled)
	}
}

// A limited context gives the cause of its end as its error, as a context with a deadline does.
type limited struct{ context.Context }

func (c limited) Err() error {
	if c.Context.Err() == nil {
		return nil
	}
	return context.Cause(c.Context)
}

// Until polls until ok returns true, and fails the test if it has not within the Usual limit; the
// failure says "never: " and then what.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	UntilWithin(t, Usual, what, ok)
}

// UntilWithin is Until with another limit.
func UntilWithin(t testing.TB, d time.Duration, what string, ok func() bool) {
	t.Helper()
	late := After(d)
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("never: %s (the machine is %.1f times slower than a quiet one)", what, Factor())
		}
	}
}

// A limit is a wait that ends once it has lasted length, multiplied by the largest factor that was
// measured since it began.
type limit struct {
	begun   time.Time
	length  time.Duration
	reached func()

	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
}

func (l *limit) stop() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stopped = true
	l.timer.Stop()
}

// check runs when the limit seems to be reached. The factor may have grown since it was
// set, so it is measured again.
func (l *limit) check() {
	rest := times(l.length, Measure()) - time.Since(l.begun)
	l.mu.Lock()
	if l.stopped {
		l.mu.Unlock()
		return
	}
	if rest > 0 {
		l.timer.Reset(rest)
		l.mu.Unlock()
		return
	}
	l.stopped = true
	l.mu.Unlock()
	l.reached()
}
