// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/cmd/internal/probe"
	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/patience"
)

// After a total loss: docs/OPERATING.md, done by the commands that it names.
func TestAfterATotalLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	w := newWalk(ctx, t)
	relay, err := w.group.AddRelay(ctx, cluster.Client{InsecurePorts: true})
	if err != nil {
		t.Fatal(err)
	}
	w.write("before", 40)
	w.through(relay, "by NFS before")
	archive := w.dir("signed.archive")
	w.run("backup", "--admin", w.old("admin"), "-o", archive)
	w.refuses(1, "nothing is overwritten", "backup", "--admin", w.old("admin"), "-o", archive)
	w.run("verify", archive, "--group", w.old("group.toml"))
	writer := startWriter(ctx, t, fmt.Sprintf("127.0.0.1:%d", relay.Port), relay.Export)
	writer.more(5)
	w.unsigned()
	if err := writer.stop(); err != nil {
		t.Fatal(err)
	}
	w.write("after", 3) // and lost
	w.damages(archive)

	w.through(relay, "by NFS after")
	relay.Kill()
	for _, p := range w.group.Replicas {
		p.Kill()
	}
	for i := range w.group.Replicas {
		if err := os.RemoveAll(w.old(fmt.Sprintf("host%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	w.run("restore", "group", "--admin", w.old("admin"), "--archive", archive, "--out", w.dir("group2"))
	w.begin(archive)
	w.reads("before", 40)
	if _, err := w.mount().Open("after0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that was written after the backup: got %v, want that it does not exist", err)
	}
	w.write("again", 3)
	w.reads("again", 3)
	w.relayAgain(relay)
	w.through(relay, "by NFS again")
	if err := w.status(); err != nil {
		t.Error(err)
	}

	w.withoutBackup()
	home := w.dir("group2", "host2")
	w.refuses(1, "a replica runs in it", "verify", home)
	w.group.Replicas[2].Terminate()
	w.run("verify", home)
	w.run("verify", filepath.Join(home, "state"))
	overwriteFile(t, filepath.Join(home, "state", "disk", "pages"), 4096+17)
	w.refuses(exitDamaged, "is not as it was written", "verify", home)
	w.refuses(1, "remembers of an earlier life",
		"restore", "replica", "--config", filepath.Join(home, "replica.toml"), "--archive", archive)
}

// A walk is a group and a client of it, before the loss and after.
type walk struct {
	ctx   context.Context
	t     *testing.T
	group *cluster.Group
	bin   string
	key   ed25519.PrivateKey
	file  string // the group file
}

func newWalk(ctx context.Context, t *testing.T) *walk {
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	w := &walk{ctx: ctx, t: t, group: cluster.ForTest(t, cluster.Config{}), bin: filepath.Join(bin, "bfsd")}
	if w.key, err = keys.Generate(); err != nil {
		t.Fatal(err)
	}
	w.file = w.old("group.toml")
	w.run("client", "add", "--admin", w.old("admin"), "--key", keys.Public(keys.Of(w.key)).String(),
		"--export", "/export", "--squash", "none")
	return w
}

func (w *walk) dir(parts ...string) string {
	return filepath.Join(append([]string{w.group.Dir}, parts...)...)
}
func (w *walk) old(parts ...string) string { return w.dir(append([]string{"group"}, parts...)...) }

// try runs bfsd to its end.
func (w *walk) try(args ...string) (printed string, code int) {
	w.t.Helper()
	c := exec.CommandContext(w.ctx, w.bin, args...)
	out, err := c.CombinedOutput()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		w.t.Fatal(err)
	}
	return string(out), c.ProcessState.ExitCode()
}

func (w *walk) run(args ...string) string {
	w.t.Helper()
	out, code := w.try(args...)
	if code != 0 {
		w.t.Fatalf("bfsd %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	w.t.Logf("$ bfsd %s\n%s", strings.Join(args, " "), out)
	return out
}

// refuses runs bfsd, which is to end with a code and a reason.
func (w *walk) refuses(code int, why string, args ...string) {
	w.t.Helper()
	if out, got := w.try(args...); got != code || !strings.Contains(out, why) {
		w.t.Errorf("bfsd %s: exit code %d, want %d and %q\n%s", strings.Join(args, " "), got, code, why, out)
	}
}

// mount is the export as a Go program sees it.
func (w *walk) mount() *bfs.FS {
	w.t.Helper()
	g, err := config.LoadGroup(w.file)
	if err != nil {
		w.t.Fatal(err)
	}
	client, err := pbft.NewClient(pbft.ClientConfig{Group: g.Group, Key: w.key})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = client.Close() })
	files, err := bfs.Mount(w.ctx, client, "/export", nfs3.Credentials{})
	if err != nil {
		w.t.Fatal(err)
	}
	return files
}

// contents of file n: some fit into a page, and some do not.
func contents(name string, n int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "%s %d\n", name, n), 1+n*300)
}

