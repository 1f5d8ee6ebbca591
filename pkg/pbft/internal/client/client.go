// SPDX-License-Identifier: Apache-2.0

// Package client is a client of the group as arithmetic [TOCS §4.2, §6.1]: operations,
// replies and the time go in, requests to send and results come out. It has no clock,
// socket, goroutine, lock, key or chance. pbft.Client gives it these, and the simulator
// drives the same code with its own.
//
// Each type owns one part of the state:
//
//	Tally     the replies to one request, and whether they are believed
//	call      one operation, and the request that it is sent as at present
//	audience  the replicas that a request goes to, and those that return or prove the result
//	patience  how long the client waits before it asks again: a stream for the ordered calls, one for
//	          those with long operations and one for the reads, each with the roundTrip that its
//	          answers take
//	bulk      how many long operations it has under way
//	origin    the timestamp above which requests begin
//	rivalry   what replicas say of other processes with the same key
package client

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// Errors with which a call ends.
var (
	// ErrNotEnrolled: 2f+1 replicas say that this client's key is not enrolled, or was revoked.
	ErrNotEnrolled = errors.New("client is not enrolled in the group")
	// ErrResultLost: the operation was executed, but its result is no longer kept; or it may
	// have been executed, for its slot has gone on to a request that this client did not make.
	ErrResultLost = errors.New("operation was executed, or may have been, and its result is no longer available")
)

// A Verb is a kind of effect.
type Verb uint8

// The kinds of effect.
const (
	// Send: authenticate the request of the call in Slot, and send it to the replicas in
	// To. The copies for replicas in Brief go without the operation. If New, the timestamp
	// was never sent before. A caller that writes timestamps down does so first, and calls
	// Fail if it cannot. The request's Apart is as the effect says, and true in the copies
	// for those in Shown.
	Send Verb = iota + 1
	// Done: the call in Slot is over, with Result or Err. The caller calls Free when it
	// has noted the result, and not before: the group keeps only a slot's last result.
	Done
	// Ask: send a QUERY-STABLE with Nonce to the replicas in To. The answers go to Latest.
	Ask
)

// An Effect is one instruction to the caller.
type Effect struct {
	Verb   Verb
	Slot   message.Slot
	To     uint32 // bit i: replica i
	New    bool
	Apart  bool   // the request says that every replica is sent it
	Shown  uint32 // bit i: replica i is sent a copy that says so, after the others
	Brief  uint32 // bit i: replica i was sent the operation before
	Nonce  uint64
	Result []byte
	Err    error
}

// Counts of a client's life.
type Counts struct{ Retries, Fallbacks uint64 }

// A Client decides for one principal. Its methods are for one goroutine at a time. Each
// leaves effects, which the caller takes and performs before it calls the next method.
type Client struct {
	cfg      Config
	edge     Edge
	proves   Prover // edge.Proves, bound once
	slots    []slot
	free     []message.Slot // the last one is taken first
	audience audience
	patience patience
	origin   origin
	rivalry  rivalry
	rekeyed  []Time // by replica: when its new key last had everything sent again
	owed     Time   // when calls whose request has a MAC under an old key are sent again; notOwed: there are none
	counts   Counts
	wrong    []uint64 // by replica: results that were not the one that was believed
	out      []Effect
	taken    []Effect
}

// A slot is one line of calls: the paper's client.
type slot struct {
	last  message.Timestamp // of its requests so far
	phase phase
	call  call // of the phases calling and over
}

type phase uint8

const (
	idle    phase = iota // the slot is free
	calling              // its call waits for replies
	over                 // its call has ended, and Free is to come
)

