// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// outbound handles our own link to a peer: we speak on it and the peer does not, for it
// has a link of its own to us.
type outbound struct {
	r *Replica
	p *peerEnd
}

// Opened implements transport.Handler.
func (o *outbound) Opened(c *transport.Conn) {
	if o.p.session.Ready() && !o.r.end.Vouched(c, o.p.session) {
		// Either the host has restarted and its NEW-KEY is under way, or an intruder sits
		// in between. Until we know, only our NEW-KEY leaves, in which nothing is secret.
		o.r.end.Log.Debug("link waits for the peer's NEW-KEY", "peer", o.p.session.Peer.Replica)
	}
	o.p.opened.Store(c)
	o.r.end.SendKey(c, o.p.session, "")
}

// Frames implements transport.Handler.
func (o *outbound) Frames(_ *transport.Conn, frames [][]byte) {
	o.r.end.Edge.Unexpected.Add(uint64(len(frames)))
}

// Closed implements transport.Handler.
func (o *outbound) Closed(_ *transport.Conn, err error) {
	o.r.end.Log.Debug("link to replica down", "peer", o.p.session.Peer.Replica, "err", err)
	if o.r.mismatches.plainOnly(err) {
		o.mismatch(TransportPlain, err)
	}
}

// HandshakeFailed implements transport.HandshakeHandler: the peer that we dial does not
// speak TLS with us.
func (o *outbound) HandshakeFailed(_ *transport.Conn, err error) { o.mismatch(TransportTLS, err) }

func (o *outbound) mismatch(ours Transport, err error) {
	o.r.mu.Lock()
	defer o.r.mu.Unlock()
	if !o.r.ending.begun {
		o.r.mismatches.peer(o.p, ours, err)
	}
}

// inbound handles the connections that peers made to this replica, and steps the core
// with their messages. The replica answers other replicas on its own links, and clients
// on the same connection. inbound has no state beside the Replica's.
type inbound struct{ r *Replica }

// admit implements transport.Options.Admit.
func (in inbound) admit(c *transport.Conn, challenge *transport.Challenge, hello *transport.Hello) bool {
	v := in.r.receiver.gate.Admit(c, challenge[:], (*[auth.HelloSize]byte)(hello))
	if v == nil {
		return false
	}
	c.SetUser(v)
	return true
}

// Opened implements transport.Handler.
func (in inbound) Opened(*transport.Conn) {}

// HandshakeFailed implements transport.HandshakeHandler: somebody who connected to us
// does not speak TLS.
func (in inbound) HandshakeFailed(c *transport.Conn, err error) {
	in.r.mismatches.stranger(c, TransportTLS, err)
}

// Closed implements transport.Handler.
func (in inbound) Closed(c *transport.Conn, err error) {
	r := in.r
	r.mu.Lock()
	delete(r.clients.strangers, c) // first of all: the connection may have had another sender before
	r.mu.Unlock()
	who, ok := c.User().(*wire.Remote)
	if !ok {
		if r.mismatches.plainOnly(err) {
			r.mismatches.stranger(c, TransportPlain, err)
		}
		return
	}
	if peer := who.Session.Peer; peer.IsReplica() {
		r.mu.Lock()
		if p := r.peers[peer.Replica]; p.inbound == c {
			if p.inbound = nil; !r.ending.begun {
				p.down(r.end.Log, err)
			}
		}
		r.mu.Unlock()
		return
	}
	who.Caller.Closed(c)
	r.clients.closed(c, who.Session.Peer.Client)
}

