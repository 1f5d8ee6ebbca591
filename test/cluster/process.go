// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"bfs/test/patience"
)

// readyWithin bounds how long a process may take until it is ready.
const readyWithin = time.Minute

// A Process is one of the group's programs. It can be stopped and started again any
// number of times.
type Process struct {
	Name string
	args []string
	log  string // file that every run's output is added to

	mu    sync.Mutex
	cmd   *exec.Cmd
	ready chan struct{} // closed when this run has said that it is ready
	ended chan struct{} // closed when this run has ended
}

// NewProcess returns a process that is not started yet. args is its command line; log is
// the path of a file for its output.
func NewProcess(name, log string, args ...string) *Process {
	return &Process{Name: name, args: args, log: log}
}

// Start starts the process and returns at once.
func (p *Process) Start() error { return p.StartWith() }

// StartWith is Start with more arguments than the process usually has.
func (p *Process) StartWith(more ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	c := exec.Command(p.args[0], append(slices.Clone(p.args[1:]), more...)...)
	c.Stderr = log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		log.Close()
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.ready, p.ended = c, make(chan struct{}), make(chan struct{})
	go watch(c, out, log, p.ready, p.ended)
	return nil
}

// watch follows one run: it copies the process's output to its log, and closes channels
// when the process is ready and when it has ended.
func watch(c *exec.Cmd, out io.Reader, log *os.File, ready, ended chan struct{}) {
	lines := bufio.NewScanner(out)
	said := false
	for lines.Scan() {
		fmt.Fprintln(log, lines.Text())
		if lines.Text() == "ready" && !said {
			said = true
			close(ready)
		}
	}
	_ = c.Wait()
	log.Close()
	close(ended)
}

// Ready waits until the process has said that it is.
func (p *Process) Ready(ctx context.Context) error {
	ctx, cancel := patience.Context(ctx, readyWithin)
	defer cancel()
	p.mu.Lock()
	ready, ended := p.ready, p.ended
	p.mu.Unlock()
	select {
	case <-ready:
		return nil
	case <-ended:
		return fmt.Errorf("%s ended before it was ready:\n%s", p.Name, p.LogTail(15))
	case <-ctx.Done():
		return fmt.Errorf("%s is not ready: %w\n%s", p.Name, ctx.Err(), p.LogTail(15))
	}
}

// Ended is closed when the present run has ended, by itself or not. Requires that the
// process was started.
func (p *Process) Ended() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// Signal sends a signal, for example SIGSTOP or SIGCONT.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return fmt.Errorf("%s is not running", p.Name)
	}
	return p.cmd.Process.Signal(s)
}

// Kill ends the process with SIGKILL and waits until it is gone.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Terminate asks the process to end, and waits until it has.
func (p *Process) Terminate() { p.end(syscall.SIGTERM) }

func (p *Process) end(s syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(s)
	<-p.ended
	p.cmd = nil
}

// Restart kills the process, starts it again and waits until it is ready.
func (p *Process) Restart(ctx context.Context) error {
	p.Kill()
	if err := p.Start(); err != nil {
		return err
	}
	return p.Ready(ctx)
}

// PID returns the running process's number, or 0.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// LogTail returns the last lines of the process's log.
func (p *Process) LogTail(n int) string {
	text, _ := os.ReadFile(p.log)
	lines := strings.Split(strings.TrimRight(string(text), "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
