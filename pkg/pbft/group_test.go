// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"fmt"
	"strings"
	"testing"

	"bfs/pkg/pbft"
)

// sized is a group of n as its parts are before they are checked.
func sized(n int) pbft.Group {
	good, _, _ := newGroup(4)
	g := *good
	g.Members = nil
	for i := range n {
		key := make([]byte, 32)
		key[0] = byte(i)
		g.Members = append(g.Members, pbft.Member{Address: fmt.Sprintf("host%d:1", i), Key: key})
	}
	return g
}

func TestCheckGroup(t *testing.T) {
	good, _, _ := newGroup(4)
	for _, c := range []struct {
		want   string // of the error; empty: none
		change func(g *pbft.Group)
	}{
		{"", func(*pbft.Group) {}},
		{"", func(g *pbft.Group) { g.Members = g.Members[:1] }},
		{"", func(g *pbft.Group) { *g = sized(5) }},
		{"", func(g *pbft.Group) { *g = sized(6) }},
		{"", func(g *pbft.Group) { *g = sized(32) }},
		{"replicas: got 33, want", func(g *pbft.Group) { *g = sized(33) }},
		{"name: want 1 to 255 bytes", func(g *pbft.Group) { g.Name = "" }},
		{"name: want 1 to 255 bytes", func(g *pbft.Group) { g.Name = strings.Repeat("x", 256) }},
		{"replicas: got 3, want 4 to 32", func(g *pbft.Group) { g.Members = g.Members[:3] }},
		{"replicas: got 0, want 4 to 32", func(g *pbft.Group) { g.Members = nil }},
		{"replicas: got 34, want 4 to 32", func(g *pbft.Group) { g.Members = make([]pbft.Member, 34) }},
		{"administrator: got a key of 3 bytes, want 32", func(g *pbft.Group) { g.Administrator = []byte("key") }},
		{"replica 2: got a key of 0 bytes, want 32", func(g *pbft.Group) { g.Members[2].Key = nil }},
		{`replica 1: address "somewhere": want host:port`, func(g *pbft.Group) { g.Members[1].Address = "somewhere" }},
		{"replica 3: has the key or address of replica 0", func(g *pbft.Group) { g.Members[3].Key = g.Members[0].Key }},
		{"replica 3: has the key or address of replica 1", func(g *pbft.Group) { g.Members[3].Address = g.Members[1].Address }},
		{"checkpoint_period: got 0, want 1 to 65536", func(g *pbft.Group) { g.Limits.CheckpointPeriod = 0 }},
		{"checkpoint_period", func(g *pbft.Group) { g.Limits.CheckpointPeriod = 1<<64 - 1 }},
		{"checkpoint_bytes: got -1, want 0", func(g *pbft.Group) { g.Limits.CheckpointBytes = -1 }},
		{"log_size: got 128, want 129 to 262144", func(g *pbft.Group) { g.Limits.LogSize = 128 }},
		{"clients: got 65536, want 1 to 65535", func(g *pbft.Group) { g.Limits.Clients = 1 << 16 }},
		{"slots: got 12, want a multiple of 8", func(g *pbft.Group) { g.Limits.Slots = 12 }},
		{"slots: got -8", func(g *pbft.Group) { g.Limits.Slots = -8 }},
		{"operation: got 63, want 64", func(g *pbft.Group) { g.Limits.Operation = 63 }},
		{"reply: got 495, want", func(g *pbft.Group) { g.Limits.Reply = 495 }},
		{"kept_reply: got 1, want 496 to 496", func(g *pbft.Group) { g.Limits.KeptReply = 1 }},
		{"rights: got 4057, want 0 to 4056", func(g *pbft.Group) { g.Limits.Rights = 4057 }},
		{"batch_bytes: got 0", func(g *pbft.Group) { g.Limits.BatchBytes = 0 }},
		{"batch_count: got 0", func(g *pbft.Group) { g.Limits.BatchCount = 0 }},
		{"batch_cost: got 64", func(g *pbft.Group) { g.Limits.BatchCost = 64 }},
		{"log_bytes: got 1024", func(g *pbft.Group) { g.Limits.LogBytes = 1024 }},
	} {
		g := *good
		g.Members = append([]pbft.Member(nil), good.Members...)
		c.change(&g)
		made, err := pbft.CheckGroup(g)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("refused: %v", err)
		case c.want == "" && made == nil:
			t.Error("no group and no error")
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("got %v, want %q", err, c.want)
		}
	}
}

