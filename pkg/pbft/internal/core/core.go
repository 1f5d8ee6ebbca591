// SPDX-License-Identifier: Apache-2.0

// Package core is the protocol, pure: a message or a tick goes in, effects come out. No
// clock, socket, disk, goroutine, lock, key or chance [TOCS §4].
//
// The caller has checked who sent a message and has put that into its From; the core asks only
// whether it may be said now. Handlers judge and record; advance alone decides what the votes mean.
//
// The core consists of parts. Each has the state that its rules are about, and stands on
// parts above it in this table only, so each can be read without those below it:
//
//	base.go                       Config; the view, the tick, the stable checkpoint; promises; effects and refusals
//	pace.go                       growing pauses, rate limits
//	pq.go  past.go  log.go        P and Q; past decisions; the slots between the water marks, and their votes
//	checkpoints.go                the claims of checkpoints, by replica
//	decision.go  change.go        the decision procedure; the VIEW-CHANGEs, acks and NEW-VIEWs at hand
//	journal.go                    records for a restart, written and read
//	status.go                     STATUS, and retransmission
//	silence.go                    silent and recovering replicas, and the null batches that they wait for
//	shares.go  transfer.go        shares of service, by replica; fetching the state
//	cost.go  pacing.go            what a request costs; how long the primary takes for a client's
//	demand.go                     how much of the time others want something
//	line.go  room.go  queue.go    the requests that wait, and how long they may be together
//	take.go  separate.go          filling a batch; operations that clients send to all replicas
//	forwards.go  waiting.go       FORWARDs; the view-change timer
//	turnaround.go                 how fast the primary is
//	bodies.go                     batches by digest
//	disputes.go                   votes and roots against the group's
//	execute.go                    execution in order, tentative execution, the ground of replies
//	judge.go  riding.go           judging votes; COMMITs that are held back
//	voting.go                     the normal case: PRE-PREPARE, PREPARE, COMMIT
//	propose.go                    requests on their way in, and numbers for them
//	stable.go                     CHECKPOINTs, and the stability of a checkpoint
//	viewchange.go                 leaving a view, and beginning one
//	testimony.go  recovery.go     the others' answers to a recovering replica; recovery
//	parts.go                      all parts: making, restoring and asking them
//	core.go                       the events: messages, ticks, answers to effects
//
// A part records what became true in it. Core.followUp does what follows from that in parts
// further down, when the event has been taken in. (go run ./test/arrows -v draws
// who uses whom.)
package core

