// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// reports are what this replica and the others said of themselves in STATUS.
type reports struct {
	*base
	log      *messageLog
	peers    []peer
	lagging  limit          // of STATUSes that are sent out of turn
	reported message.SeqNum // how far we were by our last: see cameOn
	gap      limit          // of STATUSes that ask for batches missing below the proposed ones
}

// peer is what the core knows of another replica.
type peer struct {
	low      message.SeqNum
	lastExec message.SeqNum
	high     message.SeqNum // the end of its window when we answered it, the highest in its life: it took in what we said up to here
	answered limit          // of its STATUSes: see mayAsk
	reached  message.SeqNum // how far it was when we answered last
	queried  limit          // of its QUERY-STABLEs
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

func (r *reports) init(b *base, l *messageLog) {
	*r = reports{base: b, log: l, peers: make([]peer, b.cfg.Replicas)}
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
	r.lagging.restart(r.tick, r.cfg.ResendTicks)
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
	if !r.cameOn(p.reached, lastExec, low) && !p.answered.take(r.tick, r.cfg.ResendTicks, burst) {
		return false
	}
	p.reached = max(p.reached, lastExec+low)
	return true
}
