// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"fmt"
	"time"

	"bfs/pkg/pbft/internal/executor"
)

// Stable asks a quorum for its stable checkpoint. certified is the highest that f+1 of
// them name, its zero value if they name different ones just now; reached is a number that
// a correct replica among them has come to. A client that remembers a certified checkpoint
// above reached has to do with a group that has lost its state and begun again.
func (c *Client) Stable(ctx context.Context) (certified Certified, reached SeqNum, err error) {
	q, err := c.stable.ask(ctx)
	if err != nil {
		return certified, 0, err
	}
	c.wires.mu.Lock()
	defer c.wires.mu.Unlock()
	return q.certified(c.group.Weak()), q.reached(c.group.Weak()), nil
}

// await returns a certified checkpoint of all calls that were answered before. It makes
// the group take one if need be.
func (c *Client) await(ctx context.Context) (Certified, error) {
	target, err := c.reading.reachedBy(ctx)
	if err != nil {
		return Certified{}, err
	}
	for began := time.Now(); ; {
		c.reading.askForCheckpoint(target)
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

// pushAfter is how long a primary has to fill an idle group before the administrator's
// own operations do it: a primary that ignores these is replaced. (A variable for tests.)
var pushAfter = 3 * time.Second

// push makes the group execute one batch that changes nothing, if the group executes
// anything at all. A member's client cannot do that.
func (c *Client) push(ctx context.Context) {
	_, _ = wait(ctx, func(done func([]byte, error)) error {
		return c.begin(Call{Body: []byte{executor.AdminList, 0, 0, 0}, Done: done})
	})
}
