package relay

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A lineage is a connection as the calls it brought remember it: who is at its other end, and whether
// he has left. A call sent again on another connection is the same call only if the
// first one's peer has left it, for then it is a reconnect; two live connections with equal xids are two clients.
type lineage struct {
	addr netip.Addr
	tcp  *net.TCPConn
	gone atomic.Bool
}

// left reports whether the peer has closed the connection. We may not have read so far: a
// connection at its limit is not read.
func (l *lineage) left() bool {
	if l.gone.Load() {
		return true
	}
	raw, err := l.tcp.SyscallConn()
	if err != nil {
		return true
	}
	hungUp := false
	err = raw.Control(func(fd uintptr) {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(p, 0)
		hungUp = err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
	})
	return hungUp || err != nil
}

// A key tells calls apart: the peer's address, the xid it chose, and a checksum and length of
// the operation, since two clients on one machine may choose alike.
type key struct {
	peer        netip.Addr
	xid         uint32
	sum, length uint32
}

// An answered call that changed something: sent again, it is answered again and not done again.
type answered struct {
	key   key
	from  *lineage // nil: an earlier life of the relay answered it
	reply []byte   // accept_stat and results; immutable
}

// answeredOverhead is what an answered call costs beside its reply, roughly.
const answeredOverhead = 160

var errStopping = errors.New("relay is stopping")

// A table holds the calls in flight and the answers to recent ones: the duplicate-request cache. It is
// also the gate: it counts calls and bytes, and makes readers wait at the limits.
type table struct {
	limits Limits

	mu      sync.Mutex
	flying  map[key]*call
	total   int       // calls in flight, those of dead connections included
	bytes   int       // reserved for records above smallRecord
	room    sync.Cond // total or bytes fell, or someone must stop waiting
	waiting int       // on room

	answers   map[key]*answered
	queue     []*answered // ring of limits.Answers, oldest first
	first     int
	kept      int // entries of queue in use
	keptBytes int
}

func newTable(l Limits) *table {
	t := &table{
		limits: l, flying: make(map[key]*call), answers: make(map[key]*answered),
		queue: make([]*answered, l.Answers),
	}
	t.room.L = &t.mu
	return t
}

// awaitTurn waits until c may bring another call: its own limit and everyone's are kept, and
// its peer takes its replies. False if c is to bring no more.
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

// reserve takes n bytes of the budget for records, waiting for them. Someone alone may always go on.
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

// An admission is what the table says to a call.
type admission uint8

const (
	fresh    admission = iota // do it
	joined                    // it is in flight already, and will be answered where it was last asked
	replayed                  // it was done; here is the answer again
)

// admit judges k and, if it is fresh, counts it as in flight.
func (t *table) admit(k *call) (admission, []byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if o := t.flying[k.key]; o != nil && sameClient(o.home(), k.conn) {
		t.moveHome(o, k.conn)
		return joined, nil
	}
	if a := t.answers[k.key]; a != nil && sameClient(a.from, k.conn) {
		return replayed, a.reply
	}
	t.flying[k.key] = k
	t.total++
	k.conn.flying++
	return fresh, nil
}

// sameClient reports whether a call that came from a may come again from c.
func sameClient(a *lineage, c *conn) bool {
	return a == nil || a == c.lineage || a.left()
}

// moveHome makes c the connection that gets o's reply.
func (t *table) moveHome(o *call, c *conn) {
	if o.conn == c {
		return
	}
	if old := o.conn; old != nil {
		t.leave(old)
	}
	o.conn = c
	c.flying++
}

// adopt counts a call of an earlier life as in flight, or its answer as given. Before any other call.
func (t *table) adopt(k *call) {
	t.mu.Lock()
	t.flying[k.key] = k
	t.total++
	t.mu.Unlock()
}

// finish takes k off the calls in flight, remembers its reply if that is wanted, and says where to
// send it: nil if nobody waits. alone reports that no other call of that connection
// is in flight. The connection still counts k until release.
func (t *table) finish(k *call, reply []byte, remember bool) (c *conn, alone bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.flying[k.key] == k {
		delete(t.flying, k.key)
	}
	if remember {
		t.remember(&answered{key: k.key, from: k.home(), reply: reply})
	}
	c, k.conn = k.conn, nil
	return c, c != nil && c.flying == 1
}

// abandon takes k back if nobody waits for it any more.
func (t *table) abandon(k *call) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if k.conn != nil && !k.conn.gone.Load() {
		return false
	}
	if t.flying[k.key] == k {
		delete(t.flying, k.key)
	}
	return true
}

// release ends the counting of a call that c brought.
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

// leave ends the counting of a call at c.
func (t *table) leave(c *conn) {
	c.flying--
	c.room.Signal()
	c.closeIfDrained()
}

// poke lets c's reader look again whether it may go on.
func (t *table) poke(c *conn) {
	t.mu.Lock()
	c.room.Broadcast()
	t.room.Broadcast()
	c.closeIfDrained()
	t.mu.Unlock()
}

// remember keeps an answer, and forgets the oldest ones where there is no room.
func (t *table) remember(a *answered) {
	size := len(a.reply) + answeredOverhead
	for t.kept > 0 && (t.kept == len(t.queue) || t.keptBytes+size > t.limits.AnswerBytes) {
		old := t.queue[t.first]
		t.queue[t.first] = nil
		t.first = (t.first + 1) % len(t.queue)
		t.kept--
		t.keptBytes -= len(old.reply) + answeredOverhead
		if t.answers[old.key] == old {
			delete(t.answers, old.key)
		}
	}
	if size > t.limits.AnswerBytes {
		return
	}
	t.queue[(t.first+t.kept)%len(t.queue)] = a
	t.kept++
	t.keptBytes += size
	t.answers[a.key] = a
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
	server   *Server
	key      key
	record   []byte // which brought it; its memory is used again when the call is over. nil: an earlier life had it
	body     []byte // the operation, in record
	reserved int    // bytes of the table's budget
	began    time.Time

	program, procedure uint32
	readOnly           bool
	mount              string // what MNT asks for

	conn *conn // who gets the reply; nil: nobody waits. Guarded by table.mu after admit

	journaled bool // on the journal under slot, t. Only the client's goroutine that sends it touches these
	slot      slotNumber
	t         timestamp
}

// home is where k came from last.
func (k *call) home() *lineage {
	if k.conn == nil {
		return nil
	}
	return k.conn.lineage
}
