// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// onRequest queues a client's request; a backup passes it on to the primary as well, because the
// client sends to backups only when the primary did not serve it [TOCS §4.2; R-REQ-3]. The caller
// has already answered requests that were executed before.
func (c *Core) onRequest(r *message.Request) {
	switch {
	case !r.Authentic:
		c.wait.keepUnproven(r)
		return
	case c.recoversAgain(r):
		c.refuse(r, TooSoon)
		return
	case r.ReadOnly && c.catchUp.fetching():
		c.refuse(r, StateInTransfer)
		return
	case r.ReadOnly && (c.silent() || c.readsBehind()):
		c.refuse(r, Silent)
		return
	case r.ReadOnly:
		if c.cost(r) <= busyRead {
			c.queue.busy.note(r.Client, c.tick)
		}
		c.do(Effect{Verb: Query, Request: r})
		return
	case r.Apart && r.PassedBy == c.cfg.Self && !c.isPrimary():
		c.layBy(r)
		return
	}
	c.cost(r)
	if why := c.queue.add(r, c.tick); why != accepted {
		c.refuse(r, why)
		return
	}
	c.wait.trust(r)
	if c.active && !c.isPrimary() {
		c.send(c.primary(), r)
	}
	c.operationCame(r)
}

// layBy keeps a request for the proposal that will name it.
func (c *Core) layBy(r *message.Request) {
	if why := c.queue.layBy(r); why != accepted {
		c.refuse(r, why)
		return
	}
	c.operationCame(r)
}

// operationCame tries the proposals again that lack an operation.
func (c *Core) operationCame(r *message.Request) {
	if r.Length() > message.ShortOperation {
		c.bodies.eachLacking(c.advance)
	}
}

// onForward records that another replica waits for a request. f+1 of them make it authentic: a correct one has seen
// a good MAC.
func (c *Core) onForward(m *message.Forward) {
	key := message.RequestKey{Client: m.Client, Slot: m.Slot}
	said := forward{m.Timestamp, m.Digest}
	if c.wait.wasDone(key, said) {
		if m.Executed {
			c.refuse(m, OlderRequest)
			return
		}
		// We no longer wait, but fewer than f+1 replicas may have executed it, and the others must
		// be able to leave this view together.
		answer := *m
		answer.From, answer.Executed = c.cfg.Self, true
		c.send(m.From, &answer)
		return
	}
	if !c.wait.forwardFrom(m.From, key, said) {
		c.refuse(m, OlderRequest)
		return
	}
	if c.wait.vouches(key, said) < c.weak() {
		return // it makes nothing authentic yet, and one liar can send many
	}
	c.wait.prove()
	for n := c.log.low + 1; n <= c.log.high; n++ {
		if s := c.log.slot(n); s.held != nil && s.proposal == nil {
			c.advance(s)
		}
	}
}

// ClientKeysChanged says that a client has restarted, or changed its keys: its earlier requests are
// authentic here by a key that the others may have forgotten. They are proposed when a quorum says
// that it holds them. A costly request can wait for seconds, and would stall the batch that it
// comes in.
func (c *Core) ClientKeysChanged(client message.ClientID) {
	if c.queue.doubt(client); c.queue.find(client) == nil {
		return
	}
	for _, r := range c.queue.find(client).pending {
		if r != nil {
			c.wait.trust(r)
		}
	}
}

// propose gives the waiting requests the next number, if the window lets it: at most Window batches
// are under way, so that under load requests gather into batches [TOCS §6.1].
func (c *Core) propose() {
	if c.choosing || c.silent() || c.catchUp.fetching() || !c.active || !c.isPrimary() || !c.mayPropose(c.log.numbered+1) {
		return
	}
	if c.queue.waiting == 0 {
		c.proposeNull()
		return
	}
	if !c.queue.ready(c.tick) {
		return
	}
	c.choosing = true
	c.do(Effect{Verb: Choose, Seq: c.log.numbered + 1})
}

// proposeNull proposes a null batch, to bring the checkpoint about for which a silent replica
// waits. A replica that says so without need causes a bounded number of them.
func (c *Core) proposeNull() {
	if c.silences.fillDue() {
		c.silences.spendFill()
		c.assign(message.Batch{})
	}
}

func (c *Core) mayPropose(n message.SeqNum) bool {
	room := c.log.bytes+c.cfg.Batch.Bytes <= c.cfg.LogBytes
	return n <= c.log.lastExec+c.cfg.Window && c.log.contains(n) && room
}

