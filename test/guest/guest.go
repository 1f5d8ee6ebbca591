// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"bfs/test/patience"
)

//go:embed init.sh
var initScript []byte

//go:embed lib.sh
var libScript []byte

// A Mount is an NFSv3 server to mount before the script starts.
type Mount struct {
	Host      string // default 127.0.0.1
	Port      int
	MountPort int    // default Port
	Export    string // for example /export
	Options   string // after those that every mount gets, for example "noac" or "soft,timeo=100"
}

// Options say which program to run, and in which guest.
type Options struct {
	Script  string   // path of a bash script; or
	Command string   // shell text to run instead
	Args    []string // for Script; or
	Bare    []string // a Go program that calls Settle, and its arguments: it is the guest's first process (bare.go)
	Mounts  []Mount
	Env     []string // K=V, exported to the script
	Dir     string   // where the script starts; default: the present directory

	Out     string        // directory seen as $GUEST_OUT; default: a temporary one, removed at the end
	Output  io.Writer     // gets the script's output while it runs; may be nil
	Answer  Answer        // answers the script's questions (ask); may be nil
	Timeout time.Duration // after it, on a quiet machine, the guest is killed; default 10 minutes

	MemoryMB    int      // default 1024
	CPU         int      // the host CPU to stay on; -1: anywhere; 0 is a CPU too, so the zero value pins to CPU 0
	SpreadCPU   bool     // pick a CPU by the guest's number instead of CPU
	Modules     []string // kernel modules beside overlay and nfsv3, for example nfsd
	NoNFS       bool     // mounts nothing by NFS, and boots faster for it
	OwnLoopback bool     // the guest's 127.0.0.1 is its own, and servers are reached by $GUEST_HOST
	NetNS       string   // network namespace (of `ip netns`) the guest is wired to; default: ours
	MTU         int      // default 65000; 1500 looks like Ethernet
	Wire        *Wire    // the link to use, with OwnLoopback, without NetNS and MTU; default: one of the guest's own

	// Disks are files of this machine that are the guest's block devices /dev/ubda,
	// /dev/ubdb and so on. When the guest is killed, the file keeps the data that was
	// written to the device, and the data that file systems had in memory alone is lost.
	// A flush of the device is an fsync of the file.
	Disks []string
}

// defaultMTU is the largest that a packet can have, because no real network is between a
// guest and us.
const defaultMTU = 65000

// An Answer carries out a request of a guest's script and returns the answer.
type Answer func(question string) (string, error)

// A Result is the exit code and the output of a script.
type Result struct {
	Exit   int
	Output string
}

// ErrNoGuest is wrapped by the errors that mean this machine cannot run a guest at all,
// as opposed to one that failed.
var ErrNoGuest = errors.New("no guest kernel on this machine")

// Available says what this machine lacks to run a guest, or nil.
func Available() error {
	if os.Getuid() != 0 {
		return fmt.Errorf("%w: needs root for the tap device", ErrNoGuest)
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		return fmt.Errorf("%w: no /dev/net/tun", ErrNoGuest)
	}
	for tool, pkg := range map[string]string{
		"linux.uml": "user-mode-linux", "ip": "iproute2", "modinfo": "kmod", "taskset": "util-linux",
		"unshare": "util-linux",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("%w: needs %s (Debian package %s)", ErrNoGuest, tool, pkg)
		}
	}
	return nil
}

// A Guest is a running guest kernel.
type Guest struct {
	opts   Options
	dir    string // everything of this run; removed by Wait
	link   *link
	nudges *nudges
	asks   *asks
	tail   *tail
	kernel *exec.Cmd
	ended  chan error // the kernel process's end
	killed chan struct{}
}

// Start boots a guest. The caller must call Wait, or the guest and its files stay.
func Start(ctx context.Context, o Options) (*Guest, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	g := &Guest{opts: o.withDefaults(), ended: make(chan error, 1), killed: make(chan struct{})}
	if err := g.boot(ctx); err != nil {
		g.cleanUp()
		return nil, fmt.Errorf("guest: %w", err)
	}
	return g, nil
}

func (o Options) withDefaults() Options {
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Minute
	}
	if o.MemoryMB == 0 {
		o.MemoryMB = 1024
	}
	if o.MTU == 0 {
		o.MTU = defaultMTU
	}
	if o.Dir == "" {
		o.Dir, _ = os.Getwd()
	}
	return o
}

