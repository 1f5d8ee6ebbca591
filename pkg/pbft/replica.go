// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/lies"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// A Replica is one member of a group: the event loop around the core.
//
// There is no loop goroutine. Whoever has an event performs it to its end: the goroutine that reads a connection
// decodes and checks MACs, then takes the lock, steps the core, performs its effects in order, releases the lock and
// flushes what was queued. The goroutines are
//
//	the transport's   one reader and at times one writer for each connection, one dialler for each link
//	tick              every tickPeriod, less often when idle: retransmission
//	watchKeeper       asks the keeper how it is, if there is one
//	renewKeys         refreshes the session keys every KeyPeriod, and sends the NEW-KEYs
//	signRecovery's    has a recovery request signed, for as long as that takes
//	the State's       calls back when the root of a checkpoint is known
//	the fence's       writes it, while there is still room below it
//	flush             syncs the journal, in disk mode
//	follow            takes the image along and keeps room in reserve, in disk mode
type Replica struct {
	*endpoint
	cfg      ReplicaConfig
	listener *transport.Listener
	gate     *gate
	peers    []*peerEnd // by replica; nil for ourselves

	clientsMu sync.RWMutex
	clients   map[ClientID]*clientEnd // enrolled ones that have connected: at most Limits.Clients

	mu          sync.Mutex                        // all below, the core, the service and the sending ends
	core        *core.Core                        // nil if unreplicated
	strangers   map[*transport.Conn]*auth.Session // clients' connections that are not answered on; no more than there are connections
	seq         SeqNum                            // last operation, if unreplicated
	exec        *executor.Executor
	mute        bool // this replica is silent: no client is answered
	scratch     auth.Scratch
	buffer      []byte
	trailer     []byte
	fullReplies bool // send every result in full
	outboxes    outboxes
	dirty       flushes
	sparing     sparing
	clock       *time.Timer // the next tick
	ticked      time.Time   // up to when the core has its ticks
	slow        bool        // it has nothing to do, and ticks come late
	executed    uint64
	queries     uint64
	stateBytes  int64        // of pages in use at the last checkpoint
	answered    int          // bytes of results since the lock was taken
	resting     atomic.Int32 // connections whose clients rest
	started     time.Time
	stopping    bool
	session     Install // while the state is being fetched
	fetching    atomic.Bool
	kept        []keptFetch // in order: at most keptFetches of each replica
	loan        loan        // of a checkpoint, to a backup
	measured    measured
	events      events
	fence       *fence.Fence
	keeper      *keeper // nil unless in disk mode
	recovery    recovering
	answers     keeperAnswers
	recovered   []time.Time // by replica: when a recovery request of it was executed here last; zero: not since start
	lock        *os.File    // on the directory
	liar        lies.Teller // changes what is said, in a demonstration; nil: nobody does

	strange  atomic.Int64  // when a stranger's transport was last told of, Unix nanoseconds
	turned   atomic.Int64  // when the tick last came round, Unix nanoseconds
	stop     chan struct{} // closed to stop the tick
	done     chan struct{} // closed when all has stopped
	err      error         // why, before done is closed
	stopOnce sync.Once
}

// tickPeriod is the length of the core's tick.
const tickPeriod = 10 * time.Millisecond

// A peerEnd is our way to another replica.
type peerEnd struct {
	session *auth.Session
	link    *transport.Link
	opened  atomic.Pointer[transport.Conn] // the link's last, from before our NEW-KEY for it is made
	inbound *transport.Conn                // its last connection to us; nil if that is down
	life    uint64                         // which of its processes has our messages, see auth.Session.Lives
	lost    time.Time                      // when the last was; zero: never
	told    time.Time                      // when its transport was last told of: see mismatch

	signatures budget // of the administrator's requests that it brings
}

// signaturesPerSecond bounds the signatures that one replica can have us check: each costs as much as a hundred MACs, and
// a batch has room for hundreds. What is above is not authentic for now, and comes again. (A variable for tests on slow machines.)
var signaturesPerSecond = 1000

// A budget is for what a peer may cause so often in a second.
type budget struct {
	mu    sync.Mutex
	since time.Time
	count int
}

