// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// The operations of all clients that wait share one room, or the memory of a replica would grow
// with its clients. A client may have no more of it than is left for the others. So a client that
// fills what it can leaves half, two leave a third, and a client that comes later has as much. What
// does not fit is refused; its client sends it again, and executed operations make room.
//
// Room must not depend on others alone. Clients can bring requests that are authentic at a few
// replicas only, which nobody executes; and a faulty primary can leave requests unproposed, for
// which the others' timers run only if a quorum holds the same one. So each client has a place for
// one operation of any length, whatever the others have, and the request in the lowest of its
// slots is the one that has it. It displaces what the client has in later slots. A quorum then
// comes to hold the same request, as the client sends all that wait again and again.
type waitingRoom struct {
	size  int // bytes of operations of all clients, beside one operation of each
	bytes int // of the operations that are here
}

// fits reports whether a client may have n more bytes here when what it has of freed bytes has
// gone.
func (x *waitingRoom) fits(l *line, n, freed int) bool {
	own := l.bytes - freed
	return own == 0 || n <= freed || own+n <= x.size-(x.bytes-freed+n)
}

// makeFor reports whether a request has room when one of freed bytes in its slot has gone. If it is
// in the lowest slot that its client has a request in, as much gives way to it as is needed of what
// is laid by of that client, and then of its requests in the highest slots.
func (x *waitingRoom) makeFor(l *line, r *message.Request, freed int, remove func(*line, *message.Request)) bool {
	had := l.bytes
	fits := func() bool { return x.fits(l, r.Length(), freed) || l.bytes-freed+r.Length() <= had }
	if fits() {
		return true
	}
	for _, p := range l.pending[:r.Slot] {
		if p != nil {
			return false
		}
	}
	for s := len(l.laidBy) - 1; s >= 0 && !fits(); s-- {
		if l.laidBy[s] != nil {
			x.dropLaidBy(l, message.Slot(s))
		}
	}
	for s := len(l.pending) - 1; s > int(r.Slot) && !fits(); s-- {
		if p := l.pending[s]; p != nil {
			remove(l, p)
		}
	}
	return true
}

func (x *waitingRoom) dropLaidBy(l *line, s message.Slot) {
	x.weigh(l, -l.laidBy[s].Length())
	l.laidBy[s] = nil
}

// weigh adds n bytes to what a client has here.
func (x *waitingRoom) weigh(l *line, n int) {
	l.bytes += n
	x.bytes += n
}
