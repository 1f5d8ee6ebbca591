// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/admin"
	"bfs/cmd/internal/admin/admintest"
	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/cli/clitest"
	"bfs/cmd/internal/config"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
	"bfs/pkg/relay"
)

func TestHelp(t *testing.T) { clitest.Help(t, root) }

func TestInitPrintsTheKeyAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r")
	out := clitest.Run(t, root(), "init", "--out", dir, "--listen", "127.0.0.1:2049", "--export", "/home")
	key, err := os.ReadFile(filepath.Join(dir, bundle.RelayKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	word := strings.TrimSpace(out)
	if !strings.HasPrefix(word, "bfs-key:") || strings.ContainsAny(word, " \n") ||
		!strings.Contains(string(key), word) {
		t.Errorf("got %q, want the public half of\n%s", out, key)
	}
	line := clitest.Run(t, root(), "mount", "/mnt", "--print", "--config", filepath.Join(dir, bundle.RelayFile))
	const want = "mount -t nfs -o vers=3,proto=tcp,mountproto=tcp,nolock,port=2049,mountport=2049 " +
		"127.0.0.1:/home /mnt\n"
	if line != want {
		t.Errorf("mount: got %s want %s", line, want)
	}
	line = clitest.Run(t, root(), "mount", "/mnt", "--print", "--config", filepath.Join(dir, bundle.RelayFile),
		"-o", "ro,noatime", "-o", "lookupcache=positive")
	if !strings.Contains(line, ",mountport=2049,ro,noatime,lookupcache=positive 127.0.0.1:/home") {
		t.Errorf("mount with more options: got %s", line)
	}
}

// The line for /etc/fstab has the options of the mount command, and one that orders the
// mount behind the relay. It must not require the relay: systemd would unmount whenever
// the relay is restarted.
func TestFstabLine(t *testing.T) {
	command, err := cli.MountCommand(config.DefaultRelayListen, config.DefaultExport, "/srv/bfs",
		"x-systemd.after=bfs-relay.service")
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf("%s %s nfs %s 0 0\n", command[5], command[6], command[4])
	for _, file := range []string{"../../deploy/bfs-relay.service", "../../docs/OPERATING.md"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), line) || strings.Contains(string(text), "x-systemd.requires=bfs") {
			t.Errorf("%s: want %s", file, line)
		}
	}
}

func TestErrorsSayWhatToDo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r")
	clitest.Run(t, root(), "init", "--out", dir)
	file := filepath.Join(dir, bundle.RelayFile)
	for want, args := range map[string][]string{
		"--out is missing":           {"init"},
		"nothing is overwritten":     {"init", "--out", dir},
		"export: got":                {"init", "--out", filepath.Join(dir, "x"), "--export", "x"},
		"want one directory":         {"mount", "--config", file},
		"make it first":              {"mount", filepath.Join(dir, "none"), "--config", file},
		"is no directory":            {"mount", file, "--config", file},
		"relay.toml:4: group: open ": {"run", "--config", file},
		"give --config FILE":         {"run"},
		"give --config FILE, ":       {"mount", "/"},
		"want a loopback address":    {"init", "--out", filepath.Join(dir, "x"), "--listen", "0.0.0.0:2049"},
		"want host:port":             {"init", "--out", filepath.Join(dir, "x"), "--listen", "localhost"},
		"want two ports":             {"init", "--out", filepath.Join(dir, "x"), "--listen", config.DefaultRelayAdminListen},
		`transport: got "udp"`:       {"init", "--out", filepath.Join(dir, "x"), "--transport", "udp"},
	} {
		_, err := clitest.Try(t, root(), args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "x")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an init that was refused leaves something: %v", err)
	}
}

func TestMetrics(t *testing.T) {
	s := relay.Stats{
		InFlight: 3, Oldest: 2 * time.Second, LatencySum: 1500 * time.Millisecond,
		Procedures: []relay.ProcedureStats{
			{Program: nfs3.ProgramNFS, Name: "NULL", OK: 1}, {Program: nfs3.ProgramNFS, Name: "READ", OK: 9, Failed: 1},
			{Program: nfs3.ProgramMount, Name: "NULL", OK: 2},
		},
	}
	s.Latency[3], s.Latency[5] = 4, 6
	text := metricsPage(t, admin.Sources{
		Metrics: func(w io.Writer) {
			writeMetrics(w, true, s, pbft.ClientStatus{View: 2, Connected: []bool{true, false},
				WrongReplies: []uint64{0, 1}})
		},
		Help: metricsHelp,
	})
	for _, line := range []string{
		"bfs_relay_ready 1", `bfs_relay_replica_connected{replica="1"} 0`, "bfs_relay_view 2",
		"bfs_relay_calls_in_flight 3", "bfs_relay_oldest_call_seconds 2",
		`bfs_relay_calls_total{program="nfs",procedure="READ",outcome="ok"} 9`,
		`bfs_relay_calls_total{program="nfs",procedure="READ",outcome="failed"} 1`,
		`bfs_relay_calls_total{program="nfs",procedure="NULL",outcome="ok"} 1`,
		`bfs_relay_calls_total{program="mount",procedure="NULL",outcome="ok"} 2`,
		`bfs_relay_call_seconds_bucket{le="8e-06"} 4`, `bfs_relay_call_seconds_bucket{le="+Inf"} 10`,
		"bfs_relay_call_seconds_sum 1.5", "bfs_relay_call_seconds_count 10",
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("%s is missing in\n%s", line, text)
		}
	}
	for _, problem := range admintest.Lint(text) {
		t.Error(problem)
	}
	for family := range metricsHelp { // and no help is for a family that does not exist
		if !strings.Contains(text, "# HELP "+family+" ") {
			t.Errorf("%s is explained and not there", family)
		}
	}
	for line := range strings.Lines(text) {
		name := strings.Fields(line)
		if strings.HasPrefix(line, "# HELP bfs_") && metricsHelp[name[2]] == "" {
			t.Errorf("%s is not explained", name[2])
		}
	}
}

