// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/lies"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/sparing"
	"bfs/pkg/pbft/internal/trace"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// outgoing seals what a replica says and queues it on its connections. It is under the
// replica's lock: the nonces of a connection rise in the order in which its frames are
// queued. The frames are written when the lock is released, see wire.Flushes.
type outgoing struct {
	end     *wire.Endpoint
	peers   peers
	liar    *lies.Teller // changes what is said, in a demonstration; nil: nobody does
	sparing sparing.Sparing
	scratch auth.Scratch
	buffer  []byte
	trailer []byte
	dirty   wire.Flushes
	trace   *trace.Trace // nil: nothing is traced
}

// passedBytes may wait for a peer already when a client's request is passed on to it.
const passedBytes = 1 << 20

// send seals a message for one replica. A request goes as it is: its client's
// authenticator is in it.
func (x *outgoing) send(i ReplicaID, m message.Message) {
	p := x.peers[i]
	if m = x.liar.Message(m); x.liar.Withholds(p.session.Peer, m) {
		return
	}
	x.buffer = m.AppendBody(append(x.buffer[:0], byte(m.Type())))
	if _, isRequest := m.(*message.Request); isRequest {
		if c := p.link.Conn(); c != nil && c.Queued() > passedBytes {
			x.end.Edge.Dropped.Add(1) // clients may not fill the way that our votes take
			return
		}
		x.queue(p, false, nil, x.buffer)
		return
	}
	x.seal(p, m, false, nil)
}

// multicast encodes once and seals for each. A long message is copied once for all connections.
func (x *outgoing) multicast(m message.Message) {
	x.trace.Left(m)
	m = x.liar.Message(m)
	x.buffer = m.AppendBody(append(x.buffer[:0], byte(m.Type())))
	var shared *transport.Shared
	if shared, x.buffer = wire.Share(x.buffer); shared != nil {
		defer shared.Release()
	}
	for i, p := range x.peers {
		if p != nil && !x.liar.Withholds(p.session.Peer, m) {
			x.seal(p, m, x.sparing.Spares(ReplicaID(i), m), shared)
		}
	}
}

// seal sends m with a MAC for p behind it. shared holds m encoded, or buffer does if
// shared is nil. If the peer is spared m may wait.
func (x *outgoing) seal(p *peerEnd, m message.Message, spared bool, shared *transport.Shared) {
	encoded := x.buffer
	if shared != nil {
		encoded = shared.Bytes()
	}
	x.trailer = x.end.Ring.SealBody(p.session, &x.scratch, x.trailer[:0], m, encoded)
	x.liar.Spoil(p.session.Peer, x.trailer)
	switch {
	case x.trailer == nil:
	case shared != nil:
		x.queue(p, spared, shared, x.trailer)
	default:
		x.queue(p, spared, nil, x.buffer, x.trailer)
	}
}

func (x *outgoing) queue(p *peerEnd, spared bool, shared *transport.Shared, parts ...[]byte) {
	c := x.end.Way(p.link, p.session)
	if c == nil {
		return // STATUS brings it back when the link is up
	}
	x.end.Queue(c, shared, parts...)
	if !spared || c.Queued() > sparing.Bytes {
		x.dirty.Add(c)
	} else {
		x.sparing.Queued = true
	}
}

// data sends a DATA to a replica. Its pages are copied from where they lie into the
// queue, and nowhere else.
func (x *outgoing) data(p *peerEnd, m *message.Data) {
	if parts := x.sealPieces(p.session, m); parts != nil {
		x.queue(p, false, nil, parts...)
	}
}

// dataTo sends a DATA to a client in the same way.
func (x *outgoing) dataTo(c *transport.Conn, s *auth.Session, m *message.Data) {
	if parts := x.sealPieces(s, m); parts != nil {
		c.Send(parts...)
		x.dirty.Add(c)
	}
}

// sealPieces returns a DATA in pieces: its head, its pages where they lie, its MAC. It
// returns nil if the session has no key.
func (x *outgoing) sealPieces(s *auth.Session, m *message.Data) (pieces [][]byte) {
	if x.liar.Withholds(s.Peer, m) {
		return nil
	}
	pieces, x.buffer = m.Pieces(x.buffer)
	if x.trailer = x.end.Ring.SealBody(s, &x.scratch, x.trailer[:0], m, pieces[0]); x.trailer == nil {
		return nil
	}
	x.liar.Spoil(s.Peer, x.trailer)
	return append(pieces, x.trailer)
}

// reply seals a REPLY on the ground of batch n, and a long result behind it if there is one.
func (x *outgoing) reply(c *transport.Conn, s *auth.Session, n message.SeqNum, head, long []byte) {
	x.trace.Replied(n)
	x.trailer = x.end.Ring.SealHead(s, &x.scratch, x.trailer[:0], head)
	if x.trailer == nil || x.liar.Withholds(s.Peer, nil) {
		return
	}
	x.liar.Spoil(s.Peer, x.trailer)
	x.end.Queue(c, nil, head, long, x.trailer)
	x.dirty.Add(c)
}

// answer seals any other message to a client.
func (x *outgoing) answer(c *transport.Conn, s *auth.Session, m message.Message) {
	x.buffer = x.end.Ring.Seal(s, &x.scratch, x.buffer[:0], m)
	if len(x.buffer) > 0 && !x.liar.Withholds(s.Peer, m) {
		x.liar.Spoil(s.Peer, x.buffer)
		c.Send(x.buffer)
		x.dirty.Add(c)
	}
}

// tick counts a tick for the peers that are spared.
func (x *outgoing) tick() {
	allUp := true
	for _, p := range x.peers {
		if p != nil && p.link.Conn() == nil {
			allUp = false
		}
	}
	x.sparing.Tick(allUp)
}

// endSparing writes the messages that are queued for spared replicas.
func (x *outgoing) endSparing() {
	if !x.sparing.End() {
		return
	}
	for _, p := range x.peers {
		if p != nil {
			if c := p.link.Conn(); c != nil && c.Queued() > 0 {
				x.dirty.Add(c)
			}
		}
	}
}