// spend reports whether there is something left.
func (b *budget) spend(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.Sub(b.since) > time.Second {
		b.since, b.count = now, 0
	}
	b.count++
	return b.count <= signaturesPerSecond
}

// A clientEnd is our way to a client: the connection its last NEW-KEY came on.
type clientEnd struct {
	session *auth.Session
	mu      sync.Mutex
	conn    *transport.Conn
	reader  reader
}

// client is the end of an enrolled client that has connected, nil if there is none.
func (r *Replica) client(id ClientID) *clientEnd {
	r.clientsMu.RLock()
	defer r.clientsMu.RUnlock()
	return r.clients[id]
}

func (c *clientEnd) connection() *transport.Conn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.conn
}

// StartReplica starts a replica; it runs until Close, or until it stops itself because of its own disk or its own
// bug (see Done).
func StartReplica(cfg ReplicaConfig) (*Replica, error) {
	cfg.Recover = cfg.Recover || MustRecover(cfg.Directory)
	r, err := newReplica(cfg)
	if err != nil {
		return nil, err
	}
	l := r.group.Limits
	window := SeqNum(cfg.Window)
	if window <= 0 {
		window = DefaultWindow
	}
	batch := l.BatchCount
	if !cfg.has(Batching) {
		batch = 1
	}
	c := core.Config{
		Self: cfg.Self, Replicas: r.group.N(),
		CheckpointPeriod: l.CheckpointPeriod, CheckpointBytes: l.CheckpointBytes, LogSize: l.LogSize, Window: window,
		Tentative: cfg.has(Tentative), Piggyback: cfg.has(Piggyback), Separate: cfg.has(Separate),
		BatchBytes: l.BatchBytes, BatchCount: batch, BatchCost: l.BatchCost, Cost: r.exec.Cost, LogBytes: l.LogBytes,
		Clients: l.Clients + 1 + r.group.N(), Slots: l.Slots, QueueBytes: clientQueueBytes,
		StatusTicks: 15, ResendTicks: 5, ForwardTicks: 3, TimeoutTicks: 40,
	}
	if cfg.Recover {
		if c.Recovery, err = r.beginRecovery(); err != nil {
			return nil, errors.Join(err, r.lock.Close())
		}
	}
	if r.group.Durability == DurabilityDisk {
		if err := r.recall(c); err != nil {
			return nil, errors.Join(err, r.lock.Close())
		}
	} else {
		c.Fence, c.FenceView = r.fence.Last(), r.fence.View()
		r.core = core.New(c)
	}
	if n := r.core.SilentUntil(); n > 0 {
		r.mute = true
		r.log.Warn("this replica voted before, and has no durable state: it only listens until a checkpoint is stable at or above"+
			" all it can have voted for. If more than f replicas say this the group has lost its state: begin a new epoch from a backup (bfsd restore)", "checkpoint", n)
	}
	return r, r.start()
}

// clientQueueBytes bounds the operations of one client that wait at a replica.
const clientQueueBytes = 64 << 20

func newReplica(cfg ReplicaConfig) (*Replica, error) {
	g := cfg.Group
	switch {
	case g == nil || cfg.Service == nil:
		return nil, errors.New("a replica needs a group and a service")
	case int(cfg.Self) >= g.N():
		return nil, fmt.Errorf("replica %d: the group has replicas 0 to %d", cfg.Self, g.N()-1)
	case cfg.Keeper == "" && !g.Members[cfg.Self].Key.Equal(cfg.Key.Public()):
		return nil, fmt.Errorf("replica %d: this private key is not the one whose public half the group file names", cfg.Self)
	}
	lock, err := lockDirectory(cfg.Directory)
	if err != nil {
		return nil, err
	}
	r, err := assemble(cfg)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	r.lock = lock
	return r, nil
}

