// SPDX-License-Identifier: Apache-2.0

package power

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/guest"
	"bfs/test/patience"
)

const (
	members   = 4
	port      = 7450
	stateSize = 96 << 20 // of the group's state, in bytes
	memoryMB  = 384      // of a guest
	diskSize  = "512M"
	settleIn  = 2 * time.Minute // boots, elections and fetches, on a quiet machine
	wholeIn   = 30 * time.Second
)

// A group is four hosts and the network between them.
type group struct {
	t     *testing.T
	dir   string
	bin   string
	hosts []*host
}

// A host is a guest kernel with a replica, on a disk and a wire that survive it.
type host struct {
	name, disk string
	wire       *guest.Wire
	log        *os.File     // what the replica says, of all boots
	running    *guest.Guest // nil while the power is off
}

// newGroup makes the disks of a new group.
func newGroup(t *testing.T) *group {
	t.Helper()
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t: t, dir: t.TempDir(), bin: bin}
	if *keepFlag != "" {
		g.dir = *keepFlag
	}
	g.forward()
	for i := range members {
		g.addHost(i)
	}
	t.Cleanup(g.stop)
	var addresses []string
	for _, h := range g.hosts {
		addresses = append(addresses, fmt.Sprintf("%s:%d", h.wire.Address(), port))
	}
	g.run(g.program("bfsd"), "init", "--hosts", strings.Join(addresses, ","), "--admin-on-network",
		"--size", fmt.Sprintf("%dMiB", stateSize>>20), "--out", g.path("group"))
	for i, h := range g.hosts {
		g.run("mkfs.ext4", "-q", "-d", g.path("group", fmt.Sprintf("host%d", i)), h.disk, diskSize)
	}
	return g
}

// forward lets packets pass from one guest to another.
func (g *group) forward() {
	const file = "/proc/sys/net/ipv4/ip_forward"
	before, err := os.ReadFile(file)
	g.must(err)
	g.must(os.WriteFile(file, []byte("1"), 0))
	g.t.Cleanup(func() { _ = os.WriteFile(file, before, 0) })
}

func (g *group) addHost(i int) {
	g.t.Helper()
	wire, err := guest.NewWire()
	g.must(err)
	g.t.Cleanup(wire.Remove)
	h := &host{name: fmt.Sprintf("replica%d", i), wire: wire}
	h.disk = g.path(h.name + ".disk")
	h.log, err = os.Create(g.path(h.name + ".log"))
	g.must(err)
	g.hosts = append(g.hosts, h)
}

// boot switches all hosts on. In a lazy boot ext4 and its kernel write nothing back by themselves, so that a
// power cut loses the most; otherwise they do as they please, and the cut loses some writes and not others.
func (g *group) boot(lazy bool) {
	g.t.Helper()
	options, lines := "commit=5", ""
	if lazy {
		options, lines = "commit=300", "echo 0 >/proc/sys/vm/dirty_writeback_centisecs\n"
	}
	command := fmt.Sprintf("mkdir /mnt/host && mount -t ext4 -o %s /dev/ubda /mnt/host || exit 1\n", options) + lines +
		fmt.Sprintf("exec '%s' run --config /mnt/host/replica.toml", g.program("bfsd"))
	for _, h := range g.hosts {
		fmt.Fprintf(h.log, "-- power on, lazy %t\n", lazy)
		k, err := guest.Start(g.t.Context(), guest.Options{
			Command: command, Wire: h.wire, OwnLoopback: true, NoNFS: true, Disks: []string{h.disk}, MemoryMB: memoryMB,
			SpreadCPU: true, Output: h.log, Timeout: 24 * time.Hour, Dir: "/",
		})
		g.must(err)
		h.running = k
	}
}

// cut switches all hosts off in one instant.
func (g *group) cut() {
	for _, h := range g.hosts {
		if h.running != nil {
			h.running.Kill()
		}
	}
	for _, h := range g.hosts {
		if h.running != nil {
			_, _ = h.running.Wait() // a killed guest has no result
			h.running = nil
		}
	}
}

