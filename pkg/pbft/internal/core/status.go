// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// noticeLag sends a STATUS out of turn, if one is due, when a message shows that we have missed something.
func (c *Core) noticeLag() {
	if c.reports.overdue() {
		c.sendStatus()
	}
}

// sendStatus tells the others where we stand.
func (c *Core) sendStatus() {
	c.reports.said()
	m := &message.Status{View: c.view, Active: c.active, Low: c.log.low, LastExecuted: c.log.lastExec, SilentUntil: c.SilentUntil(), From: c.cfg.Self}
	base := m.Base()
	for n := base + 1; n <= c.log.high; n++ {
		if s := c.log.slot(n); s.isCommitted {
			m.Committed = m.Committed.Set(int(n - base - 1))
		}
		if s := c.log.slot(n); s.isPrepared {
			m.Prepared = m.Prepared.Set(int(n - base - 1))
		}
	}
	if !c.active {
		m.HasNewView = c.change.newView != nil
		for j := range c.reports.peers {
			if c.change.hasViewChange(message.ReplicaID(j)) {
				m.ViewChanges |= 1 << j
			}
		}
	}
	c.multicast(m)
}

// resendBytes bounds what one STATUS can make us send, in bytes of operations.
const resendBytes = 2 << 20

// onStatus sends again what the sender of a STATUS lacks and we said: only our own messages, under the newest
// keys, and not what left a moment ago (R-RTX-4).
func (c *Core) onStatus(m *message.Status) {
	p := &c.reports.peers[m.From]
	p.low, p.lastExec = m.Low, m.LastExecuted
	p.stuck.note(c.tick, m.View == c.view && !m.Active)
	rekeyed := p.rekeyed
	if p.rekeyed = false; !c.reports.mayAsk(m) && !rekeyed {
		c.refuse(m, TooSoon)
		return
	}
	if m.View > c.view {
		c.noticeLag() // and tell it the decisions all the same: it may wait in that view alone
	}
	c.resendCheckpoints(m)
	if m.View < c.view || m.View == c.view && !m.Active {
		c.resendViewChange(m)
	}
	c.tellPast(m)
	refused := c.log.high // above this
	if high := m.Low + c.cfg.LogSize; high > p.high {
		if m.LastExecuted <= m.Low {
			refused = p.high // it has just installed a checkpoint, and its window had ended there
		}
		p.high = high
	}
	budget := resendBytes
	// The sender would refuse numbers above its window: it needs our state first.
	for n := max(m.Base(), c.log.low) + 1; n <= min(c.log.high, m.Low+c.cfg.LogSize) && budget > 0; n++ {
		s := c.log.slot(n)
		budget -= c.resend(m, s, rekeyed || n > refused || s.sent.allows(c.tick))
	}
}

// resendViewChange helps the sender of a STATUS into our view: our own VIEW-CHANGE, what we acknowledge, and from the
// primary its NEW-VIEW and the VIEW-CHANGEs of others that it names (R-RTX-4): the sender's own too, which it
// does not have if it was restarted since.
func (c *Core) resendViewChange(m *message.Status) {
	x := &c.change
	has := func(j message.ReplicaID) bool { return m.View == c.view && m.ViewChanges&(1<<j) != 0 }
	if x.own != nil && !has(c.cfg.Self) {
		c.send(m.From, x.own)
	}
	if m.View < c.view {
		return
	}
	if nv := x.newView; c.isPrimary() && nv != nil {
		if !m.HasNewView {
			c.send(m.From, nv)
		}
		for _, v := range nv.V {
			if vc := x.last[v.From]; v.From != c.cfg.Self && !has(v.From) && vc != nil && x.digests[v.From] == v.Digest {
				c.send(m.From, vc)
			}
		}
		return
	}
	for j := range x.last {
		if a := c.change.ackFor(message.ReplicaID(j)); a != nil && !has(a.Of) {
			c.send(m.From, a)
		}
	}
	if c.reports.peers[m.From].stuck.tells(c.tick) {
		c.tellNewView(m.From, has)
	}
}

// tellNewView tells a replica that has waited in our view for long how it began, and with which
// VIEW-CHANGEs: its primary may tell everyone but that one. It believes f+1 of us. Ours it has from
// resendViewChange; if we have forgotten the one that the view began with, others bring it.
func (c *Core) tellNewView(to message.ReplicaID, has func(message.ReplicaID) bool) {
	x := &c.change
	if x.newView == nil || !c.active || c.silent() {
		return
	}
	told := *x.newView
	told.From = c.cfg.Self
	c.send(to, &told)
	for _, v := range told.V {
		if vc := x.last[v.From]; v.From != c.cfg.Self && !has(v.From) && vc != nil && x.digests[v.From] == v.Digest {
			c.send(to, vc)
		}
	}
}