// assemble reads what an earlier life left in the directory and makes the parts of a replica.
func assemble(cfg ReplicaConfig) (*Replica, error) {
	g := cfg.Group
	signer, err := cfg.signer()
	if err != nil {
		return nil, err
	}
	promises, err := fence.Open(cfg.path(fenceFile), g.Digest())
	if err != nil {
		return nil, err
	}
	r := &Replica{
		cfg: cfg, fence: promises, clients: map[ClientID]*clientEnd{}, strangers: map[*transport.Conn]*auth.Session{},
		peers: make([]*peerEnd, g.N()), recovered: make([]time.Time, g.N()), started: time.Now(), stop: make(chan struct{}), done: make(chan struct{}),
		fullReplies: !cfg.has(DigestReplies), sparing: sparing{off: !cfg.has(Sparing)},
	}
	r.recovery.signer, r.liar = signer, lies.Installed()
	if r.endpoint, err = newEndpoint(g, message.Principal{Replica: cfg.Self}, signer, cfg.Transport, cfg.Delay, cfg.Logger); err != nil {
		return nil, err
	}
	if r.exec, err = newExecutor(g, cfg.Service); err != nil {
		return nil, err
	}
	r.gate = newGate(g, cfg.Self, r.ring)
	r.gate.follow(r.exec.Ledger())
	return r, nil
}

func newExecutor(g *Group, s Service) (*executor.Executor, error) {
	l := g.Limits
	return executor.New(s, s.State(), l.Clients, l.Slots, executor.Limits{Reply: l.Reply, Rights: l.Rights})
}

func (r *Replica) start() error {
	address := r.cfg.Listen
	if address == "" {
		address = r.group.Members[r.cfg.Self].Address
	}
	for i := range r.peers {
		if i != int(r.cfg.Self) {
			r.peers[i] = &peerEnd{session: auth.NewSession(message.Principal{Replica: ReplicaID(i)}, r.group.Members[i].Key)}
		}
	}
	r.mu.Lock()
	r.clock, r.ticked = time.NewTimer(tickPeriod), time.Now()
	r.turned.Store(r.ticked.UnixNano())
	// The links come first: who connects to us is answered on them.
	for i, p := range r.peers {
		if p != nil {
			p.link = transport.Dial(r.group.Members[i].Address, r.answering(p.session), &outbound{r, p})
		}
	}
	if r.core != nil {
		r.begin()
		r.ticked = time.Now()
	}
	r.mu.Unlock()
	options := r.options
	options.Admit, options.Named, options.Flooded = (*inbound)(r).admit, r.group.hosts(), r.flooded
	listener, err := transport.Listen(address, options, (*inbound)(r))
	if err != nil {
		return r.abandon(err)
	}
	r.listener = listener
	r.gate.listener.Store(listener)
	go r.tick()
	go r.renewKeys()
	if r.cfg.Keeper != "" {
		r.answers.asking.Go(r.watchKeeper)
	}
	return nil
}

// abandon ends a start that failed.
func (r *Replica) abandon(err error) error {
	r.stopOnce.Do(func() { close(r.stop) })
	_ = closeSigner(r.recovery.signer)
	r.closeLinks()
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	r.recovery.signing.Wait()
	err = errors.Join(err, r.fence.Settle())
	if r.keeper != nil {
		err = errors.Join(err, r.keeper.close())
	}
	err = errors.Join(err, r.lock.Close())
	close(r.done)
	return err
}

func (r *Replica) closeLinks() {
	for _, p := range r.peers {
		if p != nil {
			p.link.Close()
		}
	}
}

func (r *Replica) tick() {
	for {
		select {
		case <-r.stop:
			r.clock.Stop()
			r.shutdown()
			return
		case <-r.clock.C:
			r.turned.Store(time.Now().UnixNano())
			if r.core != nil {
				r.oneTick()
				r.serveKept()
			}
			r.mu.Lock()
			if r.slow || r.core == nil {
				r.clock.Reset(idlePeriod)
			} else {
				r.clock.Reset(tickPeriod)
			}
			r.mu.Unlock()
		}
	}
}

// oneTick is a tick of the core.
func (r *Replica) oneTick() {
	r.enter()
	defer r.leave()
	if r.aside() {
		return
	}
	if !r.slow {
		r.ticked = time.Now()
		r.core.Tick()
	}
	r.pace()
	r.perform()
	r.endSparing()
	r.slow = r.core.Idle()
}

// idlePeriod is how often a replica wakes that has nothing to do. Waking costs a processor more than a tick's work: five idle
// processes that each did so a hundred times a second took a twelfth of one.
const idlePeriod = 15 * tickPeriod