func (g *group) stop() {
	g.cut()
	for _, h := range g.hosts {
		h.log.Close()
		if g.t.Failed() {
			text, _ := os.ReadFile(h.log.Name())
			lines := strings.Split(strings.TrimSpace(string(text)), "\n")
			g.t.Logf("-- %s\n%s", h.name, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
	}
}

// client enrols a client on this machine and connects it.
func (g *group) client() *pbft.Client {
	g.t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	g.must(err)
	g.run(g.program("bfsd"), "client", "add", "--timeout", patience.For(settleIn).String(),
		"--admin", g.path("group", "admin"), "--key", "bfs-key:"+base64.StdEncoding.EncodeToString(public), "--squash", "none")
	file, err := cluster.ReadGroup(g.path("group", "group.toml"), stateSize)
	g.must(err)
	c, err := pbft.NewClient(pbft.ClientConfig{
		Group: file, Key: private, Transport: pbft.TransportTLS, Logger: slog.New(slog.DiscardHandler),
	})
	g.must(err)
	g.t.Cleanup(func() { _ = c.Close() })
	g.must(c.Ready(g.t.Context()))
	return c
}

// whole waits until every replica takes part in one view. A guest's network may hang, which is user-mode
// Linux's doing and not the replica's, so one host that has power may stay out of reach; how many hosts are
// in reach is returned.
func (g *group) whole() (reached int) {
	g.t.Helper()
	ctx, cancel := patience.Context(g.t.Context(), wholeIn)
	defer cancel()
	poll := time.NewTicker(100 * time.Millisecond)
	defer poll.Stop()
	for {
		reached, missing := g.survey(ctx)
		if missing == "" && reached == members {
			return reached
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			if reached, missing = g.survey(g.t.Context()); missing != "" || reached < members-1 {
				g.t.Fatalf("the group is not whole again, %d hosts are in reach:%s", reached, missing)
			}
			return reached
		}
	}
}

// answered waits until the replica of at least one host serves its status: the others are still starting.
func (g *group) answered() {
	g.t.Helper()
	patience.UntilWithin(g.t, settleIn, "a replica answers", func() bool {
		for _, h := range g.hosts {
			if _, err := h.status(g.t.Context()); err == nil {
				return true
			}
		}
		return false
	})
}

// survey counts the reachable hosts, and says what is missing to a whole group.
func (g *group) survey(ctx context.Context) (reached int, missing string) {
	views := make(map[pbft.View]bool)
	for _, h := range g.hosts {
		s, err := h.status(ctx)
		switch {
		case err != nil && h.running.Running():
			continue
		case err != nil:
			missing += fmt.Sprintf(" %s has ended;", h.name)
			continue
		case s.SilentUntil > 0 || s.Fetching || !s.Active:
			missing += fmt.Sprintf(" %s: view %d, active %t, silent until %d, fetching %t;",
				h.name, s.View, s.Active, s.SilentUntil, s.Fetching)
		}
		reached++
		views[s.View] = true
	}
	if len(views) > 1 {
		missing += fmt.Sprintf(" they are in %d views;", len(views))
	}
	return reached, missing
}

// status asks a host's replica for its account of itself.
func (h *host) status(ctx context.Context) (*pbft.Status, error) {
	ctx, cancel := patience.Context(ctx, 2*time.Second)
	defer cancel()
	url := fmt.Sprintf("http://%s:%d/status", h.wire.Address(), port+1)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	answer, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(request)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	s := new(pbft.Status)
	return s, json.NewDecoder(answer.Body).Decode(s)
}

func (g *group) program(name string) string { return filepath.Join(g.bin, name) }

func (g *group) path(parts ...string) string {
	return filepath.Join(append([]string{g.dir}, parts...)...)
}

func (g *group) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) run(program string, args ...string) {
	g.t.Helper()
	if out, err := exec.CommandContext(g.t.Context(), program, args...).CombinedOutput(); err != nil {
		g.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
}
