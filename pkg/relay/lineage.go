// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// An instant is a reading of the machine's monotonic clock in nanoseconds. All processes
// of the machine share that clock, so a journal may hold instants, and it stands still
// while the machine is suspended, as clients do.
type instant int64

// started pairs a reading of the monotonic clock with one of Go's, which is cheaper to read.
var started = func() (s struct {
	at   instant
	time time.Time
}) {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) == nil {
		s.at = instant(t.Nano())
	}
	s.time = time.Now()
	return s
}()

func now() instant { return started.at + instant(time.Since(started.time)) }

// within reports whether at lies at most d before now.
func (at instant) within(d time.Duration, now instant) bool { return now-at <= instant(d) }

// A lineage is the record of a connection that outlives it, for the calls that came on
// it. It holds the evidence by which a call that comes again on another connection is
// told from a new client's call with the same bytes:
//
//   - ended: a client that is still connected has no reason to ask on another connection;
//   - cut: a client whose connection the relay has ended is alive, and comes back from any port;
//   - peer: a client that has ended the connection itself and comes back keeps its source port;
//   - taken: a client that has its answer does not ask again.
type lineage struct {
	peer    netip.AddrPort
	tcp     *net.TCPConn  // nil: a connection of the relay's earlier life
	written atomic.Uint64 // bytes of replies that the socket was given

	mu    sync.Mutex
	ended instant // when the end was noticed; 0: not yet
	cut   bool    // the relay ended it, by closing it or with its earlier life
	taken uint64  // bytes of replies that the peer had taken when it ended the connection in good order
}

// left notes that the peer ended the connection, and how many bytes of replies it had taken.
// Only the first note of an end counts.
func (l *lineage) left(at instant, taken uint64) { l.note(at, false, taken) }

// end notes that the relay ended the connection. No reply is known to be taken.
func (l *lineage) end(at instant) { l.note(at, true, 0) }

func (l *lineage) note(at instant, cut bool, taken uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended == 0 {
		l.ended, l.cut, l.taken = max(at, 1), cut, taken
	}
}

// mayComeFrom reports whether the client of this connection, which has ended, may come back
// from that address and port. Kernels from 6.7 on take another port after each attempt to
// connect that is refused, as all are while the relay is away. Earlier ones do so when
// their old port is not to be had.
func (l *lineage) mayComeFrom(peer netip.AddrPort) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peer == peer || l.cut && l.peer.Addr() == peer.Addr()
}

// noticedEnd returns when the connection ended, 0 if its end has not been noticed.
func (l *lineage) noticedEnd() instant {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// over reports whether the connection has ended, and when. If no end has been noticed it
// asks the socket, because a connection at its limit is not read.
func (l *lineage) over(at instant) (instant, bool) {
	if ended := l.noticedEnd(); ended != 0 || l.tcp == nil {
		return ended, ended != 0
	}
	l.look(at)
	ended := l.noticedEnd()
	return ended, ended != 0
}

// look asks the socket whether the peer has ended the connection, and notes it.
//
// A peer that closes its socket in good order has read every byte that its kernel
// acknowledged, because closing a socket with unread bytes resets the connection. After a
// reset, or after an end that the relay itself began, no reply is known to be taken: a
// kernel that hears of the end may drop replies it has not read.
func (l *lineage) look(at instant) {
	written := l.written.Load() // read before the socket says how much of it is not acknowledged
	raw, err := l.tcp.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			if n, err := unix.Poll(p, 0); err != nil || n == 0 {
				return
			}
			l.left(at, acknowledged(int(fd), p[0].Revents, written))
		})
	}
	if err != nil { // the relay has closed it
		l.end(at)
	}
}

// acknowledged returns how many of the written bytes the peer had acknowledged when it ended the
// connection, 0 after a reset.
func acknowledged(fd int, events int16, written uint64) uint64 {
	if events&(unix.POLLHUP|unix.POLLERR) != 0 {
		return 0
	}
	unacknowledged, err := unix.IoctlGetInt(fd, unix.TIOCOUTQ)
	if err != nil || unacknowledged < 0 || uint64(unacknowledged) > written {
		return 0
	}
	return written - uint64(unacknowledged)
}

// tookUpTo reports whether the connection has ended and its peer had taken the first n
// bytes of its replies.
func (l *lineage) tookUpTo(n uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return n != 0 && n <= l.taken
}
