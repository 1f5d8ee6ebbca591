package core

import (
	"maps"

	"bfs/pkg/pbft/internal/message"
)

// A Session replaces the state by that of a checkpoint whose root is known. It is arithmetic: it asks for nodes
// and pages, believes an offer for its digest alone, and keeps all of it invisible until it is committed.
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

// transfer is the fetching of a stable checkpoint's state [TOCS §6.2.2]. Many nodes and pages are asked for at
// once, from all replicas in turn; one that is silent or lies costs one round trip and is left alone for a while.
type transfer struct {
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

// tickTransfer notices that we are behind, and that those we asked are silent.
func (c *Core) tickTransfer() {
	target, certain := c.checkpoints.claims.highest(c.log.lastExec, true)
	switch t := c.transfer; {
	case t == nil && certain && (target.Seq > c.log.high || c.tick-c.progress > stallTicks):
		c.fetchState(target)
	case t == nil && c.tick-c.progress > 2*stallTicks:
		// Those ahead of us may each have another stable checkpoint and none the batches we need.
		if k, ok := c.checkpoints.claims.highest(c.log.lastExec, false); ok {
			c.fetchState(k)
		}
	case t != nil && t.session != nil && !t.done:
		for i := 0; i < len(t.asked); {
			if a := t.asked[i]; c.tick >= a.due {
				c.giveUp(i)
				c.shunned[a.to] = c.tick + shunTicks
				continue
			}
			i++
		}
		c.ask()
	}
}

// fetchState begins to fetch a checkpoint whose root is certain, or follows to it.
func (c *Core) fetchState(target message.CheckpointID) {
	if t := c.transfer; t != nil {
		if t.seq < target.Seq && !t.done { // what is done is being installed, and the next is fetched after that
			c.retarget(target)
		}
		return
	}
	c.transfer = &transfer{seq: target.Seq, root: target.Digest}
	c.do(Effect{Verb: Fetch, Seq: target.Seq, Digest: target.Digest})
}

// Fetching answers Fetch.
func (c *Core) Fetching(s Session) {
	t := c.transfer
	t.session = s
	if t.moved {
		c.retarget(message.CheckpointID{Seq: t.seq, Digest: t.root})
		return
	}
	c.continueTransfer()
}

func (c *Core) retarget(target message.CheckpointID) {
	t := c.transfer
	t.asked = t.asked[:0]
	t.seq, t.root, t.done = target.Seq, target.Digest, false
	if t.session == nil {
		t.moved = true // the session is being opened for the old one
		return
	}
	t.moved = false
	if err := t.session.Retarget(t.seq, t.root); err != nil {
		c.do(Effect{Verb: Stop, Reason: "cannot fetch a newer checkpoint: " + err.Error()})
		return
	}
	c.continueTransfer()
}

func (c *Core) continueTransfer() {
	t := c.transfer
	if t.session.Done() {
		t.done = true
		c.do(Effect{Verb: Install, Seq: t.seq, Digest: t.root})
		return
	}
	c.ask()
}

// ask sends FETCHes until the session wants nothing more for now or every replica has its share.
func (c *Core) ask() {
	t := c.transfer
	for {
		to, ok := c.nextReplier()
		if !ok {
			return
		}
		nodes := t.session.Wants(fetchWantsBatch)
		if len(nodes) == 0 {
			return
		}
		t.tag++
		due := c.tick + answerTicks
		if t.answers&(1<<to) == 0 {
			due = c.tick + firstTicks
		}
		t.asked = append(t.asked, ask{t.tag, to, nodes, due})
		c.send(to, &message.Fetch{Seq: t.seq, Tag: t.tag, Nodes: nodes, From: c.cfg.Self})
	}
}

// nextReplier is the next replica in turn that is not shunned and has not its share of FETCHes.
func (c *Core) nextReplier() (message.ReplicaID, bool) {
	t := c.transfer
	for range c.peers {
		t.turn = (t.turn + 1) % len(c.peers)
		to := message.ReplicaID(t.turn)
		if to == c.cfg.Self || c.shunned[to] > c.tick {
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

// giveUp ends an ask: what it did not bring is wanted again.
func (c *Core) giveUp(i int) {
	t := c.transfer
	for _, id := range t.asked[i].nodes {
		t.session.Retry(id)
	}
	t.asked = append(t.asked[:i], t.asked[i+1:]...)
}

// StateSize says how many pages the state takes, about.
func (c *Core) StateSize(pages int) { c.shares.credit = max(leastCredit, 2*pages) }

// onFetch answers a replica that fetches, within its share.
func (c *Core) onFetch(m *message.Fetch) {
	if !c.shares.may(m.From, max(1, len(m.Nodes))) {
		c.refuse(m, TooSoon)
		return
	}
	c.do(Effect{Verb: Serve, To: m.From, Message: m})
}

// onData takes what a replica sent for our state.
func (c *Core) onData(m *message.Data) {
	t := c.transfer
	i := -1
	if t != nil && t.session != nil {
		for k := range t.asked {
			if t.asked[k].tag == m.Tag && t.asked[k].to == m.From {
				i = k
			}
		}
	}
	if i < 0 || t.done {
		c.refuse(m, NotAskedFor)
		return
	}
	t.answers |= 1 << m.From
	if m.Gone {
		c.giveUp(i)
		c.moveOn(m.From)
		return
	}
	if len(m.Items) == 0 { // who has nothing of it says Gone
		c.shunned[m.From] = c.tick + shunTicks
		c.refuse(m, FalseData)
	}
	a := &t.asked[i]
	for _, x := range m.Items {
		if !c.offer(x) {
			c.shunned[m.From] = c.tick + shunTicks
			c.refuse(m, FalseData)
			break
		}
		for k, id := range a.nodes {
			if id == x.Node {
				a.nodes = append(a.nodes[:k], a.nodes[k+1:]...)
				break
			}
		}
	}
	c.giveUp(i)
	c.continueTransfer()
}

func (c *Core) offer(x message.Item) bool {
	if s, ok := c.transfer.session.(digestedSession); ok && x.Node.Level == 0 && !x.Digest.IsZero() {
		return s.OfferDigested(message.PageNum(x.Node.Index), x.Bytes, x.Digest) == nil
	}
	if x.Node.Level == 0 {
		return c.transfer.session.OfferPage(message.PageNum(x.Node.Index), x.Bytes) == nil
	}
	if len(x.Bytes)%message.DigestSize != 0 {
		return false
	}
	children := make([]message.Digest, len(x.Bytes)/message.DigestSize)
	for i := range children {
		copy(children[i][:], x.Bytes[i*message.DigestSize:])
	}
	return c.transfer.session.OfferNode(x.Node, children) == nil
}

// moveOn follows the group to a newer checkpoint when a replica has let go of the one we fetch.
func (c *Core) moveOn(gone message.ReplicaID) {
	t := c.transfer
	target, later := c.checkpoints.claims.highest(t.seq, false)
	if !later {
		c.shunned[gone] = c.tick + 2 // its news are under way
		c.noticeLag()
		c.ask()
		return
	}
	c.retarget(target)
}

// Forget drops what waits here and was executed in a batch that we never saw: the state that was fetched knows. Left
// in the queue it would look as if the primary left it waiting, and we would leave the view alone.
func (c *Core) Forget(executed func(r *message.Request) bool) {
	c.queue.each(func(_ *line, r *message.Request) bool {
		if executed(r) {
			c.queue.executed(r, place{t: r.Timestamp, digest: r.Digest()})
			c.wait.executed(r)
		}
		return true
	})
	for _, l := range c.queue.order {
		for _, r := range l.apart {
			if r != nil && executed(r) {
				c.queue.executed(r, place{t: r.Timestamp, digest: r.Digest()})
			}
		}
	}
}

// Retain forgets the clients that are not enrolled any more, and what they have waiting.
func (c *Core) Retain(enrolled func(message.ClientID) bool) {
	c.queue.retain(enrolled)
	for _, m := range c.wait.forwarded {
		maps.DeleteFunc(m, func(k message.RequestKey, _ forward) bool { return !enrolled(k.Client) })
	}
}

// Installed answers Install: the state is that of the checkpoint now, and we go on from there.
func (c *Core) Installed(n message.SeqNum) {
	t := c.transfer
	invariant(t != nil && t.seq == n, "a state installed that was not asked for")
	c.transfer = nil
	c.log.lastExec, c.progress = t.seq, c.tick
	c.ahead, c.checkpoints.taken, c.checkpoints.since = tentative{}, t.seq, 0 // it was number t.seq at most
	c.proposing.last = max(c.proposing.last, t.seq)
	c.checkpoints.fetched = message.CheckpointID{Seq: t.seq, Digest: t.root}
	for i := range c.checkpoints.ring {
		c.checkpoints.ring[i].ours = false // the state holds no other than the one it was replaced by
	}
	c.collectFetched()
	if c.checkpoints.stable.Seq != t.seq {
		c.claimFetched()
	}
	if !c.silent() {
		c.promise(t.seq) // answers come from this state from now on
		own := c.checkpoints.stable
		c.multicast(&own)
	}
	c.sendStatus()
	c.executeReady()
}

// collectFetched moves the low water mark to the checkpoint we fetched last, if it is certain to be stable. Elsewise too
// few might hold it: no view could begin from it, nor from one below our mark.
func (c *Core) collectFetched() {
	k := c.checkpoints.fetched
	if k.Seq == 0 || k.Seq < c.log.low || c.checkpoints.stable.Seq == k.Seq || c.transfer != nil {
		return
	}
	if c.checkpoints.claims.provenStable(k) {
		c.collect(k.Seq, k.Digest)
	}
}

// claimFetched votes for the checkpoint we fetched, which is not known to be stable yet: we hold it now (R-GC-2).
func (c *Core) claimFetched() {
	k := c.checkpoints.fetched
	if k.Seq > c.log.high {
		// Who votes for it must be able to say so in a VIEW-CHANGE. One no more than L below is stable somewhere (R-ST-17).
		c.slide(k.Seq - c.cfg.LogSize)
	}
	c.sayCheckpoint(k.Seq, k.Digest)
	if c.log.contains(k.Seq) {
		slot := c.checkpoints.at(k.Seq)
		slot.ours = true
		slot.votes.add(c.cfg.Self, k.Digest)
		c.stabilise(slot)
	}
}
