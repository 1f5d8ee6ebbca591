// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// replies are the answers of the present event, in outboxes, and outboxes that are used
// again. It is under the replica's lock.
type replies struct {
	out     *outgoing
	clients *clients
	disk    *storage // holds REPLYs back that must wait for the disk; nil unless in disk mode
	self    ReplicaID
	full    bool // send every result in full
	mute    bool // this replica is silent: no client is answered
	bytes   int  // of results since the lock was taken
	open    []*outbox
	spare   []*outbox
}

// An outbox gathers the answers for one client that stand on one ground, most often those
// of a batch: they leave as one REPLY under one MAC. It is sealed when the event that
// brought them is over, when the ground changes, or when it is full.
type outbox struct {
	conn    *transport.Conn
	session *auth.Session
	ground  core.Standing
	reply   message.ReplyWriter
}

const (
	outboxBytes      = 32 << 10 // an outbox that holds so much is sealed; a single answer may be longer
	maxSpareOutboxes = 64
)

// to returns the outbox for a connection, new or not.
func (x *replies) to(conn *transport.Conn, s *auth.Session) *outbox {
	for i := range x.open { // the last one first: a batch has the requests of a client together
		if box := x.open[len(x.open)-1-i]; box.conn == conn && box.session == s {
			return box
		}
	}
	var box *outbox
	if n := len(x.spare); n > 0 {
		box, x.spare = x.spare[n-1], x.spare[:n-1]
	} else {
		box = &outbox{}
	}
	box.conn, box.session = conn, s
	x.open = append(x.open, box)
	return box
}

// answer puts an answer to a request into the outbox of its client, if that has a connection here.
func (x *replies) answer(q *message.Request, a *executor.Answer, st *core.Standing) {
	x.answerTo(x.clients.recipient(q.Client), q, a, st)
}

// answerTo is answer for a client that has been looked up.
func (x *replies) answerTo(to recipient, q *message.Request, a *executor.Answer, st *core.Standing) {
	if to.conn != nil {
		x.answerOn(to.conn, to.session, q, a, st)
	}
}

// answerOn is answer for a client on a connection that is known. Every replica sends a
// short result whole; the replica that the client named sends a long one whole [TOCS
// §6.1]. Other replicas prove that they have computed the same. Of an ordered request only
// those prove it that the client named for that; the rest say that they have executed it.
func (x *replies) answerOn(conn *transport.Conn, s *auth.Session, q *message.Request,
	a *executor.Answer, st *core.Standing) {
	result := x.out.liar.Result(a.Result)
	m := &message.Answer{
		Slot: q.Slot, Timestamp: q.Timestamp, Outcome: a.Outcome, ReadOnly: q.ReadOnly, Version: a.Version,
		Full: true, Length: len(result), Result: result,
	}
	if m.Long() {
		m.Full = x.full || q.Replier == x.self || q.Replier == message.AnyReplier
		m.Proved = m.Full || q.ReadOnly || q.Provers&(1<<x.self) != 0
	}
	if m.Proved && m.Long() && !conn.Fits(len(result)) {
		x.out.end.Edge.Dropped.Add(1) // the client takes no answers
		return
	}
	if m.Proved {
		var ok bool
		if m.Proof, ok = x.out.end.Ring.Prove(s, &x.out.scratch, result); !ok {
			return // the client has no key of ours, and asks again when it has
		}
	}
	x.bytes += len(result)
	box := x.to(conn, s)
	n := box.reply.Len()
	if n > 0 && (box.ground != *st || n == message.MaxAnswers || len(box.reply.Head()) > outboxBytes) {
		x.seal(box, nil)
	}
	if box.reply.Len() == 0 {
		box.ground = *st
		box.reply.Begin(st.View, st.Seq, st.Tentative)
	}
	if box.reply.Add(m); m.Long() && m.Full {
		x.seal(box, result)
	}
}

// seal queues what an outbox holds, with the long result that ends it if there is one.
func (x *replies) seal(box *outbox, long []byte) {
	if !x.disk.holdReply(box.conn, box.session, box.ground.Seq, box.reply.Head(), long) {
		x.out.reply(box.conn, box.session, box.ground.Seq, box.reply.Head(), long)
	}
	box.reply.Clear()
}

// sealAll queues what all outboxes hold: the event is over.
func (x *replies) sealAll() {
	for i, box := range x.open {
		if box.reply.Len() > 0 {
			x.seal(box, nil)
		}
		x.open[i] = nil
		if box.conn, box.session = nil, nil; len(x.spare) < maxSpareOutboxes {
			x.spare = append(x.spare, box)
		}
	}
	x.open = x.open[:0]
}
