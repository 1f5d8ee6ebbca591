// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"bfs/pkg/pbft/internal/signing"
)

// A keeperWatch asks a replica's keeper for its status, and has the last answer for
// Status. It has a lock of its own. A replica without a keeper has a nil keeperWatch.
type keeperWatch struct {
	socket  string
	refresh time.Duration // T_k
	started time.Time     // when the replica was
	asking  sync.WaitGroup

	mu     sync.Mutex
	last   KeeperStatus
	at     time.Time // when it answered last; zero: it has not
	silent string
}

const (
	// askKeeperEvery is how often a replica asks its keeper for its status.
	askKeeperEvery = 5 * time.Second
	// recoveryAllowance is T_r in the bound of T_v: how long a recovery may take.
	recoveryAllowance = time.Minute
)

func newKeeperWatch(cfg *ReplicaConfig, started time.Time) *keeperWatch {
	if cfg.Keeper == "" {
		return nil
	}
	return &keeperWatch{socket: cfg.Keeper, refresh: keyPeriod(cfg.KeyPeriod), started: started}
}

// start begins to ask, again and again until stop is closed.
func (x *keeperWatch) start(stop <-chan struct{}) {
	if x != nil {
		x.asking.Go(func() { x.run(stop) })
	}
}

// wait returns when the goroutine that asks has ended.
func (x *keeperWatch) wait() {
	if x != nil {
		x.asking.Wait()
	}
}

func (x *keeperWatch) run(stop <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-stop
		cancel()
	}()
	tick := time.NewTicker(askKeeperEvery)
	defer tick.Stop()
	for {
		b, err := signing.AskStatus(ctx, x.socket)
		var s KeeperStatus
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		x.note(s, err)
		select {
		case <-stop:
			return
		case <-tick.C:
		}
	}
}

func (x *keeperWatch) note(s KeeperStatus, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if err != nil {
		x.silent = fmt.Sprintf("%.200s", err)
		return
	}
	x.last, x.at, x.silent = s, time.Now(), ""
}

// seen is the keeper as status shows it, nil if there is none.
func (x *keeperWatch) seen() *SeenKeeper {
	if x == nil {
		return nil
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	s := &SeenKeeper{KeeperStatus: x.last, Silent: x.silent, Answered: Seconds(time.Since(x.started))}
	if x.at.IsZero() {
		return s
	}
	s.Answered = Seconds(time.Since(x.at))
	if x.last.Started.IsZero() { // its watchdog has not begun
		return s
	}
	since := x.last.Started
	if !x.last.Last.IsZero() {
		since = x.last.Last
	}
	refresh := 2 * x.refresh
	s.Window = Seconds(time.Since(since) + refresh)
	if x.last.Period > 0 {
		s.Bound = Seconds(x.last.Period.Duration() + refresh + recoveryAllowance)
	}
	return s
}
