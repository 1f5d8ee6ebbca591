// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A Session replaces the state by that of a checkpoint whose root is known. It is
// arithmetic: it asks for nodes and pages, believes an offer for its digest alone, and
// keeps all of it invisible until it is committed.
type Session interface {
	Wants(max int) []message.NodeID
	OfferNode(id message.NodeID, children []message.Digest) error
	OfferPage(n message.PageNum, contents []byte) error
	Retry(id message.NodeID)
	Retarget(n message.SeqNum, root message.Digest) error
	Done() bool
}

// A digestedSession also takes pages whose digests were computed before.
type digestedSession interface {
	OfferDigested(n message.PageNum, contents []byte, d message.Digest) error
}

// transfer is the fetching of a stable checkpoint's state [TOCS §6.2.2]. Many nodes and
// pages are asked for at once, from all replicas in turn; one that is silent or lies
// costs one round trip and is left alone for a while.
type transfer struct {
	*base
	shunned shunned
	seq     message.SeqNum
	root    message.Digest
	session Session // nil until Fetching
	asked   []ask
	tag     uint32
	turn    int
	answers uint32 // bit i: replica i has answered
	done    bool
	moved   bool // the target changed before the session was there
}

// An ask is a FETCH under way.
type ask struct {
	tag   uint32
	to    message.ReplicaID
	nodes []message.NodeID
	due   int // tick at which we stop waiting
}

const (
	asksPerReplica  = 8  // FETCHes under way to one replica
	answerTicks     = 50 // an answer may take so long
	firstTicks      = 10 // the first of a replica: it may be down, or have no way to us yet
	shunTicks       = 100
	stallTicks      = 20 // behind and without progress for so long: fetch
	fetchWantsBatch = message.MaxFetch
)

// retarget follows to a later checkpoint.
func (t *transfer) retarget(target message.CheckpointID) {
	t.asked = t.asked[:0]
	t.seq, t.root, t.done = target.Seq, target.Digest, false
	if t.session == nil {
		t.moved = true // the session is being opened for the old one
		return
	}
	t.moved = false
	if err := t.session.Retarget(t.seq, t.root); err != nil {
		t.do(Effect{Verb: Stop, Reason: "cannot fetch a newer checkpoint: " + err.Error()})
		return
	}
	t.proceed()
}

// proceed asks for the next nodes and pages, or has the state installed when none are missing.
func (t *transfer) proceed() {
	if t.session.Done() {
		t.done = true
		t.do(Effect{Verb: Install, Seq: t.seq, Digest: t.root})
		return
	}
	t.ask()
}

// ask sends FETCHes until the session wants nothing more for now or every replica has its share.
func (t *transfer) ask() {
	for {
		to, ok := t.nextReplier()
		if !ok {
			return
		}
		nodes := t.session.Wants(fetchWantsBatch)
		if len(nodes) == 0 {
			return
		}
		t.tag++
		due := t.tick + answerTicks
		if t.answers&(1<<to) == 0 {
			due = t.tick + firstTicks
		}
		t.asked = append(t.asked, ask{t.tag, to, nodes, due})
		t.send(to, &message.Fetch{Seq: t.seq, Tag: t.tag, Nodes: nodes, From: t.cfg.Self})
	}
}

// nextReplier is the next replica in turn that is not shunned and has not its share of FETCHes.
func (t *transfer) nextReplier() (message.ReplicaID, bool) {
	for range t.shunned {
		t.turn = (t.turn + 1) % len(t.shunned)
		to := message.ReplicaID(t.turn)
		if to == t.cfg.Self || t.shunned[to] > t.tick {
			continue
		}
		busy := 0
		for _, a := range t.asked {
			if a.to == to {
				busy++
			}
		}
		if busy < asksPerReplica {
			return to, true
		}
	}
	return 0, false
}

// giveUp ends an ask: items that it did not bring are wanted again.
func (t *transfer) giveUp(i int) {
	for _, id := range t.asked[i].nodes {
		t.session.Retry(id)
	}
	t.asked = append(t.asked[:i], t.asked[i+1:]...)
}

