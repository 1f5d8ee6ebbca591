// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"
	"time"

	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// clientLink handles the connection to one replica.
type clientLink struct {
	c  *Client
	id ReplicaID
}

// Opened implements transport.Handler.
func (l *clientLink) Opened(c *transport.Conn) {
	session := l.c.wires.sessions[l.id]
	c.SetUser(&remote{session: session})
	l.c.sendKey(c, session, "")
}

// Closed implements transport.Handler.
func (l *clientLink) Closed(_ *transport.Conn, err error) {
	l.c.log.Debug("connection to replica down", "replica", l.id, "err", err)
}

// Frames implements transport.Handler: it counts replies, and ends the calls they decide after the lock
// is released, so that Done may start the next call. What those calls send leaves in one flush.
func (l *clientLink) Frames(conn *transport.Conn, frames [][]byte) {
	who := conn.User().(*remote)
	var replies [32]*message.Reply
	batch, epoch := replies[:0], l.c.ring.Epoch()
	for _, frame := range frames {
		if len(frame) > 0 && message.Type(frame[0]) == message.TypeNewKey {
			if !l.onNewKey(conn, who, frame) {
				conn.Close()
				return
			}
			continue
		}
		if m := l.receive(conn, who, frame, epoch); m != nil {
			if batch = append(batch, m); len(batch) == cap(batch) {
				l.count(batch, epoch)
				batch, epoch = batch[:0], l.c.ring.Epoch()
			}
		}
	}
	l.count(batch, epoch)
	who.decoder.Reset()
}

// receive opens a sealed frame of replica l.id. Replies are returned, to be counted together. The ring's
// epoch was this one a moment ago.
func (l *clientLink) receive(conn *transport.Conn, who *remote, frame []byte, epoch uint64) *message.Reply {
	if message.LateReply(frame, l.c.waited) {
		return nil
	}
	if len(frame) > 0 && message.Type(frame[0]) == message.TypeData {
		frame = owned(frame) // its reader is on another goroutine
	}
	switch m := l.c.open(who, frame).(type) {
	case *message.Reply:
		m.From = l.id
		if n := len(m.Answers); n > 0 && m.Answers[n-1].Long() && m.Answers[n-1].Full {
			if a := &m.Answers[n-1]; !who.session.Proves(&who.scratch, &a.Proof, a.Result) {
				l.c.unopened()
				return nil
			}
		}
		return m
	case *message.ReplyStable:
		m.From = l.id
		l.c.onReplyStable(m, epoch)
	case *message.Data:
		m.From = l.id
		l.c.onData(m)
	case nil:
		l.c.resendKey(conn, who, who.session)
	default:
		l.c.edge.unexpected.Add(1)
	}
	return nil
}

// count has the rule count replies that were opened in an epoch, and ends the calls that they decide.
func (l *clientLink) count(batch []*message.Reply, epoch uint64) {
	c := l.c
	if len(batch) == 0 {
		return
	}
	var space [32]endedCall
	over := space[:0]
	c.mu.Lock()
	c.readers++
	c.looked = time.Since(c.epoch)
	if c.ring.Epoch() != epoch {
		batch = nil // the keys were refreshed meanwhile: all answers are asked for again
	}
	for _, m := range batch {
		c.rule.Reply(c.looked, m)
		over = c.perform(over)
	}
	c.finish(over)
	c.readers--
	c.release()
}

// onNewKey takes in a NEW-KEY; false closes the connection.
func (l *clientLink) onNewKey(conn *transport.Conn, who *remote, frame []byte) bool {
	c := l.c
	if !who.mayChangeKeys(time.Now()) {
		c.edge.badKey.Add(1)
		return false
	}
	decoded, err := message.Decode(owned(frame), &c.wire)
	if err != nil {
		c.edge.malformed.Add(1)
		return false
	}
	m := decoded.(*message.NewKey)
	answer, changed, ok := c.acceptKey(conn, who.session, m)
	if !ok {
		return false
	}
	if answer {
		c.sendKey(conn, who.session, "")
	}
	l.keyAccepted(changed)
	if len(m.Rival) > 0 {
		l.toldOfRival(string(m.Rival))
	}
	return true
}

// keyAccepted wakes the callers of Ready, and tells the rule, which may have everything sent again.
func (l *clientLink) keyAccepted(changed bool) {
	c := l.c
	c.mu.Lock()
	defer c.release()
	c.signal()
	c.rule.KeyAccepted(c.now(), l.id, changed)
	c.perform(nil) // nothing ends: requests are sent again under the timestamps that they have
}

// toldOfRival notes that the replica knows of another process with our key. When f+1 do, one of which
// is correct, all calls fail.
func (l *clientLink) toldOfRival(address string) {
	c := l.c
	why := fmt.Errorf("client %016x: %w (it was seen at %.64q)", uint64(c.wires.id), ErrKeyInUse, address)
	c.mu.Lock()
	if c.rule.Rival(c.now(), l.id, why) {
		c.warn("calls fail", "err", why)
	}
	if err := c.rule.InUse(c.now()); err != nil {
		c.failAll(err)
		return
	}
	c.release()
}
