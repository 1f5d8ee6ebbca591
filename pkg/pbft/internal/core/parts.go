// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// parts are all that a core consists of. Each part has the state that its rules are about, and pointers to those
// above it in this list which it stands on. None knows of one below it.
type parts struct {
	*base
	log         messageLog
	pq          pq
	checkpoints checkpoints
	change      viewChange
	silences    silences
	journal     journal
	reports     reports
	shares      shares
	catchUp     catchUp
	queue       queue
	wait        waiting
	bodies      bodies
	disputes    disputes
	execution   execution
	voting      voting
	proposing   proposing
	stability   stability
	views       views
	recovery    recovery
}

func newParts(cfg Config) *parts {
	b := newBase(cfg)
	x := &parts{base: b, pq: newPQ(), silences: newSilences(b), shares: newShares(cfg.Replicas)}
	x.log.init(cfg.LogSize, cfg.Replicas)
	x.checkpoints.init(b, &x.log)
	x.change.init(b, &x.log)
	x.journal = journal{b, &x.log, &x.change}
	x.reports.init(b, &x.log, &x.checkpoints, &x.change)
	x.catchUp = catchUp{base: b, log: &x.log, checkpoints: &x.checkpoints, reports: &x.reports, shares: &x.shares, shunned: make(shunned, cfg.Replicas)}
	x.queue.init(cfg.Slots, cfg.QueueBytes)
	x.wait.init(b, &x.queue, &x.log)
	x.bodies.init(b, &x.log, &x.pq, &x.shares, x.catchUp.shunned)
	x.disputes = disputes{b, &x.checkpoints, make([]Dispute, cfg.Replicas)}
	x.execution = execution{
		base: b, log: &x.log, checkpoints: &x.checkpoints, catchUp: &x.catchUp, journal: &x.journal, queue: &x.queue, wait: &x.wait,
	}
	x.voting = voting{
		base: b, log: &x.log, pq: &x.pq, checkpoints: &x.checkpoints, change: &x.change, queue: &x.queue, wait: &x.wait,
		reports: &x.reports, bodies: &x.bodies, disputes: &x.disputes, execution: &x.execution, riding: ridingCommits{base: b, log: &x.log},
	}
	x.proposing = proposing{
		base: b, log: &x.log, silences: &x.silences, queue: &x.queue, wait: &x.wait, catchUp: &x.catchUp, execution: &x.execution, voting: &x.voting,
	}
	x.stability = stability{
		base: b, log: &x.log, pq: &x.pq, checkpoints: &x.checkpoints, change: &x.change, catchUp: &x.catchUp, bodies: &x.bodies, disputes: &x.disputes,
	}
	x.views = views{
		base: b, log: &x.log, pq: &x.pq, checkpoints: &x.checkpoints, silences: &x.silences, change: &x.change, journal: &x.journal, queue: &x.queue,
		wait: &x.wait, bodies: &x.bodies, catchUp: &x.catchUp, voting: &x.voting, stability: &x.stability,
	}
	x.recovery = recovery{
		base: b, log: &x.log, pq: &x.pq, checkpoints: &x.checkpoints, silences: &x.silences, change: &x.change, journal: &x.journal, reports: &x.reports,
		execution: &x.execution, proposing: &x.proposing, stability: &x.stability, views: &x.views, others: newTestimony(b),
	}
	return x
}

// Answers answers questions about a core. Nothing here changes it.
type Answers struct{ *parts }

// View is the view this replica is in, and whether it is active.
func (a Answers) View() (v message.View, active bool) { return a.view, a.active }

// LastExecuted is the number up to which batches have committed and were executed.
func (a Answers) LastExecuted() message.SeqNum { return a.log.lastExec }

// LastProposed returns the last number for which this replica has made or accepted a proposal.
func (a Answers) LastProposed() message.SeqNum { return a.log.numbered }

// SilentUntil is the checkpoint that must be stable before this replica votes, 0 if it votes.
func (a Answers) SilentUntil() message.SeqNum { return a.silentUntil() }

// Transferring reports whether the state is being fetched from the others.
func (a Answers) Transferring() bool { return a.catchUp.fetching() }

