// SPDX-License-Identifier: Apache-2.0

package hosts

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"bfs/test/apart"
	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

func TestMain(m *testing.M) { apart.Main(m, cluster.RemoveBinaries) }

var (
	hostNames = []string{"h0", "h1", "h2", "h3"}
	client    = "client"
)

// fiveHosts is the whole set-up, and the transcript of all commands.
type fiveHosts struct {
	*Network
	t        *testing.T
	bin, dir string
	said     strings.Builder
}

// TestFourHosts starts four replicas from their bundles, by the units and scripts of
// deploy/ alone, each on a host of its own, and a relay and a kernel's NFS client on a
// fifth. It cuts one host off while files are written, and joins it again.
// docs/OPERATING.md explains the commands of the transcript.
func TestFourHosts(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (make kernel-test) to test on five network namespaces")
	}
	if err := guest.Available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	h := newFiveHosts(t)
	h.startReplicas()
	port := h.startRelay()
	o := guest.Options{
		NetNS:   h.netns(client),
		Mounts:  []guest.Mount{{Port: port, Export: "/export"}},
		Command: "perl " + h.script() + "; exit $?",
		Env:     []string{"KERNEL=" + filepath.Dir(h.script())},
		Answer:  h.answer,
		Timeout: 5 * time.Minute,
	}
	t.Run("cut", func(t *testing.T) { guest.Run(t, o) })
	t.Run("relay beside the kernel", h.relayBesideKernel)
	t.Log("transcript:\n" + h.said.String())
}

// relayBesideKernel runs the relay under the kernel that mounts its export, where it
// belongs. This kernel has little memory.
func (h *fiveHosts) relayBesideKernel(t *testing.T) {
	dir := h.path("etc", "relay-in-guest")
	h.enrolRelay(dir)
	h.forwardFrom(client)
	guest.Run(t, guest.Options{
		NetNS:       h.netns(client),
		OwnLoopback: true,
		MemoryMB:    512,
		MTU:         1500, // what this guest sends is routed on to other hosts
		Command:     "bash " + filepath.Join(filepath.Dir(h.script()), "beside.sh"),
		Env:         []string{"RELAY_BIN=" + filepath.Join(h.bin, "bfs-relay"), "RELAY_DIR=" + dir},
		Timeout:     5 * time.Minute,
	})
}

func newFiveHosts(t *testing.T) *fiveHosts {
	t.Helper()
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	h := &fiveHosts{t: t, bin: bin, dir: t.TempDir()}
	h.Network = NewNetwork(t, append(append([]string{}, hostNames...), client)...)
	return h
}

func (h *fiveHosts) path(parts ...string) string {
	return filepath.Join(append([]string{h.dir}, parts...)...)
}

func (h *fiveHosts) script() string {
	path, err := filepath.Abs("../kernel/hosts.pl")
	if err != nil {
		h.t.Fatal(err)
	}
	return path
}

// do runs a command on a host as an administrator would, and writes the command and its
// output into the transcript.
func (h *fiveHosts) do(host string, args ...string) string {
	h.t.Helper()
	out := h.in(host, append([]string{filepath.Join(h.bin, args[0])}, args[1:]...)...)
	h.tell(host, strings.Join(args, " "), out)
	return out
}

// tell adds a text to the transcript, without the paths of this machine's directories.
func (h *fiveHosts) tell(host, command, printed string) {
	text := fmt.Sprintf("%s# %s\n%s", host, command, printed)
	h.said.WriteString(strings.NewReplacer(h.dir+"/", "", h.bin+"/", "").Replace(text))
}

func (h *fiveHosts) startReplicas() {
	h.t.Helper()
	var addresses []string
	for i := range hostNames {
		addresses = append(addresses, h.Address(i))
	}
	h.do(client, "bfsd", "init", "--hosts", strings.Join(addresses, ","),
		"--out", h.path("bundles"), "--admin-on-network")
	var started []*cluster.Process
	for i, host := range hostNames {
		// Each host gets its own bundle and nothing else.
		etc := h.path("etc", host)
		if err := os.MkdirAll(filepath.Dir(etc), 0o755); err != nil {
			h.t.Fatal(err)
		}
		h.run("cp", "-r", h.path("bundles", fmt.Sprintf("host%d", i)), etc)
		// Two replicas are started as systemd would start them, two with the script.
		command := unitCommand(h.t, "bfsd@.service", host, h.bin, h.path("etc"))
		if i >= 2 {
			command = []string{"env", "BFS_BIN=" + h.bin, deploy + "/start", "replica", etc}
		}
		started = append(started, h.start(host, command))
	}
	for _, p := range started {
		if err := p.Ready(h.t.Context()); err != nil {
			h.t.Fatal(err)
		}
	}
}