// New returns a client that has made no call.
func New(cfg Config, edge Edge) *Client {
	c := &Client{
		cfg: cfg, edge: edge, proves: edge.Proves,
		slots: make([]slot, cfg.Slots), rekeyed: make([]Time, cfg.Replicas), owed: notOwed,
		wrong: make([]uint64, cfg.Replicas),
	}
	for i := range c.slots {
		c.slots[i].last = cfg.Clock
		c.free = append(c.free, message.Slot(len(c.slots)-1-i))
	}
	for i := range c.rekeyed {
		c.rekeyed[i] = never
	}
	c.audience.init(&c.cfg, edge)
	c.patience.init()
	c.origin.init()
	c.rivalry.init(cfg.Replicas)
	return c
}

// Effects takes the effects that wait. The list is good until Effects is called again.
func (c *Client) Effects() []Effect {
	clear(c.taken)
	c.out, c.taken = c.taken[:0], c.out
	return c.taken
}

func (c *Client) do(e Effect) { c.out = append(c.out, e) }

// Room reports whether an operation of n bytes may begin: there is a free slot, it is known where
// timestamps begin, and a long operation finds room beside the others.
func (c *Client) Room(n int) bool {
	return len(c.free) > 0 && c.origin.known && c.patience.bulk.room(n)
}

// Start begins an operation for which there is room, and returns its slot.
func (c *Client) Start(now Time, op Operation) message.Slot {
	s := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.issue(now, c.take(s, op), op.ReadOnly)
	return s
}

// Resume sends the request that an earlier life of this client sent in a slot under a
// timestamp again, unchanged. It comes before any Start.
func (c *Client) Resume(now Time, s message.Slot, t message.Timestamp, op Operation) error {
	i := slices.Index(c.free, s)
	if i < 0 {
		return fmt.Errorf("slot %d: not there, or taken", s)
	}
	c.free = slices.Delete(c.free, i, i+1)
	k := c.take(s, op)
	k.resumed, k.keep = true, t%keepEvery == 0
	c.slots[s].last = max(c.slots[s].last, t)
	c.prepare(now, k, t, false)
	c.send(now, k, true, false)
	return nil
}

// take gives a slot to an operation.
func (c *Client) take(s message.Slot, op Operation) *call {
	x := &c.slots[s]
	x.phase = calling
	x.call.begin(s, op)
	c.patience.bulk.begin(len(op.Body))
	return &x.call
}

// keepEvery divides the timestamps of the requests that ask for their result to be kept, and no
// others. A client that resumes a request knows its timestamp, and so whether it asked for that.
const keepEvery = 1 << 20

// next is the timestamp of the request that follows another of its slot.
func next(last message.Timestamp, keep bool) message.Timestamp {
	t := last + 1
	switch {
	case keep:
		return (last/keepEvery + 1) * keepEvery
	case t%keepEvery == 0:
		return t + 1
	}
	return t
}

// issue makes the call's request under a new timestamp, and has it sent.
func (c *Client) issue(now Time, k *call, readOnly bool) {
	s := &c.slots[k.request.Slot]
	s.last = next(s.last, k.keep)
	k.resumed = false
	c.prepare(now, k, s.last, readOnly)
	c.send(now, k, false, true)
}

// prepare begins a try of the call.
func (c *Client) prepare(now Time, k *call, t message.Timestamp, readOnly bool) {
	k.prepare(c.cfg.Client, t, readOnly)
	k.tally.Reset(c.cfg.Replicas, c.cfg.Lent)
	k.sent, k.due = now, unset
}

// send sends the call's request: a first ordered try to the primary alone, if that can be
// spoken to, a first read to the replicas that gave the last result, anything else to
// every replica (R-CLI-2, R-CLI-5).
func (c *Client) send(now Time, k *call, again, first bool) {
	a, q := &c.audience, &k.request
	to := a.of(now, q.ReadOnly, again)
	apart := !again && a.separate(k)
	if apart {
		to = a.everybody()
	}
	q.Replier, q.Provers = a.replier(now, again, q.ReadOnly, to)
	if !a.reaches(to) {
		to = a.everybody()
	}
	k.asked, k.repeated, k.stale = to, k.repeated || again, false
	brief := k.shorten(to, again)
	k.had, k.apart = k.had|to, k.apart || apart
	if first && q.ReadOnly && to != a.everybody() {
		k.due = now + c.patience.widen()
	}
	shown, primary := uint32(0), uint32(1<<a.primary())
	switch {
	case to == primary && a.shows(now, k):
		shown = a.everybody() &^ to
	case again && k.apart && k.tries <= 1 && brief&primary != 0:
		shown, to = primary, to&^primary // it may go on naming the operation by its digest
	}
	c.do(Effect{Verb: Send, Slot: q.Slot, To: to, New: first, Apart: apart, Shown: shown, Brief: brief})
}

