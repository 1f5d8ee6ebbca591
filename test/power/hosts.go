// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"bfs/test/cluster"
	"bfs/test/guest"
)

const (
	hostPort   = 7450
	hostMemory = 256 // MiB
	hostDisk   = "512M"
)

// hosts is the room in which each replica has a kernel and a disk of its own.
type hosts struct {
	group     *cluster.Group
	mapped    bool   // there is a device between file system and disk, so that the disk can break
	records   bool   // three hosts run, and a device records the writes of the first one's disk
	program   string // this one
	all       []*host
	forwarded []byte // what the machine's own setting was
}

// A host is a guest kernel with a replica, on a disk and a wire that survive it.
type host struct {
	name, disk string
	wire       *guest.Wire
	log        *os.File     // what the replica says, of all boots
	running    *guest.Guest // nil while the power is off
}

const forwardFile = "/proc/sys/net/ipv4/ip_forward"

func (h *hosts) make(ctx context.Context) (err error) {
	if err := available(); err != nil {
		return err
	}
	if h.mapped || h.records {
		if err := deviceMapper(); err != nil {
			return err
		}
	}
	if h.program, err = os.Executable(); err != nil {
		return err
	}
	if h.forwarded, err = os.ReadFile(forwardFile); err != nil {
		return err
	}
	if err := os.WriteFile(forwardFile, []byte("1"), 0); err != nil { // packets pass from one guest to another
		return err
	}
	var addresses []string
	for i := range replicas {
		x := &host{name: fmt.Sprintf("replica%d", i)}
		if x.wire, err = guest.NewWire(); err != nil {
			return err
		}
		h.all = append(h.all, x)
		x.disk = filepath.Join(h.group.Dir, x.name+".disk")
		if x.log, err = os.Create(filepath.Join(h.group.Dir, x.name+".log")); err != nil {
			return err
		}
		addresses = append(addresses, fmt.Sprintf("%s:%d", x.wire.Address(), hostPort))
	}
	bundles := filepath.Join(h.group.Dir, "group")
	_, err = h.group.Command(ctx, "bfsd", "init", "--hosts", strings.Join(addresses, ","), "--admin-on-network",
		"--size", fmt.Sprintf("%dMiB", stateSize>>20), "--out", bundles)
	if err == nil {
		err = adjust(bundles)
	}
	for i, x := range h.all {
		if err != nil {
			return err
		}
		err = makeDisk(ctx, x.disk, filepath.Join(bundles, fmt.Sprintf("host%d", i)))
	}
	if h.records {
		last := len(h.all) - 1
		h.all[last].close()
		h.all = h.all[:last]
	}
	return err
}

// available says what this machine lacks, or nil.
func available() error {
	if err := guest.Available(); err != nil {
		return err
	}
	if _, err := exec.LookPath("mkfs.ext4"); err != nil {
		return errors.New("needs mkfs.ext4 (Debian package e2fsprogs)")
	}
	return nil
}

