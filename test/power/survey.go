// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/patience"
)

// wholeIn bounds the wait for all replicas to take part, on a quiet machine.
const wholeIn = time.Minute

// whole waits until every replica takes part in one view.
func (s *soak) whole(ctx context.Context) error {
	ctx, cancel := patience.Context(ctx, wholeIn)
	defer cancel()
	look := time.NewTicker(20 * lookEvery)
	defer look.Stop()
	for {
		reached, missing := s.survey(ctx)
		if missing == "" && reached == len(s.room.admins()) {
			return nil
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return fmt.Errorf("after %d cuts the group is not whole again: %w; %d replicas are in reach:%s",
				s.cuts.Load(), ctx.Err(), reached, missing)
		}
	}
}

// survey counts the replicas that answer, and says in what they differ from a group that
// is whole.
func (s *soak) survey(ctx context.Context) (reached int, missing string) {
	if ended := s.room.ended(); ended != "" {
		missing = " " + ended + " has ended;"
	}
	views := make(map[pbft.View]bool)
	for i, address := range s.room.admins() {
		x, err := cluster.Status(ctx, address)
		switch {
		case err != nil:
			missing += fmt.Sprintf(" replica %d: %v;", i, err)
			continue
		case x.SilentUntil > 0 || x.Fetching || !x.Active:
			missing += fmt.Sprintf(" replica %d: view %d, active %t, silent until %d, fetching %t;",
				i, x.View, x.Active, x.SilentUntil, x.Fetching)
		}
		reached++
		views[x.View] = true
	}
	if len(views) > 1 {
		missing += fmt.Sprintf(" they are in %d views;", len(views))
	}
	return reached, missing
}

const (
	stateSize       = 96 << 20 // of the group's state, in bytes
	checkpointBytes = 1 << 20
)

// adjust changes all copies of the group file in bundles so that a checkpoint comes after
// 1 MiB: the image on a replica's disk then follows the journal all the time, and a
// replica has little to read when it starts.
func adjust(bundles string) error {
	files, err := filepath.Glob(filepath.Join(bundles, "*", "group.toml"))
	if err != nil {
		return err
	}
	for _, file := range append(files, filepath.Join(bundles, "group.toml")) {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		changed := strings.Replace(string(text), `checkpoint_bytes = "32MiB"`, `checkpoint_bytes = "1MiB"`, 1)
		if changed == string(text) {
			return fmt.Errorf("%s: no line checkpoint_bytes = \"32MiB\"", file)
		}
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			return err
		}
	}
	return nil
}
