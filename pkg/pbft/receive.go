// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// A receiver turns the frames of a replica's connections into messages whose senders are
// certain. It decodes, and checks MACs, signatures and budgets, on the goroutine that reads the
// connection and without the replica's lock: everything that it uses has a lock of its own.
type receiver struct {
	end      *wire.Endpoint
	group    *Group
	self     ReplicaID
	gate     *wire.Gate
	peers    peers
	clients  *clients
	transfer *transfer
}

// affords reports whether the sender on a connection may bring n more frames if it is not
// enrolled. If it may not, its connection is not read for a second.
func (x *receiver) affords(c *transport.Conn, n int) bool {
	var who *wire.Caller
	switch user := c.User().(type) {
	case *wire.Visitor:
		who = user.Caller
	case *wire.Remote:
		if user.Registered || user.Session.Peer.IsReplica() || x.group.mayRead(user.Session) {
			return true
		}
		who = user.Caller
	}
	if x.gate.MayBring(who, n) {
		return true
	}
	c.Hush(time.Second)
	return false
}

// epochOf is the epoch of the keys under which a connection's peer speaks.
func (x *receiver) epochOf(c *transport.Conn) uint64 {
	if who, _ := c.User().(*wire.Remote); who != nil {
		return x.end.Ring.EpochOf(who.Session)
	}
	return x.end.Ring.Epoch()
}

// receive turns a frame into a message whose sender is certain, or one with a client's
// request that is marked as authentic or not. nil: refused and counted.
func (x *receiver) receive(c *transport.Conn, who *wire.Remote, frame []byte) message.Message {
	fromReplica := who.Session.Peer.IsReplica()
	backup := false // a backup reads at full speed
	switch {
	case len(frame) == 0:
		x.end.Edge.Malformed.Add(1)
		return nil
	case message.Type(frame[0]) == message.TypeRequest:
		return x.request(c, who, frame)
	case !fromReplica && message.Type(frame[0]) == message.TypeFetch && x.group.mayRead(who.Session):
		backup = true
	case !fromReplica && message.Type(frame[0]) != message.TypeQueryStable:
		x.end.Edge.Unexpected.Add(1)
		return nil
	}
	if fromReplica && !x.peers[who.Session.Peer.Replica].mayChat(message.Type(frame[0])) {
		x.end.Edge.Chatter.Add(1)
		c.Hush(chatterRest)
		return nil
	}
	if t := message.Type(frame[0]); t == message.TypePrePrepare || t == message.TypeData || t == message.TypeBatchBody {
		frame = wire.Owned(frame)
	}
	if !fromReplica && !backup && !x.gate.MayBring(who.Caller, 1) {
		return nil
	}
	m := x.end.Open(who, frame)
	switch {
	case !fromReplica && m == nil:
		x.remind(c, who)
		return nil
	case !fromReplica:
		return m
	case m == nil:
		if conn := x.peers[who.Session.Peer.Replica].link.Conn(); conn != nil {
			x.remind(conn, who)
		}
		return nil
	}
	return x.attribute(m, who)
}

// remind sends a NEW-KEY, on c, to a sender whose message would not open: perhaps our
// last NEW-KEY was lost, or another process has the client's key. Right after a refresh a
// NEW-KEY is under way anyway.
func (x *receiver) remind(c *transport.Conn, who *wire.Remote) {
	if !x.end.Renewal.Settling() && who.Caller.MayResend() {
		x.end.SendKey(c, who.Session, who.Caller.RivalOf(who.Life))
	}
}

// attribute writes into a message who sent it, which the session knows.
func (x *receiver) attribute(m message.Message, who *wire.Remote) message.Message {
	if !message.Attribute(m, who.Session.Peer.Replica) {
		x.end.Edge.Unexpected.Add(1)
		return nil
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		var end *clientEnd
		for i, q := range m.Batch.Requests {
			if i == 0 || q.Client != m.Batch.Requests[i-1].Client {
				end = x.clients.end(q.Client)
			}
			q.Authentic = x.authenticates(q, end, who)
		}
	case *message.Data:
		x.transfer.digest(m)
	}
	return m
}

// request is receive for a client's request.
func (x *receiver) request(c *transport.Conn, who *wire.Remote, frame []byte) message.Message {
	m, err := who.Decoder.Decode(who.Keep(frame), &x.end.Limits)
	if err != nil {
		x.end.Edge.Malformed.Add(1)
		return nil
	}
	q := m.(*message.Request)
	peer := who.Session.Peer
	switch {
	case peer.IsReplica() && q.ReadOnly:
		x.end.Edge.Unexpected.Add(1) // a client's requests come from the client
		return nil
	case peer.IsReplica():
		q.PassedBy = peer.Replica
		if q.Authentic = x.authenticates(q, x.clients.end(q.Client), who); !q.Client.Signs() {
			return q // if it is not authentic here, others may vouch for it
		}
	case peer.Client != q.Client:
		x.end.Edge.Unexpected.Add(1)
		return nil
	case q.Client == Administrator:
		q.Authentic = x.authenticates(q, x.clients.end(q.Client), who)
	default:
		q.Authentic = who.Session.OpenRequest(&who.Scratch, x.self, q)
		if !q.Authentic {
			x.remind(c, who)
			if !x.clients.mayBring(q.Client, x.group.Limits.Slots) {
				c.Hush(idleRest)
			}
		}
	}
	if !q.Authentic {
		x.end.Unopened()
		return nil
	}
	q.PassedBy = x.self
	return q
}

