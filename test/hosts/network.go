// SPDX-License-Identifier: Apache-2.0

// Package hosts tests BFS on five hosts: four with a replica each, one with a relay and a
// kernel's NFS client. A host is a network namespace. A bridge joins all hosts, in a
// namespace of its own, so that the machine's own network does not change.
package hosts

import (
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A Network is a number of hosts on one bridge. Host i has the address 10.214.0.(10+i).
type Network struct {
	t      testing.TB
	prefix string // of the namespaces' names
	hosts  []string
}

// NewNetwork makes namespaces with the given names. A process has one network at a time.
// The namespaces and all processes in them end with the test. Their names exist in this
// run alone (package apart).
func NewNetwork(t testing.TB, names ...string) *Network {
	t.Helper()
	n := Attach(t, "bfs-", names...)
	n.addNamespace("switch")
	n.in("switch", "ip", "link", "add", "bridge", "type", "bridge")
	n.in("switch", "ip", "link", "set", "bridge", "up")
	for i, name := range names {
		n.addNamespace(name)
		port := n.port(name)
		n.run("ip", "-n", n.netns("switch"), "link", "add", port, "type", "veth", "peer", "name", "eth0",
			"netns", n.netns(name))
		n.in("switch", "ip", "link", "set", port, "master", "bridge", "up")
		n.in(name, "ip", "addr", "add", n.Address(i)+"/24", "dev", "eth0")
		n.in(name, "ip", "link", "set", "eth0", "up")
		n.in(name, "ip", "link", "set", "lo", "up")
	}
	return n
}

// Attach returns the network that another process has made, by its prefix.
func Attach(t testing.TB, prefix string, names ...string) *Network {
	return &Network{t: t, prefix: prefix, hosts: names}
}

// Prefix returns the beginning of the names of the namespaces, by which another process
// finds them.
func (n *Network) Prefix() string { return n.prefix }

// forwardFrom makes a host forward packets for the guest on its tap device.
func (n *Network) forwardFrom(host string) {
	n.t.Helper()
	n.in(host, "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
	for i, other := range n.hosts {
		if other == host {
			for _, h := range n.hosts {
				if h != host {
					n.in(h, "ip", "route", "add", "default", "via", n.Address(i))
				}
			}
		}
	}
}

// Address returns the address of host i.
func (n *Network) Address(i int) string { return fmt.Sprintf("10.214.0.%d", 10+i) }

func (n *Network) netns(host string) string { return n.prefix + host }

// port returns the name of the bridge's end of a host's cable.
func (n *Network) port(host string) string { return "to-" + host }

func (n *Network) addNamespace(host string) {
	n.t.Helper()
	n.run("ip", "netns", "add", n.netns(host))
	n.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", n.netns(host)).Run() })
}

// Cut takes a host's cable out; Join puts it back.
func (n *Network) Cut(host string) error  { return n.cable(host, "down") }
func (n *Network) Join(host string) error { return n.cable(host, "up") }

// Drop makes a host drop its packets to another one, while it still takes in that one's packets;
// with drop false it sends again.
func (n *Network) Drop(from, to string, drop bool) error {
	verb := "del"
	if drop {
		verb = "replace"
	}
	address := n.Address(slices.Index(n.hosts, to)) + "/32"
	out, err := exec.Command("ip", "-n", n.netns(from), "route", verb, "blackhole", address).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s drops what goes to %s: %t: %w: %s", from, to, drop, err, out)
	}
	return nil
}

func (n *Network) cable(host, state string) error {
	out, err := exec.Command("ip", "-n", n.netns("switch"), "link", "set", n.port(host), state).CombinedOutput()
	if err != nil {
		return fmt.Errorf("set cable of %s %s: %w: %s", host, state, err, out)
	}
	return nil
}

// On returns the command line that runs a command on a host.
func (n *Network) On(host string, args ...string) []string {
	return append([]string{"ip", "netns", "exec", n.netns(host)}, args...)
}

// in runs a command on a host and returns what it printed.
func (n *Network) in(host string, args ...string) string {
	n.t.Helper()
	return n.run(n.On(host, args...)...)
}

func (n *Network) run(args ...string) string {
	n.t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		n.t.Fatalf("%s: %v: %s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