// missing sends a replica the whole request that was sent to it without its operation: it has
// restarted, or had no room when the operation came. It may say so once for each time.
func (c *Client) missing(k *call, i message.ReplicaID) {
	if k.brief&(1<<i) == 0 {
		return
	}
	k.brief &^= 1 << i
	c.do(Effect{Verb: Send, Slot: k.request.Slot, To: 1 << i})
}

// Request is the present request of a slot's call, for the caller to authenticate, encode and send.
func (c *Client) Request(s message.Slot) *message.Request { return &c.slots[s].call.request }

// Tally is the tally of the replies to it.
func (c *Client) Tally(s message.Slot) *Tally { return &c.slots[s].call.tally }

// Last is the latest timestamp of a slot's requests.
func (c *Client) Last(s message.Slot) message.Timestamp { return c.slots[s].last }

// Calling reports whether a call in a slot waits for replies.
func (c *Client) Calling(s message.Slot) bool { return c.slots[s].phase == calling }

// View is the highest view that f+1 replicas have shown in replies that were believed.
func (c *Client) View() message.View { return c.audience.view }

// Counts is how often the client has sent a request again, and ordered one that began as a read.
func (c *Client) Counts() Counts { return c.counts }

// UnderWay is how many slots are not free.
func (c *Client) UnderWay() int { return len(c.slots) - len(c.free) }

// Free gives back the slot of a call that is over, or that was never sent.
func (c *Client) Free(s message.Slot) {
	x := &c.slots[s]
	x.phase = idle
	c.patience.bulk.end(len(x.call.operation.Body))
	x.call.forget()
	c.free = append(c.free, s)
}

// Fail ends a call whose request could not be sent.
func (c *Client) Fail(s message.Slot, why error) {
	if c.slots[s].phase == calling {
		c.end(s, nil, why)
	}
}

// FailAll ends all calls with an error.
func (c *Client) FailAll(why error) {
	for i := range c.slots {
		c.Fail(message.Slot(i), why)
	}
}

func (c *Client) end(s message.Slot, result []byte, err error) {
	c.slots[s].phase = over
	c.do(Effect{Verb: Done, Slot: s, Result: result, Err: err})
}

// Reply counts a replica's answers, and acts on the finding from all answers so far.
func (c *Client) Reply(now Time, m *message.Reply) {
	c.audience.heard(m.From)
	for i := range m.Answers {
		a := &m.Answers[i]
		switch k := c.waiting(a); {
		case k == nil:
		case a.Outcome == message.Missing:
			c.missing(k, m.From)
		default:
			k.tally.Add(m, a, k.request.Replier, k.tries, c.proves)
			c.decide(now, k)
		}
	}
}

// waiting returns the call whose present request this answers; nil if the answer is late, or
// answers an earlier try.
func (c *Client) waiting(a *message.Answer) *call {
	if int(a.Slot) >= len(c.slots) || c.slots[a.Slot].phase != calling {
		return nil
	}
	k := &c.slots[a.Slot].call
	if k.request.Timestamp != a.Timestamp || k.request.ReadOnly != a.ReadOnly {
		return nil
	}
	return k
}

