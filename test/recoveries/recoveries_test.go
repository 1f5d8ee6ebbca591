// SPDX-License-Identifier: Apache-2.0

package main

import (
	"math/rand/v2"
	"testing"

	"bfs/pkg/pbft"
	"bfs/test/apart"
	"bfs/test/cluster"
)

func TestMain(m *testing.M) { apart.Main(m, cluster.RemoveBinaries) }

// Replicas recover while clients work, without an intruder and after intrusions in memory
// and on disk. For more rounds: go run ./test/recoveries.
func TestRecoveries(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	s := &soak{seed: rand.Uint64(), base: 2, dir: t.TempDir(), say: t.Logf,
		plan: []string{"", memory, pages, another, rooted}}
	s.rounds = len(s.plan)
	if err := s.run(t.Context()); err != nil {
		t.Errorf("seed %d: %v", s.seed, err)
		if s.group != nil {
			t.Log(s.group.Logs(30))
		}
	}
	if s.done.rounds != s.rounds {
		t.Errorf("%d rounds, want %d", s.done.rounds, s.rounds)
	}
}

// A read of other bytes than the acknowledged ones fails the soak, and so do two roots of one
// checkpoint.
func TestJudges(t *testing.T) {
	if judge("file", []byte("old"), []byte("new"), nil) == nil {
		t.Error("took an old version for the new one")
	}
	if err := judge("file", []byte("new"), []byte("new"), nil); err != nil {
		t.Error(err)
	}
	seen := map[pbft.SeqNum]map[int]string{128: {0: "a", 1: "a", 2: "a"}, 256: {3: "a"}}
	if all, err := agreed(seen); all || err != nil {
		t.Errorf("got %t, %v before all replicas were seen at one checkpoint", all, err)
	}
	seen[128][3] = "a"
	if all, err := agreed(seen); !all || err != nil {
		t.Errorf("got %t, %v, want that all agree", all, err)
	}
	seen[256][0] = "b"
	if _, err := agreed(seen); err == nil {
		t.Error("took two roots for one")
	}
}
