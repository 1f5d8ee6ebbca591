// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"bfs/cmd/internal/cli"
	"bfs/test/patience"
)

// start runs a shell script as a child of the test.
func start(t *testing.T, script string) *Child {
	t.Helper()
	c, err := Start("child", filepath.Join(t.TempDir(), "log"), "/bin/sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	return c
}

func TestChildSaysReadyAndStops(t *testing.T) {
	c := start(t, "echo something; echo "+cli.Ready+"; read forever < /dev/zero; sleep 1000")
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	if cpu, err := CPU(c.PID()); err != nil || cpu < 0 {
		t.Errorf("CPU: got %v, %v", cpu, err)
	}
	// A shell that is told to end does, with an exit code that names the signal.
	if err := c.Stop(patience.For(time.Minute)); err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("got %v, want its signal", err)
	}
	if err := c.Stop(patience.For(time.Minute)); err != nil {
		t.Errorf("stopped twice: got %v", err)
	}
}

func TestChildThatEndsEarlyIsQuoted(t *testing.T) {
	c := start(t, "echo cannot bind to port >&2; exit 3")
	err := c.Ready(t.Context())
	if err == nil || !strings.Contains(err.Error(), "cannot bind to port") ||
		!strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v, want its last words", err)
	}
}

func TestReadyEndsWithItsContext(t *testing.T) {
	c := start(t, "sleep 1000")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Ready(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestChildThatWillNotStopIsKilled(t *testing.T) {
	c := start(t, "trap '' TERM; echo "+cli.Ready+"; while :; do sleep 0.01; done")
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	problems := StopAll([]*Child{c}, time.Millisecond)
	if len(problems) != 1 || !strings.Contains(problems[0].Error(), "was killed") {
		t.Errorf("got %v", problems)
	}
}

// The parent of this test is this program again, killed while it has a child.
func TestChildrenDoNotOutliveTheirParent(t *testing.T) {
	if dir := os.Getenv("PROCS_PARENT"); dir != "" {
		c, err := Start("child", filepath.Join(dir, "log"), "/bin/sh", "-c", "echo "+cli.Ready+"; exec sleep 1000")
		if err != nil || c.Ready(t.Context()) != nil {
			t.Fatal(err)
		}
		fmt.Println("pid", c.PID())
		select {}
	}
	parent := exec.Command(os.Args[0], "-test.run=^TestChildrenDoNotOutliveTheirParent$")
	parent.Env = append(os.Environ(), "PROCS_PARENT="+t.TempDir())
	out, err := parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := parent.Start(); err != nil {
		t.Fatal(err)
	}
	pid := readPID(t, out)
	if err := parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = parent.Wait() // killed, as said
	// A process descriptor becomes readable when its process has ended.
	waitForEnd(t, pid)
}

func TestParseStat(t *testing.T) {
	const line = "42 (a) b (c) S 1 42 42 0 -1 4194560 100 0 0 0 123 45 0 0 20 0 9 0 100 0 0"
	if got, err := parseStat(line); err != nil || got != 1680*time.Millisecond {
		t.Errorf("got %v, %v, want 1.68s", got, err)
	}
	for _, bad := range []string{"", "42 (x) S 1", "42 x S 1 2 3"} {
		if got, err := parseStat(bad); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}
