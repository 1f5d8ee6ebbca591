// SPDX-License-Identifier: Apache-2.0

package apart

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"bfs/test/patience"
)

func TestMain(m *testing.M) { Main(m) }

// needNamespaces skips the test if this test binary could not get namespaces of its own.
func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Getpid() != 1 {
		t.Skip("NOT RUN: needs root, and leave to make namespaces")
	}
}

// A run sees a network with a loopback device and nothing else, and only its own processes.
func TestNamespacesAreNew(t *testing.T) {
	needNamespaces(t)
	devices, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		if addresses, _ := d.Addrs(); d.Name != "lo" && len(addresses) > 0 {
			t.Errorf("device %s has addresses %v", d.Name, addresses)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:2049") // another process of this machine may use this port
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, err := os.Stat("/proc/self/exe"); err != nil {
		t.Errorf("/proc is another namespace's: %v", err)
	}
	if dir := os.Getenv("TMPDIR"); !strings.Contains(filepath.Base(dir), runPattern) {
		t.Errorf("temporary files go to %s", dir)
	}
}

// A run that is killed leaves no process, no device, no namespace and, after the next run, no file.
func TestKilledRunLeavesNothing(t *testing.T) {
	needNamespaces(t)
	if os.Getenv("APART_VICTIM") != "" {
		beVictim(t)
	}
	home := t.TempDir()
	victim := exec.Command(os.Args[0], "-test.run=^TestKilledRunLeavesNothing$")
	victim.Env = append(os.Environ(), "APART_VICTIM=1", stageVariable+"=", homeVariable+"="+home)
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	first, err := bufio.NewReader(out).ReadString('\n') // it has started its process
	if err != nil || strings.TrimSpace(first) != "ready" {
		t.Fatalf("got %q, %v", first, err)
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed, as said
	patience.Until(t, "the processes of the killed run are gone", func() bool {
		return !commandRuns("sleep", victimSleeps)
	})
	if _, err := os.Stat("/sys/class/net/victim"); err == nil {
		t.Error("its network device is left")
	}
	left, _ := filepath.Glob(filepath.Join(home, runPattern+"*"))
	if len(left) != 1 {
		t.Fatalf("it had the directories %v, want one", left)
	}
	sweep(home)
	if _, err := os.Stat(left[0]); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", left[0], err)
	}
}

// victimSleeps, in seconds, is the argument by which the process that would be left
// behind is found.
const victimSleeps = "86399"

// beVictim makes a device, a file and a process, and waits to be killed.
func beVictim(t *testing.T) {
	_ = exec.Command("ip", "tuntap", "add", "mode", "tap", "name", "victim").Run() // where there is iproute2
	if err := os.WriteFile(filepath.Join(t.TempDir(), "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	c := exec.Command("sh", "-c", "echo ready; exec sleep "+victimSleeps)
	c.Stdout = os.Stdout
	t.Fatal(c.Run())
}

// commandRuns reports whether a process of this namespace, or of one below it, has the
// command line.
func commandRuns(words ...string) bool {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range all {
		if text, _ := os.ReadFile(file); string(text) == strings.Join(words, "\x00")+"\x00" {
			return true
		}
	}
	return false
}

// The directory of a running run stays.
func TestLivingRunKeepsItsDirectory(t *testing.T) {
	t.Setenv(homeVariable, t.TempDir())
	first, err := newDir()
	if err != nil {
		t.Fatal(err)
	}
	defer first.remove()
	second, err := newDir()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(first.path); err != nil {
		t.Errorf("the second run took it away: %v", err)
	}
	second.remove()
	if _, err := os.Stat(second.path); !os.IsNotExist(err) {
		t.Errorf("a run that has ended left %s: %v", second.path, err)
	}
}
