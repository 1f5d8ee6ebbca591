// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/bench"
	"bfs/test/cluster"
	"bfs/test/patience"
)

// One attack by each kind of offender ends with a row: the client that suffers was served before
// the attack began.
func TestBenchAttack(t *testing.T) {
	sufferAttacks(t, map[string]bench.By{"bad-macs-one": bench.ByClient, "replica-decided": bench.ByReplica,
		"primary-starves": bench.ByPrimary, "stranger-hellos": bench.ByStranger, "closed-port": bench.ByNobody})
}

// So does one by a client, the primary and a backup at the same time, two of seven replicas.
func TestBenchAttackCombined(t *testing.T) {
	sufferAttacks(t, map[string]bench.By{"common+primary-starves+replica-late": "client+primary+replica"}, "--n", "7")
}

func sufferAttacks(t *testing.T, want map[string]bench.By, flags ...string) {
	t.Helper()
	bfsd := program(t)
	ctx, cancel := patience.Context(t.Context(), 3*time.Minute)
	defer cancel()
	args := []string{"bench", "attack", "--rounds", "1", "--phase", "200ms", "--durability", "replicated", "--json"}
	args = append(args, flags...)
	for name := range want {
		args = append(args, name)
	}
	c := exec.CommandContext(ctx, bfsd, args...)
	c.Env = append(c.Environ(), "TMPDIR="+t.TempDir())
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	for rows := json.NewDecoder(out); ; {
		var d bench.Damage
		if err := rows.Decode(&d); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		if want[d.Name] != d.By || d.Before <= 0 || d.CalmP99 <= 0 || d.Connect <= 0 {
			t.Errorf("got %+v, want an attack by %q", d, want[d.Name])
		}
		delete(want, d.Name)
	}
	if err := c.Wait(); err != nil || len(want) > 0 {
		t.Errorf("%v; no row for %v", err, want)
	}
}

// The help names each offender once, whoever attacks.
func TestOffendersHaveHelp(t *testing.T) {
	help := offenders()
	for _, o := range bench.Offenders() {
		if n := strings.Count(help, "  "+o.Name+" "); n != 1 {
			t.Errorf("%s is in the help %d times", o.Name, n)
		}
	}
}

// program builds bfsd, unless tests are to be short, and returns its path.
func program(t *testing.T) string {
	t.Helper()
	if testing.Short() {
		t.Skip("NOT RUN: starts real processes for some seconds; run without -short")
	}
	bin, err := cluster.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(bin, "bfsd")
}
