// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"flag"
	"os"
	"path/filepath"
	"testing"
	"time"

	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

var rewrite = flag.Bool("rewrite", false, "write the example files in deploy as they would be made now")

const deploy = "../../../deploy"

// The private halves of the examples' keys were thrown away.
var exampleKeys = []string{
	"bfs-key:KxwU3xpIYiEU78eeMSmXki2kkWmfVZeitFb+6FaH4PA=",
	"bfs-key:8RLC1DFuHWhc9IeJ6AyF0CiFxzW4qtpakBzPkEdDGnY=",
	"bfs-key:7PSHo/9ncK95U1Du2IXU5trV3+1k89KOWoP4WoP+Fj8=",
	"bfs-key:MdgUt+lzhlW20EsPlGEbc1NlMCHFeCm8EVElHf2DLo4=",
}

const exampleAdministrator = "bfs-key:ERW+REx/6hkZOFN3Bm+s4Tfli7gaZ4HMvy7yo0O8ylA="

// The examples are the files that init writes, for invented hosts and keys.
func TestExamples(t *testing.T) {
	hosts, err := Hosts([]string{"a.example", "b.example", "c.example", "d.example"})
	if err != nil {
		t.Fatal(err)
	}
	p := Plan{
		Name: "bfs", Hosts: hosts, Exports: []string{config.DefaultExport}, Size: config.DefaultStateSize,
		Limits: pbft.DefaultLimits(), Transport: pbft.TransportTLS, Durability: pbft.DurabilityReplicated,
		Window: pbft.DefaultWindow, LogLevel: "info",
		Created: time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC),
	}
	group := groupValues{
		Plan: p, Administrator: exampleAdministrator, ClockBound: config.Duration(config.DefaultClockBound).String(),
		BatchCost:       config.Size(p.Limits.BatchCost).String(),
		LogBytes:        config.Size(p.Limits.LogBytes).String(),
		CheckpointBytes: config.Size(p.Limits.CheckpointBytes).String(),
	}
	for i, h := range hosts {
		group.Members = append(group.Members, memberValues{h, exampleKeys[i]})
	}
	example(t, "group.toml", group)
	example(t, "replica.toml", replicaValues{Plan: p, Host: hosts[2], Replica: 2})
	example(t, "relay.toml", RelayPlan{
		Listen: config.DefaultRelayListen, AdminListen: config.DefaultRelayAdminListen, Export: config.DefaultExport,
		Transport: pbft.TransportTLS,
	})
	if _, err := config.LoadGroup(filepath.Join(deploy, "group.toml")); err != nil {
		t.Error(err)
	}
	if _, _, err := config.LoadRelayMount(filepath.Join(deploy, "relay.toml")); err != nil {
		t.Error(err)
	}
}

func example(t *testing.T, name string, values any) {
	t.Helper()
	text, err := render(name+".tmpl", values)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(deploy, name)
	if *rewrite {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(text) {
		t.Errorf("%s differs from the file that init writes now: refresh it with -rewrite", file)
	}
}
