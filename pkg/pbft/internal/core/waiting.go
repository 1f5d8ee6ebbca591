package core

import "bfs/pkg/pbft/internal/message"

// waiting is a replica's patience: what it waits for, since when, and who else does.
type waiting struct {
	first    int              // the timer's first period, ticks
	timer    pause            // the view-change timer: its period doubles for each view that brought nothing
	on       bool             // it runs
	request  *message.Request // for which it runs; nil while it runs for a NEW-VIEW
	costly   *message.Request // the costly request that is waited for beside it, nil if there is none
	costlyAt int              // tick at which its wait ends

	handover pause // while it lasts we do not hand over to follow a loner

	telling int // the client's line, in the queue's order, with which FORWARDs go on
	allowed int // bytes of operations that may be passed on again

	working []message.View // by replica: the view it is active in, as its last STATUS says; 0 if in none

	// forwarded[i] is what replica i says it holds and the primary has not proposed (R-OUR-11): one request for each slot
	// of each client at most, as many as a correct replica can hold.
	forwarded []map[message.RequestKey]forward
	// unproven[i] are requests that replica i passed on and that are not authentic here, the latest few.
	unproven [][]*message.Request
}

type forward struct {
	t      message.Timestamp
	digest message.Digest
}

const (
	maxUnproven = 8         // requests kept of one replica that are not authentic here
	maxDoubling = 6         // of the view-change timer (R-HD-8)
	tellTicks   = 10        // a FORWARD is repeated so often
	tellCostly  = 200       // the same, for a costly request: it may well wait for its turn
	tellBudget  = 64        // FORWARDs that a tick sends
	passBytes   = 128 << 10 // of operations that a tick passes on again, if it is not one longer operation
	apartTicks  = 500       // somebody waits so long in a later view before we follow
)

func (w *waiting) init(n, timeout int) {
	w.first, w.timer.ticks = timeout, timeout
	w.working = make([]message.View, n)
	w.forwarded = make([]map[message.RequestKey]forward, n)
	for i := range w.forwarded {
		w.forwarded[i] = map[message.RequestKey]forward{}
	}
	w.unproven = make([][]*message.Request, n)
}

func (w *waiting) stop() { w.on, w.request, w.costly = false, nil, nil }

func (w *waiting) start(tick int, r *message.Request) {
	w.on, w.request = true, r
	w.timer.repeat(tick)
}

// entered: the view is active. From now on the timer runs only while a request waits (R-OUR-17).
func (w *waiting) entered() { w.stop() }

// progress: a batch was executed that was not before. An empty one proves nothing.
func (w *waiting) progress(b *message.Batch) {
	if len(b.Requests) > 0 {
		w.timer.ticks = w.first
	}
}

// double has the timer's next period be twice the last, up to a bound (R-HD-8).
func (w *waiting) double(tick int) { w.timer.begin(tick, w.first, w.first<<maxDoubling) }

// vouches counts the replicas that say so of a slot's request.
func (w *waiting) vouches(k message.RequestKey, f forward) (n int) {
	for _, m := range w.forwarded {
		if x, ok := m[k]; ok && x == f {
			n++
		}
	}
	return n
}

// forwards counts the replicas that say they hold this very request.
func (w *waiting) forwards(r *message.Request) (n int) {
	for _, m := range w.forwarded {
		if f, ok := m[r.Key()]; ok && f.t == r.Timestamp && f.digest == r.Digest() {
			n++
		}
	}
	return n
}

func (w *waiting) executed(r *message.Request) {
	for _, m := range w.forwarded {
		if len(m) == 0 { // mostly
			continue
		}
		if f, ok := m[r.Key()]; ok && f.t <= r.Timestamp {
			delete(m, r.Key())
		}
	}
}

// startPendingTimer runs the timer for the NEW-VIEW once 2f+1 replicas have come as far as we: before that the new
// primary cannot send it (R-VT-3).
func (c *Core) startPendingTimer() {
	if c.active || c.wait.on {
		return
	}
	n := 1 // we have: if our VIEW-CHANGE is one of an earlier life, which we forgot and must not make again, we can leave all the same
	for i := range c.change.last {
		if m := c.change.latest(i); m != nil && m.View >= c.view && message.ReplicaID(i) != c.cfg.Self {
			n++
		}
	}
	if n >= c.quorum() {
		c.wait.start(c.tick, nil)
	}
}

