// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft"
)

// checkpoints is the part of a pbft.Client that an Anchor needs.
type checkpoints interface {
	Stable(ctx context.Context) (certified pbft.Certified, reached pbft.SeqNum, err error)
}

// An Anchor is the last certified root that a relay saw, kept on the relay's own disk. A
// group that is behind it has lost its state, or was made to lose it: an attacker who
// owns enough hosts to begin the group anew does not own this machine's file.
//
// The file is one line: the digest of the group file, the checkpoint's number, its root.
// With another group file, which only the administrator can make, the anchor begins anew.
type Anchor struct {
	path  string
	group string
	last  pbft.Certified
	log   *slog.Logger
}

// ErrRolledBack says that the group is behind a checkpoint that this relay has seen certified.
var ErrRolledBack = errors.New("the group has rolled back behind a state that this relay has seen certified")

// How long a group may take at the start to reach the anchor (replicas may be fetching),
// and how often it is raised.
const (
	anchorPatience = 30 * time.Second
	anchorEvery    = 5 * time.Second
)

// OpenAnchor reads the file at path, if there is one.
func OpenAnchor(path string, group *pbft.Group, log *slog.Logger) (*Anchor, error) {
	digest := group.Digest()
	a := &Anchor{path: path, group: hex.EncodeToString(digest[:]), log: log}
	b, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		return a, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read anchor: %w", err)
	}
	var of, root string
	if n, err := fmt.Sscanf(string(b), "%64s %d %64s\n", &of, &a.last.Seq, &root); n != 3 || err != nil {
		return nil, fmt.Errorf("anchor %s: want a line of group digest, number and root: restore it, or "+
			"remove it if you trust the group as it is now", path)
	}
	if _, err := hex.Decode(a.last.Root[:], []byte(root)); err != nil {
		return nil, fmt.Errorf("anchor %s: the root is not hexadecimal: restore the file, or remove it if "+
			"you trust the group as it is now", path)
	}
	if of != a.group {
		a.last = pbft.Certified{}
	}
	return a, nil
}

// Check waits until the group has come as far as the anchor, and refuses one that does not.
func (a *Anchor) Check(ctx context.Context, g checkpoints) error {
	if a.last.Seq == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, anchorPatience)
	defer cancel()
	var seen pbft.SeqNum
	answered := false
	for {
		certified, reached, err := g.Stable(ctx)
		switch {
		case err == nil && certified.Seq == a.last.Seq && certified.Root != a.last.Root:
			return fmt.Errorf("%w: checkpoint %d has another root than the one in %s",
				ErrRolledBack, a.last.Seq, a.path)
		case err == nil && reached >= a.last.Seq:
			return nil
		case err == nil:
			seen, answered = reached, true
		}
		select {
		case <-ctx.Done():
			if !answered {
				return fmt.Errorf("fewer replicas than a quorum said where the group is, so it may be "+
					"behind checkpoint %d in %s: %w", a.last.Seq, a.path, ctx.Err())
			}
			return fmt.Errorf("%w: it is at checkpoint %d, %s says %d. Ask the administrator; if it was "+
				"begun anew on purpose, remove the file", ErrRolledBack, seen, a.path, a.last.Seq)
		case <-time.After(anchorEvery / 10):
		}
	}
}

// Run raises the anchor as the group goes on, until ctx is done.
func (a *Anchor) Run(ctx context.Context, g checkpoints) {
	t := time.NewTicker(anchorEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		ask, cancel := context.WithTimeout(ctx, anchorEvery)
		certified, _, err := g.Stable(ask)
		cancel()
		if err != nil || certified.Seq <= a.last.Seq {
			continue
		}
		a.last = certified
		if err := a.write(); err != nil {
			a.log.Warn("cannot keep the certified root: a rollback of the group after a restart "+
				"of this relay may go unnoticed", "err", err)
		}
	}
}

func (a *Anchor) write() error {
	var line strings.Builder
	fmt.Fprintf(&line, "%s %d %s\n", a.group, a.last.Seq, hex.EncodeToString(a.last.Root[:]))
	return durable.WriteFile(a.path, []byte(line.String()))
}
