// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"bfs/pkg/internal/rawio"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// readBuffer is the number of bytes read ahead of a connection, so that one system call
// brings many small calls.
const readBuffer = 32 << 10

// A conn is one connection of a kernel. Its reader owns records, head and reserved.
type conn struct {
	*lineage
	server *Server
	raw    syscall.RawConn
	quit   chan struct{} // closed with the connection
	once   sync.Once

	gone     atomic.Bool  // closed
	draining atomic.Bool  // read no more; close when everything is answered
	used     atomic.Int64 // when it last brought a call, in Unix nanoseconds
	unsent   atomic.Int64 // bytes of replies in out; changed under out.mu

	flying int       // calls in flight to be answered here; guarded by table.mu
	room   sync.Cond // on table.mu: flying or unsent fell, or the reader must stop waiting

	in       *rawio.Reader
	records  recordReader
	head     header
	reserved int // bytes of the table's budget that the record being read holds
	armed    bool

	out outbox
}

func newConn(s *Server, tcp *net.TCPConn, raw syscall.RawConn, peer netip.AddrPort) *conn {
	c := &conn{
		lineage: &lineage{peer: peer, tcp: tcp}, server: s, raw: raw, quit: make(chan struct{}),
	}
	c.used.Store(time.Now().UnixNano())
	c.room.L = &s.table.mu
	c.in = rawio.NewReader(raw, &rawio.Silent)
	c.records = recordReader{
		buf:     make([]byte, readBuffer),
		reserve: c.reserve, partial: c.partial, whole: c.whole,
	}
	c.out.wake = make(chan struct{}, 1)
	c.out.pushed = c.push
	return c
}

func (c *conn) reserve(n int) error {
	if err := c.server.table.reserve(c, n); err != nil {
		return err
	}
	c.reserved = n
	c.whole() // the peer's time runs from the moment when memory is there
	return nil
}

// partial sets the time by which the record that has begun must be whole, so that a peer
// that never ends it does not hold memory.
func (c *conn) partial() {
	if !c.armed {
		c.armed = true
		c.setReadDeadline(time.Now().Add(c.server.config.Limits.Partial))
	}
}

func (c *conn) whole() {
	if c.armed {
		c.armed = false
		c.setReadDeadline(time.Time{})
	}
}

// setReadDeadline sets the deadline, unless reading is over.
func (c *conn) setReadDeadline(t time.Time) {
	c.tcp.SetReadDeadline(t)
	if c.draining.Load() {
		c.tcp.SetReadDeadline(time.Unix(1, 0))
	}
}

// drain ends the reading; the connection closes when all is answered.
func (c *conn) drain() {
	c.draining.Store(true)
	c.tcp.SetReadDeadline(time.Unix(1, 0))
	c.server.table.poke(c)
}

// read is the reader's goroutine.
func (c *conn) read() {
	defer c.server.wg.Done()
	c.armed = true
	c.setReadDeadline(time.Now().Add(c.server.config.Limits.FirstCall))
	err := c.in.Each(c.records.space, c.filled)
	if err == io.EOF {
		c.look(c.server.table.now())
		c.server.table.dropTaken(c.lineage)
	}
	if err == io.EOF && c.records.unfinished() {
		err = io.ErrUnexpectedEOF
	}
	c.server.table.unreserve(c.reserved)
	c.reserved = 0
	if c.draining.Load() && (errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, errStopping)) {
		c.server.table.poke(c) // it closes once all is answered
		return
	}
	if err != io.EOF && !errors.Is(err, syscall.ECONNRESET) && !c.gone.Load() {
		c.server.counters.broken.Add(1)
	}
	c.close()
}

// filled serves the calls that n more bytes have made whole. Its error ends the reading.
func (c *conn) filled(n int) error {
	c.records.filled(n)
	for c.records.begun || c.server.table.awaitTurn(c) { // a record that has begun has had its turn
		record, err := c.records.next()
		if err == errUnfinished {
			return nil
		}
		if err != nil {
			return err
		}
		c.used.Store(time.Now().UnixNano())
		c.server.counters.bytesIn.Add(uint64(len(record) + 4))
		if err := c.serve(record); err != nil {
			return err
		}
	}
	return errStopping
}

var errNotACall = errors.New("record is not an RPC call")

// serve answers one call, or gives it to the group. Its error ends the connection.
func (c *conn) serve(record []byte) error {
	h, n := &c.head, &c.server.counters
	switch h.parse(record) {
	case notACall:
		n.notCalls.Add(1)
		return errNotACall
	case rpcMismatch:
		n.rpcMismatch.Add(1)
		c.deny(rejectRPCMismatch, rpcVersion, rpcVersion)
		return nil
	case badCred:
		n.authErrors.Add(1)
		c.deny(rejectAuthError, uint32(authBadCred))
		return nil
	case badVerf:
		n.authErrors.Add(1)
		c.deny(rejectAuthError, uint32(authBadVerf))
		return nil
	case garbage:
		n.garbage.Add(1)
		c.refuse(nfs3.GarbageArgs)
		return nil
	case proceed:
	}
	switch who, stat := route(h); who {
	case toGroup:
		c.relay(record)
	case toUs:
		c.answerOurselves(record[h.args:])
	case toNobody:
		switch stat {
		case nfs3.ProgMismatch:
			n.noVersion.Add(1)
		case nfs3.ProcUnavail:
			n.noProcedure.Add(1)
		default:
			n.noProgram.Add(1)
		}
		c.refuse(stat)
	}
	c.settle()
	return nil
}

