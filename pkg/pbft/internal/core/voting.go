// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// voting is the normal case of a view: proposals, PREPAREs and COMMITs, and what they
// mean [TOCS §4.3]. Handlers judge and record; advance alone decides.
type voting struct {
	*base
	log         *messageLog
	change      *viewChange
	queue       *queue
	forwards    *forwards
	bodies      *bodies
	disputes    *disputes
	execution   *execution
	turnarounds *turnarounds

	judge    judge
	riding   ridingCommits
	choosing bool // a Choose for the next number is under way
}

// newVoting gives voting what it alone has.
func newVoting(x voting, r *reports) voting {
	x.riding = ridingCommits{base: x.base, log: x.log}
	x.judge = judge{x.base, x.log, x.change, r}
	return x
}

// assign gives a batch the next number and tells the others [TOCS §4.3].
func (x *voting) assign(batch message.Batch) {
	x.log.numbered++
	n := x.log.numbered
	p := &message.PrePrepare{View: x.view, Seq: n, Digest: batch.Digest(), Batch: batch, From: x.cfg.Self}
	s := x.log.slot(n)
	invariant(s.proposal == nil, "a number assigned twice")
	x.adopt(s, p)
	x.promise(n)
	said := *p
	if !x.cfg.Durable { // or its COMMITs would wait for the disk, and it with them: they ride on the PREPARE
		said.Commits = x.riding.take()
	}
	if x.cfg.Separate {
		said.Batch = x.queue.abridged(batch, x.tick, x.forwards.isHeld)
	}
	x.multicast(&said)
	x.advance(s)
}

// adopt makes p the slot's proposal. All its operations are here: a vote says that we can
// execute it (R-NRM-0).
func (x *voting) adopt(s *slot, p *message.PrePrepare) {
	invariant(p.Batch.Complete(), "a proposal accepted without its operations")
	s.begins(x.tick)
	x.log.hold(s, p, x.cfg.LogBytes)
	s.proposal, s.held = p, nil
	s.resent(x.tick, x.cfg.Ticks.Resend)
}

// onPrePrepare takes in the primary's proposal [TOCS §4.3].
func (x *voting) onPrePrepare(p *message.PrePrepare) {
	x.onCommits(p.View, p.Commits, p.From)
	if why := x.judge.prePrepare(p); why != accepted {
		if why != SecondProposal || !x.confirm(p) {
			x.refuse(p, why)
		}
		return
	}
	x.turnarounds.proposed(p)
	s := x.log.slot(p.Seq)
	if s.chosen == p.Digest {
		if !x.queue.fillBatch(&p.Batch) {
			x.refuse(p, OperationMissing) // bodies.askAll asks for the batches that were chosen
			return
		}
		x.adoptChosen(s, &p.Batch)
		return
	}
	if s.held != nil {
		p.Batch.Fill(&s.held.Batch)
	}
	s.begins(x.tick)
	x.log.hold(s, p, x.cfg.LogBytes) // a later copy may carry a client's newer MACs
	if why := x.fit(s); why != accepted {
		if why == OperationMissing {
			x.bodies.lack(s.seq)
		}
		x.refuse(p, why) // held; advance tries again with every PREPARE and operation
		return
	}
	x.askService(p)
}

// confirm takes the primary's repeated proposal, when the slot has the same one from an earlier
// epoch.
func (x *voting) confirm(p *message.PrePrepare) bool {
	s := x.log.slot(p.Seq)
	if !s.unconfirmed || s.proposal.Digest != p.Digest {
		return false
	}
	s.unconfirmed = false
	x.advance(s)
	return true
}

// askService lets the service judge the primary's choice. A null batch has no choice.
func (x *voting) askService(p *message.PrePrepare) {
	if p.Digest == message.NullDigest {
		x.judged(p, true)
		return
	}
	x.do(Effect{Verb: Accept, Proposal: p})
}

// judged takes the answer to Accept: the service finds the primary's choice reasonable,
// or does not.
func (x *voting) judged(p *message.PrePrepare, ok bool) {
	if !x.log.contains(p.Seq) || x.log.slot(p.Seq).held != p {
		return
	}
	s := x.log.slot(p.Seq)
	if !ok {
		x.log.unhold(s)
		x.refuse(p, UnreasonableChoice)
		return
	}
	x.adopt(s, p)
	x.log.numbered = max(x.log.numbered, p.Seq)
	x.advance(s)
}

// fit decides whether the proposal that a slot holds may be voted for yet.
func (x *voting) fit(s *slot) Refusal {
	switch {
	case !x.queue.fillBatch(&s.held.Batch):
		return OperationMissing
	case x.tooCostly(&s.held.Batch):
		return TooCostly
	case !x.vouchedFor(s):
		return NotAuthentic
	}
	return accepted
}

