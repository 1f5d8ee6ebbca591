// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
)

// reading is what a client asks replicas of their checkpoints.
type reading struct {
	tag   uint32                        // of the last FETCH
	waits map[uint32]chan *message.Data // by tag; each takes one answer
	from  map[uint32]ReplicaID          // who may give it
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

// fetch asks one replica for nodes and pages of a checkpoint, or, without any, for where it is: see Replica.lend.
func (c *Client) fetch(ctx context.Context, i ReplicaID, seq SeqNum, nodes []NodeID) (*message.Data, error) {
	again := time.NewTimer(fetchAgain)
	defer again.Stop()
	late := time.NewTimer(fetchWithin)
	defer late.Stop()
	tag, answer, err := c.beginFetch(i)
	if err != nil {
		return nil, err
	}
	defer c.endFetch(tag)
	for {
		c.mu.Lock()
		if again.Reset(fetchAgain); !c.wires.fetch(i, &message.Fetch{Seq: seq, Tag: tag, Nodes: nodes}) {
			again.Reset(wayAgain)
		}
		c.release()
		select {
		case m := <-answer:
			return m, nil
		case <-again.C:
		case <-late.C:
			return nil, fmt.Errorf("replica %d: %w", i, errSilent)
		case <-c.stop:
			return nil, ErrClosed
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *Client) beginFetch(i ReplicaID) (uint32, chan *message.Data, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	x := &c.reading
	if c.closed {
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

func (c *Client) endFetch(tag uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.reading.waits, tag)
	delete(c.reading.from, tag)
}

// onData gives an answer to who waits for it. Its pages are believed for their digests only.
func (c *Client) onData(m *message.Data) {
	c.mu.Lock()
	defer c.mu.Unlock()
	answer := c.reading.waits[m.Tag]
	if answer == nil || c.reading.from[m.Tag] != m.From {
		return
	}
	select {
	case answer <- m:
	default: // it has been answered
	}
}

// readItems asks one replica for nodes and pages of a checkpoint, and returns the contents of each, in order.
func (c *Client) readItems(ctx context.Context, i ReplicaID, seq SeqNum, nodes []NodeID) ([][]byte, error) {
	for began := time.Now(); ; {
		m, err := c.fetch(ctx, i, seq, nodes)
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
			return nil, fmt.Errorf("replica %d: %w: it answers without node %d of level %d", m.From, errGone, id.Index, id.Level)
		}
		all = append(all, m.Items[k].Bytes)
	}
	return all, nil
}

// await has the group take a checkpoint of all that was answered before, if need be, and returns that
// checkpoint, certified.
func (c *Client) await(ctx context.Context) (Certified, error) {
	target, err := c.reachedBy(ctx)
	if err != nil {
		return Certified{}, err
	}
	for began := time.Now(); ; {
		c.askForCheckpoint(target)
		certified, _, err := c.Stable(ctx)
		if err != nil || certified.Seq >= target {
			return certified, err
		}
		if c.wires.id == Administrator && time.Since(began) > pushAfter {
			c.push(ctx)
			continue
		}
		select {
		case <-time.After(stableAgain):
		case <-ctx.Done():
			return Certified{}, fmt.Errorf("a checkpoint of batch %d does not become stable: %w", target, ctx.Err())
		}
	}
}

// pushAfter is how long a primary has to fill an idle group before the administrator's own operations do it: a
// primary that ignores these is replaced. (A variable for tests.)
var pushAfter = 3 * time.Second

// push has the group execute one batch that changes nothing, if it executes anything. A member's client cannot do that.
func (c *Client) push(ctx context.Context) {
	_, _ = wait(ctx, func(done func([]byte, error)) error {
		return c.begin(Call{Body: []byte{executor.AdminList, 0, 0, 0}, Done: done})
	})
}

// askForCheckpoint asks all replicas, and waits for nobody: it is asked again.
func (c *Client) askForCheckpoint(target SeqNum) {
	c.mu.Lock()
	defer c.release()
	for i := range c.wires.links {
		c.wires.fetch(ReplicaID(i), &message.Fetch{Seq: target})
	}
}

// reachedBy is a number such that no batch above it was answered before the call. One that was is executed at a
// quorum, and any two quorums have a correct replica in common. What one replica says alone may be a lie,
// upwards: so it is believed no further than a window above what f+1 replicas have passed, which is as far as
// replicas can be apart, and then costs as many null batches.
func (c *Client) reachedBy(ctx context.Context) (SeqNum, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	n := c.group.N()
	answers := make(chan *message.Data, n)
	for i := range n {
		go func() {
			m, _ := c.fetch(ctx, ReplicaID(i), 0, nil)
			answers <- m
		}()
	}
	var told []SeqNum
	for k := 0; k < n && len(told) < c.group.Quorum(); k++ {
		if m := <-answers; m != nil {
			told = append(told, m.Seq)
		}
	}
	if len(told) < c.group.Quorum() {
		return 0, fmt.Errorf("%d of %d replicas answer, want %d: %w", len(told), n, c.group.Quorum(), context.DeadlineExceeded)
	}
	return max(1, reach(told, c.group.Weak(), c.group.Limits.LogSize)), nil
}

// reach is the highest number told, as far as it can be true.
func reach(told []SeqNum, weak int, window SeqNum) SeqNum {
	slices.Sort(told)
	return min(told[len(told)-1], told[len(told)-weak]+window)
}