// Chosen answers Choose: the batch is formed and proposed [TOCS §4.3, §7.2].
func (c *Core) Chosen(n message.SeqNum, choice []byte) {
	if !c.choosing || n != c.log.numbered+1 {
		return // the view has changed since
	}
	c.choosing = false
	if !c.mayPropose(n) {
		return // what the others decided in a later view has moved our marks past it
	}
	batch := message.Batch{Choice: choice, Requests: c.queue.take(room{c.cfg.Batch.Count, c.cfg.Batch.Bytes, c.cfg.Batch.Cost}, c.tick)}
	if len(batch.Requests) == 0 {
		return
	}
	c.assign(batch)
}

// assign gives a batch the next number and tells the others [TOCS §4.3].
func (c *Core) assign(batch message.Batch) {
	c.log.numbered++
	n := c.log.numbered
	p := &message.PrePrepare{View: c.view, Seq: n, Digest: batch.Digest(), Batch: batch, From: c.cfg.Self}
	s := c.log.slot(n)
	invariant(s.proposal == nil, "a number assigned twice")
	c.adopt(s, p)
	c.promise(n)
	said := *p
	if !c.cfg.Durable { // or its COMMITs would wait for the disk, and it with them: they ride on the PREPARE
		said.Commits = c.riding.take()
	}
	if c.cfg.Separate {
		said.Batch = c.queue.abridged(batch, c.tick)
	}
	c.multicast(&said)
	c.advance(s)
}

// adopt makes p the slot's proposal. All its operations are here: a vote says that we can execute it (R-NRM-0).
func (c *Core) adopt(s *slot, p *message.PrePrepare) {
	invariant(p.Batch.Complete(), "a proposal accepted without its operations")
	c.hold(s, p)
	s.proposal, s.held = p, nil
	s.sent.restart(c.tick, c.cfg.Ticks.Resend)
}

// hold keeps p, which may become the slot's proposal. Its bytes count in the log as if it were
// accepted, or a primary could fill our memory with proposals that nobody can authenticate.
func (c *Core) hold(s *slot, p *message.PrePrepare) {
	c.log.proposedTo = max(c.log.proposedTo, s.seq)
	c.log.bytes += p.Batch.Bytes() - s.size
	s.held, s.size = p, p.Batch.Bytes()
	c.log.past.fit(min(pastBytes, c.cfg.LogBytes-c.log.bytes))
}

// onPrePrepare takes in the primary's proposal [TOCS §4.3].
func (c *Core) onPrePrepare(p *message.PrePrepare) {
	c.onCommits(p.View, p.Commits, p.From)
	if why := c.judgePrePrepare(p); why != accepted {
		if why != SecondProposal || !c.confirm(p) {
			c.refuse(p, why)
		}
		return
	}
	s := c.log.slot(p.Seq)
	if s.chosen == p.Digest {
		if !c.queue.fillBatch(&p.Batch) {
			c.refuse(p, OperationMissing) // bodies.askAll asks for the batches that were chosen
			return
		}
		c.adoptChosen(s, &p.Batch)
		return
	}
	if s.held != nil {
		p.Batch.Fill(&s.held.Batch)
	}
	c.hold(s, p) // a later copy may carry a client's newer MACs
	if why := c.fit(s); why != accepted {
		if why == OperationMissing {
			c.bodies.lack(s.seq)
		}
		c.refuse(p, why) // held; advance tries again with every PREPARE and operation
		return
	}
	c.askService(p)
}

// askService lets the service judge the primary's choice. A null batch has no choice.
func (c *Core) askService(p *message.PrePrepare) {
	if p.Digest == message.NullDigest {
		c.Accepted(p, true)
		return
	}
	c.do(Effect{Verb: Accept, Proposal: p})
}

// fit decides whether the proposal that a slot holds may be voted for yet.
func (c *Core) fit(s *slot) Refusal {
	switch {
	case !c.queue.fillBatch(&s.held.Batch):
		return OperationMissing
	case c.tooCostly(&s.held.Batch):
		return TooCostly
	case !c.vouchedFor(s):
		return NotAuthentic
	}
	return accepted
}

func (c *Core) judgePrePrepare(p *message.PrePrepare) Refusal {
	if p.From != p.View.Primary(c.cfg.Replicas) {
		return NotFromPrimary
	}
	if why := c.judgeVote(p.View, p.Seq); why != accepted {
		return why
	}
	s := c.log.slot(p.Seq)
	switch {
	case !c.active:
		return ViewNotActive
	case !s.chosen.IsZero() && s.chosen != p.Digest, s.proposal != nil, s.held != nil && s.held.Digest != p.Digest:
		return SecondProposal
	case c.log.bytes-s.size+p.Batch.Bytes() > c.cfg.LogBytes:
		return LogIsFull
	}
	return accepted
}