func (w *walk) write(name string, files int) {
	w.t.Helper()
	m := w.mount()
	for n := range files {
		if err := m.WriteFile(fmt.Sprintf("%s%d", name, n), contents(name, n), 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
}

// through writes a file through a relay, and reads it.
func (w *walk) through(r *cluster.Relay, name string) {
	w.t.Helper()
	m, err := probe.Mount(w.ctx, fmt.Sprintf("127.0.0.1:%d", r.Port), r.Export)
	if err != nil {
		w.t.Fatal(err)
	}
	defer m.Close()
	f, err := m.Write(w.ctx, name, []byte(name))
	if err != nil {
		w.t.Fatal(err)
	}
	if b, err := m.Read(w.ctx, f); err != nil || string(b) != name {
		w.t.Fatalf("%s: got %q, %v", name, b, err)
	}
}

// relayAgain starts a relay with the new epoch's group file, and with its key, journal
// and anchor of the old one.
func (w *walk) relayAgain(r *cluster.Relay) {
	w.t.Helper()
	text, err := os.ReadFile(w.file)
	if err == nil {
		err = os.WriteFile(filepath.Join(r.Dir, "group.toml"), text, 0o644)
	}
	if err == nil {
		err = r.Start()
	}
	if err == nil {
		err = r.Ready(w.ctx)
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *walk) reads(name string, files int) {
	w.t.Helper()
	m := w.mount()
	for n := range files {
		if b, err := m.ReadFile(fmt.Sprintf("%s%d", name, n)); err != nil || !bytes.Equal(b, contents(name, n)) {
			w.t.Errorf("%s%d: got %d bytes, %v", name, n, len(b), err)
		}
	}
}

// withoutBackup makes the files of a third epoch of what two hosts have on their disks,
// which are at different batches at first.
func (w *walk) withoutBackup() {
	w.t.Helper()
	host := func(i int) string { return w.dir("group2", fmt.Sprintf("host%d", i), "replica.toml") }
	w.refuses(1, "a replica runs in it", "backup", "--config", host(1), "--offline", "-o", w.dir("x"))
	w.group.Replicas[1].Kill()
	w.write("while one is down", 2)
	for i := range w.group.Replicas {
		w.group.Replicas[i].Kill()
	}
	batch := regexp.MustCompile(`checkpoint (\d+)`)
	behind := batch.FindStringSubmatch(w.run("backup", "--config", host(1), "--offline", "-o", w.dir("1.archive")))[1]
	w.run("backup", "--config", host(3), "--offline", "-o", w.dir("3.archive"))
	third := []string{"restore", "group", "--admin", w.dir("group2", "admin"), "--out", w.dir("group3"),
		"--archive", w.dir("1.archive"), "--archive"}
	w.refuses(1, "no 2 hosts have one checkpoint with one root", append(third, w.dir("3.archive"))...)
	w.refuses(1, "no 2 hosts have one checkpoint with one root", append(third, w.dir("1.archive"))...)
	w.run("backup", "--config", host(3), "--offline", "--at", behind, "-o", w.dir("3again.archive"))
	w.run(append(third, w.dir("3again.archive"))...)
	w.refuses(1, "cannot be had", "backup", "--config", host(3), "--offline", "--at", "1000000", "-o", w.dir("x"))
	for _, p := range w.group.Replicas {
		if err := p.Start(); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, p := range w.group.Replicas {
		if err := p.Ready(w.ctx); err != nil {
			w.t.Fatal(err)
		}
	}
}

var rootLine = regexp.MustCompile(`(?m)^  root: +([0-9a-f]{64})$`)

// unsigned makes a backup on a host, without the administrator's key.
func (w *walk) unsigned() {
	w.t.Helper()
	archive, group := w.dir("unsigned.archive"), w.old("group.toml")
	said := w.run("backup", "--config", w.old("host1", "replica.toml"), "-o", archive)
	root := rootLine.FindStringSubmatch(said)
	if root == nil {
		w.t.Fatalf("it names no root:\n%s", said)
	}
	w.refuses(exitNotVouchedFor, "the administrator did not sign it", "verify", archive, "--group", group)
	w.run("verify", archive, "--group", group, "--root", root[1])
	w.refuses(exitDamaged, "want "+strings.Repeat("0", 63)+"1", "verify", archive, "--group", group,
		"--root", strings.Repeat("0", 63)+"1")
	w.refuses(1, "nobody vouches for the archive",
		"restore", "group", "--admin", w.old("admin"), "--archive", archive, "--out", w.dir("x"))
}

// damages changes copies of an archive, each in one way, and has each refused.
func (w *walk) damages(archive string) {
	w.t.Helper()
	whole, err := os.ReadFile(archive)
	if err != nil {
		w.t.Fatal(err)
	}
	for at, why := range map[int]string{
		0: "the certificate", 6: "this is no archive", 11: "the certificate", 110: "the certificate",
		3000: "the certificate", 4096: "block 0", 4104: "block 0", 5000: "block 0", 4096 + 8 + 64*4104: "block 1",
		len(whole) - 20: "block ",
		len(whole) - 16: "the end mark", len(whole) - 1: "the checksum of all blocks",
	} {
		changed := bytes.Clone(whole)
		changed[at] ^= 4
		w.refusesBytes(changed, why)
	}
	w.refusesBytes(whole[:len(whole)-4104], "it was cut short")
	w.refusesBytes(append(bytes.Clone(whole), 0), "something stands behind it")
	w.refusesBytes(nil, "this is no archive")
	w.refusesBytes(make([]byte, len(whole)), "its backup was not completed")
}

func (w *walk) refusesBytes(archive []byte, why string) {
	w.t.Helper()
	file := w.dir("changed.archive")
	if err := os.WriteFile(file, archive, 0o600); err != nil {
		w.t.Fatal(err)
	}
	w.refuses(exitDamaged, why, "verify", file, "--group", w.old("group.toml"))
}

// begin starts the next epoch.
func (w *walk) begin(archive string) {
	w.t.Helper()
	w.file = w.dir("group2", "group.toml")
	for i := range w.group.Replicas {
		file := w.dir("group2", fmt.Sprintf("host%d", i), "replica.toml")
		if i == 0 {
			w.refuses(1, "bfsd restore replica --config", "run", "--config", file)
		}
		w.run("restore", "replica", "--config", file, "--archive", archive)
		p := cluster.NewProcess(fmt.Sprintf("epoch2-%d", i), w.dir(fmt.Sprintf("epoch2-%d.log", i)), w.bin,
			"run", "--config", file)
		w.group.Replicas[i] = p
		if err := p.Start(); err != nil {
			w.t.Fatal(err)
		}
	}
	for _, p := range w.group.Replicas {
		if err := p.Ready(w.ctx); err != nil {
			w.t.Fatal(err)
		}
	}
}

// status waits until all replicas agree.
func (w *walk) status() error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		out, code := w.try("status", "--group", w.file)
		if code == 0 {
			return nil
		}
		select {
		case <-w.ctx.Done():
			return fmt.Errorf("the new epoch is not well:\n%s", out)
		case <-tick.C:
		}
	}
}

// overwriteFile inverts a byte of a file.
func overwriteFile(t *testing.T, name string, at int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, at); err == nil {
		_, err = f.WriteAt([]byte{^b[0]}, at)
	}
	if err != nil {
		t.Fatal(err)
	}
}
