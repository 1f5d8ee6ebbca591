// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"bfs/pkg/internal/rawio"
)

const (
	maxSlices = 64        // chunks given to one system call: 2 MiB
	sealLimit = 256 << 10 // bytes turned into TLS records at one time
	maxRounds = 4         // writes one Flush does for others before it hands over to a helper
)

// A pen holds the buffers of the goroutine that may write. The right to write is
// Conn.writing: the goroutine that turns it from false to true has it, until it turns it
// back or hands it to drain.
type pen struct {
	calls  *rawio.Calls
	slices [maxSlices][]byte
	todo   [][]byte // the bytes that write writes
	n      int      // bytes that it wrote
	err    error
	once   func(fd uintptr)      // write, bound once so that a flush allocates nothing
	wait   func(fd uintptr) bool // write, and report whether to go on without waiting
}

func (p *pen) init(c *Conn) {
	p.calls = c.o.calls
	p.once = p.write
	p.wait = func(fd uintptr) bool {
		p.write(fd)
		return p.n > 0 || p.err != nil
	}
}

// write makes one non-blocking system call. A full socket leaves n == 0 and err == nil.
func (p *pen) write(fd uintptr) {
	p.n, p.err = p.calls.Write(fd, p.todo)
	if p.err == syscall.EAGAIN {
		p.err = nil
	}
}

// Flush writes the queued frames, in one system call if it can, and never blocks: bytes that the
// socket does not take are written in the background as soon as it takes them. Frames sent while
// another goroutine is in Flush are written by that one.
func (c *Conn) Flush() {
	c.mu.Lock()
	if c.closed || c.released == c.out.total {
		c.mu.Unlock()
		return
	}
	c.stats.Flushes++
	if c.o.Delay != nil {
		if d := c.o.Delay(); d > 0 || len(c.late.marks) > 0 {
			c.late.add(c, c.out.total, time.Now().Add(d))
			c.mu.Unlock()
			return
		}
	}
	c.released = c.out.total
	c.writeReleased()
}

// writeReleased writes the released bytes, unless another goroutine is writing. Requires c.mu, and
// unlocks it.
func (c *Conn) writeReleased() {
	if c.writing {
		c.mu.Unlock()
		return
	}
	c.writing = true
	for range maxRounds {
		if !c.pending() {
			c.writing = false
			c.mu.Unlock()
			return
		}
		all, err := c.writeSome()
		if err != nil {
			c.mu.Unlock()
			c.closeFor(err)
			return
		}
		if !all {
			break
		}
	}
	if !c.closed {
		c.help(c.drain)
	}
	c.mu.Unlock()
}

// pending reports whether there is something to write. Requires c.mu.
func (c *Conn) pending() bool {
	return !c.closed && (c.released > c.out.taken || c.wire.bytes() > 0)
}

// writeSome makes one non-blocking write of pending bytes, and reports whether the socket took all
// that it was offered. Requires the pen and c.mu, which it gives up meanwhile.
func (c *Conn) writeSome() (all bool, err error) {
	return c.offer(func() error { return c.raw.Control(c.pen.once) })
}

// offer prepares the pending bytes, lets call write them without c.mu, and consumes the bytes that
// were taken. Requires the pen and c.mu.
func (c *Conn) offer(call func() error) (all bool, err error) {
	p := &c.pen
	q, limit := &c.out, int(c.released-c.out.taken)
	if c.tls != nil {
		if err := c.seal(); err != nil {
			return false, err
		}
		q, limit = &c.wire, c.wire.bytes()
	}
	p.todo = q.slices(p.slices[:0], limit)
	if len(p.todo) == 0 {
		return true, nil
	}
	c.mu.Unlock()
	err = call()
	want := 0
	for i, s := range p.todo {
		want += len(s)
		p.todo[i] = nil
	}
	c.mu.Lock()
	if err == nil {
		err = p.err
	}
	if err != nil {
		return false, fmt.Errorf("transport: write: %w", err)
	}
	c.stats.Writes++
	if c.closed {
		return false, nil
	}
	q.consume(p.n)
	c.weigh()
	return p.n == want, nil
}

// drain writes pending bytes, waiting for the socket, until there are none. It is given the pen.
func (c *Conn) drain() {
	c.mu.Lock()
	for c.pending() {
		_ = c.tcp.SetWriteDeadline(time.Now().Add(c.o.Stall)) // only drain waits, and so heeds it
		_, err := c.offer(func() error { return c.raw.Write(c.pen.wait) })
		if errors.Is(err, os.ErrDeadlineExceeded) {
			err = ErrStalled
		}
		if err != nil {
			c.mu.Unlock()
			c.closeFor(err)
			return
		}
	}
	c.writing = false
	c.mu.Unlock()
}
