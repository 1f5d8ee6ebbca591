// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/internal/rawio"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// A Group is the part of a pbft.Client that the relay uses. Done of a call must run
// before Sending of the next one in its slot. Otherwise a relay killed between the two
// has lost the answer to the first, which the group no longer keeps either, and the
// kernel's retransmission is done a second time. Stats.Overtaken counts this.
type Group interface {
	Start(call pbft.Call) error
	Resume(slot pbft.Slot, t pbft.Timestamp, call pbft.Call) error
}

// Limits bound the resources that kernels can make a relay hold. A zero field takes the
// default that its comment names.
type Limits struct {
	Conns        int // 256 connections
	CallsPerConn int // 128 calls in flight per connection; then it is not read
	Calls        int // 8192 calls in flight; then no connection is read
	CallBytes    int // 256 MiB of large calls read or in flight; then no other large call is read

	PauseUnsent   int // 4 MiB of replies a connection has not taken; then it is not read
	UnsentPerConn int // 64 MiB of them; then it is closed
	Unsent        int // 512 MiB of them in all; then the connection that passes it is closed

	Answers     int // 8192 answers kept for retransmissions
	AnswerBytes int // 16 MiB of them

	Resend    time.Duration // 2 min after its answer, a call that comes again on the same connection is a new one
	Reconnect time.Duration // 6 min after the end of its connection, or the restart, it cannot come again on another

	FirstCall time.Duration // 30 s from connecting to the end of the first call
	Partial   time.Duration // 30 s without the rest of a call that has begun
	Stalled   time.Duration // 60 s without any byte of a reply being taken
	Idle      time.Duration // 60 s without a call, after which a connection may be closed in favour of a new one
}

func (l Limits) withDefaults() Limits {
	for _, f := range []struct {
		field *int
		value int
	}{
		{&l.Conns, 256}, {&l.CallsPerConn, 128}, {&l.Calls, 8192}, {&l.CallBytes, 256 << 20},
		{&l.PauseUnsent, 4 << 20}, {&l.UnsentPerConn, 64 << 20}, {&l.Unsent, 512 << 20},
		{&l.Answers, 8192}, {&l.AnswerBytes, 16 << 20},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	for _, f := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&l.FirstCall, 30 * time.Second}, {&l.Partial, 30 * time.Second},
		{&l.Stalled, time.Minute}, {&l.Idle, time.Minute},
		{&l.Resend, 2 * time.Minute}, {&l.Reconnect, 6 * time.Minute},
	} {
		if *f.field <= 0 {
			*f.field = f.value
		}
	}
	return l
}

// Config configures a Server.
type Config struct {
	Group   Group
	Journal *Journal // nil: a restart is not hidden from kernels
	Limits  Limits

	// InsecurePorts takes calls from source ports >= 1024 also: any local process may then claim to
	// be any user.
	InsecurePorts bool

	// Cause returns the reason why the group does not answer, for the log; "" if it knows
	// none. It may be nil.
	Cause func() string

	Log *slog.Logger // nil: slog.Default()
}

// A Server is a relay: see the package's comment for the order of calls.
type Server struct {
	config   Config
	group    Group
	log      *slog.Logger
	table    *table
	mounts   mountList
	counters counters

	unsent atomic.Int64  // bytes of replies in all outboxes
	freed  chan struct{} // a call ended while a reader waited for room at the client
	busy   atomic.Int32  // number of readers that wait so

	adviceMu sync.Mutex
	advised  map[string]instant // when each kind of advice was logged last

	stop    chan struct{} // closed by Shutdown
	beaten  atomic.Int64  // when the relay last looked after itself, an instant
	stalled instant       // when the oldest overdue call began; 0: none is. Belongs to watch

	mu        sync.Mutex
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
	lineages  map[netip.AddrPort]*lineage // of the earlier life, until this one serves
	stopping  bool
	resumed   bool
	serving   bool
	wg        sync.WaitGroup // readers, writers, and watch
}

// New makes a Server. It does nothing before Resume or Serve.
func New(c Config) (*Server, error) {
	if c.Group == nil {
		return nil, errors.New("relay: no group to relay to")
	}
	if c.Log == nil {
		c.Log = slog.Default()
	}
	c.Limits = c.Limits.withDefaults()
	s := &Server{
		config: c, group: c.Group, log: c.Log, table: newTable(c.Limits), freed: make(chan struct{}, 1),
		conns: make(map[*conn]struct{}), listeners: make(map[net.Listener]struct{}),
		lineages: make(map[netip.AddrPort]*lineage), advised: make(map[string]instant), stop: make(chan struct{}),
	}
	if c.Journal != nil {
		s.table.forgotten = c.Journal.forget
	}
	return s, nil
}

// Resume sends the operations that an earlier life of this relay had under way again,
// unchanged, and loads its recent answers, so that kernels that ask again get them
// (R-OUR-15). Serve calls it if the caller has not. It does not wait for the group.
func (s *Server) Resume() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.resumed {
		return nil
	}
	s.resumed = true
	if s.config.Journal == nil {
		return nil
	}
	if n := s.config.Journal.Torn(); n > 0 {
		s.log.Warn("the machine went down while the relay wrote its journal; torn records dropped", "records", n)
	}
	for _, a := range s.config.Journal.answered(s.config.Limits.Reconnect) {
		a.from = s.earlier(a.key.peer)
		s.table.remember(a)
	}
	calls := s.config.Journal.underway()
	for _, k := range calls {
		if err := s.resume(k); err != nil {
			return err
		}
	}
	if len(calls) > 0 {
		s.log.Info("calls of the relay's earlier life sent again", "calls", len(calls))
	}
	return nil
}

