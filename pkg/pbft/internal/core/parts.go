// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// parts are all that a core consists of. Each part has the state that its rules are
// about, and pointers to those above it in this list which it stands on. None knows of
// one below it.
type parts struct {
	*base
	log         messageLog
	checkpoints checkpoints
	change      viewChange
	silences    silences
	journal     journal
	reports     reports
	shares      shares
	catchUp     catchUp
	queue       queue
	forwards    forwards
	wait        waiting
	turnarounds turnarounds
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
	x := &parts{base: b, silences: newSilences(b), shares: newShares(cfg.Replicas)}
	x.log.init(cfg.LogSize, cfg.Replicas)
	x.checkpoints.init(b, &x.log)
	x.change.init(b, &x.log)
	x.journal = journal{b, &x.log, &x.change}
	x.reports.init(b, &x.log, &x.checkpoints, &x.change)
	x.catchUp = catchUp{base: b, log: &x.log, checkpoints: &x.checkpoints, reports: &x.reports, shares: &x.shares,
		shunned: make(shunned, cfg.Replicas), later: make([][]*message.Fetch, cfg.Replicas)}
	x.queue.init(cfg.Slots, cfg.QueueBytes)
	x.forwards.init(b, &x.log, &x.queue)
	x.wait.init(b, &x.queue, &x.forwards)
	x.turnarounds = turnarounds{base: b, log: &x.log, queue: &x.queue, reports: &x.reports,
		said: make([]message.View, cfg.Replicas)}
	x.bodies.init(b, &x.log, &x.shares, x.catchUp.shunned)
	x.disputes = disputes{b, make([]Dispute, cfg.Replicas)}
	x.execution = execution{
		base: b, log: &x.log, checkpoints: &x.checkpoints, catchUp: &x.catchUp, journal: &x.journal,
		queue: &x.queue, wait: &x.wait,
	}
	x.voting = newVoting(voting{
		base: b, log: &x.log, change: &x.change, queue: &x.queue, forwards: &x.forwards,
		bodies: &x.bodies, disputes: &x.disputes, execution: &x.execution, turnarounds: &x.turnarounds,
	}, &x.reports)
	x.proposing = proposing{
		base: b, log: &x.log, silences: &x.silences, queue: &x.queue, forwards: &x.forwards,
		execution: &x.execution, voting: &x.voting, turnarounds: &x.turnarounds,
	}
	x.stability = stability{
		base: b, log: &x.log, checkpoints: &x.checkpoints, change: &x.change, catchUp: &x.catchUp,
		bodies: &x.bodies, disputes: &x.disputes,
	}
	x.views = views{
		base: b, log: &x.log, change: &x.change, journal: &x.journal, wait: &x.wait, bodies: &x.bodies,
		voting: &x.voting, turnarounds: &x.turnarounds, stability: &x.stability,
	}
	x.recovery = newRecovery(recovery{
		base: b, log: &x.log, silences: &x.silences, journal: &x.journal, execution: &x.execution,
		proposing: &x.proposing, stability: &x.stability, views: &x.views,
	})
	return x
}

// restore continues a state and the records of an earlier life: see Restore.
func (x *parts) restore(state message.CheckpointID, records []message.Message) {
	m := newMemory()
	for _, r := range records {
		m.read(r, x.cfg.Self)
	}
	if m.own != nil && !x.change.correctViewChange(m.own) {
		m.own = nil // we never made it: an intruder did
	}
	x.restoreMarks(state, m)
	x.restoreView(m)
	x.restoreLog(m)
	x.runDecided(m)
	if x.silent() { // it may have said a VIEW-CHANGE for this view, which is in no record
		x.persist(&message.Status{View: x.view, From: x.cfg.Self})
	}
}

// restoreMarks sets the water marks and the known checkpoints. A state that is not known to be
// stable was fetched.
func (x *parts) restoreMarks(state message.CheckpointID, m *memory) {
	if x.stable = m.stable; m.stable.Seq > 0 {
		x.stable.Stable, x.stable.From = true, x.cfg.Self
		x.stability.slide(m.stable.Seq)
	}
	if state.Seq == 0 {
		return
	}
	x.log.lastExec, x.checkpoints.taken = state.Seq, state.Seq
	if state.Seq <= m.stable.Seq {
		return
	}
	x.checkpoints.fetched = state
	if state.Seq > x.log.high { // as claimFetched did
		x.stability.slide(state.Seq - x.cfg.LogSize)
	}
	k := x.checkpoints.at(state.Seq)
	k.ours = true
	k.votes.add(x.cfg.Self, state.Digest)
}

