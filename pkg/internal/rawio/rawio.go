// Package rawio reads and writes TCP sockets at a lower price than package net, where messages are small and each is
// waited for.
//
// Package net announces every system call to Go's scheduler, for it might block. If the process was idle, the announcement
// wakes the scheduler's watchman thread (sysmon), which then looks every 20 µs whether the call has come back: a futex call,
// a few context switches and timer interrupts for each message, more than reading and writing it. A non-blocking socket
// has nothing to watch. So on Linux these calls are made without a word to the scheduler; who must wait for a socket still
// does it in Go's poller, and deadlines and Close work as ever.
//
// What that costs is bounded. The garbage collector waits for a silent call, so one moves at most 64 KiB. And while the
// watchman sleeps, nobody makes a goroutine give way that always finds something to read; so such a one makes every 64th
// call aloud, and so does one that reads more than that at a time.
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

const (
	most  = 64 << 10 // bytes that one silent call moves
	aloud = 64       // reads in a row that find something make one of them ordinary
)

// A Reader reads a connection as its Read method does. It is for one goroutine at a time.
type Reader struct {
	raw   syscall.RawConn
	calls *Calls
	row   int // reads since the last that found nothing
	p     []byte
	n     int
	err   error
	try   func(fd uintptr) bool // made once, lest each Read allocate it

	oneWay bool // see OneWay
	reads  int
}

// OneWay says that the peer is not answered on this connection: acknowledgements are held back then.
func (r *Reader) OneWay() { r.oneWay = true }

// heldFor is for how many reads acknowledgements are held back at one asking.
const heldFor = 16

// NewReader returns a Reader of the connection that raw belongs to.
func NewReader(raw syscall.RawConn, calls *Calls) *Reader {
	r := &Reader{raw: raw, calls: calls}
	r.try = func(fd uintptr) bool {
		c := r.calls
		if r.row++; r.row%aloud == 0 || r.n >= most {
			c = &Ordinary
		}
		if r.oneWay && r.reads%heldFor == 0 {
			holdAcks(fd)
		}
		r.reads++
		r.n, r.err = c.Read(fd, r.p)
		if r.err == syscall.EAGAIN {
			r.row = 0
			return false
		}
		return true
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
