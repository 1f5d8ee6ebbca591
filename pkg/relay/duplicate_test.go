// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"bfs/pkg/nfs3"
)

func TestRetransmissionJoinsTheCallInFlight(t *testing.T) {
	g := newFakeGroup(4)
	r := newRig(t, g, nil)
	k := r.connect(t)
	m := rpc(1, nfs3.ProgramNFS, procRemove, "aaaa")
	k.send(m)
	f := g.next(t)
	k.send(m)
	r.eventually(t, "joined", func(s Stats) bool { return s.Joined == 1 })
	g.quiet(t)
	g.end(f, success("gone"), nil)
	k.expect(1, nfs3.Success, "gone") // once: the next reply is the next call's
	k.send(rpc(2, nfs3.ProgramNFS, 0, ""))
	k.expect(2, nfs3.Success, "")
}

func TestReconnectedKernelGetsTheReply(t *testing.T) {
	for _, procedure := range []uint32{procRemove, procRead} {
		g := newFakeGroup(4)
		r := newRig(t, g, nil)
		m := rpc(1, nfs3.ProgramNFS, procedure, "aaaa")
		old := r.connect(t)
		old.send(m)
		f := g.next(t)
		again := r.reconnect(t, old)
		again.send(m)
		r.eventually(t, "joined", func(s Stats) bool { return s.Joined == 1 })
		g.quiet(t)
		g.end(f, success("gone"), nil)
		again.expect(1, nfs3.Success, "gone")
	}
}

// The old connection is at its limit and not read: that its peer left it shows all the same.
func TestReconnectFromAConnectionThatIsNotRead(t *testing.T) {
	g := newFakeGroup(4)
	r := newRig(t, g, func(c *Config) { c.Limits.CallsPerConn = 1 })
	m := rpc(1, nfs3.ProgramNFS, procRemove, "aaaa")
	old := r.connect(t)
	old.send(m)
	f := g.next(t)
	again := r.reconnect(t, old)
	again.send(m)
	r.eventually(t, "joined", func(s Stats) bool { return s.Joined == 1 })
	g.end(f, success("gone"), nil)
	again.expect(1, nfs3.Success, "gone")
}

func TestDoneCallIsAnsweredAgain(t *testing.T) {
	g := newFakeGroup(4)
	g.answer = echo
	r := newRig(t, g, nil)
	m := rpc(1, nfs3.ProgramNFS, procRemove, "aaaa")
	k := r.connect(t)
	for range 2 { // here,
		k.send(m)
		k.expect(1, nfs3.Success, "aaaa")
	}
	k.reset()
	k = r.reconnect(t, k) // and after a reconnect, because the reset may have lost the answer
	k.send(m)
	k.expect(1, nfs3.Success, "aaaa")
	if s := r.Stats(); s.Replayed != 2 {
		t.Fatalf("got %d replayed, want 2", s.Replayed)
	}
	g.next(t)
	g.quiet(t)

	// The same xid with other bytes is another call, and so is any call that only reads.
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "bbbb"))
	k.expect(1, nfs3.Success, "bbbb")
	g.next(t)
	for range 2 {
		k.send(rpc(2, nfs3.ProgramNFS, procRead, "cccc"))
		k.expect(2, nfs3.Success, "cccc")
		g.next(t)
	}
}