// restoreView sets the view, what we said on our way into it, and P and Q, which are in
// our VIEW-CHANGE.
func (x *parts) restoreView(m *memory) {
	v, active := m.view()
	if v > x.view {
		x.view, x.active = v, active
	}
	if m.own != nil {
		// A view that began far above our window moved it without a checkpoint: see moveTo. Q may
		// have batches up to L above that window.
		if m.own.Low > x.log.low {
			x.stability.slide(m.own.Low)
		}
		x.log.restore(m.own, m.bodies)
		if m.own.View == v {
			x.change.own, x.change.last[x.cfg.Self], x.change.digests[x.cfg.Self] = m.own, m.own, m.own.Digest()
		}
	}
	if m.newView == nil || m.newView.View != v {
		return
	}
	x.change.newView = m.newView
	if start, size := m.newView.Checkpoint.Seq, x.cfg.LogSize; start > x.log.low+size { // as moveTo did
		x.stability.slide(start - size)
	}
	for _, vc := range m.others {
		if vc.View == v {
			x.change.last[vc.From], x.change.digests[vc.From] = vc, vc.Digest()
		}
	}
	if x.isPrimary() {
		x.views.witnessChosen(m.newView)
	}
}

// restoreLog sets the slots of the present view, and the batches that committed in any view.
func (x *parts) restoreLog(m *memory) {
	for _, p := range m.accepted {
		if p.View != x.view || !x.active || !x.log.contains(p.Seq) {
			continue
		}
		s := x.log.slot(p.Seq)
		x.voting.adopt(s, p)
		s.ownPrepare = message.Prepare{View: p.View, Seq: p.Seq, Digest: p.Digest, From: x.cfg.Self}
		s.prepares.add(x.cfg.Self, p.Digest)
		x.log.numbered = max(x.log.numbered, p.Seq)
	}
	for _, p := range m.prepared {
		x.execution.remembered = max(x.execution.remembered, p.Seq)
		if p.View != x.view || !x.log.contains(p.Seq) || x.log.slot(p.Seq).proposal == nil {
			continue
		}
		s := x.log.slot(p.Seq)
		s.isPrepared, s.ownCommit = true, p
		s.commits.add(x.cfg.Self, message.Digest{})
	}
	for n, d := range m.decided {
		x.execution.remembered = max(x.execution.remembered, n)
		if b := m.bodies[d]; x.log.contains(n) && b != nil {
			s := x.log.slot(n)
			s.isCommitted, s.batch, s.decision = true, b, d
			x.log.decidedTo = max(x.log.decidedTo, n)
		}
	}
}

