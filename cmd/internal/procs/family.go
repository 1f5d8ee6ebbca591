// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Plan is a child that is started from an open file, so that the program that runs is the one
// that was judged.
type Plan struct {
	Name   string
	File   *os.File            // the executable
	Args   []string            // without the program's name, which is Name
	As     *syscall.Credential // nil: this process's user
	Output *os.File            // a copy of its descriptor takes the child's output, except the ready line
}

// Start starts the plan's child. Its environment is this process's, without what systemd tells this
// process alone.
func (p *Plan) Start() (*Child, error) {
	fd, err := unix.FcntlInt(p.Output.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	output := os.NewFile(uintptr(fd), p.Output.Name())
	cmd := &exec.Cmd{
		Path:        fmt.Sprintf("/proc/self/fd/%d", p.File.Fd()),
		Args:        append([]string{p.Name}, p.Args...),
		Env:         slices.DeleteFunc(os.Environ(), ofSystemd),
		SysProcAttr: &syscall.SysProcAttr{Credential: p.As},
	}
	c, err := launch(p.Name, output, cmd)
	if err != nil {
		output.Close()
		return nil, err
	}
	go c.follow(c.stdout)
	go c.endOutput()
	return c, nil
}

// drainWithin bounds how long output is read after the child has ended: another process
// may hold its output open.
const drainWithin = time.Second

// endOutput waits until the child has ended, and then has its output end.
func (c *Child) endOutput() {
	for {
		err := unix.Waitid(unix.P_PID, c.PID(), nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			break
		}
	}
	if f, ok := c.stdout.(*os.File); ok {
		_ = f.SetReadDeadline(time.Now().Add(drainWithin)) // it may have ended already
	}
}

func ofSystemd(variable string) bool {
	return strings.HasPrefix(variable, "NOTIFY_SOCKET=") || strings.HasPrefix(variable, "WATCHDOG_")
}

// NameSelf gives this process the name under which ps lists it, for a process that was
// started from an open file.
func NameSelf(name string) {
	_ = os.WriteFile("/proc/self/comm", []byte(name), 0) // a name is for people only
}

// Hide keeps other processes of the same user from this process's memory, and the memory
// from core dumps.
func Hide() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// Adopt makes this process the parent of all processes that its children leave behind, so
// that KillOrphans finds them.
func Adopt() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// orphansWithin bounds KillOrphans.
const orphansWithin = 5 * time.Second

// KillOrphans kills all processes that descend from this one. Requires Adopt, and that no
// child is to live. A child can start processes that leave its process group and its
// session; its death makes them this process's children.
func KillOrphans() error {
	for end := time.Now().Add(orphansWithin); ; time.Sleep(time.Millisecond) {
		left, err := Children(os.Getpid())
		if err != nil || len(left) == 0 {
			return err
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
		if time.Now().After(end) {
			return fmt.Errorf("%d processes that the replica started are left: look at them (pids %v)", len(left), left)
		}
	}
}

// Children lists the processes whose parent is the process of that number.
func Children(parent int) (pids []int, err error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	number := strconv.Itoa(parent)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state parent ..., and the name may hold anything
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) > 1 && string(fields[1]) == number {
			pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids, nil
}
