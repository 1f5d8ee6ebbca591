// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// What tests may see of a core beside its effects. Nothing here changes it.

// Prepared is the digest for which the present view has a prepared certificate at n.
func (c *Core) Prepared(n message.SeqNum) (message.Digest, bool) {
	if !c.log.contains(n) {
		return message.Digest{}, false
	}
	s := c.log.slot(n)
	if !s.isPrepared {
		return message.Digest{}, false
	}
	return s.proposal.Digest, true
}

// Committed is the digest for which the present view has a committed certificate at n: it was not
// merely told that n was decided.
func (c *Core) Committed(n message.SeqNum) (message.Digest, bool) {
	d, ok := c.Prepared(n)
	return d, ok && c.log.slot(n).committedLocal(c.quorum())
}

// Ran is the batch that was executed as n, nil if n is not in the window or was not executed.
func (c *Core) Ran(n message.SeqNum) *message.Batch {
	if !c.log.contains(n) || n > c.log.lastExec {
		return nil
	}
	return c.log.slot(n).batch
}

// Beginning is the NEW-VIEW that the present view began with, or waits to begin with.
func (c *Core) Beginning() *message.NewView { return c.change.newView }

// Pending counts the requests that wait here.
func (c *Core) Pending() int { return c.queue.total }

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
func (c *Core) Sizes() (s Sizes) {
	s.Prepared, s.Preprepared, s.Bodies = len(c.pq.prepared), len(c.pq.preprepared), len(c.bodies.fetched)
	for _, q := range c.pq.preprepared {
		s.Digests = max(s.Digests, len(q))
	}
	for i := range c.reports.peers {
		s.Forwards = max(s.Forwards, len(c.wait.forwarded[i]))
		s.Unproven = max(s.Unproven, len(c.wait.unproven[i]))
	}
	s.Lines = len(c.queue.order)
	for _, l := range c.queue.order {
		s.Line, s.LineBytes = max(s.Line, len(l.fifo), len(l.costly.fifo)), max(s.LineBytes, l.bytes)
	}
	if c.catchUp.fetching() {
		s.Asks = len(c.catchUp.transfer.asked)
	}
	s.LogBytes, s.Held = c.log.bytes+c.log.past.bytes, len(c.riding.numbers)
	s.Overlooked = c.log.overlooked(c.bodies.underWay)
	return s
}

// overlooked counts the slots that a scan bounded by the marks would miss.
func (l *messageLog) overlooked(asked func(message.SeqNum) bool) (n int) {
	for i := range l.slots {
		s := &l.slots[i]
		if s.seq > l.proposedTo && (s.proposal != nil || s.held != nil || s.prepares.have != 0) || s.seq > l.decidedTo && (!s.chosen.IsZero() || s.decided.have != 0 || asked(s.seq)) {
			n++
		}
	}
	return n
}

// Holds reports whether a batch is here with all its operations.
func (c *Core) Holds(d message.Digest) bool {
	b := c.bodies.find(d)
	return b != nil && b.Complete()
}

// Lacks reports whether a proposal is held because operations of this batch are missing.
func (c *Core) Lacks(d message.Digest) (lacks bool) {
	c.bodies.eachLacking(func(s *slot) { lacks = lacks || s.held.Digest == d })
	return lacks
}

// Ahead is the number of the batch that was executed and is not known to have committed, 0 if there is none.
func (c *Core) Ahead() message.SeqNum { return c.ahead.seq }

// Low is the low water mark: the last stable checkpoint, or the one that the present view began from.
func (c *Core) Low() message.SeqNum { return c.log.low }

// Leaving is our VIEW-CHANGE for a view that has not begun here; nil if none is, or if an earlier life sent it.
func (c *Core) Leaving() *message.ViewChange {
	if c.active {
		return nil
	}
	return c.change.own
}
