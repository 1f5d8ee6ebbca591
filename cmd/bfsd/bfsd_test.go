// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli/clitest"
	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/nfsstate"
)

func TestHelp(t *testing.T) { clitest.Help(t, root) }

// The defaults that the help names are those of the configuration file.
func TestHelpTellsTheDefaults(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "g")
	clitest.Run(t, root(), "init", "--loopback", "4", "--out", dir)
	file := filepath.Join(bundle.HostDir(dir, 1), bundle.ReplicaFile)
	if err := os.WriteFile(file, []byte("replica = 1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r, err := config.LoadReplica(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`keeper       = "` + r.Keeper + `"`,
		`directory    = "` + filepath.Base(r.Directory) + `"`,
		`listen       = "` + r.Listen + `"`,
		`admin_listen = "` + r.AdminListen + `"`,
		`transport    = "` + string(r.Transport) + `"`,
		`log_level    = "` + strings.ToLower(r.Log.Level.String()) + `"`,
		`window       = 2`,
	} {
		if !strings.Contains(replicaKeys, line) {
			t.Errorf("help lacks %s", line)
		}
	}
	for _, line := range []string{
		`keeper_directory = "keeper"`,
		`keeper_copy      = ""`,
		`keeper_user      = ""`,
		`manifest         = ""`,
		`recovery_period  = "` + config.Duration(config.DefaultRecoveryPeriod).String() + `"`,
	} {
		if !strings.Contains(keeperKeys, line) {
			t.Errorf("help of keeper lacks %s", line)
		}
	}
	if r.Window != 2 {
		t.Errorf("window: got %d, want 2, as help says", r.Window)
	}
}