// Frames implements transport.Handler. MACs are checked before the lock is taken, and all
// messages of one read share one taking of the lock.
func (in inbound) Frames(c *transport.Conn, frames [][]byte) {
	x := &in.r.receiver
	if !x.affords(c, len(frames)) {
		return
	}
	var messages [64]message.Message
	batch, epoch := messages[:0], x.epochOf(c)
	deliver := func() {
		in.deliver(c, batch, epoch)
		batch, epoch = batch[:0], x.epochOf(c)
	}
	for _, frame := range frames {
		if len(frame) > 0 && message.Type(frame[0]) == message.TypeNewKey {
			deliver()
			if !in.onNewKey(c, frame) {
				c.Close()
				return
			}
			epoch = x.epochOf(c) // the connection may have had no sender before
			continue
		}
		who, _ := c.User().(*wire.Remote)
		if who == nil {
			x.end.Edge.Unexpected.Add(1)
			c.Close() // a NEW-KEY comes before anything else
			return
		}
		m := x.receive(c, who, frame)
		if m == nil {
			continue
		}
		batch = append(batch, m)
		switch m.(type) {
		case *message.Fetch, *message.Data:
			deliver() // answers to copy: others have their turn before the next
		}
		if _, copied := m.(*message.Data); copied {
			transport.Recycle(frame)
		}
	}
	deliver()
	if who, _ := c.User().(*wire.Remote); who != nil {
		who.Decoder.Reset()
	}
}

// deliver steps the core with messages of one connection, which were opened in an epoch of our
// keys. If that epoch is over the messages do not count, and come again under the new keys.
func (in inbound) deliver(c *transport.Conn, batch []message.Message, epoch uint64) {
	if len(batch) == 0 {
		return
	}
	r := in.r
	who := c.User().(*wire.Remote)
	conn := c
	if who.Session.Peer.IsReplica() {
		conn = nil
	} else if !who.Registered || !r.clients.answeredOn(c, who.Session) {
		who.Registered = in.register(c, who.Session)
	}
	var reads readTime
	read := r.cfg.Trace.Now()
	r.enter()
	r.cfg.Trace.Begin(read)
	for _, m := range batch {
		if r.ending.begun || r.disk.aside() || r.end.Ring.EpochOf(who.Session) != epoch {
			break
		}
		switch m := m.(type) {
		case *message.Request:
			if r.cfg.Trace.Request(m); m.ReadOnly {
				reads.note(r.core, m)
			}
			if in.request(conn, who.Session, m); m.ReadOnly && in.answersMuch() {
				in.pauseFor(&reads)
				r.enter()
			}
		case *message.QueryStable:
			if conn == nil && r.core != nil {
				r.core.Step(m)
			} else {
				in.replyStable(c, who.Session, m)
			}
		case *message.Fetch:
			if conn != nil {
				r.pages.lend(c, who.Session, m, r.transfer.session != nil)
			} else {
				in.step(m)
			}
		default:
			in.step(m)
		}
	}
	if reads == (readTime{}) {
		r.leaveSynced()
	} else {
		in.pauseFor(&reads)
	}
}

// pauseFor is Replica.leave for a goroutine that answered reads. If the reads were long,
// and others are served, it returns after a pause.
func (in inbound) pauseFor(t *readTime) {
	rest := t.contended(in.r.core)
	if in.r.leave(); rest {
		in.r.clients.rest(t, in.r.ending.stop)
	}
	*t = readTime{}
}

// onNewKey takes in a NEW-KEY; false closes the connection.
func (in inbound) onNewKey(c *transport.Conn, frame []byte) bool {
	r := in.r
	k := r.receiver.newKey(c, frame)
	if k == nil {
		return false
	}
	session := k.who.Session
	if session.Peer.IsReplica() {
		c.OneWay() // we speak to the peer on our own link
		in.peerKey(c, session.Peer.Replica, k)
		return true
	}
	rival := ""
	if k.who.Registered = in.register(c, session); k.who.Registered {
		rival = r.receiver.announced(c, k.who)
		if session.Lives() != k.lives && r.core != nil {
			r.enter()
			r.core.ClientKeysChanged(session.Peer.Client)
			r.leave()
		}
	}
	if k.answer || !k.known || rival != "" {
		r.end.SendKey(c, session, rival)
	}
	return true
}

// register is clients.register for a caller that does not hold the lock.
func (in inbound) register(c *transport.Conn, s *auth.Session) bool {
	in.r.mu.Lock()
	defer in.r.mu.Unlock()
	return in.r.clients.register(c, s)
}

