// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/message"
)

// events logs each view change, with its cause, in one line for operators. It is under
// the replica's lock.
type events struct {
	log   *slog.Logger
	group *Group
	self  ReplicaID
	peers peers
	fence *fence.Fence // says whether the replica has been in a view before

	view      View      // the last in which the replica was active
	since     time.Time // when it left that view; zero: it has not
	why       string
	warned    bool
	handsOver bool   // the change is our own wish
	ahead     []View // by replica: the highest view for which it has sent a VIEW-CHANGE
}

// longViewChange is after how long a view change that goes on has a line of its own.
const longViewChange = 5 * time.Second

// received notes which replica has left for which view.
func (e *events) received(m message.Message) {
	v, ok := m.(*message.ViewChange)
	if !ok || int(v.From) >= e.group.N() {
		return
	}
	if e.ahead == nil {
		e.ahead = make([]View, e.group.N())
	}
	e.ahead[v.From] = max(e.ahead[v.From], v.View)
}

// noteView logs a view change when it has ended, and once while it does not end. executed
// is how many operations the core c has executed.
func (e *events) noteView(c *core.Core, executed uint64) {
	view, active := c.View()
	switch {
	case active && view == e.view:
	case active:
		took := time.Duration(0)
		if e.since.IsZero() {
			e.why = e.whyLeft(c, executed)
		} else {
			took = time.Since(e.since)
		}
		e.log.Info("view change", "from", e.view, "to", view, "primary", view.Primary(e.group.N()), "cause", e.why,
			"took", took.Round(time.Millisecond))
		e.view, e.since, e.why, e.warned, e.handsOver = view, time.Time{}, "", false, false
	case e.since.IsZero():
		e.since, e.why = time.Now(), e.whyLeft(c, executed)
	case !e.warned && time.Since(e.since) > longViewChange:
		e.warned = true
		e.log.Warn("view change goes on: no view has begun that a quorum is in", "from", e.view, "for", view,
			"cause", e.why, "since", time.Since(e.since).Round(time.Second))
	}
}

// whyLeft is why we leave the last view, as far as it can be seen from here.
func (e *events) whyLeft(c *core.Core, executed uint64) string {
	var others []int
	for i, v := range e.ahead {
		if v > e.view && ReplicaID(i) != e.self {
			others = append(others, i)
		}
	}
	old, slow := e.view.Primary(e.group.N()), c.LeftSlow()
	switch p := e.peers[old]; {
	case e.handsOver:
		return "this replica hands over before it stops"
	case e.restarted(executed):
		return "this replica was restarted"
	case p != nil && c.SilenceOf(old) > 0:
		return fmt.Sprintf("primary %d was restarted and is silent", old)
	case len(others) == 1 && others[0] == int(old):
		return fmt.Sprintf("primary %d hands over", old)
	case p != nil && p.inbound == nil:
		return fmt.Sprintf("primary %d is not connected", old)
	case slow.Times > 0 && slow.View == e.view && !slow.Own:
		return fmt.Sprintf("other replicas say that primary %d is slow, or serves a client far later than others", old)
	case slow.Times > 0 && slow.View == e.view && slow.Starved:
		return fmt.Sprintf("primary %d served a client far later than others", old)
	case slow.Times > 0 && slow.View == e.view:
		return fmt.Sprintf("primary %d proposed far later than it could have", old)
	case len(others) >= e.group.Weak():
		return fmt.Sprintf("replicas %v left the view", others)
	}
	return fmt.Sprintf("primary %d did not order what waits in time", old)
}

// restarted reports whether the replica has not been in any view since its start, and
// waits for one that it left before.
func (e *events) restarted(executed uint64) bool {
	return e.view == 0 && e.self != 0 && e.fence.View() > 0 && executed == 0
}

// flooded logs an address from which far too many connections come. It needs no lock.
func (e *events) flooded(from netip.Addr) {
	who := "all addresses that are not known, together"
	if from.IsValid() {
		who = from.String()
	}
	e.log.Warn("connections come too often: most are dropped until they come within their share; "+
		"close their source at the network", "from", who)
}
