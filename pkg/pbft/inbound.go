// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// outbound handles our own link to a peer: we speak on it and the peer does not, for it has a link of its own to
// us.
type outbound struct {
	r *Replica
	p *peerEnd
}

// Opened implements transport.Handler.
func (o *outbound) Opened(c *transport.Conn) {
	if o.p.session.Ready() && !o.r.vouched(c, o.p.session) {
		// The host has restarted and its NEW-KEY is under way, or somebody sits in between: only our
		// NEW-KEY, in which nothing is secret, leaves until that is known.
		o.r.log.Debug("link waits for the peer's NEW-KEY", "peer", o.p.session.Peer.Replica)
	}
	o.p.opened.Store(c)
	o.r.sendKey(c, o.p.session, "")
}

// Frames implements transport.Handler.
func (o *outbound) Frames(_ *transport.Conn, frames [][]byte) {
	o.r.edge.unexpected.Add(uint64(len(frames)))
}

// Closed implements transport.Handler.
func (o *outbound) Closed(_ *transport.Conn, err error) {
	o.r.log.Debug("link to replica down", "peer", o.p.session.Peer.Replica, "err", err)
	if o.r.notPlain(err) {
		o.mismatch(TransportPlain, err)
	}
}

// inbound handles connections others made to us: replicas that speak to us, and clients, who are answered on the
// same connection.
type inbound Replica

// admit implements transport.Options.Admit.
func (in *inbound) admit(c *transport.Conn, challenge *transport.Challenge, hello *transport.Hello) bool {
	v := (*Replica)(in).gate.admit(c, challenge[:], (*[auth.HelloSize]byte)(hello))
	if v == nil {
		return false
	}
	c.SetUser(v)
	return true
}

// affords reports whether who is not enrolled may bring n more frames. It is not read for a second if it may not.
func (r *Replica) affords(c *transport.Conn, n int) bool {
	var x *caller
	switch who := c.User().(type) {
	case *visitor:
		x = who.caller
	case *remote:
		if who.registered || who.session.Peer.IsReplica() || r.mayRead(who.session) {
			return true
		}
		x = who.caller
	}
	if x.take(&x.frames, frameRate, min(n, int(frameRate.Burst))) {
		return true
	}
	r.gate.refused.frames.Add(uint64(n))
	c.Hush(time.Second)
	return false
}

// Opened implements transport.Handler.
func (in *inbound) Opened(*transport.Conn) {}

// Closed implements transport.Handler.
func (in *inbound) Closed(c *transport.Conn, err error) {
	r := (*Replica)(in)
	r.mu.Lock()
	delete(r.strangers, c) // first of all: it may have been somebody else's before
	r.mu.Unlock()
	who, ok := c.User().(*remote)
	if !ok {
		if r.notPlain(err) {
			r.strangeTransport(c, TransportPlain, err)
		}
		return
	}
	if peer := who.session.Peer; peer.IsReplica() {
		r.mu.Lock()
		if p := r.peers[peer.Replica]; p.inbound == c {
			p.inbound = nil
			r.lostPeer(p, err)
		}
		r.mu.Unlock()
		return
	}
	who.caller.mu.Lock()
	who.caller.lives.closed(c, time.Now())
	who.caller.mu.Unlock()
	if end := r.client(who.session.Peer.Client); end != nil {
		end.mu.Lock()
		if end.conn == c {
			end.conn = nil
		}
		end.mu.Unlock()
	}
}

// Frames implements transport.Handler. MACs are checked before the lock is taken; one taking of it serves all
// messages of a read.
func (in *inbound) Frames(c *transport.Conn, frames [][]byte) {
	r := (*Replica)(in)
	if !r.affords(c, len(frames)) {
		return
	}
	var messages [64]message.Message
	batch, epoch := messages[:0], r.epochOf(c)
	deliver := func() {
		r.deliver(c, batch, epoch)
		batch, epoch = batch[:0], r.epochOf(c)
	}
	for _, frame := range frames {
		if len(frame) > 0 && message.Type(frame[0]) == message.TypeNewKey {
			deliver()
			if !r.onNewKey(c, frame) {
				c.Close()
				return
			}
			epoch = r.epochOf(c) // it may have been nobody's before
			continue
		}
		who, _ := c.User().(*remote)
		if who == nil {
			r.edge.unexpected.Add(1)
			c.Close() // nobody speaks before his NEW-KEY
			return
		}
		m := r.receive(c, who, frame)
		if m == nil {
			continue
		}
		batch = append(batch, m)
		switch m.(type) {
		case *message.Fetch, *message.Data:
			deliver() // a quarter of a mebibyte to copy: others have their turn between two of these
		}
		if _, copied := m.(*message.Data); copied {
			transport.Recycle(frame)
		}
	}
	deliver()
	if who, _ := c.User().(*remote); who != nil {
		who.decoder.Reset()
	}
}

