// SPDX-License-Identifier: Apache-2.0

// Package procs starts, watches and stops child processes that say when they are ready.
// Children do not outlive their parent, however it ends.
package procs

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"bfs/cmd/internal/cli"
)

// A Child is one process.
type Child struct {
	Name string

	log    string
	cmd    *exec.Cmd
	output *os.File
	stdout io.ReadCloser
	ready  chan struct{}
	exited chan struct{}
	err    error // of Wait, once exited is closed
}

// Start starts a program. Its output, except the ready line, is appended to the file log.
func Start(name, log, program string, args ...string) (*Child, error) {
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	c, err := launch(name, output, exec.Command(program, args...))
	if err != nil {
		output.Close()
		return nil, err
	}
	go c.follow(c.stdout)
	return c, nil
}

// launch starts a command whose output, except the ready line, goes to a file, which is closed when
// the child has ended.
func launch(name string, output *os.File, cmd *exec.Cmd) (*Child, error) {
	c := &Child{Name: name, log: output.Name(), cmd: cmd, output: output, ready: make(chan struct{}),
		exited: make(chan struct{})}
	c.cmd.Stderr = output
	attributes := c.cmd.SysProcAttr
	if attributes == nil {
		attributes = &syscall.SysProcAttr{}
	}
	attributes.Setpgid = true // a ctrl-C at the terminal reaches the parent, which stops its children in order
	attributes.Pdeathsig = syscall.SIGKILL
	c.cmd.SysProcAttr = attributes
	stdout, err := c.cmd.StdoutPipe()
	if err == nil {
		err = spawn(c.cmd)
	}
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c.stdout = stdout
	return c, nil
}

// spawn starts cmd on a thread that lives as long as this process, because Pdeathsig is
// sent when the thread that started the child ends, not when the process does.
func spawn(cmd *exec.Cmd) error {
	spawner.Do(func() {
		go func() {
			runtime.LockOSThread()
			for s := range spawns {
				s.err <- s.cmd.Start()
			}
		}()
	})
	err := make(chan error, 1)
	spawns <- spawning{cmd, err}
	return <-err
}

type spawning struct {
	cmd *exec.Cmd
	err chan error
}

var (
	spawner sync.Once
	spawns  = make(chan spawning)
)

// follow reads the child's output until it ends.
func (c *Child) follow(stdout io.Reader) {
	lines := bufio.NewScanner(stdout)
	for said := false; lines.Scan(); {
		if lines.Text() == cli.Ready && !said {
			said = true
			close(c.ready)
			continue
		}
		fmt.Fprintln(c.output, lines.Text())
	}
	_, _ = io.Copy(c.output, stdout) // a line too long for the scanner must not block the child
	c.err = c.cmd.Wait()
	c.output.Close()
	close(c.exited)
}

// Ready waits for the child's ready line. That it ended instead is an error with its last words.
func (c *Child) Ready(ctx context.Context) error {
	select {
	case <-c.ready:
		return nil
	case <-c.exited:
		return c.Failure()
	case <-ctx.Done():
		return fmt.Errorf("%s: not ready: %w", c.Name, ctx.Err())
	}
}

// IsReady is closed when the child has said that it is ready.
func (c *Child) IsReady() <-chan struct{} { return c.ready }

// Exited is closed when the child has ended.
func (c *Child) Exited() <-chan struct{} { return c.exited }

// HowEnded says how the child ended. Requires that it has.
func (c *Child) HowEnded() string {
	if c.err != nil {
		return c.err.Error()
	}
	return "exit status 0"
}

// ExitCode is the child's exit code, -1 if a signal ended it. Requires that it has ended.
func (c *Child) ExitCode() int { return c.cmd.ProcessState.ExitCode() }

// Failure is HowEnded as an error, with the child's last words.
func (c *Child) Failure() error {
	return fmt.Errorf("%s: %s; its last words (%s):\n%s", c.Name, c.HowEnded(), c.log, tail(c.log, 10))
}

func tail(file string, n int) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return "  " + strings.Join(lines[max(0, len(lines)-n):], "\n  ")
}

// PID is the process's number.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Kill ends the child and the processes that it has started with SIGKILL, because these
// would keep its output open; and waits for the child.
func (c *Child) Kill() {
	_ = syscall.Kill(-c.PID(), syscall.SIGKILL) // it may have ended already,
	_ = c.cmd.Process.Kill()                    // or have left its group
	<-c.exited
}

// Stop asks the child to end, kills it if it has not after a while, and waits for it.
func (c *Child) Stop(patience time.Duration) error {
	select {
	case <-c.exited:
		return nil
	default:
	}
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may be ending
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-c.exited:
		if c.err != nil {
			return c.Failure()
		}
		return nil
	case <-timer.C:
		c.Kill()
		return fmt.Errorf("%s: did not stop within %v and was killed", c.Name, patience)
	}
}

// StopAll stops children at once, last ones first, and tells of all that went wrong.
func StopAll(children []*Child, patience time.Duration) (problems []error) {
	errs := make([]error, len(children))
	var all sync.WaitGroup
	for i := range children {
		c := children[len(children)-1-i]
		all.Go(func() { errs[i] = c.Stop(patience) })
	}
	all.Wait()
	for _, err := range errs {
		if err != nil {
			problems = append(problems, err)
		}
	}
	return problems
}
