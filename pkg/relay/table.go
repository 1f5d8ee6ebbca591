// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"hash/crc32"
	"net/netip"
	"sync"
	"sync/atomic"
)

// A key tells calls apart: the client's address and port, the xid it chose, and a digest
// of the call's bytes. A client may come back from another port: see lineage.mayComeFrom.
type key struct {
	peer   netip.AddrPort
	xid    uint32
	digest digest
}

// A digest covers the whole record of a call behind the xid: program, procedure,
// credentials with the stamp and machine name that a client put there, and arguments. It is
// two CRCs of 32 bits, computed at the speed of memory. It tells calls apart as long as a
// client does not forge collisions among its own calls, by which it would harm only itself.
type digest uint64

func digestOf(b []byte) digest {
	return digest(crc32.Checksum(b, castagnoli))<<32 | digest(crc32.ChecksumIEEE(b))
}

// keyOf makes the key of a call that came in record, whose header must still be whole.
func keyOf(peer netip.AddrPort, xid uint32, record []byte) key {
	return key{peer: peer, xid: xid, digest: digestOf(record[4:])}
}

// fromAnyPort is the key without the port, under which a call is found that comes again from
// another port.
func (k key) fromAnyPort() key {
	k.peer = netip.AddrPortFrom(k.peer.Addr(), 0)
	return k
}

// An index finds calls, or answers, by their keys, and by their keys without the port. Of
// several that differ in the port alone it finds the latest without it.
type index[T comparable] struct{ exact, anyPort map[key]T }

func newIndex[T comparable]() index[T] {
	return index[T]{exact: make(map[key]T), anyPort: make(map[key]T)}
}

func (x index[T]) put(k key, v T) {
	x.exact[k] = v
	x.anyPort[k.fromAnyPort()] = v
}

func (x index[T]) drop(k key, v T) {
	if x.exact[k] == v {
		delete(x.exact, k)
	}
	if k = k.fromAnyPort(); x.anyPort[k] == v {
		delete(x.anyPort, k)
	}
}

// An answered is the answer to a call that changed something. When the call comes again it gets the
// same answer and is not done again.
type answered struct {
	key   key
	from  *lineage      // the connection where the call last came
	at    instant       // when it was answered there
	reply []byte        // accept_stat and results; immutable
	end   atomic.Uint64 // bytes of replies that from's socket must have taken for this one to be taken; 0: not sent
	note  uint64        // its number in the journal; 0: it is not there
	place int           // in table.queue
}

// answeredOverhead is roughly the memory in bytes that an answer takes beside its reply.
const answeredOverhead = 200

var errStopping = errors.New("relay is stopping")

// A table holds the calls in flight and the answers to recent ones: the duplicate-request
// cache. It is also the gate: it counts calls and bytes, and makes readers wait at the limits.
type table struct {
	limits Limits

	mu      sync.Mutex
	flying  index[*call] // those that only read are not found without their port: they may be done twice
	total   int          // calls in flight, including those of dead connections
	bytes   int          // reserved for records above smallRecord
	room    sync.Cond    // total or bytes fell, or a waiting reader must stop
	waiting int          // on room

	answers   index[*answered]
	queue     []*answered // ring of limits.Answers, oldest first
	first     int
	kept      int // entries of queue in use; nil in place of answers that were forgotten
	keptBytes int

	oldest, newest *call // of the calls in flight, linked by call.older and call.newer

	now       func() instant
	forgotten func(note uint64) // drops an answer from the journal that no client will ask for
}

func newTable(l Limits) *table {
	t := &table{
		limits: l, flying: newIndex[*call](), answers: newIndex[*answered](),
		queue: make([]*answered, l.Answers), now: now, forgotten: func(uint64) {},
	}
	t.room.L = &t.mu
	return t
}

// awaitTurn waits until c may bring another call: until its own limit and that for all
// connections allow it, and its peer takes its replies. It returns false if c shall bring
// no more.
func (t *table) awaitTurn(c *conn) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for !c.gone.Load() && !c.draining.Load() {
		switch {
		case c.flying >= t.limits.CallsPerConn || c.unsent.Load() > int64(t.limits.PauseUnsent):
			c.room.Wait()
		case t.total >= t.limits.Calls:
			t.wait()
		default:
			return true
		}
	}
	return false
}