// catchUp has an idle core know of the ticks that have passed. The caller holds the lock.
func (r *Replica) catchUp() {
	now := time.Now()
	n := now.Sub(r.ticked) / tickPeriod
	r.ticked = r.ticked.Add(n * tickPeriod)
	for range min(n, idlePeriod/tickPeriod) { // if it were more we have stood still, and nobody made us wait
		r.core.Tick()
	}
}

// askKeyPeriod is how often a session key that is still missing is asked for.
const askKeyPeriod = time.Second

// askForKeys sends a NEW-KEY to the replicas that we have no session key of: theirs was lost, or came when there was no
// way to answer it.
func (r *Replica) askForKeys() {
	for _, p := range r.peers {
		if p == nil || p.session.Ready() {
			continue
		}
		if conn := p.link.Conn(); conn != nil {
			r.sendKey(conn, p.session, "")
		}
	}
}

// enter takes the lock for one event. The core's time is right then.
func (r *Replica) enter() {
	r.mu.Lock()
	r.answered = 0
	if r.slow && !r.aside() {
		r.catchUp()
	}
}

// leave performs what the event brought about, releases the lock and sends.
func (r *Replica) leave() {
	if r.core != nil {
		r.perform()
		r.noteView()
		r.noteRecovery()
		if r.slow && (r.sparing.queued || !r.core.Idle()) {
			r.slow = false
			r.clock.Reset(tickPeriod)
		}
	}
	r.sealReplies()
	if r.keeper != nil {
		r.keeper.poke()
	}
	var space [flushSpace]flusher
	list := r.dirty.take(space[:0])
	r.mu.Unlock()
	for _, x := range list {
		x.Flush()
	}
}

// perform does what the core says, top to bottom, until nothing is left to do.
func (r *Replica) perform() { r.performAll(r.core.Effects) }

func (r *Replica) performAll(next func() []core.Effect) {
	for {
		effects := next()
		if len(effects) == 0 {
			return
		}
		for i := range effects {
			if r.err != nil {
				return // what stands below may rely on what has failed: a vote on its fence
			}
			r.effect(&effects[i])
		}
	}
}

func (r *Replica) effect(e *core.Effect) {
	switch e.Verb {
	case core.Send:
		if !r.holds(said{message: e.Message, to: e.To}) {
			r.sendTo(e.To, e.Message)
		}
	case core.Multicast:
		if !r.holds(said{message: e.Message, all: true}) {
			r.measured.multicast(e.Message)
			r.multicast(e.Message)
		}
	case core.Note:
		r.keeper.store.Note(e.Records...)
	case core.Persist:
		r.keeper.store.Persist(e.Records...)
	case core.Choose:
		r.core.Chosen(e.Seq, r.choose(e.Seq))
	case core.Accept:
		p := e.Proposal
		r.core.Accepted(p, r.cfg.Service.Accept(p.Seq, p.Batch.Choice))
	case core.Execute:
		r.execute(e)
		r.measured.execute()
		view, _ := r.core.View()
		r.fence.Foresee(view, e.Seq, r.group.Limits.CheckpointPeriod)
	case core.Confirm: // the replies are out; a journal would note it
	case core.Rollback:
		r.rollback(e.Seq)
	case core.Repeat:
		r.exec.Begin(e.Seq)
		for _, q := range e.Batch.Requests {
			r.exec.Execute(q, e.Batch.Choice)
		}
	case core.Query:
		r.queries++
		a := r.exec.Query(e.Request)
		r.answer(e.Request, a, r.core.Ground(a.Version))
	case core.Freeze:
		r.freeze(e.Seq)
	case core.Discard:
		if r.keeper != nil {
			r.followStable(e.Seq)
			break
		}
		r.cfg.Service.State().Discard(r.lent(e.Seq))
	case core.Fence:
		if err := r.fence.Raise(e.View, e.Seq); err != nil {
			r.fail(err)
		}
	case core.Speak:
		r.speak()
	case core.Fetch:
		r.fetch(e.Seq, e.Digest)
	case core.Serve:
		r.serve(e.To, e.Message.(*message.Fetch))
	case core.Install:
		r.install(e.Seq, e.Digest)
	case core.Stop:
		r.stray(e.Reason)
	default:
		r.recoveryEffect(e)
	}
}

