// SPDX-License-Identifier: Apache-2.0

package watch

import (
	"os"
	"sync"
	"time"

	"bfs/pkg/pbft"
)

// account is the state of a Watch that any goroutine may read.
type account struct {
	mu sync.Mutex
	s  pbft.KeeperStatus
}

func (x *account) change(f func(*pbft.KeeperStatus)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	f(&x.s)
}

func (x *account) begin(next time.Time) {
	x.change(func(s *pbft.KeeperStatus) { s.Started, s.Next = time.Now(), next })
}

func (x *account) turned(next time.Time, skipped int) {
	x.change(func(s *pbft.KeeperStatus) { s.Next, s.GivenUp = next, skipped })
}

func (x *account) started(recovers bool) {
	x.change(func(s *pbft.KeeperStatus) {
		if recovers {
			s.Last = time.Now()
		}
	})
}

func (x *account) checked(manifest string, err error) {
	var at time.Time
	if info, err := os.Stat(manifest); err == nil && manifest != "" {
		at = info.ModTime()
	}
	x.change(func(s *pbft.KeeperStatus) {
		s.Checked, s.Manifest, s.Problem = time.Now(), at, ""
		if err != nil {
			s.Problem = err.Error()
		}
	})
}

// Status is the watchdog's report of its own state.
func (w *Watch) Status() (s pbft.KeeperStatus) {
	w.account.change(func(x *pbft.KeeperStatus) { s = *x })
	s.Period = pbft.Seconds(w.Config.Period)
	return s
}
