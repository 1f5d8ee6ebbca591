package pbft

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A Certified is a stable checkpoint: f+1 replicas have said that this is the state's root after batch Seq,
// and that 2f+1 agree.
type Certified struct {
	Seq  SeqNum
	Root Digest
}

// stableAgain is how long a question after the stable checkpoint waits for its answers until it is asked again.
const stableAgain = 100 * time.Millisecond

// stableQuery is a QUERY-STABLE that waits for answers.
type stableQuery struct {
	nonce   uint64
	answers []*message.ReplyStable // by replica
	count   int
	enough  chan struct{} // closed when 2f+1 have answered
}

// Stable asks 2f+1 replicas for their stable checkpoint. certified is the highest that f+1 of them name, its
// zero value if they name different ones just now; reached is a number that a correct replica among them has come to.
// A client that remembers a certified checkpoint above reached has to do with a group that has lost its state and begun
// again.
func (c *Client) Stable(ctx context.Context) (certified Certified, reached SeqNum, err error) {
	q, err := c.askStable(ctx)
	if err != nil {
		return certified, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return q.certified(c.group.Weak()), q.reached(c.group.Weak()), nil
}

// askStable waits for the answers of 2f+1 replicas.
func (c *Client) askStable(ctx context.Context) (*stableQuery, error) {
	q := &stableQuery{answers: make([]*message.ReplyStable, len(c.peers)), enough: make(chan struct{})}
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil, ErrClosed
	}
	c.nonce++
	q.nonce = c.nonce
	c.stable = q // a later question takes the place of one that nobody waits for any more
	c.mu.Unlock()
	again := time.NewTicker(stableAgain)
	defer again.Stop()
	for asked := false; !asked; {
		c.queryStable(q.nonce)
		select {
		case <-q.enough:
			asked = true
		case <-again.C: // a connection or a key may have come since, and questions are lost like everything else
		case <-ctx.Done():
			return nil, fmt.Errorf("ask for the stable checkpoint: %w", ctx.Err())
		}
	}
	return q, nil
}

// queryStable sends the question to all.
func (c *Client) queryStable(nonce uint64) {
	c.mu.Lock()
	defer c.release()
	for _, p := range c.peers {
		c.queryOne(p, nonce)
	}
}

// queryOne sends the question to one replica, if there is a way to it. The caller holds the lock.
func (c *Client) queryOne(p *replicaEnd, nonce uint64) {
	conn := p.link.Conn()
	if conn == nil || !c.vouched(conn, p.session) {
		return
	}
	m := &message.QueryStable{Nonce: nonce}
	if c.buffer = c.ring.Seal(p.session, &c.scratch, c.buffer[:0], m); len(c.buffer) > 0 {
		p.link.Send(c.buffer)
		c.dirty.add(p.link)
	}
}

func (q *stableQuery) certified(weak int) (best Certified) {
	for _, a := range q.answers {
		if a == nil || a.Seq < best.Seq {
			continue
		}
		same := 0
		for _, b := range q.answers {
			if b != nil && b.Seq == a.Seq && b.Digest == a.Digest {
				same++
			}
		}
		if same >= weak {
			best = Certified{a.Seq, a.Digest}
		}
	}
	return best
}

func (q *stableQuery) reached(weak int) SeqNum {
	var all []SeqNum
	for _, a := range q.answers {
		if a != nil {
			all = append(all, a.Seq)
		}
	}
	slices.Sort(all)
	return all[len(all)-weak]
}

// onReplyStable counts an answer.
func (c *Client) onReplyStable(m *message.ReplyStable) {
	c.mu.Lock()
	defer c.release()
	c.onOrigin(m)
	q := c.stable
	if q == nil || q.nonce != m.Nonce || q.answers[m.From] != nil {
		return
	}
	q.answers[m.From] = m
	if q.count++; q.count == c.group.Quorum() {
		close(q.enough)
		c.stable = nil
	}
}

// receive opens a sealed frame of replica l.id. Replies are returned, to be counted together.
func (l *clientLink) receive(conn *transport.Conn, who *remote, frame []byte) *message.Reply {
	if message.LateReply(frame, l.c.waited) {
		return nil
	}
	switch m := l.c.open(who, frame).(type) {
	case *message.Reply:
		m.From = l.id
		if n := len(m.Answers); n > 0 && m.Answers[n-1].Long() && m.Answers[n-1].Full {
			if a := &m.Answers[n-1]; !who.session.Proves(&who.scratch, &a.Proof, a.Result) {
				l.c.edge.badMAC.Add(1)
				return nil
			}
		}
		return m
	case *message.ReplyStable:
		m.From = l.id
		l.c.onReplyStable(m)
	case nil:
		l.c.resendKey(conn, who, who.session)
	default:
		l.c.edge.unexpected.Add(1)
	}
	return nil
}