// Two processes make the same call, byte for byte and with the same xid. A new process is
// told from one that asks again by whether the first took its answer, by who ended its
// connection, by the port, and by the time.
func TestWhoAsksAgain(t *testing.T) {
	for _, c := range []struct {
		name     string
		answered bool // the first process reads its answer
		orderly  bool // and closes in good order
		cut      bool // the relay closes the connection
		samePort bool
		later    time.Duration
		again    bool // the second gets the first one's answer
	}{
		{name: "reconnect after a lost answer", samePort: true, again: true},
		{name: "reconnect after five minutes", samePort: true, later: 5 * time.Minute, again: true},
		{name: "reconnect after an hour", samePort: true, later: time.Hour},
		{name: "answer read, connection reset", answered: true, samePort: true, again: true},
		{name: "answer read, closed, same port", answered: true, orderly: true, samePort: true},
		{name: "answer read, closed, other port", answered: true, orderly: true},
		{name: "killed before its answer, other port"},
		{name: "killed after its answer, other port", answered: true},
		{name: "cut off before its answer, same port", cut: true, samePort: true, again: true},
		{name: "cut off before its answer, other port", cut: true, again: true},
		{name: "cut off, other port, after five minutes", cut: true, later: 5 * time.Minute, again: true},
		{name: "cut off, other port, after an hour", cut: true, later: time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			g, clock := newFakeGroup(4), newHandClock()
			g.answer, g.now = echo, clock.now
			r := newRig(t, g, nil)
			m := rpc(7, nfs3.ProgramNFS, procWrite, "same")
			old := r.connect(t)
			old.send(m)
			if c.answered {
				old.expect(7, nfs3.Success, "same")
			} else { // it has come and is never read
				r.eventually(t, "answered", func(s Stats) bool { return s.BytesOut > 0 })
			}
			g.next(t)
			switch {
			case c.cut:
				old.send(notACallAtAll)
			case c.orderly:
				old.Close()
			default:
				old.reset()
			}
			r.eventually(t, "end seen", func(s Stats) bool { return s.Connections == 0 })
			clock.pass(c.later)
			k := old
			if c.samePort {
				k = r.reconnect(t, old)
			} else {
				k = r.connect(t)
			}
			k.send(m)
			k.expect(7, nfs3.Success, "same")
			if s := r.Stats(); (s.Replayed == 1) != c.again {
				t.Errorf("got %d answered again, want %v", s.Replayed, c.again)
			}
			if n := len(g.started); (n == 0) != c.again {
				t.Errorf("%d calls reached the group", n)
			}
		})
	}
}

// notACallAtAll is a reply, for which the relay closes a connection.
var notACallAtAll = record([]byte{7: 1})

// A client whose connection the relay has closed is answered wherever it comes back, again
// and again; the connection that has its call makes it live, and others are other clients.
func TestClientThatWasCutOffComesBackFromAnyPort(t *testing.T) {
	g := newFakeGroup(4)
	r := newRig(t, g, nil)
	flying, read := rpc(1, nfs3.ProgramNFS, procRemove, "aaaa"), rpc(2, nfs3.ProgramNFS, procRead, "bbbb")
	k := r.connect(t)
	k.send(flying)
	f := g.next(t)
	k.send(read)
	g.next(t)
	for n := range uint64(2) {
		k.send(notACallAtAll)
		k.expectClosed()
		k = r.connect(t)
		k.send(flying)
		r.eventually(t, "joined", func(s Stats) bool { return s.Joined == n+1 })
	}
	k.send(read)
	g.next(t) // what only reads may be done twice
	other := r.connect(t)
	other.send(flying)
	g.end(g.next(t), success("another's"), nil)
	other.expect(1, nfs3.Success, "another's")
	g.end(f, success("gone"), nil)
	k.expect(1, nfs3.Success, "gone")
	k.send(notACallAtAll)
	k.expectClosed()
	k = r.connect(t)
	k.send(flying)
	k.expect(1, nfs3.Success, "gone")
	g.quiet(t)
}

// The first process is gone while its call is in flight: only a client from its port is
// taken for it.
func TestWhoJoinsACallInFlight(t *testing.T) {
	g, clock := newFakeGroup(4), newHandClock()
	g.now = clock.now
	r := newRig(t, g, nil)
	m := rpc(7, nfs3.ProgramNFS, procWrite, "same")
	old := r.connect(t)
	old.send(m)
	first := g.next(t)
	old.reset()
	r.eventually(t, "end seen", func(s Stats) bool { return s.Connections == 0 })
	other := r.connect(t)
	other.send(m)
	g.end(g.next(t), success("its own"), nil)
	other.expect(7, nfs3.Success, "its own")
	again := r.reconnect(t, old)
	again.send(m)
	r.eventually(t, "joined", func(s Stats) bool { return s.Joined == 1 })
	again.reset()
	r.eventually(t, "end seen", func(s Stats) bool { return s.Connections == 1 })
	clock.pass(time.Hour)
	late := r.reconnect(t, again)
	late.send(m)
	g.end(g.next(t), success("late"), nil)
	late.expect(7, nfs3.Success, "late")
	g.end(first, success("first"), nil)
	if s := r.Stats(); s.Joined != 1 || s.InFlight != 0 {
		t.Errorf("got %d joined, %d in flight", s.Joined, s.InFlight)
	}
}

