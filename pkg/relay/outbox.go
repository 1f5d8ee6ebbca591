// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"bfs/pkg/internal/rawio"
)

const (
	// chunkSize is the size of the memory into which small replies are copied.
	chunkSize = 32 << 10
	// ownSegment is the size from which a reply is not copied but written from where it is.
	ownSegment = 8 << 10
	// maxVector bounds the segments of one system call.
	maxVector = 64
	// together is the time within which a reply joins the one before: while other calls
	// are in flight, a reply that comes so soon after the last is left to the writer,
	// which writes all that wait at once.
	together = 100 * time.Microsecond
)

// An outbox holds the replies that a connection has not taken. The goroutine that sets
// writing owns vector and writes; all others only append. So a goroutine of the client
// that finds the outbox idle writes at once, and one that finds it busy does not wait.
type outbox struct {
	mu      sync.Mutex
	waiting []segment // to be written after vector
	total   uint64    // bytes of replies appended since the connection began
	spare   []byte    // an empty chunk
	last    time.Time // when a reply was last appended
	writing bool
	closed  bool

	vector []segment             // being written
	iov    [][]byte              // for the system call
	block  bool                  // whether push may wait
	err    error                 // of push
	sent   int                   // by push
	pushed func(fd uintptr) bool // conn.push, made once

	wake chan struct{} // to the writer: writing is handed to you
}

// A segment is bytes to write; of a chunk, more may be appended while it waits.
type segment struct {
	b     []byte
	chunk bool
}

// add appends a reply.
func (o *outbox) add(head, tail []byte) {
	if len(tail) >= ownSegment {
		o.gather(head)
		o.waiting = append(o.waiting, segment{b: tail})
		return
	}
	o.gather(head)
	o.gather(tail)
}

// gather copies b, which is small, behind the segments that wait.
func (o *outbox) gather(b []byte) {
	if len(b) == 0 {
		return
	}
	if n := len(o.waiting); n > 0 {
		if s := &o.waiting[n-1]; s.chunk && cap(s.b)-len(s.b) >= len(b) {
			s.b = append(s.b, b...)
			return
		}
	}
	chunk := o.spare
	o.spare = nil
	if chunk == nil {
		chunk = make([]byte, 0, chunkSize)
	}
	o.waiting = append(o.waiting, segment{b: append(chunk, b...), chunk: true})
}

// answer sends the reply to a call. reply is accept_stat and results, and must not change
// any more. a is the answer remembered for retransmissions, nil if none is.
func (c *conn) answer(xid uint32, reply []byte, alone bool, a *answered) {
	var head [acceptedSize]byte
	c.send(appendAccepted(head[:0], xid, len(reply)), reply, alone, a)
}

// send puts a message into the outbox and has it written: at once if it comes alone, by
// the writer if more are to be expected. It never waits for the peer; a peer with too
// many unsent bytes is disconnected. If a is not nil, its end is set to the place in the
// stream of replies where the message ends.
func (c *conn) send(head, tail []byte, alone bool, a *answered) {
	o, s, n := &c.out, c.server, int64(len(head)+len(tail))
	now := time.Now()
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	o.add(head, tail)
	o.total += uint64(n)
	if a != nil {
		a.end.Store(o.total)
	}
	mine, all := c.unsent.Add(n), s.unsent.Add(n)
	if mine > int64(s.config.Limits.UnsentPerConn) || all > int64(s.config.Limits.Unsent) {
		o.mu.Unlock()
		c.giveUpSlow()
		return
	}
	direct := alone || now.Sub(o.last) > together
	o.last = now
	if o.writing {
		o.mu.Unlock()
		return
	}
	o.writing = true
	if !direct {
		o.mu.Unlock()
		o.wake <- struct{}{} // it has room for one: only the goroutine that sets writing sends
		return
	}
	o.take()
	o.mu.Unlock()
	if err := c.pushOut(false); err != nil {
		c.close()
		return
	}
	c.handOver()
}

func (c *conn) giveUpSlow() {
	c.server.counters.slow.Add(1)
	c.server.advise("slow", "connection closed: it does not take its replies", "peer", c.peer)
	c.close()
}

// take moves the waiting segments to vector, which is empty.
func (o *outbox) take() { o.vector, o.waiting = o.waiting, o.vector[:0] }

