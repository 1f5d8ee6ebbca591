// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bfs/test/cluster"
	"bfs/test/patience"
)

// The demo of an intruder comes to its end: files are read right throughout, and the replica is
// healed and says what it found.
func TestDemoIntrude(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root may alter the memory of processes everywhere")
	}
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	p := cluster.NewProcess("demo", filepath.Join(dir, "demo.log"), filepath.Join(bin, "bfsd"), "demo", "--intrude", "--dir", filepath.Join(dir, "demo"))
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	said := func(text string) bool { return strings.Contains(p.LogTail(lines), text) }
	patience.Until(t, "the demo has shown all, or ended", func() bool {
		select {
		case <-p.Ended():
			return true
		default:
			return said("running until ctrl-C")
		}
	})
	if !said("running until ctrl-C") || !said("what it held was not the group's") {
		t.Errorf("the demo said:\n%s", p.LogTail(lines))
	}
	p.Terminate()
}
