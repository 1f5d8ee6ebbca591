// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"encoding/binary"
	"errors"
	"time"

	"bfs/pkg/internal/blockhash"
	"bfs/pkg/pbft/internal/client"
	"bfs/pkg/pbft/internal/message"
)

// A caller is a client: it calls, thinks for a while, and calls again. A correct one is
// pbft.Client's own rule with the world's clock and network around it. A faulty client
// sends what its mischief makes of its requests, and no call of it must end.
type caller struct {
	w        *world
	index    int // in the order of clientKey; of the administrator: maxClients
	id       message.ClientID
	rule     *client.Client // of the present life
	decoder  message.Decoder
	calls    []*call // by the rule's slot
	slots    []*callSlot
	lives    []int               // by replica: the last life from which a reply came
	alarm    int64               // when the rule is told the time next; 0: nothing is due
	mischief mischief            // nil for a correct client
	life     int                 // raised by every restart: answers to an earlier life do not arrive
	back     bool                // its clock went back in a restart
	wentBack int                 // how often
	passed   int                 // calls that were superseded
	rose     []message.Timestamp // by slot: the latest timestamp in this life
	idle     bool                // it makes no calls of its own
}

// A callSlot makes the calls of one slot, one after the other.
type callSlot struct {
	c     *caller
	slot  message.Slot      // of a faulty client
	last  message.Timestamp // of a faulty client
	call  *call
	done  int
	quota int // calls to make after the faults have stopped
}

// A call waits for its result.
type call struct {
	line  *callSlot
	op    []byte
	q     *message.Request // the present one
	floor uint64           // the place in the order that some accepted reply had shown when q was made
	// When the call was made, this was the last batch with an answered operation of the
	// administrator.
	enrolled int
	tries    int // of a faulty client
}

// clockAtStart is the time on all clients' clocks at the start.
const clockAtStart = 100

func newClient(w *world, index int) *caller {
	return newCaller(w, index, message.ClientOf(clientKey(index)), w.shape.slots)
}

func newCaller(w *world, index int, id message.ClientID, lines int) *caller {
	c := &caller{w: w, index: index, id: id, lives: make([]int, w.n)}
	for s := range lines {
		c.slots = append(c.slots, &callSlot{c: c, slot: message.Slot(s), last: clockAtStart, quota: 2})
	}
	c.live(clockAtStart)
	for i := range w.n { // it has asked where its timestamps begin
		c.rule.Latest(message.ReplicaID(i), c.rule.Nonce(), 0)
	}
	return c
}

// live begins a life, at this time of its own clock.
func (c *caller) live(clock message.Timestamp) {
	cfg := client.Config{
		Client: c.id, Replicas: c.w.n, Slots: len(c.slots), Clock: clock, Lent: longest, Found: c.found,
		Turn: message.ReplicaID(c.w.rng.IntN(c.w.n)),
	}
	if c.w.shape.separate && c.id != message.Administrator {
		cfg.Separate = message.ShortOperation
	}
	c.rule, c.calls, c.alarm = client.New(cfg, c), make([]*call, len(c.slots)), 0
	c.rose = make([]message.Timestamp, len(c.slots))
}

// hundredth is the world's unit of time: a core's tick is 10 ms.
const hundredth = 10 * time.Millisecond / tick

// now is the rule's time.
func (c *caller) now() client.Time { return client.Time(c.w.now) * hundredth }

// Open implements client.Edge: connections outlast a partition, and not a replica.
func (c *caller) Open(i message.ReplicaID) bool { return !c.w.sites[i].copies[0].down }

// Queued implements client.Edge.
func (c *caller) Queued(message.ReplicaID) int { return 0 }

// Proves implements client.Edge.
func (c *caller) Proves(i message.ReplicaID, p *message.Proof, result []byte) bool {
	return *p == prove(int(i), result)
}

// Chance implements client.Edge.
func (c *caller) Chance(n int64) int64 { return c.w.rng.Int64N(n) }

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

// finished reports whether every call that was due after the faults stopped has its answer.
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
	}
	if !s.c.rule.Room(0) { // it has yet to learn where its timestamps begin
		w.after(tick, s.begin)
		return
	}
	if w.calm {
		s.quota--
	}
	switch op, readOnly := s.c.operation(s); {
	case s.c.mischief != nil:
		s.wish(op, readOnly)
	default:
		s.issue(op, readOnly)
	}
}

