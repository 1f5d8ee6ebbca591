// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"bfs/cmd/internal/cli"
)

// A plan runs the file that was opened, whatever has taken its name since, and does not
// hand on what systemd told this process.
func TestPlanStartsTheOpenFile(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/run/systemd/notify")
	dir := t.TempDir()
	program := filepath.Join(dir, "program")
	shell, err := os.ReadFile("/bin/sh")
	if err == nil {
		err = os.WriteFile(program, shell, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	p := Plan{Name: "program", File: f, Args: []string{"-c", "echo name $0 notify $NOTIFY_SOCKET; echo " + cli.Ready},
		Output: log}
	c, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-c.Exited()
	if text, err := os.ReadFile(log.Name()); err != nil || !strings.Contains(string(text), "name program notify\n") {
		t.Errorf("it says %q, %v", text, err)
	}
}

// A child's end is noticed although a process that it started holds its output open.
func TestEndIsNoticed(t *testing.T) {
	f, err := os.Open("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := Plan{Name: "sh", File: f, Args: []string{"-c", "echo " + cli.Ready + "; sleep 1000 & exit 3"},
		Output: os.Stderr}
	c, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Kill)
	<-c.Exited()
	if got := c.HowEnded(); got != "exit status 3" {
		t.Errorf("got %q", got)
	}
}

// A child that has moved to another process group is killed all the same.
func TestKillReachesWhoLeftTheGroup(t *testing.T) {
	perl, err := exec.LookPath("perl")
	if err != nil {
		t.Skip("NOT RUN: no perl, with which a process changes its group")
	}
	f, err := os.Open(perl)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const script = `$|=1; if (!($c = fork)) { setpgrp(0, 0); sleep 1000; exit }
		select(undef, undef, undef, .001) until getpgrp($c) == $c; setpgrp(0, $c) or die;
		print "` + cli.Ready + `\n"; sleep 1000`
	p := Plan{Name: "perl", File: f, Args: []string{"-e", script}, Output: os.Stderr}
	c, err := p.Start()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	group, err := syscall.Getpgid(c.PID())
	if err != nil || group == c.PID() {
		t.Fatalf("it is in group %d, %v", group, err)
	}
	c.Kill()
	_ = syscall.Kill(-group, syscall.SIGKILL) // the rest of the group
}

// A process that left its parent's group and session is found and killed. The test runs
// itself, because it becomes the parent of all that is left behind.
func TestKillOrphans(t *testing.T) {
	if os.Getenv("BFS_TEST_ORPHANS") == "" {
		c := exec.Command(os.Args[0], "-test.run=^TestKillOrphans$", "-test.v")
		c.Env = append(os.Environ(), "BFS_TEST_ORPHANS=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := Adopt(); err != nil {
		t.Fatal(err)
	}
	pid := strings.TrimSpace(run(t, "setsid sh -c 'sleep 1000 >&- 2>&- & echo $!'"))
	if _, err := os.Stat("/proc/" + pid); err != nil {
		t.Fatalf("the orphan is not there: %v", err)
	}
	if err := KillOrphans(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/proc/" + pid); !os.IsNotExist(err) {
		t.Errorf("the orphan lives: %v", err)
	}
}

func run(t *testing.T, script string) string {
	t.Helper()
	out, err := exec.Command("/bin/sh", "-c", script).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