// Stable is the last stable checkpoint.
func (a Answers) Stable() message.Checkpoint { return a.stable }

// Keeps is the lowest checkpoint that the state must keep: the stable one, or the last that it has
// come to if that is lower.
func (a Answers) Keeps() message.SeqNum { return min(a.stable.Seq, a.checkpoints.taken) }

// LogBytes is the length of the operations in the log.
func (a Answers) LogBytes() int { return a.log.bytes }

// Peer returns what replica i last said of itself.
func (a Answers) Peer(i message.ReplicaID) (low, lastExecuted message.SeqNum) {
	return a.reports.peers[i].low, a.reports.peers[i].lastExec
}

// SilenceOf is the checkpoint that must be stable before replica i votes, as it said last; 0: it votes.
func (a Answers) SilenceOf(i message.ReplicaID) message.SeqNum { return a.silences.of[i].until }

// Forgets reports whether the state may be older than one that we have answered from: it is being
// fetched, or it was read from a disk and the last batches are not known to have committed. Others
// may then know from our answers what the state does not know.
func (a Answers) Forgets() bool { return a.catchUp.fetching() || a.execution.readsBehind() }

// UnderWay returns the lowest number that was proposed or voted for and not executed, tentatively
// or not; 0 if there is none.
func (a Answers) UnderWay() message.SeqNum {
	for n := max(a.log.lastExec, a.execution.ahead.seq, a.log.low) + 1; n <= min(max(a.log.proposedTo, a.log.decidedTo), a.log.high); n++ {
		if s := a.log.slot(n); s.proposal != nil || s.held != nil || s.prepares.have != 0 || a.bodies.underWay(n) {
			return n
		}
	}
	return 0
}

// Idle reports whether ticks would bring nothing forward but STATUSes and COMMITs that nobody waits
// for. The caller may then tick later, several times at once.
func (a Answers) Idle() bool {
	return a.active && !a.catchUp.fetching() && a.phase == NotRecovering && a.queue.total == 0 && !a.wait.on && a.UnderWay() == 0 && !a.silences.fillDue()
}

// Cost is what a request costs at most, in bytes copied.
func (a Answers) Cost(r *message.Request) int { return a.cost(r) }

// Contended reports whether a client other than this one was served a moment ago. What this one does beyond the
// common is at others' expense then.
func (a Answers) Contended(client message.ClientID) bool { return a.queue.busy.others(client, a.tick) }

// LeftFor is the highest view for which replica i has sent a VIEW-CHANGE, as far as we know: one that has
// been forgotten here since may be used elsewhere.
func (a Answers) LeftFor(i message.ReplicaID) message.View {
	if m := a.change.latest(int(i)); m != nil {
		return max(m.View, a.change.left[i])
	}
	return a.change.left[i]
}

// Recovery is how far our recovery has come, its recovery point, 0 if that is not known yet, and
// whether the state was found to be another than the group's.
func (a Answers) Recovery() (p Phase, point message.SeqNum, corrupt bool) {
	return a.phase, a.recovery.point, a.catchUp.corrupt
}

// RecoveryOf is the recovery point of replica i's last recovery that we know of, and whether it is
// seen to have ended: the replica has said that it holds a checkpoint at or above it (R-PR-26).
func (a Answers) RecoveryOf(i message.ReplicaID) (point message.SeqNum, over bool) {
	point = a.silences.of[i].point
	all := a.checkpoints.claims.of[i]
	return point, point == 0 || len(all) > 0 && all[len(all)-1].Seq >= point || a.reports.peers[i].low >= point
}

// Dispute is what replica i has said against what the group did.
func (a Answers) Dispute(i message.ReplicaID) Dispute { return a.disputes.of[i] }

// OverShare calls f for each client that had more to be proposed lately than its share let through.
func (a Answers) OverShare(f func(client message.ClientID)) { a.queue.overShare(a.tick, f) }

// Standing is the ground on which the answer to a request that was executed can be repeated. It is
// not ok if it is not certain yet that the request was superseded, or if effects are still to be
// performed, so that the state is not up to date. A Rollback may be among them: then the state has
// a tentative execution of a batch that we know has not committed.
func (a Answers) Standing(q *message.Request) (st Standing, ok bool) {
	return a.execution.standingOf(q)
}

