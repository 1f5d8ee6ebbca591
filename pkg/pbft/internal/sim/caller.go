package sim

import (
	"encoding/binary"

	"bfs/pkg/internal/blockhash"
	"bfs/pkg/pbft/internal/client"
	"bfs/pkg/pbft/internal/message"
)

// A caller calls, waits, calls again after a while, and asks again when answers are late. It believes replies by the rule of
// pbft.Client. A faulty one sends what its mischief makes of its requests and is owed nothing.
type caller struct {
	w        *world
	index    int // in the order of clientKey; of the administrator: maxClients
	id       message.ClientID
	view     message.View
	slots    []*callSlot
	mischief mischief // nil for a correct client
	life     int      // raised by every restart: answers to an earlier life do not arrive
	idle     bool     // it makes no calls of its own
}

// A callSlot is one line of calls.
type callSlot struct {
	c     *caller
	slot  message.Slot
	last  message.Timestamp
	call  *call
	done  int
	quota int  // calls to make after the faults have stopped
	keep  bool // the present call's result was not kept before
}

// A call waits for its certificate.
type call struct {
	q     message.Request
	tally client.Tally
	tries int
	floor uint64 // the place in the order that some accepted reply had shown when the call began
	// The number of the last batch then whose operation of the administrator was answered.
	enrolled int
	serial   int
	resumed  bool // an earlier life sent it first
}

func newClient(w *world, index int, view message.View) *caller {
	c := &caller{w: w, index: index, id: message.ClientOf(clientKey(index)), view: view}
	for s := range w.shape.slots {
		c.slots = append(c.slots, &callSlot{c: c, slot: message.Slot(s), last: 100, quota: 2})
	}
	return c
}

func (w *world) clientOf(id message.ClientID) *caller {
	for _, c := range w.clients {
		if c.id == id {
			return c
		}
	}
	return nil
}

// principal is the client's number in the network.
func (c *caller) principal() int { return c.w.n + c.index }

func (c *caller) start() {
	for _, s := range c.slots {
		c.w.after(c.w.rng.Int64N(10*tick), s.begin)
	}
}

// finished: every call that was due after the faults stopped has its answer.
func (c *caller) finished() bool {
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
	if s.call != nil || s.c.idle {
		return
	}
	if w.calm {
		if w.quiet || s.quota == 0 || s.c.mischief != nil {
			return
		}
		s.quota--
	}
	if s.c.id == message.Administrator {
		s.issue(s.c.administrate(), false)
		return
	}
	op := make([]byte, 12, 64)
	op[0] = opWrite
	switch w.rng.IntN(10) {
	case 8:
		op[0] = opSet
	case 9:
		op[0] = opGet
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
	if op[0] == opLong && s.last%2 == 0 {
		op[0] = opKept
	}
	if w.shape.writes {
		op[0] = opWrite
	}
	if w.shape.long {
		op[0] = opLong
	}
	binary.LittleEndian.PutUint16(op[1:], uint16(s.c.index)<<8|uint16(s.slot))
	binary.LittleEndian.PutUint64(op[3:], w.rng.Uint64())
	s.issue(op, (op[0] == opRead || op[0] == opGet) && w.rng.IntN(3) > 0)
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
		floor: s.c.w.judge.floor, enrolled: s.c.w.judge.administered}
	k.tally.Reset(s.c.w.n, longest)
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

func (c *caller) send(to int, q *message.Request) {
	if c.w.log != nil {
		c.w.say("c%d  -> %d  %s", c.index, to, describe(q))
	}
	if c.w.network.loses(c.principal(), to, q) {
		return
	}
	b, from := encode(q), c.principal()
	for _, r := range c.w.sites[to].copies {
		c.w.network.send(from, to, func() { r.running(func() { r.gather(from, b) }) })
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

// hear takes in a reply that replica from sent to a life of this client.
func (c *caller) hear(life, from int, b []byte) {
	w := c.w
	if w.err != nil || c.mischief != nil || c.life != life {
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
			k.tally.Add(m, &a, k.q.Replier, k.tries, proves)
			s.decide()
		}
	}
}

func proves(i message.ReplicaID, p *message.Proof, result []byte) bool {
	return *p == prove(int(i), result)
}

// decide acts on what the answers so far come to, by the rule of pbft.Client.
func (s *callSlot) decide() {
	c, k, w := s.c, s.call, s.c.w
	x := k.tally.Find(k.q.ReadOnly)
	if x.Kind != client.Waiting && x.Kind != client.MustOrder && x.Kind != client.Apart && x.Seq > 0 {
		w.judge.promised(c, slotKey{x.Prepared, x.Seq})
	}
	switch x.Kind {
	case client.Believed:
		c.view = max(c.view, x.View)
		w.judge.accepted(c, k, x.Result)
		s.end()
	case client.Lost:
		w.judge.lost(c, k)
		s.end()
	case client.NotKept:
		w.judge.lost(c, k)
		s.keep = true
		s.issue(k.q.Op, false)
	case client.NotEnrolled:
		w.judge.notEnrolled(c, k)
		s.end()
	case client.Superseded:
		w.fail("2f+1 replicas tell client %d that t%d of slot %d is superseded", c.index, k.q.Timestamp, s.slot)
	case client.MustOrder:
		s.issue(k.q.Op, false)
	case client.Waiting, client.Untold, client.Apart: // the timer asks again
	}
}

// restart ends the client's life. The next sends again what was ordered and not answered, unchanged, as a client does that kept a
// journal; a read is forgotten.
func (c *caller) restart() {
	if c.mischief != nil {
		return
	}
	c.life++
	c.view = 0
	c.w.say("c%d restarts", c.index)
	c.w.marks.hit(markResumed)
	for _, s := range c.slots {
		k := s.call
		switch {
		case k == nil:
		case k.q.ReadOnly:
			s.end()
		default:
			k.tally.Reset(c.w.n, longest)
			k.tries, k.resumed = 0, true
			s.transmit(true)
		}
	}
}