// speak ends a silence.
func (r *Replica) speak() {
	r.mute = false
	if k := r.keeper; k != nil && !k.trusted {
		k.trusted = true
		_, err := k.store.Flush() // what the journal begins with is to be there before it is trusted
		if err == nil {
			err = r.fence.Trust(k.position)
		}
		if err != nil {
			r.failDisk(err)
		}
	}
	r.log.Info("this replica votes again", "checkpoint", r.core.Stable().Seq)
}

func (r *Replica) choose(n SeqNum) []byte {
	choice := r.cfg.Service.Choose(n)
	return choice[:min(len(choice), MaxChoice)]
}

func (r *Replica) execute(e *core.Effect) {
	var to recipient
	b := e.Batch
	r.exec.Begin(e.Seq)
	for i, q := range b.Requests {
		if !e.Mute && (i == 0 || q.Client != b.Requests[i-1].Client) {
			to = r.recipient(q.Client)
		}
		r.executed++
		a, ran := r.exec.Execute(q, b.Choice)
		if r.answerTo(to, q, a, e.Standing); !ran {
			r.core.Repeated(e.Seq, i)
		}
		if q.Client == Administrator {
			r.forgetRevoked()
			r.admitStrangers()
		}
	}
	if r.keeper == nil || !r.keeper.resuming {
		r.tellRecoveries()
	}
}

// rollback makes the state that of checkpoint n again.
func (r *Replica) rollback(n SeqNum) {
	if err := r.cfg.Service.State().Rollback(n); err != nil {
		r.fail(fmt.Errorf("roll back to checkpoint %d: %w", n, err))
		return
	}
	r.exec.Replaced(n)
	r.gate.follow(r.exec.Ledger())
	r.measured.rollbacks++
	r.log.Info("a batch was executed that did not commit: rolled back", "checkpoint", n, "executed", r.core.LastExecuted())
}

// ground is that of an answer which certainly holds.
func (r *Replica) ground() (st core.Standing) {
	if r.core != nil {
		st.View, _ = r.core.View()
	}
	return st
}

// freeze takes a checkpoint. Its root is computed elsewhere and comes back as an event.
func (r *Replica) freeze(n SeqNum) {
	if s, ok := r.cfg.Service.State().(Sized); ok {
		r.core.StateSize(s.Pages())
		r.stateBytes = int64(s.Pages()) * PageSize
	}
	if r.keeper != nil && r.keeper.resuming {
		r.core.Frozen(n, r.frozen(n))
		return
	}
	r.exec.Frozen(n)
	r.cfg.Service.State().Freeze(n, func(root Digest) {
		r.enter()
		if !r.stopping {
			r.core.Frozen(n, root)
		}
		r.leave()
		r.serveKept()
	})
}

// sendTo seals a message for one replica. A request goes as it is: its client's authenticator is in it.
func (r *Replica) sendTo(i ReplicaID, m message.Message) {
	p := r.peers[i]
	if r.liar != nil {
		m = r.liar.Message(m)
	}
	r.buffer = m.AppendBody(append(r.buffer[:0], byte(m.Type())))
	if _, isRequest := m.(*message.Request); isRequest {
		if c := p.link.Conn(); c != nil && c.Queued() > passedBytes {
			r.edge.dropped.Add(1) // clients may not fill the way that our votes take
			return
		}
		r.queueFor(p, false, nil, r.buffer)
		return
	}
	r.seal(p, m, false, nil)
}

// passedBytes may wait for a peer already when a client's request is passed on to it.
const passedBytes = 1 << 20

// seal sends m, which r.buffer holds encoded, or what is shared if that is not nil, with p's MAC behind it. If the peer is spared
// it may wait.
func (r *Replica) seal(p *peerEnd, m message.Message, spared bool, shared *transport.Shared) {
	encoded := r.buffer
	if shared != nil {
		encoded = shared.Bytes()
	}
	switch r.trailer = r.ring.SealBody(p.session, &r.scratch, r.trailer[:0], m, encoded); {
	case r.trailer == nil:
	case shared != nil:
		r.queueFor(p, spared, shared, r.trailer)
	default:
		r.queueFor(p, spared, nil, r.buffer, r.trailer)
	}
}