func (t *table) wait() {
	t.waiting++
	t.room.Wait()
	t.waiting--
}

// reserve takes n bytes of the budget for records, and waits for them if need be. A
// record that is the only one is always admitted.
func (t *table) reserve(c *conn, n int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.bytes > 0 && t.bytes+n > t.limits.CallBytes {
		if c.gone.Load() || c.draining.Load() {
			return errStopping
		}
		t.wait()
	}
	t.bytes += n
	return nil
}

func (t *table) unreserve(n int) {
	if n == 0 {
		return
	}
	t.mu.Lock()
	t.bytes -= n
	t.wakeLocked()
	t.mu.Unlock()
}

func (t *table) wakeLocked() {
	if t.waiting > 0 {
		t.room.Broadcast()
	}
}

// An admission is the table's decision about a call.
type admission uint8

const (
	fresh    admission = iota // do it
	joined                    // it is in flight already, and is answered on the connection where it came last
	replayed                  // it was done; here is the answer again
)

// admit decides about k and, if k is fresh, counts it as in flight. For a replayed call
// it returns the answer.
func (t *table) admit(k *call) (admission, *answered) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := t.inFlightAs(k); o != nil {
		t.moveHome(o, k.conn)
		return joined, nil
	}
	if a := t.answerTo(k); a != nil {
		t.askedAgain(a, k.conn)
		return replayed, a
	}
	t.fly(k)
	k.conn.flying++
	return fresh, nil
}

// inFlightAs returns the call in flight that k repeats, nil if there is none.
func (t *table) inFlightAs(k *call) *call {
	if o := t.flying.exact[k.key]; o != nil && t.sentAgain(o.from, k.conn) {
		return o
	}
	if o := t.flying.anyPort[k.key.fromAnyPort()]; o != nil && t.sentAgain(o.from, k.conn) {
		return o
	}
	return nil
}

// answerTo returns the answer that k asks for again, nil if there is none. An answer that
// no call from its port can ask for is forgotten.
func (t *table) answerTo(k *call) *answered {
	if k.readOnly {
		return nil
	}
	if a := t.answers.exact[k.key]; a != nil {
		if t.mayLack(a, k.conn) {
			return a
		}
		t.forget(a)
	}
	if a := t.answers.anyPort[k.key.fromAnyPort()]; a != nil && t.mayLack(a, k.conn) {
		return a
	}
	return nil
}

// sentAgain reports whether a call that came from l, and now comes from c with the same
// key but for the port, is the same call. It is if it comes from l itself, or from a
// connection that was made in time after l had ended, and from where l's client may come
// back. Two live connections are two clients.
func (t *table) sentAgain(l *lineage, c *conn) bool {
	if l == c.lineage {
		return true
	}
	at := t.now()
	ended, over := l.over(at)
	return over && ended.within(t.limits.Reconnect, at) && l.mayComeFrom(c.peer)
}

// mayLack reports whether the client that asks for a on c may lack the answer: the call
// is the same, and its client is not known to have taken the answer.
func (t *table) mayLack(a *answered, c *conn) bool {
	if a.from == c.lineage {
		return a.at.within(t.limits.Resend, t.now())
	}
	return t.sentAgain(a.from, c) && !a.taken()
}

// taken reports whether a's client had taken the answer before it ended the connection.
func (a *answered) taken() bool { return a.from.tookUpTo(a.end.Load()) }

// askedAgain makes c the connection on which a is answered.
func (t *table) askedAgain(a *answered, c *conn) {
	if a.from != c.lineage {
		a.from, a.at = c.lineage, t.now()
	}
	a.end.Store(0)
}

// dropTaken forgets the answers that the peer of l, which has ended, has taken. A later
// call with the same key is new.
func (t *table) dropTaken(l *lineage) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.kept {
		a := t.queue[(t.first+i)%len(t.queue)]
		if a != nil && a.from == l && a.taken() {
			t.forget(a)
		}
	}
}

// moveHome makes c the connection that gets o's reply.
func (t *table) moveHome(o *call, c *conn) {
	if o.conn == c {
		return
	}
	if old := o.conn; old != nil {
		t.leave(old)
	}
	o.conn, o.from = c, c.lineage
	c.flying++
}

// adopt counts a call of an earlier life as in flight. It comes before any other call.
func (t *table) adopt(k *call) {
	t.mu.Lock()
	t.fly(k)
	t.mu.Unlock()
}

