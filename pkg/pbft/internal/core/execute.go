// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// tentative is the batch that was executed when it had prepared and is not known to have committed:
// number lastExec+1, if there is one. It stays tentative across views until its number commits.
// Most often the same batch commits, and it was executed already; otherwise it is rolled back first
// [TOCS §6.1; R-OPT-TE-4, R-OUR-16].
//
// A checkpoint is taken when its batch commits. No later batch was executed by then, so no
// checkpoint is ever tentative (R-OPT-TE-5 has no case here).
type tentative struct {
	seq     message.SeqNum // 0: nothing
	view    message.View   // in which it prepared
	digest  message.Digest
	batch   *message.Batch
	repeats []int              // which of its requests had no effect
	denied  []*message.Request // of these, the requests whose clients were not enrolled
}

// execution knows what was executed here, and on what ground the replies stand.
type execution struct {
	*base
	log         *messageLog
	checkpoints *checkpoints
	catchUp     *catchUp
	journal     *journal
	queue       *queue
	wait        *waiting
	ahead       tentative // what was executed beyond log.lastExec
	// an earlier life may have answered reads from the state after this batch: it was
	// executed, or had prepared
	remembered message.SeqNum
}

// executeReady executes what can be executed, unless the state is being replaced.
func (x *execution) executeReady() {
	if !x.fetching() {
		x.executeNext()
	}
}

// fetching reports whether the state is being replaced: nothing is executed then.
func (x *execution) fetching() bool { return x.catchUp.fetching() }

// executeNext executes committed batches, strictly in order (R-NRM-8), takes a checkpoint when one
// is due [TOCS §4.4], and goes one batch further if that has prepared.
func (x *execution) executeNext() {
	for x.log.contains(x.log.lastExec + 1) {
		s := x.log.slot(x.log.lastExec + 1)
		if !s.isCommitted {
			x.executeTentatively(s)
			return
		}
		x.journal.decided(s)
		var denied []*message.Request
		switch x.ahead.seq {
		case 0:
			x.execute(s.seq, s.batch, x.standing(s))
		default:
			denied = x.confirm(s)
		}
		x.finish(s)
		for _, r := range denied {
			x.undo(r, s.seq)
		}
	}
}

// execute has a batch run. Its replies are promises, and so is every answer from the
// state that it leaves.
func (x *execution) execute(n message.SeqNum, b *message.Batch, st Standing) {
	if !x.silent() {
		x.promise(n)
	}
	x.do(Effect{Verb: Execute, Seq: n, Batch: b, Standing: st, Mute: x.silent()})
}

// finish follows an execution that will stay.
func (x *execution) finish(s *slot) {
	x.log.progress = x.tick
	for i, r := range s.batch.Requests {
		x.queue.serves(r.Client, x.tick)
		x.queue.executed(r, s.seq, i)
	}
	x.wait.executed(s.batch)
	x.ran(s.seq, s.batch)
}

// ran notes that batch n was executed, and takes a checkpoint when one is due.
func (x *execution) ran(n message.SeqNum, b *message.Batch) {
	x.log.lastExec = n
	x.checkpoints.since += b.Bytes()
	if x.checkpoints.isDue(n, x.checkpoints.since) {
		x.freeze(n)
	}
}

// willBeDue reports whether a batch that has prepared will bring a checkpoint.
func (x *execution) willBeDue(s *slot) bool { return x.checkpoints.willBeDue(s) }

// freeze takes a checkpoint of the state after batch n.
func (x *execution) freeze(n message.SeqNum) {
	x.checkpoints.taken, x.checkpoints.since = n, 0
	if x.log.contains(n) {
		x.checkpoints.at(n).due = true
	}
	x.do(Effect{Verb: Freeze, Seq: n})
}

// executeTentatively executes a batch that has prepared, all before it having committed
// (R-OPT-TE-1). A client that gets such replies from a quorum knows that the batch will commit:
// these replicas hold prepared certificates, which no view change can overlook. Requests of the
// administrator or of a recovering replica wait for the commit, because they decide who is answered
// at all.
func (x *execution) executeTentatively(s *slot) {
	if !x.cfg.Tentative || !s.isPrepared || x.ahead.seq != 0 || !x.active || x.silent() ||
		administrative(&s.proposal.Batch) {
		return
	}
	x.ahead = tentative{seq: s.seq, view: x.view, digest: s.proposal.Digest, batch: &s.proposal.Batch}
	x.execute(s.seq, x.ahead.batch, Standing{x.view, s.seq, true})
}