import (
	"fmt"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Core is one replica's state of the protocol. It takes in what happens, hands it to the
// part that has rules for it, and does what follows in other parts.
type Core struct {
	*parts
	Answers
}

// New returns the core of a replica whose state is the initial one.
func New(cfg Config) *Core {
	p := newParts(cfg)
	return &Core{p, Answers{p}}
}

// Restore returns the core of a replica that was restarted and remembers. Its state is that of a
// checkpoint, zero if it is the initial one. Its journal has these records, in order, from after
// that checkpoint or an earlier one. The core continues where the records end: in the same view,
// with the same promises, and with the same VIEW-CHANGE and NEW-VIEW to send (R-OUR-4). Its first
// effects run the batches that are known to have committed. When they are performed, and Frozen has
// the roots of all checkpoints that they take, Resume lets it go on. Nothing else may be called
// before: the earlier life may have said that it holds these checkpoints, and a VIEW-CHANGE must
// name them.
func Restore(cfg Config, state message.CheckpointID, records []message.Message) *Core {
	c := New(cfg)
	c.restoring = true
	c.restore(state, records)
	return c
}

// Step takes in a message. Its sender was authenticated; a Request tells by its Authentic
// mark whether its client was.
func (c *Core) Step(m message.Message) {
	switch m := m.(type) {
	case *message.QueryStable:
		c.recovery.onQueryStable(m)
		return
	case *message.ReplyStable:
		if c.recovery.onReplyStable(m) {
			c.takePart()
		}
		return
	}
	if c.estimating() {
		c.refuse(m, Recovering)
		return
	}
	switch m := m.(type) {
	case *message.Request:
		c.proposing.onRequest(m)
	case *message.PrePrepare:
		c.voting.onPrePrepare(m)
	case *message.Prepare:
		c.voting.onPrepare(m)
	case *message.Commit:
		c.voting.onCommit(m)
	case *message.Checkpoint:
		c.stability.onCheckpoint(m)
	case *message.Status:
		c.onStatus(m)
	case *message.Fetch:
		c.catchUp.onFetch(m)
	case *message.Data:
		c.catchUp.onData(m)
	case *message.ViewChange:
		c.views.onViewChange(m)
	case *message.ViewChangeAck:
		c.views.onViewChangeAck(m)
	case *message.NewView:
		c.views.onNewView(m)
	case *message.Forward:
		c.proposing.onForward(m)
	case *message.FetchBatch:
		c.proposing.spellOut(m)
		c.bodies.serve(m)
	case *message.BatchBody:
		c.voting.onBatchBody(m)
	case *message.Decided:
		c.voting.onDecided(m)
	case *message.Recovered:
		c.recovery.onRecovered(m)
	default:
		panic(fmt.Sprintf("core: %v is not for the core", m.Type()))
	}
	c.followUp()
}

// Tick notes that one tick of time passed.
func (c *Core) Tick() {
	c.tick++
	if c.estimating() && !c.askEstimate() {
		return
	}
	c.recovery.askRecovery()
	c.wait.tickQueue()
	c.turnarounds.count()
	c.catchUp.tickTransfer(c.queue.busy.others(0, c.tick))
	c.views.tickWaiting(c.fillLate(), c.catchUp.fetching())
	c.followUp()
	c.silences.tickFills()
	c.voting.tickVotes()
	if (c.tick+int(c.cfg.Self))%c.cfg.Ticks.Status == 0 {
		c.turnarounds.judge()
		c.reports.sendStatus()
		c.leaveSlow()
	} else if !c.catchUp.fetching() {
		c.reports.closeGap()
	}
}

// Late says by how much a tick came too late: for so long the process waited for a processor.
func (c *Core) Late(by time.Duration) { c.turnarounds.lateness.note(by) }

// Effects takes what must now be done. The slice is good until the call after next.
func (c *Core) Effects() []Effect {
	if c.estimating() {
		return c.Due()
	}
	c.bodies.pull(c.voting.commit)
	c.proposing.propose()
	return c.Due()
}

// followUp does what follows from what the parts have recorded, in other parts: a
// checkpoint has become stable, or there is news of the view that is to begin. It ends: a
// checkpoint becomes stable once, and without a further message only the NEW-VIEWs that
// are here, two at most, can show that a view is to be left.
func (c *Core) followUp() {
	defer c.turnarounds.follow()
	for {
		switch {
		case c.stability.moved:
			c.stability.moved = false
			c.voting.placeChosen()
			if c.stability.ended {
				c.stability.ended = false
				c.endSilence()
			}
			// the view may have waited for batches that are behind us now, or for the
			// root of a checkpoint that we have passed
			c.change.news = true
		case c.change.news:
			c.views.begin()
		default:
			c.recovery.finish()
			return
		}
	}
}

// leave leaves the present view for view v.
func (c *Core) leave(v message.View) {
	c.views.leave(v)
	c.followUp()
}

// fillLate reports whether the primary of an idle group leaves a recovering replica waiting for
// null batches (R-PR-25). The primary itself finds that it does so if its last batch does not
// commit: the others cannot authenticate a request in it, and nobody's timer runs for that one.
func (c *Core) fillLate() bool {
	if !c.active || c.catchUp.fetching() || c.silent() {
		return false
	}
	since, patience := max(c.log.progress, c.wait.began), c.wait.patience()
	if c.isPrimary() {
		return c.silences.stuck(c.log.numbered > c.log.lastExec, since, patience)
	}
	return c.silences.late(since, patience)
}

// endSilence makes the statements that we may make from now on. The others have cast all their
// votes for the batches that came meanwhile, and a repeated vote of theirs has no effect, so we
// vote now. If we have left a view meanwhile, our VIEW-CHANGE is made now: it names the stable
// checkpoint that ended the silence.
func (c *Core) endSilence() {
	leaves := !c.active && c.view > c.fencedView
	c.promise(c.log.lastExec) // clients are answered from this state, and it holds checkpoints
	c.do(Effect{Verb: Speak})
	if leaves {
		c.views.sayViewChange()
		c.views.startPendingTimer()
	}
	if stable := c.stable; c.change.maySay(stable.Seq) {
		c.multicast(&stable) // others may lack our word for it
	}
	c.stability.sayCheckpoints()
	for n := c.log.low + 1; n <= c.log.high; n++ {
		c.voting.advance(c.log.slot(n))
	}
	c.execution.executeReady()
	c.reports.sendStatus()
}

// onStatus answers the STATUS of a replica, and notes in which view that is, and how long
// it is silent. A primary that is silent can do nothing for its view, nor can one that
// has left it and forgotten that it did. It cannot say so in a VIEW-CHANGE, so the others
// leave at this word of it, as they do when a primary steps down (R-VT-5).
func (c *Core) onStatus(m *message.Status) {
	c.silences.hear(m.From, m.SilentUntil)
	if m.From == c.primary() && c.active && (m.SilentUntil > 0 || m.View > c.view) {
		c.leave(c.view + 1)
	}
	c.wait.noteStatus(m)
	c.turnarounds.hear(m)
	c.leaveSlow()
	if v := c.wait.reached(); !c.active && v > c.view {
		c.leave(v) // too few of the others may have a VIEW-CHANGE to send: replicas that forgot theirs have none
	} else {
		c.views.startPendingTimer()
	}
	c.reports.onStatus(m)
}

// leaveSlow leaves the view of a primary that f+1 replicas find slow.
func (c *Core) leaveSlow() {
	if c.turnarounds.tooSlow() && !c.silent() {
		c.leave(c.view + 1)
	}
}

// StepDown leaves the view if we are its primary: the others follow at once, without
// waiting for their timers (R-VT-5).
func (c *Core) StepDown() {
	if c.active && c.isPrimary() && !c.silent() && !c.estimating() {
		c.leave(c.view + 1)
	}
}

// Resume lets a core go on that was restored. A primary leaves its view, whether or not that is
// known to have begun: its PRE-PREPAREs leave before anything is in the journal, so it may have
// made some that it does not know of. A fence that was raised says that it may have.
func (c *Core) Resume() {
	c.restoring = false
	if c.estimating() {
		c.askEstimate()
		return
	}
	c.goOn()
}

// askEstimate asks the others how far they have come. It reports whether we take part from now on.
func (c *Core) askEstimate() bool {
	if !c.recovery.askEstimate() {
		return false
	}
	c.takePart()
	return true
}

// takePart takes part in the protocol from now on: the bound of our recovery is known.
func (c *Core) takePart() {
	c.followUp()
	c.goOn()
	c.reports.sendStatus()
}

// goOn takes part in the protocol.
func (c *Core) goOn() {
	if m := c.change.newView; c.active && m != nil {
		c.log.numbered = max(c.log.numbered, m.Checkpoint.Seq+message.SeqNum(len(m.Chosen)))
	}
	c.log.numbered = max(c.log.numbered, c.log.low, c.log.lastExec)
	if c.silent() {
		return
	}
	if c.isPrimary() && c.views.mayHaveProposed(c.view) {
		c.leave(c.view + 1)
		return
	}
	c.voting.placeChosen()
	c.views.startPendingTimer()
	c.change.news = true
	c.followUp()
	c.execution.executeReady()
}

// Frozen says that our state after executing n has this root. The others are told [TOCS §4.4].
func (c *Core) Frozen(n message.SeqNum, root message.Digest) {
	c.stability.frozen(n, root)
	c.followUp()
}

// Fill gives a request that came without its operation the one that is here, if its client has sent
// that before. If it reports false the request is refused, and the client is to send it whole.
func (c *Core) Fill(r *message.Request) bool {
	if c.proposing.queue.fill(r) {
		return true
	}
	c.refuse(r, OperationMissing)
	return false
}

// NoEffect answers Execute for batch n: its i-th request, r, had no effect, because the state has
// the slot's answer to it, or to a later one, or because its client is not enrolled.
func (c *Core) NoEffect(n message.SeqNum, i int, r *message.Request, enrolled bool) {
	c.execution.noEffect(n, i, r, enrolled)
}

// Chosen answers Choose: the batch is formed and proposed [TOCS §4.3, §7.2].
func (c *Core) Chosen(n message.SeqNum, choice []byte) { c.proposing.chosen(n, choice) }

// Accepted answers Accept: the service finds the primary's choice reasonable, or does not.
func (c *Core) Accepted(p *message.PrePrepare, ok bool) {
	c.voting.judged(p, ok)
	c.turnarounds.follow()
}

// Signed answers Sign: the recovery request, signed, is for the group to order.
func (c *Core) Signed(r *message.Request) { c.recovery.signed(r) }

// Recovered says that the state has a recovery request of replica i: it was executed as
// part of batch n, or was in the fetched state.
func (c *Core) Recovered(i message.ReplicaID, n, bound message.SeqNum, t message.Timestamp) {
	c.recovery.recovered(i, n, bound, t)
	c.followUp()
}

// AnswerRecovery tells a recovering replica in which batch its request with timestamp t was.
func (c *Core) AnswerRecovery(i message.ReplicaID, n message.SeqNum, t message.Timestamp) {
	c.recovery.answer(i, n, t)
}

// Await makes the primary of an idle group propose null batches until a checkpoint is stable that
// holds all batches up to n, or up to the last one proposed if that is higher. It returns that
// number.
func (c *Core) Await(n message.SeqNum) message.SeqNum { return c.proposing.await(n) }

// KeysChanged says that a peer can open messages that we seal from now on, and perhaps none that we
// sealed before.
func (c *Core) KeysChanged(i message.ReplicaID) { c.reports.keysChanged(i) }

// KeysRefreshed says that a running peer has refreshed its keys.
func (c *Core) KeysRefreshed(i message.ReplicaID) { c.reports.keysRefreshed(i) }

// Fetching answers Fetch.
func (c *Core) Fetching(s Session) { c.catchUp.begin(s) }

// Installed answers Install: the state is that of the checkpoint now, and we go on from there.
func (c *Core) Installed(n message.SeqNum) {
	c.execution.installed(c.catchUp.end(n))
	c.stability.fetched()
	c.followUp()
	if !c.silent() {
		c.promise(n) // answers come from this state from now on
		c.persist()
		own := c.stable
		c.multicast(&own)
	}
	c.reports.sendStatus()
	c.execution.executeReady()
}

// Forget drops waiting requests that the fetched state shows to have been executed.
func (c *Core) Forget(executed func(r *message.Request) bool) { c.wait.drop(executed) }

// Retain forgets the clients that are no longer enrolled, and their waiting requests.
func (c *Core) Retain(has func(message.ClientID) bool) { c.forwards.retain(has) }

// ClientKeysChanged says that a client has restarted, or changed its keys. Its earlier
// requests are proposed when a quorum says that it holds them.
func (c *Core) ClientKeysChanged(client message.ClientID) { c.forwards.doubt(client) }

// StateSize says how many pages the state takes, about.
func (c *Core) StateSize(pages int) { c.catchUp.sized(pages) }

// Refreshed says that the others speak to us under new keys from now on. Their statements that were
// counted and do not make a whole certificate are forgotten, so that each certificate is made of
// statements of one epoch of our keys. Then the thieves of one epoch's keys and those of the next
// never count together (R-PR-6). Whole certificates stay (R-PR-7), and so do our own messages. The
// others repeat what we lack when they have our new key (KeysChanged), and whenever a STATUS asks.
func (c *Core) Refreshed() {
	c.forget(everyone)
	c.forwards.expire()
}

// RefreshedFor says that replica i speaks to us under a new key from now on, and the
// others under the keys that they have: somebody else may have spoken for replica i, and
// for no other. Its words alone are forgotten, as Refreshed forgets those of all.
func (c *Core) RefreshedFor(i message.ReplicaID) { c.forget(1 << i) }

// forget forgets what was counted of the words of some replicas and makes no whole
// certificate. All that is left came from the same owners of keys: those who speak for
// these replicas from now on find none of it.
func (c *Core) forget(these replicas) {
	for n := c.log.low + 1; n <= c.log.high; n++ {
		c.log.forgetVotes(c.base, c.log.slot(n), these)
	}
	c.checkpoints.forgetClaims(these)
	c.change.forgetOthers(these)
	c.forwards.forgetWords(these)
	c.wait.forgetViews(these)
	c.turnarounds.forget(these)
	c.recovery.forget(these)
}

// SayStatus tells the others what we lack. They have our new keys by now, or are about to.
func (c *Core) SayStatus() { c.reports.sendStatus() }
