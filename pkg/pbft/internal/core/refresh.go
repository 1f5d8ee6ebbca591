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
	c.forget(everyone)
	c.queue.expire(func(r *message.Request) bool { return c.wait.forwards(r) >= c.weak() })
}

// RefreshedFor says that replica i speaks to us under a new key from now on, and the others under the keys that they have:
// somebody else may have spoken for replica i, and for no other. Its words alone are forgotten, as Refreshed forgets those of all.
func (c *Core) RefreshedFor(i message.ReplicaID) { c.forget(1 << i) }

// forget forgets what was counted of the words of some replicas and makes no whole certificate. All that is left came from the
// same owners of keys: those who speak for these replicas from now on find none of it.
func (c *Core) forget(these replicas) {
	for n := c.log.low + 1; n <= c.log.high; n++ {
		c.forgetVotes(c.log.slot(n), these)
	}
	c.checkpoints.forgetClaims(these)
	c.change.forgetOthers(these)
	c.wait.forgetReports(these)
	c.recovery.forgetAnswers(these)
}

// replicas is a set of them.
type replicas uint32

const everyone replicas = 1<<message.MaxReplicas - 1

func (s replicas) has(i message.ReplicaID) bool { return s&(1<<i) != 0 }

// SayStatus tells the others what we lack. They have our new keys by now, or are about to.
func (c *Core) SayStatus() { c.reports.sendStatus() }

// forgetVotes forgets these replicas' statements about a number: PREPAREs if it has not prepared,
// COMMITs if it has not committed, DECIDEDs if it was not decided. A proposal that we have voted
// for stays, because a later view must find it in Q; but the primary has to make it again before it
// prepares here. (In disk mode the PREPAREs are a quorum, whoever proposed.)
func (c *Core) forgetVotes(s *slot, these replicas) {
	primary := these.has(c.primary())
	if primary && s.proposal == nil && s.held != nil {
		c.log.bytes -= s.size
		s.held, s.size = nil, 0
	}
	if !s.isPrepared {
		s.prepares.forget(these, c.cfg.Self)
		s.unconfirmed = s.unconfirmed || primary && s.proposal != nil && s.chosen != s.proposal.Digest && !c.isPrimary() && !c.cfg.Durable
	}
	if s.isCommitted {
		return
	}
	s.commits.forget(these, c.cfg.Self)
	d, decided := s.decided.with(c.weak())
	for i := range s.decided.digests {
		if id := message.ReplicaID(i); these.has(id) && (!decided || s.decided.digests[i] != d) {
			s.decided.forget(1<<id, c.cfg.Self)
		}
	}
}

// forget forgets the votes of these, but for our own.
func (v *votes) forget(these replicas, self message.ReplicaID) {
	v.have &^= uint32(these) &^ (1 << self)
}

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

// forgetClaims forgets these replicas' claims of checkpoints that are not proven stable.
func (x *checkpoints) forgetClaims(these replicas) {
	for i := range x.ring {
		v := &x.ring[i].votes
		if _, whole := v.with(x.quorum()); !whole {
			v.forget(these, x.cfg.Self)
		}
	}
	proven := make([][]message.Checkpoint, len(x.claims.of))
	for i, all := range x.claims.of {
		for _, k := range all {
			if !these.has(message.ReplicaID(i)) || x.claims.provenStable(message.CheckpointID{Seq: k.Seq, Digest: k.Digest}) {
				proven[i] = append(proven[i], k)
			}
		}
	}
	x.claims.of = proven
}

// forgetOthers forgets these replicas' messages about views that have not begun. The VIEW-CHANGEs
// with which the present view began are a whole certificate, as are those with which we began it as
// its primary; others may need them from us. The acks of a forgotten VIEW-CHANGE go, too: its sender
// makes another, which has acks of its own.
func (x *viewChange) forgetOthers(these replicas) {
	ours := x.newView != nil && x.isPrimary()
	whole := x.active || ours
	primary := these.has(x.primary())
	if !whole && (primary || x.vouched) {
		x.forgetNewView()
	}
	if x.later != nil && these.has(x.later.From) {
		x.later = nil
	}
	for i := range x.last {
		id := message.ReplicaID(i)
		for j := range x.acks[i] {
			if these.has(id) || these.has(message.ReplicaID(j)) {
				x.acks[i][j] = ack{}
			}
		}
		if primary || these.has(id) {
			x.relayed[i] = nil
		}
		if !these.has(id) {
			continue
		}
		x.next[i], x.told[i] = nil, nil
		if id != x.cfg.Self && !(whole && x.named(i)) {
			x.last[i], x.digests[i] = nil, message.Digest{}
		}
	}
}

// named reports whether the NEW-VIEW that we hold was made of the VIEW-CHANGE that we have of replica i.
func (x *viewChange) named(i int) bool {
	held := message.Vouched{From: message.ReplicaID(i), Digest: x.digests[i]}
	return x.newView != nil && slices.Contains(x.newView.V, held)
}

// forgetAnswers forgets these replicas' answers that do not make an estimate or a recovery point yet.
func (x *recovery) forgetAnswers(these replicas) {
	for i := range x.answers {
		if id := message.ReplicaID(i); id == x.cfg.Self || !these.has(id) {
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

// forgetReports forgets these replicas' FORWARDs for requests that fewer than f+1 vouch for, ours too
// if it is one of them, because it relies on a client's old key. It also forgets in which views they
// said that they are.
func (w *waiting) forgetReports(these replicas) {
	whole := make([]map[message.RequestKey]forward, len(w.forwarded))
	for i, m := range w.forwarded {
		whole[i] = m
		if these.has(message.ReplicaID(i)) {
			whole[i] = maps.Clone(m)
			maps.DeleteFunc(whole[i], func(k message.RequestKey, f forward) bool { return w.vouches(k, f) < w.weak() })
			w.working[i], w.pending[i] = 0, 0
		}
	}
	w.forwarded = whole
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
