package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/bundle"
	"bfs/cmd/internal/cli"
	"bfs/cmd/internal/cli/clitest"
	"bfs/cmd/internal/config"
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
	if !strings.HasPrefix(word, "bfs-key:") || strings.ContainsAny(word, " \n") || !strings.Contains(string(key), word) {
		t.Errorf("got %q, want the public half of\n%s", out, key)
	}
	line := clitest.Run(t, root(), "mount", "/mnt", "--print", "--config", filepath.Join(dir, bundle.RelayFile))
	const want = "mount -t nfs -o vers=3,proto=tcp,mountproto=tcp,nolock,port=2049,mountport=2049 127.0.0.1:/home /mnt\n"
	if line != want {
		t.Errorf("mount: got %s want %s", line, want)
	}
	line = clitest.Run(t, root(), "mount", "/mnt", "--print", "--config", filepath.Join(dir, bundle.RelayFile), "-o", "ro,noatime", "-o", "lookupcache=positive")
	if !strings.Contains(line, ",mountport=2049,ro,noatime,lookupcache=positive 127.0.0.1:/home") {
		t.Errorf("mount with more options: got %s", line)
	}
}

// The line for /etc/fstab has the options of the mount command, and one that orders the mount behind the relay. It
// must not require the relay: systemd would unmount whenever the relay is restarted.
func TestFstabLine(t *testing.T) {
	command, err := cli.MountCommand(config.DefaultRelayListen, config.DefaultExport, "/srv/bfs", "x-systemd.after=bfs-relay.service")
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
	} {
		_, err := clitest.Try(t, root(), args...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: got %v, want %q", args, err, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	s := relay.Stats{InFlight: 3, Procedures: []relay.ProcedureStats{{Name: "READ", OK: 9, Failed: 1}}, LatencySum: 1500 * time.Millisecond}
	s.Latency[3], s.Latency[5] = 4, 6
	var b strings.Builder
	writeMetrics(&b, s, pbft.ClientStatus{View: 2, Connected: []bool{true, false}})
	for _, line := range []string{
		`bfs_relay_replica_connected{replica="1"} 0`, "bfs_relay_view 2", "bfs_relay_calls_in_flight 3",
		`bfs_relay_calls_total{procedure="READ",outcome="ok"} 9`, `bfs_relay_calls_total{procedure="READ",outcome="failed"} 1`,
		`bfs_relay_call_seconds_bucket{le="8e-06"} 4`, `bfs_relay_call_seconds_bucket{le="+Inf"} 10`,
		"bfs_relay_call_seconds_sum 1.5", "bfs_relay_call_seconds_count 10",
	} {
		if !strings.Contains(b.String(), line+"\n") {
			t.Errorf("%s is missing in\n%s", line, b.String())
		}
	}
}
