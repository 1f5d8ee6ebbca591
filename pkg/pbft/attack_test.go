// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/pbfttest"
	"bfs/test/patience"
)

// A rogue speaks the wire protocol with a key it owns and says what it likes.
type rogue struct {
	t        testing.TB
	self     message.Principal
	ring     *auth.Ring
	sessions []*auth.Session
	links    []*transport.Link
	listener *transport.Listener // if it plays a replica

	mu    sync.Mutex
	x     auth.Scratch
	heard map[message.Type]int // frames from others, by type
	last  map[int]*message.Reply
	deaf  chan struct{} // not nil: it reads nothing behind a REPLY until this is closed
}

// rogueEnd handles one connection of a rogue.
type rogueEnd struct {
	r  *rogue
	to int // -1: accepted
}

func newRogue(t testing.TB, c *cluster, self message.Principal, key ed25519.PrivateKey) *rogue {
	t.Helper()
	r := &rogue{t: t, self: self, heard: map[message.Type]int{}, last: map[int]*message.Reply{},
		links: make([]*transport.Link, c.g.N())}
	var err error
	if r.ring, err = auth.NewRing(self, c.g.Digest(), auth.NewMemorySigner(key), message.Digest{}); err != nil {
		t.Fatal(err)
	}
	for i, m := range c.g.Members {
		r.sessions = append(r.sessions, auth.NewSession(message.Principal{Replica: message.ReplicaID(i)}, m.Key))
	}
	options := transport.Options{MaxFrame: 4 << 20, Protocol: [4]byte{'b', 'f', 's', message.VersionMajor}}
	for i, m := range c.g.Members {
		options.Answer = func(challenge *transport.Challenge, hello *transport.Hello) error {
			return r.ring.Hello(r.sessions[i], (*[auth.ChallengeSize]byte)(challenge), (*[auth.HelloSize]byte)(hello))
		}
		if !self.IsReplica() || i != int(self.Replica) {
			r.links[i] = transport.Dial(m.Address, options, &rogueEnd{r, i})
			t.Cleanup(r.links[i].Close)
		}
	}
	if self.IsReplica() {
		options.Admit = func(*transport.Conn, *transport.Challenge, *transport.Hello) bool { return true }
		r.listener, err = transport.Listen(c.g.Members[self.Replica].Address, options, &rogueEnd{r, -1})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(r.listener.Close)
	}
	return r
}

// asReplica plays replica i of the cluster, which must not run.
func asReplica(t testing.TB, c *cluster, i int) *rogue {
	return newRogue(t, c, message.Principal{Replica: message.ReplicaID(i)}, c.keys[i])
}

func asClient(t testing.TB, c *cluster, key ed25519.PrivateKey) *rogue {
	return newRogue(t, c, message.Principal{Client: pbft.ClientOf(key.Public().(ed25519.PublicKey))}, key)
}

// asAdministrator plays the administrator with a process of its own, and waits until all
// replicas have its keys.
func asAdministrator(t testing.TB, c *cluster) *rogue {
	r := newRogue(t, c, message.Principal{Client: message.Administrator}, c.admin)
	r.ready(c)
	return r
}

// leave ends the rogue's connections.
func (r *rogue) leave() {
	for _, l := range r.links {
		l.Close()
	}
}

func (e *rogueEnd) Opened(c *transport.Conn) {
	if e.to >= 0 {
		e.r.sendKey(c, e.to)
	}
}

func (r *rogue) sendKey(c *transport.Conn, to int) {
	if m, err := r.ring.NewKey(r.sessions[to], c.Binding(), ""); err == nil {
		c.Send([]byte{byte(message.TypeNewKey)}, m.AppendBody(nil))
		c.Flush()
	}
}

func (e *rogueEnd) Closed(*transport.Conn, error) {}

func (e *rogueEnd) Frames(c *transport.Conn, frames [][]byte) {
	for _, f := range frames {
		if len(f) == 0 {
			continue
		}
		t := message.Type(f[0])
		e.r.mu.Lock()
		n := 1
		if t == message.TypeReply && len(f) >= 20 {
			n = int(binary.LittleEndian.Uint16(f[18:])) // of answers
		}
		e.r.heard[t] += n
		if body, _, ok := auth.Split(f); ok && t == message.TypeReply && e.to >= 0 {
			if m, err := message.Decode(append([]byte(nil), body...), &message.Limits{Reply: 1 << 20}); err == nil {
				reply, old := m.(*message.Reply), e.r.last[e.to]
				if old == nil || old.Answers[0].Timestamp <= reply.Answers[0].Timestamp {
					e.r.last[e.to] = reply
				}
			}
		}
		deaf := e.r.deaf
		e.r.mu.Unlock()
		if t == message.TypeReply && deaf != nil {
			<-deaf
		}
		if t != message.TypeNewKey {
			continue
		}
		m, err := message.Decode(append([]byte(nil), f...), &message.Limits{})
		if err != nil {
			e.r.t.Errorf("NEW-KEY: %v", err)
			continue
		}
		k := m.(*message.NewKey)
		from := int(k.From.Replica)
		answer, _, err := e.r.ring.Accept(e.r.sessions[from], k, auth.Channel{ID: c.Binding(), Number: c.Number()})
		if err == nil && answer {
			if e.to >= 0 {
				e.r.sendKey(c, from)
			} else if l := e.r.links[from].Conn(); l != nil {
				e.r.sendKey(l, from)
			}
		}
	}
}

