package relay

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"testing"

	"bfs/pkg/nfsstate/nfs3"
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
		old.Close()
		again := r.connect(t)
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
	old.Close()
	again := r.connect(t)
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
	k.Close()
	k = r.connect(t) // and after a reconnect
	k.send(m)
	k.expect(1, nfs3.Success, "aaaa")
	if s := r.Stats(); s.Replayed != 2 {
		t.Fatalf("got %d replayed, want 2", s.Replayed)
	}
	g.next(t)
	g.quiet(t)

	// The same xid with other bytes is another call, and so is what only reads.
	k.send(rpc(1, nfs3.ProgramNFS, procRemove, "bbbb"))
	k.expect(1, nfs3.Success, "bbbb")
	g.next(t)
	for range 2 {
		k.send(rpc(2, nfs3.ProgramNFS, procRead, "cccc"))
		k.expect(2, nfs3.Success, "cccc")
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

// TestTableProperties drives the table against a plain model: every operation that changes something
// runs once for each (xid, bytes) that its client chose, however often, on whichever connection it comes, as long as
// its answer is kept; bounds hold after every step; and nothing is left in flight.
func TestTableProperties(t *testing.T) {
	for seed := range uint64(50) {
		t.Run(fmt.Sprint("seed", seed), func(t *testing.T) { tableLife(t, rand.New(rand.NewPCG(seed, 0))) })
	}
}

func tableLife(t *testing.T, chance *rand.Rand) {
	limits := Limits{Answers: 8, AnswerBytes: 2000}.withDefaults()
	s := &Server{table: newTable(limits), config: Config{Limits: limits}}
	conns := []*conn{tableConn(s), tableConn(s)}
	var flying []*call
	var kept []key // of the model: finished, oldest first; a prefix may be forgotten
	replies := map[key]string{}
	for step := range 400 {
		c := conns[chance.IntN(len(conns))]
		switch chance.IntN(5) {
		case 0, 1: // a call, new or again
			k := &call{server: s, conn: c, readOnly: chance.IntN(3) == 0}
			n := chance.IntN(30)
			k.key = keyOf(c.addr, uint32(n), []byte{byte(n), b2i(k.readOnly)})
			how, reply := s.table.admit(k)
			switch how {
			case fresh:
				if _, answered := s.table.answers[k.key]; answered && sameClient(s.table.answers[k.key].from, c) {
					t.Fatalf("step %d: %v done twice", step, k.key)
				}
				flying = append(flying, k)
			case replayed:
				if string(reply) != replies[k.key] || k.readOnly {
					t.Fatalf("step %d: %v answered %q, want %q", step, k.key, reply, replies[k.key])
				}
			case joined:
			}
		case 2, 3: // an answer, in any order
			if len(flying) == 0 {
				continue
			}
			i := chance.IntN(len(flying))
			k := flying[i]
			flying = append(flying[:i], flying[i+1:]...)
			reply := success(strings.Repeat("x", chance.IntN(400)))
			to, _ := s.table.finish(k, reply, !k.readOnly)
			if to == nil {
				t.Fatalf("step %d: nobody to answer", step)
			}
			s.table.release(to, 0)
			if !k.readOnly {
				kept, replies[k.key] = append(kept, k.key), string(reply)
			}
		case 4: // a kernel reconnects
			if chance.IntN(4) == 0 {
				i := chance.IntN(len(conns))
				conns[i].gone.Store(true)
				conns[i] = tableConn(s)
			}
		}
		checkTable(t, s.table, limits, len(flying), kept)
	}
	for _, k := range flying {
		to, _ := s.table.finish(k, nil, false)
		s.table.release(to, 0)
	}
	for _, c := range conns {
		if c.flying != 0 {
			t.Fatalf("%d calls counted on an idle connection", c.flying)
		}
	}
	checkTable(t, s.table, limits, 0, kept)
}

func checkTable(t *testing.T, b *table, l Limits, flying int, kept []key) {
	t.Helper()
	bytes := 0
	for i := range b.kept {
		a := b.queue[(b.first+i)%len(b.queue)]
		bytes += len(a.reply) + answeredOverhead
		if want := kept[len(kept)-b.kept+i]; a.key != want { // the newest are kept, in order
			t.Fatalf("kept %v, want %v", a.key, want)
		}
	}
	if b.total != flying || b.kept > l.Answers || b.keptBytes > l.AnswerBytes || bytes != b.keptBytes || len(b.answers) > b.kept {
		t.Fatalf("total %d of %d, kept %d, bytes %d of %d, answers %d", b.total, flying, b.kept, b.keptBytes, bytes, len(b.answers))
	}
}

// tableConn makes a connection without a socket; its peer has not left until gone is set.
func tableConn(s *Server) *conn {
	c := &conn{
		lineage: &lineage{addr: netip.MustParseAddr("127.0.0.1"), tcp: loopback},
		server:  s, quit: make(chan struct{}),
	}
	c.room.L = &s.table.mu
	return c
}

// loopback is a connection that stays up, for tables to look at.
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