// judgeVote checks what all votes must satisfy: the present view, a number within the marks.
func (c *Core) judgeVote(v message.View, n message.SeqNum) Refusal {
	switch {
	case v < c.view:
		return EarlierView
	case v > c.view:
		c.reports.noticeLag()
		return LaterView
	case n <= c.change.bottom():
		return BelowWindow
	case n > c.log.high:
		c.reports.noticeLag()
		return AboveWindow
	}
	return accepted
}

// vouchedFor decides R-REQ-6 for the proposal a slot holds: each request is authentic here, or waits in our
// queue with its client's good MAC, or f backups beside the primary have accepted the batch, so that
// one correct replica could check it.
func (c *Core) vouchedFor(s *slot) bool {
	if s.backups(s.held.Digest, c.primary()) >= c.f && c.f > 0 {
		return true
	}
	for _, r := range s.held.Batch.Requests {
		if !r.Authentic && !c.queue.holds(r) && c.wait.forwards(r) < c.weak() {
			return false
		}
	}
	return true
}

// Accepted answers Accept: the service finds the primary's choice reasonable, or does not.
func (c *Core) Accepted(p *message.PrePrepare, ok bool) {
	if !c.log.contains(p.Seq) || c.log.slot(p.Seq).held != p {
		return
	}
	s := c.log.slot(p.Seq)
	if !ok {
		c.log.bytes -= s.size
		s.held, s.size = nil, 0
		c.refuse(p, UnreasonableChoice)
		return
	}
	c.adopt(s, p)
	c.log.numbered = max(c.log.numbered, p.Seq)
	c.advance(s)
}

// onPrepare records a backup's vote for a proposal [TOCS §4.3]. A vote is kept even if its proposal
// comes later, because it may vouch for that.
func (c *Core) onPrepare(p *message.Prepare) {
	c.onCommits(p.View, p.Commits, p.From)
	if why := c.judgePrepare(p); why != accepted {
		c.refuse(p, why)
		return
	}
	c.advance(c.log.slot(p.Seq))
}

func (c *Core) judgePrepare(p *message.Prepare) Refusal {
	if p.From == p.View.Primary(c.cfg.Replicas) && !c.cfg.Durable {
		return VoteOfPrimary
	}
	if why := c.judgeVote(p.View, p.Seq); why != accepted {
		return why
	}
	if !c.log.slot(p.Seq).prepares.add(p.From, p.Digest) {
		return SecondVote
	}
	c.disputeVote(c.log.slot(p.Seq), p.From)
	c.log.proposedTo = max(c.log.proposedTo, p.Seq)
	return accepted
}

// onCommit records that a proposal prepared at the sender [TOCS §4.3].
func (c *Core) onCommit(m *message.Commit) {
	if why := c.commitVote(m.View, m.Seq, m.From); why != accepted {
		c.refuse(m, why)
	}
}

// onCommits takes the COMMITs that rode on a message of the same sender and view.
func (c *Core) onCommits(v message.View, numbers []message.SeqNum, from message.ReplicaID) {
	for _, n := range numbers {
		if why := c.commitVote(v, n, from); why != accepted {
			c.refuse(&message.Commit{View: v, Seq: n, From: from}, why)
		}
	}
}

func (c *Core) commitVote(v message.View, n message.SeqNum, from message.ReplicaID) Refusal {
	if why := c.judgeVote(v, n); why != accepted {
		return why
	}
	if !c.log.slot(n).commits.add(from, message.Digest{}) {
		return SecondVote
	}
	c.advance(c.log.slot(n))
	return accepted
}

// advance decides what the votes of a slot mean, and makes the statements that follow. It is the
// only place that does so [TOCS §4.3].
func (c *Core) advance(s *slot) {
	if s.proposal == nil && s.held != nil && c.active && c.fit(s) == accepted {
		c.askService(s.held)
		return
	}
	if s.proposal == nil {
		return
	}
	if !c.silent() && (c.cfg.Durable || !c.isPrimary()) && !s.prepares.has(c.cfg.Self) && !c.pq.otherwise(s.seq, c.view, s.proposal.Digest) {
		s.ownPrepare = message.Prepare{View: c.view, Seq: s.seq, Digest: s.proposal.Digest, From: c.cfg.Self}
		s.prepares.add(c.cfg.Self, s.proposal.Digest)
		c.promise(s.seq)
		c.persist(s.proposal)
		vote := s.ownPrepare // a copy: the slot may be reset before it is sent
		vote.Commits = c.riding.take()
		c.multicast(&vote)
	}
	newly := !s.isPrepared && s.prepared(c.quorum(), c.cfg.Durable)
	s.isPrepared = s.isPrepared || newly
	if s.isPrepared && !c.silent() && s.commits.add(c.cfg.Self, message.Digest{}) {
		s.ownCommit = message.Commit{View: c.view, Seq: s.seq, From: c.cfg.Self}
		c.promise(s.seq)
		c.persist(&message.Commit{View: c.view, Seq: s.seq, From: c.cfg.Self})
		c.sayCommit(s)
	}
	if newly {
		c.executeReady()
	}
	if !s.isCommitted && s.committedLocal(c.quorum()) {
		c.disputeVotes(s)
		c.commit(s, &s.proposal.Batch, s.proposal.Digest)
	}
	c.adoptDecision(s)
}

