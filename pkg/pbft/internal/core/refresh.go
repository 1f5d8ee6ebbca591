// SPDX-License-Identifier: Apache-2.0

package core

import (
	"maps"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// Refreshed says that the others speak to us under new keys from now on. Their statements that were
// counted and do not make a whole certificate are forgotten, so that each certificate is made of
// statements of one epoch of our keys. Then the thieves of one epoch's keys and those of the next
// never count together (R-PR-6). Whole certificates stay (R-PR-7), and so do our own messages. The
// others repeat what we lack when they have our new key (KeysChanged), and whenever a STATUS asks.
func (c *Core) Refreshed() {
	for n := c.log.low + 1; n <= c.log.high; n++ {
		c.forgetVotes(c.log.slot(n))
	}
	c.checkpoints.forgetClaims()
	c.change.forgetOthers()
	c.wait.forgetReports()
	c.recovery.forgetAnswers()
	c.queue.expire(func(r *message.Request) bool { return c.wait.forwards(r) >= c.weak() })
}

// SayStatus tells the others what we lack. They have our new keys by now, or are about to.
func (c *Core) SayStatus() { c.sendStatus() }

// KeysRefreshed says that a running peer has refreshed its keys. Its next STATUS says what it has
// forgotten, and is answered at once with all of it: messages that left a moment ago were lost.
func (c *Core) KeysRefreshed(i message.ReplicaID) {
	p := &c.reports.peers[i]
	p.rekeyed = p.rekeyed || p.keyed.take(c.tick, c.cfg.ResendTicks, 1)
}

// forgetVotes forgets the others' statements about a number: PREPAREs if it has not prepared,
// COMMITs if it has not committed, DECIDEDs if it was not decided. A proposal that we have voted
// for stays, because a later view must find it in Q; but the primary has to make it again before it
// prepares here. (In disk mode the PREPAREs are a quorum, whoever proposed.)
func (c *Core) forgetVotes(s *slot) {
	if s.proposal == nil && s.held != nil {
		c.log.bytes -= s.size
		s.held, s.size = nil, 0
	}
	if !s.isPrepared {
		s.prepares.retain(1 << c.cfg.Self)
		s.unconfirmed = s.proposal != nil && s.chosen != s.proposal.Digest && !c.isPrimary() && !c.cfg.Durable
	}
	if s.isCommitted {
		return
	}
	s.commits.retain(1 << c.cfg.Self)
	d, decided := s.decided.with(c.weak())
	for i := range s.decided.digests {
		if !decided || s.decided.digests[i] != d {
			s.decided.retain(^(uint32(1) << i))
		}
	}
}

// retain forgets the votes of all replicas but these.
func (v *votes) retain(these uint32) { v.have &= these }

// confirm takes the primary's repeated proposal, when the slot has the same one from an earlier
// epoch.
func (c *Core) confirm(p *message.PrePrepare) bool {
	s := c.log.slot(p.Seq)
	if !s.unconfirmed || s.proposal.Digest != p.Digest {
		return false
	}
	s.unconfirmed = false
	c.advance(s)
	return true
}

// forgetClaims forgets the others' claims of checkpoints that these claims do not prove stable.
func (x *checkpoints) forgetClaims() {
	for i := range x.ring {
		v := &x.ring[i].votes
		if _, whole := v.with(x.quorum()); !whole {
			v.retain(1 << x.cfg.Self)
		}
	}
	proven := make([][]message.Checkpoint, len(x.claims.of))
	for i, all := range x.claims.of {
		for _, k := range all {
			if x.claims.provenStable(message.CheckpointID{Seq: k.Seq, Digest: k.Digest}) {
				proven[i] = append(proven[i], k)
			}
		}
	}
	x.claims.of = proven
}

// forgetOthers forgets the others' messages about views that have not begun. The VIEW-CHANGEs with
// which the present view began are a whole certificate, as are those with which we began it as its
// primary; others may need them from us.
func (x *viewChange) forgetOthers() {
	ours := x.newView != nil && x.isPrimary()
	if !x.active && !ours {
		x.forgetNewView()
	}
	x.later = nil
	clear(x.next)
	clear(x.told)
	clear(x.relayed)
	for i := range x.last {
		clear(x.acks[i])
		if message.ReplicaID(i) != x.cfg.Self && !x.named(i) {
			x.last[i], x.digests[i] = nil, message.Digest{}
		}
	}
}

// named reports whether the NEW-VIEW that we hold was made of the VIEW-CHANGE that we have of replica i.
func (x *viewChange) named(i int) bool {
	held := message.Vouched{From: message.ReplicaID(i), Digest: x.digests[i]}
	return x.newView != nil && slices.Contains(x.newView.V, held)
}

// forgetAnswers forgets the others' answers that do not make an estimate or a recovery point yet.
func (x *recovery) forgetAnswers() {
	for i := range x.answers {
		if message.ReplicaID(i) == x.cfg.Self {
			continue
		}
		if x.estimating() {
			x.estimates[i] = estimate{}
		}
		if x.point == 0 {
			x.answers[i] = nil
		}
	}
}

// forgetReports forgets the FORWARDs for requests that fewer than f+1 vouch for, ours among them
// because it relies on a client's old key. It also forgets in which views others said that they
// are.
func (w *waiting) forgetReports() {
	whole := make([]map[message.RequestKey]forward, len(w.forwarded))
	for i, m := range w.forwarded {
		whole[i] = maps.Clone(m)
		maps.DeleteFunc(whole[i], func(k message.RequestKey, f forward) bool { return w.vouches(k, f) < w.weak() })
	}
	w.forwarded = whole
	clear(w.working)
	clear(w.pending)
}

// expire marks the pending requests that nothing but a client's old MAC authenticates. They are not
// proposed, and we vouch for none of them, until the client has sent them again. But they go on
// waiting, and their timer runs on (R-OUR-10). Requests that f+1 vouch for stay as they are, and so
// do the administrator's, which are signed.
func (q *queue) expire(vouched func(*message.Request) bool) {
	q.each(func(l *line, r *message.Request) bool {
		if r.Client != message.Administrator && !vouched(r) {
			if l.proposable(r) {
				q.waiting--
			}
			l.expired[r.Slot] = true
		}
		return true
	})
}

// vouch makes a pending request whose client's MAC has expired count again: f+1 replicas say that
// they hold it.
func (q *queue) vouch(r *message.Request) {
	l := q.find(r.Client)
	if l == nil || l.pending[r.Slot] != r || !l.expired[r.Slot] {
		return
	}
	if l.expired[r.Slot] = false; l.proposable(r) {
		q.offer(l, r)
	}
}

// replaces reports whether a request takes the place of the one that its slot has waiting: it is a later one,
// or that has expired and may never have been the client's wish.
func (l *line) replaces(old, r *message.Request) bool {
	return old == nil || r.Timestamp > old.Timestamp || l.expired[r.Slot]
}

// sameWish reports whether two requests of one slot are copies of one.
func sameWish(a, b *message.Request) bool {
	return a.Timestamp == b.Timestamp && a.Digest() == b.Digest()
}

// renew gives a pending request the authenticator of a later copy, which its client has made for the replicas
// whose keys have changed since: it is proposed with that one (R-OUR-10).
func renew(old, r *message.Request) {
	if r.Auth.Nonce > old.Auth.Nonce && sameWish(old, r) {
		old.Auth, old.Replier, old.Provers, old.Apart = r.Auth, r.Replier, r.Provers, r.Apart
	}
}

// tryHeld tries the proposals again that are held, once for all requests that came in a tick: a client that
// has authenticated its requests again may have made one of them acceptable (R-OUR-10).
func (c *Core) tryHeld() {
	if !c.queue.came {
		return
	}
	c.queue.came = false
	for n := c.log.next(); n <= min(c.log.proposedTo, c.log.high); n++ {
		if s := c.log.slot(n); s.held != nil && s.proposal == nil {
			c.advance(s)
		}
	}
}
