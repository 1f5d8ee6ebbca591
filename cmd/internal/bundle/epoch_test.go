// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bfs/cmd/internal/config"
	"bfs/cmd/internal/keys"
	"bfs/pkg/pbft"
)

// epoch makes the next epoch of the group in dir, to begin with a checkpoint.
func epoch(t *testing.T, dir string, seq pbft.SeqNum) string {
	t.Helper()
	old, err := config.LoadGroup(filepath.Join(dir, GroupFile))
	if err != nil {
		t.Fatal(err)
	}
	key, err := keys.ReadPrivate(filepath.Join(dir, AdminDir, AdminKeyFile))
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "next")
	origin := pbft.Origin{Certified: pbft.Certified{Seq: seq, Root: pbft.Digest{1, 2}}, First: old.Lineage()}
	if err := WriteEpoch(out, Epoch{Old: old, Key: key, Hosts: HostsOf(old, false), Origin: origin,
		Transport: pbft.TransportTLS}); err != nil {
		t.Fatal(err)
	}
	return out
}

func load(t *testing.T, dir string) *config.Group {
	t.Helper()
	g, err := config.LoadGroup(filepath.Join(dir, GroupFile))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// An epoch keeps the administrator's settings in the group file, the administrator's key and the
// addresses. The hosts' keys, the number, the first checkpoint and the digest are new. Epochs
// follow each other.
func TestWriteEpoch(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "g")
	p := Plan{Name: "house", Hosts: Loopback(4, 7450), Exports: []string{"/home"}, Size: 1 << 30,
		Limits:    pbft.DefaultLimits(),
		Transport: pbft.TransportTLS, Durability: pbft.DurabilityReplicated, Window: 2}
	if err := Write(dir, p); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, GroupFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	edited := strings.Replace(string(text), "[state]\n", "[state]\n# ours\ninodes = 5000\n", 1)
	edited = strings.Replace(edited, "inodes = 0\n# The primary", "# The primary", 1)
	if err := os.WriteFile(file, []byte(edited), 0o644); err != nil {
		t.Fatal(err)
	}
	first := load(t, dir)
	second := epoch(t, dir, 640)
	g := load(t, second)
	if g.Epoch != 2 || g.Name != "house" || g.State != first.State || g.Limits != first.Limits ||
		len(g.Exports) != 1 || g.Durability != pbft.DurabilityDisk {
		t.Errorf("got %+v", g)
	}
	if g.Origin.Seq != 640 || g.Lineage() != first.Digest() || g.Digest() == first.Digest() ||
		!g.Administrator.Equal(first.Administrator) {
		t.Errorf("got %+v", g.Group)
	}
	for i, m := range g.Members {
		if m.Address != first.Members[i].Address || g.Admin[i] != first.Admin[i] || m.Key.Equal(first.Members[i].Key) {
			t.Errorf("member %d: got %+v", i, m)
		}
		if _, err := config.LoadReplica(filepath.Join(HostDir(second, i), ReplicaFile)); err != nil {
			t.Error(err)
		}
	}
	if text, _ := os.ReadFile(filepath.Join(second, GroupFile)); !strings.Contains(string(text), "# ours\n") {
		t.Error("what the administrator wrote is not there any more")
	}
	if g := load(t, epoch(t, second, 1280)); g.Epoch != 3 || g.Origin.Seq != 1280 || g.Lineage() != first.Digest() {
		t.Errorf("the third epoch: got %+v", g.Group)
	}
}

// Without the administrator's key an epoch's file cannot be changed in anything that the members
// must agree on. Addresses can.
func TestEpochsAreSigned(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "g")
	p := Plan{Name: "house", Hosts: Loopback(4, 7450), Exports: []string{"/home"}, Size: 1 << 30,
		Limits: pbft.DefaultLimits(), Transport: pbft.TransportTLS, Durability: pbft.DurabilityDisk, Window: 2}
	if err := Write(dir, p); err != nil {
		t.Fatal(err)
	}
	second := epoch(t, dir, 640)
	file := filepath.Join(second, GroupFile)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for what, x := range map[string][3]string{
		"another epoch":  {"epoch = 2", "epoch = 3", "origin.signature: is not the administrator's"},
		"a limit":        {"log_size = 256", "log_size = 384", "origin.signature: is not the administrator's"},
		"the checkpoint": {"checkpoint = 640", "checkpoint = 512", "origin.signature: is not the administrator's"},
		"no number":      {"checkpoint = 640", "checkpoint = 0", "origin.checkpoint: got 0"},
		"the root":       {`root = "0102`, `root = "0103`, "origin.signature: is not the administrator's"},
		"half a root":    {`root = "0102`, `root = "01`, "origin.root: got"},
		"no lineage":     {`first = "`, `first = "x`, "origin.first: got"},
		"no signature":   {`signature = "`, `signature = "" # "`, "origin.signature: want base64 of 64 bytes"},
		"memory only":    {`durability = "disk"`, `durability = "replicated"`, "origin: checkpoint 640 of a group with durability"},
		"an address":     {`"127.0.0.1:7450"`, `"127.0.0.1:9450"`, ""},
	} {
		changed := strings.Replace(string(text), x[0], x[1], 1)
		if changed == string(text) {
			t.Fatalf("%s: nothing changed", what)
		}
		if err := os.WriteFile(file, []byte(changed), 0o644); err != nil {
			t.Fatal(err)
		}
		_, err := config.LoadGroup(file)
		if (err == nil) != (x[2] == "") || err != nil && !strings.Contains(err.Error(), x[2]) {
			t.Errorf("%s: got %v, want %q", what, err, x[2])
		}
	}
}