// start starts a server on a host; it ends with the test.
func (h *fiveHosts) start(host string, command []string) *cluster.Process {
	h.t.Helper()
	h.tell(host, strings.TrimPrefix(strings.Join(command, " "), "env "), "")
	p := cluster.NewProcess(host, h.path(host+".log"), h.On(host, command...)...)
	h.t.Cleanup(func() {
		p.Kill()
		if h.t.Failed() {
			h.t.Logf("%s, the end of its log:\n%s", host, p.LogTail(20))
		}
	})
	if err := p.Start(); err != nil {
		h.t.Fatal(err)
	}
	return p
}

func (h *fiveHosts) enrolRelay(dir string) {
	h.t.Helper()
	key := publicKey.FindString(h.do(client, "bfs-relay", "init", "--out", dir,
		"--group", h.path("bundles", "group.toml")))
	h.do(client, "bfsd", "client", "add", "--admin", h.path("bundles", "admin"), "--key", key,
		"--export", "/export", "--squash", "none")
}

var publicKey = regexp.MustCompile(`bfs-key:\S+`)

func (h *fiveHosts) startRelay() (port int) {
	h.t.Helper()
	port = 12049
	h.enrolRelay(h.path("etc", "relay"))
	p := h.start(client, unitCommand(h.t, "bfs-relay.service", "", h.bin, h.path("etc")))
	if err := p.Ready(h.t.Context()); err != nil {
		h.t.Fatal(err)
	}
	return port
}

// answer carries out the requests of hosts.pl.
func (h *fiveHosts) answer(question string) (string, error) {
	switch verb, host, _ := strings.Cut(question, " "); verb {
	case "cut":
		h.tell("switch", "ip link set "+h.port(host)+" down", "")
		return host + " is cut off", h.Cut(host)
	case "join":
		h.tell("switch", "ip link set "+h.port(host)+" up", "")
		return host + " is joined again", h.Join(host)
	case "status":
		_, table := h.status()
		return strings.ReplaceAll(strings.TrimSpace(table), "\n", " | "), nil
	case "agree":
		return "all four agree", h.waitForAgreement(h.t.Context())
	}
	return "", fmt.Errorf("nobody knows how to %q", question)
}

// status asks all replicas as an administrator would, and puts the table into the transcript.
func (h *fiveHosts) status() (agreeing int, table string) {
	args := h.On(client, filepath.Join(h.bin, "bfsd"), "status", "--group", h.path("bundles", "group.toml"))
	out, _ := exec.Command(args[0], args[1:]...).CombinedOutput() // its exit code says what the table says
	h.tell(client, "bfsd status --group bundles/group.toml", string(out))
	return h.agreeing(), string(out)
}

// answerWithin bounds how long bfsd status waits for the answers of replicas.
const answerWithin = 5 * time.Second

func (h *fiveHosts) agreeing() int {
	args := h.On(client, filepath.Join(h.bin, "bfsd"), "status",
		"--json", "--timeout", patience.For(answerWithin).String(), "--group", h.path("bundles", "group.toml"))
	out, _ := exec.Command(args[0], args[1:]...).Output()
	var report struct {
		Agreeing int `json:"agreeing"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return 0
	}
	return report.Agreeing
}

// agreeWithin bounds the time until the four replicas agree: they connect again, and a
// replica may have to fetch the whole state.
const agreeWithin = 3 * time.Minute

// waitForAgreement waits until all four replicas report the same state.
func (h *fiveHosts) waitForAgreement(ctx context.Context) error {
	ctx, cancel := patience.Context(ctx, agreeWithin)
	defer cancel()
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for h.agreeing() < len(hostNames) {
		select {
		case <-ctx.Done():
			_, table := h.status()
			return fmt.Errorf("not all agree: %s", table)
		case <-tick.C:
		}
	}
	h.status()
	return nil
}
