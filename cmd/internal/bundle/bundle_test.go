// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

func testPlan(n int) Plan {
	return Plan{
		Name: "test", Hosts: Loopback(n, 7450), Exports: []string{"/export", "/home"}, Size: 1 << 30,
		Limits:    pbft.DefaultLimits(),
		Transport: pbft.TransportTLS, Durability: pbft.DurabilityReplicated, Window: 2,
	}
}

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "group")
	before := time.Now().Truncate(time.Second)
	if err := Write(dir, testPlan(4)); err != nil {
		t.Fatal(err)
	}
	want := []string{"admin/admin.key", "admin/group.toml", "group.toml"}
	for _, h := range []string{"host0", "host1", "host2", "host3"} {
		want = append(want, h+"/group.toml", h+"/identity.key", h+"/replica.toml", h+"/state/fresh")
	}
	if got := files(t, dir); !slices.Equal(got, want) {
		t.Errorf("got files %v, want %v", got, want)
	}
	for i := range 4 {
		r, err := config.LoadReplica(filepath.Join(HostDir(dir, i), ReplicaFile))
		if err != nil {
			t.Fatal(err)
		}
		if int(r.Self) != i || r.AdminListen != r.Group.Admin[i] || r.Group.State.Size != 1<<30 ||
			len(r.Group.Exports) != 2 {
			t.Errorf("host %d: got %+v", i, r)
		}
		if c := r.Group.State.Created; c.Before(before) || c.After(time.Now()) {
			t.Errorf("created: got %v, want now", c)
		}
		if r.Group.Limits != pbft.DefaultLimits() {
			t.Errorf("limits: got %+v, want the defaults", r.Group.Limits)
		}
	}
	g, err := config.LoadGroup(filepath.Join(dir, AdminDir, GroupFile))
	if err != nil {
		t.Fatal(err)
	}
	admin, err := keys.ReadPrivate(filepath.Join(dir, AdminDir, AdminKeyFile))
	if err != nil || !keys.Of(admin).Equal(g.Administrator) {
		t.Errorf("administrator: got %v, %v", keys.Public(keys.Of(admin)), err)
	}
}

// files lists dir and checks that keys are private.
func files(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if strings.HasSuffix(path, ".key") && info.Mode().Perm() != 0o600 {
			t.Errorf("%s: got mode %v, want 0600", path, info.Mode())
		}
		rel, err := filepath.Rel(dir, path)
		all = append(all, rel)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestNothingIsOverwrittenAndNothingHalfDone(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "group")
	if err := Write(dir, testPlan(1)); err != nil {
		t.Fatal(err)
	}
	before := files(t, parent)
	if err := Write(dir, testPlan(4)); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("got %v, want a refusal", err)
	}
	for problem, change := range map[string]func(*Plan){
		"members: got 3":   func(p *Plan) { p.Hosts = p.Hosts[:3] },
		"state.size: got":  func(p *Plan) { p.Size = 4096 },
		"exports[1].path:": func(p *Plan) { p.Exports[1] = "/a/b" },
		"transport: got":   func(p *Plan) { p.Transport = "ssl" },
		"name: want":       func(p *Plan) { p.Name = "" },
	} {
		p := testPlan(4)
		change(&p)
		if err := Write(filepath.Join(parent, "other"), p); err == nil || !strings.HasPrefix(err.Error(), problem) {
			t.Errorf("got %v, want %q", err, problem)
		}
	}
	if after := files(t, parent); !slices.Equal(before, after) {
		t.Errorf("got %v, want the files as before: %v", after, before)
	}
}

func TestHosts(t *testing.T) {
	got, err := Hosts([]string{"a", "b:9000", "10.0.0.1", "fe80::1", "[::1]:80"})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"a:7450", "b:9000", "10.0.0.1:7450", "[fe80::1]:7450", "[::1]:80"}
	for i, h := range got {
		if h.Address != want[i] {
			t.Errorf("got %s, want %s", h.Address, want[i])
		}
	}
	if got[1].Admin != "b:9001" {
		t.Errorf("admin: got %s, want b:9001", got[1].Admin)
	}
	for i, want := range []string{"127.0.0.1:7451", "127.0.0.1:9001", "127.0.0.1:7451", "127.0.0.1:7451", "[::1]:81"} {
		if got[i].AdminListen != want {
			t.Errorf("%s: admin listens at %s, want %s: it has no authentication",
				got[i].Address, got[i].AdminListen, want)
		}
	}
	for _, h := range []string{"", ":80", "a:0", "a:65535", "a:http", " b", "a b", "a\tb:80"} {
		if got, err := Hosts([]string{h}); err == nil {
			t.Errorf("%q: got %v, want an error", h, got)
		}
	}
}

func TestWriteRelay(t *testing.T) {
	dir := t.TempDir()
	if err := Write(filepath.Join(dir, "g"), testPlan(1)); err != nil {
		t.Fatal(err)
	}
	p := RelayPlan{
		Listen: config.DefaultRelayListen, AdminListen: config.DefaultRelayAdminListen, Export: "/export",
		InsecurePorts: true, Transport: pbft.TransportTLS, Group: filepath.Join(dir, "g", GroupFile),
	}
	relay := filepath.Join(dir, "r")
	public, err := WriteRelay(relay, p)
	if err != nil {
		t.Fatal(err)
	}
	r, err := config.LoadRelay(filepath.Join(relay, RelayFile))
	if err != nil {
		t.Fatal(err)
	}
	if !keys.Of(r.Key).Equal(public) || !r.InsecurePorts || r.Listen != p.Listen {
		t.Errorf("got %+v", r)
	}
	if _, err := WriteRelay(relay, p); err == nil {
		t.Error("a relay's directory was overwritten")
	}
	if _, err := os.Stat(filepath.Join(relay, RelayKeyFile)); err != nil {
		t.Error(err)
	}
}
