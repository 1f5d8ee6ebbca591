package pbfttest

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"slices"

	"bfs/pkg/internal/blockhash"
	"bfs/pkg/pbft/internal/message"
)

// A client calls, waits, calls again after a while, and asks again when answers are late, by the same rules as
// pbft.Client. A faulty one sends what its mischief makes of its requests and is owed nothing.
type client struct {
	w        *world
	index    int
	id       message.ClientID
	view     message.View
	slots    []*callSlot
	mischief mischief // nil for a correct client
}

// A callSlot is one line of calls.
type callSlot struct {
	c     *client
	slot  message.Slot
	last  message.Timestamp
	call  *call
	done  int
	quota int  // calls to make after the faults have stopped
	keep  bool // the present call's result was not kept before
}

// A call waits for its certificate.
type call struct {
	q      message.Request
	tally  tally
	tries  int
	floor  uint64 // the place in the order that some accepted reply had shown when the call began
	serial int
}

type tally struct {
	heard   uint32
	replies []answer
}

// An answer is a replica's last word, and the grounds on which it has given it.
type answer struct {
	message.Answer
	view      message.View
	committed bool
	prepared  slotKey // seq 0: not on that ground
}

func newClient(w *world, index int, view message.View) *client {
	c := &client{w: w, index: index, id: message.ClientOf(clientKey(index)), view: view}
	for s := range w.shape.slots {
		c.slots = append(c.slots, &callSlot{c: c, slot: message.Slot(s), last: 100, quota: 2})
	}
	return c
}

func (w *world) clientOf(id message.ClientID) *client {
	for _, c := range w.clients {
		if c.id == id {
			return c
		}
	}
	return nil
}

// principal is the client's number in the network.
func (c *client) principal() int { return c.w.n + c.index }

func (c *client) start() {
	for _, s := range c.slots {
		c.w.after(c.w.rng.Int64N(10*tick), s.begin)
	}
}

// finished: every call that was due after the faults stopped has its answer.
func (c *client) finished() bool {
	for _, s := range c.slots {
		if s.call != nil || s.quota > 0 {
			return false
		}
	}
	return true
}

// begin makes the slot's next call.
func (s *callSlot) begin() {
	w := s.c.w
	if s.call != nil {
		return
	}
	if w.calm {
		if w.quiet || s.quota == 0 || s.c.mischief != nil {
			return
		}
		s.quota--
	}
	op := make([]byte, 12, 64)
	op[0] = opWrite
	switch w.rng.IntN(8) {
	case 0:
		op[0] = opRead
	case 1:
		op[0] = opRead
		op = op[:longRead]
	case 2:
		op[0] = opLong
		op = op[:64]
	case 3, 4:
		op = append(op, body(message.ShortOperation+w.rng.IntN(100))...)
	}
	if w.shape.writes {
		op[0] = opWrite
	}
	if w.shape.long {
		op[0] = opLong
	}
	binary.LittleEndian.PutUint16(op[1:], uint16(s.c.index)<<8|uint16(s.slot))
	binary.LittleEndian.PutUint64(op[3:], w.rng.Uint64())
	s.issue(op, op[0] == opRead && w.rng.IntN(3) > 0)
}

// body is what follows the head of a long operation. One in ten has two blocks more, which are not alike.
func body(n int) []byte {
	if n%10 == 0 {
		n += 2 * blockhash.Size
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i >> 8)
	}
	return b
}

// issue makes a request of the operation under a new timestamp.
func (s *callSlot) issue(op []byte, readOnly bool) {
	s.last++
	k := &call{q: message.Request{Client: s.c.id, Slot: s.slot, Timestamp: s.last, ReadOnly: readOnly, Keep: s.keep, Op: op},
		floor: s.c.w.judge.floor}
	k.tally.replies = make([]answer, s.c.w.n)
	s.call = k
	s.c.w.judge.requested(s.c, &k.q)
	s.transmit(false)
}