func (r *rogue) count(t message.Type) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.heard[t]
}

// ready waits until all running replicas have given it keys.
func (r *rogue) ready(c *cluster) {
	r.t.Helper()
	eventually(r.t, "the rogue has keys", func() bool {
		for i, x := range c.replicas {
			if x != nil && (!r.sessions[i].Ready() || r.links[i].Conn() == nil) {
				return false
			}
		}
		return true
	})
}

// say sends a sealed message to replica i.
func (r *rogue) say(i int, m message.Message) {
	r.mu.Lock()
	frame := r.ring.Seal(r.sessions[i], &r.x, nil, m)
	r.mu.Unlock()
	r.raw(i, frame)
}

func (r *rogue) raw(i int, frame []byte) {
	if l := r.links[i]; l != nil {
		l.Send(frame)
		l.Flush()
	}
}

// request makes an authenticated request with good MACs for some of the replicas.
func (r *rogue) request(q *message.Request, good ...int) *message.Request {
	q.Client = r.self.Client
	q.Altered()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ring.Authenticate(r.sessions, &r.x, q)
	for i := range r.sessions {
		keep := len(good) == 0
		for _, g := range good {
			keep = keep || g == i
		}
		if !keep {
			q.Auth.Tag(message.ReplicaID(i))[0] ^= 1
		}
	}
	return q
}