// vouchedFor decides R-REQ-6 for the proposal a slot holds: each request is authentic
// here, or waits in our queue with its client's good MAC, or f backups beside the primary
// have accepted the batch, so that one correct replica could check it.
func (x *voting) vouchedFor(s *slot) bool {
	if s.backups(s.held.Digest, x.primary()) >= x.f && x.f > 0 {
		return true
	}
	for _, r := range s.held.Batch.Requests {
		if !r.Authentic && !x.queue.holds(r) && x.forwards.count(r) < x.weak() {
			return false
		}
	}
	return true
}

// onPrepare records a backup's vote for a proposal [TOCS §4.3]. A vote is kept even if its proposal
// comes later, because it may vouch for that.
func (x *voting) onPrepare(p *message.Prepare) {
	x.onCommits(p.View, p.Commits, p.From)
	if why := x.judgePrepare(p); why != accepted {
		x.refuse(p, why)
		return
	}
	x.advance(x.log.slot(p.Seq))
}

func (x *voting) judgePrepare(p *message.Prepare) Refusal {
	if p.From == p.View.Primary(x.cfg.Replicas) && !x.cfg.Durable {
		return VoteOfPrimary
	}
	if why := x.judge.vote(p.View, p.Seq); why != accepted {
		return why
	}
	if !x.log.slot(p.Seq).prepares.add(p.From, p.Digest) {
		return SecondVote
	}
	x.disputes.vote(x.log.slot(p.Seq), p.From)
	x.log.proposedTo = max(x.log.proposedTo, p.Seq)
	return accepted
}

// onCommit records that a proposal prepared at the sender [TOCS §4.3].
func (x *voting) onCommit(m *message.Commit) {
	if why := x.commitVote(m.View, m.Seq, m.From); why != accepted {
		x.refuse(m, why)
	}
}

// onCommits takes the COMMITs that rode on a message of the same sender and view.
func (x *voting) onCommits(v message.View, numbers []message.SeqNum, from message.ReplicaID) {
	for _, n := range numbers {
		if why := x.commitVote(v, n, from); why != accepted {
			x.refuse(&message.Commit{View: v, Seq: n, From: from}, why)
		}
	}
}

func (x *voting) commitVote(v message.View, n message.SeqNum, from message.ReplicaID) Refusal {
	if why := x.judge.vote(v, n); why != accepted {
		return why
	}
	if !x.log.slot(n).commits.add(from, message.Digest{}) {
		return SecondVote
	}
	x.advance(x.log.slot(n))
	return accepted
}

// advance decides what the votes of a slot mean, and makes the statements that follow. It is the
// only place that does so [TOCS §4.3].
func (x *voting) advance(s *slot) {
	if s.proposal == nil && s.held != nil && x.active && x.fit(s) == accepted {
		x.askService(s.held)
		return
	}
	if s.proposal == nil {
		return
	}
	if !x.silent() && (x.cfg.Durable || !x.isPrimary()) && !s.prepares.has(x.cfg.Self) &&
		!x.log.otherwise(s.seq, x.view, s.proposal.Digest) {
		s.ownPrepare = message.Prepare{View: x.view, Seq: s.seq, Digest: s.proposal.Digest, From: x.cfg.Self}
		s.prepares.add(x.cfg.Self, s.proposal.Digest)
		x.promise(s.seq)
		x.persist(s.proposal)
		vote := s.ownPrepare // a copy: the slot may be reset before it is sent
		vote.Commits = x.riding.take()
		x.multicast(&vote)
	}
	newly := !s.isPrepared && s.prepared(x.quorum(), x.cfg.Durable)
	s.isPrepared = s.isPrepared || newly
	if s.isPrepared && !x.silent() && s.commits.add(x.cfg.Self, message.Digest{}) {
		s.ownCommit = message.Commit{View: x.view, Seq: s.seq, From: x.cfg.Self}
		x.promise(s.seq)
		x.persist(&message.Commit{View: x.view, Seq: s.seq, From: x.cfg.Self})
		x.sayCommit(s)
	}
	if newly {
		x.turnarounds.agreed(s.seq)
		x.execution.executeReady()
	}
	if !s.isCommitted && s.committedLocal(x.quorum()) {
		x.disputes.votes(s)
		x.commit(s, &s.proposal.Batch, s.proposal.Digest)
	}
	x.adoptDecision(s)
}

// commit fixes what the slot executes.
func (x *voting) commit(s *slot, b *message.Batch, d message.Digest) {
	s.isCommitted, s.batch, s.decision = true, b, d
	x.turnarounds.agreed(s.seq)
	x.execution.executeReady()
}

// sayCommit tells the others that a slot has prepared here, at once if one of these may wait for
// it: a checkpoint, a primary whose window is full, or a client whose batch is not executed before
// it commits.
func (x *voting) sayCommit(s *slot) {
	wait := x.cfg.Tentative && x.cfg.Piggyback && x.log.numbered < x.log.lastExec+x.cfg.Window &&
		!x.execution.willBeDue(s) && len(x.riding.numbers) < message.MaxCommits && !administrative(&s.proposal.Batch)
	if wait {
		x.riding.hold(s.seq)
		return
	}
	x.riding.flush()
	vote := s.ownCommit // a copy: the slot may be reset before it is sent
	x.multicast(&vote)
}