func (g *Guest) boot(ctx context.Context) error {
	var err error
	if g.dir, err = os.MkdirTemp("", "bfs-guest-"); err != nil {
		return err
	}
	if err := g.takeLink(); err != nil {
		return err
	}
	if g.nudges, err = nudge(g.link); err != nil {
		return err
	}
	if g.asks, err = listenForAsks(g.opts.NetNS, g.link.hostAddr, g.opts.Answer); err != nil {
		return err
	}
	if err := g.writeOrders(); err != nil {
		return err
	}
	if g.tail, err = follow(filepath.Join(g.io(), "output"), g.opts.Output); err != nil {
		return err
	}
	return g.startKernel(ctx)
}

// takeLink uses the caller's wire, or makes a link of the guest's own.
func (g *Guest) takeLink() (err error) {
	if w := g.opts.Wire; w != nil {
		g.link, g.opts.MTU = w.link, w.mtu
		return nil
	}
	g.link, err = newLink(g.opts.NetNS, g.opts.MTU, !g.opts.OwnLoopback)
	return err
}

// io returns the directory through which the guest and this process exchange files.
func (g *Guest) io() string { return filepath.Join(g.dir, "io") }

// startKernel starts user-mode Linux in a PID and a mount namespace of its own: killing
// their process 1 ends every process of the guest, and the tmpfs that holds the guest's
// memory goes away with it. That process is a shell, because a kernel that panics aborts
// itself, and process 1 cannot.
func (g *Guest) startKernel(ctx context.Context) error {
	memory := filepath.Join(g.dir, "memory")
	if err := os.Mkdir(memory, 0o700); err != nil {
		return err
	}
	console, err := os.Create(filepath.Join(g.dir, "console"))
	if err != nil {
		return err
	}
	defer console.Close()
	shell := `mount --make-rprivate / && mount -t tmpfs -o size="$1"m tmpfs "$2" || exit; shift 2; "$@"`
	args := []string{"unshare", "--pid", "--mount", "--fork", "--kill-child", "sh", "-c", shell, "sh",
		strconv.Itoa(g.opts.MemoryMB + 32), memory}
	if cpu := g.cpu(); cpu >= 0 {
		args = append(args, "taskset", "-c", strconv.Itoa(cpu))
	}
	before, err := g.withLargeRegisters()
	if err != nil {
		return err
	}
	args = append(args, before...)
	args = append(args, "linux.uml",
		fmt.Sprintf("mem=%dM", g.opts.MemoryMB), "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet",
		"uml_dir="+g.dir, "umid=guest", "con=null", "con0=null,fd:1",
		fmt.Sprintf("vec0:transport=tap,ifname=%s,depth=128,gro=1,mtu=%d", g.link.tap, g.opts.MTU),
		"init="+g.init(), "guest_io="+g.io(), "guest_out="+g.opts.Out)
	args = append(args, g.disks()...)
	if g.opts.NetNS != "" {
		args = append([]string{"ip", "netns", "exec", g.opts.NetNS}, args...)
	}
	g.kernel = exec.Command(args[0], args[1:]...)
	g.kernel.Env = append(os.Environ(), "TMPDIR="+memory)
	g.kernel.Stdout, g.kernel.Stderr = console, console
	g.kernel.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := g.kernel.Start(); err != nil {
		return err
	}
	go func() { g.ended <- g.kernel.Wait() }()
	go g.watch(ctx)
	return nil
}

// disks returns the kernel's arguments for Options.Disks. The flag d makes the kernel
// take a file as it is, without looking for a copy-on-write header first. There is no
// flag s, so writes are not synchronous.
func (g *Guest) disks() (args []string) {
	for i, file := range g.opts.Disks {
		args = append(args, fmt.Sprintf("ubd%dd=%s", i, file))
	}
	return args
}

func (g *Guest) init() string {
	if len(g.opts.Bare) > 0 {
		return g.opts.Bare[0]
	}
	return filepath.Join(g.io(), "init.sh")
}

func (g *Guest) cpu() int {
	if g.opts.SpreadCPU {
		return g.link.number % numCPU()
	}
	return g.opts.CPU
}