// known waits until every replica has answered a read: it has the rogue's keys then, and
// can answer what it hears of from others.
func (r *rogue) known(c *cluster) {
	r.t.Helper()
	at := message.Timestamp(1 << 39)
	eventually(r.t, "all know the rogue", func() bool {
		at++
		for i := range c.replicas {
			r.ask(i, r.request(&message.Request{Op: []byte("r"), Timestamp: at,
				Replier: message.AnyReplier, ReadOnly: true}))
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		for i := range c.replicas {
			if r.last[i] == nil {
				return false
			}
		}
		return true
	})
}

func (r *rogue) ask(i int, q *message.Request) {
	r.raw(i, q.AppendBody([]byte{byte(message.TypeRequest)}))
}

func running(c *cluster) (all []int) {
	for i, r := range c.replicas {
		if r != nil {
			all = append(all, i)
		}
	}
	return all
}

// works checks that the group still counts, exactly once each.
func (c *cluster) works(client *pbft.Client) {
	c.t.Helper()
	before := invoke(c.t, client, "r", true)
	for n := range uint64(12) {
		if got := invoke(c.t, client, "i", false); got != before+n+1 {
			c.t.Fatalf("the counter is %d, want %d", got, before+n+1)
		}
	}
	for i, r := range c.replicas {
		if r != nil && r.Err() != nil {
			c.t.Fatalf("replica %d has stopped: %v", i, r.Err())
		}
	}
}

// A backup that is owned says all it can to the three others.
func TestFaultyBackup(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	for i := range 3 {
		c.start(i)
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	r := asReplica(t, c, 3)
	r.ready(c)
	c.works(client)

	const largest = 1<<62 - 1
	unknown := &message.Request{Client: 12345, Timestamp: 9, ReadOnly: true,
		Replier: message.AnyReplier, Op: []byte("i")}
	foreign := &message.Request{Client: message.Administrator, Timestamp: 9,
		Replier: message.AnyReplier, Op: []byte{0, 'i'}, Signature: make([]byte, message.SignatureSize)}
	liar := rand.New(rand.NewPCG(1, 1))
	for round := range 30 {
		for _, i := range running(c) {
			s := c.replicas[i].Status()
			for _, m := range []message.Message{
				&message.Status{Active: true, Low: largest, LastExecuted: largest},
				&message.Status{Active: true, LastExecuted: largest, Prepared: message.Bitmap{0xff}},
				&message.Status{Active: true},
				&message.Status{View: largest},
				&message.Checkpoint{Seq: s.Stable + 4, Digest: message.Digest{1}, Stable: true},
				&message.Checkpoint{Seq: largest / 4 * 4, Digest: message.Digest{1}, Stable: true},
				&message.Prepare{Seq: s.LastExecuted + 1 + message.SeqNum(round%3),
					Digest: message.Digest{byte(round)}},
				&message.Commit{Seq: s.LastExecuted + 1 + message.SeqNum(round%3)},
				&message.Commit{View: 7, Seq: s.LastExecuted + 1},
				&message.PrePrepare{Seq: s.LastExecuted + 1, Digest: message.NullDigest},
				&message.PrePrepare{View: 3, Seq: s.LastExecuted + 1, Digest: message.NullDigest},
				&message.Fetch{Seq: s.Stable, Nodes: []message.NodeID{{Level: 2}, {Level: 255, Index: 1 << 63},
					{Index: 1 << 63}, {Level: 2, Index: 9}}}, &message.Fetch{Seq: s.Stable,
					Nodes: make([]message.NodeID, message.MaxFetch)},
				&message.Data{Seq: s.Stable, Tag: 1, Items: []message.Item{{Bytes: make([]byte, 4096)}}},
				&message.Decided{Seq: s.LastExecuted + 1, Digest: message.Digest{9}},
				&message.FetchBatch{Digests: []message.Digest{{}, message.NullDigest}},
				&message.BatchBody{PrePrepare: message.PrePrepare{Digest: message.NullDigest}},
				&message.Forward{Client: message.ClientID(liar.Uint64()), Timestamp: largest},
				&message.ViewChange{View: largest, From: 3},
				&message.ViewChange{View: 1, From: 0},
				&message.ViewChangeAck{View: 1, Of: 0},
				&message.NewView{View: 3}, &message.NewView{View: largest},
				&message.Reply{},
			} {
				r.say(i, m)
			}
			r.ask(i, unknown)
			r.ask(i, foreign)
			junk := make([]byte, liar.IntN(300))
			for k := range junk {
				junk[k] = byte(liar.Uint32())
			}
			r.raw(i, junk)
			r.raw(i, append([]byte{byte(liar.IntN(20))}, junk...))
		}
	}
	c.works(client)
	if n := refusals(c.replicas[0], "unexpected on this connection"); n == 0 {
		t.Error("nothing was refused as unexpected")
	}
	if n := refusals(c.replicas[0], "malformed"); n == 0 {
		t.Error("nothing was refused as malformed")
	}
}

// A replica that floods the others has its share of their time, and no more; a client likewise that
// asks for one answer again and again.
func TestFloods(t *testing.T) {
	pbft.BoundFloods(t, 50, 1) // what the slowest machine brings is a flood
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	for i := range 3 {
		c.start(i)
	}
	key := c.enrolled(c.client(c.admin), "")
	client := c.client(c.enrolled(c.client(c.admin), ""))
	replica, greedy := asReplica(t, c, 3), asClient(t, c, key)
	replica.ready(c)
	greedy.ready(c)
	eventually(t, "a flood of STATUSes is cut", func() bool {
		for range 1000 {
			replica.say(0, &message.Status{Active: true})
		}
		return refusals(c.replicas[0], "replica says too much") > 0
	})
	q := greedy.request(&message.Request{Timestamp: 1 << 40, Replier: message.AnyReplier, Op: []byte("i")})
	eventually(t, "a request is answered", func() bool {
		greedy.ask(0, q)
		return greedy.count(message.TypeReply) > 0
	})
	eventually(t, "a flood of the same request is cut", func() bool {
		for range 100 {
			greedy.ask(0, q)
		}
		return refusals(c.replicas[0], "asked again too often") > 0
	})
	long := greedy.request(&message.Request{Timestamp: 1<<40 + 1, Op: make([]byte, message.ShortOperation+1)})
	eventually(t, "a flood of requests without their operations is cut", func() bool {
		for range 100 {
			greedy.ask(1, long.Stub())
		}
		return refusals(c.replicas[1], "asked again too often") > 0
	})
	wrong := *q
	wrong.Auth.Tags = make([]byte, len(q.Auth.Tags))
	eventually(t, "requests that do not open are refused", func() bool {
		for range 100 {
			greedy.ask(0, &wrong)
		}
		return refusals(c.replicas[0], "bad MAC") > 0
	})
	c.works(client)
}

// A client may show different operations under one timestamp, good MACs to some, slots
// and times out of range. The group goes on for others, and all replicas stay equal.
func TestFaultyClient(t *testing.T) {
	c := startCluster(t, smallLimits())
	admin := c.client(c.admin)
	client := c.client(c.enrolled(admin, ""))
	r := asClient(t, c, c.enrolled(admin, ""))
	r.ready(c)
	time := message.Timestamp(1 << 40)
	ask := func(i int, q message.Request, good ...int) {
		q.Replier = message.AnyReplier
		r.ask(i, r.request(&q, good...))
	}
	for round := range 8 {
		time++
		for i := range c.replicas {
			ask(i, message.Request{Timestamp: time, Op: fmt.Appendf(nil, "i%d", i)})           // four, one timestamp
			ask(i, message.Request{Timestamp: time + 1, Slot: 1, Op: []byte("i")}, round%4)    // good for one
			ask(i, message.Request{Timestamp: time + 1, Slot: 2, Op: []byte("i")}, 1, 2)       // for two
			ask(i, message.Request{Timestamp: time + 1, Slot: 3, Op: []byte("i")}, 0, 3, 1)    // for three
			ask(i, message.Request{Timestamp: time, Slot: 9999, Op: []byte("i")})              // no such slot
			ask(i, message.Request{Timestamp: 1<<64 - 1, Slot: 4, Op: []byte("i")})            // no time after it
			ask(i, message.Request{Timestamp: 0, Slot: 5, Op: []byte("i")})                    // none before it
			ask(i, message.Request{Timestamp: time, Slot: 6, Op: []byte("i"), ReadOnly: true}) // it writes
			r.say(i, &message.Commit{Seq: 1})
		}
	}
	// Its own odd requests may count, so only the differences of the honest client are its own.
	for range 12 {
		invoke(t, client, "i", false)
	}
	c.agree(c.replicas[0].Status().Stable, func() { invoke(t, client, "i", false) })
	for i, x := range c.replicas {
		if x.Err() != nil {
			t.Fatalf("replica %d has stopped: %v", i, x.Err())
		}
	}
}

// An attacker repeats requests that the administrator signed, unchanged and changed. To a
// replica the rogue is the administrator too. Two processes that use one key at once are
// both refused, so the administrator and the rogue take turns, each time as a new process.
func TestAdministratorIsNotReplayed(t *testing.T) {
	c := startCluster(t, smallLimits())
	public, _, _ := ed25519.GenerateKey(nil)
	q := &message.Request{Client: message.Administrator, Slot: 7, Timestamp: 1 << 60, Replier: message.AnyReplier,
		Op: append([]byte{1}, public...), Signature: make([]byte, message.SignatureSize)}
	d := message.AdministratorDigest(c.g.Digest(), q)
	copy(q.Signature, ed25519.Sign(c.admin, d[:]))
	first := asAdministrator(t, c)
	first.ask(0, q)
	eventually(t, "the administrator's request is executed", func() bool { return first.count(message.TypeReply) > 0 })
	first.leave()

	admin := c.client(c.admin)
	if err := admin.Revoke(deadline(t), public); err != nil {
		t.Fatal(err)
	}
	_ = admin.Close()

	again := asAdministrator(t, c)
	other := *q
	other.Timestamp++
	other.Altered()
	for i := range c.replicas {
		again.ask(i, q)
		again.ask(i, &other)
	}
	eventually(t, "a changed request is refused", func() bool {
		return refusals(c.replicas[0], "bad MAC") > 0 && refusals(c.replicas[3], "bad MAC") > 0
	})
	again.leave()

	admin = c.client(c.admin)
	for range 3 {
		invoke(t, admin, "i", false)
	}
	all, err := admin.Enrolments(deadline(t))
	if err != nil || len(all) != 1 || !all[0].Revoked {
		t.Fatalf("a replayed request has enrolled again whom the administrator revoked: %v, %v", all, err)
	}
}

// Strangers, without a key or with one that nobody enrolled, are refused and counted, and
// take no memory.
func TestStrangers(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	c.works(client)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	junk := rand.New(rand.NewPCG(2, 2))
	for n := range 60 {
		conn, err := net.Dial("tcp", c.g.Members[n%4].Address)
		if err != nil {
			t.Fatal(err)
		}
		stop := patience.AfterFunc(patience.Usual, func() { _ = conn.Close() })
		var b []byte
		kind := n / 4 % 6
		if kind != 5 {
			greet(t, conn)
		}
		switch kind {
		case 5: // no greeting
			b = []byte{22, 3, 1, 0}
		case 0: // a frame longer than anything
			b = binary.LittleEndian.AppendUint32(nil, 1<<31)
		case 1: // longer than a stranger's may be
			b = append(binary.LittleEndian.AppendUint32(nil, 8000), make([]byte, 8000)...)
		case 2: // a NEW-KEY of nothing
			b = append(binary.LittleEndian.AppendUint32(nil, 300), byte(message.TypeNewKey))
			b = append(b, make([]byte, 299)...)
		case 3: // a vote without a NEW-KEY
			m := &message.Prepare{Seq: 1}
			b = m.AppendBody([]byte{byte(message.TypePrepare)})
			b = append(binary.LittleEndian.AppendUint32(nil, uint32(len(b))), b...)
		case 4:
			b = make([]byte, 2000)
			for i := range b {
				b[i] = byte(junk.Uint32())
			}
		}
		_, _ = conn.Write(b)
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}
		// Until it is thrown out, which may be by a reset.
		if _, err := io.Copy(io.Discard, conn); errors.Is(err, net.ErrClosed) {
			t.Fatalf("replica %d does not throw a stranger of kind %d out", n%4, kind)
		}
		stop()
		_ = conn.Close()
	}
	_, stranger, _ := ed25519.GenerateKey(nil)
	r := asClient(t, c, stranger)
	r.ready(c)
	for i := range 100 {
		q := &message.Request{Timestamp: message.Timestamp(i + 1), Replier: message.AnyReplier,
			ReadOnly: i%2 == 0, Op: []byte("i")}
		r.ask(i%4, r.request(q))
	}
	eventually(t, "the stranger is told that it is one", func() bool { return r.count(message.TypeReply) >= 50 })
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 16<<20 {
		t.Errorf("strangers took %d bytes", grown)
	}
	c.works(client)
	for _, x := range c.replicas {
		if refusals(x, "unexpected on this connection") == 0 {
			t.Errorf("replica %d counted no vote without a key", x.Status().Replica)
		}
	}
}

// greet sends a hello of a principal that the group does not know.
func greet(t testing.TB, conn net.Conn) {
	t.Helper()
	if _, err := io.ReadFull(conn, make([]byte, transport.ChallengeSize)); err != nil {
		t.Fatal(err)
	}
	var hello transport.Hello
	hello[0], hello[9] = message.VersionMajor, 77
	if _, err := conn.Write(hello[:]); err != nil {
		t.Fatal(err)
	}
}

// A client that takes none of its answers has one queue at a replica to fill, however
// many connections it makes.
func TestClientThatTakesNoAnswers(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	deaf := asClient(t, c, key)
	hears := make(chan struct{})
	deaf.mu.Lock()
	deaf.deaf = hears
	deaf.mu.Unlock()
	t.Cleanup(func() { close(hears) }) // before its links are closed, which wait for their readers
	deaf.ready(c)
	// A replica gives up a peer that takes nothing for 15 s. On a slow machine the
	// connection may end meanwhile, and the next one has an empty queue, so a round
	// counts only if one connection lived through it.
	var conn *transport.Conn
	eventually(t, "one connection's queue is filled, and asked over", func() bool {
		conn = deaf.links[0].Conn()
		if !deaf.fillQueue(c.replicas[0], conn, 1) { // 4,000 bytes each
			return false
		}
		answered := c.replicas[0].Status().Queries
		if !deaf.fillQueue(c.replicas[0], conn, 1000) {
			return false
		}
		if more := c.replicas[0].Status().Queries - answered; more > 500 {
			t.Errorf("%d reads were executed for whom there was no room to answer", more)
		}
		return true
	})
	again := asClient(t, c, key)
	again.ready(c)
	eventually(t, "its first connection is closed", func() bool {
		again.ask(0, again.request(&message.Request{Timestamp: 1 << 41, ReadOnly: true,
			Replier: message.AnyReplier, Op: []byte("r")}))
		sent := conn.Send([]byte{0})
		conn.Flush()
		return !sent
	})
}

// fillQueue asks replica 0 over a connection until so many more of its answers have found
// no room in the queue. It is not ok if the connection ends before.
func (r *rogue) fillQueue(x *pbft.Replica, conn *transport.Conn, refused uint64) (ok bool) {
	q := r.request(&message.Request{Timestamp: 1 << 40, ReadOnly: true, Replier: message.AnyReplier, Op: []byte("R")})
	late := patience.After(patience.Usual)
	before := refusals(x, "queue to peer full")
	for refusals(x, "queue to peer full") < before+refused {
		select {
		case <-late:
			r.t.Fatal("never: the queue to a client that takes nothing is full")
		default:
		}
		if r.links[0].Conn() != conn || conn == nil {
			return false
		}
		for range 100 {
			r.ask(0, q)
		}
	}
	return r.links[0].Conn() == conn
}

// A long ordered result comes whole from the replica that the client names for it, and
// proved from those that it names as provers. All replicas prove a read, and a result
// that is asked for again.
func TestWhoProves(t *testing.T) {
	c := startCluster(t, smallLimits())
	r := asClient(t, c, c.enrolled(c.client(c.admin), ""))
	r.ready(c)
	r.known(c)
	for k, x := range []struct {
		q      message.Request
		full   uint32
		proved uint32
	}{
		{message.Request{Op: []byte("l"), Replier: 1, Provers: 1 << 2}, 1 << 1, 1<<1 | 1<<2},
		{message.Request{Op: []byte("l"), Replier: 3}, 1 << 3, 1 << 3},
		{message.Request{Op: []byte("l"), Replier: 0, Provers: 15}, 1 << 0, 15},
		{message.Request{Op: []byte("l"), Replier: message.AnyReplier}, 15, 15},
		{message.Request{Op: []byte("R"), Replier: 2, ReadOnly: true}, 1 << 2, 15},
	} {
		x.q.Timestamp = message.Timestamp(1<<40 + k)
		q := r.request(&x.q)
		r.ask(0, q)
		for i := 1; i < len(c.replicas) && q.ReadOnly; i++ {
			r.ask(i, q)
		}
		var full, proved uint32
		eventually(t, "all have answered", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			full, proved = 0, 0
			for i := range c.replicas {
				m := r.last[i]
				if m == nil || m.Answers[0].Timestamp != q.Timestamp {
					return false
				}
				if a := &m.Answers[0]; a.Full {
					full |= 1 << i
				}
				if a := &m.Answers[0]; a.Proved {
					proved |= 1 << i
				}
			}
			return true
		})
		if full != x.full || proved != x.proved {
			t.Errorf("request %d: %04b answer in full, %04b prove, want %04b and %04b",
				k, full, proved, x.full, x.proved)
		}
	}
}

