// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"
	"net/netip"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// events turns what operators want to read into one line of the log each: a view change, a peer lost, a peer back. It is
// under the replica's lock.
type events struct {
	view      View      // the last in which the replica was active
	since     time.Time // when it left that view; zero: it has not
	why       string
	warned    bool
	handsOver bool   // the change is our own wish
	ahead     []View // by replica: the highest view for which it has sent a VIEW-CHANGE
}

// longViewChange is after how long a view change that goes on has a line of its own.
const longViewChange = 5 * time.Second

// received notes who has left for which view.
func (e *events) received(m message.Message, n int) {
	v, ok := m.(*message.ViewChange)
	if !ok || int(v.From) >= n {
		return
	}
	if e.ahead == nil {
		e.ahead = make([]View, n)
	}
	e.ahead[v.From] = max(e.ahead[v.From], v.View)
}

// noteView logs a view change when it has ended, and one that does not end once.
func (r *Replica) noteView() {
	e := &r.events
	view, active := r.core.View()
	switch {
	case active && view == e.view:
	case active:
		took := time.Duration(0)
		if e.since.IsZero() {
			e.why = r.whyLeft()
		} else {
			took = time.Since(e.since)
		}
		r.log.Info("view change", "from", e.view, "to", view, "primary", view.Primary(r.group.N()), "cause", e.why,
			"took", took.Round(time.Millisecond))
		*e = events{view: view, ahead: e.ahead}
	case e.since.IsZero():
		e.since, e.why = time.Now(), r.whyLeft()
	case !e.warned && time.Since(e.since) > longViewChange:
		e.warned = true
		r.log.Warn("view change goes on: no view has begun that a quorum is in", "from", e.view, "for", view,
			"cause", e.why, "since", time.Since(e.since).Round(time.Second))
	}
}

// whyLeft is why we leave the last view, as far as it can be seen from here.
func (r *Replica) whyLeft() string {
	e := &r.events
	var others []int
	for i, v := range e.ahead {
		if v > e.view && ReplicaID(i) != r.cfg.Self {
			others = append(others, i)
		}
	}
	old := e.view.Primary(r.group.N())
	switch p := r.peers[old]; {
	case e.handsOver:
		return "this replica hands over before it stops"
	case r.restarted():
		return "this replica was restarted"
	case p != nil && r.core.SilenceOf(old) > 0:
		return fmt.Sprintf("primary %d was restarted and is silent", old)
	case len(others) == 1 && others[0] == int(old):
		return fmt.Sprintf("primary %d hands over", old)
	case p != nil && p.inbound == nil:
		return fmt.Sprintf("primary %d is not connected", old)
	case len(others) >= r.group.Weak():
		return fmt.Sprintf("replicas %v left the view", others)
	}
	return fmt.Sprintf("primary %d did not order what waits in time", old)
}

// restarted reports whether the replica has not been in any view since its start, and waits for one that it left before.
func (r *Replica) restarted() bool {
	return r.events.view == 0 && r.cfg.Self != 0 && r.fence.View() > 0 && r.executed == 0
}

// lostPeer logs that a replica's connection to us ended. The caller holds the lock.
func (r *Replica) lostPeer(p *peerEnd, err error) {
	if r.stopping {
		return
	}
	p.lost = time.Now()
	cause := "it closed the connection"
	if err != nil {
		cause = err.Error()
	}
	r.log.Warn("replica lost", "peer", p.session.Peer.Replica, "cause", cause)
}

// foundPeer logs that a replica's connection to us is up. The caller holds the lock.
func (r *Replica) foundPeer(p *peerEnd) {
	switch {
	case p.inbound != nil: // it only came on another connection
	case p.lost.IsZero():
		r.log.Info("replica connected", "peer", p.session.Peer.Replica)
	default:
		r.log.Info("replica back", "peer", p.session.Peer.Replica, "after", time.Since(p.lost).Round(time.Millisecond))
	}
}

// flooded logs an address from which far too many connections come.
func (r *Replica) flooded(from netip.Addr) {
	who := "all addresses that are not known, together"
	if from.IsValid() {
		who = from.String()
	}
	r.log.Warn("connections come too often: most are dropped until they come within their share; close their source at the network", "from", who)
}
