package pbft

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A tally gathers replies to one request until enough of them agree [TOCS §4.2, §6.1].
type tally struct {
	heard   uint32 // bit i: replica i has answered
	replies []verdict
	results [][]byte // those that are here in full, no two alike: no more than there are replicas
	failed  error
}

// A verdict is one replica's answer. It may stand on two grounds: the replica has executed the request in the batch
// prepared as number seq of view prepared, and it knows that it has committed.
type verdict struct {
	view      View
	seq       SeqNum // 0: not on that ground
	prepared  View
	length    int32
	try       int32 // the request's tries when it came
	result    int8  // which of the results it is, or proves; unproved, untold
	outcome   message.Outcome
	committed bool
	proof     message.Proof // if the result is unproved
	last      Timestamp     // of a Superseded
}

const (
	// unproved is the result of a verdict that proves none of those that are here. Two of them may prove the same one yet.
	unproved = -1 - iota
	// untold is that of a verdict with the length alone: that the request was executed.
	untold
)

// alike: the same answer, whatever it stands on. Of results that are not here only the length is known.
func (v *verdict) alike(w *verdict) bool {
	return v.outcome == w.outcome && v.length == w.length && v.result == w.result
}

// supports reports whether v is the same answer as w, or may be for all that it tells. What correct replicas executed on one ground they
// executed alike. Of a read, where there is no such ground before they are asked, all of them tell.
func (v *verdict) supports(w *verdict) bool {
	return v.outcome == w.outcome && v.length == w.length && (v.result == w.result || v.result == untold)
}

func (t *tally) reset(n int) {
	if t.replies == nil {
		t.replies = make([]verdict, n)
	}
	clear(t.results) // the last result is its receiver's
	t.heard, t.results, t.failed = 0, t.results[:0], nil
}

func (t *tally) has(i ReplicaID) bool { return t.heard&(1<<i) != 0 }

// add notes an answer to the given try of a request of which replier was to return the full result. A replica may answer
// again, with the full result or after catching up: its last word counts. But that a result is no longer kept is
// what it says to a copy of a request it has just answered, and outweighs that answer at a later try only.
func (t *tally) add(m *message.Reply, a *message.Answer, replier ReplicaID, try int, proves prover) {
	v := verdict{outcome: a.Outcome, length: int32(a.Length), view: m.View, seq: m.Seq, prepared: m.View, committed: !m.Tentative, try: int32(try)}
	old := &t.replies[m.From]
	noResult := a.Outcome == message.NotKept || a.Outcome == message.Lost
	if noResult && t.has(m.From) && old.outcome == message.Executed && v.try <= old.try {
		return
	}
	fresh := false // nobody gave it before
	switch full := a.Full && (!a.Long() || m.From == replier || replier == message.AnyReplier); {
	case a.Outcome == message.Superseded && a.Length == 8 && a.Full:
		v.last = Timestamp(binary.LittleEndian.Uint64(a.Result))
		v.length = 0
		v.result, fresh = t.find(nil, m.From)
	case full:
		v.result, fresh = t.find(a.Result, m.From)
	case !a.Proved:
		v.result = untold
	default:
		v.proof, v.result = a.Proof, t.provenBy(m.From, &a.Proof, a.Length, proves)
	}
	if !fresh && t.has(m.From) && old.alike(&v) {
		// It said so before, and what it said on one ground it need not repeat on the other.
		v.committed = v.committed || old.committed
		if v.seq == 0 {
			v.seq, v.prepared = old.seq, old.prepared
		}
	}
	t.heard |= 1 << m.From
	t.replies[m.From] = v
	if fresh {
		t.recognise(v.result, proves)
	}
}

// A prover reports whether replica i made this proof of this result.
type prover func(i ReplicaID, p *message.Proof, result []byte) bool

// find returns the number of a result that a replica gives now, and keeps it if it is fresh: in the place of one that nobody
// else's last word is, or one liar could give as many as it likes.
func (t *tally) find(result []byte, from ReplicaID) (k int8, fresh bool) {
	for i, r := range t.results {
		if bytes.Equal(r, result) {
			return int8(i), false
		}
	}
	if len(result) <= transport.Keep {
		result = append([]byte(nil), result...) // it lies in a frame that is lent
	}
	for i := range t.results {
		if !t.given(int8(i), from) {
			t.results[i] = result
			return int8(i), true
		}
	}
	t.results = append(t.results, result)
	return int8(len(t.results) - 1), true
}

// given reports whether a result is the last word of a replica other than this one.
func (t *tally) given(k int8, but ReplicaID) bool {
	for i := range t.replies {
		if j := ReplicaID(i); j != but && t.has(j) && t.replies[i].result == k {
			return true
		}
	}
	return false
}

