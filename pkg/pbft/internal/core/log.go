// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"
	"math/bits"

	"bfs/pkg/pbft/internal/message"
)

// messageLog holds one slot for each sequence number in (low, high]. Invariant: low is the stable
// checkpoint's number and high == low+len(slots), or the bound of a recovery if that is lower,
// which bounds our memory against a primary that numbers wildly [TOCS §4.4].
type messageLog struct {
	low, high message.SeqNum
	slots     []slot // ring; slot(seq) panics outside the marks, callers judge first
	bytes     int    // of the operations in all proposals
	past      past
	pq        pq             // of the views before
	bound     message.SeqNum // high does not pass it before our state is the group's at or above until; see recovery.go
	until     message.SeqNum
	lastExec  message.SeqNum // committed and executed, in order, up to here; a fetched state may be above high
	progress  int            // tick at which lastExec rose last
	numbered  message.SeqNum // the last number that we assigned; at a backup, the last for which it accepted a proposal

	// No slot above proposedTo has a PREPARE or a proposal, held or accepted. No slot above
	// decidedTo has a batch that was chosen or decided, or asked for because of that. Both only
	// rise, so a tick need not look at the whole log.
	proposedTo, decidedTo message.SeqNum
}

func (l *messageLog) init(size message.SeqNum, replicas int) {
	l.high, l.bound, l.pq = size, unbounded, newPQ()
	l.past.entries = make([]pastBatch, size)
	l.slots = make([]slot, size)
	for i := range l.slots {
		s := &l.slots[i]
		s.prepares, s.commits, s.decided = newVotes(replicas), newVotes(replicas), newVotes(replicas)
	}
	for n := l.low + 1; n <= l.high; n++ {
		l.slots[uint64(n)%uint64(len(l.slots))].seq = n
	}
}

// unbounded is the bound of a log that has none.
const unbounded = math.MaxUint64

// confine keeps the window at or below a number before a checkpoint at or above until is
// stable or fetched, and forgets what P and Q have above that.
func (l *messageLog) confine(bound, until message.SeqNum) {
	l.bound, l.until = bound, until
	l.place()
	// No correct replica has prepared above its window, or chosen above the next: an intruder left
	// that.
	size := message.SeqNum(len(l.slots))
	l.pq.confine(min(until, l.low+size), min(until, l.low+2*size))
}

// release ends that if it may end: checkpoint n is becoming stable, or its state was fetched.
func (l *messageLog) release(n message.SeqNum) {
	if l.bound != unbounded && n >= l.until {
		l.bound = unbounded
		l.place()
	}
}

// place sets the high water mark by the low one, and readies the slots that are in the window now.
func (l *messageLog) place() {
	l.high = max(l.low, min(l.low+message.SeqNum(len(l.slots)), l.bound))
	for n := l.low + 1; n <= l.high; n++ {
		if s := l.slot(n); s.seq != n { // a jump over more than the window
			s.reset(n)
		}
	}
}

func (l *messageLog) contains(n message.SeqNum) bool { return l.low < n && n <= l.high }

// next is the first number between the marks that is not executed.
func (l *messageLog) next() message.SeqNum { return max(l.lastExec, l.low) + 1 }

func (l *messageLog) slot(n message.SeqNum) *slot {
	invariant(l.contains(n), "a slot outside the water marks")
	return &l.slots[uint64(n)%uint64(len(l.slots))]
}

// underWay counts the batches that are proposed and not executed, those of requests and null
// batches, below the first number that the primary has left out.
func (l *messageLog) underWay() (requests, nulls message.SeqNum) {
	for n := l.next(); n <= min(l.numbered, l.high) && l.slot(n).isProposed(); n++ {
		if p := l.slot(n).proposal; p != nil && p.Digest == message.NullDigest {
			nulls++
		} else {
			requests++
		}
	}
	return requests, nulls
}

