// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli/clitest"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/staged"
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
	p := cluster.NewProcess("demo", filepath.Join(dir, "demo.log"), filepath.Join(bin, "bfsd"), "demo",
		"--intrude", "--dir", filepath.Join(dir, "demo"))
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

// A replica may lie only in a directory that the demo has marked for this very group, and only in a
// group whose members are all on the loopback.
func TestLiesBelongToAStagedGroup(t *testing.T) {
	for _, c := range []struct {
		name, hosts string
		mark        bool
		want        string // "": it may
	}{
		{"a demo's", "127.0.0.1:7450,127.0.0.1:7452,127.0.0.1:7454,127.0.0.1:7456", true, ""},
		{"no demo's", "127.0.0.1:7450,127.0.0.1:7452,127.0.0.1:7454,127.0.0.1:7456", false, "is not in a directory of bfsd"},
		{"a member elsewhere", "127.0.0.1:7450,127.0.0.1:7452,127.0.0.1:7454,192.0.2.1:7450", true, "192.0.2.1:7450 is not on this machine's loopback"},
		{"a member with a name", "127.0.0.1:7450,127.0.0.1:7452,127.0.0.1:7454,d.example:7450", true, "d.example:7450 is not on this machine's loopback"},
	} {
		dir := t.TempDir()
		clitest.Run(t, root(), "init", "--hosts", c.hosts, "--out", filepath.Join(dir, "group"))
		file := filepath.Join(bundle.HostDir(filepath.Join(dir, "group"), 3), bundle.ReplicaFile)
		r, err := config.LoadReplica(file)
		if err != nil {
			t.Fatal(err)
		}
		if c.mark {
			mark(t, dir, r.Group)
		}
		for _, p := range []staged.Purpose{staged.Demo, staged.Attack} {
			err := p.Check(file)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s, %s: got %v, want %q", p, c.name, err, c.want)
			}
			if err := os.WriteFile(filepath.Join(dir, string(p)), []byte("0123\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			if err := p.Check(file); err == nil || !strings.Contains(err.Error(), "is not in a directory of bfsd") {
				t.Errorf("%s, %s, with another group's mark: got %v", p, c.name, err)
			}
		}
	}
}

// mark has the group of a directory put up for anything.
func mark(t *testing.T, dir string, g *config.Group) {
	t.Helper()
	for _, p := range []staged.Purpose{staged.Demo, staged.Attack} {
		if err := p.Mark(dir, g); err != nil {
			t.Fatal(err)
		}
	}
}

// One replica lies, and files stay right; the others and the relay count its lies and report no
// other replica. After its recovery it lies no more. The demo ends in order when it is told to.
func TestDemoByzantine(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	dir, bfsd := filepath.Join(t.TempDir(), "demo"), filepath.Join(bin, "bfsd")
	p := cluster.NewProcess("demo", dir+".log", bfsd, "demo", "--byzantine", "--dir", dir)
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	said := func(text string) bool { return strings.Contains(p.LogTail(lines), text) }
	until := func(text string) {
		t.Helper()
		patience.Until(t, "the demo says "+text+", or has ended", func() bool {
			select {
			case <-p.Ended():
				return true
			default:
				return said(text)
			}
		})
		if !said(text) {
			t.Fatalf("the demo said:\n%s", p.LogTail(lines))
		}
	}
	until("running until ctrl-C")
	for _, text := range []string{"was always right", "votes against what committed",
		"say that its checkpoints are not the group's"} {
		if !said(text) {
			t.Errorf("the demo does not say %q", text)
		}
	}
	run := func(args ...string) (string, error) {
		out, err := exec.CommandContext(ctx, bfsd, args...).CombinedOutput()
		return string(out), err
	}
	liar := filepath.Join(dir, "group", "host3", bundle.ReplicaFile)
	if out, err := run("recover", "3", "--config", liar); err != nil {
		t.Fatalf("recover: %v\n%s", err, out)
	}
	until("and lies no more")
	p.Terminate()
	if !said("stopping") || strings.Contains(p.LogTail(lines), "bfsd:") {
		t.Errorf("the demo did not end in order:\n%s", p.LogTail(5))
	}

	// The commands that lie refuse to run anywhere else.
	if err := os.Remove(filepath.Join(dir, string(staged.Demo))); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"lie", "keep-liar"} {
		out, err := run("demo", verb, "--config", liar)
		if err == nil || !strings.Contains(out, "is not in a directory of bfsd") {
			t.Errorf("demo %s outside a demo: %v\n%s", verb, err, out)
		}
	}
}
