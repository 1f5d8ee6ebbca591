// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// reports are what this replica and the others said of themselves in STATUS.
type reports struct {
	*base
	log         *messageLog
	checkpoints *checkpoints
	change      *viewChange

	peers    []peer
	lagging  limit          // of STATUSes that are sent out of turn
	reported message.SeqNum // how far we were by our last: see cameOn
	gap      limit          // of STATUSes that ask for batches missing below the proposed ones

	slowPrimary bool // the primary of our view is too slow: see turnaround.go
}

// peer is what the core knows of another replica.
type peer struct {
	low      message.SeqNum
	lastExec message.SeqNum
	// the end of its window when we answered it, the highest in its life: it took in what
	// we said up to here
	high     message.SeqNum
	answered limit          // of its STATUSes: see mayAsk
	reached  message.SeqNum // how far it was when we answered last
	keyed    limit          // of sending again because its keys are new
	rekeyed  bool           // it has refreshed its keys and has not sent a STATUS since
	stuck    stuck          // it waits in our view
}

// stuck is how long a replica has waited for the NEW-VIEW of our view, as it says.
type stuck struct {
	waits bool
	told  limit // of telling it ourselves
}

// stuckTicks is how long the primary has for sending its NEW-VIEW again before others tell of it,
// and how often they do.
const stuckTicks = 50

func (s *stuck) note(tick int, waits bool) {
	if waits && !s.waits {
		s.told.restart(tick, stuckTicks)
	}
	s.waits = waits
}

// tells reports whether it is told now, and notes that it is.
func (s *stuck) tells(tick int) bool { return s.waits && s.told.take(tick, stuckTicks, 1) }

func (r *reports) init(b *base, l *messageLog, x *checkpoints, v *viewChange) {
	*r = reports{base: b, log: l, checkpoints: x, change: v, peers: make([]peer, b.cfg.Replicas)}
	for i := range r.peers {
		r.peers[i].high = b.cfg.LogSize
	}
}

// overdue reports whether a STATUS may be sent out of turn because something was missed: at most
// once in a resend interval (R-RTX-1), or when we have advanced far enough since the last one that
// there is more to ask for. It notes that a STATUS is sent.
func (r *reports) overdue() bool {
	if !r.lagging.allows(r.tick) && !r.cameOn(r.reported, r.log.lastExec, r.log.low) {
		return false
	}
	r.lagging.restart(r.tick, r.cfg.Ticks.Resend)
	return true
}

// said notes that we send a STATUS.
func (r *reports) said() {
	r.reported = r.log.lastExec + r.log.low
	r.gap.restart(r.tick, gapTicks)
}

// gapTicks is how long a missing message may still be under way.
const gapTicks = 2

// cameOn reports whether a replica has advanced by a good part of a checkpoint period since it was
// at the first position, counting executed batches and collected ones.
func (r *reports) cameOn(since, lastExec, low message.SeqNum) bool {
	return lastExec+low >= since+r.cfg.CheckpointPeriod/2+1
}

// askBurst is how many STATUSes are answered at once for a replica that works in our view and is
// behind.
const askBurst = 3

// mayAsk reports whether a STATUS is answered: within its sender's share, or because the sender has
// advanced since its last one, as a replica does that catches up. A liar can advance no faster than
// we do.
func (r *reports) mayAsk(m *message.Status) bool {
	p := &r.peers[m.From]
	lastExec, low := min(m.LastExecuted, r.log.lastExec), min(m.Low, r.log.low)
	burst := 1
	if m.View == r.view && m.Active && m.LastExecuted < r.log.lastExec {
		burst = askBurst
	}
	if !r.cameOn(p.reached, lastExec, low) && !p.answered.take(r.tick, r.cfg.Ticks.Resend, burst) {
		return false
	}
	p.reached = max(p.reached, lastExec+low)
	return true
}

// noticeLag sends a STATUS out of turn, if one is due, when a message shows that we have
// missed something.
func (r *reports) noticeLag() {
	if r.overdue() {
		r.sendStatus()
	}
}