// offer gives an item to the session; false if it does not have its digest.
func (t *transfer) offer(x message.Item) bool {
	if s, ok := t.session.(digestedSession); ok && x.Node.Level == 0 && !x.Digest.IsZero() {
		return s.OfferDigested(message.PageNum(x.Node.Index), x.Bytes, x.Digest) == nil
	}
	if x.Node.Level == 0 {
		return t.session.OfferPage(message.PageNum(x.Node.Index), x.Bytes) == nil
	}
	if len(x.Bytes)%message.DigestSize != 0 {
		return false
	}
	children := make([]message.Digest, len(x.Bytes)/message.DigestSize)
	for i := range children {
		copy(children[i][:], x.Bytes[i*message.DigestSize:])
	}
	return t.session.OfferNode(x.Node, children) == nil
}

// tickAsks gives up asks that were not answered in time, leaves their replicas alone for a while,
// and asks others.
func (t *transfer) tickAsks() {
	if t.session == nil || t.done {
		return
	}
	for i := 0; i < len(t.asked); {
		if a := t.asked[i]; t.tick >= a.due {
			t.giveUp(i)
			t.shunned[a.to] = t.tick + shunTicks
			continue
		}
		i++
	}
	t.ask()
}

// find returns the FETCH that a DATA answers; false if there is none.
func (t *transfer) find(m *message.Data) (at int, found bool) {
	if t.session == nil || t.done {
		return 0, false
	}
	for k, a := range t.asked {
		if a.tag == m.Tag && a.to == m.From {
			return k, true
		}
	}
	return 0, false
}

// take accepts the answer to the FETCH at i; false if some item is false. A replica that has none
// of the items says Gone, so an empty answer is false too.
func (t *transfer) take(i int, m *message.Data) (good bool) {
	a := &t.asked[i]
	good = len(m.Items) > 0
	for _, x := range m.Items {
		if !t.offer(x) {
			good = false
			break
		}
		a.nodes = slices.DeleteFunc(a.nodes, func(id message.NodeID) bool { return id == x.Node })
	}
	if !good {
		t.shunned[m.From] = t.tick + shunTicks
	}
	t.giveUp(i)
	return good
}

// A replica that stood still, was restarted or was cut off finds the group far ahead. It fetches a
// checkpoint and asks with its STATUS for what follows: the others tell it which
// batch was decided under each number that they have executed, as far back as their log and their
// kept decisions reach. It believes what f+1 say alike (R-HD-15). It asks for the batches by
// digest, many at once, each from a replica that has it. A busy group executes thousands of batches
// a second and has its next checkpoint some milliseconds later: so arriving messages drive all
// this, and ticks only repair what went wrong.

// catchUp fetches the state of a checkpoint when we are behind the others, or when our
// own is not theirs.
type catchUp struct {
	*base
	log         *messageLog
	checkpoints *checkpoints
	reports     *reports
	shares      *shares
	shunned     shunned

	transfer *transfer          // not nil while we fetch the state of a checkpoint
	corrupt  bool               // the state was not the group's
	later    [][]*message.Fetch // by replica: those that wait for its share of the next tick
}

// fetching reports whether the state is being replaced.
func (x *catchUp) fetching() bool { return x.transfer != nil }

// fetchState begins to fetch a checkpoint whose root is certain, or follows to it.
func (x *catchUp) fetchState(target message.CheckpointID) {
	if t := x.transfer; t != nil {
		if t.seq < target.Seq && !t.done { // a fetched state is being installed, and the next is fetched after that
			t.retarget(target)
		}
		return
	}
	x.transfer = &transfer{base: x.base, shunned: x.shunned, seq: target.Seq, root: target.Digest}
	x.do(Effect{Verb: Fetch, Seq: target.Seq, Digest: target.Digest})
}

// astray says that our state is not the group's. A recovering replica fetches that; in any other
// its memory or program is at fault, and every reply we give is a lie with our key.
func (x *catchUp) astray(k message.CheckpointID, why string) {
	if x.phase != NotRecovering {
		x.corrupt = true
		x.fetchState(k)
		return
	}
	x.do(Effect{Verb: Stop, Reason: why})
}