// provenBy is the number of the result that replica i proves, or unproved.
func (t *tally) provenBy(i ReplicaID, p *message.Proof, length int, proves prover) int8 {
	for k, r := range t.results {
		if len(r) == length && proves(i, p, r) {
			return int8(k)
		}
	}
	return unproved
}

// recognise lets a result that has just come be proved by those who have answered already.
func (t *tally) recognise(k int8, proves prover) {
	for i := range t.replies {
		v := &t.replies[i]
		if t.has(ReplicaID(i)) && v.result == unproved && int(v.length) == len(t.results[k]) && proves(ReplicaID(i), &v.proof, t.results[k]) {
			v.result = k
		}
	}
}

// A support is who agrees on an answer, on one ground.
type support struct {
	all  uint32 // bit i: replica i gives the answer, or may have it for all that it tells
	told uint32 // those that give the result or prove it
}

func (s *support) add(i int, told bool) {
	s.all |= 1 << i
	if told {
		s.told |= 1 << i
	}
}

// decides reports whether an answer is certain: 2f+1 executed the request on one ground, and f+1 of them, of which one is correct and
// executed what all correct ones did, say with what result.
func (s support) decides(f int) bool {
	return bits.OnesCount32(s.all) > 2*f && bits.OnesCount32(s.told) > f
}

// best is the answer that is certain, or else the one that most replicas agree on, and those who do on one common ground: all know that
// it has committed, or all have prepared it under one number in one view. Mixed they prove nothing: what one prepared need
// not be what another saw commit, and a replica that must take its answer back may tell the next reader otherwise.
func (t *tally) best() (v verdict, by support) {
	f := (len(t.replies) - 1) / 3
	var best *verdict
	var certain bool
	for i := range t.replies {
		if !t.has(ReplicaID(i)) {
			continue
		}
		x := &t.replies[i]
		committed, prepared := t.agreeing(x)
		for _, s := range [2]support{committed, prepared} {
			if c := x.result != unproved && s.decides(f); c && !certain || c == certain && bits.OnesCount32(s.all) > bits.OnesCount32(by.all) {
				best, by, certain = x, s, c
			}
		}
		if certain && by.all == t.heard {
			break // all do, as mostly
		}
	}
	if best != nil {
		v = *best
	}
	return v, by
}

// agreeing are the replicas that support the answer x: those that know that the request has committed, and those that have prepared
// what x has prepared.
func (t *tally) agreeing(x *verdict) (committed, prepared support) {
	for i := range t.replies {
		y := &t.replies[i]
		if !t.has(ReplicaID(i)) || !y.supports(x) {
			continue
		}
		told := y.result != untold
		if y.committed {
			committed.add(i, told)
		}
		if x.seq != 0 && y.seq == x.seq && y.prepared == x.prepared {
			prepared.add(i, told)
		}
	}
	return committed, prepared
}

// alike counts the replicas that support the answer x, on whatever ground.
func (t *tally) alike(x *verdict) (n int) {
	for i := range t.replies {
		if t.has(ReplicaID(i)) && t.replies[i].supports(x) {
			n++
		}
	}
	return n
}

// hopeless reports that no answer can reach the quorum any more, whatever the replicas not heard of say.
func (t *tally) hopeless(n, quorum int) bool {
	_, by := t.best()
	return bits.OnesCount32(by.all)+n-bits.OnesCount32(t.heard) < quorum
}

// lastOf is the (f+1)-th largest last timestamp of those that say Superseded: a correct replica has seen one at
// least as large.
func (t *tally) lastOf(weak int) Timestamp {
	var all []Timestamp
	for i, v := range t.replies {
		if t.has(ReplicaID(i)) && v.outcome == message.Superseded {
			all = append(all, v.last)
		}
	}
	slices.Sort(all)
	return all[len(all)-weak]
}

// viewOf is the largest view that f+1 of the agreeing replies have reached: one alone must not be trusted
// (R-CLI-6).
func (t *tally) viewOf(agreed verdict, weak int) View {
	var space [32]View
	all := space[:0]
	for i := range t.replies {
		if v := &t.replies[i]; t.has(ReplicaID(i)) && v.supports(&agreed) {
			all = append(all, v.view)
		}
	}
	slices.Sort(all)
	return all[len(all)-weak]
}

// clientLink handles the connection to one replica.
type clientLink struct {
	c  *Client
	id ReplicaID
}