// fly makes k a call in flight.
func (t *table) fly(k *call) {
	if k.readOnly {
		t.flying.exact[k.key] = k
	} else {
		t.flying.put(k.key, k)
	}
	t.count(k)
}

// count counts k, which is not older than any other, as in flight.
func (t *table) count(k *call) {
	t.total++
	k.older = t.newest
	if k.older != nil {
		k.older.newer = k
	} else {
		t.oldest = k
	}
	t.newest = k
}

// landed removes k from the calls in flight. release lowers their count.
func (t *table) landed(k *call) {
	t.flying.drop(k.key, k)
	if k.older != nil {
		k.older.newer = k.newer
	} else {
		t.oldest = k.newer
	}
	if k.newer != nil {
		k.newer.older = k.older
	} else {
		t.newest = k.older
	}
	k.older, k.newer = nil, nil
}

// finish removes k from the calls in flight, remembers its answer a unless that is nil, and
// returns the connection to send the answer to, nil if none waits. alone reports that no
// other call of that connection is in flight. The connection still counts k until release.
func (t *table) finish(k *call, a *answered) (c *conn, alone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.landed(k)
	if a != nil {
		a.from, a.at = k.from, t.now()
		t.remember(a)
	}
	c, k.conn = k.conn, nil
	return c, c != nil && c.flying == 1
}

// abandon removes k if no connection waits for it any more.
func (t *table) abandon(k *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.conn != nil && !k.conn.gone.Load() {
		return false
	}
	t.landed(k)
	return true
}

// release stops counting a call that c brought.
func (t *table) release(c *conn, reserved int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.total--
	t.bytes -= reserved
	t.wakeLocked()
	if c != nil {
		t.leave(c)
	}
}

// leave stops counting a call at c.
func (t *table) leave(c *conn) {
	c.flying--
	c.room.Signal()
	c.closeIfDrained()
}

// poke makes the reader of c check again whether it may go on.
func (t *table) poke(c *conn) {
	t.mu.Lock()
	c.room.Broadcast()
	t.room.Broadcast()
	c.closeIfDrained()
	t.mu.Unlock()
}

// remember keeps an answer, and forgets the oldest ones to make room.
func (t *table) remember(a *answered) {
	for t.kept > 0 && (t.kept == len(t.queue) || t.keptBytes+a.size() > t.limits.AnswerBytes) {
		t.drop(t.queue[t.first])
		t.first = (t.first + 1) % len(t.queue)
		t.kept--
	}
	if a.size() > t.limits.AnswerBytes {
		return
	}
	a.place = (t.first + t.kept) % len(t.queue)
	t.queue[a.place] = a
	t.kept++
	t.keptBytes += a.size()
	t.answers.put(a.key, a)
}

func (a *answered) size() int { return len(a.reply) + answeredOverhead }

// drop takes a out of the queue, leaving a gap. A nil is a gap already.
func (t *table) drop(a *answered) {
	if a == nil {
		return
	}
	t.queue[a.place] = nil
	t.keptBytes -= a.size()
	t.answers.drop(a.key, a)
}

// forget drops an answer that no retransmission can ask for any more, from the journal too.
func (t *table) forget(a *answered) {
	t.drop(a)
	if a.note != 0 {
		t.forgotten(a.note)
	}
}

// awaitIdle waits until no call is in flight, or until stop is done.
func (t *table) awaitIdle(stop func() bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.total > 0 && !stop() {
		t.wait()
	}
}

// inFlight counts the calls in flight.
func (t *table) inFlight() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.total
}

// A call is one operation on its way through the group.
type call struct {
	server *Server
	key    key
	// record is the record that the call came in; its memory is used again when the call is
	// over. It is nil for a call of an earlier life.
	record   []byte
	body     []byte // the operation, in record
	reserved int    // bytes of the table's budget
	began    instant

	program, procedure uint32
	readOnly           bool
	mount              string // the path of MNT

	conn         *conn    // gets the reply; nil: none waits. After admit, table.mu guards this and the next three
	from         *lineage // the connection where it came last
	older, newer *call    // its neighbours in flight

	left      bool // the group may have it. Only the client's goroutine that sends it touches this and the next three
	journaled bool // on the journal under slot, t
	slot      slotNumber
	t         timestamp
}