// isFull reports whether as many batches are under way as a window has room for. Null batches do
// not count: they keep no requests from gathering, and nobody waits for them.
func (l *messageLog) isFull(window message.SeqNum) bool {
	if l.numbered < l.lastExec+window {
		return false
	}
	requests, _ := l.underWay()
	return requests >= window
}

// slide moves the low water mark up, and P and Q with it (R-VC-3). It forgets all at or
// below it except the decisions that past has room for.
func (l *messageLog) slide(low message.SeqNum) {
	size := message.SeqNum(len(l.slots))
	for n := l.low + 1; n <= min(low, l.high); n++ {
		s := l.slot(n)
		l.bytes -= s.size
		if s.isCommitted {
			l.past.add(n, pastBatch{s.decision, s.batch, s.batchBytes()})
		}
		s.reset(n + size)
	}
	l.past.fit(pastBytes)
	l.pq.slide(low)
	l.low = low
	l.place()
}

// clear forgets every proposal and vote, because their view is over. Committed and decided batches
// stay: the replicas that missed them may be too few to agree on them again.
func (l *messageLog) clear() {
	for i := range l.slots {
		s := &l.slots[i]
		committed, decision, batch, decided := s.isCommitted, s.decision, s.batch, s.decided.have
		s.reset(s.seq)
		s.isCommitted, s.decision, s.batch, s.decided.have = committed, decision, batch, decided
	}
	l.bytes = 0
}

// hold keeps p, which may become the slot's proposal. Its bytes count in the log as if it
// were accepted, or a primary could fill our memory with proposals that nobody can
// authenticate. All operations together stay within limit.
func (l *messageLog) hold(s *slot, p *message.PrePrepare, limit int) {
	l.proposedTo = max(l.proposedTo, s.seq)
	l.bytes += p.Batch.Bytes() - s.size
	s.held, s.size = p, p.Batch.Bytes()
	l.past.fit(min(pastBytes, limit-l.bytes))
}

// unhold drops the proposal that the slot holds.
func (l *messageLog) unhold(s *slot) {
	l.bytes -= s.size
	s.held, s.size = nil, 0
}

// find is a batch that the log has, by its digest; nil if it has none.
func (l *messageLog) find(d message.Digest) *message.Batch {
	if old := l.past.find(d); old != nil {
		return old
	}
	for n := l.low + 1; n <= l.high+message.SeqNum(len(l.slots)); n++ {
		if l.contains(n) {
			if here := l.slot(n).find(d); here != nil {
				return here
			}
		}
		if here := l.pq.find(n, d); here != nil {
			return here
		}
	}
	return nil
}

// carry updates P and Q with what was proposed in view v, which we are leaving. Voted
// reports which of it we pre-prepared.
func (l *messageLog) carry(v message.View, voted func(*slot) bool) {
	for n := l.low + 1; n <= l.high; n++ {
		if s := l.slot(n); s.proposal != nil {
			l.pq.carry(carried{message.Prepared{Seq: n, Digest: s.proposal.Digest, View: v}, &s.proposal.Batch},
				s.isPrepared, voted(s))
		}
	}
}

// tuples are P and Q as a VIEW-CHANGE has them.
func (l *messageLog) tuples() (p, q []message.Prepared) {
	return l.pq.tuples(l.low, min(l.low+2*message.SeqNum(len(l.slots)), l.bound))
}

// witness keeps in Q that we pre-prepared a batch.
func (l *messageLog) witness(p message.Prepared, b *message.Batch) { l.pq.witness(carried{p, b}) }

// otherwise reports whether we voted in view v, before we entered it anew, for another
// batch than d as number n.
func (l *messageLog) otherwise(n message.SeqNum, v message.View, d message.Digest) bool {
	return l.pq.otherwise(n, v, d)
}

// restore sets P and Q to what a VIEW-CHANGE says.
func (l *messageLog) restore(m *message.ViewChange, bodies map[message.Digest]*message.Batch) {
	l.pq.restore(m, l.low, bodies)
}

