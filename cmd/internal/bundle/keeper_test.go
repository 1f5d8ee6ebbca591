// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"os"
	"path/filepath"
	"testing"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/manifest"
)

// A bundle for a keeper has what its keeper needs, and a manifest that allows the program
// if there is one.
func TestWriteKeeper(t *testing.T) {
	for _, program := range []string{"", os.Args[0]} {
		dir := filepath.Join(t.TempDir(), "group")
		p := testPlan(4)
		p.Keeper, p.Program = true, program
		if err := Write(dir, p); err != nil {
			t.Fatal(err)
		}
		files(t, dir)
		for i := range 4 {
			k, err := config.LoadKeeper(filepath.Join(HostDir(dir, i), ReplicaFile))
			if err != nil {
				t.Fatal(err)
			}
			if k.Period != config.DefaultRecoveryPeriod || (k.Manifest != "") != (program != "") {
				t.Errorf("host %d: got %+v", i, k)
			}
			if program == "" {
				continue
			}
			m, err := manifest.Read(k.Manifest, k.Group.Administrator, k.Group.Digest())
			if err != nil {
				t.Fatal(err)
			}
			if d, err := manifest.OfFile(program); err != nil || !m.Allows(d) || m.Serial != 1 {
				t.Errorf("got %+v, %v: want the program in it", m, err)
			}
		}
		if _, err := os.Stat(filepath.Join(dir, AdminDir, ManifestFile)); (err == nil) != (program != "") {
			t.Errorf("the administrator's copy: %v", err)
		}
	}
}
