// Package rawio reads and writes TCP sockets at a lower price than package net, where messages are small and each is
// waited for.
//
// Package net announces every system call to Go's scheduler, for it might block. If the process was idle, the announcement
// wakes the scheduler's watchman thread (sysmon), which then looks every 20 µs whether the call has come back: a futex call,
// a few context switches and timer interrupts for each message, more than reading and writing it. A non-blocking socket
// has nothing to watch. So on Linux these calls are made without a word to the scheduler; who must wait for a socket still
// does it in Go's poller, and deadlines and Close work as ever.
//
// What a silent call does delay is the garbage collector, which waits for it. Therefore one moves at most 128 KiB.
package rawio

import (
	"io"
	"os"
	"syscall"
)

// A Calls is a way to make system calls on sockets, which must be non-blocking. n is positive unless there is an error; the
// error is a bare syscall.Errno, EAGAIN among them, but not EINTR. Read returns 0 and no error at the end of the stream.
// They may do less than they are asked to.
type Calls struct {
	Read  func(fd uintptr, p []byte) (n int, err error)
	Write func(fd uintptr, slices [][]byte) (n int, err error)
}

// A Reader reads a connection as its Read method does. It is for one goroutine at a time.
type Reader struct {
	raw   syscall.RawConn
	calls *Calls
	p     []byte
	n     int
	err   error
	try   func(fd uintptr) bool // made once, lest each Read allocate it
}

// NewReader returns a Reader of the connection that raw belongs to.
func NewReader(raw syscall.RawConn, calls *Calls) *Reader {
	r := &Reader{raw: raw, calls: calls}
	r.try = func(fd uintptr) bool {
		r.n, r.err = r.calls.Read(fd, r.p)
		return r.err != syscall.EAGAIN
	}
	return r
}

// Read implements io.Reader. It waits until there is something, the read deadline strikes or the connection is closed.
//
// It asks the kernel once more than needed, after each message whether there is another. To take a short read for a no and
// wait at once would lose the end of a stream whose last bytes came together with it: the poller tells of both once.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.p = p
	err := r.raw.Read(r.try)
	r.p = nil
	switch {
	case err != nil:
		return 0, err
	case r.err != nil:
		return 0, os.NewSyscallError("read", r.err)
	case r.n == 0:
		return 0, io.EOF
	}
	return r.n, nil
}
