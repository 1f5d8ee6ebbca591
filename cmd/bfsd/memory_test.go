// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"

	"bfs/cmd/internal/config"
	"bfs/pkg/pbft"
)

// Memory is warned of once at each level, and again only after it has fallen well below that.
func TestFullness(t *testing.T) {
	var level fullness
	var warned []uint64
	for _, used := range []uint64{10, 69, 70, 75, 69, 71, 66, 64, 72, 97, 96, 89, 91, 94, 95, 40, 80} {
		if level.rises(used, 100) {
			warned = append(warned, used)
		}
	}
	if want := []uint64{70, 72, 97, 95, 80}; !slices.Equal(warned, want) {
		t.Errorf("warned at %v, want %v", warned, want)
	}
}

// aGroup is a group of four with the default limits.
func aGroup(size config.Size, d pbft.Durability) *config.Group {
	g := &config.Group{Group: &pbft.Group{Members: make([]pbft.Member, 4), Limits: pbft.DefaultLimits(), Durability: d}}
	g.State.Size = size
	return g
}

// A replica warns at its start when the group file asks for more memory than the host has, and
// names what is needed.
func TestWarnMemory(t *testing.T) {
	for size, want := range map[config.Size]string{1 << 40: "state.size=1TiB needs=", 64 << 20: ""} {
		var out bytes.Buffer
		warnMemory(slog.New(slog.NewTextHandler(&out, nil)), aGroup(size, pbft.DurabilityReplicated), 0)
		if got := out.String(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("size %v: got %q, want %q", size, got, want)
		}
	}
	var out bytes.Buffer
	g := aGroup(4<<30, pbft.DurabilityDisk)
	for size, want := range map[uint64]bool{0: false, 6 << 30: false, 4 << 30: true} {
		out.Reset()
		if warnDisk(slog.New(slog.NewTextHandler(&out, nil)), g, &pbft.DiskStatus{Size: size},
			"d"); (out.Len() > 0) != want {
			t.Errorf("4 GiB of state on a disk of %d bytes: %q", size, out.String())
		}
	}
	if got := neededMemory(aGroup(1<<40, pbft.DurabilityDisk), 256); got < 1<<40 || got > 1<<40*11/10 {
		t.Errorf("1 TiB of state needs %d bytes", got)
	}
}

// A replica needs memory for the state with its digests, for the pages that checkpoints keep, and
// for each use of the heap. The manual has these figures.
func TestNeededMemory(t *testing.T) {
	manual, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	const mib = 1 << 20
	row := func(what string, bytes uint64) {
		if want := fmt.Sprintf("| %s | %d |", what, (bytes+mib-1)/mib); !strings.Contains(string(manual), want) {
			t.Errorf("docs/OPERATING.md has no line %s", want)
		}
	}
	g := aGroup(8<<30, pbft.DurabilityDisk)
	sum := uint64(8<<30)*17/16 + g.CheckpointMemory(8<<30)
	row("pages that checkpoints keep", g.CheckpointMemory(8<<30))
	for _, u := range g.Memory(0) {
		sum += u.Bytes
		if u.What != "clients" {
			row(u.What, u.Bytes)
		}
	}
	each := neededMemory(g, 1) - neededMemory(g, 0)
	row("each enrolled client, and the administrator", each)
	row("all but the state", sum-8<<30*17/16)
	if got := neededMemory(g, 0); got != sum {
		t.Errorf("got %d bytes, want %d", got, sum)
	}
	if got := neededMemory(g, 10); got != sum+10*each {
		t.Errorf("got %d bytes with ten clients, want %d", got, sum+10*each)
	}
	if got, less := neededMemory(aGroup(8<<30, pbft.DurabilityReplicated), 0), neededMemory(g, 0); got >= less {
		t.Errorf("got %d bytes without a disk, want less than %d", got, less)
	}
}
