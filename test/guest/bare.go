// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A bare guest boots a second faster than a guest with a script, for a quarter of the
// processor time. Its first process is the Go program that Options.Bare names. The
// program sets up the guest itself: its main function begins with
//
//	if guest.Inside() {
//		args, err := guest.Settle()
//		… the work …
//		guest.SwitchOff(code)
//	}
//
// Its root is this machine's, read-only, without an overlay; /run, /mnt and /dev are the
// guest's own. It has no mounts by NFS.

// ioInside is the path of the io directory in the guest.
const ioInside = "/run/io"

// orders is the contents of the file orders in the io directory, which Settle reads.
type orders struct {
	Args    []string
	Modules []string // files
	Network string   // commands for ip -batch
}

// writeBareOrders writes the file that Settle reads.
func (g *Guest) writeBareOrders() error {
	modules, err := moduleFiles(g.opts.Modules)
	if err != nil {
		return err
	}
	text, err := json.Marshal(orders{
		Args: g.opts.Bare[1:], Modules: strings.Fields(modules),
		Network: fmt.Sprintf("link set lo up\nlink set vec0 mtu %d up\naddr add %s/30 dev "+
			"vec0\nroute add default via %s\n", g.opts.MTU, g.link.guestAddr, g.link.hostAddr),
	})
	if err != nil {
		return err
	}
	for name, text := range map[string]string{"orders": string(text), "output": ""} {
		if err := os.WriteFile(filepath.Join(g.io(), name), []byte(text), 0o755); err != nil {
			return err
		}
	}
	return nil
}

// Inside reports whether this process is the first one of a bare guest.
func Inside() bool { return os.Getpid() == 1 && os.Getenv("guest_io") != "" }

// Settle mounts what the guest needs, loads its modules and starts its network. It returns the
// arguments of Options.Bare. Standard output and standard error go to the test from here on.
func Settle() (args []string, err error) {
	for _, m := range []struct{ kind, at, options string }{
		{"proc", "/proc", ""}, {"sysfs", "/sys", ""}, {"devtmpfs", "/dev", ""},
		{"tmpfs", "/run", ""}, {"tmpfs", "/mnt", ""},
		{"hostfs", ioInside, os.Getenv("guest_io")},
	} {
		if m.at == ioInside {
			if err := os.MkdirAll(m.at, 0o755); err != nil {
				return nil, err
			}
		}
		if err := unix.Mount("none", m.at, m.kind, 0, m.options); err != nil && !errors.Is(err, unix.EBUSY) {
			return nil, fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	out, err := os.OpenFile(filepath.Join(ioInside, "output"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(unix.Dup2(int(out.Fd()), 1), unix.Dup2(int(out.Fd()), 2)); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(ioInside, "orders"))
	if err != nil {
		return nil, err
	}
	var o orders
	if err := json.Unmarshal(text, &o); err != nil {
		return nil, err
	}
	for _, e := range []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/run", "HOME=/run"} {
		name, value, _ := strings.Cut(e, "=")
		_ = os.Setenv(name, value)
	}
	for _, file := range o.Modules {
		if err := load(file); err != nil {
			return nil, err
		}
	}
	if err := batch(o.Network); err != nil {
		return nil, err
	}
	gateway := o.Network[strings.LastIndex(o.Network, " ")+1:]
	go KeepNetwork(strings.TrimSpace(gateway))
	return o.Args, nil
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("load %s: %w", module, err)
	}
	return nil
}

// batch runs several commands of ip in one process.
func batch(commands string) error {
	c := exec.Command("ip", "-batch", "-")
	c.Stdin = strings.NewReader(commands)
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("ip -batch: %w: %s", err, out)
	}
	return nil
}

// SwitchOff ends a bare guest with an exit code; 125 means that there is no result.
func SwitchOff(code int) {
	_ = os.WriteFile(filepath.Join(ioInside, "rc"), []byte(strconv.Itoa(code)), 0o644)
	unix.Sync()
	_ = batch("link set vec0 down\n") // a packet that comes while it powers down may keep it from doing so
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

const (
	networkLook = time.Second
	received    = "/sys/class/net/vec0/statistics/rx_packets"
)

// KeepNetwork keeps the network of this process's guest alive, and does not return.
// User-mode Linux's driver may stop receiving packets for good. The test sends a packet
// every few milliseconds (nudges), so a second without packets means that the driver has
// stopped. KeepNetwork then sets the link down and up.
func KeepNetwork(gateway string) {
	last := ""
	for range time.Tick(networkLook) {
		now, err := os.ReadFile(received)
		if err == nil && string(now) == last {
			fmt.Println("guest: the network has hung; its link is set down and up")
			err := batch("link set vec0 down\nlink set vec0 up\nroute add default via " + gateway + "\n")
			if err != nil {
				fmt.Println("guest:", err)
			}
		}
		last = string(now)
	}
}

// Perform runs a program in a bare guest to its end, and returns its exit code.
func Perform(name string, args ...string) (code int) {
	c := exec.Command(name, args...)
	c.Stdout, c.Stderr = os.Stdout, os.Stderr
	err := c.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode()
	case errors.As(err, &exit):
		return 128 + int(exit.Sys().(syscall.WaitStatus).Signal())
	}
	fmt.Println("guest:", err)
	return 125
}
