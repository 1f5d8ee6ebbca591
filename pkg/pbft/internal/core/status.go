package core

import "bfs/pkg/pbft/internal/message"

// noticeLag sends a STATUS out of turn when a message shows that we have missed something, at most once
// per resend interval (R-RTX-1).
func (c *Core) noticeLag() {
	if c.tick-c.lagging >= c.cfg.ResendTicks {
		c.lagging = c.tick
		c.sendStatus()
	}
}

// sendStatus tells the others where we stand.
func (c *Core) sendStatus() {
	m := &message.Status{View: c.view, Active: c.active, Low: c.log.low, LastExecuted: c.lastExec, From: c.cfg.Self}
	for n := c.lastExec + 1; n <= c.log.high; n++ {
		if s := c.log.slot(n); s.isCommitted {
			m.Committed = m.Committed.Set(int(n - c.lastExec - 1))
		}
		if s := c.log.slot(n); s.isPrepared {
			m.Prepared = m.Prepared.Set(int(n - c.lastExec - 1))
		}
	}
	c.multicast(m)
}

// resendBytes bounds what one STATUS can make us send, in bytes of operations.
const resendBytes = 2 << 20

// onStatus sends again what the sender of a STATUS lacks and we said: only our own messages, under the newest
// keys, and not what left a moment ago (R-RTX-4).
func (c *Core) onStatus(m *message.Status) {
	p := &c.peers[m.From]
	p.low, p.lastExec = m.Low, m.LastExecuted
	switch {
	case m.View != c.view:
		c.refuse(m, laterOrEarlier(m.View, c.view))
		return
	case c.tick-p.answered < c.cfg.ResendTicks:
		c.refuse(m, TooSoon)
		return
	}
	p.answered = c.tick
	c.resendCheckpoints(m)
	budget := resendBytes
	// What is above the sender's window it would refuse: it needs our state first.
	for n := max(m.LastExecuted, c.log.low) + 1; n <= min(c.log.high, m.Low+c.cfg.LogSize) && budget > 0; n++ {
		budget -= c.resend(m, c.log.slot(n))
	}
}

func laterOrEarlier(theirs, ours message.View) Refusal {
	if theirs > ours {
		return LaterView
	}
	return EarlierView
}

func (c *Core) resendCheckpoints(m *message.Status) {
	if c.stable.Seq > m.Low {
		stable := c.stable
		c.send(m.From, &stable)
	}
	for n := c.log.low + c.cfg.CheckpointPeriod; n <= c.lastExec; n += c.cfg.CheckpointPeriod {
		if k := c.checkpoint(n); k.ours && n > m.Low {
			c.send(m.From, &message.Checkpoint{Seq: n, Digest: k.votes.digests[c.cfg.Self], From: c.cfg.Self})
		}
	}
}

// resend sends our own messages of one slot that the sender of the STATUS does not have. It returns the
// bytes of operations sent.
func (c *Core) resend(m *message.Status, s *slot) (bytes int) {
	k := int(s.seq - m.LastExecuted - 1)
	if s.proposal == nil || m.Committed.Get(k) || c.tick-s.sentAt < c.cfg.ResendTicks {
		return 0
	}
	if !m.Prepared.Get(k) {
		switch {
		case c.isPrimary():
			c.send(m.From, s.proposal)
			bytes = s.size + 64
		case s.prepares.has(c.cfg.Self):
			vote := s.ownPrepare // a copy: the slot may be reset before it is sent
			c.send(m.From, &vote)
		}
	}
	if s.commits.has(c.cfg.Self) {
		vote := s.ownCommit
		c.send(m.From, &vote)
	}
	return bytes
}

// KeysChanged says that a peer can open what we seal from now on, and perhaps nothing of what we sealed
// before: it gets our messages above its last known execution again (R-OUR-9).
func (c *Core) KeysChanged(i message.ReplicaID) {
	all := &message.Status{View: c.view, LastExecuted: max(c.log.low, min(c.peers[i].lastExec, c.lastExec)), Low: c.peers[i].low, From: i}
	c.resendCheckpoints(all)
	budget := resendBytes
	for n := all.LastExecuted + 1; n <= c.log.high && budget > 0; n++ {
		s := c.log.slot(n)
		s.sentAt = c.tick - c.cfg.ResendTicks
		budget -= c.resend(all, s)
	}
}
