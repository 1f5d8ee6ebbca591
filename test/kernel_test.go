// SPDX-License-Identifier: Apache-2.0

// Package test tests the whole system: real processes, a real kernel's NFS client.
package test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

func TestMain(m *testing.M) { apart.Main(m, cluster.RemoveBinaries) }

// needKernel skips the test if guests cannot boot, or are not asked for, because they
// take minutes.
func needKernel(t *testing.T) {
	t.Helper()
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (make kernel-test) to test with a real kernel's NFS client")
	}
	if err := guest.Available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
}

// The exports of the group under test, and how their clients are enrolled.
const (
	exportMain  = "/export"
	exportSmall = "/small"
	smallQuota  = "32MiB"
	nobody      = 65534
)

// scripts is the directory of the scripts that run in the guest.
func scripts(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("kernel")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// clients are the relays of one group: two serve the same export, one serves it with root
// squashed, and one serves a small export.
type clients struct {
	group                       *cluster.Group
	first, second, squash, tiny *cluster.Relay
}

func newClients(t *testing.T) clients {
	t.Helper()
	g := cluster.ForTest(t, cluster.Config{Durability: "replicated"})
	add := func(c cluster.Client) *cluster.Relay {
		r, err := g.AddRelay(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	return clients{
		group:  g,
		first:  add(cluster.Client{Export: exportMain}),
		second: add(cluster.Client{Export: exportMain}),
		squash: add(cluster.Client{Export: exportMain, Squash: true}),
		tiny:   add(cluster.Client{Export: exportSmall, Quota: smallQuota}),
	}
}

// TestKernel lets a real Linux kernel mount a group of four and work on it; every check of kernel/
// is a subtest. The group is the same for all, and at the end its replicas must hold the same
// state.
func TestKernel(t *testing.T) {
	needKernel(t)
	c := newClients(t)
	c.prepareSquashed(t)
	for _, part := range []struct {
		name    string
		scripts []string
		timeout time.Duration
	}{
		{"files", []string{"names.pl", "users.pl", "data.pl", "space.pl"}, 8 * time.Minute},
		{"two mounts", []string{"exclusive.pl"}, 4 * time.Minute},
		{"trees", []string{"tree.sh"}, 4 * time.Minute},
		{"large directory", []string{"directory.pl"}, 6 * time.Minute},
	} {
		t.Run(part.name, func(t *testing.T) {
			guest.Run(t, c.options(t, part.timeout, part.scripts...))
		})
	}
	if err := c.group.Agree(t.Context(), 4); err != nil {
		t.Error(err)
	}
	t.Run("faults", func(t *testing.T) {
		o := c.options(t, 6*time.Minute, "faults.pl")
		o.Answer = c.faults(t.Context())
		for i := range o.Mounts {
			o.Mounts[i].Options += complainSoon()
		}
		guest.Run(t, o)
	})
	if err := c.group.Agree(t.Context(), 4); err != nil {
		t.Error(err)
	}
}

// prepareSquashed makes a directory where squashed root may write.
func (c clients) prepareSquashed(t *testing.T) {
	t.Helper()
	guest.Run(t, guest.Options{
		Mounts:  mounts(c.first),
		Command: "mkdir $NFS/squashed && chmod 1777 $NFS/squashed",
	})
}

// options run scripts one after the other in one guest, with every relay mounted.
func (c clients) options(t *testing.T, timeout time.Duration, names ...string) guest.Options {
	t.Helper()
	o := guest.Options{
		Mounts:  mounts(c.first, c.second, c.squash, c.tiny),
		Timeout: timeout,
		Env: []string{
			"KERNEL=" + scripts(t), "SQUASHED=/mnt/nfs2/squashed", "SMALL=/mnt/nfs3",
			fmt.Sprintf("ANONYMOUS=%d", nobody), "TREE=" + sourceTree(t),
		},
		Command: runAll(scripts(t), names...),
	}
	if testing.Verbose() {
		o.Output = os.Stdout
	}
	return o
}

// sourceTree is a directory of some hundred files that every machine with Go has.
func sourceTree(t *testing.T) string {
	t.Helper()
	root, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "src", "encoding")
}

// runAll returns a command that runs each script by its interpreter; it fails if one of them fails.
func runAll(dir string, names ...string) string {
	var b strings.Builder
	b.WriteString("rc=0\n")
	for _, name := range names {
		with := "bash"
		if filepath.Ext(name) == ".pl" {
			with = "perl"
		}
		fmt.Fprintf(&b, "%s '%s' || rc=1\n", with, filepath.Join(dir, name))
	}
	b.WriteString("exit $rc\n")
	return b.String()
}

func mounts(relays ...*cluster.Relay) []guest.Mount {
	var m []guest.Mount
	for _, r := range relays {
		m = append(m, guest.Mount{Port: r.Port, Export: r.Export, Options: "nosharecache"})
	}
	return m
}

// complainSoon returns mount options by which a kernel complains, in its log, of a server that has
// not answered a call within three times timeo, in tenths of a second. By default a kernel
// complains after three minutes.
func complainSoon() string {
	const longest = 10 * time.Minute // that the kernel takes
	timeo := min(patience.ForNow(10*time.Second), longest)
	return fmt.Sprintf(",timeo=%d,retrans=2", timeo/(100*time.Millisecond))
}

// faults carries out the requests of faults.pl. All faults are of the same backup,
// because a group of four survives one.
func (c clients) faults(ctx context.Context) guest.Answer {
	backup := c.group.Replicas[2]
	return func(question string) (string, error) {
		switch question {
		case "stop a backup":
			return backup.Name + " is stopped", backup.Signal(syscall.SIGSTOP)
		case "continue the backup":
			return backup.Name + " goes on", backup.Signal(syscall.SIGCONT)
		case "kill a backup":
			backup.Kill()
			return backup.Name + " is dead", nil
		case "restart the backup":
			return backup.Name + " is back", backup.Restart(ctx)
		case "kill the relay with all calls under way":
			return c.first.Name + " is dead", c.killBusy(ctx)
		case "start the relay":
			if err := c.first.Start(); err != nil {
				return "", err
			}
			return c.first.Name + " is back", c.first.Ready(ctx)
		case "restart the relay":
			return c.first.Name + " has restarted", c.first.Restart(ctx)
		}
		return "", fmt.Errorf("nobody knows how to %q", question)
	}
}

// killBusy kills the first relay when each of the guest's workers waits for a call of which
// the group has not said anything. To that end the group, one backup of which is dead, has no
// quorum meanwhile.
func (c clients) killBusy(ctx context.Context) error {
	const workers = 4 // of busy.pl
	other := c.group.Replicas[3]
	if err := other.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	err := c.first.AwaitCalls(ctx, workers)
	if err == nil { // else the workers that are left go on, and the guest says why one failed
		c.first.Kill()
	}
	return errors.Join(err, other.Signal(syscall.SIGCONT))
}

// TestLargerGroups lets a kernel work on groups that survive more faults, and kills as
// many backups as a group survives.
func TestLargerGroups(t *testing.T) {
	needKernel(t)
	for _, n := range []int{7, 10} {
		t.Run(fmt.Sprintf("n=%d", n), func(t *testing.T) {
			g := cluster.ForTest(t, cluster.Config{Replicas: n, Durability: "replicated"})
			relay, err := g.AddRelay(t.Context(), cluster.Client{})
			if err != nil {
				t.Fatal(err)
			}
			o := guest.Options{
				Mounts: mounts(relay),
				Env: []string{
					"KERNEL=" + scripts(t), "TREE=" + sourceTree(t), fmt.Sprintf("FAULTS=%d", (n-1)/3),
				},
				Command: runAll(scripts(t), "larger.pl"),
				Answer:  losses(t.Context(), g),
			}
			o.Mounts[0].Options += complainSoon()
			guest.Run(t, o)
			if err := g.Agree(t.Context(), n); err != nil {
				t.Error(err)
			}
		})
	}
}

// losses carries out the requests of larger.pl: the last backup is killed first, and
// started again last.
func losses(ctx context.Context, g *cluster.Group) guest.Answer {
	var dead []*cluster.Process
	return func(question string) (string, error) {
		switch question {
		case "kill a backup":
			p := g.Replicas[len(g.Replicas)-1-len(dead)]
			p.Kill()
			dead = append(dead, p)
			return p.Name + " is dead", nil
		case "restart a backup":
			p := dead[len(dead)-1]
			dead = dead[:len(dead)-1]
			return p.Name + " is back", p.Restart(ctx)
		}
		return "", fmt.Errorf("nobody knows how to %q", question)
	}
}

// TestGoNFS mounts the group through unmodified go-nfs, beside the relay.
func TestGoNFS(t *testing.T) {
	needKernel(t)
	g := cluster.ForTest(t, cluster.Config{Durability: "replicated"})
	through, err := g.AddGoNFS(t.Context(), cluster.Client{})
	if err != nil {
		t.Fatal(err)
	}
	relay, err := g.AddRelay(t.Context(), cluster.Client{})
	if err != nil {
		t.Fatal(err)
	}
	guest.Run(t, guest.Options{
		Mounts:  mounts(through, relay),
		Env:     []string{"KERNEL=" + scripts(t)},
		Command: runAll(scripts(t), "gonfs.pl"),
	})
}

// TestLibnfs works on a group with libnfs's tools, a second client, which shares no code
// with any kernel.
func TestLibnfs(t *testing.T) {
	for _, tool := range []string{"nfs-ls", "nfs-cp", "nfs-cat"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("NOT RUN: needs %s (Debian package libnfs-utils)", tool)
		}
	}
	g := cluster.ForTest(t, cluster.Config{Durability: "replicated"})
	r, err := g.AddRelay(t.Context(), cluster.Client{InsecurePorts: true})
	if err != nil {
		t.Fatal(err)
	}
	url := func(path string) string {
		return fmt.Sprintf("nfs://127.0.0.1%s/%s?version=3&nfsport=%d&mountport=%d", r.Export, path, r.Port, r.Port)
	}
	want := bytes.Repeat([]byte("what libnfs wrote, libnfs reads\n"), 100_000)
	local := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(local, want, 0o644); err != nil {
		t.Fatal(err)
	}
	tool(t, "nfs-cp", local, url("copied"))
	if got := tool(t, "nfs-cat", url("copied")); !bytes.Equal(got, want) {
		t.Errorf("read back %d bytes that differ from the %d written", len(got), len(want))
	}
	list := tool(t, "nfs-ls", url(""))
	if !strings.Contains(string(list), "copied") || !strings.Contains(string(list), fmt.Sprint(len(want))) {
		t.Errorf("listing shows no file of %d bytes:\n%s", len(want), list)
	}
	g.Replicas[3].Kill()
	if got := tool(t, "nfs-cat", url("copied")); !bytes.Equal(got, want) {
		t.Errorf("with a replica dead, read back %d bytes that differ from the %d written", len(got), len(want))
	}
}

// TestCatchUp stops a backup while the others work. When the backup runs again it must
// catch up, though no client calls any more: by retransmission after a short pause, by
// fetching the state after a long one.
func TestCatchUp(t *testing.T) {
	if _, err := exec.LookPath("nfs-cp"); err != nil {
		t.Skip("NOT RUN: needs nfs-cp (Debian package libnfs-utils)")
	}
	g := cluster.ForTest(t, cluster.Config{Durability: "replicated"})
	r, err := g.AddRelay(t.Context(), cluster.Client{InsecurePorts: true})
	if err != nil {
		t.Fatal(err)
	}
	local := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(local, make([]byte, 10_000), 0o644); err != nil {
		t.Fatal(err)
	}
	files := 0
	for _, sleeps := range []struct {
		name  string
		files int
	}{{"a little", 5}, {"for long", 120}, {"a little again", 5}, {"for long again", 150}} {
		t.Run(sleeps.name, func(t *testing.T) {
			backup := g.Replicas[1]
			if err := backup.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			for range sleeps.files {
				files++
				tool(t, "nfs-cp", local, fmt.Sprintf("nfs://127.0.0.1%s/f%d?version=3&nfsport=%d&mountport=%d",
					r.Export, files, r.Port, r.Port))
			}
			if err := backup.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if err := g.Agree(t.Context(), len(g.Replicas)); err != nil {
				t.Error(err)
			}
		})
	}
}

func tool(t *testing.T, name string, args ...string) []byte {
	t.Helper()
	ctx, cancel := patience.Context(t.Context(), time.Minute)
	defer cancel()
	var errs bytes.Buffer
	c := exec.CommandContext(ctx, name, args...)
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, errs.Bytes())
	}
	return out
}