// What members must agree on is in the digest, and where they live is not.
func TestGroupDigest(t *testing.T) {
	good, _, other := newGroup(4)
	seen := map[pbft.Digest]string{good.Digest(): "the group itself"}
	for what, change := range map[string]func(g *pbft.Group){
		"name":          func(g *pbft.Group) { g.Name += "x" },
		"epoch":         func(g *pbft.Group) { g.Epoch++ },
		"order":         func(g *pbft.Group) { g.Members[0], g.Members[1] = g.Members[1], g.Members[0] },
		"administrator": func(g *pbft.Group) { g.Administrator = append([]byte(nil), other[:32]...) },
		"service":       func(g *pbft.Group) { g.Service[0]++ },
		"K":             func(g *pbft.Group) { g.Limits.CheckpointPeriod++ },
		"checkpoint":    func(g *pbft.Group) { g.Limits.CheckpointBytes++ },
		"L":             func(g *pbft.Group) { g.Limits.LogSize++ },
		"clients":       func(g *pbft.Group) { g.Limits.Clients++ },
		"slots":         func(g *pbft.Group) { g.Limits.Slots += 8 },
		"operation":     func(g *pbft.Group) { g.Limits.Operation-- },
		"reply":         func(g *pbft.Group) { g.Limits.Reply++ },
		"rights":        func(g *pbft.Group) { g.Limits.Rights-- },
		"batch bytes":   func(g *pbft.Group) { g.Limits.BatchBytes-- },
		"batch count":   func(g *pbft.Group) { g.Limits.BatchCount++ },
		"batch cost":    func(g *pbft.Group) { g.Limits.BatchCost++ },
		"log bytes":     func(g *pbft.Group) { g.Limits.LogBytes++ },
	} {
		g := *good
		g.Members = append([]pbft.Member(nil), good.Members...)
		change(&g)
		made, err := pbft.CheckGroup(g)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if before, ok := seen[made.Digest()]; ok {
			t.Errorf("another %s has the digest of %s", what, before)
		}
		seen[made.Digest()] = what
	}
	g := *good
	g.Members = append([]pbft.Member(nil), good.Members...)
	g.Members[0].Address = "moved:1"
	if made, err := pbft.CheckGroup(g); err != nil || made.Digest() != good.Digest() {
		t.Errorf("a member that moved makes another group: %v", err)
	}
}

func TestQuorums(t *testing.T) {
	for n, want := range map[int][3]int{1: {0, 1, 1}, 4: {1, 3, 2}, 5: {1, 4, 2}, 6: {1, 4, 2},
		7: {2, 5, 3}, 10: {3, 7, 4}} {
		g, _, _ := newGroup(n)
		if got := [3]int{g.F(), g.Quorum(), g.Weak()}; g.N() != n || got != want {
			t.Errorf("n=%d: f, quorum and weak are %v, want %v", g.N(), got, want)
		}
	}
}

// A replica that cannot run says why, and leaves nothing running.
func TestReplicaConfigErrors(t *testing.T) {
	g, keys, _ := newGroupWith(4, smallLimits(), pbft.DurabilityReplicated)
	service := newTally(g)
	for want, cfg := range map[string]pbft.ReplicaConfig{
		"needs a group":          {},
		"needs a group and a":    {Group: g},
		"replicas 0 to 3":        {Group: g, Service: service, Self: 4, Key: keys[0]},
		"private key is not the": {Group: g, Service: service, Self: 1, Key: keys[0], Directory: t.TempDir()},
		`transport "smoke"`:      {Group: g, Service: service, Key: keys[0], Directory: t.TempDir(), Transport: "smoke"},
		"address already in use": {Group: g, Service: service, Key: keys[0], Directory: t.TempDir(), Listen: taken(t)},
	} {
		if r, err := pbft.StartReplica(cfg); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
			if err == nil {
				r.Close(t.Context())
			}
		}
	}
}

// taken is an address at which a process listens already.
func taken(t *testing.T) string { return newWire(t, "").l.Addr().String() }