// lastPrepared is the highest number that has prepared here, 0 if none has.
func (l *messageLog) lastPrepared() message.SeqNum {
	last := l.pq.last()
	for n := max(last, l.low) + 1; n <= l.high; n++ {
		if l.slot(n).isPrepared {
			last = n
		}
	}
	return last
}

// eachPast calls f for the kept decisions above low, up to high.
func (l *messageLog) eachPast(low, high message.SeqNum, f func(n message.SeqNum, d message.Digest)) {
	for n := max(low, l.past.low) + 1; n <= min(l.past.high, high); n++ {
		f(n, l.past.entry(n).digest)
	}
}

// dropPast forgets the batches at and below the low water mark.
func (l *messageLog) dropPast() { l.past.drop(l.past.high) }

// kept is the length of all operations that the log has, of present and past batches.
func (l *messageLog) kept() int { return l.bytes + l.past.bytes }

// carriedSizes counts what P and Q have: entries of P, numbers in Q, and the most digests
// for one of them.
func (l *messageLog) carriedSizes() (prepared, preprepared, digests int) {
	for _, q := range l.pq.preprepared {
		digests = max(digests, len(q))
	}
	return len(l.pq.prepared), len(l.pq.preprepared), digests
}

// overlooked counts the slots that a scan bounded by the marks would miss.
func (l *messageLog) overlooked(asked func(message.SeqNum) bool) (n int) {
	for i := range l.slots {
		s := &l.slots[i]
		if s.seq > l.proposedTo && (s.proposal != nil || s.held != nil || s.prepares.have != 0) ||
			s.seq > l.decidedTo && (!s.chosen.IsZero() || s.decided.have != 0 || asked(s.seq)) {
			n++
		}
	}
	return n
}

// forgetVotes forgets these replicas' statements about a number: PREPAREs if it has not prepared,
// COMMITs if it has not committed, DECIDEDs if it was not decided. A proposal that we have voted
// for stays, because a later view must find it in Q; but the primary has to make it again before it
// prepares here. (In disk mode the PREPAREs are a quorum, whoever proposed.)
func (l *messageLog) forgetVotes(b *base, s *slot, these replicas) {
	primary := these.has(b.primary())
	if primary && s.proposal == nil && s.held != nil {
		l.unhold(s)
	}
	if !s.isPrepared {
		s.prepares.forget(these, b.cfg.Self)
		s.unconfirmed = s.unconfirmed || primary && s.proposal != nil && s.chosen != s.proposal.Digest &&
			!b.isPrimary() && !b.cfg.Durable
	}
	if s.isCommitted {
		return
	}
	s.commits.forget(these, b.cfg.Self)
	d, decided := s.decided.with(b.weak())
	for i := range s.decided.digests {
		if id := message.ReplicaID(i); these.has(id) && (!decided || s.decided.digests[i] != d) {
			s.decided.forget(1<<id, b.cfg.Self)
		}
	}
}

// A slot is all that is known of one sequence number in the present view.
type slot struct {
	seq      message.SeqNum
	proposal *message.PrePrepare // accepted: we may vote for it
	held     *message.PrePrepare // not yet: some request in it is not authentic here (R-REQ-6), or its operation is not
	chosen   message.Digest      // what a NEW-VIEW put here; zero if it put nothing
	batch    *message.Batch      // what committed: the proposal's, or one that f+1 replicas say was decided
	decision message.Digest      // of batch
	size     int                 // bytes of the operations of the proposal, held or accepted
	since    int                 // tick at which the proposal came first

	prepares, commits votes
	decided           votes           // DECIDEDs; they hold in every view
	ownPrepare        message.Prepare // sent if prepares has our vote
	ownCommit         message.Commit  // sent if commits has our vote

	// Certificates stay complete when votes are dropped because keys changed (R-PR-6).
	isPrepared, isCommitted bool
	unconfirmed             bool  // the proposal is of an earlier epoch of our keys: see Refreshed
	sent                    limit // of sending a message of this slot again
	rides                   bool  // our COMMIT is held back: see riding.go
}

