// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// ridingCommits are the numbers of the present view whose COMMITs we hold back, to let
// them ride on what we say next. Clients do not wait for them: the replies are out
// (R-OPT-PC).
type ridingCommits struct {
	*base
	log     *messageLog
	numbers []message.SeqNum
	since   int // tick at which the first was held
}

// hold lets the COMMIT for number n ride.
func (r *ridingCommits) hold(n message.SeqNum) {
	if len(r.numbers) == 0 {
		r.since = r.tick
	}
	r.numbers = append(r.numbers, n)
	r.log.slot(n).rides = true
}

// forget drops them: their view is over.
func (r *ridingCommits) forget() { r.numbers = nil }

// companyTicks is how long COMMITs wait for company. A kernel that compiles writes every thirty
// milliseconds or so, and n COMMITs to n-1 replicas each would wake everyone in between for
// nothing.
const companyTicks = 10

// take gives the held COMMITs to a message that is multicast now.
func (r *ridingCommits) take() []message.SeqNum {
	if len(r.numbers) == 0 {
		return nil
	}
	all := r.numbers
	r.numbers = nil
	for _, n := range all {
		if r.log.contains(n) {
			r.log.slot(n).rides = false
		}
	}
	return all
}

// flush sends the held COMMITs by themselves.
func (r *ridingCommits) flush() {
	for _, n := range r.numbers {
		if r.log.contains(n) {
			s := r.log.slot(n)
			s.rides = false
			s.resent(r.tick, r.cfg.Ticks.Resend)
		}
		r.multicast(&message.Commit{View: r.view, Seq: n, From: r.cfg.Self})
	}
	r.numbers = r.numbers[:0]
}

// flushOld sends the COMMITs held for too long: no message came that they could ride on.
func (r *ridingCommits) flushOld() {
	if len(r.numbers) > 0 && r.tick-r.since >= companyTicks {
		r.flush()
	}
}
