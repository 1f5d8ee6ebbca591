// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// stableAgain is how long a question after the stable checkpoint waits for its answers until it is
// asked again.
const stableAgain = 100 * time.Millisecond

// stableQuestion is a client's question for stable checkpoints, QUERY-STABLE. The question
// for the origin of timestamps has higher nonces. It is under the lock of its wires.
type stableQuestion struct {
	wires *clientWires
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

// ask waits for the answers of a quorum.
func (x *stableQuestion) ask(ctx context.Context) (*stableQuery, error) {
	q, err := x.begin()
	if err != nil {
		return nil, err
	}
	again := time.NewTicker(stableAgain)
	defer again.Stop()
	for asked := false; !asked; {
		x.send(q)
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

// begin begins a question. A later one takes the place of one that nobody waits for any more.
func (x *stableQuestion) begin() (*stableQuery, error) {
	x.wires.mu.Lock()
	defer x.wires.mu.Unlock()
	if x.wires.closed {
		return nil, ErrClosed
	}
	x.nonce++
	answers := make([]*message.ReplyStable, x.wires.group.N())
	q := &stableQuery{nonce: x.nonce, answers: answers, enough: make(chan struct{})}
	x.query = q
	return q, nil
}

// send sends the question to all replicas.
func (x *stableQuestion) send(q *stableQuery) {
	x.wires.mu.Lock()
	defer x.wires.release()
	x.wires.queryStable(1<<x.wires.group.N()-1, q.nonce)
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

// answer counts an answer. The caller holds the lock.
func (x *stableQuestion) answer(m *message.ReplyStable) {
	q := x.query
	if q == nil || q.nonce != m.Nonce || q.answers[m.From] != nil {
		return
	}
	q.answers[m.From] = m
	if q.count++; q.count == x.wires.group.Quorum() {
		close(q.enough)
		x.query = nil
	}
}

// forget drops the answers to a question, if there is one. The question is repeated until
// a quorum has answered. The caller holds the lock.
func (x *stableQuestion) forget() {
	if q := x.query; q != nil {
		clear(q.answers)
		q.count = 0
	}
}

// reading holds a client's questions about the replicas' checkpoints. It is under the
// lock of its wires.
type reading struct {
	wires *clientWires
	stop  <-chan struct{}               // closed when the client is
	tag   uint32                        // of the last FETCH
	waits map[uint32]chan *message.Data // by tag; each takes one answer
	from  map[uint32]ReplicaID          // which replica may give it
}

// Why a checkpoint cannot be read any further.
var (
	errGone   = errors.New("the replica does not keep the checkpoint any longer")
	errSilent = errors.New("the replica does not answer")
)

const (
	fetchAgain  = time.Second            // after which a FETCH is repeated
	wayAgain    = 100 * time.Millisecond // after which it is tried again, if there was no connection
	fetchWithin = 10 * time.Second       // after which its replica counts as silent
	notYetAgain = 5 * time.Millisecond
)

// fetch asks one replica for nodes and pages of a checkpoint, or, without any, for where
// it is: see pageServer.lend.
func (x *reading) fetch(ctx context.Context, i ReplicaID, seq SeqNum, nodes []NodeID) (*message.Data, error) {
	again := time.NewTimer(fetchAgain)
	defer again.Stop()
	late := time.NewTimer(fetchWithin)
	defer late.Stop()
	tag, answer, err := x.begin(i)
	if err != nil {
		return nil, err
	}
	defer x.end(tag)
	for {
		x.wires.mu.Lock()
		if again.Reset(fetchAgain); !x.wires.fetch(i, &message.Fetch{Seq: seq, Tag: tag, Nodes: nodes}) {
			again.Reset(wayAgain)
		}
		x.wires.release()
		select {
		case m := <-answer:
			return m, nil
		case <-again.C:
		case <-late.C:
			return nil, fmt.Errorf("replica %d: %w", i, errSilent)
		case <-x.stop:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (x *reading) begin(i ReplicaID) (uint32, chan *message.Data, error) {
	x.wires.mu.Lock()
	defer x.wires.mu.Unlock()
	if x.wires.closed {
		return 0, nil, ErrClosed
	}
	if x.waits == nil {
		x.waits, x.from = map[uint32]chan *message.Data{}, map[uint32]ReplicaID{}
	}
	x.tag++
	answer := make(chan *message.Data, 1)
	x.waits[x.tag], x.from[x.tag] = answer, i
	return x.tag, answer, nil
}

func (x *reading) end(tag uint32) {
	x.wires.mu.Lock()
	defer x.wires.mu.Unlock()
	delete(x.waits, tag)
	delete(x.from, tag)
}

// answer gives a DATA to the caller that waits for it, which checks the pages against
// their digests.
func (x *reading) answer(m *message.Data) {
	x.wires.mu.Lock()
	defer x.wires.mu.Unlock()
	answer := x.waits[m.Tag]
	if answer == nil || x.from[m.Tag] != m.From {
		return
	}
	select {
	case answer <- m:
	default: // the FETCH has been answered
	}
}

// items asks one replica for nodes and pages of a checkpoint, and returns the contents of
// each, in order.
func (x *reading) items(ctx context.Context, i ReplicaID, seq SeqNum, nodes []NodeID) ([][]byte, error) {
	for began := time.Now(); ; {
		m, err := x.fetch(ctx, i, seq, nodes)
		switch {
		case err != nil:
			return nil, err
		case time.Since(began) > fetchWithin:
			return nil, fmt.Errorf("replica %d: %w", i, errSilent)
		case m.Seq != seq || m.Gone:
			return nil, fmt.Errorf("replica %d: %w", i, errGone)
		case len(m.Items) > 0:
			return inOrder(m, nodes)
		}
		select { // it digests a later checkpoint, and is soon done
		case <-time.After(notYetAgain):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func inOrder(m *message.Data, nodes []NodeID) ([][]byte, error) {
	all := make([][]byte, 0, len(nodes))
	for k, id := range nodes {
		if k >= len(m.Items) || m.Items[k].Node != id {
			return nil, fmt.Errorf("replica %d: %w: it answers without node %d of level %d",
				m.From, errGone, id.Index, id.Level)
		}
		all = append(all, m.Items[k].Bytes)
	}
	return all, nil
}

// askForCheckpoint asks all replicas for a checkpoint, without waiting for answers: the
// caller repeats it.
func (x *reading) askForCheckpoint(target SeqNum) {
	x.wires.mu.Lock()
	defer x.wires.release()
	for i := range x.wires.links {
		x.wires.fetch(ReplicaID(i), &message.Fetch{Seq: target})
	}
}

// reachedBy is a number such that no batch above it was answered before the call. A batch
// that was answered is executed at a quorum, and any two quorums have a correct replica
// in common. The word of one replica alone may be a lie upwards. So it is believed up to
// a window above the number that f+1 replicas have passed, because correct replicas are
// no further apart. The lie then costs a window of null batches.
func (x *reading) reachedBy(ctx context.Context) (SeqNum, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := x.wires.group.N()
	answers := make(chan *message.Data, n)
	for i := range n {
		go func() {
			m, _ := x.fetch(ctx, ReplicaID(i), 0, nil)
			answers <- m
		}()
	}
	var told []SeqNum
	for k := 0; k < n && len(told) < x.wires.group.Quorum(); k++ {
		if m := <-answers; m != nil {
			told = append(told, m.Seq)
		}
	}
	if len(told) < x.wires.group.Quorum() {
		return 0, fmt.Errorf("%d of %d replicas answer, want %d: %w",
			len(told), n, x.wires.group.Quorum(), context.DeadlineExceeded)
	}
	return max(1, reach(told, x.wires.group.Weak(), x.wires.group.Limits.LogSize)), nil
}

// reach returns the highest number that a replica told, bounded by one window above the
// (f+1)th highest: at least one correct replica has come as far as that.
func reach(told []SeqNum, weak int, window SeqNum) SeqNum {
	slices.Sort(told)
	return min(told[len(told)-1], told[len(told)-weak]+window)
}
