// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// An outbox gathers the answers for one client that stand on one ground, most often those of a batch: they leave as one REPLY
// under one MAC. It is sealed when the event that brought them is over, when the ground changes, or when it is full.
type outbox struct {
	conn    *transport.Conn
	session *auth.Session
	ground  core.Standing
	reply   message.ReplyWriter
}

// outboxBytes is how much an outbox gathers before it is sealed, a single answer apart.
const outboxBytes = 32 << 10

// outboxes are those of the present event, and some that are used again.
type outboxes struct {
	open  []*outbox
	spare []*outbox
}

// to returns the outbox for a connection, new or not.
func (o *outboxes) to(conn *transport.Conn, s *auth.Session) *outbox {
	for i := range o.open { // the last one first: a batch has the requests of a client together
		if box := o.open[len(o.open)-1-i]; box.conn == conn && box.session == s {
			return box
		}
	}
	var box *outbox
	if n := len(o.spare); n > 0 {
		box, o.spare = o.spare[n-1], o.spare[:n-1]
	} else {
		box = &outbox{}
	}
	box.conn, box.session = conn, s
	o.open = append(o.open, box)
	return box
}

// A recipient is where a client is answered. Without a connection it is not.
type recipient struct {
	conn    *transport.Conn
	session *auth.Session
}

func (r *Replica) recipient(id ClientID) recipient {
	if c := r.client(id); c != nil {
		return recipient{c.connection(), c.session}
	}
	return recipient{}
}

// answer puts an answer to a request into the outbox of its client, if that has a connection here.
func (r *Replica) answer(q *message.Request, a executor.Answer, st core.Standing) {
	r.answerTo(r.recipient(q.Client), q, a, st)
}

func (r *Replica) answerTo(to recipient, q *message.Request, a executor.Answer, st core.Standing) {
	if to.conn != nil {
		r.answerOn(to.conn, to.session, q, a, st)
	}
}

// answerOn is answer for a client on a connection that is known. A short result goes whole from everyone; a long one whole from the
// replica that the client named [TOCS §6.1]. Others prove that they have computed the same: of an ordered request those that the
// client named for that, and the rest say no more than that they have executed it.
func (r *Replica) answerOn(conn *transport.Conn, s *auth.Session, q *message.Request, a executor.Answer, st core.Standing) {
	if r.liar != nil {
		a.Result = r.liar.Result(a.Result)
	}
	x := message.Answer{
		Slot: q.Slot, Timestamp: q.Timestamp, Outcome: a.Outcome, ReadOnly: q.ReadOnly, Version: a.Version,
		Full: true, Length: len(a.Result), Result: a.Result,
	}
	if x.Long() {
		x.Full = r.fullReplies || q.Replier == r.cfg.Self || q.Replier == message.AnyReplier
		x.Proved = x.Full || q.ReadOnly || q.Provers&(1<<r.cfg.Self) != 0
	}
	if x.Proved && x.Long() && conn.Queued()+len(a.Result) > queueBytes {
		r.edge.dropped.Add(1) // it takes no answers: why prove this one?
		return
	}
	if x.Proved {
		var ok bool
		if x.Proof, ok = r.ring.Prove(s, &r.scratch, a.Result); !ok {
			return // it has no key of ours, and asks again when it has
		}
	}
	r.answered += len(a.Result)
	box := r.outboxes.to(conn, s)
	if n := box.reply.Len(); n > 0 && (box.ground != st || n == message.MaxAnswers || len(box.reply.Head()) > outboxBytes) {
		r.sealReply(box, nil)
	}
	if box.reply.Len() == 0 {
		box.ground = st
		box.reply.Begin(st.View, st.Seq, st.Tentative)
	}
	if box.reply.Add(&x); x.Long() && x.Full {
		r.sealReply(box, a.Result)
	}
}

// sealReply queues what an outbox holds, with the long result that ends it if there is one.
func (r *Replica) sealReply(box *outbox, long []byte) {
	if !r.holdReply(box, long) {
		r.sendReply(box.conn, box.session, box.reply.Head(), long)
	}
	box.reply.Clear()
}

// sendReply seals a REPLY and queues it.
func (r *Replica) sendReply(conn *transport.Conn, s *auth.Session, head, long []byte) {
	if r.trailer = r.ring.SealHead(s, &r.scratch, r.trailer[:0], head); r.trailer == nil {
		return
	}
	if !conn.Send(head, long, r.trailer) {
		r.edge.dropped.Add(1)
	}
	r.dirty.add(conn)
}

// sealReplies queues what all outboxes hold: the event is over.
func (r *Replica) sealReplies() {
	o := &r.outboxes
	for i, box := range o.open {
		if box.reply.Len() > 0 {
			r.sealReply(box, nil)
		}
		o.open[i] = nil
		if box.conn, box.session = nil, nil; len(o.spare) < maxSpareOutboxes {
			o.spare = append(o.spare, box)
		}
	}
	o.open = o.open[:0]
}

const maxSpareOutboxes = 64
