// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"
	"time"
)

func TestRecoveryCheck(t *testing.T) {
	good := Recovery{N: 4, State: 1 << 20, Clients: 1, Rounds: 1, Phase: time.Second, Durability: "disk"}
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	if six := (Recovery{N: 6, Dead: 1, State: 1 << 20, Clients: 1, Rounds: 1, Phase: time.Second,
		Durability: "disk"}); six.Check() != nil {
		t.Errorf("six replicas, of which one is dead: %v", six.Check())
	}
	for flag, change := range map[string]func(*Recovery){
		"--n":          func(m *Recovery) { m.N = 3 },
		"--dead":       func(m *Recovery) { m.Dead = 1 },
		"--state":      func(m *Recovery) { m.State = 4096 },
		"--clients":    func(m *Recovery) { m.Clients = 0 },
		"--rounds":     func(m *Recovery) { m.Rounds = 0 },
		"--phase":      func(m *Recovery) { m.Phase = 0 },
		"--durability": func(m *Recovery) { m.Durability = "disc" },
	} {
		bad := good
		change(&bad)
		if err := bad.Check(); err == nil || !strings.HasPrefix(err.Error(), flag) {
			t.Errorf("got %v, want an error about %s", err, flag)
		}
	}
}

// The rows of recoveries are followed by the slowest of each part, whichever recovery
// that was in, and by the paper's.
func TestRecoveryTable(t *testing.T) {
	var b strings.Builder
	all := []Recovered{
		{Role: backup, Replica: 3, Stop: 0.25, Total: 2, During: counted{WriteStall: 30, ReadStall: 20}},
		{Role: primary, Stop: 0.125, Total: 3, During: counted{WriteStall: 10, ReadStall: 40}},
	}
	if err := WriteRecoveredFoot(&b, all); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if got := strings.Fields(lines[0]); len(got) != 13 || got[2] != "0.25" || got[8] != "3.00" || got[11] != "30/40" {
		t.Errorf("the longest are %q", got)
	}
	if !strings.HasPrefix(lines[1], "paper, 205 MB") || !strings.Contains(lines[1], "42.59") {
		t.Errorf("the paper's row is %q", lines[1])
	}
}
