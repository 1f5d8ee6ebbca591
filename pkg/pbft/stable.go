// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"fmt"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// stableAgain is how long a question after the stable checkpoint waits for its answers until it is
// asked again.
const stableAgain = 100 * time.Millisecond

// stableQuestion is what a client asks with QUERY-STABLE, beside the origin of its timestamps, whose
// nonces are higher.
type stableQuestion struct {
	nonce uint64       // of the last one
	query *stableQuery // the one that waits
}

// stableQuery is a QUERY-STABLE that waits for answers.
type stableQuery struct {
	nonce   uint64
	answers []*message.ReplyStable // by replica
	count   int
	enough  chan struct{} // closed when a quorum has answered
}

// Stable asks a quorum for its stable checkpoint. certified is the highest that f+1 of them
// name, its zero value if they name different ones just now; reached is a number that a correct replica
// among them has come to. A client that remembers a certified checkpoint above reached has to do with a
// group that has lost its state and begun again.
func (c *Client) Stable(ctx context.Context) (certified Certified, reached SeqNum, err error) {
	q, err := c.askStable(ctx)
	if err != nil {
		return certified, 0, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return q.certified(c.group.Weak()), q.reached(c.group.Weak()), nil
}

// askStable waits for the answers of a quorum.
func (c *Client) askStable(ctx context.Context) (*stableQuery, error) {
	q, err := c.newStableQuery()
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(stableAgain)
	defer again.Stop()
	for asked := false; !asked; {
		c.askAll(q)
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

// newStableQuery begins a question. A later one takes the place of one that nobody waits for any more.
func (c *Client) newStableQuery() (*stableQuery, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	c.stable.nonce++
	answers := make([]*message.ReplyStable, c.group.N())
	q := &stableQuery{nonce: c.stable.nonce, answers: answers, enough: make(chan struct{})}
	c.stable.query = q
	return q, nil
}

// askAll sends the question to all replicas.
func (c *Client) askAll(q *stableQuery) {
	c.mu.Lock()
	defer c.release()
	c.wires.queryStable(1<<c.group.N()-1, q.nonce)
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

// onReplyStable counts an answer that was opened in an epoch, and begins the calls that waited for it.
func (c *Client) onReplyStable(m *message.ReplyStable, epoch uint64) {
	c.mu.Lock()
	defer c.release()
	if c.ring.Epoch() != epoch {
		return // it is asked for again
	}
	c.rule.Latest(m.From, m.Nonce, m.Latest)
	c.beginWaiting()
	q := c.stable.query
	if q == nil || q.nonce != m.Nonce || q.answers[m.From] != nil {
		return
	}
	q.answers[m.From] = m
	if q.count++; q.count == c.group.Quorum() {
		close(q.enough)
		c.stable.query = nil
	}
}