// Ground is the ground of an answer to a read of the given version: see execution.ground.
func (a Answers) Ground(version message.SeqNum) Standing { return a.execution.ground(version) }

// What tests may see of a core beside its effects. Nothing here changes it.

// Prepared is the digest for which the present view has a prepared certificate at n.
func (a Answers) Prepared(n message.SeqNum) (message.Digest, bool) {
	if !a.log.contains(n) {
		return message.Digest{}, false
	}
	s := a.log.slot(n)
	if !s.isPrepared {
		return message.Digest{}, false
	}
	return s.proposal.Digest, true
}

// Committed is the digest for which the present view has a committed certificate at n: it was not
// merely told that n was decided.
func (a Answers) Committed(n message.SeqNum) (message.Digest, bool) {
	d, ok := a.Prepared(n)
	return d, ok && a.log.slot(n).committedLocal(a.quorum())
}

// Ran is the batch that was executed as n, nil if n is not in the window or was not executed.
func (a Answers) Ran(n message.SeqNum) *message.Batch {
	if !a.log.contains(n) || n > a.log.lastExec {
		return nil
	}
	return a.log.slot(n).batch
}

// Beginning is the NEW-VIEW that the present view began with, or waits to begin with.
func (a Answers) Beginning() *message.NewView { return a.change.newView }

// Pending counts the requests that wait here.
func (a Answers) Pending() int { return a.queue.total }

// Sizes counts everything in a core that others could make grow.
type Sizes struct {
	Prepared, Preprepared, Digests int // entries of P; numbers in Q; the most digests for one of them
	Bodies, Forwards, Unproven     int // the most of one replica, for the latter two
	Lines, Line, Asks              int // clients' queues, the longest of them, FETCHes under way
	LineBytes                      int // the most of one client's operations that wait or are laid by
	LogBytes                       int
	Held                           int // COMMITs held back
	Overlooked                     int // slots above the log's marks that are not as these say
}

// Sizes measures the core.
func (a Answers) Sizes() (s Sizes) {
	s.Prepared, s.Preprepared, s.Bodies = len(a.pq.prepared), len(a.pq.preprepared), len(a.bodies.fetched)
	for _, q := range a.pq.preprepared {
		s.Digests = max(s.Digests, len(q))
	}
	for i := range a.reports.peers {
		s.Forwards = max(s.Forwards, len(a.wait.forwarded[i]))
		s.Unproven = max(s.Unproven, len(a.wait.unproven[i]))
	}
	s.Lines = len(a.queue.order)
	for _, l := range a.queue.order {
		s.Line, s.LineBytes = max(s.Line, len(l.fifo), len(l.costly.fifo)), max(s.LineBytes, l.bytes)
	}
	if a.catchUp.fetching() {
		s.Asks = len(a.catchUp.transfer.asked)
	}
	s.LogBytes, s.Held = a.log.bytes+a.log.past.bytes, len(a.voting.riding.numbers)
	s.Overlooked = a.log.overlooked(a.bodies.underWay)
	return s
}

// Holds reports whether a batch is here with all its operations.
func (a Answers) Holds(d message.Digest) bool {
	b := a.bodies.find(d)
	return b != nil && b.Complete()
}

// Lacks reports whether a proposal is held because operations of this batch are missing.
func (a Answers) Lacks(d message.Digest) (lacks bool) {
	a.bodies.eachLacking(func(s *slot) { lacks = lacks || s.held.Digest == d })
	return lacks
}

// Ahead is the number of the batch that was executed and is not known to have committed, 0 if there is none.
func (a Answers) Ahead() message.SeqNum { return a.execution.ahead.seq }

// Low is the low water mark: the last stable checkpoint, or the one that the present view began from.
func (a Answers) Low() message.SeqNum { return a.log.low }

// Leaving is our VIEW-CHANGE for a view that has not begun here; nil if none is, or if an earlier life sent it.
func (a Answers) Leaving() *message.ViewChange {
	if a.active {
		return nil
	}
	return a.change.own
}
