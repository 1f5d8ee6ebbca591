// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/test/cluster"
	"bfs/test/patience"
)

const members = 4

// A group is four replicas and some relays.
type group struct {
	t        testing.TB
	began    time.Time // when the faults began
	dir, bin string
	links    links
	admins   []string // where the replicas tell their status
	replicas []*cluster.Process
	relays   []*relay
}

// A relay is a bfs-relay process and the address at which it serves.
type relay struct {
	*cluster.Process
	address string
}

// startGroup makes a group whose members reach each other by links, and starts it.
func startGroup(t testing.TB, l links) *group {
	t.Helper()
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	g := &group{t: t, dir: t.TempDir(), bin: bin, links: l}
	hosts, admins := l.addresses()
	g.admins = admins
	g.run("bfsd", "init", "--hosts", strings.Join(hosts, ","), "--admin-on-network", "--out", g.path("group"))
	for i := range members {
		home := g.path("group", fmt.Sprintf("host%d", i))
		g.must(l.lay(home, i))
		g.replicas = append(g.replicas, g.process(fmt.Sprintf("replica%d", i),
			l.on(i, filepath.Join(g.bin, "bfsd"), "run", "--config", filepath.Join(home, "replica.toml"))...))
	}
	t.Cleanup(g.stop)
	for _, p := range g.replicas {
		g.must(p.Start())
	}
	for _, p := range g.replicas {
		g.must(p.Ready(t.Context()))
	}
	return g
}

var publicKey = regexp.MustCompile(`bfs-key:\S+`)

// addRelay starts a relay with a client key of its own.
func (g *group) addRelay() {
	g.t.Helper()
	address, admin := portPair(g.t)
	name := fmt.Sprintf("relay%d", len(g.relays))
	home := g.path(name)
	printed := g.run("bfs-relay", "init", "--out", home, "--group", g.path("group", "group.toml"),
		"--listen", address, "--admin-listen", admin, "--insecure-ports")
	g.enrol(publicKey.FindString(printed))
	g.must(g.links.lay(home, everyone))
	r := &relay{g.process(name, filepath.Join(g.bin, "bfs-relay"), "run",
		"--config", filepath.Join(home, "relay.toml")), address}
	g.relays = append(g.relays, r)
	g.must(r.Start())
	g.must(r.Ready(g.t.Context()))
}

func (g *group) enrol(key string) {
	g.t.Helper()
	g.run("bfsd", "client", "add", "--timeout", patience.For(time.Minute).String(),
		"--admin", g.path("group", "admin"), "--key", key, "--squash", "none")
}

// addClient makes a Go client with a key of its own.
func (g *group) addClient() *pbft.Client {
	g.t.Helper()
	home := g.path("client")
	g.must(os.Mkdir(home, 0o755))
	text, err := os.ReadFile(g.path("group", "group.toml"))
	g.must(err)
	g.must(os.WriteFile(filepath.Join(home, "group.toml"), text, 0o644))
	g.must(g.links.lay(home, everyone))
	return newClient(g.t, filepath.Join(home, "group.toml"), pbft.TransportTLS, g.enrol)
}