// handOver ends the writing if everything is written, and otherwise leaves the rest to the writer.
func (c *conn) handOver() {
	o := &c.out
	o.mu.Lock()
	if len(o.vector) == 0 && len(o.waiting) == 0 {
		o.writing = false
		o.mu.Unlock()
		return
	}
	o.mu.Unlock()
	o.wake <- struct{}{}
}

// write is the writer's goroutine. It ends with the connection, after all other users of it.
func (c *conn) write() {
	defer c.server.wg.Done()
	for {
		select {
		case <-c.out.wake:
			if err := c.writeAll(); err != nil {
				c.close()
			}
		case <-c.quit:
			c.discard()
			c.server.mu.Lock()
			delete(c.server.conns, c)
			c.server.mu.Unlock()
			return
		}
	}
}

// writeAll writes until nothing waits, at the peer's pace.
func (c *conn) writeAll() error {
	o := &c.out
	for {
		o.mu.Lock()
		if len(o.vector) == 0 {
			o.take()
		}
		if len(o.vector) == 0 {
			o.writing = false
			o.mu.Unlock()
			return nil
		}
		o.mu.Unlock()
		if err := c.pushOut(false); err != nil {
			return err
		}
		if len(o.vector) == 0 {
			continue
		}
		c.tcp.SetWriteDeadline(time.Now().Add(c.server.config.Limits.Stalled))
		err := c.pushOut(true)
		c.tcp.SetWriteDeadline(time.Time{})
		if errors.Is(err, os.ErrDeadlineExceeded) {
			c.giveUpSlow()
		}
		if err != nil {
			return err
		}
	}
}

// discard drops the replies that a closed connection did not take.
func (c *conn) discard() {
	o := &c.out
	o.mu.Lock()
	defer o.mu.Unlock()
	o.closed = true
	o.waiting, o.spare = nil, nil
	c.server.unsent.Add(-c.unsent.Swap(0))
}

// pushOut writes as much of the vector as the socket takes. With block set it waits until
// the socket took something.
func (c *conn) pushOut(block bool) error {
	o, s := &c.out, c.server
	o.block, o.err, o.sent = block, nil, 0
	if err := c.raw.Write(o.pushed); err != nil {
		return err
	}
	s.counters.bytesOut.Add(uint64(o.sent))
	c.written.Add(uint64(o.sent))
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return o.err
	}
	s.unsent.Add(int64(-o.sent))
	left := c.unsent.Add(int64(-o.sent))
	o.mu.Unlock()
	pause := int64(s.config.Limits.PauseUnsent)
	if left <= pause && left+int64(o.sent) > pause || left == 0 && c.draining.Load() {
		s.table.poke(c)
	}
	return o.err
}

// push writes to the descriptor for pushOut. It returns false to be called again when the
// descriptor is writable.
func (c *conn) push(fd uintptr) bool {
	o := &c.out
	for len(o.vector) > 0 {
		n, err := o.writev(fd)
		c.server.counters.writes.Add(1)
		if n > 0 {
			o.sent += n
			o.advance(n)
		}
		switch {
		case err == nil:
		case errors.Is(err, syscall.EAGAIN):
			return !o.block || o.sent > 0
		default:
			o.err = err
			return true
		}
	}
	return true
}

func (o *outbox) writev(fd uintptr) (int, error) {
	o.iov = o.iov[:0]
	for _, s := range o.vector[:min(len(o.vector), maxVector)] {
		o.iov = append(o.iov, s.b)
	}
	n, err := rawio.Silent.Write(fd, o.iov)
	clear(o.iov)
	return n, err
}

// advance drops n written bytes from the vector, keeping a chunk for the next replies.
func (o *outbox) advance(n int) {
	done := 0
	for done < len(o.vector) && n >= len(o.vector[done].b) {
		n -= len(o.vector[done].b)
		done++
	}
	if done > 0 {
		o.recycle(o.vector[:done])
		rest := copy(o.vector, o.vector[done:])
		clear(o.vector[rest:])
		o.vector = o.vector[:rest]
	}
	if n > 0 {
		s := &o.vector[0]
		s.b = s.b[n:]
	}
}

// recycle keeps one of the chunks that were written whole.
func (o *outbox) recycle(done []segment) {
	for _, s := range done {
		if s.chunk && cap(s.b) == chunkSize {
			o.mu.Lock()
			if o.spare == nil && !o.closed {
				o.spare = s.b[:0]
			}
			o.mu.Unlock()
			return
		}
	}
}
