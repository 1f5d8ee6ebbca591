// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"time"

	"bfs/pkg/pbft/internal/message"
)

// newKeys is the goroutine that sends a replica's NEW-KEYs, except those that answer
// another's. It has no state beside the Replica's.
//
// Each NEW-KEY waits for the signer, and a keeper that hangs answers none. So they are
// made on this goroutine, and not on the one that gives the core its ticks.
type newKeys struct{ r *Replica }

// askKeyPeriod is how often a session key that is still missing is asked for.
const askKeyPeriod = time.Second

// run refreshes the keys each period until the replica stops, and asks for those that are
// missing. The replicas of a group that was started at once refresh one after the other,
// so that a quorum still has the votes that one of them asks for again.
func (x newKeys) run() {
	r := x.r
	renewal := &r.end.Renewal
	defer close(renewal.Over)
	period := keyPeriod(r.cfg.KeyPeriod)
	timer := time.NewTimer(period * time.Duration(r.cfg.Self+1) / time.Duration(r.group.N()))
	defer timer.Stop()
	ask := time.NewTicker(askKeyPeriod)
	defer ask.Stop()
	last := progress{at: time.Now()}
	for {
		select {
		case <-r.ending.stop:
			return
		case <-ask.C:
			r.peers.askForKeys(r.end)
		case <-timer.C:
			timer.Reset(period)
			r.enter()
			if x.waitsSince(&last) {
				timer.Reset(period / 4)
			} else {
				r.refreshKeys()
			}
			r.leave()
		case <-renewal.Tell:
			x.announce()
		case <-renewal.Single.Tell:
			r.peers.announceTo(renewal.Single.Due(), r.end)
			x.sayStatus()
		}
	}
}

// A progress is how much a replica had executed when it refreshed its keys.
type progress struct {
	at       time.Time
	executed uint64
}

// waitsSince reports whether operations wait and none was executed since the last refresh,
// and notes that there is one now if not. A refresh loses what is under way. On a host
// where a round of messages takes longer than the period, one refresh after the other
// would lose everything. The caller holds the lock.
func (x newKeys) waitsSince(last *progress) bool {
	r := x.r
	stuck := r.core != nil && !r.core.Idle() && r.measured.executed == last.executed
	if stuck && time.Since(last.at) < longestPostponed {
		return true
	}
	*last = progress{time.Now(), r.measured.executed}
	return false
}

// announce sends a NEW-KEY to everyone to whom there is a way: replicas first, and then
// the enrolled clients. A connection that is just coming up begins with a NEW-KEY that is
// made later than these. Other principals get one when they say something.
func (x newKeys) announce() {
	r := x.r
	r.peers.announceTo(1<<message.MaxReplicas-1, r.end)
	x.sayStatus()
	for _, end := range r.clients.all() {
		if conn := end.connection(); conn != nil {
			r.end.SendKey(conn, end.session, "")
		}
	}
}

// sayStatus tells the others what we lack.
func (x newKeys) sayStatus() {
	r := x.r
	if r.core == nil {
		return
	}
	r.enter()
	if !r.disk.aside() {
		r.core.SayStatus()
	}
	r.leave()
}