// decide acts on the finding from the answers to a call.
func (c *Client) decide(now Time, k *call) {
	var x Finding
	k.tally.Find(k.request.ReadOnly, &x)
	s := k.request.Slot
	if c.cfg.Found != nil && x.Kind != Waiting {
		c.cfg.Found(s, x)
	}
	switch x.Kind {
	case Believed:
		c.blame(x.Wrong)
		c.learn(now, k, &x)
		c.end(s, x.Result, nil)
	case Untold:
		// One of the replicas that were named is slow or lies. All are asked soon; a long
		// result takes longer than its proof.
		if k.agreed == never {
			k.agreed = now
		}
		k.due = min(k.due, k.agreed+c.patience.forResult(k, c.audience.owing(k)))
	case NotEnrolled:
		c.origin.forget() // it changes when a key is enrolled
		c.end(s, nil, ErrNotEnrolled)
	case Lost:
		if !k.keep {
			c.end(s, nil, ErrResultLost)
			return
		}
		c.issue(now, k, true) // too long to be kept; it changes nothing, so it may be asked again
	case NotKept:
		// It changed nothing, and too few replicas have executed it to say what it returned. A liar
		// may cause this each time, so the result is kept the next time.
		k.keep = true
		c.issue(now, k, false)
	case Superseded:
		c.superseded(now, k, x.Last)
	case MustOrder:
		c.fallBack(now, k)
	case Apart:
		// Most often some executed it in one view and the rest in the next. All know by
		// now that it has committed, or soon will, and need only be asked; the back-off
		// may have become long meanwhile.
		if !k.parted {
			k.parted = true
			k.due = min(k.due, now+minTimeout)
		}
	case Waiting:
		c.widen(now, k)
	}
}

// blame counts wrong results.
func (c *Client) blame(wrong uint32) {
	for ; wrong != 0; wrong &= wrong - 1 {
		c.wrong[bits.TrailingZeros32(wrong)]++
	}
}

// Wrong counts the results of replica i that were not those that were believed, as far as
// they came before these.
func (c *Client) Wrong(i message.ReplicaID) uint64 { return c.wrong[i] }

// learn updates view, audience and time-outs from an answer that is believed. When the
// view has changed, the requests that went to an earlier primary are due: it may have
// stopped before it proposed them.
func (c *Client) learn(now Time, k *call, x *Finding) {
	before := c.audience.view
	c.patience.answered(now, k)
	c.audience.answered(k.request.ReadOnly, x)
	for i := range c.slots {
		if c.audience.view == before {
			break
		}
		for _, s := range []*stream{&c.patience.ordered, &c.patience.long} {
			if o := c.first(i, s); o != nil && o != k {
				o.due = now
			}
		}
	}
}

// superseded acts on the word of 2f+1 replicas that the slot has executed a later request
// than the call's. A read is asked again. Anything else must not run twice: this process
// cannot know whether its request was executed before the later one.
func (c *Client) superseded(now Time, k *call, last message.Timestamp) {
	s := &c.slots[k.request.Slot]
	switch {
	case k.resumed:
		c.end(k.request.Slot, nil, ErrResultLost)
	case !k.operation.ReadOnly:
		c.catchUp(c.after(last))
		c.end(k.request.Slot, nil, ErrResultLost)
	default:
		s.last = max(s.last, c.after(last))
		c.issue(now, k, false)
	}
}

// catchUp has later requests, in whatever slot, follow a timestamp that the group knows
// in one of them: a clock that is behind is behind for all slots.
func (c *Client) catchUp(last message.Timestamp) {
	for i := range c.slots {
		c.slots[i].last = max(c.slots[i].last, last)
	}
}

// skip is about how far a client goes beyond a timestamp that it has learnt from the group: four
// seconds of a clock.
const skip = 1 << 32

// after is a timestamp beyond one that f+1 replicas know. Other correct replicas may have
// executed later requests of an earlier life, and a request under one of their timestamps
// would be answered with their results. Where it is among the timestamps is chance, so
// that it does not meet those that an earlier life came to by this rule.
func (c *Client) after(known message.Timestamp) message.Timestamp {
	return known + skip + message.Timestamp(c.edge.Chance(skip))
}

