// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"

	"bfs/pkg/pbft/internal/message"
)

// StartUnreplicated serves the same clients and the same service from one process, without ordering: the
// baseline that the paper calls NO-REP [TOCS §8.1.1]. cfg.Group must have one member.
func StartUnreplicated(cfg ReplicaConfig) (*Replica, error) {
	if cfg.Group != nil && cfg.Group.N() != 1 {
		return nil, fmt.Errorf("unreplicated: the group has %d replicas, want 1", cfg.Group.N())
	}
	r, err := newReplica(cfg)
	if err != nil {
		return nil, err
	}
	return r, r.start()
}

// serveAlone executes a request as it comes.
func (r *Replica) serveAlone(q *message.Request) {
	if q.ReadOnly {
		r.queries++
		r.answer(q, r.exec.Query(q), r.ground())
		return
	}
	r.seq++
	r.executed++
	r.exec.Begin(r.seq)
	a, _ := r.exec.Execute(q, r.choose(r.seq))
	r.answer(q, a, r.ground())
}
