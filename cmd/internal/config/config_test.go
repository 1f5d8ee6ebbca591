// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/ed25519"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

var rewrite = flag.Bool("rewrite", false, "write the errors as they are now to testdata")

// key i of the tests' group; 9 is the administrator's.
func testKey(i byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, ed25519.SeedSize-1), i))
}

func testPublic(i byte) string { return keys.Public(keys.Of(testKey(i))).String() }

func goodGroup() string {
	var b strings.Builder
	fmt.Fprintf(&b, "name = \"test\"\nepoch = 3\ndurability = \"replicated\"\nadministrator = %q\n", testPublic(9))
	for i := range byte(4) {
		fmt.Fprintf(&b, "\n[[members]]\naddress = \"host%d:7450\"\nadmin = \"host%d:7451\"\nkey = %q\n",
			i, i, testPublic(i))
	}
	b.WriteString("\n[limits]\ncheckpoint_period = 64\nlog_size = 256\nslots = 64\n")
	b.WriteString("\n[state]\nsize = \"1GiB\"\nclock_bound = \"5m\"\ncreated = 2026-01-31T12:00:00Z\n")
	b.WriteString("\n[[exports]]\npath = \"/export\"\nmode = \"1777\"\nquota = \"512 " +
		"MiB\"\n\n[[exports]]\npath = \"/home\"\n")
	return b.String()
}

const goodReplica = `group = "group.toml"
replica = 2
key = "identity.key"
directory = "state"
listen = ""
admin_listen = "127.0.0.1:7451"
transport = "tls"
window = 2
log_level = "info"
log_format = "text"
`

const goodRelay = `group = "group.toml"
key = "identity.key"
listen = "127.0.0.1:12049"
admin_listen = ""
export = "/export"
insecure_ports = true
journal = "journal"
transport = "plain"
log_level = "warn"
log_format = "json"
`

// write lays out a directory with the three files and the key of replica 2.
func write(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range map[string]string{"group.toml": goodGroup(), "replica.toml": goodReplica,
		"relay.toml": goodRelay} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := keys.WritePrivate(filepath.Join(dir, "identity.key"), testKey(2)); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestGoodFiles(t *testing.T) {
	dir := write(t)
	r, err := LoadReplica(filepath.Join(dir, "replica.toml"))
	if err != nil {
		t.Fatal(err)
	}
	g := r.Group
	if g.Name != "test" || g.Epoch != 3 || g.N() != 4 || g.Members[3].Address != "host3:7450" ||
		g.Admin[1] != "host1:7451" {
		t.Errorf("group: got %+v", g)
	}
	if g.Limits.CheckpointPeriod != 64 || g.Limits.Slots != 64 || g.Limits.Clients != pbft.DefaultLimits().Clients {
		t.Errorf("limits: got %+v", g.Limits)
	}
	if g.State.Size != 1<<30 || g.State.Inodes != 1<<30/BytesPerInode || g.State.ClockBound != 5*time.Minute ||
		!g.State.Created.Equal(time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)) {
		t.Errorf("state: got %+v", g.State)
	}
	if len(g.Exports) != 2 || g.Exports[0] != (Export{Path: "/export", Mode: 0o1777, Quota: 512 << 20}) ||
		g.Exports[1].Mode != DefaultMode {
		t.Errorf("exports: got %+v", g.Exports)
	}
	if r.Self != 2 || r.Directory != filepath.Join(dir, "state") || r.Transport != pbft.TransportTLS ||
		!r.Key.Equal(testKey(2)) {
		t.Errorf("replica: got %+v", r)
	}
	y, err := LoadRelay(filepath.Join(dir, "relay.toml"))
	if err != nil {
		t.Fatal(err)
	}
	if !y.InsecurePorts || y.Transport != pbft.TransportPlain ||
		y.Journal != filepath.Join(dir, "journal") || !y.Log.JSON {
		t.Errorf("relay: got %+v", y)
	}
}

