// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/status"
	"bfs/pkg/pbft"
)

// lookEvery is how often a replica is asked while something is awaited.
const lookEvery = 10 * time.Millisecond

// start starts a replica, which is down, as the offender that it is if it is one. Its output is
// appended to its log.
func (g *fileGroup) start(i int, more ...string) (err error) {
	name := fmt.Sprintf("replica%d", i)
	command := []string{"run"}
	if offence := g.setup.Offences[i]; offence != "" {
		command = []string{"bench", "offend-replica", offence}
	}
	command = append(command, "--config", filepath.Join(bundle.HostDir(g.dir, i), bundle.ReplicaFile))
	r, err := procs.Start(name, filepath.Join(g.setup.Dir, name+".log"), g.setup.Program, append(command, more...)...)
	if err == nil {
		g.replicas[i] = r
	}
	return err
}

// whole waits until all replicas but the dead ones, which are the last, take part, and names the
// primary.
func (g *fileGroup) whole(ctx context.Context, dead int) (primary int, err error) {
	for {
		report := status.Ask(ctx, g.group)
		if s := report.Replicas[0].Status; s != nil && report.Agreeing == report.Members-dead {
			return int(s.Primary), nil
		}
		if err := pause(ctx, lookEvery*10); err != nil {
			return 0, fmt.Errorf("the group is not whole: %w", err)
		}
	}
}

// takesPart waits until a replica that was restarted votes again.
func (g *fileGroup) takesPart(ctx context.Context, i int) error {
	return g.await(ctx, i, "does not take part", func(s *admin.ReplicaStatus) bool {
		return s.Active && !s.Fetching && s.SilentUntil == 0
	})
}

// recovered waits until a replica says that its recovery is over.
func (g *fileGroup) recovered(ctx context.Context, i int) (r pbft.Recovery, err error) {
	err = g.await(ctx, i, "has not recovered", func(s *admin.ReplicaStatus) bool {
		r = s.Recovery
		return r.Ended
	})
	return r, err
}

// await asks a replica for its status until the condition holds; missing names it for the error.
func (g *fileGroup) await(ctx context.Context, i int, missing string, is func(*admin.ReplicaStatus) bool) error {
	child := g.replicas[i]
	for {
		if s, err := status.AskOne(ctx, g.group, i); err == nil && is(s) {
			return nil
		}
		select {
		case <-child.Exited():
			return child.Failure()
		case <-ctx.Done():
			return fmt.Errorf("replica %d %s: %w", i, missing, ctx.Err())
		case <-time.After(lookEvery):
		}
	}
}

// pause waits, unless ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
