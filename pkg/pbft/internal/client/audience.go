// SPDX-License-Identifier: Apache-2.0

package client

import (
	"math/bits"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// maxBehind is how many bytes may wait on a connection when a long operation is sent to every
// replica. Behind more bytes the operation would come later than the proposal that names it. So a
// client whose own wire is full leaves it to the primary to send operations on.
const maxBehind = 1 << 20

// lateFor is how long a replica that has not answered in time is not relied on.
const lateFor = time.Second

// showEvery is how often, on average, the backups are shown a short request.
const showEvery = 100 * time.Millisecond

// An audience decides which replicas are asked, by what the client has seen of each.
type audience struct {
	cfg   *Config
	edge  Edge
	view  message.View
	turn  int    // the replica that was last to return a long result
	fresh uint32 // bit i: replica i was in the quorum that gave the last ordered result, or the first read
	older uint32 // bit i: the same of the ordered result before it; 0: there was none
	mute  uint32 // bit i: replica i left us waiting for a result or a proof, and has not been heard of since
	late  []Time // by replica: until then it is not relied on, for it did not answer in time
	wary  Time   // until then all replicas prove long results: the named replicas did not agree
	show  Time   // from then on a short request is shown to the backups
}

func (a *audience) init(cfg *Config, edge Edge) {
	a.cfg, a.edge, a.turn, a.wary = cfg, edge, int(cfg.Turn), never
	a.late = make([]Time, cfg.Replicas)
	for i := range a.late {
		a.late[i] = never
	}
}

func (a *audience) everybody() uint32 { return 1<<a.cfg.Replicas - 1 }

func (a *audience) size() message.GroupSize { return message.GroupSize(a.cfg.Replicas) }

// quorum reports whether a set is a quorum.
func (a *audience) quorum(set uint32) bool { return bits.OnesCount32(set) >= a.size().Quorum() }

// weak reports whether one of a set is correct.
func (a *audience) weak(set uint32) bool { return bits.OnesCount32(set) >= a.size().Weak() }

func (a *audience) primary() message.ReplicaID { return a.view.Primary(a.cfg.Replicas) }

// of is the set of replicas that a request goes to. A read needs a quorum of answers that
// are alike, and the replicas that gave the last ordered result have executed all that
// this client knows of: the others are asked only if these do not agree.
func (a *audience) of(now Time, readOnly, again bool) uint32 {
	switch {
	case again:
		return a.everybody()
	case !readOnly:
		return 1 << a.primary()
	case a.fresh == 0:
		return a.everybody()
	}
	for i := range message.ReplicaID(a.cfg.Replicas) {
		if a.fresh&(1<<i) != 0 && (now < a.late[i] || !a.edge.Open(i)) {
			return a.everybody()
		}
	}
	return a.fresh
}

// reaches reports whether a replica of a set can be spoken to.
func (a *audience) reaches(set uint32) bool {
	for i := range message.ReplicaID(a.cfg.Replicas) {
		if set&(1<<i) != 0 && a.edge.Open(i) {
			return true
		}
	}
	return false
}

// separate reports whether a first try goes to every replica, though only the primary orders it.
// Backups do not pass it on, so the primary must be one that can be spoken to.
func (a *audience) separate(k *call) bool {
	return k.request.Length() > a.cfg.Separate && a.separates(k)
}

func (a *audience) separates(k *call) bool {
	if a.cfg.Separate == 0 || k.request.ReadOnly || !a.edge.Open(a.primary()) {
		return false
	}
	for i := range message.ReplicaID(a.cfg.Replicas) {
		if a.edge.Queued(i) > maxBehind {
			return false
		}
	}
	return true
}

// shows reports whether the backups are shown a short request, though it goes to the primary as any
// other: it is one by which they judge how fast the primary is. Which ones are shown is chance.
func (a *audience) shows(now Time, k *call) bool {
	if now < a.show || k.request.Length() > a.cfg.Separate || !a.separates(k) {
		return false
	}
	a.show = now + showEvery/2 + Time(a.edge.Chance(int64(showEvery)))
	return true
}

// replier picks the replica that returns the full result: in turn, but not one that left us waiting
// [TOCS §6.1]. The next f replicas prove the result of an ordered request. All replicas prove it if
// there are fewer than f, or if f were not enough lately.
func (a *audience) replier(now Time, again, readOnly bool, asked uint32) (who message.ReplicaID, provers uint32) {
	if again {
		return message.AnyReplier, 0
	}
	from := asked
	if !readOnly {
		from = a.first(now)
	}
	first, ok := a.next(now, a.turn, from)
	if !ok {
		return message.AnyReplier, 0
	}
	a.turn = first
	if now < a.wary {
		return message.ReplicaID(first), a.everybody()
	}
	for i := first; bits.OnesCount32(provers) < a.size().Faulty(); {
		i, ok = a.next(now, i, from)
		if !ok || i == first || provers&(1<<i) != 0 { // a connection may end meanwhile
			return message.ReplicaID(first), a.everybody()
		}
		provers |= 1 << i
	}
	return message.ReplicaID(first), provers
}

// first is the set of replicas that execute requests first: those that gave both of the
// last two ordered results, if f+1 of them can be named. A replica that the others spare
// follows at intervals (package pbft). It may come just in time for one result, and the
// next one would wait for it until it is written to again.
func (a *audience) first(now Time) uint32 {
	switch both := a.fresh & a.older; {
	case bits.OnesCount32(both&^a.lax(now)) >= a.size().Weak():
		return both
	case a.fresh != 0:
		return a.fresh
	}
	return a.everybody()
}

// next is the replica of a set that follows replica i, has not left us waiting, and can
// be spoken to.
func (a *audience) next(now Time, i int, from uint32) (int, bool) {
	from &^= a.lax(now)
	for range a.cfg.Replicas {
		if i = (i + 1) % a.cfg.Replicas; from&(1<<i) != 0 && a.edge.Open(message.ReplicaID(i)) {
			return i, true
		}
	}
	return i, false
}

// lax is the set of replicas that are not relied on now.
func (a *audience) lax(now Time) uint32 {
	set := a.mute
	for i, until := range a.late {
		if now < until {
			set |= 1 << i
		}
	}
	return set
}

// heard notes that a replica has replied to something.
func (a *audience) heard(i message.ReplicaID) { a.mute &^= 1 << i }

// answered learns view and audience from a believed answer.
func (a *audience) answered(readOnly bool, x *Finding) {
	a.view = max(a.view, x.View)
	if !readOnly {
		a.older, a.fresh = a.fresh, x.By
	} else if a.fresh == 0 {
		a.fresh = x.By
	}
}

// named is the set of replicas that a request names to return or prove its result; empty
// if all return it.
func named(q *message.Request) uint32 {
	if q.Replier == message.AnyReplier {
		return 0
	}
	return 1<<q.Replier | q.Provers
}

// owing reports whether a replica that a call names for its result has not answered it,
// and can.
func (a *audience) owing(k *call) bool { return a.reaches(named(&k.request) &^ k.tally.Heard()) }

// missed notes the replicas that have left a call waiting until it must be sent to more,
// or again. A replica that owes a result on which the others agree is not relied on for a
// while, even if it answers other calls.
func (a *audience) missed(now Time, k *call) {
	missing := a.everybody() &^ k.tally.Heard()
	owing, late := named(&k.request)&missing, uint32(0)
	switch {
	case k.request.ReadOnly:
		late = k.asked & missing
	case k.agreed != never:
		late, a.wary = owing, now+lateFor
	}
	a.mute |= owing
	for i := range a.late {
		if late&(1<<i) != 0 {
			a.late[i] = now + lateFor
		}
	}
}

// slow reports whether all replicas of a set are known to be slow, or cannot be spoken to.
func (a *audience) slow(now Time, set uint32) bool {
	for i := range message.ReplicaID(a.cfg.Replicas) {
		if set&(1<<i) != 0 && now >= a.late[i] && a.edge.Open(i) {
			return false
		}
	}
	return true
}