func (s *Server) resume(k *call) error {
	c, err := nfs3.ParseCall(k.body)
	if err != nil || c.Program != nfs3.ProgramNFS || c.Procedure >= uint32(len(nfsNames)) {
		return s.config.Journal.unusable("slot %d holds no NFS operation", k.slot)
	}
	k.server, k.program, k.procedure, k.began = s, c.Program, c.Procedure, s.table.now()
	k.from, k.left = s.earlier(k.key.peer), true
	s.table.adopt(k)
	s.counters.resumed.Add(1)
	if err := s.group.Resume(k.slot, k.t, pbft.Call{Body: k.body, Sending: k.sending, Done: k.done}); err != nil {
		return fmt.Errorf("relay: resume slot %d: %w", k.slot, err)
	}
	return nil
}

// earlier returns the connection from peer to the relay's earlier life. It counts as
// ended when this life begins to serve, because no client could come back before.
func (s *Server) earlier(peer netip.AddrPort) *lineage {
	l := s.lineages[peer]
	if l == nil {
		l = &lineage{peer: peer}
		s.lineages[peer] = l
	}
	return l
}

// begin starts the goroutine that runs while the relay serves. From now on clients of the
// earlier life can come back.
func (s *Server) begin() {
	if s.serving {
		return
	}
	s.serving = true
	at := s.table.now()
	if s.config.Journal != nil {
		s.config.Journal.serves(at)
	}
	for _, l := range s.lineages {
		l.end(at)
	}
	clear(s.lineages)
	s.lookAfter(at)
	s.wg.Add(1)
	go s.watch()
}

// Serve accepts connections at l, which must be TCP, until Shutdown, and closes it. It
// may run for several listeners.
func (s *Server) Serve(l net.Listener) error {
	defer l.Close()
	if err := s.Resume(); err != nil {
		return err
	}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return errStopping
	}
	s.listeners[l] = struct{}{}
	s.begin()
	s.mu.Unlock()
	for {
		nc, err := l.Accept()
		if err == nil {
			s.welcome(nc)
			continue
		}
		s.mu.Lock()
		stopping := s.stopping
		s.mu.Unlock()
		switch {
		case stopping:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("relay: accept: %w", err)
		}
		// Most likely out of descriptors: pause, then go on.
		s.advise("accept", "cannot accept a connection", "err", err)
		time.Sleep(10 * time.Millisecond)
	}
}

// welcome accepts or refuses a new connection and starts its goroutines.
func (s *Server) welcome(nc net.Conn) {
	tcp, ok := nc.(*net.TCPConn)
	if !ok {
		nc.Close()
		return
	}
	peer := tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
	if peer.Port() >= privileged && !s.config.InsecurePorts {
		nc.Close()
		s.counters.refusedPort.Add(1)
		s.advise("port", "connection from an unprivileged port refused: any process could claim to be any user; "+
			"mount as root, or set insecure_ports = true to allow it", "peer", peer)
		return
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		nc.Close()
		return
	}
	rawio.Unpaced(raw)
	c := newConn(s, tcp, raw, netip.AddrPortFrom(peer.Addr().Unmap().WithZone(""), peer.Port()))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping || len(s.conns) >= s.config.Limits.Conns && !s.evictLocked() {
		nc.Close()
		s.counters.refusedFull.Add(1)
		if !s.stopping {
			s.advise("full", "connection refused: too many are open", "peer", peer, "limit", s.config.Limits.Conns)
		}
		return
	}
	s.conns[c] = struct{}{}
	s.counters.accepted.Add(1)
	s.wg.Add(2)
	go c.write()
	go c.read()
}

// evictLocked closes the connection that has been idle longest, if that is at least Limits.Idle.
// Its kernel connects again when it needs to. It returns false if there is no such connection.
func (s *Server) evictLocked() bool {
	var idlest *conn
	s.table.mu.Lock()
	for c := range s.conns {
		if c.flying == 0 && c.unsent.Load() == 0 && (idlest == nil || c.used.Load() < idlest.used.Load()) {
			idlest = c
		}
	}
	s.table.mu.Unlock()
	if idlest == nil || time.Now().UnixNano()-idlest.used.Load() < int64(s.config.Limits.Idle) {
		return false
	}
	idlest.close()
	delete(s.conns, idlest)
	s.counters.evicted.Add(1)
	return true
}

// Shutdown stops accepting and reading, lets the calls in flight be answered while ctx
// lasts, closes the connections and syncs the journal. The next life resumes the calls
// that are left under way. Close the group's client after it, and the journal after that.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	if !s.stopping {
		close(s.stop)
	}
	s.stopping = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.drain()
	}
	s.mu.Unlock()

	uncut := context.AfterFunc(ctx, s.cut)
	s.wg.Wait()
	s.table.awaitIdle(func() bool { return ctx.Err() != nil })
	uncut()

	var err error
	if n := s.table.inFlight(); n > 0 {
		err = fmt.Errorf("relay: stopped with %d calls unanswered: %w", n, context.Cause(ctx))
	}
	if s.config.Journal != nil {
		err = errors.Join(err, s.config.Journal.Sync())
	}
	return err
}

// cut closes every connection, answered or not.
func (s *Server) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.close()
	}
	s.table.mu.Lock()
	s.table.room.Broadcast()
	s.table.mu.Unlock()
}

// hostName returns the name of a peer in the list of mounts.
func hostName(peer netip.AddrPort) string { return peer.Addr().String() }