// peerKey runs after another replica's NEW-KEY: it sends our NEW-KEY in answer on our own
// link, and the messages that the other replica may have missed.
func (in inbound) peerKey(c *transport.Conn, i ReplicaID, k *keyed) {
	r, p := in.r, in.r.peers[i]
	if k.answer {
		// If the link is just coming up, its NEW-KEY was made before this one was
		// accepted or after: with the connection noted before that, none is missed.
		if conn := p.opened.Load(); conn != nil {
			r.end.SendKey(conn, p.session, "")
		}
	}
	p.link.Hurry()
	r.enter()
	p.up(r.end.Log, c)
	switch life := p.session.Lives(); {
	case !k.changed || r.core == nil:
	case life != p.life:
		p.life = life
		r.core.KeysChanged(i)
	default:
		r.out.sparing.Refreshed()
		r.core.KeysRefreshed(i)
	}
	r.leave()
}

// replyStable tells a client our stable checkpoint, and where its slots stand.
func (in inbound) replyStable(c *transport.Conn, s *auth.Session, q *message.QueryStable) {
	r := in.r
	m := &message.ReplyStable{Nonce: q.Nonce, Latest: r.exec.Ledger().Latest(s.Peer.Client)}
	if r.core != nil {
		stable := r.core.Stable()
		m.Seq, m.Digest = stable.Seq, stable.Digest
		m.View = in.viewFor(s)
	}
	r.out.answer(c, s, m)
}

// viewFor is our view, or, if that is higher, the view for which the replica whose key made this
// session has left: its VIEW-CHANGE may still be used, and it must not vote in a view below.
func (in inbound) viewFor(s *auth.Session) View {
	view, _ := in.r.core.View()
	for i, member := range in.r.group.Members {
		if s.Owner(member.Key) {
			return max(view, in.r.core.LeftFor(ReplicaID(i)))
		}
	}
	return view
}

// request takes in a client's authentic request. A request that the slot has executed
// already is answered here and does not reach the core.
func (in inbound) request(conn *transport.Conn, s *auth.Session, q *message.Request) {
	r := in.r
	if r.disk != nil && r.disk.installing {
		return // an answer from the fetched state is to be kept
	}
	if q.ReadOnly {
		if _, ok := r.exec.Ledger().Client(q.Client); !ok {
			if a := (executor.Answer{Outcome: message.NotEnrolled}); !r.replies.mute && !in.forgets(a) {
				st := in.ground()
				r.replies.answerOn(conn, s, q, &a, &st)
			}
			return
		}
		if !conn.Fits(r.group.Limits.Reply) {
			r.end.Edge.Dropped.Add(1) // the client takes no answers, or not this one
			return
		}
	} else if i, recovers := q.Client.Recoverer(); recovers && in.answerRecovery(i, q) {
		return
	} else if a, seen := in.seen(q); seen && conn != nil && !r.clients.mayBring(q.Client, r.group.Limits.Slots) {
		in.tooOften(conn)
		return
	} else if seen && (in.forgets(a) || in.repeat(conn, s, q, a)) {
		return
	}
	if q.IsStub() && (r.core == nil || !r.core.Fill(q)) {
		in.lacks(conn, s, q)
		return
	}
	if r.core == nil {
		in.serveAlone(q)
		return
	}
	if hold := r.out.liar.Hold(); hold != nil && !q.ReadOnly && hold(q, func() { in.held(q) }) {
		return
	}
	r.core.Step(q)
}

// lacks tells a client that the operation of its request is missing here.
func (in inbound) lacks(conn *transport.Conn, s *auth.Session, q *message.Request) {
	switch r := in.r; {
	case conn == nil || r.replies.mute:
	case !r.clients.mayBring(q.Client, r.group.Limits.Slots):
		in.tooOften(conn)
	default:
		a, st := executor.Answer{Outcome: message.Missing}, in.ground()
		r.replies.answerOn(conn, s, q, &a, &st)
	}
}