// metricsPage gets /metrics of a server with these sources.
func metricsPage(t *testing.T, s admin.Sources) string {
	t.Helper()
	a, err := admin.Serve("127.0.0.1:0", s)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close(t.Context())
	r, err := http.Get("http://" + a.Address() + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Two processes with one key would spoil each other's calls.
func TestKeyIsForOneProcess(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "r")
	clitest.Run(t, root(), "init", "--out", dir)
	file := filepath.Join(dir, bundle.RelayKeyFile)
	unlock, err := lockKey(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockKey(file); err == nil || !strings.Contains(err.Error(), "another bfs-relay uses this key") {
		t.Errorf("locked twice: got %v", err)
	}
	unlock()
	if unlock, err = lockKey(file); err != nil {
		t.Fatal(err)
	}
	unlock()
}

// A groupOf answers one relay's calls as it is told to.
type groupOf struct {
	status pbft.ClientStatus
	answer func(pbft.Call) // nil: never
	err    error           // of Start
}

func (g *groupOf) Status() pbft.ClientStatus { return g.status }

func (g *groupOf) Start(c pbft.Call) error {
	if g.err == nil && g.answer != nil {
		g.answer(c)
	}
	return g.err
}

// The reason why a relay is of no use has a name, and a next step.
func TestReady(t *testing.T) {
	four := make([]pbft.Member, 4)
	for i := range four {
		four[i].Address = fmt.Sprintf("host%d:7450", i)
	}
	c := &config.Relay{Group: &config.Group{Group: &pbft.Group{Members: four}},
		Key: make([]byte, 64), Export: "/export"}
	young := func() (string, time.Duration) { return "READ", time.Second }
	all := []bool{true, true, true, false}
	for _, test := range []struct {
		group  *groupOf
		oldest func() (string, time.Duration)
		since  time.Duration // the probe's own call was made
		want   []string      // nil: ready
	}{
		{&groupOf{answer: func(c pbft.Call) { c.Done(nil, nil) }}, young, 0, nil},
		{&groupOf{err: pbft.ErrBusy}, young, 0, nil},
		{&groupOf{}, young, time.Second, nil},
		{&groupOf{}, young, time.Minute, []string{"not answered for 1m", "bfsd status"}},
		{&groupOf{answer: func(c pbft.Call) { c.Done(nil, nil) }}, nil, 0, []string{"starting"}},
		{&groupOf{answer: func(c pbft.Call) { c.Done(nil, nil) }},
			func() (string, time.Duration) { return "WRITE", 12 * time.Second }, 0,
			[]string{"a WRITE has been unanswered for 12s", "bfsd status"}},
		{&groupOf{answer: func(c pbft.Call) { c.Done(nil, pbft.ErrNotEnrolled) }}, young, 0,
			[]string{"not enrolled", "revoked", "bfsd client add", "bfs-key:"}},
		{&groupOf{status: pbft.ClientStatus{Connected: []bool{true, false, true, false}}}, young, 0,
			[]string{"reaches 2 of 4", "want 3", "1 (host1:7450), 3 (host3:7450)"}},
	} {
		if test.group.status.Connected == nil {
			test.group.status.Connected = all
		}
		p := &probe{client: test.group, config: c, oldest: test.oldest}
		p.ask()
		if test.since > 0 {
			p.asked = time.Now().Add(-test.since)
		}
		err := p.Ready()
		if (err == nil) != (test.want == nil) {
			t.Errorf("got %v, want %q", err, test.want)
			continue
		}
		for _, part := range test.want {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not say %q", err, part)
			}
		}
	}
}

// A relay that stops being ready makes one line, and one when it is again.
func TestReadinessIsLogged(t *testing.T) {
	g := &groupOf{status: pbft.ClientStatus{Connected: []bool{true}}}
	p := &probe{
		client: g, config: &config.Relay{Group: &config.Group{Group: &pbft.Group{Members: make([]pbft.Member, 1)}}},
		oldest: func() (string, time.Duration) { return "", 0 },
	}
	var b strings.Builder
	log := slog.New(slog.NewTextHandler(&b, nil))
	for _, up := range []bool{true, false, false, true, true} {
		g.status.Connected[0] = up
		p.tell(log)
	}
	if strings.Count(b.String(), "\n") != 2 || !strings.Contains(b.String(), `msg="not ready" why="reaches 0 of 1`) ||
		!strings.Contains(b.String(), `msg="ready again"`) {
		t.Errorf("logged:\n%s", b.String())
	}
}
