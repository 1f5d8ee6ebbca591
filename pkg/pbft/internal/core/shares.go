// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// shares bound what we serve to each replica: a number of answers in a tick, and a credit of pages
// that comes back slowly. A restarted replica fetches a third or a half of the state from each of
// us, so its credit is twice the state. Without the credit a replica that fetches for ever would
// cost each of us a good part of a core.
type shares struct {
	credit int  // pages that we serve each replica at full speed
	busy   bool // clients are served
	of     []share
}

// A share is what one replica has used.
type share struct {
	served int // answers in the present tick
	spent  int // pages of its credit
}

const (
	servesPerTick = 64 // FETCHes of one replica answered in a tick, or batches of no more bytes
	busyServes    = 12 // the same while clients are served
	busyFetches   = 12 // the FETCHes of one replica that all others together answer then: 300 MB/s
	leastCredit   = 1 << 18
	creditTicks   = 30000 // in which all of a replica's credit comes back
	fetchBytes    = message.MaxFetch * 4096
)

func newShares(replicas int) shares { return shares{credit: leastCredit, of: make([]share, replicas)} }

// tick begins a new tick, and gives each replica back some of its credit.
func (x *shares) tick(busy bool) {
	x.busy = busy
	for i := range x.of {
		s := &x.of[i]
		s.served = 0
		s.spent = max(0, s.spent-max(1, x.credit/creditTicks))
	}
}

// mayFetch reports whether we serve replica i one more FETCH, of about this many pages or nodes.
// All others serve it, too, so the part of each is the smaller the larger the group is.
func (x *shares) mayFetch(i message.ReplicaID, pages int) bool {
	return x.may(i, pages, max(1, busyFetches/(len(x.of)-1)))
}

// mayHave reports whether we serve replica i one more batch.
func (x *shares) mayHave(i message.ReplicaID) bool { return x.may(i, 1, busyServes) }

// may reports whether we serve replica i one more request, of about this many pages or nodes. It
// has a share of each tick, which is busy while clients are served, and a credit; beyond its credit
// one request a tick.
func (x *shares) may(i message.ReplicaID, pages, busy int) bool {
	s := &x.of[i]
	s.served++
	most := servesPerTick
	if x.busy {
		most = busy
	}
	switch {
	case s.served > most, s.spent >= x.credit && s.served > 1:
		return false
	case s.spent < x.credit:
		s.spent += pages
	}
	return true
}

// took charges replica i for the length of a batch that it was served, beside what may has charged.
func (x *shares) took(i message.ReplicaID, bytes int) {
	s := &x.of[i]
	s.served += serveCost(bytes) - 1
	if s.spent < x.credit {
		s.spent += bytes / 4096
	}
}

// serveCost is what a batch of this length uses of a replica's share of a tick.
func serveCost(bytes int) int { return 1 + bytes/fetchBytes }

// shunned has, by replica, the tick before which we ask it for neither state nor batches:
// it was silent, or lied.
type shunned []int