// slowReader is a tally whose reads are long and take their time.
type slowReader struct {
	tally
	reads *atomic.Int64
	begun chan<- struct{} // told of reads, as long as a receiver waits
}

func (s slowReader) Query(op pbft.Operation) ([]byte, bool) {
	if string(op.Body) != "long" {
		return s.tally.Query(op)
	}
	s.reads.Add(1)
	select {
	case s.begun <- struct{}{}:
	default:
	}
	time.Sleep(3 * time.Millisecond) // not a limit: it stands for work
	return make([]byte, 1<<20), true
}

// A client that asks for much at once does not keep the others, and our votes, waiting
// until it has all of it.
func TestLongReadsGiveWay(t *testing.T) {
	c := newCluster(t, pbft.DefaultLimits(), pbft.TransportPlain)
	var reads atomic.Int64
	begun := make(chan struct{})
	c.service = func(i int) pbft.Service {
		if i > 0 {
			return newTally(c.g)
		}
		return slowReader{newTally(c.g), &reads, begun}
	}
	for i := range c.replicas {
		c.start(i)
	}
	r := asClient(t, c, c.enrolled(c.client(c.admin), ""))
	r.ready(c)
	c.works(c.client(c.enrolled(c.client(c.admin), "")))
	const each, before = 20, 8
	at := message.Timestamp(1 << 40)
	// On a busy machine many reads may pass before this goroutine asks for its turn at
	// all, so it may need more than one try.
	eventually(t, "somebody else has a turn before 8 of 20 long reads are answered", func() bool {
		had := reads.Load()
		conn := r.links[0].Conn()
		for range each {
			at++
			q := r.request(&message.Request{Timestamp: at, ReadOnly: true,
				Replier: message.AnyReplier, Op: []byte("long")})
			conn.Send(q.AppendBody([]byte{byte(message.TypeRequest)}))
		}
		conn.Flush() // so that one read brings them all
		<-begun
		first := reads.Load()
		c.replicas[0].Status()
		last := reads.Load()
		eventually(t, "all are answered", func() bool { return reads.Load() == had+each })
		return last-first <= before && last < had+each // a replica that gives no turn answers all of them first
	})
}

