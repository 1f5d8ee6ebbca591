// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"os"
	"path/filepath"
	"testing"

	"bfs/test/apart"
)

func TestMain(m *testing.M) { apart.Main(m) }

// Binaries that were removed are built again, because a measurement asks for them in each round.
func TestBinariesAreBuiltAgain(t *testing.T) {
	t.Setenv("BFS_BIN", "")
	for round := range 2 {
		dir, err := Binaries()
		if err != nil {
			t.Fatal(err)
		}
		bfsd := filepath.Join(dir, "bfsd")
		if _, err := os.Stat(bfsd); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		RemoveBinaries()
		if _, err := os.Stat(bfsd); !os.IsNotExist(err) {
			t.Fatalf("round %d: %s was not removed: %v", round, bfsd, err)
		}
	}
}