// A group file that others may change lets them choose which replicas are believed, and
// so does a configuration that names it.
func TestFilesThatOthersMayChangeAreRefused(t *testing.T) {
	for _, name := range []string{"group.toml", "relay.toml"} {
		dir := write(t)
		if err := os.Chmod(filepath.Join(dir, name), 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := LoadRelay(filepath.Join(dir, "relay.toml"))
		if err == nil || !strings.Contains(err.Error(), "chmod go-w "+filepath.Join(dir, name)) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// Every value that decides results changes the digest that handshakes compare; the places
// of hosts do not.
func TestGroupDigest(t *testing.T) {
	digest := func(old, new string) pbft.Digest {
		file := filepath.Join(t.TempDir(), "group.toml")
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(goodGroup(), old, new)), 0o600); err != nil {
			t.Fatal(err)
		}
		g, err := LoadGroup(file)
		if err != nil {
			t.Fatal(err)
		}
		return g.Digest()
	}
	same := digest("", "")
	if digest("host1:7450", "elsewhere:7450") != same {
		t.Error("an address changed the digest")
	}
	for _, change := range [][2]string{
		{`"1GiB"`, `"2GiB"`}, {`"5m"`, `"6m"`}, {"epoch = 3", "epoch = 4"}, {"slots = 64", "slots = 128"}, {`"test"`, `"other"`}, {`"/home"`, `"/srv"`},
		{"12:00:00Z", "12:00:01Z"}, {"created", "# "},
	} {
		if digest(change[0], change[1]) == same {
			t.Errorf("%v: the digest stayed the same", change)
		}
	}
}

// Each mistake is one replacement in a good file; the errors as people see them are in
// testdata/errors.txt.
func TestErrorsNameFileLineAndKey(t *testing.T) {
	mistakes := []struct{ file, old, new string }{
		{"group.toml", "epoch = 3", "epoch = "},
		{"group.toml", "epoch = 3", "epoch = \"three\""},
		{"group.toml", "epoch = 3", "epoch = -3"},
		{"group.toml", "epoch = 3", "epock = 3"},
		{"group.toml", "epoch = 3", "epoch = 3\nepoch = 4"},
		{"group.toml", `name = "test"`, `name = ""`},
		{"group.toml", `name = "test"`, "[name\n"},
		{"group.toml", "administrator = ", "# "},
		{"group.toml", testPublic(9), "bfs-key:AAAA"},
		{"group.toml", testPublic(2), "hello"},
		{"group.toml", testPublic(2), testPublic(1)},
		{"group.toml", "host2:7450", "host1:7450"},
		{"group.toml", "host2:7450", "host2"},
		{"group.toml", "host2:7451", "host2:99999"},
		{"group.toml", "admin = \"host3:7451\"", "adnim = \"host3:7451\""},
		{"group.toml", "\n[[members]]\naddress = \"host3:7450\"\nadmin = \"host3:7451\"\nkey = \"" + testPublic(3) + "\"\n", ""},
		{"group.toml", "checkpoint_period = 64", "checkpoint_period = 512"},
		{"group.toml", "slots = 64", "slots = 63"},
		{"group.toml", "slots = 64", "slots = 64\nclients = 65000"},
		{"group.toml", "log_size = 256", "log_size = 256\nlog_bytes = \"1KiB\""},
		{"group.toml", `"1GiB"`, `"1GB"`},
		{"group.toml", `"1GiB"`, `"1MiB"`},
		{"group.toml", `"5m"`, `"5 minutes"`},
		{"group.toml", `"5m"`, `"1ms"`},
		{"group.toml", `clock_bound`, "inodes = 4000000\nclock_bound"},
		{"group.toml", "2026-01-31T12:00:00Z", "2026-01-31T12:00:00"},
		{"group.toml", "2026-01-31T12:00:00Z", "1969-12-31T12:00:00Z"},
		{"group.toml", "2026-01-31T12:00:00Z", `"yesterday"`},
		{"group.toml", `"/home"`, "\"/home\"\nuid = 4294967295"},
		{"group.toml", `"/home"`, "\"/home\"\ngid = 4294967295"},
		{"group.toml", `"1777"`, `"1888"`},
		{"group.toml", `"1777"`, `0x1ff`},
		{"group.toml", `"/home"`, `"home"`},
		{"group.toml", `"/home"`, `"/a/b"`},
		{"group.toml", `"/home"`, `"/export"`},
		{"replica.toml", `"group.toml"`, `"grope.toml"`},
		{"replica.toml", `"group.toml"`, `""`},
		{"replica.toml", "replica = 2", "replica = 4"},
		{"replica.toml", "replica = 2", "replica = 1"},
		{"replica.toml", "replica = 2", ""},
		{"replica.toml", "identity.key", "none.key"},
		{"replica.toml", "identity.key", "group.toml"},
		{"replica.toml", `"state"`, `""`},
		{"replica.toml", `listen = ""`, `listen = "host2"`},
		{"replica.toml", "127.0.0.1:7451", "127.0.0.1:http"},
		{"replica.toml", `"tls"`, `"ssl"`},
		{"group.toml", `durability = "replicated"`, `durability = "disc"`},
		{"group.toml", `"replicated"`, `"disc"`},
		{"replica.toml", "window = 2", "window = 0"},
		{"replica.toml", "window = 2", `without = ["speed"]`},
		{"replica.toml", "window = 2", `key_period = "100ms"`},
		{"replica.toml", "window = 2", `key_period = "2h"`},
		{"replica.toml", "window = 2", `key_period = "often"`},
		{"relay.toml", "journal", "key_period = \"0s\"\njournal"},
		{"replica.toml", `"info"`, `"loud"`},
		{"replica.toml", `"text"`, `"xml"`},
		{"replica.toml", `log_level`, `loglevel`},
		{"relay.toml", "127.0.0.1:12049", "0.0.0.0:12049"},
		{"relay.toml", "127.0.0.1:12049", "12049"},
		{"relay.toml", `admin_listen = ""`, `admin_listen = "127.0.0.1:12049"`},
		{"relay.toml", `log_format`, "anchor = \"journal\"\nlog_format"},
		{"relay.toml", "true", `"yes"`},
		{"relay.toml", `"/export"`, `"/"`},
		{"relay.toml", "insecure_ports", "insecure-ports"},
	}
	var got strings.Builder
	for _, m := range mistakes {
		fmt.Fprintf(&got, "%s: %q -> %q\n\t%s\n",
			m.file, shorten(m.old), shorten(m.new), mistake(t, m.file, m.old, m.new))
	}
	const golden = "testdata/errors.txt"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("errors differ from %s (refresh with -rewrite and read the diff); got:\n%s", golden, got.String())
	}
}