// settle returns the bytes that a record reserved to the budget, unless its call took them over.
func (c *conn) settle() {
	c.server.table.unreserve(c.reserved)
	c.reserved = 0
}

func (c *conn) deny(reason uint32, detail ...uint32) {
	c.send(appendDenied(nil, c.head.xid, reason, detail...), nil, true, nil)
	c.settle()
}

func (c *conn) refuse(stat nfs3.AcceptStat) {
	c.send(appendStat(nil, c.head.xid, stat), nil, true, nil)
	c.settle()
}

// answerOurselves answers NULL, DUMP, UMNT and UMNTALL without the group.
func (c *conn) answerOurselves(args []byte) {
	h, s := &c.head, c.server
	results, ok := []byte(nil), true
	if h.program == nfs3.ProgramMount && h.procedure != mountNull {
		results, ok = c.listMounts(args)
	}
	if !ok {
		s.counters.garbage.Add(1)
		s.counters.count(h.program, h.procedure, answeredRefused)
		c.refuse(nfs3.GarbageArgs)
		return
	}
	s.counters.count(h.program, h.procedure, answeredOK)
	b := appendAccepted(nil, h.xid, 4+len(results))
	c.send(binary.BigEndian.AppendUint32(b, uint32(nfs3.Success)), results, true, nil)
}

// listMounts does DUMP, UMNT and UMNTALL [RFC1813 appendix I].
func (c *conn) listMounts(args []byte) (results []byte, ok bool) {
	host := hostName(c.peer)
	switch c.head.procedure {
	case mountUmnt:
		path, ok := parseMountPath(args)
		if ok {
			c.server.mounts.remove(mounted{host, path})
		}
		return nil, ok
	case mountUmntAll:
		if len(args) == 0 {
			c.server.mounts.removeHost(host)
		}
		return nil, len(args) == 0
	default: // DUMP
		if len(args) != 0 {
			return nil, false
		}
		return c.server.mounts.appendDump(nil), true
	}
}

// relay gives a call to the group.
func (c *conn) relay(record []byte) {
	h, s := &c.head, c.server
	k := &call{
		server: s, conn: c, from: c.lineage, began: s.table.now(),
		program: h.program, procedure: h.procedure, readOnly: readOnly(h),
	}
	if h.program == nfs3.ProgramMount && h.procedure == mountMnt {
		k.mount, _ = parseMountPath(record[h.args:]) // the group refuses a malformed one
	}
	k.key = keyOf(c.peer, h.xid, record) // before the record's header is overwritten
	k.record, k.body = record, h.operation(record)
	switch verdict, done := s.table.admit(k); verdict {
	case joined:
		s.counters.joined.Add(1)
	case replayed:
		s.counters.replayed.Add(1)
		c.answer(h.xid, done.reply, true, done)
	case fresh:
		k.reserved, c.reserved = c.reserved, 0
		c.start(k)
	}
}

// start hands k to the client, and waits while the client has no room.
func (c *conn) start(k *call) {
	s := c.server
	request := pbft.Call{Body: k.body, ReadOnly: k.readOnly, Done: k.done}
	if !k.readOnly {
		request.Sending = k.sending
	}
	for {
		err := s.group.Start(request)
		if err == nil {
			return
		}
		if !errors.Is(err, pbft.ErrBusy) {
			k.done(nil, err)
			return
		}
		if !c.awaitClient(k) {
			return
		}
	}
}

// busyRetry bounds how long a reader waits before it asks a busy client again. Other
// users of the client end calls without the relay's knowing.
const busyRetry = 20 * time.Millisecond

// awaitClient waits until the client may have room. It returns false, and forgets k, if
// no connection waits for k any more.
func (c *conn) awaitClient(k *call) bool {
	s := c.server
	s.counters.busy.Add(1)
	s.busy.Add(1)
	defer s.busy.Add(-1)
	timer := time.NewTimer(busyRetry)
	defer timer.Stop()
	select {
	case <-s.freed:
	case <-timer.C:
	case <-c.quit:
		if s.table.abandon(k) {
			s.counters.count(k.program, k.procedure, unanswered)
			s.table.release(k.conn, k.reserved)
			return false
		}
		<-timer.C // k has another home now; c.quit is no longer worth waiting for
	}
	return true
}

// shut closes the connection. It takes no lock, so any lock may be held by its caller. The
// socket's Close waits for the reader, which may be the caller itself, so Close runs on a
// goroutine of its own, for which Shutdown waits too. That goroutine is counted before
// quit is closed, because the writer ends with quit and may be the last goroutine counted.
func (c *conn) shut() {
	c.once.Do(func() {
		c.gone.Store(true)
		at := c.server.table.now()
		c.look(at) // the peer may have ended it before
		c.end(at)
		c.server.wg.Go(func() { c.tcp.Close() })
		close(c.quit)
	})
}

// close closes the connection and wakes its reader and Shutdown. Its calls in flight go on, and are
// answered on the connection where the client asks again.
func (c *conn) close() {
	c.shut()
	c.server.table.poke(c)
}

// closeIfDrained is called under table.mu.
func (c *conn) closeIfDrained() {
	if c.draining.Load() && c.flying == 0 && c.unsent.Load() == 0 {
		c.shut()
	}
}