// operation makes a slot's next operation. readOnly says that it is tried as a read.
func (c *caller) operation(s *callSlot) (op []byte, readOnly bool) {
	w := c.w
	if c.id == message.Administrator {
		return c.administrate(), false
	}
	op = make([]byte, 12, 64)
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
	if op[0] == opLong && s.done%2 == 0 {
		op[0] = opKept
	}
	if w.shape.writes {
		op[0] = opWrite
	}
	if w.shape.long {
		op[0] = opLong
	}
	binary.LittleEndian.PutUint16(op[1:], uint16(c.index)<<8|uint16(s.slot))
	binary.LittleEndian.PutUint64(op[3:], w.rng.Uint64())
	if op[0] != opRead && op[0] != opGet {
		return op, !w.shape.writes && !w.shape.long && w.rng.IntN(20) == 0 // a hint, and a wrong one
	}
	return op, w.rng.IntN(3) > 0
}

// body returns the bytes that follow the head of a long operation. One body in ten has
// two different blocks more.
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

// issue makes the rule begin an operation.
func (s *callSlot) issue(op []byte, readOnly bool) {
	c := s.c
	slot := c.rule.Start(c.now(), client.Operation{Body: op, Digest: message.OperationDigest(op), ReadOnly: readOnly})
	s.call = &call{line: s, op: op, q: c.rule.Request(slot)}
	c.calls[slot] = s.call
	c.perform()
}

// perform carries out the rule's effects.
func (c *caller) perform() {
	for effects := c.rule.Effects(); len(effects) > 0; effects = c.rule.Effects() {
		for i := range effects {
			switch e := &effects[i]; e.Verb {
			case client.Send:
				c.transmit(e)
			case client.Ask:
				c.ask(e)
			case client.Done:
				c.done(e)
			}
		}
	}
	c.wait()
}

// wait arranges to tell the rule the time when it may have something to do.
func (c *caller) wait() {
	at, ok := c.rule.Next(c.now())
	t := int64((at + hundredth - 1) / hundredth)
	if !ok || c.alarm != 0 && c.alarm <= t {
		return
	}
	c.alarm = t
	life := c.life
	c.w.at(t, func() {
		if c.life == life && c.alarm == t {
			c.alarm = 0
			c.rule.Tick(c.now())
			c.perform()
		}
	})
}

// transmit sends a request.
func (c *caller) transmit(e *client.Effect) {
	k, w := c.calls[e.Slot], c.w
	if e.New {
		k.floor, k.enrolled = w.judge.floor, w.judge.administered
		w.judge.requested(c, k.q)
		c.rises(e.Slot, k.q.Timestamp)
	}
	c.say(k.q, e.To, e.Brief, e.Apart)
	if e.Shown != 0 {
		c.say(k.q, e.Shown, e.Brief, true)
	}
}

// say sends a request to a set of replicas, without its operation to those in brief. It says
// whether it goes to every one.
func (c *caller) say(q *message.Request, to, brief uint32, apart bool) {
	q.Apart = apart
	c.w.seal(q, c.w.everyone)
	for i := range c.w.n {
		switch bit := uint32(1 << i); {
		case to&bit == 0:
		case brief&bit != 0:
			c.send(i, q.Stub())
		default:
			c.send(i, q)
		}
	}
}

// rises judges that no timestamp of a slot is used for two requests, as far as the client
// can know (R-CLI-1).
func (c *caller) rises(s message.Slot, t message.Timestamp) {
	if t <= c.rose[s] {
		c.w.fail("client %d gives a request the timestamp t%d in slot %d, and has used t%d", c.index, t, s, c.rose[s])
	}
	c.rose[s] = t
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
		c.w.network.send(from, to, func() { r.running(func() { r.gather(from, frame{b: b}) }) })
	}
}

// ask sends QUERY-STABLE.
func (c *caller) ask(e *client.Effect) {
	w, life, q := c.w, c.life, &message.QueryStable{Nonce: e.Nonce}
	for i, site := range w.sites {
		if r := site.copies[0]; e.To&(1<<i) != 0 && !w.network.loses(c.principal(), i, q) {
			w.network.send(c.principal(), i, func() { r.running(func() { r.tellLatest(c, life, q.Nonce) }) })
		}
	}
}

// tellLatest answers a QUERY-STABLE. The rule uses only the latest timestamp of the
// client that the state knows.
func (r *replica) tellLatest(c *caller, life int, nonce uint64) {
	m := &message.ReplyStable{Nonce: nonce, Latest: r.exec.Ledger().Latest(c.id)}
	for _, edited := range r.w.sites[r.id].tell(r, c.principal(), m) {
		x, ok := edited.(*message.ReplyStable)
		if !ok || r.w.network.loses(r.id, c.principal(), x) {
			continue
		}
		under := r.w.keys.under(r.id, c.principal())
		r.w.network.send(r.id, c.principal(), func() {
			if c.life == life && r.w.keys.opens(r.id, c.principal(), under) {
				c.rule.Latest(message.ReplicaID(r.id), x.Nonce, x.Latest)
			}
		})
	}
}

