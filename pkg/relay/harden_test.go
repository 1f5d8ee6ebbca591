// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Harden changes the process for good, so a process of its own tries it, and still works
// afterwards: allocating a good deal must not fail under the lock.
func TestHarden(t *testing.T) {
	if os.Getenv("RELAY_TEST_HARDEN") != "" {
		for _, w := range Harden() {
			os.Stdout.WriteString("warning: " + w + "\n")
		}
		var keep [][]byte
		for range 64 {
			keep = append(keep, make([]byte, 1<<20))
		}
		keep[63][0] = 1
		os.Stdout.WriteString("works\n")
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(self, "-test.run=^TestHarden$")
	c.Env = append(os.Environ(), "RELAY_TEST_HARDEN=1")
	out, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "works\n") {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%s", out)
}

func TestPortRule(t *testing.T) {
	real := portStartFile
	defer func() { portStartFile = real }()
	portStartFile = filepath.Join(t.TempDir(), "start")
	if why := PortRule(false); why != "" {
		t.Errorf("unknown: got %q", why)
	}
	for _, c := range []struct {
		start    string
		insecure bool
		warns    bool
	}{{"1024\n", false, false}, {"2000\n", false, false}, {"80\n", false, true}, {"0\n", false, true},
		{"0\n", true, false}} {
		if err := os.WriteFile(portStartFile, []byte(c.start), 0o600); err != nil {
			t.Fatal(err)
		}
		why := PortRule(c.insecure)
		if (why != "") != c.warns || c.warns && !strings.Contains(why, "ip_unprivileged_port_start=1024") {
			t.Errorf("%+v: got %q", c, why)
		}
	}
}