// On one connection an xid belongs to one call for two minutes.
func TestXidUsedAgainOnOneConnection(t *testing.T) {
	g, clock := newFakeGroup(4), newHandClock()
	g.answer, g.now = echo, clock.now
	r := newRig(t, g, nil)
	k := r.connect(t)
	m := rpc(7, nfs3.ProgramNFS, procWrite, "same")
	for _, c := range []struct {
		later time.Duration
		again bool
	}{{0, false}, {time.Minute, true}, {50 * time.Second, true}, {time.Minute, false}} {
		clock.pass(c.later)
		k.send(m)
		k.expect(7, nfs3.Success, "same")
		if n := len(g.started); (n == 0) != c.again {
			t.Errorf("after %v: %d calls reached the group", c.later, n)
		}
		for len(g.started) > 0 {
			<-g.started
		}
	}
}

// A call that differs only in its credentials, even in parts that the relay does not pass
// on, is another call.
func TestOtherCredentialsAreAnotherCall(t *testing.T) {
	g := newFakeGroup(4)
	g.answer = echo
	r := newRig(t, g, nil)
	k := r.connect(t)
	m := rpc(7, nfs3.ProgramNFS, procWrite, "same")
	stamp := bytes.Clone(m)
	stamp[4+8*4+3] ^= 1 // behind the mark: eight words, then the stamp
	for _, m := range [][]byte{m, stamp} {
		k.send(m)
		k.expect(7, nfs3.Success, "same")
		g.next(t)
	}
}

// Two clients on one machine that count their xids alike are two clients.
func TestLiveConnectionsDoNotShareAnswers(t *testing.T) {
	g := newFakeGroup(4)
	r := newRig(t, g, nil)
	m := rpc(1, nfs3.ProgramNFS, procCreate, "aaaa")
	a, b := r.connect(t), r.connect(t)
	a.send(m)
	first := g.next(t)
	b.send(m)
	second := g.next(t)
	g.end(first, success("made"), nil)
	a.expect(1, nfs3.Success, "made")
	g.end(second, success("EXIST..."), nil)
	b.expect(1, nfs3.Success, "EXIST...")
	// Each gets its own again, as far as one answer for a key is kept.
	b.send(m)
	b.expect(1, nfs3.Success, "EXIST...")
	if n := r.Stats().InFlight; n != 0 {
		t.Fatalf("%d in flight", n)
	}
}