// commit fixes what the slot executes.
func (c *Core) commit(s *slot, b *message.Batch, d message.Digest) {
	s.isCommitted, s.batch, s.decision = true, b, d
	c.executeReady()
}

// executeReady executes what can be executed, unless the state is being replaced.
func (c *Core) executeReady() {
	if !c.catchUp.fetching() {
		c.executeNext()
	}
}

// sayCommit tells the others that a slot has prepared here, at once if one of these may wait for
// it: a checkpoint, a primary whose window is full, or a client whose batch is not executed before
// it commits.
func (c *Core) sayCommit(s *slot) {
	wait := c.cfg.Tentative && c.cfg.Piggyback && c.log.numbered < c.log.lastExec+c.cfg.Window &&
		!c.checkpoints.willBeDue(s) && len(c.riding.numbers) < message.MaxCommits && !administrative(&s.proposal.Batch)
	if wait {
		c.riding.hold(s.seq)
		return
	}
	c.riding.flush()
	vote := s.ownCommit // a copy: the slot may be reset before it is sent
	c.multicast(&vote)
}

// placeChosen pre-prepares what the view's NEW-VIEW chose, as far as our window reaches; a later
// stable checkpoint lets it reach further.
func (c *Core) placeChosen() {
	m := c.change.newView
	if !c.active || m == nil {
		return
	}
	for i, digest := range m.Chosen {
		n := m.Checkpoint.Seq + 1 + message.SeqNum(i)
		if !c.log.contains(n) {
			continue
		}
		s := c.log.slot(n)
		if s.proposal != nil || !s.chosen.IsZero() {
			continue
		}
		s.chosen = digest
		c.log.decidedTo = max(c.log.decidedTo, s.seq)
		if b := c.bodies.find(digest); b != nil {
			c.adoptChosen(s, b)
		}
	}
}

// adoptChosen makes a batch that a NEW-VIEW chose the slot's proposal. Its clients' MACs and its
// choice are not checked again: a correct replica checked them, and the digest is fixed [TOCS
// §4.5.1].
func (c *Core) adoptChosen(s *slot, b *message.Batch) {
	c.adopt(s, &message.PrePrepare{View: c.view, Seq: s.seq, Digest: s.chosen, Batch: *b, From: c.primary()})
	for _, r := range b.Requests {
		c.queue.markProposed(r)
	}
	c.advance(s)
}

// adoptDecision executes what f+1 replicas say was decided, if we have the batch; else it is asked
// for. It leaves no trace in P and Q: the quorum that prepared it has it there (R-HD-15).
func (c *Core) adoptDecision(s *slot) {
	if s.isCommitted || s.decided.have == 0 {
		return
	}
	d, ok := s.decided.with(c.weak())
	if !ok {
		return
	}
	switch b := c.bodies.fetched[d]; {
	case s.proposal != nil && s.proposal.Digest == d:
		c.commit(s, &s.proposal.Batch, d)
	case b != nil:
		c.commit(s, b, d)
	default:
		c.bodies.wanted()
	}
}

// spellOut makes the primary propose in full, for a while, the operations of clients whose
// operations a backup lacked. Each batch with such an operation, and all batches behind it, would
// be late by the backup's patience.
func (c *Core) spellOut(m *message.FetchBatch) {
	if !c.isPrimary() || !c.active {
		return
	}
	for n := c.log.next(); n <= min(c.log.numbered, c.log.high); n++ {
		p := c.log.slot(n).proposal
		if p == nil || !slices.Contains(m.Digests, p.Digest) {
			continue
		}
		for _, r := range p.Batch.Requests {
			if r.Apart {
				c.queue.line(r.Client).spellOut(c.tick)
			}
		}
	}
}