// tooOften does not read a client's connection for a while, because too many of its requests were
// of no use.
func (in inbound) tooOften(conn *transport.Conn) {
	in.r.end.Edge.Repeated.Add(1)
	conn.Hush(idleRest)
}

// held gives the core a request that an offender has held back.
func (in inbound) held(q *message.Request) {
	in.r.later(func() {
		if _, seen := in.seen(q); !seen {
			in.r.core.Step(q)
		}
	})
}

// seen is what the state says of a request, if the state is where the core is. The core
// may have come further with other messages of the same event. It may then know that a
// tentative execution is to be undone, and would take the answer for a committed one.
func (in inbound) seen(q *message.Request) (a executor.Answer, seen bool) {
	r := in.r
	if a, seen = r.exec.Seen(q); seen && r.core != nil {
		r.performAll(r.core.Due)
		a, seen = r.exec.Seen(q)
	}
	return a, seen
}

// repeat answers a request that the slot's last execution has overtaken. It returns false if that
// execution may still be undone: then the request waits for the commit, and counts as waiting.
func (in inbound) repeat(conn *transport.Conn, s *auth.Session, q *message.Request, a executor.Answer) (over bool) {
	r := in.r
	if !q.Authentic || r.replies.mute || r.ending.err != nil { // after an error the state stays behind the core
		return true
	}
	st, certain := in.ground(), true
	if r.core != nil {
		st, certain = r.core.Standing(q)
	}
	switch {
	case !certain:
	case conn != nil:
		r.replies.answerOn(conn, s, q, &a, &st)
	default:
		r.replies.answer(q, &a, &st)
	}
	return certain && !st.Tentative
}

// answersMuch answers the reads that were taken in, and reports whether that was enough
// work for one taking of the lock: a connection may bring many reads of a mebibyte each
// at once, and votes wait meanwhile.
func (in inbound) answersMuch() bool {
	r := in.r
	if r.core != nil {
		r.performAll(r.core.Due)
	}
	return r.replies.bytes > answeredBytes
}

// answeredBytes bounds the answers under one taking of the lock, apart from the last.
const answeredBytes = 256 << 10

// answerRecovery answers a recovery request that was executed before, and reports whether it was.
func (in inbound) answerRecovery(i ReplicaID, q *message.Request) bool {
	r := in.r
	if !q.Authentic || r.core == nil {
		return false
	}
	_, seen := in.seen(q)
	if seen {
		last := r.exec.Ledger().Recovery(i)
		r.core.AnswerRecovery(i, last.Seq, last.Timestamp)
	}
	return seen
}

// serveAlone executes a request as it comes: there is no group.
func (in inbound) serveAlone(q *message.Request) {
	r, st := in.r, in.ground()
	if q.ReadOnly {
		r.measured.queries++
		a := r.exec.Query(q)
		r.replies.answer(q, &a, &st)
		return
	}
	r.measured.executed++
	n := SeqNum(r.measured.executed)
	r.exec.Begin(n)
	a, _ := r.exec.Execute(q, choose(r.cfg.Service, n))
	r.replies.answer(q, &a, &st)
}

// ground is the standing of an answer that certainly holds.
func (in inbound) ground() (st core.Standing) {
	r := in.r
	if r.core != nil {
		st.View, _ = r.core.View()
	}
	return st
}

// forgets reports whether an answer may be wrong because the state is being fetched.
// During a fetch the pages may be those of the latest checkpoint again, without an
// enrolment that we have answered since.
func (in inbound) forgets(a executor.Answer) bool {
	r := in.r
	return a.Outcome == message.NotEnrolled && r.core != nil && r.core.Forgets()
}

// step steps the core with a message of a replica.
func (in inbound) step(m message.Message) {
	r := in.r
	if r.core != nil {
		r.measured.received(m)
		r.events.received(m)
		r.cfg.Trace.Received(m)
		r.core.Step(m)
	}
}
