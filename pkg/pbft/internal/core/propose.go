// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// proposing takes in requests, and has the primary give them numbers.
type proposing struct {
	*base
	log         *messageLog
	silences    *silences
	queue       *queue
	forwards    *forwards
	execution   *execution
	voting      *voting
	turnarounds *turnarounds
}

// onRequest queues a client's request; a backup passes it on to the primary as well, because the
// client sends to backups only when the primary did not serve it [TOCS §4.2; R-REQ-3]. The caller
// has already answered requests that were executed before.
func (p *proposing) onRequest(r *message.Request) {
	// A request that is laid by and comes again waits: its client may take us for the primary.
	laidBy := p.queue.find(r.Client).hasLaidBy(r)
	switch {
	case r.IsStub() && !p.queue.fill(r):
		p.refuse(r, OperationMissing)
		return
	case !r.Authentic:
		p.forwards.keepUnproven(r)
		return
	case p.silences.recoversAgain(r):
		p.refuse(r, TooSoon)
		return
	case r.ReadOnly && p.execution.fetching():
		p.refuse(r, StateInTransfer)
		return
	case r.ReadOnly && (p.silent() || p.execution.readsBehind()):
		p.refuse(r, Silent)
		return
	case r.ReadOnly:
		p.cost(r)
		p.queue.reads(r, p.tick)
		p.do(Effect{Verb: Query, Request: r})
		return
	case r.Apart && r.PassedBy == p.cfg.Self && !p.isPrimary() && !laidBy:
		p.layBy(r)
		return
	}
	p.cost(r)
	passed := r
	if laidBy {
		passed = r.Stub() // its client has sent the primary the operation, too
	}
	if why := p.queue.add(r, p.tick); why != accepted {
		p.refuse(r, why)
		return
	}
	p.forwards.trust(r)
	if p.active && !p.isPrimary() {
		p.send(p.primary(), passed)
	}
	p.voting.retryLacking(r)
}

// layBy keeps a request for the proposal that will name it.
func (p *proposing) layBy(r *message.Request) {
	if why := p.queue.layBy(r); why != accepted {
		p.refuse(r, why)
		return
	}
	p.cost(r)
	p.turnarounds.ask(r)
	p.voting.retryLacking(r)
}

// onForward records that another replica waits for a request. f+1 of them make it
// authentic: a correct one has seen a good MAC.
func (p *proposing) onForward(m *message.Forward) {
	key := message.RequestKey{Client: m.Client, Slot: m.Slot}
	said := forward{m.Timestamp, m.Digest}
	if p.forwards.wasDone(key, said) {
		if m.Executed {
			p.refuse(m, OlderRequest)
			return
		}
		// We no longer wait, but fewer than f+1 replicas may have executed it, and the others must
		// be able to leave this view together.
		answer := *m
		answer.From, answer.Executed = p.cfg.Self, true
		p.send(m.From, &answer)
		return
	}
	if !p.forwards.note(m.From, key, said) {
		p.refuse(m, OlderRequest)
		return
	}
	if p.forwards.vouches(key, said) < p.weak() {
		return // it makes nothing authentic yet, and one liar can send many
	}
	p.forwards.prove()
	p.voting.retry(p.log.low+1, p.log.high)
}

// propose gives the waiting requests the next number, if the window lets it: at most Window batches
// are under way, so that under load requests gather into batches [TOCS §6.1].
func (p *proposing) propose() {
	if p.voting.choosing || p.restoring || p.silent() || p.execution.fetching() || !p.active || !p.isPrimary() {
		return
	}
	if p.queue.waiting == 0 {
		p.fill()
		return
	}
	if !p.mayPropose() || !p.queue.ready(p.tick) {
		return
	}
	p.voting.choosing = true
	p.do(Effect{Verb: Choose, Seq: p.log.numbered + 1})
}

// fillsAtOnce is how many null batches are under way at most. They are proposed together, so that
// they share messages and syncs: an idle group takes hundreds for one recovery, and its clients
// wait beside each. A client's next request waits for these at most.
const fillsAtOnce = 32

// fill proposes null batches, to bring the checkpoint about for which a silent replica waits. A
// replica that says so without need causes a bounded number of them.
func (p *proposing) fill() {
	for p.hasRoom(p.log.numbered+1) && p.silences.fillDue() {
		atOnce := p.cfg.Window
		if p.log.numbered < p.execution.checkpoints.from(min(p.silences.awaited(), p.log.high)) {
			atOnce = fillsAtOnce
		}
		if p.log.numbered >= p.log.lastExec+atOnce {
			return
		}
		p.silences.spendFill()
		p.voting.assign(message.Batch{})
	}
}

// mayPropose reports whether a batch of requests may be proposed under the next number.
func (p *proposing) mayPropose() bool {
	return p.hasRoom(p.log.numbered+1) && !p.log.isFull(p.cfg.Window)
}

// hasRoom reports whether n is between the water marks, and its batch has room in the log.
func (p *proposing) hasRoom(n message.SeqNum) bool {
	return p.log.contains(n) && p.log.bytes+p.cfg.Batch.Bytes <= p.cfg.LogBytes
}

// chosen takes the answer to Choose: the batch is formed and proposed [TOCS §4.3, §7.2].
func (p *proposing) chosen(n message.SeqNum, choice []byte) {
	if !p.voting.choosing || n != p.log.numbered+1 {
		return // the view has changed since
	}
	p.voting.choosing = false
	if !p.mayPropose() {
		return // what the others decided in a later view has moved our marks past it
	}
	batch := message.Batch{Choice: choice,
		Requests: p.queue.take(room{p.cfg.Batch.Count, p.cfg.Batch.Bytes, p.cfg.Batch.Cost}, p.tick)}
	if len(batch.Requests) == 0 {
		return
	}
	p.voting.assign(batch)
}

// spellOut makes the primary propose in full, for a while, the operations of clients whose
// operations a backup lacked. Each batch with such an operation, and all batches behind it, would
// be late by the backup's patience.
func (p *proposing) spellOut(m *message.FetchBatch) {
	if !p.isPrimary() || !p.active {
		return
	}
	for n := p.log.next(); n <= min(p.log.numbered, p.log.high); n++ {
		made := p.log.slot(n).proposal
		if made == nil || !slices.Contains(m.Digests, made.Digest) {
			continue
		}
		for _, r := range made.Batch.Requests {
			if r.Length() > message.ShortOperation {
				p.queue.spellOut(r.Client, p.tick)
			}
		}
	}
}

// await makes the primary of an idle group propose null batches until a checkpoint is stable that
// holds all batches up to n, or up to the last one proposed if that is higher. It returns that
// number. Numbers above the window are not waited for. All replicas are asked, for each may be the
// primary; how many null batches this causes is bounded as with a silence of our own.
func (p *proposing) await(n message.SeqNum) message.SeqNum {
	last := max(p.log.numbered, p.log.lastExec)
	s := &p.silences.of[p.cfg.Self]
	s.until = max(s.until, last, min(n, p.log.high))
	p.propose()
	return last
}
