// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"bfs/test/apart"
)

// link is the wire between a guest and us: a tap device and the two addresses on it.
//
// Guest number N has the device bfstapN and four addresses. A process that holds the lock of a
// number's file owns the number, in all network namespaces. Tests run in a namespace of their own
// (package apart), and its devices go with it. In a namespace that outlives the process, newLink
// first removes the devices whose numbers have no owner.
type link struct {
	number    int
	tap       string
	netns     string
	hostAddr  string
	guestAddr string
	broadcast string
	lock      *os.File
}

const (
	tapPrefix = "bfstap"
	maxGuests = 250 // numbers there are in the third byte of an address, less a few
)

// bases are the first two bytes that guests' addresses may have. A guest gets the first base where
// no route of the namespace leads to its number's four addresses.
var bases = []string{"10.213", "172.29", "192.168", "100.93"}

func newLink(netns string, mtu int, lendLoopback bool) (*link, error) {
	l, err := takeNumber()
	if err != nil {
		return nil, err
	}
	l.netns = netns
	if err := l.make(mtu, lendLoopback); err != nil {
		l.remove()
		return nil, err
	}
	return l, nil
}

func (l *link) make(mtu int, lendLoopback bool) error {
	if err := l.sweep(); err != nil {
		return err
	}
	if err := l.chooseAddresses(); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"tuntap", "add", "mode", "tap", "name", l.tap},
		{"addr", "add", l.hostAddr + "/30", "dev", l.tap},
		{"link", "set", l.tap, "mtu", fmt.Sprint(mtu), "up"},
	} {
		if err := l.ip(args...); err != nil {
			return err
		}
	}
	if lendLoopback {
		return l.routeLocalnet()
	}
	return nil
}

// sweep removes the devices that killed runs have left: the device of our number, and
// those whose numbers have no owner.
func (l *link) sweep() error {
	var names []string
	err := inNamespace(l.netns, func() error {
		all, err := net.Interfaces()
		for _, d := range all {
			names = append(names, d.Name)
		}
		return err
	})
	for _, name := range names {
		n, isNumber := strings.CutPrefix(name, tapPrefix)
		number, notNumber := strconv.Atoi(n)
		if !isNumber || notNumber != nil {
			continue
		}
		if number != l.number {
			lock, err := lockNumber(number)
			if err != nil {
				continue // its guest lives
			}
			defer lock.Close()
		}
		_ = l.ip("link", "del", name)
	}
	return err
}

// chooseAddresses takes addresses that no route of the namespace leads to.
func (l *link) chooseAddresses() error {
	var routes []netip.Prefix
	err := inNamespace(l.netns, func() error {
		text, err := os.ReadFile("/proc/thread-self/net/route")
		routes = parseRoutes(string(text))
		return err
	})
	if err != nil {
		return err
	}
	for _, base := range bases {
		subnet := netip.MustParsePrefix(fmt.Sprintf("%s.%d.0/30", base, l.number))
		if slices.ContainsFunc(routes, subnet.Overlaps) {
			continue
		}
		host := subnet.Addr().Next()
		guest := host.Next()
		l.hostAddr, l.guestAddr, l.broadcast = host.String(), guest.String(), guest.Next().String()
		return nil
	}
	return fmt.Errorf("routes of this machine lead to number %d of each of %v, where guests get their addresses",
		l.number, bases)
}

// parseRoutes reads the kernel's table of routes, in which addresses and masks are
// little-endian words. It leaves out the default route, because every address overlaps it.
func parseRoutes(table string) (routes []netip.Prefix) {
	for _, line := range strings.Split(table, "\n") {
		fields := strings.Fields(line)
		if len(fields) < 8 {
			continue
		}
		to, err1 := strconv.ParseUint(fields[1], 16, 32)
		mask, err2 := strconv.ParseUint(fields[7], 16, 32)
		if err1 != nil || err2 != nil || mask == 0 {
			continue // the heading, or the default route
		}
		address := netip.AddrFrom4([4]byte(binary.LittleEndian.AppendUint32(nil, uint32(to))))
		routes = append(routes, netip.PrefixFrom(address, bits.OnesCount32(uint32(mask))))
	}
	return routes
}

func takeNumber() (*link, error) {
	for n := 1; n <= maxGuests; n++ {
		lock, err := lockNumber(n)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue
		}
		if err != nil {
			return nil, err
		}
		return &link{number: n, tap: tapPrefix + strconv.Itoa(n), lock: lock}, nil
	}
	return nil, errors.New("all guest numbers are taken")
}

// lockNumber marks a guest's number as taken until the file is closed. The error is
// EWOULDBLOCK if it is taken already.
func lockNumber(n int) (*os.File, error) {
	common, err := apart.Common()
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(common, fmt.Sprintf("guest-%d", n)), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// routeLocalnet lets the guest's packets reach servers that listen on 127.0.0.1.
func (l *link) routeLocalnet() error {
	return l.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/"+l.tap+"/route_localnet")
}

func (l *link) ip(args ...string) error { return l.run("ip", args...) }

// run runs a command in the link's network namespace.
func (l *link) run(name string, args ...string) error {
	all := append([]string{name}, args...)
	if l.netns != "" {
		all = append([]string{"ip", "netns", "exec", l.netns}, all...)
	}
	out, err := exec.Command(all[0], all[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(all, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (l *link) remove() {
	_ = l.ip("link", "del", l.tap)
	l.lock.Close()
}

// numCPU counts the CPUs that this process may use, not all CPUs of the machine.
func numCPU() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil || set.Count() == 0 {
		return 1
	}
	return set.Count()
}

// listenIn listens on a TCP port of a network namespace.
func listenIn(netns, addr string) (l net.Listener, err error) {
	err = inNamespace(netns, func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	return l, err
}

// inNamespace makes a socket in a network namespace, or in our own if the name is empty.
// The socket stays in the namespace in which it was made, so only the making needs a
// thread there. The thread must come back, not end, because processes that were started
// from it with Pdeathsig would end with it.
func inNamespace(netns string, open func() error) error {
	if netns == "" {
		return open()
	}
	made := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		made <- onThread(netns, open)
	}()
	return <-made
}

// onThread runs on a locked thread, and leaves the thread in the namespace in which it was.
func onThread(netns string, open func() error) error {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return err
	}
	defer home.Close()
	there, err := os.Open("/run/netns/" + netns)
	if err != nil {
		return err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("setns %s: %w", netns, err)
	}
	err = open()
	if back := unix.Setns(int(home.Fd()), unix.CLONE_NEWNET); back != nil {
		// The thread stays in the wrong namespace, and all its later work would be wrong.
		panic(fmt.Sprintf("guest: a thread is lost in %s: %v", netns, back))
	}
	return err
}