// sendStatus tells the others where we stand.
func (r *reports) sendStatus() {
	r.said()
	m := &message.Status{View: r.view, Active: r.active, Low: r.log.low, LastExecuted: r.log.lastExec,
		SilentUntil: r.silentUntil(), SlowPrimary: r.slowPrimary, From: r.cfg.Self}
	base := m.Base()
	for n := base + 1; n <= r.log.high; n++ {
		if s := r.log.slot(n); s.isCommitted {
			m.Committed = m.Committed.Set(int(n - base - 1))
		}
		if s := r.log.slot(n); s.isPrepared {
			m.Prepared = m.Prepared.Set(int(n - base - 1))
		}
	}
	if !r.active {
		m.HasNewView = r.change.newView != nil
		for j := range r.peers {
			if r.change.hasViewChange(message.ReplicaID(j)) {
				m.ViewChanges |= 1 << j
			}
		}
	}
	r.multicast(m)
}

// resendBytes bounds what one STATUS can make us send, in bytes of operations.
const resendBytes = 2 << 20

// onStatus sends again what the sender of a STATUS lacks and we said: only our own
// messages, under the newest keys, and not what left a moment ago (R-RTX-4).
func (r *reports) onStatus(m *message.Status) {
	p := &r.peers[m.From]
	p.low, p.lastExec = m.Low, m.LastExecuted
	p.stuck.note(r.tick, m.View == r.view && !m.Active)
	rekeyed := p.rekeyed
	if p.rekeyed = false; !r.mayAsk(m) && !rekeyed {
		r.refuse(m, TooSoon)
		return
	}
	if m.View > r.view {
		r.noticeLag() // and tell it the decisions all the same: it may wait in that view alone
	}
	r.resendCheckpoints(m)
	if m.View < r.view || m.View == r.view && !m.Active {
		r.resendViewChange(m)
	}
	r.tellPast(m)
	refused := r.log.high // above this
	if high := m.Low + r.cfg.LogSize; high > p.high {
		if m.LastExecuted <= m.Low {
			refused = p.high // it has just installed a checkpoint, and its window had ended there
		}
		p.high = high
	}
	budget := resendBytes
	// The sender would refuse numbers above its window: it needs our state first.
	for n := max(m.Base(), r.log.low) + 1; n <= min(r.log.high, m.Low+r.cfg.LogSize) && budget > 0; n++ {
		s := r.log.slot(n)
		budget -= r.resend(m, s, rekeyed || n > refused || s.sent.allows(r.tick))
	}
}

// resendViewChange helps the sender of a STATUS into our view: our own VIEW-CHANGE, what
// we acknowledge, and from the primary its NEW-VIEW and the VIEW-CHANGEs of others that
// it names (R-RTX-4): the sender's own too, which it does not have if it was restarted
// since.
func (r *reports) resendViewChange(m *message.Status) {
	x := r.change
	has := func(j message.ReplicaID) bool { return m.View == r.view && m.ViewChanges&(1<<j) != 0 }
	if x.own != nil && !has(r.cfg.Self) {
		r.send(m.From, x.own)
	}
	if m.View < r.view {
		return
	}
	if nv := x.newView; r.isPrimary() && nv != nil {
		if !m.HasNewView {
			r.send(m.From, nv)
		}
		for _, v := range nv.V {
			vc := x.last[v.From]
			if v.From != r.cfg.Self && !has(v.From) && vc != nil && x.digests[v.From] == v.Digest {
				r.send(m.From, vc)
			}
		}
		return
	}
	for j := range x.last {
		if a := r.change.ackFor(message.ReplicaID(j)); a != nil && !has(a.Of) {
			r.send(m.From, a)
		}
	}
	if r.peers[m.From].stuck.tells(r.tick) {
		r.tellNewView(m.From, has)
	}
}

// tellNewView tells a replica that has waited in our view for long how it began, and with which
// VIEW-CHANGEs: its primary may tell everyone but that one. It believes f+1 of us. Ours it has from
// resendViewChange; if we have forgotten the one that the view began with, others bring it.
func (r *reports) tellNewView(to message.ReplicaID, has func(message.ReplicaID) bool) {
	x := r.change
	if x.newView == nil || !r.active || r.silent() {
		return
	}
	told := *x.newView
	told.From = r.cfg.Self
	r.send(to, &told)
	for _, v := range told.V {
		if vc := x.last[v.From]; v.From != r.cfg.Self && !has(v.From) && vc != nil && x.digests[v.From] == v.Digest {
			r.send(to, vc)
		}
	}
}

