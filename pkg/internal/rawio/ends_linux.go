// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// An end is told to who reads a stream. A short read says that there is no more for now, but for the end: that may have come
// together with the last bytes, and Go's poller tells of both once. So ends have a poller of their own, which hears of nothing
// else and costs nothing before. When it hears of one it notes it, and shuts the socket down for reading, as the peer did
// already: that changes nothing but has Go's poller tell once more. Whoever reads then finds the note after his next short read, or
// if he has not found it, is told while he waits.
type end struct {
	socket syscall.RawConn
	number int32 // descriptors are given out again, numbers are not
	came   atomic.Bool
}

// ends is the poller for ends. It is there while somebody reads.
var ends struct {
	mu      sync.Mutex
	epoll   *os.File // nil while nobody reads
	raw     syscall.RawConn
	watched map[int32]*end
	last    int32
}

// maxWatched bounds the streams that are watched.
var maxWatched = 1 << 16

// watchEnd has the reader of a socket told of the end of its stream, until forget; nil if there is nobody to do it.
func watchEnd(socket syscall.RawConn) *end {
	ends.mu.Lock()
	defer ends.mu.Unlock()
	if len(ends.watched) >= maxWatched || ends.epoll == nil && !openEnds() {
		return nil
	}
	for ends.last++; ends.watched[ends.last] != nil; ends.last++ {
	}
	e := &end{socket: socket, number: ends.last}
	ends.watched[e.number] = e
	// Once is enough: a stream has one end.
	if !e.control(unix.EPOLL_CTL_ADD, &unix.EpollEvent{Events: unix.EPOLLRDHUP | unix.EPOLLONESHOT, Fd: e.number}) {
		e.remove()
		return nil
	}
	return e
}

// forget undoes watchEnd.
func (e *end) forget() {
	ends.mu.Lock()
	defer ends.mu.Unlock()
	e.control(unix.EPOLL_CTL_DEL, nil) // a closed one has gone by itself
	e.remove()
}

// remove takes e off the table, and ends the poller with the last one. The caller holds ends.mu.
func (e *end) remove() {
	delete(ends.watched, e.number)
	if len(ends.watched) == 0 {
		_ = ends.epoll.Close()
		ends.epoll = nil
	}
}

// control changes what the poller knows of the socket. The caller holds ends.mu.
func (e *end) control(change int, event *unix.EpollEvent) (ok bool) {
	_ = e.socket.Control(func(fd uintptr) {
		_ = ends.raw.Control(func(epoll uintptr) {
			ok = unix.EpollCtl(int(epoll), change, int(fd), event) == nil
		})
	})
	return ok
}

// openEnds makes the poller. The caller holds ends.mu.
func openEnds() bool {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	_ = unix.SetNonblock(fd, true) // which has Go's poller look after it
	file := os.NewFile(uintptr(fd), "ends of streams")
	raw, err := file.SyscallConn()
	if err != nil {
		_ = file.Close()
		return false
	}
	ends.epoll, ends.raw, ends.watched = file, raw, make(map[int32]*end)
	go tellEnds(raw)
	return true
}

// tellEnds tells of ends until the poller is closed.
func tellEnds(raw syscall.RawConn) {
	var events [16]unix.EpollEvent
	n := 0
	wait := func(epoll uintptr) bool {
		n, _ = unix.EpollWait(int(epoll), events[:], 0)
		return n > 0
	}
	for raw.Read(wait) == nil {
		for _, event := range events[:n] {
			ends.mu.Lock()
			e := ends.watched[event.Fd]
			ends.mu.Unlock()
			if e != nil {
				e.came.Store(true) // before the shutdown, which finds a reader waiting who has not seen it
				_ = e.socket.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
			}
		}
	}
}