// tickWaiting complains about requests that the primary leaves waiting, and leaves its view when it is time
// [TOCS §4.5.1].
func (c *Core) tickWaiting() {
	w := &c.wait
	c.tell()
	if c.active {
		c.watch()
		c.fetchLoner()
	}
	if w.expired(c.tick) && c.transfer == nil && !c.silent() { // a silent one could tell nobody that it left
		if w.on && w.request == nil && c.othersWork() {
			w.start(c.tick, nil)
			return
		}
		w.double(c.tick)
		c.leave(c.view + 1)
	}
}

// fetchLoner has the primary hand over if somebody has waited in a later view for long: it cannot come back, nobody would join
// it while all goes well, and until then it is of no more use than a faulty one. A faulty one may say so to no end, so the
// pauses grow.
func (c *Core) fetchLoner() {
	w := &c.wait
	if !c.isPrimary() || !w.handover.over(c.tick) {
		return
	}
	for i := range c.peers {
		if p := &c.peers[i]; p.apart > 0 && c.tick-p.apart >= apartTicks {
			w.handover.begin(c.tick, apartTicks, apartTicks<<maxDoubling)
			p.apart = 0
			c.StepDown()
			return
		}
	}
}

// othersWork reports whether 2f+1 others work in the view whose NEW-VIEW we wait for. It is on its way, then, and if we left
// we would leave alone, and be of no use before the next view change. Should that view bring nothing, f+1 of them will
// leave it and take us along.
func (c *Core) othersWork() bool {
	n := 0
	for i, v := range c.wait.working {
		if v == c.view && message.ReplicaID(i) != c.cfg.Self {
			n++
		}
	}
	return n >= c.quorum()
}

// tell multicasts a FORWARD for each request that waits too long, and passes the request on to the primary again. A
// replica between views does so too: those that it left behind need to know that it waits as they do. The primary says
// so when it is asked; the next one, between views, does not wait to be, or the two would wait for each other. A tick tells of so
// many, and the next goes on with the client that was left: those who have many requests wait do not keep the others from being
// told of, and what only we can tell to be theirs does not fill our way to the primary for ever.
func (c *Core) tell() {
	if c.queue.held == 0 {
		return
	}
	budget, lines, from := tellBudget, c.queue.order, c.wait.telling
	c.wait.allowed = min(c.wait.allowed+passBytes, passBytes)
	for k := range lines {
		at := (from + k) % len(lines)
		allowed := c.wait.allowed
		for _, r := range lines[at].pending {
			if r == nil || !c.tellOf(lines[at], r) {
				continue
			}
			if budget--; budget == 0 {
				c.wait.telling = at
				return
			}
		}
		if c.wait.allowed < allowed {
			c.wait.telling = at + 1 // others pass on first the next time
		}
	}
}

// tellOf tells of one request, if it is time to.
func (c *Core) tellOf(l *line, r *message.Request) bool {
	told, again := l.told[r.Slot], tellTicks
	if costly(r) {
		again = tellCostly
	}
	switch {
	case c.tick-l.arrived[r.Slot] < c.cfg.ForwardTicks, told > 0 && c.tick-told < again:
		return false
	case c.active && c.isPrimary() && c.wait.forwards(r) == 0:
		return false
	case told > 0 && !c.isPrimary() && c.wait.allowed > 0:
		c.wait.allowed -= len(r.Op) // below 0 it takes some ticks until the next
		c.send(c.primary(), r)
	}
	l.told[r.Slot] = c.tick
	c.forwardFrom(c.cfg.Self, r.Key(), forward{r.Timestamp, r.Digest()})
	c.multicast(&message.Forward{Client: r.Client, Slot: r.Slot, Timestamp: r.Timestamp, Digest: r.Digest(), From: c.cfg.Self})
	return true
}

// watch runs the timer for the oldest request that 2f+1 replicas wait for, until it is executed; other progress does not
// stop it (R-VT-2), and a client whose MACs are good for some replicas only cannot start it. The primary's runs too: some
// of those it needs may have gone ahead, and the rest be content.
//
// For the oldest costly request there is another, longer timer, because a correct primary lets costly requests wait. So
// they neither end a view that serves everyone else nor hide that it does not.
func (c *Core) watch() {
	w := &c.wait
	if w.request != nil && c.queue.pendingRequest(w.request.Key()) != w.request {
		w.on, w.request = false, nil
	}
	if w.costly != nil && c.queue.pendingRequest(w.costly.Key()) != w.costly {
		w.costly = nil
	}
	if !w.on {
		if r := c.oldest(false); r != nil {
			w.start(c.tick, r)
		}
	}
	if w.costly == nil {
		w.costly, w.costlyAt = c.oldest(true), c.tick+w.timer.ticks+costlyTicks
	}
}

