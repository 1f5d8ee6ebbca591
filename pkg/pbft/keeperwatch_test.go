// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"testing"
	"time"
)

// The window of vulnerability runs from the last recovery, or from the keeper's start if
// there was none, and two key periods are in it. It is not known before the keeper has
// answered, nor while its watchdog has not begun. An answer that fails leaves the last one.
func TestKeeperWindow(t *testing.T) {
	const period, refresh = 10 * time.Minute, time.Minute
	start := time.Now().Add(-time.Hour)
	for _, x := range []struct {
		name          string
		said          *KeeperStatus // nil: nothing
		window, bound time.Duration
	}{
		{"no answer", nil, 0, 0},
		{"the watchdog has not begun", &KeeperStatus{}, 0, 0},
		{"no recovery yet", &KeeperStatus{Started: start}, time.Hour + 2*refresh, 0},
		{"a recovery", &KeeperStatus{Started: start, Last: start.Add(time.Minute), Period: Seconds(period)},
			59*time.Minute + 2*refresh, period + 2*refresh + recoveryAllowance},
	} {
		w := newKeeperWatch(&ReplicaConfig{Keeper: "socket", KeyPeriod: refresh}, start)
		if x.said != nil {
			w.note(*x.said, nil)
		}
		w.note(KeeperStatus{}, errors.New("no socket"))
		s := w.seen()
		since := time.Since(start) - time.Hour // how slow this test is
		if got := s.Window.Duration(); got < x.window || got > x.window+since || s.Bound.Duration() != x.bound {
			t.Errorf("%s: window %v and bound %v, want %v and %v", x.name, got, s.Bound.Duration(), x.window, x.bound)
		}
		if answered := s.Answered.Duration() < time.Hour; answered != (x.said != nil) || s.Silent != "no socket" {
			t.Errorf("%s: answered %v ago, silent for %q", x.name, s.Answered.Duration(), s.Silent)
		}
	}
}
