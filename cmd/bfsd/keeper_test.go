// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/probe"
	"bfs/cmd/internal/procs"
	"bfs/cmd/internal/status"
	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/patience"
)

// lines is how much of a keeper's log is looked at: more than a test brings about.
const lines = 100_000

// logged waits until a process has logged the text this many times.
func logged(t *testing.T, p *cluster.Process, text string, times int) {
	t.Helper()
	patience.Until(t, fmt.Sprintf("%s says %q %d times", p.Name, text, times), func() bool {
		return strings.Count(p.LogTail(lines), text) >= times
	})
}

const isReady = "the replica is ready"

var readyPID = regexp.MustCompile(isReady + `".* pid=(\d+)`)

// replicaOf is the process of a keeper's replica that was ready last.
func replicaOf(t *testing.T, p *cluster.Process) int {
	t.Helper()
	all := readyPID.FindAllStringSubmatch(p.LogTail(lines), -1)
	if len(all) == 0 {
		t.Fatalf("%s names no process", p.Name)
	}
	pid, err := strconv.Atoi(all[len(all)-1][1])
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// kill kills a keeper's replica.
func kill(t *testing.T, p *cluster.Process) {
	t.Helper()
	if err := syscall.Kill(replicaOf(t, p), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// A keeper starts its replica again when it is killed, and recovers it when asked. It
// does not start another program in its place, until the administrator's manifest allows
// that one, and takes no older manifest then.
func TestKeeper(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	g := cluster.ForTest(t, cluster.Config{Keeper: "0s"})
	const kept = 3
	g.Replicas[kept].Terminate()
	program := filepath.Join(g.Dir, "bfsd")
	copyFile(t, g.Binary("bfsd"), program, "")
	file := g.ReplicaFile(kept)
	k := cluster.NewProcess("keeper", filepath.Join(g.Dir, "keeper.log"), program, "keeper", "--config", file)
	if err := k.Start(); err != nil {
		t.Fatal(err)
	}
	defer k.Kill()
	if err := k.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	logged(t, k, isReady, 1)
	kill(t, k)
	logged(t, k, isReady, 2)
	if err := g.Agree(ctx, 4); err != nil {
		t.Fatal(err)
	}
	askForRecovery(ctx, t, g, k, kept)
	patience.Until(t, "status shows the keeper, and that it has begun a recovery", func() bool {
		said, _ := g.Command(ctx, "bfsd", "status",
			"--json", "--group", filepath.Join(g.Dir, "group", bundle.GroupFile))
		var r status.Report
		if json.Unmarshal([]byte(said), &r) != nil || len(r.Replicas) <= kept || r.Replicas[kept].Status == nil {
			return false
		}
		k := r.Replicas[kept].Status.Keeper
		return k != nil && k.Silent == "" && !k.Last.IsZero() && k.Counter > 0 && k.Serial == 1 &&
			!k.Manifest.IsZero() && !k.Checked.IsZero()
	})

	manifest := filepath.Join(filepath.Dir(file), bundle.ManifestFile)
	older, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	copyFile(t, g.Binary("bfsd"), program, "something else")
	kill(t, k)
	logged(t, k, "does not allow", 1)
	if _, err := g.Command(ctx, "bfsd", "recover", fmt.Sprint(kept), "--config", file, "--force"); err == nil ||
		!strings.Contains(err.Error(), "does not allow") {
		t.Errorf("recovered with another program: %v", err)
	}
	newer := filepath.Join(g.Dir, "group", bundle.AdminDir, bundle.ManifestFile)
	if said, err := g.Command(ctx, "bfsd", "manifest", "sign", "--admin", filepath.Dir(newer), program); err != nil ||
		!strings.Contains(said, "manifest 2 names 1 programs") {
		t.Fatalf("said %q, %v", said, err)
	}
	copyFile(t, newer, manifest, "")
	logged(t, k, isReady, 4)
	if err := os.WriteFile(manifest, older, 0o644); err != nil {
		t.Fatal(err)
	}
	kill(t, k)
	logged(t, k, "it has serial number 1, and 2 was taken before", 1)
	if err := g.Agree(ctx, 3); err != nil {
		t.Fatal(err)
	}
}

// askForRecovery recovers a replica by hand while all others take part, and checks that
// bfsd refuses while one does not.
func askForRecovery(ctx context.Context, t *testing.T, g *cluster.Group, k *cluster.Process, self int) {
	t.Helper()
	ask := func(args ...string) (string, error) {
		all := append([]string{"recover", fmt.Sprint(self), "--config", g.ReplicaFile(self)}, args...)
		return g.Command(ctx, "bfsd", all...)
	}
	before := replicaOf(t, k)
	if said, err := ask(); err != nil || !strings.Contains(said, "and recovers") {
		t.Fatalf("said %q, %v", said, err)
	}
	logged(t, k, isReady, 3)
	pid := replicaOf(t, k)
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || pid == before || !strings.Contains(string(text), "--recover") {
		t.Errorf("process %d after %d runs %q, %v: want a recovery", pid, before, text, err)
	}
	if _, err := g.Command(ctx, "bfsd", "recover", "0", "--config", g.ReplicaFile(self)); err == nil {
		t.Error("a file of another replica was taken")
	}
	g.Replicas[0].Kill()
	if _, err := ask(); err == nil || !strings.Contains(err.Error(), "not now: replica 0") {
		t.Errorf("recovered while another is away: %v", err)
	}
	if err := g.Replicas[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Replicas[0].Ready(ctx); err != nil {
		t.Fatal(err)
	}
}

// copyFile replaces a file by a copy of another one, with something added.
func copyFile(t *testing.T, from, to, more string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", append(text, more...), 0o755)
	}
	if err == nil {
		err = os.Rename(to+".new", to)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A replica that finds that its state is not the group's stops, and its keeper starts the
// next process as a recovery that believes nothing of what the replica has on its disk,
// without being asked. The replica is healed then.
func TestKeeperRecoversAFalseReplica(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root may alter the memory of processes everywhere")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	g := cluster.ForTest(t, cluster.Config{Keeper: "0s"})
	relay, err := g.AddRelay(ctx, cluster.Client{InsecurePorts: true})
	if err != nil {
		t.Fatal(err)
	}
	c, err := probe.Mount(ctx, fmt.Sprintf("127.0.0.1:%d", relay.Port), relay.Export)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const victim, page = 2, 4096
	text := bytes.Repeat(written, 4*page/len(written))
	file, err := c.Write(ctx, "false.txt", text)
	if err != nil {
		t.Fatal(err)
	}
	k := g.Replicas[victim]
	logged(t, k, isReady, 1)
	switch places, err := procs.AlterMemory(replicaOf(t, k), written, altered); {
	case errors.Is(err, fs.ErrPermission):
		t.Skipf("NOT RUN: the kernel lets nobody alter the memory of a process: %v", err)
	case err != nil || places == 0:
		t.Fatalf("altered %d places: %v", places, err)
	}
	for at := 0; at < len(text); at += page { // a changed page is digested again
		text[at] = 'T'
		if err := c.WriteAt(ctx, file, uint64(at), text[at:at+1]); err != nil {
			t.Fatal(err)
		}
	}
	w := startWriter(ctx, t, fmt.Sprintf("127.0.0.1:%d", relay.Port), relay.Export) // which brings about checkpoints
	logged(t, k, "this replica's memory is false", 1)
	logged(t, k, "recovery=true", 1)
	logged(t, k, "this replica has recovered", 1)
	logged(t, k, "corrupt=true", 1)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if err := g.Agree(ctx, 4); err != nil {
		t.Fatal(err)
	}
	g.Replicas[0].Kill() // so that the healed one is needed
	if got, err := c.Read(ctx, file); err != nil || !bytes.Equal(got, text) {
		t.Errorf("read %d bytes that are not what was written, %v", len(got), err)
	}
}

// keptGroup starts replicas with keepers, which recover each once in a period, a relay, and a
// writer through it.
func keptGroup(ctx context.Context, t *testing.T, period string) (*cluster.Group, *cluster.Relay, *writer) {
	t.Helper()
	g := cluster.ForTest(t, cluster.Config{Keeper: period})
	relay, err := g.AddRelay(ctx, cluster.Client{InsecurePorts: true})
	if err != nil {
		t.Fatal(err)
	}
	return g, relay, startWriter(ctx, t, fmt.Sprintf("127.0.0.1:%d", relay.Port), relay.Export)
}

// A replica that has lost its directory, or its fence alone, is recovered by its
// keeper, without being asked, and the group needs it then.
func TestKeeperRecoversALostDirectory(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	g, relay, w := keptGroup(ctx, t, "0s")
	const victim = 2
	c, err := config.LoadReplica(g.ReplicaFile(victim))
	if err != nil {
		t.Fatal(err)
	}
	k := g.Replicas[victim]
	for i, lost := range []string{filepath.Join(c.Directory, "fence"), c.Directory} {
		logged(t, k, isReady, i+1)
		until(ctx, t, c.Group, victim, "has voted", func(s *pbft.Status) bool { return s.Stable > 0 })
		kill(t, k)
		if err := os.RemoveAll(lost); err != nil {
			t.Fatal(err)
		}
		logged(t, k, "this replica has no memory", i+1)
		logged(t, k, "this replica has recovered", i+1)
	}
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if err := g.Agree(ctx, 4); err != nil {
		t.Fatal(err)
	}
	g.Replicas[0].Kill() // three are left, and nothing is executed without the one that was recovered
	w = startWriter(ctx, t, fmt.Sprintf("127.0.0.1:%d", relay.Port), relay.Export)
	w.more(5)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
}

// All replicas are recovered in their turns while a client writes, and it notices nothing.
func TestRecoverySchedule(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	g, _, w := keptGroup(ctx, t, "12s")
	for _, k := range g.Replicas {
		logged(t, k, "recovering the replica", 1)
		logged(t, k, "this replica has recovered", 1)
	}
	w.more(10)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if err := g.Agree(ctx, 4); err != nil {
		t.Error(err)
	}
}

// A keeper that root starts runs its replica as another user, who cannot read the key. A third user
// gets nothing from the keeper.
func TestKeeperUser(t *testing.T) {
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	if os.Geteuid() != 0 {
		t.Skip("NOT RUN: only root can start a process as another user")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	g := cluster.ForTest(t, cluster.Config{Keeper: "0s"})
	const kept, nobody, stranger = 2, 65534, 65533
	for _, file := range []string{g.Binary("bfsd"), g.ReplicaFile(kept)} {
		pass(t, file)
	}
	g.Replicas[kept].Terminate()
	file := g.ReplicaFile(kept)
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(strings.Replace(string(text), `keeper_user = ""`,
			`keeper_user = "nobody"`, 1)), 0o644)
	}
	if err == nil {
		err = filepath.WalkDir(filepath.Join(filepath.Dir(file), bundle.StateDir),
			func(path string, _ fs.DirEntry, err error) error {
				if err != nil {
					return err
				}
				return os.Lchown(path, nobody, nobody)
			})
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Replicas[kept].Start(); err != nil {
		t.Fatal(err)
	}
	if err := g.Replicas[kept].Ready(ctx); err != nil {
		t.Fatal(err)
	}
	if err := g.Agree(ctx, 4); err != nil {
		t.Fatal(err)
	}
	logged(t, g.Replicas[kept], isReady, 2)
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", replicaOf(t, g.Replicas[kept])))
	if err != nil || !regexp.MustCompile(`(?m)^Uid:\s+65534\s+65534\s+65534\s+65534$`).Match(status) ||
		!regexp.MustCompile(`(?m)^CapPrm:\s+0+$`).Match(status) ||
		!regexp.MustCompile(`(?m)^Groups:\s*$`).Match(status) {
		t.Errorf("the replica is not another user without rights: %v\n%s", err, status)
	}
	as := func(user uint32, args ...string) string {
		c := exec.CommandContext(ctx, g.Binary("bfsd"), args...)
		c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
		said, err := c.CombinedOutput()
		if err == nil {
			t.Errorf("user %d: %v is allowed", user, args)
		}
		return string(said)
	}
	for _, user := range []uint32{nobody, stranger} {
		said := as(user, "recover", fmt.Sprint(kept), "--config", file)
		if !strings.Contains(said, fmt.Sprintf("user %d may not ask for this", user)) {
			t.Errorf("user %d hears %q", user, said)
		}
		if said := as(user, "keeper", "--config", file); !strings.Contains(said, "identity.key: permission denied") {
			t.Errorf("user %d as keeper hears %q", user, said)
		}
	}
}

// pass lets every user pass the directories of the test's own on the way to a file.
func pass(t *testing.T, file string) {
	t.Helper()
	for dir := filepath.Dir(file); dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err == nil && info.Mode().Perm()&0o011 == 0 {
			if err := os.Chmod(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
	}
}
