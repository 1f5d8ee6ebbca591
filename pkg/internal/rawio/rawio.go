// SPDX-License-Identifier: Apache-2.0

// Package rawio reads and writes TCP sockets at a lower cost than package net, for small
// messages that are each waited for.
//
// Package net announces every system call to Go's scheduler, because it might block. If
// the process was idle, the announcement wakes the scheduler's monitor thread (sysmon),
// which then checks every 20 µs whether the call has returned: a futex call, a few
// context switches and timer interrupts for each message, which cost more than reading
// and writing it. A call on a non-blocking socket needs no monitoring. So on Linux these
// calls are not announced to the scheduler (they are *silent*). Waiting for a socket is
// still done in Go's poller, and deadlines and Close work as usual.
//
// The cost of silent calls is bounded. The garbage collector waits for one, so one moves at most
// 64 KiB. And while sysmon sleeps no goroutine is preempted, so one that always finds bytes to
// read announces every 64th call, and also each call after one that read more than that.
package rawio

import (
	"io"
	"os"
	"syscall"
)

// A Calls is a way to make system calls on sockets, which must be non-blocking. n is positive
// unless there is an error; the error is a bare syscall.Errno, EAGAIN among them, but not EINTR.
// Read returns 0 and no error at the end of the stream. They may do less than they are asked to.
type Calls struct {
	Read  func(fd uintptr, p []byte) (n int, err error)
	Write func(fd uintptr, slices [][]byte) (n int, err error)
}

const (
	most  = 64 << 10 // bytes that one silent call moves
	aloud = 64       // reads in a row that find bytes, of which one is announced
	few   = 4 << 10  // a read of fewer bytes has probably emptied the socket
)

// A Reader reads a connection, as its Read method does or by Each. It is for one
// goroutine at a time.
type Reader struct {
	raw   syscall.RawConn
	calls *Calls
	row   int // reads since the reader last waited
	p     []byte
	n     int
	err   error
	try   func(fd uintptr) bool // made once, so that Read does not allocate it

	oneWay bool // see OneWay
	reads  int
}

// OneWay says that no replies are sent on this connection, so acknowledgements are delayed.
func (r *Reader) OneWay() { r.oneWay = true }

// heldFor is the number of reads for which one holdAcks delays acknowledgements.
const heldFor = 16

// NewReader returns a Reader of the connection that raw belongs to.
func NewReader(raw syscall.RawConn, calls *Calls) *Reader {
	r := &Reader{raw: raw, calls: calls}
	r.try = func(fd uintptr) bool {
		r.read(fd)
		return r.err != syscall.EAGAIN
	}
	return r
}

// read makes one call, which may find no bytes.
func (r *Reader) read(fd uintptr) {
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
	}
}

// over returns the reason why a call that did not find the socket empty read nothing; nil
// if it read bytes.
func (r *Reader) over() error {
	switch {
	case r.err != nil:
		return os.NewSyscallError("read", r.err)
	case r.n == 0:
		return io.EOF
	}
	return nil
}

// Read implements io.Reader. It waits until there are bytes, the read deadline passes or
// the connection is closed.
//
// It makes one call more than needed, which asks after each message whether there is
// another, because readiness that the poller reported before the wait is forgotten.
func (r *Reader) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	r.p = p
	err := r.raw.Read(r.try)
	r.p = nil
	if err == nil {
		err = r.over()
	}
	if err != nil {
		return 0, err
	}
	return r.n, nil
}

// Each reads into the memory that space returns, which must not be empty, and tells
// filled how many bytes came, again and again. It returns the error that filled returns,
// io.EOF at the end of the stream, or the reason why it cannot wait: the read deadline
// has passed, or the connection is closed.
//
// Where Read asks whether there is more, Each takes a short read that did not fill its
// space as the answer no, and waits. (After a long read there is often more by the time
// it has been handled, and asking again is cheap then.) The price is that the
// connection's Close waits for filled to return. So a caller that closes the connection
// from within filled, or under a lock that filled takes, leaves that to another
// goroutine; filled then returns an error, so that it is not called again.
func (r *Reader) Each(space func() []byte, filled func(n int) error) error {
	end := watchEnd(r.raw)
	if end != nil {
		defer end.forget()
	}
	var over error
	try := func(fd uintptr) bool {
		for {
			r.p = space()
			if r.read(fd); r.err == syscall.EAGAIN {
				return false
			}
			if over = r.over(); over == nil {
				over = filled(r.n)
			}
			switch {
			case over != nil:
				return true
			case r.n < min(len(r.p), few) && end != nil && !end.came.Load():
				r.row = 0
				return false
			case r.row >= aloud:
				r.row = 0
				return true // and be called again, unless the deadline has passed or Close was called
			}
		}
	}
	for {
		err := r.raw.Read(try)
		r.p = nil
		if err == nil {
			err = over
		}
		if err != nil {
			return err
		}
	}
}
