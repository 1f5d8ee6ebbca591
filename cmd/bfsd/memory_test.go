// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"log/slog"
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

// A replica warns at its start when the group file asks for more memory than the host has, and
// names what is needed.
func TestWarnMemory(t *testing.T) {
	for size, want := range map[config.Size]string{1 << 40: "state.size=1TiB needs=", 64 << 20: ""} {
		var out bytes.Buffer
		g := &config.Group{Group: &pbft.Group{}}
		g.State.Size = size
		warnMemory(slog.New(slog.NewTextHandler(&out, nil)), g)
		if got := out.String(); want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("size %v: got %q, want %q", size, got, want)
		}
	}
	var out bytes.Buffer
	g := &config.Group{Group: &pbft.Group{}}
	g.State.Size = 4 << 30
	for size, want := range map[uint64]bool{0: false, 6 << 30: false, 4 << 30: true} {
		out.Reset()
		if warnDisk(slog.New(slog.NewTextHandler(&out, nil)), g, &pbft.DiskStatus{Size: size},
			"d"); (out.Len() > 0) != want {
			t.Errorf("4 GiB of state on a disk of %d bytes: %q", size, out.String())
		}
	}
	if got := neededMemory(1<<40, pbft.DefaultLimits()); got < 1<<40 || got > 1<<40*11/10 {
		t.Errorf("1 TiB of state needs %d bytes", got)
	}
}
