package pbft

import "bfs/pkg/pbft/internal/message"

// sparing has f replicas follow the others at some distance. What is ordered needs 2f+1, and these are enough while they are
// quick: so what the three phases say to the last f in line for primary is not written at once, but once a tick, all of
// it together. It costs them and us a fraction of the system calls and wake-ups, and nobody waits for them. It is a matter of
// time alone: everything is said to everyone, in order, and a rule that counts votes counts the same.
//
// When batches take a whole tick each, or stay where they are, somebody among the 2f+1 is not quick. Then nobody is spared for
// a while, which is longer the more often it happens.
type sparing struct {
	off    bool
	brisk  int    // ticks for which nobody is spared
	length int    // of the last such period
	calm   int    // ticks since
	under  bool   // something was under way at the last tick
	done   SeqNum // and so much was executed
	queued bool   // something waits for the tick
}

const (
	briskTicks    = 100
	maxBriskTicks = 64 * briskTicks
	spareBytes    = 64 << 10 // queued for a spared replica at most before it is written
)

// spares reports whether a message to replica i may wait for the tick.
func (r *Replica) spares(i ReplicaID, m message.Message) bool {
	if r.sparing.off || r.sparing.brisk > 0 {
		return false
	}
	switch m.(type) {
	case *message.PrePrepare, *message.Prepare, *message.Commit, *message.Checkpoint:
	default:
		return false
	}
	view, active := r.core.View()
	n := r.group.N()
	return active && (int(i)-int(view.Primary(n))+n)%n >= r.group.Quorum()
}

// pace decides once a tick who may be spared, and returns the connections on which something waits.
func (r *Replica) pace(space []flusher) []flusher {
	s := &r.sparing
	// With no more than one batch from tick to tick it may be the tick that each is waiting for.
	under, done := r.core.UnderWay() > 0, r.core.LastExecuted()
	slow := under && s.under && done <= s.done+1
	s.under, s.done, s.queued = under, done, false
	up := 1 // replicas there is a way to, we among them
	for _, p := range r.peers {
		if p == nil {
			continue
		}
		if c := p.link.Conn(); c != nil {
			up++
			if c.Queued() > 0 {
				space = append(space, c)
			}
		}
	}
	switch {
	case slow || up < r.group.N():
		if s.brisk == 0 {
			if s.calm > 10*s.length {
				s.length = 0
			}
			s.length = min(max(2*s.length, briskTicks), maxBriskTicks)
		}
		s.brisk, s.calm = s.length, 0
	case s.brisk > 0:
		s.brisk--
	default:
		s.calm = min(s.calm+1, 1<<30)
	}
	return space
}
