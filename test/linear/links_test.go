// SPDX-License-Identifier: Apache-2.0

package linear

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"bfs/test/hosts"
)

// links connect replicas and clients, and can be disturbed.
type links interface {
	// addresses returns the addresses at which the replicas listen, and those at which
	// they tell their status.
	addresses() (hosts, admins []string)
	// on returns the command line that runs a command on the host of replica i.
	on(i int, command ...string) []string
	// lay connects the owner of a home directory with the replicas before it starts: replica i, or
	// a client if i is everyone.
	lay(home string, i int) error
	// drop drops packets from one replica to another, and lets the other direction pass. Everyone
	// stands for all others, clients too.
	drop(from, to int, drop bool) error
	// cut cuts all links of a replica, or repairs them.
	cut(r int, cut bool) error
}

const everyone = -1

// cables are links over the loopback.
type cables struct {
	t       testing.TB
	hosts   []string
	to      [members][]*cable        // by the replica they lead to: from replicas, then from clients
	between [members][members]*cable // from replica, to replica
}

func (l *cables) addresses() (hosts, admins []string) {
	for range members {
		host, admin := portPair(l.t)
		hosts, admins = append(hosts, host), append(admins, admin)
	}
	l.hosts = hosts
	return hosts, admins
}

func (l *cables) on(_ int, command ...string) []string { return command }

// lay puts a cable between the owner of a directory and each replica: its copy of the group file
// has the cables' addresses.
func (l *cables) lay(home string, i int) error {
	file := filepath.Join(home, "group.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	for j := range members {
		if i == j {
			continue
		}
		c := newCable(l.t, l.hosts[j])
		l.to[j] = append(l.to[j], c)
		if i != everyone {
			l.between[i][j] = c
		}
		old, now := fmt.Sprintf("address = %q", l.hosts[j]), fmt.Sprintf("address = %q", c.address())
		if !bytes.Contains(text, []byte(old)) {
			return fmt.Errorf("%s: no line %s", file, old)
		}
		text = bytes.Replace(text, []byte(old), []byte(now), 1)
	}
	return os.WriteFile(file, text, 0o644)
}

func (l *cables) drop(from, to int, drop bool) error {
	switch {
	case from == everyone:
		for _, c := range l.to[to] {
			c.there.set(!drop)
		}
		for _, c := range l.between[to] {
			if c != nil {
				c.back.set(!drop)
			}
		}
	case to == everyone:
		for _, c := range l.to[from] {
			c.back.set(!drop)
		}
		for _, c := range l.between[from] {
			if c != nil {
				c.there.set(!drop)
			}
		}
	default:
		l.between[from][to].there.set(!drop)
		l.between[to][from].back.set(!drop)
	}
	return nil
}

func (l *cables) cut(r int, cut bool) error {
	for _, c := range l.to[r] {
		c.setCut(cut)
	}
	for _, c := range l.between[r] {
		if c != nil {
			c.setCut(cut)
		}
	}
	return nil
}

// wires are links between hosts: each replica is on one of its own, clients and this
// process are on another.
type wires struct{ *hosts.Network }

// hostNames are the replicas' hosts, and then the clients'.
var hostNames = []string{"h0", "h1", "h2", "h3", "client"}

func (w wires) addresses() (hosts, admins []string) {
	for i := range members {
		hosts, admins = append(hosts, w.Address(i)+":7450"), append(admins, w.Address(i)+":7451")
	}
	return hosts, admins
}

func (w wires) on(i int, command ...string) []string { return w.On(hostNames[i], command...) }

func (w wires) lay(string, int) error { return nil }

func (w wires) drop(from, to int, drop bool) error {
	for i, a := range hostNames {
		for j, b := range hostNames {
			if i == j || from != everyone && from != i || to != everyone && to != j {
				continue
			}
			if err := w.Drop(a, b, drop); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w wires) cut(r int, cut bool) error {
	if cut {
		return w.Cut(hostNames[r])
	}
	return w.Join(hostNames[r])
}