// watch kills the guest when its time is up, or when it has written its exit code and does not
// switch off: the kernel's network driver may wait for ever when it is told to close.
func (g *Guest) watch(ctx context.Context) {
	ctx, cancel := patience.Context(ctx, g.opts.Timeout)
	defer cancel()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	var ended time.Time
	for {
		select {
		case <-g.killed: // Wait is done with it
			return
		case <-ctx.Done():
			g.tail.note("guest: killed: %v", ctx.Err())
			g.Kill()
			return
		case now := <-look.C:
			if _, err := os.Stat(filepath.Join(g.io(), "rc")); err != nil {
				continue
			}
			if ended.IsZero() {
				ended = now
			} else if now.Sub(ended) > patience.For(switchOffIn) {
				g.Kill()
				return
			}
		}
	}
}

// switchOffIn is how long a guest may take to switch off after its work, on a quiet machine.
const switchOffIn = 20 * time.Second

// Kill ends the guest at once, as a power cut would.
func (g *Guest) Kill() { _ = syscall.Kill(-g.kernel.Process.Pid, syscall.SIGKILL) }

// Running reports whether the guest has power. Its network may be dead nevertheless.
func (g *Guest) Running() bool { return syscall.Kill(g.kernel.Process.Pid, 0) == nil }

// Wait waits for the script's end, removes the guest, and returns the script's result. An
// error means that there is no result: no boot, a mount that failed, time up.
func (g *Guest) Wait() (Result, error) {
	<-g.ended
	close(g.killed)
	g.releaseDisks()
	g.reap()
	console, _ := os.ReadFile(filepath.Join(g.dir, "console"))
	exit, readErr := os.ReadFile(filepath.Join(g.io(), "rc"))
	output := g.tail.stop()
	g.cleanUp()
	r := Result{Output: output, Exit: 125}
	if readErr != nil {
		return r, fmt.Errorf("guest: ended without a result; its output:\n%s\nits console:\n%s",
			lastLines(output, 40), why(string(console)))
	}
	var err error
	if r.Exit, err = strconv.Atoi(strings.TrimSpace(string(exit))); err != nil {
		return r, fmt.Errorf("guest: exit code: %w", err)
	}
	if r.Exit == 125 {
		return r, fmt.Errorf("guest: %s", lastLines(output, 10))
	}
	return r, nil
}

// why is the part of a console that tells why the kernel ended: from the panic's cause on, which
// stands above a long trace, or the last lines.
func why(console string) string {
	before, _, panics := strings.Cut(console, "Kernel panic")
	if !panics {
		return lastLines(console, 25)
	}
	rest := strings.Split(lastLines(before, 3)+console[len(before):], "\n")
	return strings.Join(rest[:min(len(rest), 12)], "\n")
}

// releaseDisks waits until the guest's kernel has closed its disks, because the process
// that Start began may end a little before the kernel does.
func (g *Guest) releaseDisks() {
	ctx, cancel := patience.Context(context.Background(), time.Minute)
	defer cancel()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for _, file := range g.opts.Disks {
		for locked(file) && ctx.Err() == nil {
			<-poll.C
		}
	}
}

// reap waits for the kernel's processes, if they have become children of this process,
// which may be the first of its namespace (package apart).
func (g *Guest) reap() {
	for {
		if pid, err := unix.Wait4(-g.kernel.Process.Pid, nil, unix.WNOHANG, nil); pid <= 0 || err != nil {
			return
		}
	}
}

// locked reports whether a guest uses a disk: then its kernel holds a POSIX lock on the file.
func locked(file string) bool {
	f, err := os.Open(file)
	if err != nil {
		return false
	}
	defer f.Close()
	l := unix.Flock_t{Type: unix.F_WRLCK}
	return unix.FcntlFlock(f.Fd(), unix.F_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

// cleanUp removes all that belongs to a guest that has ended or never started.
func (g *Guest) cleanUp() {
	if g.asks != nil {
		g.asks.close()
	}
	if g.nudges != nil {
		g.nudges.close()
	}
	if g.link != nil && g.opts.Wire == nil {
		g.link.remove()
	}
	if g.dir != "" {
		_ = os.RemoveAll(g.dir)
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
