// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"bfs/test/apart"
)

func TestMain(m *testing.M) {
	if Inside() {
		SwitchOff(bareTest())
	}
	apart.Main(m)
}

// bareTest runs in the guest of TestBareGuest.
func bareTest() (code int) {
	args, err := Settle()
	if err != nil {
		fmt.Println(err)
		return 125
	}
	c, err := net.Dial("tcp", args[1])
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer c.Close()
	return Perform("sh", "-c", "echo got $0; test -b /dev/ubda && exit 3", args[0])
}

// A bare guest has its disk and its network, and tells the exit code of its program.
func TestBareGuest(t *testing.T) {
	bootable(t)
	t.Run("as on this processor", testBareGuest)
	t.Run("as on a processor with large registers", func(t *testing.T) {
		here := largeRegisters
		largeRegisters = func() bool { return true }
		defer func() { largeRegisters = here }()
		testBareGuest(t)
	})
}

func bootable(t *testing.T) {
	t.Helper()
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (or `make kernel-test`) to boot guest kernels")
	}
	if err := Available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
}

// A guest that panics ends, and its console says why.
func TestPanicEndsTheGuest(t *testing.T) {
	bootable(t)
	g, err := Start(t.Context(), Options{Bare: []string{"/bin/false"}, MemoryMB: 128, SpreadCPU: true})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := g.Wait(); err == nil || !strings.Contains(err.Error(), "Attempted to kill init") {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func testBareGuest(t *testing.T) {
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	wire, err := NewWire()
	if err != nil {
		t.Fatal(err)
	}
	defer wire.Remove()
	listener, err := net.Listen("tcp", wire.link.hostAddr+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	g, err := Start(t.Context(), Options{
		Bare: []string{program, "this", listener.Addr().String()}, Wire: wire, OwnLoopback: true,
		Disks: []string{disk}, MemoryMB: 128, SpreadCPU: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	r, err := g.Wait()
	if err != nil || r.Exit != 3 || r.Output != "got this\n" {
		t.Fatalf("got %+v, %v", r, err)
	}
}

func TestChecksAreFoundInOutput(t *testing.T) {
	got := Checks("noise\nbegin a\n  | x\nok a\nbegin b\nFAIL b: no: really\nbegin c\nok d\n")
	want := []Check{
		{Name: "a", OK: true, Output: "  | x\n"},
		{Name: "b", Why: "no: really"},
		{Name: "c", Why: "did not finish", Output: "ok d\n\n"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %d checks, want %d: %+v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("check %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

// A guest boots, runs a script with this machine's programs, asks, answers, and its exit
// code comes back.
func TestGuestRunsAScript(t *testing.T) {
	if os.Getenv("BFS_KERNEL") == "" {
		t.Skip("NOT RUN: set BFS_KERNEL=1 (or `make kernel-test`) to boot guest kernels")
	}
	asked := ""
	r := Run(t, Options{
		Command: `. "$GUEST_LIB"
			check arithmetic want sum $((2 + 3)) 5
			check question want answer "$(ask what is it)" "a test"
			check refusal refused "not that" ask something else
			check user want uid "$(as 1000:100,7 id -G)" "100 7"
			uname -r
			exit 0`,
		Answer: func(q string) (string, error) {
			asked += q + "."
			if q != "what is it" {
				return "", errors.New("not that")
			}
			return "a test", nil
		},
	})
	if asked != "what is it.something else." {
		t.Errorf("asked %q", asked)
	}
	if !strings.Contains(r.Output, "6.") {
		t.Errorf("no kernel release in %q", r.Output)
	}
}

// A guest's addresses are not in use elsewhere on the machine.
func TestAddressesAvoidRoutes(t *testing.T) {
	routes := parseRoutes("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n" +
		"eth0\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n" +
		"tun0\t0000D50A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n")
	if want := netip.MustParsePrefix("10.213.0.0/16"); len(routes) != 1 || routes[0] != want {
		t.Errorf("got %v, want %v alone", routes, want)
	}
}

// The next link that is made removes the devices that a killed run has left in our
// namespace. The devices of running guests stay, and their addresses are not given twice.
func TestLinksOfKilledRunsAreRemoved(t *testing.T) {
	if err := Available(); err != nil {
		t.Skipf("NOT RUN: %v", err)
	}
	left, err := newLink("", 1500, false)
	if err != nil {
		t.Fatal(err)
	}
	left.lock.Close() // as the kernel does for a process that is killed
	lives, err := newLink("", 1500, false)
	if err != nil {
		t.Fatal(err)
	}
	defer lives.remove()
	if lives.number != left.number {
		t.Errorf("got number %d, want %d, which is free", lives.number, left.number)
	}
	old := &link{number: maxGuests + 1, tap: tapPrefix + "251"}
	if err := old.ip("tuntap", "add", "mode", "tap", "name", old.tap); err != nil {
		t.Fatal(err)
	}
	next, err := newLink("", 1500, false)
	if err != nil {
		t.Fatal(err)
	}
	defer next.remove()
	if next.hostAddr == lives.hostAddr {
		t.Errorf("two guests have the address %s", next.hostAddr)
	}
	for name, want := range map[string]bool{old.tap: false, lives.tap: true, next.tap: true} {
		if _, err := net.InterfaceByName(name); (err == nil) != want {
			t.Errorf("device %s: there %t, want %t", name, err == nil, want)
		}
	}
}
