// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"bfs/cmd/internal/keys"
	"bfs/test/cluster"
	"bfs/test/patience"
)

// An operator types commands at a group of real processes.
type operator struct {
	t   *testing.T
	ctx context.Context
	g   *cluster.Group
}

func startOperator(t *testing.T) *operator {
	t.Helper()
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	t.Cleanup(cancel)
	return &operator{t, ctx, cluster.ForTest(t, cluster.Config{})}
}

func (o *operator) path(parts ...string) string {
	return filepath.Join(append([]string{o.g.Dir, "group"}, parts...)...)
}

// admin runs a command of the administrator.
func (o *operator) admin(args ...string) (string, error) {
	return o.g.Command(o.ctx, "bfsd", append(args, "--admin", o.path("admin"))...)
}

func (o *operator) must(args ...string) string {
	o.t.Helper()
	out, err := o.admin(args...)
	if err != nil {
		o.t.Fatal(err)
	}
	return out
}

// refused runs a command that must fail and name the cause.
func (o *operator) refused(want string, args ...string) {
	o.t.Helper()
	if out, err := o.admin(args...); err == nil || !strings.Contains(err.Error(), want) {
		o.t.Errorf("%v: got %s%v, want %q", args, out, err, want)
	}
}

func newKey(t *testing.T) string {
	t.Helper()
	key, err := keys.Generate()
	if err != nil {
		t.Fatal(err)
	}
	return keys.Public(keys.Of(key)).String()
}

func (o *operator) exports() map[string]exportJSON {
	o.t.Helper()
	var list exportList
	if err := json.Unmarshal([]byte(o.must("export", "list", "--json")), &list); err != nil {
		o.t.Fatal(err)
	}
	all := map[string]exportJSON{}
	for _, e := range list.Exports {
		all[e.Path] = e
	}
	return all
}

// A command on clients or exports that is refused changes nothing, one that succeeds does
// all it should, and the lists show it.
func TestExportsAndClients(t *testing.T) {
	o := startOperator(t)
	key, other := newKey(t), newKey(t)
	if e := o.exports()["/export"]; e.Mode != "1777" {
		t.Errorf("the first export: got mode %s, want one in which clients can write", e.Mode)
	}
	o.must("client", "add", "--key", key, "--name", "laptop")
	if out := o.must("client", "add", "--key", key); !strings.Contains(out, "already") {
		t.Errorf("the same again: got %q", out)
	}
	o.refused("enrolled with other rights", "client", "add", "--key", key, "--export", "/new", "--create-export")
	o.refused("bfsd export set /export", "client", "add", "--key", other, "--quota", "10MiB")
	o.refused("bfsd export set /export", "client", "add", "--key", other, "--export", "/new", "--export", "/export",
		"--create-export", "--owner", "1:1")
	o.refused("--create-export", "client", "add", "--key", other, "--export", "/new")
	o.refused("called laptop", "client", "add", "--key", other, "--name", "laptop")
	if all := o.exports(); len(all) != 1 {
		t.Errorf("refused commands left exports behind: %v", all)
	}
	o.must("client", "add", "--key", other, "--export", "/new", "--export", "/export", "--create-export")
	o.must("export", "add", "/ledger", "--owner", "1000:100", "--mode", "0750", "--quota", "1MiB")
	o.refused("bfsd export set /ledger", "export", "add", "/ledger")
	if e := o.exports()["/ledger"]; e.Mode != "0750" || e.UID != 1000 || e.GID != 100 || e.QuotaBytes != 1<<20 {
		t.Errorf("made: got %+v", e)
	}
	o.must("export", "set", "/ledger", "--quota", "2MiB", "--mode", "0700")
	if e := o.exports()["/ledger"]; e.Mode != "0700" || e.UID != 1000 || e.QuotaBytes != 2<<20 {
		t.Errorf("changed: got %+v", e)
	}
	o.must("export", "remove", "/ledger")
	o.refused("there is no export /ledger", "export", "remove", "/ledger")
	var list clientList
	if err := json.Unmarshal([]byte(o.must("client", "list", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	names := map[string]clientJSON{}
	for _, c := range list.Clients {
		names[c.Key] = c
	}
	if names[key].Name != "laptop" || len(names[other].Grants) != 2 ||
		!strings.HasPrefix(names[other].Name, "client-") {
		t.Errorf("clients: got %+v", list)
	}
	o.must("client", "revoke", "--name", "laptop")
	o.refused("no enrolled client is called laptop", "client", "revoke", "--name", "laptop")
}

// status runs bfsd status and returns its exit code and its output.
func (o *operator) status(args ...string) (code int, out string) {
	o.t.Helper()
	out, err := o.g.Command(o.ctx, "bfsd", append([]string{"status", "--group", o.path("group.toml")}, args...)...)
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		o.t.Fatal(err)
	}
	if exit != nil {
		code = exit.ExitCode()
	}
	return code, out
}

// until waits until status ends with a code.
func (o *operator) until(want int, args ...string) string {
	o.t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		code, out := o.status(args...)
		if code == want {
			return out
		}
		select {
		case <-tick.C:
		case <-o.ctx.Done():
			o.t.Fatalf("status %v never ends with %d; the last was %d:\n%s", args, want, code, out)
		}
	}
}

// Signals, and the output of status for a group that loses one replica after another.
func TestSignalsAndStatus(t *testing.T) {
	o := startOperator(t)
	o.until(0)
	if out := o.until(0, "--can-stop", "0"); !strings.Contains(out, "yes: replica 0 may be stopped") {
		t.Errorf("can-stop: got %q", out)
	}
	if err := o.g.Replicas[1].Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(o.g.Replicas[1].LogTail(100), "SIGHUP is ignored") {
		if o.ctx.Err() != nil {
			t.Fatalf("SIGHUP has no line in the log:\n%s", o.g.Replicas[1].LogTail(20))
		}
		o.status()
	}
	o.must("client", "add", "--key", newKey(t))
	o.g.Replicas[0].Terminate()
	log := o.g.Replicas[0].LogTail(100)
	if !strings.Contains(log, "this replica hands over before it stops") || strings.Contains(log, "err=<nil>") ||
		strings.Contains(log, "replica lost") {
		t.Errorf("the log of a primary that was told to stop:\n%s", log)
	}
	if out := o.until(2); !strings.Contains(out, "works on its reserve") {
		t.Errorf("one is down: got\n%s", out)
	}
	out := o.until(1, "--can-stop", "1")
	if !strings.Contains(out, "replica 0 does not answer") || !strings.Contains(out, "are needed") {
		t.Errorf("can-stop: got %q", out)
	}
	if err := o.g.Replicas[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := o.g.Replicas[0].Ready(o.ctx); err != nil {
		t.Fatal(err)
	}
	o.g.Replicas[1].Kill()
	o.g.Replicas[2].Kill()
	if out := o.until(1); !strings.Contains(out, "is DOWN") {
		t.Errorf("two are down: got\n%s", out)
	}
}

// A replica whose directory was lost does not start, and names the next step.
func TestLostDirectory(t *testing.T) {
	o := startOperator(t)
	home := o.path("host2")
	o.g.Replicas[2].Kill()
	if err := os.RemoveAll(filepath.Join(home, "state")); err != nil {
		t.Fatal(err)
	}
	out, err := o.g.Command(o.ctx, "bfsd", "run", "--config", filepath.Join(home, "replica.toml"))
	if err == nil || !strings.Contains(err.Error(), "bfsd replica replace --config") {
		t.Errorf("got %s%v, want a refusal that names bfsd replica replace", out, err)
	}
}