// widen asks more of the group for a read on which the replicas that have answered do not
// agree: the others, and if those are known to be slow, or leave us waiting, to order it.
// They disagree because a write is under way. Waiting for a replica that has stopped, or
// that recovers and answers no reads, would take longer than ordering the read.
func (c *Client) widen(now Time, k *call) {
	a, heard := &c.audience, k.tally.Heard()
	waits := a.reaches(k.asked &^ heard)
	switch others := a.everybody() &^ heard; {
	case !k.request.ReadOnly || !a.quorum(heard) && waits:
	case a.quorum(heard) && a.slow(now, others):
		c.fallBack(now, k)
	case !waits && k.asked != a.everybody():
		c.askOthers(now, k)
	default:
		k.due = min(k.due, now+c.patience.widen())
	}
}

// askOthers sends a read to the replicas that it was not sent to, for them to answer in
// full. Their answers are no sample of a round trip. If a quorum has answered already, and
// does not agree, the client waits for these answers no longer than most answers take.
func (c *Client) askOthers(now Time, k *call) {
	all := c.audience.everybody()
	k.request.Replier = message.AnyReplier
	c.do(Effect{Verb: Send, Slot: k.request.Slot, To: all &^ k.asked})
	k.asked, k.widened, k.due = all, true, unset
	if c.audience.quorum(k.tally.Heard()) {
		k.due = now + c.patience.widen()
	}
}

// fallBack orders an operation whose read-only try found no 2f+1 equal answers, under a
// new timestamp, so that the answers cannot be mixed up (R-OPT-RO-5).
func (c *Client) fallBack(now Time, k *call) {
	c.counts.Fallbacks++
	c.issue(now, k, false)
}

// Disconnected notes that the connection to a replica has ended: what was under way on
// it is lost. The reads that it was asked for are asked of others, and nobody waits for
// results that it was named for.
func (c *Client) Disconnected(now Time, i message.ReplicaID) {
	for s := range c.slots {
		k := &c.slots[s].call
		k.had &^= 1 << i
		switch {
		case c.slots[s].phase != calling || k.asked&(1<<i) == 0 || k.tally.Has(i):
		case k.agreed != never:
			k.due = min(k.due, k.agreed+c.patience.forResult(k, c.audience.owing(k)))
		case k.tries == 0:
			c.widen(now, k)
		}
	}
}

// Tick sends the requests that are due again, and asks for the origin as long as it is not known.
func (c *Client) Tick(now Time) {
	if c.origin.isDue(now) {
		c.do(Effect{Verb: Ask, Nonce: c.origin.nonce, To: c.audience.everybody()})
	}
	c.payOwed(now)
	c.listen(now, &c.patience.ordered)
	c.listen(now, &c.patience.long)
	c.listen(now, &c.patience.reads)
	for i := range c.slots {
		if x := &c.slots[i]; x.phase == calling && now >= c.patience.due(&x.call) {
			c.retry(now, &x.call)
		}
	}
}

// listen acts on the silence of a stream, when none of its calls has had a result for a timeout.
// The oldest call alone is due, as in TCP [RFC6298 §5.4]: mostly the group is only slow, and then
// the answer to one request shows that. If only calls that were sent again have had answers since,
// all calls that have waited this long are due.
func (c *Client) listen(now Time, s *stream) {
	oldest, behind := c.oldest(s), c.patience.behind()
	if oldest == nil || now < s.silence(oldest.sent, behind) {
		return
	}
	oldest.due = now
	for i := range c.slots {
		if k := c.first(i, s); s.losing && k != nil && now >= s.silence(k.sent, behind) {
			k.due = now
		}
	}
	s.expire(now)
}