// newClient makes a key, enrols it and connects to the group of a group file.
func newClient(t testing.TB, file string, transport pbft.Transport, enrol func(key string)) *pbft.Client {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	enrol("bfs-key:" + base64.StdEncoding.EncodeToString(public))
	c, err := pbft.NewClient(pbft.ClientConfig{
		Group: readGroup(t, file), Key: private, Transport: transport, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

// readGroup reads a group file that bfsd init made.
func readGroup(t testing.TB, file string) *pbft.Group {
	t.Helper()
	const stateSize = 8 << 30 // init's default
	g, err := cluster.ReadGroup(file, stateSize)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// viewOf returns the highest view that f+1 replicas say they have reached.
func viewOf(ctx context.Context, admins []string) (best pbft.View) {
	var views []pbft.View
	for _, admin := range admins {
		if s, err := cluster.Status(ctx, admin); err == nil {
			views = append(views, s.View)
		}
	}
	slices.Sort(views)
	if len(views) < 2 {
		return 0
	}
	return views[len(views)-2]
}

// primaryOf returns the primary of that view.
func primaryOf(ctx context.Context, admins []string) int { return int(viewOf(ctx, admins) % members) }

// whole waits until every replica votes, in one view, and has executed what any had
// executed when the wait began.
func whole(ctx context.Context, admins []string) error {
	ctx, cancel := patience.Context(ctx, wholeWithin)
	defer cancel()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	goal, _ := survey(ctx, admins, 0)
	for {
		_, missing := survey(ctx, admins, goal)
		if missing == "" {
			return nil
		}
		select {
		case <-poll.C:
		case <-ctx.Done():
			return fmt.Errorf("the group is not whole again: %w:%s", ctx.Err(), missing)
		}
	}
}

// survey asks every replica for its status. It says what is missing until all take part
// in one view and have executed batch goal.
func survey(ctx context.Context, admins []string, goal pbft.SeqNum) (reached pbft.SeqNum, missing string) {
	views := make(map[pbft.View]bool)
	for i, admin := range admins {
		s, err := cluster.Status(ctx, admin)
		switch {
		case err != nil:
			missing += fmt.Sprintf(" replica %d: %v;", i, err)
			continue
		case s.SilentUntil > 0 || s.Fetching || !s.Active || s.LastExecuted < goal:
			missing += fmt.Sprintf(" replica %d: view %d active %t executed %d of %d, stable %d, "+
				"silent until %d, fetching %t;", i, s.View, s.Active, s.LastExecuted, goal, s.Stable,
				s.SilentUntil, s.Fetching)
		}
		views[s.View] = true
		reached = max(reached, s.LastExecuted)
	}
	if len(views) > 1 {
		missing += fmt.Sprintf(" they are in %d views;", len(views))
	}
	return reached, missing
}

func (g *group) stop() {
	if g.t.Failed() {
		g.tell()
	}
	for _, r := range g.relays {
		r.Kill()
	}
	for _, p := range g.replicas {
		p.Kill()
	}
	if !g.t.Failed() {
		return
	}
	for _, p := range g.replicas {
		g.t.Logf("-- %s\n%s", p.Name, p.LogTail(20))
	}
	for _, r := range g.relays {
		g.t.Logf("-- %s\n%s", r.Name, r.LogTail(10))
	}
}

func (g *group) must(err error) {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
}

func (g *group) path(parts ...string) string {
	return filepath.Join(append([]string{g.dir}, parts...)...)
}

func (g *group) process(name string, args ...string) *cluster.Process {
	return cluster.NewProcess(name, g.path(name+".log"), args...)
}

// run runs a program to its end and returns what it printed.
func (g *group) run(program string, args ...string) string {
	g.t.Helper()
	c := exec.CommandContext(g.t.Context(), filepath.Join(g.bin, program), args...)
	var errs strings.Builder
	c.Stderr = &errs
	out, err := c.Output()
	if err != nil {
		g.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, errs.String())
	}
	return string(out)
}

// portPair finds two free ports next to each other, below those that the kernel gives to
// outgoing connections and above those that test/cluster takes.
func portPair(t testing.TB) (first, second string) {
	t.Helper()
	for range 200 {
		port := 32002 + 2*rand.IntN(350)
		first, second = fmt.Sprintf("127.0.0.1:%d", port), fmt.Sprintf("127.0.0.1:%d", port+1)
		if _, taken := givenPorts[port]; !taken && free(first) && free(second) {
			givenPorts[port] = struct{}{}
			return first, second
		}
	}
	t.Fatal("no two free ports next to each other")
	return "", ""
}

var givenPorts = make(map[int]struct{})

func free(address string) bool {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return false
	}
	l.Close()
	return true
}

// tell logs the status of every replica, for a run that failed.
func (g *group) tell() {
	for i, admin := range g.admins {
		s, err := cluster.Status(context.Background(), admin)
		text, _ := json.Marshal(s)
		g.t.Logf("replica %d: %s %v", i, text, err)
	}
}