// runDecided has the state brought from where it is to where the batches end that are known to have
// committed. No correct replica executes any above its window, which is at most L above a stable
// checkpoint, or 2L if a view began there (see moveTo). An intruder may have written a great many
// batches, and a VIEW-CHANGE for a window above them, or a stable checkpoint: the state would keep
// a checkpoint for each K.
func (x *parts) runDecided(m *memory) {
	last := min(x.log.high, max(x.log.lastExec, x.stable.Seq)+2*x.cfg.LogSize)
	for n := x.log.lastExec + 1; n <= last; n++ {
		d, known := m.decided[n]
		b := m.bodies[d]
		if !known || b == nil {
			break
		}
		x.do(Effect{Verb: Execute, Seq: n, Batch: b, Mute: true})
		for i, r := range b.Requests {
			x.queue.executed(r, n, i) // who waits for it needs our word that it is done
		}
		if n > x.stable.Seq {
			x.execution.ran(n, b)
			continue
		}
		x.log.lastExec = n
		if n == x.stable.Seq {
			// Nobody needs a checkpoint below it. The group took one here. If our records are of
			// other batches, which an intruder has left, the root tells whether the state is
			// another, too.
			x.execution.freeze(n)
		}
	}
	stable := x.stable
	if stable.Seq > 0 {
		x.do(Effect{Verb: Discard, Seq: stable.Seq})
	}
	if x.log.lastExec < stable.Seq {
		x.catchUp.fetchState(message.CheckpointID{Seq: stable.Seq, Digest: stable.Digest})
	}
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

// SilenceOf is the checkpoint that must be stable before replica i votes, as it said
// last; 0: it votes.
func (a Answers) SilenceOf(i message.ReplicaID) message.SeqNum { return a.silences.of[i].until }

// Forgets reports whether the state may be older than one that we have answered from: it is being
// fetched, or it was read from a disk and the last batches are not known to have committed. Others
// may then know from our answers what the state does not know.
func (a Answers) Forgets() bool { return a.catchUp.fetching() || a.execution.readsBehind() }

// UnderWay returns the lowest number that was proposed or voted for and not executed, tentatively
// or not; 0 if there is none.
func (a Answers) UnderWay() message.SeqNum {
	first := max(a.log.lastExec, a.execution.ahead.seq, a.log.low) + 1
	last := min(max(a.log.proposedTo, a.log.decidedTo), a.log.high)
	for n := first; n <= last; n++ {
		if s := a.log.slot(n); s.proposal != nil || s.held != nil || s.prepares.have != 0 || a.bodies.underWay(n) {
			return n
		}
	}
	return 0
}

// LeftSlow tells of the primaries that were left because they were slow.
func (a Answers) LeftSlow() LeftSlow { return a.turnarounds.left }

// Idle reports whether ticks would bring nothing forward but STATUSes and COMMITs that nobody waits
// for. The caller may then tick later, several times at once.
func (a Answers) Idle() bool {
	return a.active && !a.catchUp.fetching() && a.phase == NotRecovering && a.queue.total == 0 && !a.wait.on &&
		a.UnderWay() == 0 && !a.silences.fillDue() && !a.catchUp.hasLater()
}

// Cost is what a request costs at most, in bytes copied.
func (a Answers) Cost(r *message.Request) int { return a.cost(r) }

// Contended is how much of the time clients other than this one want, from 0 to 1: all of
// it when one was served a moment ago, and less the longer ago that is. What this one does
// beyond the common is at their expense.
func (a Answers) Contended(client message.ClientID) float64 { return a.queue.contended(client, a.tick) }

// LeftFor is the highest view for which replica i has sent a VIEW-CHANGE, as far as we
// know: one that has been forgotten here since may be used elsewhere.
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

// Tests see of a core its effects and the answers below. Nothing here changes it.

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

// Voted are the replicas, bit i being replica i, whose PREPAREs for the proposal of batch n are
// here. It is not known if the log has no such proposal.
func (a Answers) Voted(n message.SeqNum) (replicas uint32, known bool) {
	if !a.log.contains(n) || a.log.slot(n).proposal == nil {
		return 0, false
	}
	s := a.log.slot(n)
	for i := range s.prepares.digests {
		if id := message.ReplicaID(i); s.prepares.has(id) && s.prepares.digests[i] == s.proposal.Digest {
			replicas |= 1 << i
		}
	}
	return replicas, true
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

// EachPending calls f for each request that waits to be executed.
func (a Answers) EachPending(f func(r *message.Request)) {
	a.queue.each(func(_ *line, r *message.Request) bool {
		f(r)
		return true
	})
}

// Sizes counts everything in a core that others could make grow.
type Sizes struct {
	Prepared, Preprepared, Digests int // entries of P; numbers in Q; the most digests for one of them
	Bodies, Forwards, Unproven     int // the most of one replica, for the latter two
	Lines, Line, Asks              int // clients' queues, the longest of them, FETCHes under way
	LineBytes, QueueBytes          int // the most of one client's operations that wait or are laid by; of all
	LogBytes                       int
	Held                           int // COMMITs held back
	Overlooked                     int // slots above the log's marks that are not as these say
}

// Sizes measures the core.
func (a Answers) Sizes() (s Sizes) {
	s.Prepared, s.Preprepared, s.Digests = a.log.carriedSizes()
	s.Bodies = len(a.bodies.fetched)
	for i := range a.reports.peers {
		s.Forwards = max(s.Forwards, len(a.forwards.of[i]))
		s.Unproven = max(s.Unproven, len(a.forwards.unproven[i]))
	}
	s.Lines, s.Line, s.LineBytes = a.queue.sizes()
	s.QueueBytes = a.queue.room.bytes
	if a.catchUp.fetching() {
		s.Asks = len(a.catchUp.transfer.asked)
	}
	s.LogBytes, s.Held = a.log.kept(), a.voting.heldBack()
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

// Ahead is the number of the batch that was executed and is not known to have committed,
// 0 if there is none.
func (a Answers) Ahead() message.SeqNum { return a.execution.ahead.seq }

// Low is the low water mark: the last stable checkpoint, or the one that the present view
// began from.
func (a Answers) Low() message.SeqNum { return a.log.low }

// Leaving is our VIEW-CHANGE for a view that has not begun here; nil if none is, or if an
// earlier life sent it.
func (a Answers) Leaving() *message.ViewChange {
	if a.active {
		return nil
	}
	return a.change.own
}
