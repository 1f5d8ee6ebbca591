// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"time"

	"bfs/pkg/pbft/internal/lies"
)

// How much an offender says: this many messages under one taking of the lock, and no more while
// this many bytes wait for each peer, so that what it must say as a replica has room.
const (
	floodEvery = time.Millisecond
	floodCount = 64
	floodBytes = 256 << 10
)

// flood says to the other replicas what an offender makes up, as fast as they take it.
func (r *Replica) flood() {
	ticker := time.NewTicker(floodEvery)
	defer ticker.Stop()
	for said := uint64(0); ; {
		select {
		case <-r.ending.stop:
			return
		case <-ticker.C:
			r.later(func() { said = r.floodFrom(said) })
		}
	}
}

// floodFrom says the next messages, and returns how many it has said.
func (r *Replica) floodFrom(said uint64) uint64 {
	view, _ := r.core.View()
	at := lies.Standing{Self: r.cfg.Self, View: view, Executed: r.core.LastExecuted(), Stable: r.core.Stable(),
		Window: int(r.group.Limits.LogSize)}
	for end := said + floodCount; said < end; said++ {
		// A message that no peer has room for is not made: making it would take processor time
		// from the other replicas of this machine.
		var open []ReplicaID
		for i, p := range r.peers {
			if p == nil {
				continue
			}
			if c := p.link.Conn(); c != nil && c.Queued() < floodBytes {
				open = append(open, ReplicaID(i))
			}
		}
		if len(open) == 0 {
			return said
		}
		m := r.out.liar.Flood(at, said)
		if m == nil {
			return said
		}
		for _, i := range open {
			r.out.send(i, m)
		}
	}
	return said
}