// epochOf is the epoch of the keys under which a connection's peer speaks.
func (r *Replica) epochOf(c *transport.Conn) uint64 {
	if who, _ := c.User().(*remote); who != nil {
		return r.ring.EpochOf(who.session)
	}
	return r.ring.Epoch()
}

// receive turns a frame into a message whose sender is certain, or whose client's wish it carries is marked
// authentic or not. nil: refused and counted.
func (r *Replica) receive(c *transport.Conn, who *remote, frame []byte) message.Message {
	fromReplica := who.session.Peer.IsReplica()
	backup := false // it is for a backup, and is read at full speed
	switch {
	case len(frame) == 0:
		r.edge.malformed.Add(1)
		return nil
	case message.Type(frame[0]) == message.TypeRequest:
		return r.receiveRequest(c, who, frame)
	case !fromReplica && message.Type(frame[0]) == message.TypeFetch && r.mayRead(who.session):
		backup = true
	case !fromReplica && message.Type(frame[0]) != message.TypeQueryStable:
		r.edge.unexpected.Add(1)
		return nil
	}
	if t := message.Type(frame[0]); t == message.TypePrePrepare || t == message.TypeData || t == message.TypeBatchBody {
		frame = owned(frame)
	}
	if x := who.caller; !fromReplica && !backup && !x.take(&x.frames, frameRate, 1) {
		r.gate.refused.frames.Add(1)
		return nil
	}
	m := r.open(who, frame)
	switch {
	case !fromReplica && m == nil:
		r.remind(c, who)
		return nil
	case !fromReplica:
		return m
	case m == nil:
		if conn := r.peers[who.session.Peer.Replica].link.Conn(); conn != nil {
			r.remind(conn, who)
		}
		return nil
	}
	return r.attribute(m, who)
}

// remind sends a NEW-KEY, on c, to who said what would not open: perhaps our last was lost, or another process has the client's
// key. Right after a refresh it was under way meanwhile.
func (r *Replica) remind(c *transport.Conn, who *remote) {
	if x := who.caller; !r.renewal.settling() && x.take(&x.resends, resendRate, 1) {
		r.sendKey(c, who.session, who.rivalOf())
	}
}

// attribute writes into a message who sent it, which the session knows.
func (r *Replica) attribute(m message.Message, who *remote) message.Message {
	if !message.Attribute(m, who.session.Peer.Replica) {
		r.edge.unexpected.Add(1)
		return nil
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		var end *clientEnd
		for i, q := range m.Batch.Requests {
			if i == 0 || q.Client != m.Batch.Requests[i-1].Client {
				end = r.client(q.Client)
			}
			q.Authentic = r.authenticates(q, end, who)
		}
	case *message.Data:
		r.digest(m)
	}
	return m
}

func (r *Replica) receiveRequest(c *transport.Conn, who *remote, frame []byte) message.Message {
	m, err := who.decoder.Decode(who.keep(frame), &r.wire)
	if err != nil {
		r.edge.malformed.Add(1)
		return nil
	}
	q := m.(*message.Request)
	peer := who.session.Peer
	switch {
	case peer.IsReplica() && q.ReadOnly:
		r.edge.unexpected.Add(1) // clients bring those themselves
		return nil
	case peer.IsReplica():
		q.PassedBy = peer.Replica
		if q.Authentic = r.authenticates(q, r.client(q.Client), who); !q.Client.Signs() {
			return q // if it is not authentic here, others may vouch for it
		}
	case peer.Client != q.Client:
		r.edge.unexpected.Add(1)
		return nil
	case q.Client == Administrator:
		q.Authentic = r.authenticates(q, r.client(q.Client), who)
	default:
		q.Authentic = who.session.OpenRequest(&who.scratch, r.cfg.Self, q)
		if !q.Authentic {
			r.remind(c, who)
		}
	}
	if !q.Authentic {
		r.unopened()
		return nil
	}
	q.PassedBy = r.cfg.Self
	return q
}