// TestTableProperties drives the table against a plain model: an operation that changes
// something and comes again with the same bytes runs again exactly if its client cannot
// be asking for the answer, as long as the answer is kept; bounds hold after every step;
// and nothing is left in flight.
func TestTableProperties(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { tableLife(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

// A tableModel is the plain model of the answers: every one that was given, by its key,
// and the latest by its key without the port.
type tableModel struct{ exact, anyPort map[key]*modelAnswer }

// expect returns the answer that k gets if no call is in flight that it repeats. The model
// keeps every answer, so the table says which ones it has.
func (m *tableModel) expect(b *table, k *call, now instant) *modelAnswer {
	if k.readOnly {
		return nil
	}
	any := k.key.fromAnyPort()
	exact, latest := m.exact[k.key], m.anyPort[any]
	if b.answers.exact[k.key] != nil && exact.wanted(k.conn, now) {
		return exact
	}
	if b.answers.anyPort[any] != nil && latest != exact && latest.wanted(k.conn, now) {
		return latest
	}
	return nil
}

// A modelAnswer is the model's record of an answer that may be kept.
type modelAnswer struct {
	key   key
	reply string
	from  *lineage
	at    instant
	taken bool
}

// wanted is the rule of docs/PROTOCOL.md.
func (a *modelAnswer) wanted(c *conn, now instant) bool {
	if a.from == c.lineage {
		return now-a.at <= instant(2*time.Minute)
	}
	return a.from.ended != 0 && now-a.from.ended <= instant(6*time.Minute) && !a.taken &&
		(a.from.cut || a.from.peer == c.peer)
}

func tableLife(t *testing.T, chance *rand.Rand) {
	limits := Limits{Answers: 8, AnswerBytes: 2400}.withDefaults()
	s := &Server{table: newTable(limits), config: Config{Limits: limits}}
	clock := newHandClock()
	s.table.now = clock.now
	conns := []*conn{tableConn(s, 700), tableConn(s, 701)}
	var flying []*call
	answers := tableModel{map[key]*modelAnswer{}, map[key]*modelAnswer{}}
	for step := range 600 {
		i := chance.IntN(len(conns))
		c := conns[i]
		switch chance.IntN(6) {
		case 0, 1: // a call, new or again
			k := &call{server: s, conn: c, from: c.lineage, readOnly: chance.IntN(3) == 0}
			k.key = keyOf(c.peer, uint32(chance.IntN(15)), []byte{0, 0, 0, 0, b2i(k.readOnly)})
			was := answers.expect(s.table, k, clock.now())
			switch how, a := s.table.admit(k); how {
			case fresh:
				if was != nil {
					t.Fatalf("step %d: %v done twice", step, k.key)
				}
				flying = append(flying, k)
			case replayed:
				if was == nil || string(a.reply) != was.reply {
					t.Fatalf("step %d: %v answered %q, want %+v", step, k.key, a.reply, was)
				}
				if was.from != c.lineage {
					was.from, was.at = c.lineage, clock.now()
				}
				sendAll(c, a)
			case joined:
			}
		case 2, 3: // an answer, in any order
			if len(flying) == 0 {
				continue
			}
			i := chance.IntN(len(flying))
			k := flying[i]
			flying = append(flying[:i], flying[i+1:]...)
			a := &answered{key: k.key, reply: success(strings.Repeat("x", chance.IntN(400)))}
			if k.readOnly {
				a = nil
			}
			to, _ := s.table.finish(k, a)
			if to == nil {
				t.Fatalf("step %d: no call to answer", step)
			}
			s.table.release(to, 0)
			if a != nil {
				m := &modelAnswer{key: k.key, reply: string(a.reply), from: k.from, at: clock.now()}
				answers.exact[k.key], answers.anyPort[k.key.fromAnyPort()] = m, m
				sendAll(to, a)
			}
		case 4: // a kernel reconnects, having taken everything or maybe nothing, from its port or another
			if chance.IntN(4) != 0 {
				continue
			}
			c.gone.Store(true)
			switch chance.IntN(3) {
			case 0:
				c.left(clock.now(), c.written.Load())
				for _, a := range answers.exact {
					a.taken = a.taken || a.from == c.lineage
				}
				s.table.dropTaken(c.lineage)
			case 1:
				c.left(clock.now(), 0)
			case 2:
				c.end(clock.now())
			}
			conns[i] = tableConn(s, c.peer.Port()^uint16(chance.IntN(2))<<1)
		case 5:
			clock.pass(time.Duration(chance.IntN(60)) * time.Second)
		}
		checkTable(t, s.table, limits, len(flying))
	}
	for _, k := range flying {
		to, _ := s.table.finish(k, nil)
		s.table.release(to, 0)
	}
	for _, c := range conns {
		if c.flying != 0 {
			t.Fatalf("%d calls counted on an idle connection", c.flying)
		}
	}
	checkTable(t, s.table, limits, 0)
	if s.table.oldest != nil || s.table.newest != nil || len(s.table.flying.exact)+len(s.table.flying.anyPort) != 0 {
		t.Fatal("a call is still in flight")
	}
}

// sendAll has c's socket take an answer whole, unless the connection has ended.
func sendAll(c *conn, a *answered) {
	if !c.gone.Load() {
		a.end.Store(c.written.Add(uint64(len(a.reply))))
	}
}

func checkTable(t *testing.T, b *table, l Limits, flying int) {
	t.Helper()
	bytes, found := 0, 0
	for i := range b.kept {
		a := b.queue[(b.first+i)%len(b.queue)]
		if a == nil {
			continue
		}
		bytes += a.size()
		if b.answers.exact[a.key] == a {
			found++
		}
	}
	linked := 0
	for k := b.oldest; k != nil; k = k.newer {
		linked++
	}
	if b.total != flying || linked != flying {
		t.Fatalf("total %d, linked %d, want %d", b.total, linked, flying)
	}
	if b.kept > l.Answers || b.keptBytes > l.AnswerBytes || bytes != b.keptBytes || len(b.answers.exact) != found {
		t.Fatalf("kept %d, bytes %d of %d, answers %d of %d", b.kept, b.keptBytes, bytes, len(b.answers.exact), found)
	}
}

// tableConn makes a connection without a socket of its own; it lives until it is ended.
func tableConn(s *Server, port uint16) *conn {
	c := &conn{
		lineage: &lineage{peer: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port), tcp: loopback},
		server:  s, quit: make(chan struct{}),
	}
	c.room.L = &s.table.mu
	return c
}

// loopback is a connection that stays up, for tables that ask whether it has ended.
var loopback *net.TCPConn

func init() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		panic(err)
	}
	loopback = c.(*net.TCPConn)
	if other, err = l.Accept(); err != nil {
		panic(err)
	}
}

var other net.Conn // keeps loopback's far end open

func b2i(b bool) byte {
	if b {
		return 1
	}
	return 0
}
