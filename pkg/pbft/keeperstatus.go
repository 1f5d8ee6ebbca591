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

// KeeperStatus is what a keeper tells its replica, which tells it to operators. Nobody signs it. So it is as true as the replica is: an
// intruder in that can tell anything of its keeper. What the group knows is in the others' PeerStatus: a recovery request bears the
// signature of the long-term key, and each replica notes when it executed one.
type KeeperStatus struct {
	Started  time.Time `json:"started"`
	Period   Seconds   `json:"recovery_period_seconds"` // T_w; 0: it recovers its replica when it is told to only
	Next     time.Time `json:"next_recovery,omitzero"`
	Last     time.Time `json:"last_recovery,omitzero"` // when it began the last; zero: none since Started
	GivenUp  int       `json:"turns_given_up"`         // in a row
	Counter  uint64    `json:"counter"`                // of signatures
	Serial   uint64    `json:"manifest_serial"`        // 0: any executable may run
	Manifest time.Time `json:"manifest_time,omitzero"` // of the file
	Checked  time.Time `json:"program_checked"`        // when the executable was last compared with the manifest, or opened without one
	Problem  string    `json:"program_problem,omitempty"`
}

// maxProblem bounds KeeperStatus.Problem, so that the whole fits an answer of the keeper.
const maxProblem = 200

// status is the keeper's account of itself for the socket.
func (k *Keeper) status(watchdog func() KeeperStatus) []byte {
	var s KeeperStatus
	if watchdog != nil {
		s = watchdog()
	}
	s.Problem = s.Problem[:min(len(s.Problem), maxProblem)]
	s.Counter = k.key.Counter()
	k.mu.Lock()
	s.Serial = k.memory.serial.Value()
	k.mu.Unlock()
	b, err := json.Marshal(s)
	if err != nil {
		return nil
	}
	return b
}

// SeenKeeper is a replica's keeper as the replica sees it.
type SeenKeeper struct {
	KeeperStatus
	Answered Seconds `json:"answered_ago_seconds"` // since it answered last, or since the replica was started
	Silent   string  `json:"silent,omitempty"`     // why it did not answer when it was asked last
	Window   Seconds `json:"window_seconds"`       // T_v as it is now: 2 T_k, and the time since the last recovery began
	Bound    Seconds `json:"window_bound_seconds"` // T_v as it may be: 2 T_k + T_w + recoveryAllowance; 0: nothing bounds it
}

// keeperAnswers are a keeper's answers, for Status. The zero value has none.
type keeperAnswers struct {
	mu     sync.Mutex
	last   KeeperStatus
	at     time.Time
	silent string
	asking sync.WaitGroup
}

const (
	// askKeeperEvery is how often a replica asks its keeper how it is.
	askKeeperEvery = 5 * time.Second
	// recoveryAllowance is T_r in the bound of T_v: how long a recovery may take.
	recoveryAllowance = time.Minute
)

// watchKeeper asks the keeper again and again until the replica stops.
func (r *Replica) watchKeeper() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		<-r.stop
		cancel()
	}()
	tick := time.NewTicker(askKeeperEvery)
	defer tick.Stop()
	for {
		b, err := signing.AskStatus(ctx, r.cfg.Keeper)
		var s KeeperStatus
		if err == nil {
			err = json.Unmarshal(b, &s)
		}
		r.answers.note(s, err)
		select {
		case <-r.stop:
			return
		case <-tick.C:
		}
	}
}

func (a *keeperAnswers) note(s KeeperStatus, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil {
		a.silent = fmt.Sprintf("%.200s", err)
		return
	}
	a.last, a.at, a.silent = s, time.Now(), ""
}

// seenKeeper is the keeper as status shows it, nil if there is none.
func (r *Replica) seenKeeper() *SeenKeeper {
	if r.cfg.Keeper == "" {
		return nil
	}
	a := &r.answers
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &SeenKeeper{KeeperStatus: a.last, Silent: a.silent, Answered: Seconds(time.Since(r.started))}
	if a.at.IsZero() {
		return s
	}
	s.Answered = Seconds(time.Since(a.at))
	since := a.last.Started
	if !a.last.Last.IsZero() {
		since = a.last.Last
	}
	refresh := 2 * keyPeriod(r.cfg.KeyPeriod)
	s.Window = Seconds(time.Since(since) + refresh)
	if a.last.Period > 0 {
		s.Bound = Seconds(a.last.Period.Duration() + refresh + recoveryAllowance)
	}
	return s
}
