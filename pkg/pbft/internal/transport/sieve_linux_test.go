// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	hang "bfs/test/patience" // this package has a patience of its own
)

// The kernel drops what the sieve drops, of the addresses it names and of no other, and
// leaves connections alone that are there.
func TestSieve(t *testing.T) {
	const one, two = "127.0.0.2", "127.0.0.3"
	known := []netip.Addr{netip.MustParseAddr(two)}
	for i := range 2 * blockSpace {
		known = append(known, address(i))
	}
	floods := func(pass float64, addrs ...string) (f []sifted) {
		for _, a := range addrs {
			f = append(f, sifted{netip.MustParseAddr(a), pass})
		}
		return f
	}
	for name, x := range map[string]struct {
		listen   string
		s        sieve
		one, two bool // whether they get through
	}{
		"one address":           {"127.0.0.1:0", sieve{floods: floods(0, "10.0.0.1", one), known: known, rest: 1}, false, true},
		"another address":       {"127.0.0.1:0", sieve{floods: floods(0, two, "10.0.0.1"), rest: 1}, true, false},
		"all that is not known": {"127.0.0.1:0", sieve{known: known, rest: 0}, false, true},
		"known and in flood":    {"127.0.0.1:0", sieve{floods: floods(0, two), known: known, rest: 1}, true, false},
		"mapped":                {"[::]:0", sieve{floods: floods(0, one), rest: 1}, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			l := listenAndEcho(t, x.listen)
			before := through(t, l, one, true)
			if err := x.s.attach(l); err != nil {
				t.Fatal(err)
			}
			through(t, l, one, x.one)
			through(t, l, two, x.two)
			answers(t, before)
			detach(l)
			answers(t, through(t, l, one, true))
			answers(t, through(t, l, two, true))
		})
	}
}

// Of an address whose SYNs pass in part, some pass and some do not.
func TestSieveInPart(t *testing.T) {
	l := listenAndEcho(t, "127.0.0.1:0")
	s := sieve{floods: []sifted{{netip.MustParseAddr("127.0.0.2"), 0.5}}, rest: 1}
	if err := s.attach(l); err != nil {
		t.Fatal(err)
	}
	passed, dropped := 0, 0
	for tries := 0; passed == 0 || dropped == 0; tries++ {
		if tries == 64 {
			t.Fatalf("%d passed and %d were dropped", passed, dropped)
		}
		if conn, err := connect(l, "127.0.0.2", 200*time.Millisecond); err == nil {
			passed++
			_ = conn.Close()
		} else {
			dropped++
		}
	}
}

// The same for IPv6, of which this machine has one address.
func TestSieve6(t *testing.T) {
	const self = "::1"
	l := listenAndEcho(t, "[::1]:0")
	through(t, l, self, true)
	for addr, passes := range map[string]bool{self: false, "::2": true, "1::1": true} {
		s := sieve{floods: []sifted{{netip.MustParseAddr(addr), 0}}, rest: 1}
		if err := s.attach(l); err != nil {
			t.Fatal(err)
		}
		through(t, l, self, passes)
	}
}

// A full sieve is one that the kernel takes, and takes again in its place.
func TestFullSieve(t *testing.T) {
	s := sieve{rest: 0.5, known: []netip.Addr{netip.MustParseAddr("127.0.0.2")}}
	for i := range maxKnown + 31 {
		s.known = append(s.known, address(i))
	}
	for i := range maxGuests {
		s.floods = append(s.floods, sifted{netip.AddrFrom16([16]byte{1: byte(i), 2: byte(i >> 8), 15: 1}), 0.5})
	}
	l := listenAndEcho(t, "127.0.0.1:0")
	for range 3 {
		if err := s.attach(l); err != nil {
			t.Fatal(err)
		}
	}
	through(t, l, "127.0.0.2", true)
}

// A listener whose address is flooded tells of the source, has the kernel drop its SYNs,
// and takes in another address meanwhile. When the flood is over all pass again.
func TestListenerSifts(t *testing.T) {
	const flooding, other = "127.0.0.2", "127.0.0.3"
	told := make(chan netip.Addr, 16)
	o := greeting()
	o.Flooded = func(from netip.Addr) { told <- from }
	l := listen(t, o, funcs{})
	for tries, dropped := 0, false; !dropped; tries++ {
		if tries == 100*int(GuestRate.Burst) {
			t.Fatalf("none of %d connections is dropped", tries)
		}
		conn, err := connect(l.tcp, flooding, 200*time.Millisecond)
		switch dropped = os.IsTimeout(err); {
		case err == nil:
			_ = conn.Close()
		case !dropped && !errors.Is(err, unix.ECONNRESET): // the listener's, beyond the share
			t.Fatal(err)
		}
	}
	if from := await(t, told); from != netip.MustParseAddr(flooding) {
		t.Errorf("told of %v, want %v", from, flooding)
	}
	through(t, l.tcp, other, true)
	hang.Until(t, "the flood ends", func() bool { return l.Floods() == 0 })
	through(t, l.tcp, flooding, true)
}

// listenAndEcho accepts connections, and sends each byte back that comes on them.
func listenAndEcho(t *testing.T, address string) *net.TCPListener {
	t.Helper()
	l, err := listenTCP(address)
	if err != nil && strings.HasPrefix(address, "[") {
		t.Skipf("NOT RUN: needs IPv6: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				b := make([]byte, 1)
				for {
					if _, err := conn.Read(b); err != nil {
						return
					}
					_, _ = conn.Write(b)
				}
			}()
		}
	}()
	return l
}

// through connects from an address. It fails the test if that does not succeed, or fail, as wanted.
func through(t *testing.T, l *net.TCPListener, from string, want bool) net.Conn {
	t.Helper()
	limit := hang.For(20 * time.Second)
	if !want {
		limit = 100 * time.Millisecond // while SYNs are dropped
	}
	conn, err := connect(l, from, limit)
	if (err == nil) != want {
		t.Fatalf("from %s: %v, want to get through: %v", from, err, want)
	}
	if err == nil {
		t.Cleanup(func() { _ = conn.Close() })
	}
	return conn
}

// connect tries for a while.
func connect(l *net.TCPListener, from string, d time.Duration) (net.Conn, error) {
	_, port, _ := net.SplitHostPort(l.Addr().String())
	to := "127.0.0.1"
	if from == "::1" {
		to = from
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}, Timeout: d}
	return dialer.Dial("tcp", net.JoinHostPort(to, port))
}

// answers sends a byte and waits for it.
func answers(t *testing.T, conn net.Conn) {
	t.Helper()
	_, _ = conn.Write([]byte{1})
	if _, err := conn.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
}