// deliver steps the core with messages of one connection, which were opened in an epoch of our keys. If that
// is over they count no more, and come again under the new keys.
func (r *Replica) deliver(c *transport.Conn, batch []message.Message, epoch uint64) {
	if len(batch) == 0 {
		return
	}
	who := c.User().(*remote)
	conn := c
	if who.session.Peer.IsReplica() {
		conn = nil
	} else if !who.registered || !r.answeredOn(c, who.session) {
		who.registered = r.register(c, who.session)
	}
	var reads readTime
	r.enter()
	for _, m := range batch {
		if r.stopping || r.aside() || r.ring.EpochOf(who.session) != epoch {
			break
		}
		switch m := m.(type) {
		case *message.Request:
			if m.ReadOnly {
				reads.note(r, m)
			}
			if r.request(conn, who.session, m); m.ReadOnly && r.answersMuch() {
				r.pauseFor(&reads)
				r.enter()
			}
		case *message.QueryStable:
			if conn == nil && r.core != nil {
				r.core.Step(m)
			} else {
				r.replyStable(c, who.session, m)
			}
		case *message.Fetch:
			if conn != nil {
				r.lend(c, who.session, m)
			} else {
				r.step(m)
			}
		default:
			r.step(m)
		}
	}
	r.pauseFor(&reads)
}

// step steps the core with a message of a replica.
func (r *Replica) step(m message.Message) {
	if r.core != nil {
		r.measured.received(m)
		r.events.received(m, r.group.N())
		r.core.Step(m)
	}
}

// pauseFor is leave for a goroutine that answered reads: if they were long, and others are served, it comes back later.
func (r *Replica) pauseFor(t *readTime) {
	rest := t.contended(r)
	if r.leave(); rest {
		r.rest(t)
	}
	*t = readTime{}
}

// answersMuch answers the reads that were taken in, and reports whether that was work enough for one taking of the lock: a
// connection may bring many of a mebibyte each at once, and votes wait meanwhile.
func (r *Replica) answersMuch() bool {
	if r.core != nil {
		r.performAll(r.core.Due)
	}
	return r.answered > answeredBytes
}

// answeredBytes is how much is answered under one taking of the lock, the last answer apart.
const answeredBytes = 256 << 10

// claims is whom the hello of a connection named, and whose budgets it spends.
func claims(c *transport.Conn) (message.Principal, *caller) {
	if who, ok := c.User().(*remote); ok {
		return who.session.Peer, who.caller
	}
	v := c.User().(*visitor)
	return v.principal, v.caller
}

// onNewKey takes in a NEW-KEY; false closes the connection.
func (r *Replica) onNewKey(c *transport.Conn, frame []byte) bool {
	from, x := claims(c)
	if !x.take(&x.newKeys, newKeyRate, 1) {
		r.edge.badKey.Add(1)
		return false
	}
	decoded, err := message.Decode(owned(frame), &r.wire)
	if err != nil {
		r.edge.malformed.Add(1)
		return false
	}
	m := decoded.(*message.NewKey)
	if m.From != from {
		r.edge.badKey.Add(1)
		return false
	}
	session := r.sessionFor(c, m)
	if session == nil {
		r.edge.badKey.Add(1)
		return false
	}
	lives := session.Lives()
	answer, changed, ok := r.acceptKey(c, session, m)
	if !ok {
		return false
	}
	who, known := c.User().(*remote)
	if !known || who.session != session {
		who = &remote{session: session, caller: x}
		c.SetUser(who)
	}
	who.life = m.SealTo
	if m.From.IsReplica() {
		c.OneWay() // our link to it is another
		r.peerKey(c, m.From.Replica, answer, changed)
		return true
	}
	rival := ""
	if who.registered = r.register(c, session); who.registered {
		rival = r.announced(c, who)
		if session.Lives() != lives && r.core != nil {
			r.enter()
			r.core.ClientKeysChanged(m.From.Client)
			r.leave()
		}
	}
	if answer || !known || rival != "" {
		r.sendKey(c, session, rival)
	}
	return true
}

// sessionFor finds or begins the session with the sender of a NEW-KEY. A client that is not enrolled gets a session
// as well, which lives no longer than its connection: it is how it learns that it is not.
func (r *Replica) sessionFor(c *transport.Conn, m *message.NewKey) *auth.Session {
	if m.From.IsReplica() {
		if i := int(m.From.Replica); i < len(r.peers) && r.peers[i] != nil {
			return r.peers[i].session
		}
		return nil
	}
	key := ed25519.PublicKey(m.SenderKey[:])
	administrator := m.From.Client == Administrator
	if administrator != key.Equal(r.group.Administrator) || !administrator && ClientOf(key) != m.From.Client {
		return nil
	}
	r.clientsMu.RLock()
	defer r.clientsMu.RUnlock()
	if end := r.clients[m.From.Client]; end != nil {
		return end.session
	}
	if who, ok := c.User().(*remote); ok && who.session.Peer == m.From && who.session.Owner(key) {
		return who.session
	}
	return auth.NewSession(m.From, append(ed25519.PublicKey(nil), key...))
}

// register makes c the connection on which an enrolled client is answered, and lets it bring frames of full
// length.
func (r *Replica) register(c *transport.Conn, s *auth.Session) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.admit(c, s)
}

