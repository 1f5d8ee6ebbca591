// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/message"
)

// ErrRuns is the answer to replacing a replica that runs: two with one key are a faulty replica.
var ErrRuns = errors.New("the replica that is to be replaced answers: stop it first, and for good")

// Replace readies an empty directory for a replica whose disk is lost and whose key is not: Group, Self, Key, Directory
// and Transport of cfg count. Without this a replica could vote again for what it voted for before, and say otherwise. It
// returns the fence that it wrote: the replica votes when a checkpoint at or above it is stable.
//
// Requires that the lost replica has stopped for ever. It needs a quorum of the others.
func Replace(ctx context.Context, cfg ReplicaConfig) (last SeqNum, err error) {
	for _, name := range []string{fenceFile, counterFile} {
		if _, err := os.Lstat(cfg.path(name)); !os.IsNotExist(err) {
			return 0, fmt.Errorf("%s holds a file %q: this replica's memory is here, so start it, or name an empty directory", cfg.Directory, name)
		}
	}
	client, done, err := cfg.newClient()
	if err != nil {
		return 0, err
	}
	defer done()
	reached, view, err := client.reachedBeyond(ctx, cfg.Self)
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return 0, err
	}
	// What the key's signatures count goes on above all that was used [R-PR-4]. Counters begin at 1 and rise by one for each
	// signature, so they never come near the clock's nanoseconds. Peers do not compare them over connections, so a clock that is
	// wrong does no harm.
	if err := cfg.writeCounter(uint64(time.Now().UnixNano())); err != nil {
		return 0, err
	}
	f, err := fence.Open(cfg.path(fenceFile), cfg.Group.Digest())
	if err != nil {
		return 0, err
	}
	last = reached + 2*cfg.Group.Limits.LogSize
	if err := f.Reset(view, last, true); err != nil {
		return 0, err
	}
	return last, cfg.unmark()
}

// replaceAgain is the pause before the others are asked again.
const replaceAgain = 200 * time.Millisecond

// reachedBeyond is a number s such that no vote of replica lost is for a number above s+2L, L being the log's size, and the
// view that it had reached.
//
// It voted up to L above its stable checkpoint. To have that, a quorum executed so far, in which q-1-f correct ones are that are
// not the lost replica; they executed no further than L above their own. One of these is in any quorum of the n-1 others, for
// q-1-f + q > n-1, so that the highest answer will do. If it is a lie, upwards, the replica would be silent for long: it is believed when
// f+1 of the others have come as far.
//
// The view matters because a VIEW-CHANGE of the lost replica may be used yet, and says that it has voted for nothing else.
// Whoever has it tells.
func (c *Client) reachedBeyond(ctx context.Context, lost ReplicaID) (s SeqNum, v View, err error) {
	again := time.NewTicker(replaceAgain)
	defer again.Stop()
	for known := false; ; known = true {
		q, err := c.askStable(ctx)
		if err != nil {
			return 0, 0, err
		}
		others, err := c.others(q, lost)
		if err != nil {
			return 0, 0, err
		}
		if !known {
			for _, a := range others {
				s = max(s, a.Seq)
			}
		}
		reached := 0
		for _, a := range others {
			if a.Seq >= s {
				reached++
			}
		}
		if reached >= c.group.Weak() {
			return s, c.leftFor(others), nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("one replica says that checkpoint %d is stable, and no other comes so far: %w", s, ctx.Err())
		}
	}
}

// leftFor is the highest view that was told, as far as it can be true: a correct replica leaves a view that others
// have begun, and at most f faulty primaries in a row make it go on alone.
func (c *Client) leftFor(others []*message.ReplyStable) View {
	views := make([]View, 0, len(others))
	for _, a := range others {
		views = append(views, a.View)
	}
	slices.Sort(views)
	f := c.group.F()
	common := views[len(views)-1-f]
	return min(views[len(views)-1], common+1+View(f))
}

// others are the answers of all but the lost replica, which must not answer.
func (c *Client) others(q *stableQuery, lost ReplicaID) (all []*message.ReplyStable, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if q.answers[lost] != nil {
		return nil, ErrRuns
	}
	for _, a := range q.answers {
		if a != nil {
			all = append(all, a)
		}
	}
	return all, nil
}
