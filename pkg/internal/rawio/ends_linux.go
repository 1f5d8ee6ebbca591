// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// An end notes the end of file of a stream for the stream's reader. A short read means
// that there is no more for now, unless the end came together with the last bytes, and
// Go's edge-triggered poller reports both only once. So ends have an epoll instance of
// their own, which reports nothing else and costs nothing before. When it reports an end,
// the end is noted and the socket shut down for reading, as the peer did already; this
// changes nothing, but makes Go's poller report once more. The reader then finds the note
// after its next short read, or is woken while it waits.
type end struct {
	socket syscall.RawConn
	number int32 // descriptors are used again, numbers are not
	came   atomic.Bool
}

// ends is the epoll instance for ends of file. It exists while streams are read.
var ends struct {
	mu      sync.Mutex
	epoll   *os.File // nil while no stream is read
	raw     syscall.RawConn
	watched map[int32]*end
	last    int32
}

// maxWatched bounds the streams that are watched.
var maxWatched = 1 << 16

// watchEnd notes the end of a socket's stream when it comes, until forget. It returns nil
// if the socket cannot be watched.
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

// remove removes e from the table, and closes the epoll instance with the last one. The
// caller holds ends.mu.
func (e *end) remove() {
	delete(ends.watched, e.number)
	if len(ends.watched) == 0 {
		_ = ends.epoll.Close()
		ends.epoll = nil
	}
}

// control changes the registration of the socket. The caller holds ends.mu.
func (e *end) control(change int, event *unix.EpollEvent) (ok bool) {
	_ = e.socket.Control(func(fd uintptr) {
		_ = ends.raw.Control(func(epoll uintptr) {
			ok = unix.EpollCtl(int(epoll), change, int(fd), event) == nil
		})
	})
	return ok
}

// openEnds makes the epoll instance and starts its goroutine. The caller holds ends.mu.
func openEnds() bool {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	_ = unix.SetNonblock(fd, true) // so that Go's poller watches it
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

// tellEnds notes ends until the epoll instance is closed.
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
				e.came.Store(true) // before the shutdown, which wakes a reader that has not seen it
				_ = e.socket.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RD) })
			}
		}
	}
}