// passed reports whether the group has a stable checkpoint where our state has come
// without taking one. Where one is taken follows from the batches, so ours were others:
// those that an intruder put into the journal may leave the same root, and another
// checkpoint.
func (x *catchUp) passed(k message.CheckpointID) bool {
	if x.phase < Requesting || !x.log.contains(k.Seq) || k.Seq > x.log.lastExec || k.Seq <= x.checkpoints.fetched.Seq {
		return false
	}
	own := x.checkpoints.find(k.Seq)
	return (own == nil || !own.due) && x.checkpoints.claims.provenStable(k)
}

// tickTransfer notices that we are behind, and that those we asked are silent. busy: clients are
// being served.
func (x *catchUp) tickTransfer(busy bool) {
	x.shares.tick(busy)
	x.serveLater()
	target, certain := x.checkpoints.claims.highest(x.log.lastExec, true)
	switch t := x.transfer; {
	case t == nil && certain && (target.Seq > x.log.high || x.tick-x.log.progress > stallTicks):
		x.fetchState(target)
	case t == nil && x.tick-x.log.progress > 2*stallTicks:
		// Each replica ahead of us may have another stable checkpoint, and none of them the batches
		// that we need.
		if k, ok := x.checkpoints.claims.highest(x.log.lastExec, false); ok {
			x.fetchState(k)
		}
	case t != nil:
		t.tickAsks()
	}
}

// begin takes the session that was opened for the state we fetch.
func (x *catchUp) begin(s Session) {
	t := x.transfer
	t.session = s
	if t.moved {
		t.retarget(message.CheckpointID{Seq: t.seq, Digest: t.root})
		return
	}
	t.proceed()
}

// onData takes in nodes and pages that a replica sent for our state.
func (x *catchUp) onData(m *message.Data) {
	t := x.transfer
	i, asked := 0, false
	if t != nil {
		i, asked = t.find(m)
	}
	if !asked {
		x.refuse(m, NotAskedFor)
		return
	}
	t.answers |= 1 << m.From
	if m.Gone {
		t.giveUp(i)
		x.moveOn(m.From)
		return
	}
	if !t.take(i, m) {
		x.refuse(m, FalseData)
	}
	t.proceed()
}

// moveOn follows the group to a newer checkpoint when a replica no longer has the one we fetch.
func (x *catchUp) moveOn(gone message.ReplicaID) {
	t := x.transfer
	target, later := x.checkpoints.claims.highest(t.seq, false)
	if !later {
		x.shunned[gone] = x.tick + 2 // its news are under way
		x.reports.noticeLag()
		t.ask()
		return
	}
	t.retarget(target)
}

// end ends the fetching of checkpoint n: its state is installed.
func (x *catchUp) end(n message.SeqNum) message.CheckpointID {
	t := x.transfer
	invariant(t != nil && t.seq == n, "a state installed that was not asked for")
	x.transfer = nil
	return message.CheckpointID{Seq: t.seq, Digest: t.root}
}

// onFetch answers a replica that fetches, within its share. What is beyond that waits for the next
// tick, as many as a correct replica has under way: it would leave us alone for a while if we did
// not answer.
func (x *catchUp) onFetch(m *message.Fetch) {
	later := &x.later[m.From]
	switch {
	case len(*later) == 0 && x.serves(m):
	case len(*later) < asksPerReplica:
		*later = append(*later, m)
	default:
		x.refuse(m, TooSoon)
	}
}

// serves answers a FETCH if the replica's share lets it.
func (x *catchUp) serves(m *message.Fetch) bool {
	if !x.shares.mayFetch(m.From, max(1, len(m.Nodes))) {
		return false
	}
	x.do(Effect{Verb: Serve, To: m.From, Message: m})
	return true
}

// serveLater answers FETCHes that had to wait for their replicas' shares of this tick.
func (x *catchUp) serveLater() {
	for i, all := range x.later {
		for len(all) > 0 && x.serves(all[0]) {
			all = slices.Delete(all, 0, 1)
		}
		x.later[i] = all
	}
}

// hasLater reports whether FETCHes wait for the next tick.
func (x *catchUp) hasLater() bool {
	return slices.ContainsFunc(x.later, func(all []*message.Fetch) bool { return len(all) > 0 })
}

// sized notes how many pages the state takes, about.
func (x *catchUp) sized(pages int) { x.shares.credit = max(leastCredit, 2*pages) }