// digesting is a tally whose checkpoints can be had when the test says so.
type digesting struct {
	tally
	*pages
}

type pages struct {
	*pbfttest.Memory
	digested atomic.Bool
	asked    atomic.Int64
}

func (s digesting) State() pbft.State { return s.pages }

func (p *pages) Children(n pbft.SeqNum, id pbft.NodeID) ([]pbft.Digest, error) {
	if p.asked.Add(1); !p.digested.Load() {
		return nil, pbft.ErrNotYet
	}
	return p.Memory.Children(n, id)
}

func (p *pages) PageAt(n pbft.SeqNum, page pbft.PageNum) ([]byte, error) {
	if p.asked.Add(1); !p.digested.Load() {
		return nil, pbft.ErrNotYet
	}
	return p.Memory.PageAt(n, page)
}

// A FETCH of a checkpoint that is being digested waits for the digests, and delays no
// other message. The number of FETCHes that wait is bounded.
func TestFetchWaitsForDigests(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	held := newTally(c.g)
	state := &pages{Memory: held.Memory}
	c.service = func(i int) pbft.Service {
		if i > 0 {
			return newTally(c.g)
		}
		return digesting{held, state}
	}
	for i := range 3 {
		c.start(i)
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	c.works(client)
	r := asReplica(t, c, 3)
	r.ready(c)
	var stable pbft.SeqNum
	eventually(t, "all 13 batches have committed and the last checkpoint is stable", func() bool {
		s := c.replicas[0].Status()
		stable = s.Stable
		return s.LastExecuted >= 13 && s.Stable == s.LastExecuted/4*4
	})
	told := r.count(message.TypeStatus)
	eventually(t, "no client was served of late, so that a replica may fetch more at once", func() bool {
		return r.count(message.TypeStatus) >= told+3
	})
	for tag := range uint32(12) {
		r.say(0, &message.Fetch{Seq: stable, Tag: tag, Nodes: []message.NodeID{{Index: 1}}})
	}
	eventually(t, "what is above the bound is answered", func() bool { return r.count(message.TypeData) == 4 })
	c.works(client)
	if asked, data := state.asked.Load(), r.count(message.TypeData); asked == 0 || data != 4 {
		t.Fatalf("asked %d times, %d answers", asked, data)
	}
	state.digested.Store(true)
	eventually(t, "the others are answered", func() bool { return r.count(message.TypeData) == 12 })
}

// Strangers that take all the places there are for connections, and come again as soon as
// they are given up, lock out neither a client nor a replica.
func TestStrangersLockOutNobody(t *testing.T) {
	c := startCluster(t, smallLimits())
	key := c.enrolled(c.client(c.admin), "")
	c.stop(3)
	crowd(t, 150, c.g.Members[0].Address, c.g.Members[1].Address)
	c.works(c.client(key))
	c.start(3)
	eventually(t, "the replica is back", func() bool {
		return c.replicas[0].Status().Peers[2].Connected && c.replicas[1].Status().Peers[2].Connected
	})
}

// crowd has so many strangers hold a connection to each address, and connect again when
// they are given up, until the test ends. It returns when each has held one.
func crowd(t *testing.T, strangers int, addresses ...string) {
	t.Helper()
	var wg, first sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	t.Cleanup(func() { stop(); wg.Wait() })
	for _, address := range addresses {
		for range strangers {
			first.Add(1)
			wg.Go(func() {
				var once sync.Once
				defer once.Do(first.Done)
				for ctx.Err() == nil {
					conn, err := net.Dial("tcp", address)
					if err != nil {
						continue // given up already, for one that came later
					}
					once.Do(first.Done)
					unhook := context.AfterFunc(ctx, func() { _ = conn.Close() })
					_, _ = io.Copy(io.Discard, conn) // until the other end, or the test, ends it
					unhook()
					_ = conn.Close()
				}
			})
		}
	}
	first.Wait()
}

// A client's requests are not executed again when its key is enrolled once more, though
// another key had its record meanwhile and its process still lives. A revoked client is
// forgotten, and not only refused.
func TestRevokedAndEnrolledAgain(t *testing.T) {
	limits := smallLimits()
	limits.Clients = 2
	c := startCluster(t, limits)
	admin := c.client(c.admin)
	client := c.client(c.enrolled(admin, ""))
	key := c.enrolled(admin, "")
	public := key.Public().(ed25519.PublicKey)
	r := asClient(t, c, key)
	r.ready(c)
	q := r.request(&message.Request{Timestamp: 1 << 40, Replier: message.AnyReplier, Op: []byte("i")})
	ask := func() {
		for i := range c.replicas {
			r.ask(i, q)
		}
	}
	ask()
	eventually(t, "it is executed", func() bool { return invoke(t, client, "r", true) == 1 })
	eventually(t, "all three clients are there", func() bool { return c.replicas[0].Status().Clients == 3 })
	revoke := func(key ed25519.PublicKey) {
		t.Helper()
		if err := admin.Revoke(deadline(t), key); err != nil {
			t.Fatal(err)
		}
	}
	revoke(public)
	eventually(t, "it is forgotten", func() bool { return c.replicas[0].Status().Clients == 2 })
	revoke(c.enrolled(admin, "").Public().(ed25519.PublicKey))
	if err := admin.Enrol(deadline(t), public, nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is known again", func() bool { return c.replicas[0].Status().Clients == 3 })
	replies := r.count(message.TypeReply)
	ask()
	eventually(t, "it is told", func() bool { return r.count(message.TypeReply) >= replies+3 })
	if n := invoke(t, client, "r", true); n != 1 {
		t.Fatalf("the counter is %d: executed again", n)
	}
	c.works(client)
}

// One replica cannot have the others check signatures without end.
func TestSignaturesAreBounded(t *testing.T) {
	pbft.BoundSignatures(t, 50)
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	for i := range 3 {
		c.start(i)
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	r := asReplica(t, c, 3)
	r.ready(c)
	good := &message.Request{Client: message.Administrator, Timestamp: 1,
		Replier: message.AnyReplier, Op: []byte{0, 'i'}, Signature: make([]byte, message.SignatureSize)}
	d := message.AdministratorDigest(c.g.Digest(), good)
	good.Signature = ed25519.Sign(c.admin, d[:])
	before := refusals(c.replicas[0], "bad MAC")
	for range 500 {
		r.ask(0, good)
	}
	eventually(t, "some are not checked", func() bool { return refusals(c.replicas[0], "bad MAC") > before })
	c.works(client)
}

// A peer that sends NEW-KEYs without end is thrown out, though each is right.
func TestNewKeyFlood(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	_, stranger, _ := ed25519.GenerateKey(nil)
	r := asClient(t, c, stranger)
	r.ready(c)
	eventually(t, "the flood is refused", func() bool {
		if conn := r.links[0].Conn(); conn != nil {
			r.sendKey(conn, 0)
		}
		return refusals(c.replicas[0], "bad NEW-KEY") > 0
	})
	c.works(client)
}

// A vote waits for its fence: a replica that cannot write it says nothing and stops.
func TestNoVoteWithoutFence(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	dir := c.dirs[1]
	victim := c.start(1)
	primary := asReplica(t, c, 0)
	primary.ready(c)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	primary.say(1, &message.PrePrepare{Seq: 1, Digest: message.NullDigest})
	<-victim.Done()
	if victim.Err() == nil {
		t.Fatal("it stopped without a reason")
	}
	if n := primary.count(message.TypePrepare); n > 0 {
		t.Fatalf("%d votes left before their fence was written", n)
	}
}

// A primary may propose a client's read-only request. The client is told that the
// operation writes, and has it ordered under another timestamp: both would run. So no
// backup votes for the first.
func TestPrimaryOrdersAReadOnlyRequest(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain)
	victim := c.start(1)
	primary := asReplica(t, c, 0)
	primary.ready(c)
	q := &message.Request{Client: 77, Timestamp: 1, ReadOnly: true, Replier: message.AnyReplier, Op: []byte("i")}
	b := message.Batch{Requests: []*message.Request{q}}
	primary.say(1, &message.PrePrepare{Seq: 1, Digest: b.Digest(), Batch: b})
	eventually(t, "the proposal is refused", func() bool { return refusals(victim, "malformed") > 0 })
	if n := primary.count(message.TypePrepare); n > 0 {
		t.Fatal("it votes for a read-only request")
	}
}

// A primary proposes an executed request again, to two backups, and never lets the batch
// commit. They do not run it twice, and answer its client as before: nobody waits for
// that batch, and the view lasts.
func TestPrimaryProposesAgain(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain, pbft.DurabilityReplicated)
	for i := 1; i < 4; i++ {
		c.start(i)
	}
	primary := asReplica(t, c, 0)
	primary.ready(c)
	n := message.SeqNum(0)
	propose := func(q *message.Request, to ...int) {
		n++
		b := message.Batch{Requests: []*message.Request{q}}
		for _, i := range to {
			primary.say(i, &message.PrePrepare{Seq: n, Digest: b.Digest(), Batch: b})
		}
	}
	committed := func() bool {
		return !slices.ContainsFunc(running(c), func(i int) bool { return c.replicas[i].Status().LastExecuted < n })
	}

	public, key, _ := ed25519.GenerateKey(nil)
	enrol := &message.Request{Client: message.Administrator, Timestamp: 1, Replier: message.AnyReplier,
		Op: append([]byte{1}, public...), Signature: make([]byte, message.SignatureSize)}
	d := message.AdministratorDigest(c.g.Digest(), enrol)
	copy(enrol.Signature, ed25519.Sign(c.admin, d[:]))
	propose(enrol, running(c)...)
	eventually(t, "the client is enrolled", committed)
	early := asClient(t, c, key)
	early.ready(c)
	q := early.request(&message.Request{Timestamp: 1, Replier: message.AnyReplier, Op: []byte("i")})
	propose(q, running(c)...)
	eventually(t, "its request has committed", committed)
	propose(q, 1, 2)
	eventually(t, "the request is in a batch that is executed tentatively", func() bool {
		return c.replicas[1].Status().Executed == uint64(n) && c.replicas[2].Status().Executed == uint64(n)
	})

	late := c.client(key)
	sum, err := resume(t, late, sent{t: 1}, "i")
	if err != nil || binary.BigEndian.Uint64(sum) != 1 {
		t.Fatalf("the result is %x, %v, want 1", sum, err)
	}
	for _, i := range running(c) {
		if s := c.replicas[i].Status(); s.View != 0 || !s.Active || s.LastExecuted != n-1 {
			t.Errorf("replica %d is in view %d, active: %t, and has executed %d; want view 0 and %d",
				i, s.View, s.Active, s.LastExecuted, n-1)
		}
	}
	if got := invoke(t, late, "r", true); got != 1 {
		t.Errorf("the counter is %d, want 1", got)
	}
}

// A man in the middle, who ends TLS with a certificate of his own on both sides, sees
// NEW-KEYs and nothing else.
func TestManInTheMiddle(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportTLS)
	for i := range c.replicas {
		c.start(i)
	}
	key := c.enrolled(c.client(c.admin), "")
	m := newMiddle(t, c.g.Members[1].Address)
	parts := *c.g
	parts.Members = append([]pbft.Member(nil), c.g.Members...)
	parts.Members[1].Address = m.l.Addr().String()
	g, err := pbft.CheckGroup(parts)
	if err != nil {
		t.Fatal(err)
	}
	client := c.client(key, func(cfg *pbft.ClientConfig) { cfg.Group = g })
	eventually(t, "the client talks to the man in the middle", func() bool {
		invoke(t, client, "i", false)
		invoke(t, client, "r", true)
		return m.frames() >= 2
	})
	m.mu.Lock()
	defer m.mu.Unlock()
	for kind, n := range m.seen {
		if kind != message.TypeNewKey {
			t.Errorf("he saw %d of %v", n, kind)
		}
	}
}

