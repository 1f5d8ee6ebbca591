package pbft

import "context"

// A Replica is one member of a group.
type Replica struct{}

// StartReplica starts a replica; it runs until Close, or until it stops itself because of its own disk or
// its own bug (see Done).
func StartReplica(cfg ReplicaConfig) (*Replica, error) { return nil, nil }

// Done is closed when the replica has stopped; Err then says why, nil after Close.
func (r *Replica) Done() <-chan struct{} { return nil }

// Err is the reason of a stop.
func (r *Replica) Err() error { return nil }

// Close stops the replica and waits for it, until ctx is done.
func (r *Replica) Close(ctx context.Context) error { return nil }

// Status returns the replica's account of itself.
func (r *Replica) Status() Status { return Status{} }

// StartUnreplicated serves the same clients and the same service from one process, without ordering: the
// baseline that the paper calls NO-REP [TOCS §8.1.1]. cfg.Group must have one member.
func StartUnreplicated(cfg ReplicaConfig) (*Replica, error) { return nil, nil }