// transmit sends the request: a first ordered try to the primary alone, all else to every replica.
func (s *callSlot) transmit(again bool) {
	c, k, w := s.c, s.call, s.c.w
	k.q.Replier, k.q.Provers = message.ReplicaID(w.rng.IntN(w.n)), 0
	for i := range w.f {
		k.q.Provers |= 1 << ((int(k.q.Replier) + 1 + i) % w.n)
	}
	if again {
		k.q.Replier = message.AnyReplier
	}
	k.q.Apart = w.shape.separate && !again && !k.q.ReadOnly && k.q.Length() > message.ShortOperation
	if c.mischief != nil {
		c.mischief(s, &k.q)
	} else {
		all := make([]bool, w.n)
		for i := range all {
			all[i] = true
		}
		w.seal(&k.q, all)
		for i := range w.n {
			if k.q.ReadOnly || again || k.q.Apart || message.ReplicaID(i) == c.view.Primary(w.n) {
				c.send(i, &k.q)
			}
		}
	}
	k.serial++
	serial := k.serial
	wait := int64(4*tick) << min(k.tries, 5)
	w.after(wait+w.rng.Int64N(wait/4), func() {
		if s.call == k && k.serial == serial {
			s.retry()
		}
	})
}

func (c *client) send(to int, q *message.Request) {
	if c.w.log != nil {
		c.w.say("c%d  -> %d  %s", c.index, to, describe(q))
	}
	if c.w.network.loses(c.principal(), to, q) {
		return
	}
	b := encode(q)
	for _, r := range c.w.sites[to].copies {
		c.w.network.send(c.principal(), to, func() { r.running(func() { r.hear(b) }) })
	}
}

func (s *callSlot) retry() {
	k := s.call
	k.tries++
	if s.c.mischief != nil {
		if k.tries > 3 {
			s.end()
			return
		}
	} else if k.q.ReadOnly && k.tries > 1 {
		s.issue(k.q.Op, false)
		return
	}
	s.transmit(true)
}

// end frees the slot and thinks about the next call.
func (s *callSlot) end() {
	s.call, s.keep = nil, false
	s.done++
	s.c.w.after(1+s.c.w.rng.Int64N(int64(s.c.w.shape.think)*tick), s.begin)
}

// hear takes in a reply that replica from sent.
func (c *client) hear(from int, b []byte) {
	w := c.w
	if w.err != nil || c.mischief != nil {
		return
	}
	decoded, err := message.Decode(b, &w.wire)
	if err != nil {
		if !w.sites[from].liar() {
			w.fail("replica %d, which is correct, sent client %d what does not decode: %v", from, c.index, err)
		}
		return
	}
	m, ok := decoded.(*message.Reply)
	if !ok {
		return
	}
	m.From = message.ReplicaID(from)
	for _, a := range m.Answers {
		if int(a.Slot) >= len(c.slots) || a.Long() && a.Full && a.Proof != prove(from, a.Result) {
			continue
		}
		s := c.slots[a.Slot]
		if k := s.call; k != nil && k.q.Timestamp == a.Timestamp && k.q.ReadOnly == a.ReadOnly {
			k.tally.add(m, a)
			s.decide()
		}
	}
}

// add notes an answer: a replica's last word counts, but a result once sent is not forgotten for a proof, nor a ground for
// another.
func (t *tally) add(m *message.Reply, a message.Answer) {
	old := t.replies[m.From]
	x := answer{Answer: a, view: m.View, committed: !m.Tentative}
	if m.Seq > 0 {
		x.prepared = slotKey{m.View, m.Seq}
	}
	if a.Outcome == message.Superseded {
		x.Result, x.Length = nil, 0
	}
	t.heard |= 1 << m.From
	t.replies[m.From] = x
	if result, here := t.result(int(m.From)); here {
		x.Full, x.Result = true, result // proved
	}
	if old.Timestamp == a.Timestamp && old.like(x) {
		x.committed = x.committed || old.committed
		if x.prepared.seq == 0 {
			x.prepared = old.prepared
		}
	}
	t.replies[m.From] = x
	for i := range t.replies {
		if result, here := t.result(i); here {
			t.replies[i].Full, t.replies[i].Result = true, result
		}
	}
}