func (s *slot) reset(n message.SeqNum) {
	prepares, commits, decided := s.prepares, s.commits, s.decided
	prepares.clear()
	commits.clear()
	decided.clear()
	*s = slot{seq: n, prepares: prepares, commits: commits, decided: decided}
}

// begins notes that a proposal comes, held or accepted.
func (s *slot) begins(tick int) {
	if s.proposal == nil && s.held == nil {
		s.since = tick
	}
}

// isProposed reports whether something is known here that is to be ordered in the slot.
func (s *slot) isProposed() bool {
	return s.proposal != nil || s.held != nil || !s.chosen.IsZero() || s.isCommitted
}

// batchBytes is the length of the operations of what committed, without a look at each if that is
// the proposal.
func (s *slot) batchBytes() int {
	if s.proposal != nil && s.batch == &s.proposal.Batch {
		return s.size
	}
	return s.batch.Bytes()
}

// find is a batch with digest d that the slot has with all its operations; nil if there is none.
func (s *slot) find(d message.Digest) *message.Batch {
	switch {
	case s.proposal != nil && s.proposal.Digest == d:
		return &s.proposal.Batch
	case s.held != nil && s.held.Digest == d && s.held.Batch.Complete():
		return &s.held.Batch
	case s.batch != nil && s.decision == d:
		return s.batch
	}
	return nil
}

// prepared is the paper's prepared(m, v, n, i): a proposal, and backups voting for it that are a
// quorum with its primary. In disk mode the primary votes as well, when its own proposal is in its
// journal, and is counted (R-OUR-2).
func (s *slot) prepared(quorum int, durable bool) bool {
	votes := quorum - 1
	if durable {
		votes++
	}
	return s.proposal != nil && !s.unconfirmed && s.prepares.matching(s.proposal.Digest) >= votes
}

// backups counts the backups that voted for a digest.
func (s *slot) backups(d message.Digest, primary message.ReplicaID) int {
	n := s.prepares.matching(d)
	if s.prepares.has(primary) && s.prepares.digests[primary] == d {
		n--
	}
	return n
}

// committedLocal is the paper's committed-local(m, v, n, i): prepared, and a quorum says
// that it prepared there.
func (s *slot) committedLocal(quorum int) bool { return s.isPrepared && s.commits.count() >= quorum }

// resent notes that a message of the slot leaves, and is not sent again for so many ticks.
func (s *slot) resent(tick, ticks int) { s.sent.restart(tick, ticks) }

// votes are one message type's votes for one number: one for each sender, the first that came
// (R-NRM-0a).
type votes struct {
	have    uint32 // bit i: replica i voted
	digests []message.Digest
}

func newVotes(replicas int) votes { return votes{digests: make([]message.Digest, replicas)} }

func (v *votes) clear() { v.have = 0 }

func (v *votes) has(i message.ReplicaID) bool { return v.have&(1<<i) != 0 }

// add records replica i's vote; false if it voted before.
func (v *votes) add(i message.ReplicaID, d message.Digest) bool {
	if v.has(i) {
		return false
	}
	v.replace(i, d)
	return true
}

// replace records replica i's vote, in place of an earlier one.
func (v *votes) replace(i message.ReplicaID, d message.Digest) {
	v.have |= 1 << i
	v.digests[i] = d
}

func (v *votes) count() int { return bits.OnesCount32(v.have) }

func (v *votes) matching(d message.Digest) (n int) {
	for i := range v.digests {
		if v.have&(1<<i) != 0 && v.digests[i] == d {
			n++
		}
	}
	return n
}

// with returns the digest that at least count voters agree on.
func (v *votes) with(count int) (message.Digest, bool) {
	for i := range v.digests {
		if v.have&(1<<i) != 0 && v.matching(v.digests[i]) >= count {
			return v.digests[i], true
		}
	}
	return message.Digest{}, false
}

// forget forgets the votes of these, but for our own.
func (v *votes) forget(these replicas, self message.ReplicaID) {
	v.have &^= uint32(these) &^ (1 << self)
}