func administrative(b *message.Batch) bool {
	return slices.ContainsFunc(b.Requests, func(r *message.Request) bool { return r.Client.Signs() })
}

// confirm ends the wait of the batch that was executed tentatively: its number has committed. It
// returns the requests of that batch whose clients were not enrolled.
func (x *execution) confirm(s *slot) (denied []*message.Request) {
	a := x.ahead
	invariant(a.seq == s.seq, "a tentative execution out of order")
	x.ahead = tentative{}
	if a.digest == s.decision {
		x.do(Effect{Verb: Confirm, Seq: s.seq})
		return a.denied
	}
	// Clients that believed our reply had it from fewer than a quorum. All since the last
	// checkpoint is executed again.
	x.do(Effect{Verb: Rollback, Seq: x.checkpoints.taken})
	for n := x.checkpoints.taken + 1; n < s.seq; n++ {
		x.do(Effect{Verb: Repeat, Seq: n, Batch: x.log.slot(n).batch})
	}
	x.execute(s.seq, s.batch, x.standing(s))
	return nil
}

// noEffect notes that the i-th request of batch n had no effect. A primary may propose a request
// again and again and never let the last of these batches commit, so what was answered before
// does not wait for that. A request whose client was not enrolled may come again once the client
// is, and must not pass for done then.
func (x *execution) noEffect(n message.SeqNum, i int, r *message.Request, enrolled bool) {
	ahead := x.ahead.seq == n
	if ahead {
		x.ahead.repeats = append(x.ahead.repeats, i)
	}
	switch {
	case enrolled:
	case ahead: // it is noted as done when the batch has committed
		x.ahead.denied = append(x.ahead.denied, r)
	default:
		x.undo(r, n)
	}
}

// undo notes that a request had no effect in batch n, which was executed here.
func (x *execution) undo(r *message.Request, n message.SeqNum) {
	if l := x.queue.find(r.Client); l != nil {
		l.undo(r, n)
	}
}

// installed: the state is that of the checkpoint that was fetched now. What was executed
// tentatively was its number at most.
func (x *execution) installed(k message.CheckpointID) {
	x.ahead = tentative{}
	x.log.lastExec, x.log.progress = k.Seq, x.tick
	x.log.numbered = max(x.log.numbered, k.Seq)
	x.checkpoints.installed(k)
}

// trustState has reads answered from the present state. Else a replica that has recovered
// would wait for a batch that never existed, and answer none.
func (x *execution) trustState() { x.remembered = min(x.remembered, x.log.lastExec) }

// last is the last batch that was executed, tentatively or not.
func (x *execution) last() message.SeqNum { return max(x.log.lastExec, x.ahead.seq) }

// readsBehind reports whether a read that is answered now could miss what an earlier life
// has answered.
func (x *execution) readsBehind() bool { return x.last() < x.remembered }

// standing is the ground for the replies of a batch that committed.
func (x *execution) standing(s *slot) Standing {
	if s.isPrepared && !x.silent() && s.proposal.Digest == s.decision {
		return Standing{View: x.view, Seq: s.seq}
	}
	return Standing{View: x.view}
}

// standingOf is the ground on which the answer to a request that was executed can be
// repeated. It is not ok if it is not certain yet that the request was superseded, or if
// effects are still to be performed, so that the state is not up to date. A Rollback may
// be among them: then the state has a tentative execution of a batch that we know has not
// committed.
func (x *execution) standingOf(q *message.Request) (st Standing, ok bool) {
	if len(x.out) > 0 {
		return st, false
	}
	if x.ahead.seq != 0 {
		for i, r := range x.ahead.batch.Requests {
			if r.Key() == q.Key() && !slices.Contains(x.ahead.repeats, i) {
				return Standing{x.ahead.view, x.ahead.seq, true}, r.Timestamp == q.Timestamp
			}
		}
	}
	return Standing{View: x.view}, true
}

// ground is the ground of an answer to a read of the given version: the number of the
// last batch in the state that changed anything the answer depends on, or of a later one
// (R-OUR-22). The answer can be given before that batch is known to have committed: a
// quorum that has prepared the same makes it certain to commit, and no reader has to wait
// for COMMITs (the paper's R-OPT-RO-2 does).
func (x *execution) ground(version message.SeqNum) Standing {
	if version > 0 && version == x.ahead.seq {
		return Standing{x.ahead.view, version, true}
	}
	if x.log.contains(version) {
		return x.standing(x.log.slot(version))
	}
	return Standing{View: x.view}
}