// result finds the result that replica i proved, if somebody sent it.
func (t *tally) result(i int) ([]byte, bool) {
	x := &t.replies[i]
	if t.heard&(1<<i) == 0 || x.Full || !x.Proved {
		return nil, false
	}
	for _, y := range t.replies {
		if y.Full && y.Long() && x.Proof == prove(i, y.Result) {
			return y.Result, true
		}
	}
	return nil, false
}

// like: the same answer. Of results that nobody sent only the length is known.
func (x answer) like(y answer) bool {
	return x.Outcome == y.Outcome && x.Length == y.Length && x.Full == y.Full && x.vouches() == y.vouches() && bytes.Equal(x.Result, y.Result)
}

// vouches: it says which result it is, and not only how long.
func (x answer) vouches() bool { return x.Full || x.Proved }

// supports: x may be the answer y. What was executed on one ground was executed alike, whoever says so.
func (x answer) supports(y answer) bool {
	return x.like(y) || !x.vouches() && x.Outcome == y.Outcome && x.Length == y.Length
}

// best is the answer that most replicas agree on, and how many do on one ground: that it has committed, or that they
// prepared it as the same number in the same view. Of these, f+1 must vouch for its result before it is believed.
func (t *tally) best(f int) (best answer, count int, vouched bool) {
	for i, x := range t.replies {
		if t.heard&(1<<i) == 0 {
			continue
		}
		committed, prepared := ground{}, ground{}
		for j, y := range t.replies {
			if t.heard&(1<<j) == 0 || !y.supports(x) {
				continue
			}
			if x.committed && y.committed {
				committed.add(y)
			}
			if x.prepared.seq > 0 && x.prepared == y.prepared {
				prepared.add(y)
			}
		}
		for _, g := range []ground{committed, prepared} {
			believed := x.Full && g.all > 2*f && g.vouching > f
			if believed && !vouched || believed == vouched && g.all > count {
				x.committed = g == committed
				best, count, vouched = x, g.all, believed
			}
		}
	}
	return best, count, vouched
}

// A ground counts those who support an answer on it.
type ground struct{ all, vouching int }

func (g *ground) add(x answer) {
	g.all++
	if x.vouches() {
		g.vouching++
	}
}

// views are those of all who gave the answer.
func (t *tally) views(x answer) (views []message.View) {
	for i, y := range t.replies {
		if t.heard&(1<<i) != 0 && y.supports(x) {
			views = append(views, y.view)
		}
	}
	return views
}

// decide applies the reply rule: 2f+1 replies on one ground, f+1 of them equal and one of those with the result (R-CLI-3).
func (s *callSlot) decide() {
	c, k, w := s.c, s.call, s.c.w
	best, count, vouched := k.tally.best(w.f)
	enough, refused := count >= 2*w.f+1, count >= w.f+1
	if enough && !best.committed {
		w.judge.promised(c, best.prepared)
	}
	switch {
	case enough && best.Outcome == message.Executed && vouched:
		views := k.tally.views(best)
		slices.Sort(views)
		c.view = max(c.view, views[len(views)-(w.f+1)])
		w.judge.accepted(c, k, best.Result)
		s.end()
	case enough && best.Outcome == message.Lost:
		w.judge.lost(c, k)
		s.end()
	case enough && best.Outcome == message.NotKept:
		w.judge.lost(c, k)
		s.keep = true
		s.issue(k.q.Op, false)
	case refused && (best.Outcome == message.Superseded || best.Outcome == message.NotEnrolled):
		w.fail("%d replicas tell client %d that t%d of slot %d is %v", count, c.index, k.q.Timestamp, s.slot, best.Outcome)
	case k.q.ReadOnly && (refused && best.Outcome == message.NotReadOnly || k.tally.hopeless(w.n, count, 2*w.f+1)):
		s.issue(k.q.Op, false)
	}
}

func (t *tally) hopeless(n, best, quorum int) bool {
	return best+n-bits.OnesCount32(t.heard) < quorum
}
