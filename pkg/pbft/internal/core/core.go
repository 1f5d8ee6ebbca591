// SPDX-License-Identifier: Apache-2.0

// Package core is the protocol, pure: a message or a tick goes in, effects come out. No clock, socket, disk,
// goroutine, lock, key or chance [TOCS §4].
//
// The caller has checked who sent a message and has put that into its From; the core asks only
// whether it may be said now. Handlers judge and record; advance alone decides what the votes mean.
package core

import "bfs/pkg/pbft/internal/message"

// Core is one replica's state of the protocol.
type Core struct {
	*base
	execution
	riding   ridingCommits
	choosing bool // a Choose for the next number is under way
	silences silences

	log   messageLog
	queue queue

	checkpoints checkpoints

	pq      pq
	change  viewChange
	bodies  bodies
	shares  shares
	wait    waiting
	reports reports

	disputes []Dispute // by replica

	recovery recovery
	catchUp  catchUp
}

// New returns the core of a replica whose state is the initial one.
func New(cfg Config) *Core {
	c := &Core{base: newBase(cfg), pq: newPQ(), disputes: make([]Dispute, cfg.Replicas)}
	c.log.init(cfg.LogSize, cfg.Replicas)
	c.recovery.init(c.base)
	c.checkpoints.init(c.base, &c.log)
	c.silences = newSilences(c.base)
	c.execution = execution{base: c.base, log: &c.log, checkpoints: &c.checkpoints, queue: &c.queue, wait: &c.wait}
	c.riding = ridingCommits{base: c.base, log: &c.log}
	c.shares = newShares(cfg.Replicas)
	c.catchUp = catchUp{base: c.base, log: &c.log, checkpoints: &c.checkpoints, reports: &c.reports, shares: &c.shares, shunned: make(shunned, cfg.Replicas)}
	c.bodies.init(c.base, &c.log, &c.pq, &c.shares, c.catchUp.shunned)
	c.queue.init(cfg.Slots, cfg.QueueBytes)
	c.queue.costly.allowance = costPerTick
	c.change.init(c.base, &c.log)
	c.reports.init(c.base, &c.log, &c.checkpoints, &c.change)
	c.wait.init(c.base, &c.queue, &c.log)
	return c
}

// View is the view this replica is in, and whether it is active.
func (c *Core) View() (v message.View, active bool) { return c.view, c.active }

// LastExecuted is the number up to which batches have committed and were executed.
func (c *Core) LastExecuted() message.SeqNum { return c.log.lastExec }

// LastProposed returns the last number for which this replica has made or accepted a proposal.
func (c *Core) LastProposed() message.SeqNum { return c.log.numbered }

// SilentUntil is the checkpoint that must be stable before this replica votes, 0 if it votes.
func (c *Core) SilentUntil() message.SeqNum { return c.silentUntil() }

// Transferring reports whether the state is being fetched from the others.
func (c *Core) Transferring() bool { return c.catchUp.fetching() }

// Stable is the last stable checkpoint.
func (c *Core) Stable() message.Checkpoint { return c.stable }

// Keeps is the lowest checkpoint that the state must keep: the stable one, or the last that it has
// come to if that is lower.
func (c *Core) Keeps() message.SeqNum { return min(c.stable.Seq, c.checkpoints.taken) }

// LogBytes is the length of the operations in the log.
func (c *Core) LogBytes() int { return c.log.bytes }

// Peer returns what replica i last said of itself.
func (c *Core) Peer(i message.ReplicaID) (low, lastExecuted message.SeqNum) {
	return c.reports.peers[i].low, c.reports.peers[i].lastExec
}

// SilenceOf is the checkpoint that must be stable before replica i votes, as it said last; 0: it votes.
func (c *Core) SilenceOf(i message.ReplicaID) message.SeqNum { return c.silences.of[i].until }

// Forgets reports whether the state may be older than one that we have answered from: it is being
// fetched, or it was read from a disk and the last batches are not known to have committed. Others
// may then know from our answers what the state does not know.
func (c *Core) Forgets() bool { return c.catchUp.fetching() || c.readsBehind() }

// UnderWay returns the lowest number that was proposed or voted for and not executed, tentatively
// or not; 0 if there is none.
func (c *Core) UnderWay() message.SeqNum {
	for n := max(c.log.lastExec, c.ahead.seq, c.log.low) + 1; n <= min(max(c.log.proposedTo, c.log.decidedTo), c.log.high); n++ {
		if s := c.log.slot(n); s.proposal != nil || s.held != nil || s.prepares.have != 0 || c.bodies.underWay(n) {
			return n
		}
	}
	return 0
}

// Idle reports whether ticks would bring nothing forward but STATUSes and COMMITs that nobody waits
// for. The caller may then tick later, several times at once.
func (c *Core) Idle() bool {
	return c.active && !c.catchUp.fetching() && c.phase == NotRecovering && c.queue.total == 0 && !c.wait.on && c.UnderWay() == 0 && !c.silences.fillDue()
}

// Cost is what a request costs at most, in bytes copied.
func (c *Core) Cost(r *message.Request) int { return c.cost(r) }

// Contended reports whether a client other than this one was served a moment ago. What this one does beyond the
// common is at others' expense then.
func (c *Core) Contended(client message.ClientID) bool { return c.queue.busy.others(client, c.tick) }

// LeftFor is the highest view for which replica i has sent a VIEW-CHANGE, as far as we know: one that has
// been forgotten here since may be used elsewhere.
func (c *Core) LeftFor(i message.ReplicaID) message.View {
	if m := c.change.latest(int(i)); m != nil {
		return max(m.View, c.change.left[i])
	}
	return c.change.left[i]
}

// Await makes the primary of an idle group propose null batches until a checkpoint is stable that
// holds all batches up to n, or up to the last one proposed if that is higher. It returns that
// number. Numbers above the window are not waited for. All replicas are asked, for each may be the
// primary; how many null batches this causes is bounded as with a silence of our own.
func (c *Core) Await(n message.SeqNum) message.SeqNum {
	last := max(c.log.numbered, c.log.lastExec)
	s := &c.silences.of[c.cfg.Self]
	s.until = max(s.until, last, min(n, c.log.high))
	c.propose()
	return last
}

// KeysChanged says that a peer can open messages that we seal from now on, and perhaps none that we
// sealed before.
func (c *Core) KeysChanged(i message.ReplicaID) { c.reports.keysChanged(i) }

// KeysRefreshed says that a running peer has refreshed its keys.
func (c *Core) KeysRefreshed(i message.ReplicaID) { c.reports.keysRefreshed(i) }

// Fetching answers Fetch.
func (c *Core) Fetching(s Session) { c.catchUp.begin(s) }