// placeChosen pre-prepares what the view's NEW-VIEW chose, as far as our window reaches; a later
// stable checkpoint lets it reach further.
func (x *voting) placeChosen() {
	m := x.change.newView
	if !x.active || m == nil {
		return
	}
	for i, digest := range m.Chosen {
		n := m.Checkpoint.Seq + 1 + message.SeqNum(i)
		if !x.log.contains(n) {
			continue
		}
		s := x.log.slot(n)
		if s.proposal != nil || !s.chosen.IsZero() {
			continue
		}
		s.chosen = digest
		x.log.decidedTo = max(x.log.decidedTo, s.seq)
		if b := x.bodies.find(digest); b != nil {
			x.adoptChosen(s, b)
		}
	}
}

// adoptChosen makes a batch that a NEW-VIEW chose the slot's proposal. Its clients' MACs and its
// choice are not checked again: a correct replica checked them, and the digest is fixed [TOCS
// §4.5.1].
func (x *voting) adoptChosen(s *slot, b *message.Batch) {
	x.adopt(s, &message.PrePrepare{View: x.view, Seq: s.seq, Digest: s.chosen, Batch: *b, From: x.primary()})
	// A request that waits although its batch was executed here came after that: its client was not
	// enrolled then, so that nothing happened. It must be proposed again.
	if s.seq > x.log.lastExec {
		for _, r := range b.Requests {
			x.queue.markProposed(r)
		}
	}
	x.advance(s)
}

// onDecided records that a batch committed at another replica.
func (x *voting) onDecided(m *message.Decided) {
	switch {
	case m.Seq <= x.log.low || m.Seq <= x.log.lastExec:
		x.refuse(m, BelowWindow)
		return
	case m.Seq > x.log.high:
		x.refuse(m, AboveWindow)
		return
	}
	s := x.log.slot(m.Seq)
	x.log.decidedTo = max(x.log.decidedTo, m.Seq)
	if !s.decided.add(m.From, m.Digest) {
		x.refuse(m, SecondVote)
		return
	}
	x.adoptDecision(s)
}

// adoptDecision executes what f+1 replicas say was decided, if we have the batch; else it is asked
// for. It leaves no trace in P and Q: the quorum that prepared it has it there (R-HD-15).
func (x *voting) adoptDecision(s *slot) {
	if s.isCommitted || s.decided.have == 0 {
		return
	}
	d, ok := s.decided.with(x.weak())
	if !ok {
		return
	}
	switch b := x.bodies.fetched[d]; {
	case s.proposal != nil && s.proposal.Digest == d:
		x.commit(s, &s.proposal.Batch, d)
	case b != nil:
		x.commit(s, b, d)
	default:
		x.bodies.wanted()
	}
}

// onBatchBody takes a batch that we miss, from anyone. A view may begin with it.
func (x *voting) onBatchBody(m *message.BatchBody) {
	completes := x.bodies.complete(m, x.advance)
	if !x.bodies.take(m, x.change.choosable) {
		if !completes {
			x.refuse(m, NotAskedFor)
		}
		return
	}
	for n := x.log.low + 1; n <= x.log.high; n++ {
		s := x.log.slot(n)
		if s.proposal == nil && s.chosen == m.Digest {
			x.adoptChosen(s, &m.Batch)
		}
		x.adoptDecision(s)
	}
	x.change.news = true
}

// retry tries the proposals again that are held for numbers from first to last.
func (x *voting) retry(first, last message.SeqNum) {
	for n := first; n <= last; n++ {
		if s := x.log.slot(n); s.held != nil && s.proposal == nil {
			x.advance(s)
		}
	}
}

// retryHeld does so once for all requests that came in a tick: a client that has
// authenticated its requests again may have made one of the proposals acceptable
// (R-OUR-10).
func (x *voting) retryHeld() {
	if x.queue.came {
		x.queue.came = false
		x.retry(x.log.next(), min(x.log.proposedTo, x.log.high))
	}
}

// retryLacking tries the proposals again that lack an operation, which r may bring.
func (x *voting) retryLacking(r *message.Request) {
	if r.Length() > message.ShortOperation {
		x.bodies.eachLacking(x.advance)
	}
}

// tickVotes asks for batches that are missing, lets COMMITs go that were held back, and
// tries proposals again.
func (x *voting) tickVotes() {
	x.bodies.tickPulls()
	x.bodies.askAll(x.change.choosable)
	x.bodies.askOperations(x.primary(), x.queue.passed)
	x.riding.flushOld()
	x.retryHeld()
}

// abandon ends the votes of the present view.
func (x *voting) abandon() {
	x.choosing = false
	x.riding.forget()
	x.log.clear()
	x.bodies.leave()
}

// heldBack counts the COMMITs that are held back.
func (x *voting) heldBack() int { return len(x.riding.numbers) }