func (r *reports) resendCheckpoints(m *message.Status) {
	if r.silent() {
		return
	}
	if r.stable.Seq > m.Low {
		stable := r.stable
		r.send(m.From, &stable)
	}
	r.checkpoints.each(m.Low, func(k message.CheckpointID) {
		if r.change.maySay(k.Seq) {
			r.send(m.From, &message.Checkpoint{Seq: k.Seq, Digest: k.Digest, From: r.cfg.Self})
		}
	})
}

// resend sends our own messages of one slot that the sender of the STATUS does not have, unless
// they are under way to it. It also sends the decision, because the sender may have been kept out
// of the voting (R-HD-15). It returns the bytes of operations sent.
func (r *reports) resend(m *message.Status, s *slot, lost bool) (bytes int) {
	k := int(s.seq - m.Base() - 1)
	if m.View == r.view && m.Committed.Get(k) {
		return 0
	}
	if s.isCommitted && s.seq <= r.log.lastExec {
		r.send(m.From, &message.Decided{Seq: s.seq, Digest: s.decision, From: r.cfg.Self})
	}
	if s.proposal == nil || m.View != r.view || !m.Active || !lost {
		return 0
	}
	if !m.Prepared.Get(k) {
		if r.isPrimary() {
			r.send(m.From, s.proposal)
			bytes = s.size + 64
		}
		if s.prepares.has(r.cfg.Self) {
			vote := s.ownPrepare // a copy: the slot may be reset before it is sent
			r.send(m.From, &vote)
		}
	}
	if s.commits.has(r.cfg.Self) && !s.rides { // a COMMIT that is held back will be sent to all
		vote := s.ownCommit
		r.send(m.From, &vote)
	}
	return bytes
}

// keysChanged notes that a peer can open messages that we seal from now on, and perhaps
// none that we sealed before: we send it our messages above its last known execution
// again (R-OUR-9). A peer whose keys change all the time waits for the answer to its
// STATUS.
func (r *reports) keysChanged(i message.ReplicaID) {
	if r.estimating() || !r.peers[i].keyed.take(r.tick, r.cfg.Ticks.Resend, 1) {
		return
	}
	r.peers[i].high = r.cfg.LogSize // it may have another life, and begin again
	all := &message.Status{View: r.view, Active: r.active,
		LastExecuted: max(r.log.low, min(r.peers[i].lastExec, r.log.lastExec)), Low: r.peers[i].low, From: i}
	r.resendCheckpoints(all)
	if r.view > 0 && !r.active {
		r.resendViewChange(all)
	}
	budget := resendBytes
	for n := max(all.Base(), r.log.low) + 1; n <= r.log.high && budget > 0; n++ {
		budget -= r.resend(all, r.log.slot(n), true)
	}
}

// tellPast tells the sender of a STATUS the decisions that it has not executed and that our log no
// longer has.
func (r *reports) tellPast(m *message.Status) {
	r.log.eachPast(m.Base(), m.Low+r.cfg.LogSize, func(n message.SeqNum, d message.Digest) {
		r.send(m.From, &message.Decided{Seq: n, Digest: d, From: r.cfg.Self})
	})
}

// closeGap asks for the batches missing below the present proposals: a primary proposes no more
// than its window beyond what it has executed, but for null batches. The gap is short, and others
// may need our votes above it, so we do not wait for the resend interval.
func (r *reports) closeGap() {
	beyond := r.log.lastExec + r.cfg.Window
	if !r.active || r.log.numbered <= beyond || r.tick-r.log.progress < gapTicks || !r.gap.allows(r.tick) {
		return
	}
	if _, nulls := r.log.underWay(); r.log.numbered > beyond+nulls {
		r.sendStatus()
	}
}

// keysRefreshed notes that a running peer has refreshed its keys. Its next STATUS says what it has
// forgotten, and is answered at once with all of it: messages that left a moment ago were lost.
func (r *reports) keysRefreshed(i message.ReplicaID) {
	p := &r.peers[i]
	p.rekeyed = p.rekeyed || p.keyed.take(r.tick, r.cfg.Ticks.Resend, 1)
}
