// SPDX-License-Identifier: Apache-2.0

package patience

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// slower makes measurements find, until the test ends, that the machine is factor times slower than
// a quiet one.
func slower(t *testing.T, factor float64) {
	t.Helper()
	set := func(f func() time.Duration) {
		measured.Lock()
		defer measured.Unlock()
		stopwatch = f
	}
	set(func() time.Duration { return time.Duration(factor * float64(quiet)) })
	t.Cleanup(func() {
		set(work)
		Measure()
	})
}

func TestFactorHasBounds(t *testing.T) {
	for is, want := range map[float64]float64{0.2: 1, 1: 1, 5: 5, 1e6: most} {
		slower(t, is)
		Measure()
		if got := Factor(); got != want {
			t.Errorf("%v times slower: got %v, want %v", is, got, want)
		}
		if got := For(time.Second); got != time.Duration(want*float64(time.Second)) {
			t.Errorf("%v times slower: a second becomes %v", is, got)
		}
	}
}

// The piece of work ends, with any number of workers.
func TestMeasureEnds(t *testing.T) {
	if f := Measure(); f < 1 || f > most {
		t.Errorf("got %v, want 1 to %d", f, most)
	}
}

// A limit that was set on a quiet machine is prolonged when the machine has become
// slower, and is reached in the end.
func TestLimitIsProlonged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slower(t, 1)
		Measure()
		begun := time.Now()
		late := After(10 * time.Second)
		slower(t, 4)
		<-late
		if took := time.Since(begun); took != 40*time.Second {
			t.Errorf("reached after %v, want 40s", took)
		}
	})
}

// A machine that has become quicker shortens no wait that has begun.
func TestLimitIsNotShortened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slower(t, 4)
		Measure()
		begun := time.Now()
		late := After(10 * time.Second)
		slower(t, 1)
		<-late
		if took := time.Since(begun); took != 40*time.Second {
			t.Errorf("reached after %v, want 40s", took)
		}
	})
}

func TestContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slower(t, 2)
		ctx, cancel := Context(t.Context(), time.Second)
		defer cancel()
		if ctx.Err() != nil {
			t.Errorf("before: got %v", ctx.Err())
		}
		<-ctx.Done()
		if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
			t.Errorf("late: got %v", ctx.Err())
		}
		ctx, cancel = Context(t.Context(), time.Second)
		cancel()
		if <-ctx.Done(); !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("cancelled: got %v", ctx.Err())
		}
	})
}

func TestStoppedLimitIsNotReached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slower(t, 1)
		AfterFunc(time.Second, func() { t.Error("reached") })()
		time.Sleep(time.Hour) // of the test's own clock
	})
}