func (r *Replica) queueFor(p *peerEnd, spared bool, shared *transport.Shared, parts ...[]byte) {
	c := p.link.Conn()
	if c == nil || !r.vouched(c, p.session) {
		return // STATUS brings it back when the link is up
	}
	if !c.SendShared(shared, parts...) {
		r.edge.dropped.Add(1)
	}
	if !spared || c.Queued() > spareBytes {
		r.dirty.add(c)
	} else {
		r.sparing.queued = true
	}
}

// multicast encodes once and seals for each. What is long all connections send from one place.
func (r *Replica) multicast(m message.Message) {
	if r.liar != nil {
		m = r.liar.Message(m)
	}
	r.buffer = m.AppendBody(append(r.buffer[:0], byte(m.Type())))
	var shared *transport.Shared
	if len(r.buffer) >= transport.ShareFrom {
		shared, r.buffer = transport.Share(r.buffer)
		defer shared.Release()
	}
	for i, p := range r.peers {
		if p != nil {
			r.seal(p, m, r.spares(ReplicaID(i), m), shared)
		}
	}
}

// request takes in a client's authentic request. What the slot has executed already is answered here and
// does not reach the core.
func (r *Replica) request(conn *transport.Conn, s *auth.Session, q *message.Request) {
	if r.keeper != nil && r.keeper.installing {
		return // an answer from the fetched state is to be kept
	}
	if q.ReadOnly {
		if _, ok := r.exec.Ledger().Client(q.Client); !ok {
			if a := (executor.Answer{Outcome: message.NotEnrolled}); !r.mute && !r.forgets(a) {
				r.answerOn(conn, s, q, a, r.ground())
			}
			return
		}
		if conn.Queued()+r.group.Limits.Reply > queueBytes {
			r.edge.dropped.Add(1) // it takes no answers, or not this one: why make it?
			return
		}
	} else if i, recovers := q.Client.Recoverer(); recovers && r.answerRecovery(i, q) {
		return
	} else if a, seen := r.seen(q); seen && (r.forgets(a) || r.repeat(conn, s, q, a)) {
		return
	}
	if r.core == nil {
		r.serveAlone(q)
		return
	}
	r.core.Step(q)
}

// seen is what the state says of a request, when it is where the core is. The core may have come further with other messages of
// the same event: it may know that what the state has executed tentatively is to be taken back, and would take the answer for one
// that has committed.
func (r *Replica) seen(q *message.Request) (a executor.Answer, seen bool) {
	if a, seen = r.exec.Seen(q); seen && r.core != nil {
		r.performAll(r.core.Due)
		a, seen = r.exec.Seen(q)
	}
	return a, seen
}

// forgets reports whether an answer may be wrong because the state is being fetched. Until then the pages may be those of the latest
// checkpoint again, and not know of an enrolment that we have answered since.
func (r *Replica) forgets(a executor.Answer) bool {
	return a.Outcome == message.NotEnrolled && r.core != nil && r.core.Forgets()
}

// repeat answers a request that the slot's last execution has overtaken. False if that execution may yet be taken back: the
// request waits for the commit then, and counts as waiting.
func (r *Replica) repeat(conn *transport.Conn, s *auth.Session, q *message.Request, a executor.Answer) (over bool) {
	if !q.Authentic || r.mute || r.err != nil { // after an error the state stays behind the core
		return true
	}
	st, certain := r.ground(), true
	if r.core != nil {
		st, certain = r.core.Standing(q)
	}
	switch {
	case !certain:
	case conn != nil:
		r.answerOn(conn, s, q, a, st)
	default:
		r.answer(q, a, st)
	}
	return certain && !st.Tentative
}

// fail stops the replica for a reason of its own. The caller holds the lock.
func (r *Replica) fail(err error) {
	if r.err == nil {
		r.err = err
		r.log.Error("this replica stops", "reason", err)
	}
	r.stopping = true
	r.stopOnce.Do(func() { close(r.stop) })
}

// Done is closed when the replica has stopped; Err then says why, nil after Close.
func (r *Replica) Done() <-chan struct{} { return r.done }