// Opened implements transport.Handler.
func (l *clientLink) Opened(c *transport.Conn) {
	session := l.c.peers[l.id].session
	c.SetUser(&remote{session: session})
	l.c.sendKey(c, session)
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
			o.tally.add(m, a, o.request.Replier, o.tries, c.proves)
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

// decide applies the reply rule: 2f+1 replies on one ground for every operation, because reads take the one-round-trip path
// (R-CLI-3, R-OPT-RO-6), f+1 of them with a proof of the result and one with the result. Refusals need 2f+1: f correct replicas
// may be so far behind that they do not know the client yet, and f others may lie.
func (c *Client) decide(o *outstanding) (result []byte, err error, done bool) {
	switch {
	case o.tally.failed != nil:
		return nil, o.tally.failed, true
	case bits.OnesCount32(o.tally.heard) < c.votes(o):
		return nil, nil, false
	}
	v, by := o.tally.best()
	count := bits.OnesCount32(by.all)
	enough := count >= c.group.Quorum()
	refused := count >= c.group.Weak()
	switch {
	case enough && v.outcome == message.Executed:
		if v.result < 0 || bits.OnesCount32(by.told) < c.group.Weak() {
			// One of those who were named is slow or lies: the timer asks all, soon. A long result takes longer than its proof.
			if o.agreed.IsZero() {
				o.agreed = c.now()
				o.due = minTime(o.due, o.agreed.Add(max(minTimeout, 4*c.lag)))
			}
			return nil, nil, false
		}
		if !o.agreed.IsZero() && o.tries == 0 {
			c.lag += (c.now().Sub(o.agreed) - c.lag) / 4
		}
		c.view = max(c.view, o.tally.viewOf(v, c.group.Weak()))
		c.timing.sample(c.now().Sub(o.sent), o.tries)
		if !o.readOnly {
			c.progress = c.now()
		}
		if !o.readOnly || c.fresh == 0 {
			c.fresh = by.all
		}
		return o.tally.results[v.result], nil, true
	case enough && v.outcome == message.NotEnrolled:
		return nil, ErrNotEnrolled, true
	case enough && v.outcome == message.Lost && o.keep:
		err = c.issue(o, o.request.Slot, true) // too long to be kept; it changes nothing, so it may be asked again
	case enough && v.outcome == message.Lost, enough && v.outcome == message.Superseded && o.resumed:
		return nil, ErrResultLost, true
	case enough && v.outcome == message.Superseded && !o.ReadOnly:
		// Another process with our key has used the slot, before our request was executed or after: it must not run twice.
		c.catchUp(o.tally.lastOf(c.group.Weak()))
		return nil, ErrResultLost, true
	case enough && v.outcome == message.NotKept:
		// It changed nothing, and those who executed it are too few to say what it returned: a liar may see to it that
		// this happens every time.
		o.keep = true
		err = c.issue(o, o.request.Slot, false)
	case enough && v.outcome == message.Superseded:
		slot := &c.slots[o.request.Slot]
		slot.last = max(slot.last, o.tally.lastOf(c.group.Weak()))
		err = c.issue(o, o.request.Slot, false)
	case o.readOnly && (refused && v.outcome == message.NotReadOnly || o.tally.hopeless(len(c.peers), c.group.Quorum())):
		c.fallBack(o)
		err = o.tally.failed
	case o.readOnly && o.asked&^o.tally.heard == 0 && o.asked != c.everybody():
		c.askRest(o)
	case o.readOnly && c.alone(o):
		c.fallBack(o)
		err = o.tally.failed
	case !o.readOnly && !o.parted && v.outcome == message.Executed && o.tally.alike(&v) >= c.group.Quorum():
		// Most often some executed it in one view and the rest in the next. All know by now that it has committed, or soon will, and
		// need only be asked; our back-off may have become long meanwhile.
		o.parted = true
		o.due = minTime(o.due, c.now().Add(minTimeout))
	}
	return nil, err, err != nil
}

// votes is how many replies can bring something about: f+1 do to say that a read must be ordered.
func (c *Client) votes(o *outstanding) int {
	if o.readOnly {
		return c.group.Weak()
	}
	return c.group.Quorum()
}

// alone reports whether 2f+1 have answered a read, not alike, and those who have not are known to be slow: others write meanwhile, and
// to wait for one who may have stopped would take longer than to have the read ordered.
func (c *Client) alone(o *outstanding) bool {
	if bits.OnesCount32(o.tally.heard) < c.group.Quorum() {
		return false
	}
	now := time.Now()
	for i, p := range c.peers {
		if o.asked&^o.tally.heard&(1<<i) != 0 && p.link.Up() && !now.Before(p.lateUntil) {
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
	answer, changed, err := c.ring.Accept(who.session, m.(*message.NewKey))
	if err == nil && !c.vouched(conn, who.session) {
		err = errTransportKey
	}
	if err != nil {
		c.edge.badKey.Add(1)
		c.warn("NEW-KEY refused", "replica", l.id, "address", conn.RemoteAddr(), "err", err)
		return false
	}
	if answer {
		c.sendKey(conn, who.session)
	}
	c.keyAccepted(l.id, changed)
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
