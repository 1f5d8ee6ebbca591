package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// link is the wire between a guest and us: a tap device and the two addresses on it.
//
// Guest number N has subnet 10.213.N.0/30. A lock file held open marks the number as taken, so a test that was killed
// frees its number at once, and whoever takes that next removes the tap left behind.
type link struct {
	number    int
	tap       string
	netns     string
	hostAddr  string
	guestAddr string
	broadcast string
	lock      *os.File
}

const maxGuests = 250 // numbers there are in 10.213.N.0/30, less a few

func newLink(netns string, mtu int, lendLoopback bool) (*link, error) {
	l, err := takeNumber()
	if err != nil {
		return nil, err
	}
	l.netns = netns
	_ = l.ip("link", "del", l.tap) // of a run that was killed
	for _, args := range [][]string{
		{"tuntap", "add", "mode", "tap", "name", l.tap},
		{"addr", "add", l.hostAddr + "/30", "dev", l.tap},
		{"link", "set", l.tap, "mtu", fmt.Sprint(mtu), "up"},
	} {
		if err := l.ip(args...); err != nil {
			l.remove()
			return nil, err
		}
	}
	if lendLoopback {
		if err := l.routeLocalnet(); err != nil {
			l.remove()
			return nil, err
		}
	}
	return l, nil
}

func takeNumber() (*link, error) {
	dir := filepath.Join(os.TempDir(), "bfs-guest-locks")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	for n := 1; n <= maxGuests; n++ {
		f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint(n)), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return nil, err
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
			return &link{number: n, tap: fmt.Sprintf("bfsguest%d", n), lock: f,
				hostAddr: fmt.Sprintf("10.213.%d.1", n), guestAddr: fmt.Sprintf("10.213.%d.2", n),
				broadcast: fmt.Sprintf("10.213.%d.3", n)}, nil
		}
		f.Close()
	}
	return nil, errors.New("all guest numbers are taken")
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

// numCPU counts the CPUs we may use, not those there are.
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

// inNamespace makes a socket in a network namespace, ours if it has no name. The socket stays in the one it was made in, so
// only the making needs a thread there. The thread must come back, not end: processes that were started from it with
// Pdeathsig would end with it.
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

// onThread runs on a locked thread, and leaves it where it was.
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
		panic(fmt.Sprintf("guest: a thread is lost in %s: %v", netns, back)) // nothing that it does from here on is right
	}
	return err
}
