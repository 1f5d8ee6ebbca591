// SPDX-License-Identifier: Apache-2.0

// Package apart runs the tests of a package in namespaces and a temporary directory of their
// own, so that a run leaves nothing behind, however it ends, and shares nothing with other runs.
//
//	func TestMain(m *testing.M) { apart.Main(m, cluster.RemoveBinaries) }
//
// As root, the tests run in a child of the test binary that has a network, a process and
// a mount namespace of its own:
//
//   - Network devices, routes, ports and subnets are this run's alone. They neither clash
//     with those of other users of the machine nor outlive the run: the kernel removes
//     them with the last process of the namespace.
//   - The child is process 1 of its namespace. When it ends, also by SIGKILL, the kernel
//     ends every process it started.
//   - What `ip netns add` makes is seen in the child alone.
//
// Without root, or where namespaces are not allowed, the tests run in the namespaces of the caller.
//
// Temporary files are in one directory for each run. A run holds a lock on its directory;
// directories without a holder are those of runs that were killed, and the next run removes them.
package apart

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stageVariable tells a test binary where it runs. It is unset in the process that the
// user started, "child" in the process whose namespaces are new, and "apart" in all
// processes that this one starts.
const stageVariable = "BFS_APART"

// Main runs the tests, then the functions, and exits with the tests' code.
func Main(m *testing.M, then ...func()) { Exit(m.Run, then...) }

// Exit is Main for a command: it calls run, then the functions, and exits with the code
// that run returned.
func Exit(run func() int, then ...func()) {
	here := func() int {
		code := run()
		for _, f := range then {
			f()
		}
		return code
	}
	if os.Getenv(stageVariable) == "" {
		os.Exit(parent(here))
	}
	if os.Getenv(stageVariable) == "child" {
		settle()
	}
	os.Exit(here())
}

// parent runs the tests in a child; here runs them without one.
func parent(here func() int) int {
	dir, err := newDir()
	if err != nil {
		fmt.Fprintln(os.Stderr, "apart:", err)
		return 1
	}
	defer dir.remove()
	_ = os.Setenv("TMPDIR", dir.path)
	code, err := child()
	if err != nil {
		if os.Getuid() == 0 {
			fmt.Fprintf(os.Stderr, "apart: the tests run in the namespaces of the caller: %v\n", err)
		}
		_ = os.Setenv(stageVariable, "apart")
		return here()
	}
	return code
}

// child runs this program again in namespaces of its own, and returns its exit code. If
// it returns an error, no test has run.
func child() (code int, err error) {
	if os.Getuid() != 0 {
		return 0, errors.New("not root")
	}
	runtime.LockOSThread() // the child dies with the thread that started it, see Pdeathsig
	defer runtime.UnlockOSThread()
	settled, tell, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer settled.Close()
	c := exec.Command("/proc/self/exe", os.Args[1:]...)
	c.Args[0] = os.Args[0]
	c.Env = append(os.Environ(), stageVariable+"=child")
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.ExtraFiles = []*os.File{tell}
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	err = c.Start()
	tell.Close()
	if err != nil {
		return 0, err
	}
	defer passSignals(c.Process)()
	n, _ := settled.Read(make([]byte, 1))
	err = c.Wait()
	if n == 0 {
		return 0, fmt.Errorf("the child did not settle: %w", err)
	}
	if code = c.ProcessState.ExitCode(); code < 0 { // a signal
		code = 2
	}
	return code, nil
}

// passSignals hands to the child the signals that the user or go test sends to this
// process alone. An interrupt from a terminal reaches the child directly.
func passSignals(p *os.Process) (stop func()) {
	c := make(chan os.Signal, 8)
	signal.Notify(c, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	go func() {
		for s := range c {
			if s != syscall.SIGINT {
				_ = p.Signal(s)
			}
		}
	}()
	return func() {
		signal.Stop(c)
		close(c)
	}
}

// settledFile is the file descriptor on which the child tells its parent that its
// namespaces are ready.
const settledFile = 3

// settle prepares the new namespaces, and tells the parent that they are ready.
func settle() {
	_ = os.Setenv(stageVariable, "apart")
	tell := os.NewFile(settledFile, "settled")
	if err := makeAtHome(); err != nil {
		fmt.Fprintln(os.Stderr, "apart:", err)
		os.Exit(1)
	}
	_, _ = tell.Write([]byte{1})
	tell.Close()
}

// makeAtHome mounts the file systems of the new namespaces, where only this process's
// descendants see them, and starts the loopback device.
func makeAtHome() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	const names = "/run/netns" // of `ip netns`
	if err := os.MkdirAll(names, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", names, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", names, err)
	}
	return loopbackUp()
}

// loopbackUp does what `ip link set lo up` does, for machines without iproute2.
func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("start the loopback device: %w", err)
	}
	return nil
}
