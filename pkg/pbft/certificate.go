package pbft

import (
	"math/bits"
	"math/rand/v2"
	"time"

	"bfs/pkg/pbft/internal/client"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// clientLink handles the connection to one replica.
type clientLink struct {
	c  *Client
	id ReplicaID
}

// Opened implements transport.Handler.
func (l *clientLink) Opened(c *transport.Conn) {
	session := l.c.peers[l.id].session
	c.SetUser(&remote{session: session})
	l.c.sendKey(c, session, "")
}

// Closed implements transport.Handler.
func (l *clientLink) Closed(_ *transport.Conn, err error) {
	l.c.log.Debug("connection to replica down", "replica", l.id, "err", err)
}

// Frames implements transport.Handler: it counts replies, and ends the calls they decide after the lock is released,
// so that Done may start the next call. What those calls send leaves in one flush.
func (l *clientLink) Frames(conn *transport.Conn, frames [][]byte) {
	c, who := l.c, conn.User().(*remote)
	var replies [32]*message.Reply
	batch := replies[:0]
	for _, frame := range frames {
		if len(frame) > 0 && message.Type(frame[0]) == message.TypeNewKey {
			if !l.onNewKey(conn, who, frame) {
				conn.Close()
				return
			}
			continue
		}
		if m := l.receive(conn, who, frame); m != nil {
			if batch = append(batch, m); len(batch) == cap(batch) {
				c.settle(batch)
				batch = batch[:0]
			}
		}
	}
	c.settle(batch)
	who.decoder.Reset()
}

// settle counts replies and ends calls.
func (c *Client) settle(batch []*message.Reply) {
	if len(batch) == 0 {
		return
	}
	type ended struct {
		o   *outstanding
		res []byte
		err error
	}
	var room [32]ended
	over := room[:0]
	c.mu.Lock()
	c.held++
	c.looked = time.Now()
	for _, m := range batch {
		c.peers[m.From].silent = false
		for i := range m.Answers {
			a := &m.Answers[i]
			o := c.outstandingFor(a)
			if o == nil {
				continue
			}
			o.tally.Add(m, a, o.request.Replier, o.tries, c.proves)
			if result, err, done := c.decide(o); done {
				over = append(over, ended{o, result, err})
				c.slots[a.Slot].hold(nil)
			}
		}
	}
	c.mu.Unlock()
	for _, e := range over {
		e.o.Done(e.res, e.err)
	}
	c.mu.Lock()
	for _, e := range over {
		c.vacate(e.o) // not before Done has noted the result: the group keeps only a slot's last
		c.forget(e.o)
	}
	c.held--
	var space [flushSpace]flusher
	list := c.dirty.take(space[:0])
	c.mu.Unlock()
	for _, x := range list {
		x.Flush()
	}
}

func minTime(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// proven reports whether replica i made this proof of this result.
func (c *Client) proven(i ReplicaID, p *message.Proof, result []byte) bool {
	return c.sessions[i].Proves(&c.scratch, p, result)
}

func (c *Client) outstandingFor(a *message.Answer) *outstanding {
	if int(a.Slot) >= len(c.slots) {
		return nil
	}
	o := c.slots[a.Slot].call
	if o == nil || o.request.Timestamp != a.Timestamp || o.readOnly != a.ReadOnly {
		return nil // late, or of an earlier try
	}
	return o
}

// decide acts on what the answers so far come to. Done: the call is over.
func (c *Client) decide(o *outstanding) (result []byte, err error, done bool) {
	if o.failed != nil {
		return nil, o.failed, true
	}
	x := o.tally.Find(o.readOnly)
	switch x.Kind {
	case client.Believed:
		c.learn(o, &x)
		return x.Result, nil, true
	case client.Untold:
		// One of those who were named is slow or lies: the timer asks all, soon. A long result takes longer than its proof.
		if o.agreed.IsZero() {
			o.agreed = c.now()
			o.due = minTime(o.due, o.agreed.Add(max(minTimeout, 4*c.lag)))
		}
	case client.NotEnrolled:
		c.forgetOrigin()
		return nil, ErrNotEnrolled, true
	case client.Lost:
		if !o.keep {
			return nil, ErrResultLost, true
		}
		err = c.issue(o, o.request.Slot, true) // too long to be kept; it changes nothing, so it may be asked again
	case client.NotKept:
		// It changed nothing, and those who executed it are too few to say what it returned: a liar may see to it that
		// this happens every time.
		o.keep = true
		err = c.issue(o, o.request.Slot, false)
	case client.Superseded:
		switch {
		case o.resumed:
			return nil, ErrResultLost, true
		case !o.ReadOnly:
			// Another process with our key has used the slot, before our request was executed or after: it must not run twice.
			c.catchUp(x.Last)
			return nil, ErrResultLost, true
		}
		slot := &c.slots[o.request.Slot]
		slot.last = max(slot.last, x.Last)
		err = c.issue(o, o.request.Slot, false)
	case client.MustOrder:
		c.fallBack(o)
		err = o.failed
	case client.Apart:
		// Most often some executed it in one view and the rest in the next. All know by now that it has committed, or soon will, and
		// need only be asked; our back-off may have become long meanwhile.
		if !o.parted {
			o.parted = true
			o.due = minTime(o.due, c.now().Add(minTimeout))
		}
	case client.Waiting:
		err = c.widen(o)
	}
	return nil, err, err != nil
}

// learn notes what an answer that is believed tells of the group.
func (c *Client) learn(o *outstanding, x *client.Finding) {
	if !o.agreed.IsZero() && o.tries == 0 {
		c.lag += (c.now().Sub(o.agreed) - c.lag) / 4
	}
	c.view = max(c.view, x.View)
	c.timing.sample(c.now().Sub(o.sent), o.tries)
	if !o.readOnly {
		c.progress = c.now()
	}
	if !o.readOnly || c.fresh == 0 {
		c.fresh = x.By
	}
}

// widen asks more of the group for a read that those who were asked do not agree on: the rest of the replicas, and when these
// are known to be slow, to order it.
func (c *Client) widen(o *outstanding) error {
	switch {
	case !o.readOnly:
	case o.asked&^o.tally.Heard() == 0 && o.asked != c.everybody():
		c.askRest(o)
	case c.alone(o):
		c.fallBack(o)
	}
	return o.failed
}

// alone reports whether 2f+1 have answered a read, not alike, and those who have not are known to be slow: others write meanwhile, and
// to wait for one who may have stopped would take longer than to have the read ordered.
func (c *Client) alone(o *outstanding) bool {
	if bits.OnesCount32(o.tally.Heard()) < c.group.Quorum() {
		return false
	}
	now := time.Now()
	for i, p := range c.peers {
		if o.asked&^o.tally.Heard()&(1<<i) != 0 && p.link.Up() && !now.Before(p.lateUntil) {
			return false
		}
	}
	return true
}

// catchUp has what is sent from now on, in whatever slot, be later than a timestamp that the group knows in one of them: if our
// clock is behind it is so for all.
func (c *Client) catchUp(last Timestamp) {
	for i := range c.slots {
		c.slots[i].last = max(c.slots[i].last, last)
	}
}

// vacate frees the slot of a call that is over, or gives it to the one that waits longest. The caller holds the lock.
func (c *Client) vacate(over *outstanding) {
	s := over.request.Slot
	c.slots[s].hold(nil)
	c.free = append(c.free, s)
	c.under -= bulk(len(over.Body))
	c.beginWaiting()
}

// beginWaiting gives slots to the calls that have waited longest, for as long as there is room. The caller holds the lock.
func (c *Client) beginWaiting() {
	for len(c.waiting) > 0 && c.room(len(c.waiting[0].Body)) {
		o := c.waiting[0]
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
		if err := c.assign(o); err != nil {
			go o.Done(nil, err)
		}
	}
}

func (l *clientLink) onNewKey(conn *transport.Conn, who *remote, frame []byte) bool {
	c := l.c
	if !who.mayChangeKeys(time.Now()) {
		c.edge.badKey.Add(1)
		return false
	}
	m, err := message.Decode(owned(frame), &c.wire)
	if err != nil {
		c.edge.malformed.Add(1)
		return false
	}
	answer, changed, err := c.ring.Accept(who.session, m.(*message.NewKey), channel(conn))
	if err == nil && !c.vouched(conn, who.session) {
		err = errTransportKey
	}
	if err != nil {
		c.edge.badKey.Add(1)
		c.keyRefused(conn, m.(*message.NewKey), err)
		return false
	}
	if answer {
		c.sendKey(conn, who.session, "")
	}
	c.keyAccepted(l.id, changed)
	if rival := m.(*message.NewKey).Rival; len(rival) > 0 {
		c.toldOfRival(l.id, string(rival))
	}
	return true
}

// keyAccepted wakes those who wait for sessions and, if we seal under a new key, authenticates all outstanding
// requests again, under the newest keys, to all replicas (R-OUR-10). A replica that changes its key all the time makes
// us do so once a second; the rest is the timers' work.
func (c *Client) keyAccepted(i ReplicaID, changed bool) {
	now := time.Now()
	c.mu.Lock()
	defer c.release()
	c.signal()
	p := c.peers[i]
	if !c.origin.known {
		c.newOrigin()
		c.queryOne(p, c.origin.nonce)
	}
	if !changed || now.Sub(p.rekeyed) < time.Second {
		return
	}
	p.rekeyed = now
	for i := range c.slots {
		if o := c.slots[i].call; o != nil {
			c.transmit(o, true)
		}
	}
}

// roundTrip estimates how long an answer takes, as TCP does [RFC6298], so that the first retry comes soon after an
// answer is late and not while the group is merely busy.
//
// An answer to a request that was sent more than once is no sample, for it may answer any of them. But then the
// present timeout is shorter than a busy group needs, and if nothing were learnt from it every request would be sent
// twice, which keeps the group busy. So the time it took bounds the next timeouts from below, and that bound
// is forgotten as requests are answered at their first try.
type roundTrip struct{ smoothed, variation, floor time.Duration }

const (
	minTimeout = 25 * time.Millisecond
	maxFloor   = 10 * minTimeout // a primary that serves no first try costs each request no more
	maxTimeout = 2 * time.Second
)

func (t *roundTrip) reset() { t.smoothed, t.variation = 10*time.Millisecond, 5*time.Millisecond }

func (t *roundTrip) sample(d time.Duration, tries int) {
	if tries > 0 {
		t.floor = max(t.floor, min(d, maxFloor))
		return
	}
	t.floor -= t.floor / 4
	t.variation += ((d - t.smoothed).Abs() - t.variation) / 4
	t.smoothed += (d - t.smoothed) / 8
}

func (t *roundTrip) timeout() time.Duration {
	return min(max(t.smoothed+4*t.variation, minTimeout, t.floor), maxTimeout)
}

// backOff is the wait after the given number of tries, doubled each time and spread, so that clients do not
// come back together.
func (t *roundTrip) backOff(tries int) time.Duration {
	d := min(t.timeout()<<min(tries, 8), maxTimeout)
	return d + time.Duration(rand.Int64N(int64(d)/4))
}