// done judges the end of a call, frees its slot, and schedules the next call of the slot.
func (c *caller) done(e *client.Effect) {
	k, w := c.calls[e.Slot], c.w
	switch {
	case e.Err == nil:
		w.judge.accepted(c, k, e.Result)
	case errors.Is(e.Err, client.ErrNotEnrolled):
		w.judge.notEnrolled(c, k)
	}
	c.calls[e.Slot] = nil
	c.rule.Free(e.Slot)
	k.line.end()
}

// end is the end of a slot's call.
func (s *callSlot) end() {
	s.call = nil
	s.done++
	s.c.w.after(1+s.c.w.rng.Int64N(int64(s.c.w.shape.think)*tick), s.begin)
}

// found judges a finding of the client's rule.
func (c *caller) found(s message.Slot, x client.Finding) {
	k, w := c.calls[s], c.w
	if x.Kind != client.MustOrder && x.Kind != client.Apart && x.Seq > 0 {
		w.judge.promised(c, slotKey{x.Prepared, x.Seq})
	}
	switch x.Kind {
	case client.Lost, client.NotKept:
		w.judge.lost(c, k)
	case client.Superseded:
		if !c.back { // if it went back, a liar and a replica that is behind may hide what an earlier life did
			w.fail("2f+1 replicas tell client %d that t%d of slot %d is superseded", c.index, k.q.Timestamp, s)
		}
		c.passed++
	}
}

// hear takes in a reply that replica from sent to a life of this client.
func (c *caller) hear(life, from int, b []byte) {
	w := c.w
	if w.err != nil || c.mischief != nil || c.life != life {
		return
	}
	defer c.decoder.Reset()
	decoded, err := c.decoder.Decode(b, &w.wire)
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
	if a := &m.Answers[0]; a.Long() && a.Full && a.Proof != prove(from, a.Result) {
		return
	}
	if r := w.sites[from].copies[0]; c.lives[from] != r.life { // its keys are new
		c.lives[from] = r.life
		c.rule.KeyAccepted(c.now(), m.From, true)
		c.perform()
	}
	c.rule.Reply(c.now(), m)
	c.perform()
}

// restart ends the client's life. The next one sends each ordered request without an answer again,
// unchanged, as a client does that kept a journal; a read is forgotten. A clock that has gone back
// shows less than any request's timestamp, and the client must learn from the group where its
// timestamps begin. It does not show the same time again: a clock counts nanoseconds, and a
// client that learns too little cannot tell what it did in an earlier life that began at
// the very same time.
func (c *caller) restart() {
	clock := c.latest() + 1 + message.Timestamp(c.w.rng.IntN(100))
	if c.w.rng.IntN(2) == 0 {
		clock = clockAtStart/2 - message.Timestamp(min(10*c.wentBack, clockAtStart/2))
		c.wentBack++
	}
	c.restartAt(clock)
}

// restartAt is restart with the time on the clock given.
func (c *caller) restartAt(clock message.Timestamp) {
	if c.mischief != nil {
		return
	}
	c.life++
	c.w.say("c%d restarts, and its clock shows %d", c.index, clock)
	c.w.marks.hit(markResumed)
	c.back = c.back || clock < c.latest()
	old, under := c.rule, c.calls
	c.live(clock)
	for s, k := range under {
		switch {
		case k == nil:
		case k.q.ReadOnly:
			k.line.end()
		default:
			c.resume(message.Slot(s), k, old.Request(message.Slot(s)))
		}
	}
	c.rule.Tick(c.now())
	c.perform()
}

// resume sends a request of an earlier life again.
func (c *caller) resume(s message.Slot, k *call, q *message.Request) {
	op := client.Operation{Body: k.op, Digest: message.OperationDigest(k.op)}
	if err := c.rule.Resume(c.now(), s, q.Timestamp, op); err != nil {
		c.w.fail("client %d cannot resume slot %d: %v", c.index, s, err)
		return
	}
	c.rises(s, q.Timestamp)
	if x := c.rule.Request(s); x.Keep != q.Keep || x.ReadOnly {
		c.w.fail("client %d resumes t%d of slot %d as another request than it sent", c.index, q.Timestamp, s)
	}
	k.q, c.calls[s] = c.rule.Request(s), k
}

// latest is the latest timestamp of the client's requests so far.
func (c *caller) latest() (t message.Timestamp) {
	for i := range c.slots {
		t = max(t, c.rule.Last(message.Slot(i)))
	}
	return t
}