// oldest returns the stream's oldest call among those that were sent once; nil if there is none.
func (c *Client) oldest(s *stream) (oldest *call) {
	for i := range c.slots {
		if k := c.first(i, s); k != nil && (oldest == nil || k.sent < oldest.sent) {
			oldest = k
		}
	}
	return oldest
}

// first is the i-th slot's call if it waits in a stream at its first try, nil if not.
func (c *Client) first(i int, s *stream) *call {
	if x := &c.slots[i]; x.phase == calling && x.call.tries == 0 && c.patience.of(&x.call) == s {
		return &x.call
	}
	return nil
}

// Next returns the earliest time at which Tick may have something to do; false if there is none.
func (c *Client) Next(now Time) (at Time, ok bool) {
	at = math.MaxInt64
	if !c.origin.known {
		at, ok = c.origin.asked+askAgain, true
	}
	for i := range c.slots {
		if x := &c.slots[i]; x.phase == calling {
			at, ok = min(at, c.patience.due(&x.call), c.owed), true
		}
	}
	return max(at, now+1), ok
}

// retry sends a request again, to all and for all to answer in full, with exponential
// back-off. A late read is sent to the replicas that were not asked at first, before it
// is sent to any again; and one that was sent twice, or that f+1 have answered and no
// quorum alike, is ordered instead [TOCS §6.1]: the way to the group is good, and the
// others are away, or answer no reads because they recover.
func (c *Client) retry(now Time, k *call) {
	a := &c.audience
	a.missed(now, k)
	if k.request.ReadOnly && a.reaches(a.everybody()&^k.asked) {
		c.askOthers(now, k)
		return
	}
	if k.request.ReadOnly && k.agreed == never && a.weak(k.tally.Heard()) {
		c.fallBack(now, k)
		return
	}
	c.counts.Retries++
	if k.request.ReadOnly && k.tries >= 1 {
		c.fallBack(now, k)
		return
	}
	c.patience.bulk.late(now, k.sent, len(k.operation.Body))
	if k.tries++; k.tries == 1 && k.agreed != never {
		c.patience.result.expire()
	}
	k.due = now + c.patience.backOff(k, c.edge) + c.patience.behind()
	c.send(now, k, true, false)
}

// rekeyPeriod is how often at most the primary's new keys have everything sent to it again at once.
const rekeyPeriod = time.Second / 2

// KeyAccepted notes that a replica can be spoken to under a key that it has announced. If
// we seal under another key than before, the outstanding requests are sent again,
// authenticated anew (R-OUR-10): see rekey.
func (c *Client) KeyAccepted(now Time, i message.ReplicaID, changed bool) {
	if !c.origin.known {
		c.do(Effect{Verb: Ask, Nonce: c.origin.nonce, To: 1 << i})
	}
	if changed {
		c.rekey(now, i)
	}
}

// Latest counts a replica's answer to QUERY-STABLE: the latest timestamp of this client
// that its state knows.
func (c *Client) Latest(i message.ReplicaID, nonce uint64, t message.Timestamp) {
	if start, known := c.origin.add(i, nonce, t, message.GroupSize(c.cfg.Replicas)); known && start >= c.cfg.Clock {
		c.catchUp(c.after(start))
	}
}

// Nonce is the nonce of the present question for the origin.
func (c *Client) Nonce() uint64 { return c.origin.nonce }

// Began reports whether it is known where timestamps begin. Calls wait until then.
func (c *Client) Began() bool { return c.origin.known }

// Rival notes that a replica knows of another process with our key. When f+1 do, one of which is
// correct, all calls end with why. It reports whether calls had not been failing before.
func (c *Client) Rival(now Time, i message.ReplicaID, why error) (news bool) {
	believed, news := c.rivalry.add(now, i, why)
	if believed {
		c.FailAll(c.rivalry.err)
	}
	return news
}

// InUse is the error with which calls fail because another process uses our key, nil if
// none is known to.
func (c *Client) InUse(now Time) error { return c.rivalry.inUse(now) }