// admit is register for who holds the lock. A client that is not enrolled is remembered for as long as its connection lives.
func (r *Replica) admit(c *transport.Conn, s *auth.Session) bool {
	client, enrolled := r.exec.Ledger().Client(s.Peer.Client)
	if s.Peer.Client != Administrator {
		// A client's number is a short digest of its key: another key may be made to have it.
		enrolled = enrolled && s.Owner(client.Key)
	}
	if !enrolled {
		r.strangers[c] = s
		return false
	}
	delete(r.strangers, c)
	r.clientsMu.Lock()
	end := r.clients[s.Peer.Client]
	if end == nil {
		end = &clientEnd{session: s}
		r.clients[s.Peer.Client] = end
	}
	r.clientsMu.Unlock()
	if end.session != s {
		return false // another connection of this client was first: this one must begin again
	}
	end.mu.Lock()
	old := end.conn
	end.conn = c
	end.mu.Unlock()
	if old != nil && old != c {
		if old.Release(); old.Queued() > supersededBytes {
			old.Close() // a client that takes none of its answers has one queue to fill, not one for each connection
		}
	}
	c.Trust()
	return true
}

// supersededBytes may still wait on a connection when its client is answered on another.
const supersededBytes = 64 << 10

// answeredOn reports whether c is the connection on which its client is answered: the last on which it spoke.
func (r *Replica) answeredOn(c *transport.Conn, s *auth.Session) bool {
	end := r.client(s.Peer.Client)
	return end != nil && end.connection() == c
}

// forgetRevoked treats clients as strangers that are not enrolled any more. What they have waiting is not proposed.
func (r *Replica) forgetRevoked() {
	enrolled := func(id ClientID) bool {
		_, ok := r.exec.Ledger().Client(id)
		return ok
	}
	r.gate.follow(r.exec.Ledger())
	r.clientsMu.Lock()
	for id, end := range r.clients {
		if client, ok := r.exec.Ledger().Client(id); ok && (id == Administrator || end.session.Owner(client.Key)) {
			continue
		}
		delete(r.clients, id) // or another key has its number by now
		if conn := end.connection(); conn != nil {
			conn.Release()
			r.strangers[conn] = end.session
		}
	}
	r.clientsMu.Unlock()
	if r.core != nil {
		r.core.Retain(enrolled)
	}
}

// admitStrangers answers clients from now on that had connected before they were enrolled: it is the primary alone to whom
// they send what is ordered, and the others would not know whom to answer.
func (r *Replica) admitStrangers() {
	for c, s := range r.strangers {
		r.admit(c, s)
	}
}

// peerKey follows a replica's NEW-KEY: ours in answer on our own link, and what it may have missed.
func (r *Replica) peerKey(c *transport.Conn, i ReplicaID, answer, changed bool) {
	p := r.peers[i]
	if answer {
		// If the link is just coming up, its NEW-KEY was made before this one was accepted or after: with the connection
		// noted before that, none is missed.
		if conn := p.opened.Load(); conn != nil {
			r.sendKey(conn, p.session, "")
		}
	}
	p.link.Hurry()
	r.enter()
	r.foundPeer(p)
	if p.inbound != nil {
		p.inbound.Release()
	}
	p.inbound = c
	c.Trust()
	switch life := p.session.Lives(); {
	case !changed || r.core == nil:
	case life != p.life:
		p.life = life
		r.core.KeysChanged(i)
	default:
		r.sparing.refreshed()
		r.core.KeysRefreshed(i)
	}
	r.leave()
}

// replyStable tells a client our stable checkpoint, and where its slots stand.
func (r *Replica) replyStable(c *transport.Conn, s *auth.Session, q *message.QueryStable) {
	m := &message.ReplyStable{Nonce: q.Nonce, Latest: r.exec.Ledger().Latest(s.Peer.Client)}
	if r.core != nil {
		stable := r.core.Stable()
		m.Seq, m.Digest = stable.Seq, stable.Digest
		m.View = r.viewFor(s)
	}
	if r.buffer = r.ring.Seal(s, &r.scratch, r.buffer[:0], m); len(r.buffer) > 0 {
		c.Send(r.buffer)
		r.dirty.add(c)
	}
}

// viewFor is our view, or the one for which the replica whose key made this session has left, if that is higher: its
// VIEW-CHANGE may be used yet, and it must not vote below.
func (r *Replica) viewFor(s *auth.Session) View {
	view, _ := r.core.View()
	for i, member := range r.group.Members {
		if s.Owner(member.Key) {
			return max(view, r.core.LeftFor(ReplicaID(i)))
		}
	}
	return view
}