func shorten(s string) string {
	if len(s) > 60 {
		return s[:57] + "..."
	}
	return s
}

// mistake returns the error of a set of files with one replacement in one of them.
func mistake(t *testing.T, name, old, new string) string {
	t.Helper()
	dir := write(t)
	file := filepath.Join(dir, name)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(text), old, new, 1)
	if changed == string(text) {
		t.Fatalf("%s: %q is not in it", name, old)
	}
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	switch name {
	case "group.toml":
		_, err = LoadGroup(file)
	case "replica.toml":
		_, err = LoadReplica(file)
	default:
		_, err = LoadRelay(file)
	}
	if err == nil {
		t.Errorf("%s: %q -> %q: accepted", name, old, new)
		return "accepted"
	}
	if strings.Contains(err.Error(), "\n") {
		t.Errorf("%s: %q: an error of more than a line: %q", name, new, err)
	}
	return strings.ReplaceAll(err.Error(), dir+"/", "")
}

func TestSizes(t *testing.T) {
	for text, want := range map[string]Size{"64GiB": 64 << 30, "1 MiB": 1 << 20, "4096": 4096, "0": 0,
		"3B": 3, "1TiB": 1 << 40} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s: written as %s, which reads as %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "GiB", "-1", "1.5GiB", "1GB", "99999999999TiB", "0x10"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

// Any bytes give a group or an error.
func FuzzGroup(f *testing.F) {
	f.Add([]byte(goodGroup()))
	f.Add([]byte("[[members]]\na.b.c = 1\n[members.x]\n"))
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, text []byte) {
		file := filepath.Join(dir, "group.toml")
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		if g, err := LoadGroup(file); (g == nil) == (err == nil) {
			t.Errorf("got %v, %v", g, err)
		}
	})
}
