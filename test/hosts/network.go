// Package hosts tests BFS on five hosts: four with a replica each, one with a relay and a kernel's NFS client. A host is a
// network namespace; all are joined by a bridge in a namespace of its own, so nothing outside is touched.
package hosts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A network is hosts on one bridge. Host i is 10.214.0.(10+i).
type network struct {
	t      testing.TB
	prefix string // of the namespaces' names
	hosts  []string
}

// newNetwork makes namespaces with the given names. They go with the test, and so does every process in them.
func newNetwork(t testing.TB, names ...string) *network {
	t.Helper()
	sweep()
	n := &network{t: t, prefix: fmt.Sprintf("bfs%d-", os.Getpid()), hosts: names}
	n.addNamespace("switch")
	n.in("switch", "ip", "link", "add", "bridge", "type", "bridge")
	n.in("switch", "ip", "link", "set", "bridge", "up")
	for i, name := range names {
		n.addNamespace(name)
		port := n.port(name)
		n.run("ip", "-n", n.netns("switch"), "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", n.netns(name))
		n.in("switch", "ip", "link", "set", port, "master", "bridge", "up")
		n.in(name, "ip", "addr", "add", n.address(i)+"/24", "dev", "eth0")
		n.in(name, "ip", "link", "set", "eth0", "up")
		n.in(name, "ip", "link", "set", "lo", "up")
	}
	return n
}

// sweep removes the namespaces of tests that were killed: their names tell whose they were.
func sweep() {
	names, _ := filepath.Glob("/run/netns/bfs*-*")
	for _, name := range names {
		name = filepath.Base(name)
		var pid int
		if _, err := fmt.Sscanf(name, "bfs%d-", &pid); err == nil && !alive(pid) {
			_ = exec.Command("ip", "netns", "del", name).Run()
		}
	}
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

// forwardFrom makes a host the way to what is behind it: the guest on its tap device.
func (n *network) forwardFrom(host string) {
	n.t.Helper()
	n.in(host, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	for i, other := range n.hosts {
		if other == host {
			for _, h := range n.hosts {
				if h != host {
					n.in(h, "ip", "route", "add", "default", "via", n.address(i))
				}
			}
		}
	}
}

func (n *network) address(i int) string { return fmt.Sprintf("10.214.0.%d", 10+i) }

func (n *network) netns(host string) string { return n.prefix + host }

// port is the bridge's end of a host's cable.
func (n *network) port(host string) string { return "to-" + host }

func (n *network) addNamespace(host string) {
	n.t.Helper()
	n.run("ip", "netns", "add", n.netns(host))
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.netns(host)).Run() })
}

// cut takes a host's cable out; join puts it back.
func (n *network) cut(host string) error  { return n.cable(host, "down") }
func (n *network) join(host string) error { return n.cable(host, "up") }

func (n *network) cable(host, state string) error {
	out, err := exec.Command("ip", "-n", n.netns("switch"), "link", "set", n.port(host), state).CombinedOutput()
	if err != nil {
		return fmt.Errorf("set cable of %s %s: %w: %s", host, state, err, out)
	}
	return nil
}

// on is a command line that runs on a host.
func (n *network) on(host string, args ...string) []string {
	return append([]string{"ip", "netns", "exec", n.netns(host)}, args...)
}

// in runs a command on a host and returns what it printed.
func (n *network) in(host string, args ...string) string {
	n.t.Helper()
	return n.run(n.on(host, args...)...)
}

func (n *network) run(args ...string) string {
	n.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
