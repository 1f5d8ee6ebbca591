// SPDX-License-Identifier: Apache-2.0

// Package sparing decides which of a replica's messages wait for the next tick.
package sparing

import (
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
)

// Sparing delays messages to n-q replicas. To order a batch takes a quorum of q replicas,
// and these are enough while they are quick. The n-q replicas that are last in line for
// primary are spared: messages of the three phases to them are not written at once, but
// together with the next tick. That costs those replicas and us a fraction of the system
// calls and wake-ups. Nobody waits for a spared replica: for long results clients name
// replicas that came first twice (client.audience.first). Only the time of writing changes:
// every replica gets every message, in order, and every rule counts the same votes.
//
// A client that pauses between two calls has some tens of them ordered in a tick at most.
// Each write to the spared replica wakes it, and its votes wake the three others in turn.
// So the period is as long as a tick, and not shorter.
//
// A batch still unexecuted two ticks after its proposal means that one of the q may be
// slow or silent: then each batch waits for us to speak to the spared one. So does a vote of one
// of the q that is missing two ticks after the proposal: our batches go on with the spared one's
// vote, but the client may wait for that replica's reply, and that replica for our vote. After
// that no replica is spared for a while, which is the longer the more often it happens.
//
// It is under the replica's lock.
type Sparing struct {
	Off    bool       // no replica is spared
	Core   *core.Core // nil if unreplicated
	Group  message.GroupSize
	Queued bool // a message waits for the next tick

	brisk  int            // ticks for which no replica is spared
	settle int            // ticks for which waiting batches do not mean that a replica is slow
	length int            // of the last such period
	calm   int            // ticks since that period
	under  bool           // a batch was under way when the waiting messages were written last
	known  message.SeqNum // the highest number proposed by then

	earlier message.SeqNum // the same, of the time before
}

// Bytes may be queued for a spared replica; more is written at once.
const Bytes = 256 << 10

const (
	briskTicks    = 100
	maxBriskTicks = 64 * briskTicks
)

// Spares reports whether a message to replica i may wait.
func (s *Sparing) Spares(i message.ReplicaID, m message.Message) bool {
	if s.Off || s.brisk > 0 {
		return false
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		if !m.Batch.Complete() {
			return false // the next operations may come from their clients before it, in place of those that it names
		}
	case *message.Prepare, *message.Commit, *message.Checkpoint:
	default:
		return false
	}
	view, active := s.Core.View()
	n := int(s.Group)
	return active && (int(i)-int(view.Primary(n))+n)%n >= s.Group.Quorum()
}

// End begins to write the messages that have waited, and looks whether the others manage
// without the spared replicas. It returns false if none has waited.
func (s *Sparing) End() bool {
	if !s.Queued {
		return false
	}
	s.Queued = false
	view, _ := s.Core.View()
	voted, known := s.Core.Voted(s.earlier)
	lacking := known && s.lacks(view, voted)
	s.earlier = s.known
	if s.waited(s.Core.UnderWay() > 0, s.Core.LastExecuted(), s.Core.LastProposed()) || lacking {
		s.blame()
	}
	return true
}

// lacks reports whether a replica that is not spared, and is not the primary, has not voted.
func (s *Sparing) lacks(view message.View, voted uint32) bool {
	n := int(s.Group)
	for k := 1; k < s.Group.Quorum(); k++ {
		if i := (int(view.Primary(n)) + k) % n; voted&(1<<i) == 0 {
			return true
		}
	}
	return false
}

// blame spares no replica for a while, because batches wait: for long if a replica is slow, and for
// a moment if keys were refreshed.
func (s *Sparing) blame() {
	if s.settle > 0 {
		s.brisk, s.under = max(s.brisk, refreshTicks), false
		return
	}
	s.beBrisk()
}

// waited is called when the waiting messages are written. under says whether a batch is
// under way; executed and proposed are the last batches that we have executed and know
// of. It reports whether the group may have waited for these messages: nothing that was
// proposed by the last call is executed yet, though a batch was under way all the while.
func (s *Sparing) waited(under bool, executed, proposed message.SeqNum) bool {
	idle := under && s.under && executed <= s.known
	s.under, s.known = under, proposed
	return idle
}

// beBrisk spares no replica for a while.
func (s *Sparing) beBrisk() {
	if s.brisk == 0 {
		if s.calm > 10*s.length {
			s.length = 0
		}
		s.length = min(max(2*s.length, briskTicks), maxBriskTicks)
	}
	s.brisk, s.calm = s.length, 0
}

const (
	// refreshTicks is for how many ticks no replica is spared when keys are refreshed.
	refreshTicks = 3
	// settleTicks is how long afterwards batches may wait for requests that clients have
	// authenticated anew.
	settleTicks = 10
)

// Refreshed notes that a replica has refreshed its keys. Messages under way to it are
// lost and come again. The others manage without that replica sooner if none is spared
// meanwhile; that they waited does not mean that a replica is slow. If it counted as slow at each
// refresh, a short key period would end sparing for good.
func (s *Sparing) Refreshed() {
	s.brisk, s.settle, s.under = max(s.brisk, refreshTicks), settleTicks, false
}

// Tick counts a tick. allUp: there is a connection to each other replica; without one no
// replica is spared.
func (s *Sparing) Tick(allUp bool) {
	s.settle = max(s.settle-1, 0)
	if s.brisk > 0 {
		s.brisk--
	} else {
		s.calm = min(s.calm+1, 1<<30)
	}
	if !allUp {
		s.beBrisk()
	}
}
