package pbft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bfs/pkg/pbft/internal/durable"
)

// Files of a replica's directory.
const (
	fenceFile   = "fence"
	counterFile = "signature.counter"
)

// ErrRuns is the answer to replacing a replica that runs: two with one key are a faulty replica.
var ErrRuns = errors.New("the replica that is to be replaced answers: stop it first, and for good")

// Replace readies an empty directory for a replica whose disk is lost and whose key is not: Group, Self, Key, Directory
// and Transport of cfg count. Without this a replica could vote again for what it voted for before, and say otherwise. It
// returns the fence that it wrote: the replica votes when a checkpoint at or above it is stable.
//
// Requires that the lost replica has stopped for ever. It needs 2f+1 of the others.
func Replace(ctx context.Context, cfg ReplicaConfig) (fence SeqNum, err error) {
	for _, name := range []string{fenceFile, counterFile} {
		if _, err := os.Lstat(filepath.Join(cfg.Directory, name)); !os.IsNotExist(err) {
			return 0, fmt.Errorf("%s holds a file %q: this replica's memory is here, so start it, or name an empty directory", cfg.Directory, name)
		}
	}
	client, err := NewClient(ClientConfig{Group: cfg.Group, Key: cfg.Key, Transport: cfg.Transport, Logger: cfg.Logger})
	if err != nil {
		return 0, err
	}
	defer func() { _ = client.Close() }()
	reached, err := client.reachedBeyond(ctx, cfg.Self)
	if err != nil {
		return 0, err
	}
	if err := os.MkdirAll(cfg.Directory, 0o700); err != nil {
		return 0, err
	}
	// Peers accept a NEW-KEY only if its counter is above all before. Counters begin at 1 and rise by one for each
	// signature, so they never come near the clock's nanoseconds, and a second replacement is above the first.
	counter := binary.LittleEndian.AppendUint64(nil, uint64(time.Now().UnixNano()))
	if err := durable.WriteFile(filepath.Join(cfg.Directory, counterFile), counter); err != nil {
		return 0, err
	}
	f, err := openFence(filepath.Join(cfg.Directory, fenceFile), cfg.Group.Digest())
	if err != nil {
		return 0, err
	}
	fence = reached + 2*cfg.Group.Limits.LogSize
	return fence, f.raise(0, fence)
}

// replaceAgain is the pause before the others are asked again.
const replaceAgain = 200 * time.Millisecond

// reachedBeyond is a number s such that no vote of replica lost is for a number above s+2L, L being the log's size.
//
// It voted up to L above its stable checkpoint. To have that, 2f+1 replicas executed so far, and f correct ones among the
// others did; they executed no further than L above their own. Of these f one is among any 2f+1 of the 3f others, so
// that the highest answer will do. If it is a lie, upwards, the replica would be silent for long: it is believed when
// f+1 of the others have come as far.
func (c *Client) reachedBeyond(ctx context.Context, lost ReplicaID) (s SeqNum, err error) {
	again := time.NewTicker(replaceAgain)
	defer again.Stop()
	for known := false; ; known = true {
		q, err := c.askStable(ctx)
		if err != nil {
			return 0, err
		}
		highest, answered, ok := c.othersStable(q, lost, s)
		switch {
		case !ok:
			return 0, ErrRuns
		case !known:
			s = highest
			_, answered, _ = c.othersStable(q, lost, s)
		}
		if answered >= c.group.Weak() {
			return s, nil
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return 0, fmt.Errorf("one replica says that checkpoint %d is stable, and no other comes so far: %w", s, ctx.Err())
		}
	}
}

// othersStable is the highest answer, and how many are at or above s. Not ok: the lost replica answered.
func (c *Client) othersStable(q *stableQuery, lost ReplicaID, s SeqNum) (highest SeqNum, reached int, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, a := range q.answers {
		switch {
		case a == nil:
			continue
		case ReplicaID(i) == lost:
			return 0, 0, false
		}
		highest = max(highest, a.Seq)
		if a.Seq >= s {
			reached++
		}
	}
	return highest, reached, true
}