func (c *Core) resendCheckpoints(m *message.Status) {
	if c.silent() {
		return
	}
	if c.stable.Seq > m.Low {
		stable := c.stable
		c.send(m.From, &stable)
	}
	c.checkpoints.each(m.Low, func(k message.CheckpointID) {
		if c.change.maySay(k.Seq) {
			c.send(m.From, &message.Checkpoint{Seq: k.Seq, Digest: k.Digest, From: c.cfg.Self})
		}
	})
}

// resend sends our own messages of one slot that the sender of the STATUS does not have, unless
// they are under way to it. It also sends the decision, because the sender may have been kept out
// of the voting (R-HD-15). It returns the bytes of operations sent.
func (c *Core) resend(m *message.Status, s *slot, lost bool) (bytes int) {
	k := int(s.seq - m.Base() - 1)
	if m.View == c.view && m.Committed.Get(k) {
		return 0
	}
	if s.isCommitted && s.seq <= c.log.lastExec {
		c.send(m.From, &message.Decided{Seq: s.seq, Digest: s.decision, From: c.cfg.Self})
	}
	if s.proposal == nil || m.View != c.view || !m.Active || !lost {
		return 0
	}
	if !m.Prepared.Get(k) {
		if c.isPrimary() {
			c.send(m.From, s.proposal)
			bytes = s.size + 64
		}
		if s.prepares.has(c.cfg.Self) {
			vote := s.ownPrepare // a copy: the slot may be reset before it is sent
			c.send(m.From, &vote)
		}
	}
	if s.commits.has(c.cfg.Self) && !slices.Contains(c.riding.numbers, s.seq) { // a COMMIT that is held back will be sent to all
		vote := s.ownCommit
		c.send(m.From, &vote)
	}
	return bytes
}

// KeysChanged says that a peer can open messages that we seal from now on, and perhaps none that we
// sealed before: we send it our messages above its last known execution again (R-OUR-9). A peer
// whose keys change all the time waits for the answer to its STATUS.
func (c *Core) KeysChanged(i message.ReplicaID) {
	if c.estimating() || !c.reports.peers[i].keyed.take(c.tick, c.cfg.ResendTicks, 1) {
		return
	}
	c.reports.peers[i].high = c.cfg.LogSize // it may have another life, and begin again
	all := &message.Status{View: c.view, Active: c.active, LastExecuted: max(c.log.low, min(c.reports.peers[i].lastExec, c.log.lastExec)), Low: c.reports.peers[i].low, From: i}
	c.resendCheckpoints(all)
	if c.view > 0 && !c.active {
		c.resendViewChange(all)
	}
	budget := resendBytes
	for n := max(all.Base(), c.log.low) + 1; n <= c.log.high && budget > 0; n++ {
		budget -= c.resend(all, c.log.slot(n), true)
	}
}

// tellPast tells the sender of a STATUS the decisions that it has not executed and that our log no
// longer has.
func (c *Core) tellPast(m *message.Status) {
	p := &c.log.past
	for n := max(m.Base(), p.low) + 1; n <= min(p.high, m.Low+c.cfg.LogSize); n++ {
		c.send(m.From, &message.Decided{Seq: n, Digest: p.entry(n).digest, From: c.cfg.Self})
	}
}

// closeGap asks for the batches missing below the present proposals: a primary proposes no more
// than its window beyond what it has executed. The gap is short, and others may need our votes
// above it, so we do not wait for the resend interval.
func (c *Core) closeGap() {
	if c.transfer == nil && c.active && c.log.numbered > c.log.lastExec+c.cfg.Window &&
		c.tick-c.log.progress >= gapTicks && c.reports.gap.allows(c.tick) {
		c.sendStatus()
	}
}

// fetchState begins to fetch a checkpoint whose root is certain, or follows to it.
func (c *Core) fetchState(target message.CheckpointID) {
	if t := c.transfer; t != nil {
		if t.seq < target.Seq && !t.done { // a fetched state is being installed, and the next is fetched after that
			t.retarget(target)
		}
		return
	}
	c.transfer = &transfer{base: c.base, shunned: c.shunned, seq: target.Seq, root: target.Digest}
	c.do(Effect{Verb: Fetch, Seq: target.Seq, Digest: target.Digest})
}