// Err is the reason of a stop.
func (r *Replica) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Close stops the replica and waits for it, until ctx is done.
func (r *Replica) Close(ctx context.Context) error {
	r.mu.Lock()
	r.stopping = true
	r.mu.Unlock()
	r.stopOnce.Do(func() { close(r.stop) })
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Replica) shutdown() {
	_ = closeSigner(r.recovery.signer) // first, because goroutines that are to end may wait for it
	r.listener.Close()
	r.closeLinks()
	r.recovery.signing.Wait()
	r.mu.Lock()
	if err := r.fence.Settle(); err != nil && r.err == nil {
		r.err = err
	}
	r.mu.Unlock()
	if r.keeper != nil {
		if err := r.keeper.close(); err != nil && r.err == nil {
			r.err = err
		}
	}
	r.lock.Close()
	<-r.renewal.over
	r.answers.asking.Wait()
	close(r.done)
}

// Status returns the replica's account of itself.
func (r *Replica) Status() Status {
	s := r.status()
	if s.Disk != nil { // what the file system says is not waited for under the lock
		s.Disk.Free, s.Disk.Size, _ = disk.Room(r.keeper.directory)
	}
	return s
}

func (r *Replica) status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := Status{
		Replica: r.cfg.Self, Active: true, Durability: r.group.Durability, StateBytes: r.stateBytes, LastExecuted: r.seq,
		KeyAge: Seconds(r.renewal.age(r.started)), Refreshes: r.renewal.count.Load(),
		Uptime: Seconds(time.Since(r.started)), Keeper: r.seenKeeper(),
		Executed: r.executed, Queries: r.queries, Refusals: append(r.edge.list(), r.gate.refused.list()...),
	}
	if l := r.gate.listener.Load(); l != nil {
		s.Floods = l.Floods()
		s.Refusals = append(s.Refusals, Refusals{"connections too many", l.Stats().Refused})
	}
	r.clientsMu.RLock()
	for _, c := range r.clients {
		if c.connection() != nil {
			s.Clients++
		}
	}
	r.clientsMu.RUnlock()
	if r.core == nil {
		return s
	}
	s.View, s.Active = r.core.View()
	s.Primary = s.View.Primary(r.group.N())
	s.SilentUntil, s.Fetching, s.Recovery = r.core.SilentUntil(), r.core.Transferring(), r.recoveryStatus()
	s.LastExecuted, s.LogBytes = r.core.LastExecuted(), r.core.LogBytes()
	r.core.OverShare(func(client ClientID) { s.OverShare = append(s.OverShare, client) })
	stable := r.core.Stable()
	s.Stable, s.Root = stable.Seq, hex.EncodeToString(stable.Digest[:])
	s.ViewChanges, s.ViewChange, s.Fetched = r.measured.changes, Seconds(r.measured.stall), r.measured.fetched
	s.Rollbacks, s.Disk = r.measured.rollbacks, r.diskStatus()
	for i, p := range r.peers {
		if p != nil {
			low, last := r.core.Peer(ReplicaID(i))
			_, over := r.core.RecoveryOf(ReplicaID(i))
			wrong := r.core.Dispute(ReplicaID(i))
			s.Peers = append(s.Peers, PeerStatus{Replica: ReplicaID(i), Connected: p.link.Up() && p.inbound != nil,
				Keys: p.session.Ready(), LastExecuted: last, Stable: low, Recovering: !over,
				WrongVotes: wrong.Votes, WrongRoots: wrong.Roots, False: wrong.False, Recovered: r.recoveredAgo(ReplicaID(i))})
		}
	}
	for _, why := range core.Refusals() {
		s.Refusals = append(s.Refusals, Refusals{why.String(), r.core.Refused(why)})
	}
	return s
}

// authenticates checks the proof of origin of a request that who has brought: the administrator's signature, or our entry
// of the client's authenticator (R-REQ-6). c is that client's end, nil if there is none.
func (r *Replica) authenticates(q *message.Request, c *clientEnd, who *remote) bool {
	if q.Client == Administrator {
		if peer := who.session.Peer; peer.IsReplica() && !r.peers[peer.Replica].signatures.spend(time.Now()) {
			return false
		}
		d := message.AdministratorDigest(r.group.Digest(), q)
		return ed25519.Verify(r.group.Administrator, d[:], q.Signature)
	}
	if _, recovers := q.Client.Recoverer(); recovers {
		return r.signedRecovery(q, who)
	}
	return c != nil && c.session.OpenRequest(&who.scratch, r.cfg.Self, q)
}