func TestInit(t *testing.T) {
	dir := t.TempDir()
	phrase := filepath.Join(dir, "phrase")
	if err := os.WriteFile(phrase, []byte("correct horse battery\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "g")
	clitest.Run(t, root(), "init", "--hosts", "a,b:9000,c,d", "--out", out, "--export", "/home", "--export", "/etc",
		"--size", "1GiB", "--name", "house", "--passphrase-file", phrase)
	g, err := config.LoadGroup(filepath.Join(out, bundle.GroupFile))
	if err != nil {
		t.Fatal(err)
	}
	if g.Name != "house" || g.Members[1].Address != "b:9000" || len(g.Exports) != 2 || g.Exports[1].Path != "/etc" ||
		g.State.Size != 1<<30 {
		t.Errorf("got %+v", g)
	}
	admin := filepath.Join(out, bundle.AdminDir, bundle.AdminKeyFile)
	if _, err := keys.ReadPrivate(admin); err == nil {
		t.Error("the administrator's key is not sealed")
	}
	if key, err := keys.ReadPublic(admin); err != nil || !key.Equal(g.Administrator) {
		t.Errorf("sealed key: got %v, %v", key, err)
	}
}

// A group may have any number of hosts from four on, and init says what more than 3f+1 of
// them are for.
func TestInitOfAnySize(t *testing.T) {
	for hosts, want := range map[string]string{
		"a,b,c,d":           "",
		"a,b,c,d,e":         "5 hosts survive 1 faulty, as 4 do; 6 would let one more be away for maintenance",
		"a,b,c,d,e,f":       "6 hosts survive 1 faulty, as 4 do, also while 1 more is away for maintenance",
		"a,b,c,d,e,f,g,h":   "8 hosts survive 2 faulty, as 7 do; 9 would let one more be away for maintenance",
		"a,b,c,d,e,f,g,h,i": "9 hosts survive 2 faulty, as 7 do, also while 1 more is away for maintenance",
	} {
		out := filepath.Join(t.TempDir(), "g")
		said := clitest.Run(t, root(), "init", "--hosts", hosts, "--out", out)
		if want == "" && strings.Contains(said, "survive") || !strings.Contains(said, want) {
			t.Errorf("%s: got %q, want %q", hosts, said, want)
		}
		_, err := config.LoadReplica(filepath.Join(bundle.HostDir(out, strings.Count(hosts, ",")), bundle.ReplicaFile))
		if err != nil {
			t.Errorf("%s: %v", hosts, err)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	dir := t.TempDir()
	clitest.Run(t, root(), "init", "--hosts", "a", "--out", filepath.Join(dir, "g"))
	admin := filepath.Join(dir, "g", bundle.AdminDir)
	key := keys.Public(make([]byte, 32)).String()
	clitest.Run(t, root(), "init", "--loopback", "4", "--out", filepath.Join(dir, "four"))
	home := bundle.HostDir(filepath.Join(dir, "four"), 1)
	if err := os.RemoveAll(filepath.Join(home, bundle.StateDir)); err != nil {
		t.Fatal(err)
	}
	lost := filepath.Join(home, bundle.ReplicaFile)
	for want, args := range map[string][]string{
		"--out is missing":           {"init", "--hosts", "a"},
		"--hosts is missing":         {"init", "--out", filepath.Join(dir, "x")},
		"want 4 to 32 (4 survive":    {"init", "--hosts", "a,b", "--out", filepath.Join(dir, "x")},
		"is not empty":               {"init", "--hosts", "a", "--out", filepath.Join(dir, "g")},
		"exclude each other":         {"init", "--hosts", "a", "--loopback", "4", "--out", filepath.Join(dir, "x")},
		"--durability: got \"tape\"": {"init", "--hosts", "a", "--out", filepath.Join(dir, "x"), "--durability", "tape"},
		"unknown flag: --dishonest":  {"demo", "--dishonest"},
		"unknown command":            {"keep"},
		"keeper: empty: want the":    {"keeper", "--config", lost},
		"has no keeper":              {"recover", "1", "--config", lost},
		"is replica 1's, and N is":   {"recover", "2", "--config", lost},
		"a group of one knows nob":   {"init", "--hosts", "a", "--out", filepath.Join(dir, "x"), "--keeper"},
		"open none: no such file":    {"manifest", "sign", "--admin", admin, "none"},
		"and no blanks":              {"init", "--hosts", "a, b,c,d", "--out", filepath.Join(dir, "x")},
		"members[1].address: got \"a:7451\", which is members[0].admin too": {"init", "--hosts", "a,a:7451,c,d", "--out", filepath.Join(dir, "x")},
		"state.size: got 64MiB, want 67MiB":                                 {"init", "--hosts", "a", "--out", filepath.Join(dir, "x"), "--size", "64MiB"},
		"name the file with --config":                                       {"run"},
		"name the file with --group":                                        {"status"},
		"name the file with --admin":                                        {"export", "list"},
		"--timeout: got 0s, want more":                                      {"status", "--timeout", "0s"},
		"--timeout: got -1s, want more":                                     {"export", "list", "--admin", admin, "--timeout", "-1s"},
		"excludes --json":                                                   {"status", "--watch", "--json"},
		"--can-stop: got 1, want the number":                                {"status", "--can-stop", "1", "--group", filepath.Join(dir, "g", bundle.GroupFile)},
		"want the path of one export":                                       {"export", "add", "--admin", admin},
		"got \"home\", want / and a name":                                   {"export", "add", "home", "--admin", admin},
		"nothing to change":                                                 {"export", "set", "/home", "--admin", admin},
		"want UID:GID":                                                      {"export", "set", "/home", "--admin", admin, "--owner", "4294967295:0"},
		"in octal":                                                          {"export", "set", "/home", "--admin", admin, "--mode", "0999"},
		"--name: got the name \"a b\"":                                      {"client", "add", "--admin", admin, "--key", key, "--name", "a b"},
		"--name and --key exclude":                                          {"client", "revoke", "--admin", admin, "--key", key, "--name", "x"},
		"bfsd replica replace --config " + lost:                             {"run", "--config", lost},
		"--key is missing":                                                  {"client", "add", "--admin", admin},
		"--squash: got \"some\"":                                            {"client", "add", "--admin", admin, "--key", key, "--squash", "some"},
		"--uid-map: got \"1:2\"":                                            {"client", "add", "--admin", admin, "--key", key, "--uid-map", "1:2"},
		"--anon-uid: got 4294967295":                                        {"client", "add", "--admin", admin, "--key", key, "--anon-uid", "4294967295"},
		"--anon-gid: got 4294967295":                                        {"client", "add", "--admin", admin, "--key", key, "--anon-gid", "4294967295"},
		"--gid-map: range 1:4294967295:1 goes beyond 4294967294":            {"client", "add", "--admin", admin, "--key", key, "--gid-map", "1:4294967295:1"},
		"--expires: is in the past":                                         {"client", "add", "--admin", admin, "--key", key, "--expires", "2001-01-01"},
		"--export: got \"export\"":                                          {"client", "add", "--admin", admin, "--key", key, "--export", "export"},
		"--key: got \"hello\"":                                              {"client", "revoke", "--admin", admin, "--key", "hello"},
		"no such file":                                                      {"run", "--config", filepath.Join(dir, "none.toml")},
		"--op: got \"4\"":                                                   {"bench", "micro", "--op", "4"},
		"--target is missing":                                               {"bench", "andrew"},
		"unknown command \"x\"":                                             {"bench", "micro", "--n", "4", "x"},
		"is not the key of the admin":                                       {"client", "list", "--admin", filepath.Join(dir, "g", "host0", bundle.IdentityFile)},
	} {
		_, err := clitest.Try(t, root(), args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestParseMap(t *testing.T) {
	got, err := parseMap("1000:2000:10,0:65534:1")
	want := []nfsstate.IDRange{{From: 0, To: 65534, Count: 1}, {From: 1000, To: 2000, Count: 10}}
	if err != nil || len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	if text := mapText(" uid-map", got); text != " uid-map=0:65534:1,1000:2000:10" {
		t.Errorf("written: got %q", text)
	}
	for _, s := range []string{",", "1", "1:2", "1:2:3:4", "a:b:c", "1:2:-3", "4294967296:0:1", "4294967295:0:1",
		"0:4294967290:6", "1:1:0", "1:5:2,2:9:1"} {
		if got, err := parseMap(s); err == nil {
			t.Errorf("%q: got %v, want an error", s, got)
		}
	}
}

func TestParseExpiry(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for s, want := range map[string]time.Time{
		"2027-01-31":           time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC),
		"2027-01-31T12:00:00Z": time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC),
		"720h":                 now.Add(720 * time.Hour),
	} {
		if got, err := parseExpiry(s, now); err != nil || got != uint64(want.UnixNano()) {
			t.Errorf("%s: got %d, %v, want %v", s, got, err, want)
		}
	}
	if got, err := parseExpiry("", now); got != 0 || err != nil {
		t.Errorf("never: got %d, %v", got, err)
	}
	for _, s := range []string{"2025-01-01", "-1h", "tomorrow", "2027-13-01"} {
		if got, err := parseExpiry(s, now); err == nil {
			t.Errorf("%s: got %d, want an error", s, got)
		}
	}
}

func TestRightsText(t *testing.T) {
	r := nfsstate.Rights{
		Expires: uint64(time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC).UnixNano()),
		Grants: []nfsstate.Grant{
			{Export: 1, Squash: nfsstate.SquashRoot, AnonUID: nfsstate.Nobody, AnonGID: nfsstate.Nobody},
			{Export: 2, ReadOnly: true, Squash: nfsstate.SquashAll, AnonUID: 7, AnonGID: 8, UIDs: []nfsstate.IDRange{{From: 1, To: 2, Count: 3}}},
		},
	}
	exports := []nfsstate.ExportInfo{{ID: 1, Name: "home"}}
	const want = "/home rw squash=root; export 2 ro squash=all anon=7:8 uid-map=1:2:3; until 2027-01-31T00:00:00Z"
	if got := rightsText(r.Append(nil), exports); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := rightsText([]byte("x"), nil); !strings.Contains(got, "nothing is granted") {
		t.Errorf("got %s", got)
	}
}