// makeDisk makes an ext4 file system with the contents of a directory.
func makeDisk(ctx context.Context, file, from string) error {
	out, err := exec.CommandContext(ctx, "mkfs.ext4", "-q", "-b", fmt.Sprint(diskBlock), "-d", from, file,
		hostDisk).CombinedOutput()
	if err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// on switches all hosts on. For odd kinds ext4 and its kernel write nothing back by
// themselves, so that a power cut loses as much as it can. For even kinds they write back
// as usual, and the cut loses some writes and not others.
func (h *hosts) on(ctx context.Context, kind int64) error {
	how := "eager"
	if kind%2 == 1 {
		how = "lazy"
	}
	for _, x := range h.all {
		if h.records && x == h.all[0] {
			if err := h.record(ctx, x); err != nil {
				return err
			}
		}
		if err := h.start(ctx, x, how, ""); err != nil {
			return err
		}
	}
	return nil
}

// start switches a host on, with some blocks of its disk unreadable.
func (h *hosts) start(ctx context.Context, x *host, how, bad string) (err error) {
	o := guest.Options{
		Bare: []string{h.program, how, h.group.Binary("bfsd")}, Wire: x.wire, OwnLoopback: true,
		Disks: []string{x.disk}, MemoryMB: hostMemory, SpreadCPU: true, Output: x.log, Timeout: 24 * time.Hour,
	}
	switch {
	case h.mapped:
		o.Bare = append(o.Bare, breakVerb, bad)
		o.Modules = deviceModules
	case h.records && x == h.all[0]:
		o.Bare = append(append(o.Bare, recordVerb), h.admins()...)
		o.Modules = recordModules
		o.Disks = append(o.Disks, x.writes())
	}
	fmt.Fprintf(x.log, "-- power on, %s %s\n", how, bad)
	x.running, err = guest.Start(context.WithoutCancel(ctx), o)
	return err
}

// Verbs tell the first process of a host's kernel what to put between file system and disk.
const (
	breakVerb  = "break"  // and with which bad blocks
	recordVerb = "record" // and where the replicas' administrations are
)

// inside is the work of this program as the first process of a kernel.
func inside() (code int) {
	args, err := guest.Settle()
	if err == nil && args[0] == examineVerb {
		if err := examine(args[1]); err != nil {
			fmt.Println("power:", err)
			return 1
		}
		return 0
	}
	if err == nil {
		err = settleHost(args)
	}
	if err != nil {
		fmt.Println("power:", err)
		return 125
	}
	code = guest.Perform(args[1], "run", "--config", hostDirectory+"/replica.toml")
	fmt.Println(hasEnded, "with", code)
	return code
}

// settleHost mounts the host's disk. The arguments are eager or lazy, the program to run, and a
// verb with its own.
func settleHost(args []string) (err error) {
	device, verb := "/dev/ubda", ""
	if len(args) > 2 {
		verb = args[2]
	}
	switch verb {
	case breakVerb:
		device, err = mapped(args[3])
	case recordVerb:
		device, err = recording()
	}
	if err == nil {
		err = mountHost(device, args[0] == "lazy")
	}
	if err != nil {
		return err
	}
	switch verb {
	case breakVerb:
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf(":%d", orderPort)); err == nil {
			go takeOrders(l)
		}
	case recordVerb:
		go notePromises(args[3], args[4:])
	}
	return err
}

const hostDirectory = "/mnt/host"

// mountHost mounts the host's disk.
func mountHost(device string, lazy bool) error {
	options := "commit=5"
	if lazy {
		options = "commit=300"
		if err := os.WriteFile("/proc/sys/vm/dirty_writeback_centisecs", []byte("0"), 0); err != nil {
			return err
		}
	}
	if err := os.Mkdir(hostDirectory, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(device, hostDirectory, "ext4", 0, options); err != nil {
		return fmt.Errorf("mount %s: %w", device, err)
	}
	return nil
}

func (h *hosts) off() {
	for _, x := range h.all {
		if x.running != nil {
			x.running.Kill()
		}
	}
	for _, x := range h.all {
		if x.running != nil {
			_, _ = x.running.Wait() // a killed guest has no result
			x.running = nil
		}
	}
}

func (h *hosts) ended() string {
	var names []string
	for _, x := range h.all {
		if x.running != nil && !x.running.Running() {
			names = append(names, x.name)
		}
	}
	return strings.Join(names, ", ")
}

func (h *hosts) admins() (all []string) {
	for _, x := range h.all {
		all = append(all, x.admin())
	}
	return all
}

// admin returns the address of the replica's administration, whose port bfsd init chooses
// next to the replica's.
func (x *host) admin() string { return fmt.Sprintf("%s:%d", x.wire.Address(), hostPort+1) }

func (h *hosts) logs() (all string) {
	for _, x := range h.all {
		all += fmt.Sprintf("-- %s\n%s\n", x.name, lastLines(x.log.Name(), 40))
	}
	return all
}

func (h *hosts) close() {
	h.off()
	for _, x := range h.all {
		x.close()
	}
	if h.forwarded != nil {
		_ = os.WriteFile(forwardFile, h.forwarded, 0)
	}
}

func (x *host) close() {
	x.log.Close()
	x.wire.Remove()
}