// oldest is the oldest request that 2f+1 replicas wait for, of those that are costly or of the others.
func (c *Core) oldest(isCostly bool) (oldest *message.Request) {
	arrived := 0
	c.queue.each(func(l *line, r *message.Request) bool {
		if at := l.arrived[r.Slot]; costly(r) == isCostly && (oldest == nil || at < arrived) &&
			c.wait.forwards(r) >= c.quorum() {
			oldest, arrived = r, at
		}
		return true
	})
	return oldest
}

// expired reports whether the view has brought nothing for too long.
func (w *waiting) expired(tick int) bool {
	return w.on && w.timer.over(tick) || w.costly != nil && tick >= w.costlyAt
}

func (c *Core) forwardFrom(i message.ReplicaID, k message.RequestKey, f forward) bool {
	m := c.wait.forwarded[i]
	old, known := m[k]
	if known && old.t >= f.t || !known && len(m) >= c.cfg.Clients*c.cfg.Slots {
		return false
	}
	m[k] = f
	if r := c.queue.pendingRequest(k); r != nil {
		c.trust(r)
	}
	return true
}

// trust lets a pending request be proposed that 2f+1 replicas say they hold, doubt or not.
func (c *Core) trust(r *message.Request) {
	if c.wait.forwards(r) >= c.quorum() {
		c.queue.trust(r)
	}
}

// ClientKeysChanged says that a client has begun a new life, or changed its keys: what it sent before that is authentic
// here by a key that the others may have forgotten by now. It is proposed when 2f+1 say that they hold it. A costly
// request can wait for seconds, and would stall the batch that it comes in.
func (c *Core) ClientKeysChanged(client message.ClientID) {
	if c.queue.doubt(client); c.queue.find(client) == nil {
		return
	}
	for _, r := range c.queue.find(client).pending {
		if r != nil {
			c.trust(r)
		}
	}
}

// onForward records that another replica waits for a request. f+1 of them make it authentic: a correct one has seen
// a good MAC.
func (c *Core) onForward(m *message.Forward) {
	key := message.RequestKey{Client: m.Client, Slot: m.Slot}
	said := forward{m.Timestamp, m.Digest}
	if c.wasDone(key, said) {
		if m.Executed {
			c.refuse(m, OlderRequest)
			return
		}
		// We wait no more, but fewer than f+1 may have executed it, and those who have not must be able to leave
		// this view together.
		answer := *m
		answer.From, answer.Executed = c.cfg.Self, true
		c.send(m.From, &answer)
		return
	}
	if !c.forwardFrom(m.From, key, said) {
		c.refuse(m, OlderRequest)
		return
	}
	if c.wait.vouches(key, said) < c.weak() {
		return // it makes nothing authentic yet, and one liar can send many
	}
	c.prove()
	for n := c.log.low + 1; n <= c.log.high; n++ {
		if s := c.log.slot(n); s.held != nil && s.proposal == nil {
			c.advance(s)
		}
	}
}

// wasDone reports whether this very request was the last that its slot executed here. It is looked up in the log, so that
// nothing is hashed for what nobody asks about. When its checkpoint is stable it is gone from there and not known any more;
// nobody needs the answer then: 2f+1 replicas have that checkpoint, and who still waits for the request is to fetch the
// state, not to leave the view.
func (c *Core) wasDone(k message.RequestKey, f forward) bool {
	p := c.queue.lastDone(k)
	switch {
	case p.t != f.t:
		return false
	case p.n == 0:
		return p.digest == f.digest
	case !c.log.contains(p.n):
		return false
	}
	b := c.log.slot(p.n).batch
	return b != nil && p.i < len(b.Requests) && b.Requests[p.i].Digest() == f.digest
}

// keepUnproven keeps a request that is not authentic here and that another replica passed on, in case f+1 vouch for
// it.
func (c *Core) keepUnproven(r *message.Request) {
	c.refuse(r, NotAuthentic)
	from := r.PassedBy
	if int(from) >= len(c.wait.unproven) || from == c.cfg.Self {
		return
	}
	u := append(c.wait.unproven[from], r)
	if len(u) > maxUnproven {
		u = u[1:]
	}
	c.wait.unproven[from] = u
	c.prove()
}

// prove queues the requests that enough FORWARDs have made authentic.
func (c *Core) prove() {
	for i, u := range c.wait.unproven {
		kept := u[:0]
		for _, r := range u {
			if c.wait.forwards(r) < c.weak() {
				kept = append(kept, r)
				continue
			}
			r.Authentic = true
			c.cost(r)
			c.queue.add(r, c.tick)
		}
		clear(u[len(kept):])
		c.wait.unproven[i] = kept
	}
}