// authenticates checks the proof of origin of a request that the remote who has brought:
// the administrator's signature, or our entry of the client's authenticator (R-REQ-6). c
// is the end of the client that made the request, nil if there is none.
func (x *receiver) authenticates(q *message.Request, c *clientEnd, who *wire.Remote) bool {
	if q.Client == Administrator {
		if !x.peers.maySign(who.Session) {
			return false
		}
		d := message.AdministratorDigest(x.group.Digest(), q)
		return ed25519.Verify(x.group.Administrator, d[:], q.Signature)
	}
	if _, recovers := q.Client.Recoverer(); recovers {
		return x.signedRecovery(q, who)
	}
	return c != nil && c.session.OpenRequest(&who.Scratch, x.self, q)
}

// signedRecovery checks the signature of a recovery request.
func (x *receiver) signedRecovery(q *message.Request, who *wire.Remote) bool {
	m, ok := message.RecoveryOf(q)
	if !ok || int(m.Replica) >= x.group.N() || !x.peers.maySign(who.Session) {
		return false
	}
	return ed25519.Verify(x.group.Members[m.Replica].Key, m.AppendCovered(nil, x.group.Digest()), q.Signature)
}

// sessionFor finds or begins the session with the sender of a NEW-KEY. A client that is
// not enrolled gets a session as well, which lives no longer than its connection: on it
// the client learns that it is not enrolled.
func (x *receiver) sessionFor(c *transport.Conn, m *message.NewKey) *auth.Session {
	if m.From.IsReplica() {
		if i := int(m.From.Replica); i < len(x.peers) && x.peers[i] != nil {
			return x.peers[i].session
		}
		return nil
	}
	key := ed25519.PublicKey(m.SenderKey[:])
	administrator := m.From.Client == Administrator
	if administrator != key.Equal(x.group.Administrator) || !administrator && ClientOf(key) != m.From.Client {
		return nil
	}
	if end := x.clients.end(m.From.Client); end != nil {
		return end.session
	}
	if who, ok := c.User().(*wire.Remote); ok && who.Session.Peer == m.From && who.Session.Owner(key) {
		return who.Session
	}
	return auth.NewSession(m.From, append(ed25519.PublicKey(nil), key...))
}

// newKey takes in a NEW-KEY on c, and returns its sender. nil: it is refused, and the
// connection must be closed.
func (x *receiver) newKey(c *transport.Conn, frame []byte) *keyed {
	from, budgets := namedBy(c)
	if !budgets.MayKey() {
		x.end.Edge.BadKey.Add(1)
		return nil
	}
	m := x.end.DecodeKey(frame)
	if m == nil {
		return nil
	}
	var session *auth.Session
	if m.From == from {
		session = x.sessionFor(c, m)
	}
	if session == nil {
		x.end.Edge.BadKey.Add(1)
		return nil
	}
	k := &keyed{lives: session.Lives()}
	var ok bool
	if k.answer, k.changed, ok = x.end.AcceptKey(c, session, m); !ok {
		return nil
	}
	if k.who, k.known = c.User().(*wire.Remote); !k.known || k.who.Session != session {
		k.who = &wire.Remote{Session: session, Caller: budgets}
		c.SetUser(k.who)
	}
	k.who.Life = m.SealTo
	return k
}

// keyed holds the sender of a NEW-KEY that was accepted, and the consequences of the NEW-KEY.
type keyed struct {
	who     *wire.Remote
	known   bool   // the connection had a remote before
	answer  bool   // it needs a NEW-KEY of ours
	changed bool   // we seal under another key than before
	lives   uint64 // of its session before
}

// namedBy returns the principal that the hello of a connection named, whose budgets it spends.
func namedBy(c *transport.Conn) (message.Principal, *wire.Caller) {
	if who, ok := c.User().(*wire.Remote); ok {
		return who.Session.Peer, who.Caller
	}
	v := c.User().(*wire.Visitor)
	return v.Principal, v.Caller
}

// announced notes that a client's process has announced itself, and returns the address of a rival.
func (x *receiver) announced(c *transport.Conn, who *wire.Remote) (rival string) {
	if rival = who.Caller.Announced(who.Life, c); rival != "" {
		x.end.Edge.KeyInUse.Add(1)
		x.end.Warn("two processes use one client's key",
			"client", who.Session.Peer.Client, "one", c.RemoteAddr(), "other", rival)
	}
	return rival
}