// A middle forwards TLS connections and reads along.
type middle struct {
	l    net.Listener
	mu   sync.Mutex
	seen map[message.Type]int
}

func newMiddle(t testing.TB, to string) *middle {
	t.Helper()
	cert, _, err := transport.NewHostTLS()
	if err != nil {
		t.Fatal(err)
	}
	config := transport.HostTLS(func() *tls.Certificate { return &cert })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &middle{l: l, seen: map[message.Type]int{}}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			far, err := net.Dial("tcp", to)
			if err != nil || !passGreeting(near, far) {
				_ = near.Close()
				continue
			}
			in, out := tls.Server(near, config), tls.Client(far, config)
			all.Go(func() { m.copy(in, out) })
			all.Go(func() { m.copy(out, in) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); all.Wait() })
	return m
}

// passGreeting forwards the bytes before TLS, because the man in the middle cannot make a
// hello of his own.
func passGreeting(near, far net.Conn) bool {
	_, err := io.CopyN(near, far, transport.ChallengeSize)
	if err == nil {
		_, err = io.CopyN(far, near, transport.HelloSize)
	}
	return err == nil
}

func (m *middle) copy(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	for {
		var head [4]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return
		}
		frame := make([]byte, binary.LittleEndian.Uint32(head[:]))
		if _, err := io.ReadFull(from, frame); err != nil || len(frame) == 0 {
			return
		}
		m.mu.Lock()
		m.seen[message.Type(frame[0])]++
		m.mu.Unlock()
		if _, err := to.Write(append(head[:], frame...)); err != nil {
			return
		}
	}
}

func (m *middle) frames() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range m.seen {
		n += k
	}
	return n
}

// Replicas can be closed while others work, in any order and with calls outstanding.
func TestCloseUnderLoad(t *testing.T) {
	c := startCluster(t, smallLimits())
	client := c.client(c.enrolled(c.client(c.admin), ""))
	var ended sync.WaitGroup
	var again func([]byte, error)
	again = func(_ []byte, err error) {
		if err != nil || client.Start(pbft.Call{Body: []byte("i"), Done: again}) != nil {
			ended.Done()
		}
	}
	for range 20 {
		ended.Add(1)
		again(nil, nil)
	}
	eventually(t, "some work is done", func() bool { return c.replicas[0].Status().Executed > 100 })
	for _, i := range []int{2, 0, 3, 1} {
		c.stop(i)
	}
	if err := client.Close(); err != nil {
		t.Fatal(err)
	}
	ended.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := client.Invoke(ctx, nil, false); !errors.Is(err, pbft.ErrClosed) {
		t.Fatalf("after Close: %v", err)
	}
}
