// SPDX-License-Identifier: Apache-2.0

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
	few   = 4 << 10  // bytes that are likely to be all there is
)

// A Reader reads a connection, as its Read method does or by Each. It is for one goroutine at a time.
type Reader struct {
	raw   syscall.RawConn
	calls *Calls
	row   int // reads since the last before a waiting
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
		r.read(fd)
		return r.err != syscall.EAGAIN
	}
	return r
}

// read makes one call, which may find nothing.
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

// over is why a call that did not find the socket empty read nothing; nil if it did read.
func (r *Reader) over() error {
	switch {
	case r.err != nil:
		return os.NewSyscallError("read", r.err)
	case r.n == 0:
		return io.EOF
	}
	return nil
}

// Read implements io.Reader. It waits until there is something, the read deadline strikes or the connection is closed.
//
// It asks the kernel once more than needed, after each message whether there is another: what the poller told before we wait
// is forgotten.
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

// Each reads into what space returns, which must have room, and tells filled how much came, again and again. It returns the
// error that filled returns, io.EOF at the end of the stream, or why it cannot wait: the read deadline has struck, the
// connection is closed.
//
// Where Read asks whether there is more, Each takes a read that brought little and did not fill its space for a no, and waits.
// (Behind much there often is more by the time that it is dealt with, and to ask is cheap then.) The price is that the
// connection's Close waits in turn for filled to return. So who closes it from within filled, or under a lock that filled
// takes, leaves that to another goroutine; and filled then returns an error, lest it be called once more.
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
				return true // and come back, if the deadline has not struck and nobody has called Close
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
