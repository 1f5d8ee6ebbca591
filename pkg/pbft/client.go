package pbft

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/client"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
)

// Errors of a Client that callers branch on.
var (
	// ErrBusy: all slots are taken and the queue behind them is full.
	ErrBusy = errors.New("too many calls outstanding")
	// ErrClosed: the client was closed before the group answered.
	ErrClosed = errors.New("client closed")
	// ErrNotEnrolled: 2f+1 replicas say that this client's key is not enrolled, or was revoked.
	ErrNotEnrolled = client.ErrNotEnrolled
	// ErrResultLost: the operation was executed, but its result is no longer kept; or it may have been executed, for its slot has
	// gone on to a request that this client did not make (see also ErrKeyInUse).
	ErrResultLost = client.ErrResultLost
)

// A Call is one operation for Client.Start.
type Call struct {
	Body     []byte // the operation; the client keeps it until Done, the caller must not change it
	ReadOnly bool   // a hint: try the one-round-trip path first [TOCS §6.1]

	// Sending, if not nil, is told the slot and the timestamp before the operation first leaves, for callers
	// who must be able to send the very same request after a restart (see Resume). Its error fails
	// the call. It is not called for the read-only path.
	Sending func(slot Slot, t Timestamp) error

	// Done is called exactly once, on a goroutine of the client's: it must not block. It owns reply.
	Done func(reply []byte, err error)
}

// Invoke runs one operation and waits for the reply that enough replicas agree on. When ctx ends first the
// operation itself goes on: it may still be executed.
func (c *Client) Invoke(ctx context.Context, body []byte, readOnly bool) ([]byte, error) {
	return wait(ctx, func(done func([]byte, error)) error {
		return c.Start(Call{Body: body, ReadOnly: readOnly, Done: done})
	})
}

// wait turns a call that ends in a callback into one that returns.
func wait(ctx context.Context, start func(done func([]byte, error)) error) ([]byte, error) {
	type result struct {
		reply []byte
		err   error
	}
	done := make(chan result, 1)
	if err := start(func(reply []byte, err error) { done <- result{reply, err} }); err != nil {
		return nil, err
	}
	select {
	case r := <-done:
		return r.reply, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A Client speaks to a group for one key pair. Its slots let many operations be outstanding at once; further ones
// wait in a bounded queue, first come first served. All methods may be called from any goroutine.
//
// What is sent to whom and when, and which replies are believed, package internal/client decides (rule). A Client gives it the
// time, the connections and the keys: it performs the rule's effects under one lock, and gives the lock up before it writes to
// sockets and calls Done.
//
// Nothing is passed between goroutines on the way of an operation: Start sends on its caller's, and the
// goroutine that reads the deciding reply calls Done.
type Client struct {
	*endpoint
	id       ClientID
	key      ed25519.PrivateKey
	peers    []*replicaEnd
	sessions []*auth.Session // of peers
	epoch    time.Time       // when the rule's time was 0

	mu         sync.Mutex
	rule       *client.Client
	calls      []clientCall // by slot
	waiting    []queuedCall // for a slot, or for long ones under way; first in first out
	queueLimit int
	clock      *time.Timer // the next look at what is due
	idle       bool        // nothing can be due, and the clock ticks slowly
	scratch    auth.Scratch
	buffer     []byte
	writes     clientWrites
	stable     stableQuestion
	closed     bool
	ready      chan struct{} // closed and made anew when a session becomes ready

	waited func(Slot, Timestamp) bool // waits, bound once
	stop   chan struct{}
	done   chan struct{}
}

// A replicaEnd is our way to one replica.
type replicaEnd struct {
	session *auth.Session
	link    *transport.Link
}

// A clientCall is the call that a slot serves.
type clientCall struct {
	Call
	due atomic.Uint64 // the timestamp of its present request; 0 if no replies are waited for
}

// A queuedCall waits for a slot.
type queuedCall struct {
	Call
	digest message.Digest // OperationDigest of Body
}

// clientWrites are the connections on which frames wait to be written, and the goroutines that will write them when they have
// counted the replies that they have read.
type clientWrites struct {
	dirty   flushes
	readers int
	looked  client.Time // when the last of them looked at the clock
}

// waits reports whether a call of ours waits for replies to this request. The last f come when enough have come, and most of what
// there is to do for them is saved then.
func (c *Client) waits(s Slot, t Timestamp) bool {
	return int(s) < len(c.calls) && c.calls[s].due.Load() == uint64(t)
}

// NewClient connects to a group. It does not wait for the connections: see Ready.
func NewClient(cfg ClientConfig) (*Client, error) {
	g := cfg.Group
	if g == nil || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("a client needs a group and a private key")
	}
	public := cfg.Key.Public().(ed25519.PublicKey)
	c := &Client{
		id: ClientOf(public), key: cfg.Key, queueLimit: cfg.Queue, epoch: time.Now(),
		calls: make([]clientCall, g.Limits.Slots), ready: make(chan struct{}),
		stop: make(chan struct{}), done: make(chan struct{}), clock: time.NewTimer(tickPeriod),
	}
	rule := client.Config{
		Replicas: g.N(), Slots: g.Limits.Slots, Clock: Timestamp(c.epoch.UnixNano()), Lent: transport.Keep, Separate: separateAbove,
	}
	if slices.Contains(cfg.Without, Separate) {
		rule.Separate = 0
	}
	if g.Administrator.Equal(public) {
		c.id, rule.Separate = Administrator, 0
	}
	if c.queueLimit <= 0 {
		c.queueLimit = 4096
	}
	var err error
	self := message.Principal{Client: c.id}
	if c.endpoint, err = newEndpoint(g, self, auth.NewMemorySigner(cfg.Key), cfg.Transport, cfg.Delay, cfg.Logger); err != nil {
		return nil, err
	}
	rule.Client = c.id
	c.rule, c.waited = client.New(rule, (*clientEdge)(c)), c.waits
	for i, m := range g.Members {
		session := auth.NewSession(message.Principal{Replica: ReplicaID(i)}, m.Key)
		c.peers, c.sessions = append(c.peers, &replicaEnd{session: session}), append(c.sessions, session)
	}
	c.mu.Lock()
	for i, m := range g.Members {
		c.peers[i].link = transport.Dial(m.Address, c.answering(c.sessions[i]), &clientLink{c, ReplicaID(i)})
	}
	c.mu.Unlock()
	go c.tick()
	return c, nil
}

// Ready waits until 2f+1 replicas have exchanged keys with this client. They do so with anybody: whether it is enrolled
// shows with the first call.
func (c *Client) Ready(ctx context.Context) error {
	for {
		c.mu.Lock()
		n := 0
		for _, p := range c.peers {
			if p.session.Ready() && p.link.Up() {
				n++
			}
		}
		changed, closed := c.ready, c.closed
		c.mu.Unlock()
		switch {
		case closed:
			return ErrClosed
		case n >= c.group.Quorum():
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d replicas answer, want >= %d: %w", n, c.group.N(), c.group.Quorum(), ctx.Err())
		}
	}
}

// signal wakes those in Ready. The caller holds the lock.
func (c *Client) signal() {
	close(c.ready)
	c.ready = make(chan struct{})
}

// Start begins one operation and returns without waiting. ErrBusy if no more can be taken.
func (c *Client) Start(call Call) error {
	return c.begin(c.forService(call))
}

// forService marks the administrator's calls that are for the service and not for the library.
func (c *Client) forService(call Call) Call {
	if c.id == Administrator {
		call.Body = append([]byte{executor.AdminService}, call.Body...)
	}
	return call
}

func (c *Client) checkLength(o *Call) error {
	if len(o.Body) > c.group.Limits.Operation {
		return fmt.Errorf("operation: got %d bytes, want <= %d", len(o.Body), c.group.Limits.Operation)
	}
	return nil
}

func (c *Client) begin(call Call) error {
	if err := c.checkLength(&call); err != nil {
		return err
	}
	digest := message.OperationDigest(call.Body) // not under the lock: replies wait for that
	c.mu.Lock()
	defer c.release()
	room := c.rule.Room(len(call.Body))
	switch why := c.rule.InUse(c.now()); {
	case c.closed:
		return ErrClosed
	case why != nil:
		return why
	case !room && len(c.waiting) >= c.queueLength():
		return ErrBusy
	case !room:
		c.waiting = append(c.waiting, queuedCall{call, digest})
		c.wake()
		return nil
	}
	return c.assign(&call, digest)
}

// queueLength is how many calls may wait. As long as none can begin those wait too for which there are slots.
func (c *Client) queueLength() int {
	if c.rule.Began() {
		return c.queueLimit
	}
	return c.queueLimit + len(c.calls) - c.rule.UnderWay()
}

// assign gives a call a slot and sends it for the first time. The caller holds the lock, and has seen that there is room.
func (c *Client) assign(call *Call, digest message.Digest) error {
	s := c.rule.Start(c.now(), client.Operation{Body: call.Body, Digest: digest, ReadOnly: call.ReadOnly})
	c.calls[s].Call = *call
	for _, e := range c.rule.Effects() { // one: its request is sent
		if err := c.send(&e); err != nil {
			c.vacate(s)
			return err
		}
	}
	c.wake()
	return nil
}

// Resume sends again, unchanged, what an earlier life of this client sent as (slot, t). It must be called before any
// Start.
func (c *Client) Resume(slot Slot, t Timestamp, call Call) error {
	call = c.forService(call)
	if err := c.checkLength(&call); err != nil {
		return err
	}
	digest := message.OperationDigest(call.Body)
	c.mu.Lock()
	defer c.release()
	if c.closed {
		return ErrClosed
	}
	if err := c.rule.Resume(c.now(), slot, t, client.Operation{Body: call.Body, Digest: digest, ReadOnly: call.ReadOnly}, false); err != nil {
		return err
	}
	c.calls[slot].Call = call
	c.perform(nil)
	c.wake()
	return nil
}

// An endedCall is to be told its result.
type endedCall struct {
	slot   Slot
	done   func(reply []byte, err error)
	result []byte
	err    error
}

// perform does what the rule decided, and adds the calls that are over to a list, for finish. The caller holds the lock.
func (c *Client) perform(over []endedCall) []endedCall {
	for effects := c.rule.Effects(); len(effects) > 0; effects = c.rule.Effects() {
		for i := range effects {
			switch e := &effects[i]; e.Verb {
			case client.Send:
				if err := c.send(e); err != nil {
					c.rule.Fail(e.Slot, err)
				}
			case client.Ask:
				c.queryStable(e.To, e.Nonce)
			case client.Done:
				x := &c.calls[e.Slot]
				x.due.Store(0)
				over = append(over, endedCall{e.Slot, x.Done, e.Result, e.Err})
			}
		}
	}
	return over
}

// finish ends calls, and gives their slots to the calls that wait: not before Done has noted the result, for the group keeps only a
// slot's last. The caller holds the lock, which is given up meanwhile.
func (c *Client) finish(over []endedCall) {
	if len(over) == 0 {
		return
	}
	c.mu.Unlock()
	for _, e := range over {
		e.done(e.result, e.err)
	}
	c.mu.Lock()
	for _, e := range over {
		c.vacate(e.slot)
	}
	c.beginWaiting()
}

// vacate frees a slot. The caller holds the lock.
func (c *Client) vacate(s Slot) {
	c.calls[s].due.Store(0)
	c.calls[s].Call = Call{}
	c.rule.Free(s)
}

// beginWaiting gives slots to the calls that have waited longest, for as long as there is room. The caller holds the lock.
func (c *Client) beginWaiting() {
	for len(c.waiting) > 0 && c.rule.Room(len(c.waiting[0].Body)) {
		x := c.waiting[0]
		c.waiting[0] = queuedCall{}
		c.waiting = c.waiting[1:]
		if err := c.assign(&x.Call, x.digest); err != nil {
			go x.Done(nil, err)
		}
	}
}

// release gives up the lock and writes what was queued, unless a reader will.
func (c *Client) release() {
	var space [flushSpace]flusher
	list := space[:0]
	if c.writes.readers == 0 {
		list = c.writes.dirty.take(list)
	}
	c.mu.Unlock()
	for _, x := range list {
		x.Flush()
	}
}

// wake has the clock tick that an idle client does not need. The caller holds the lock.
func (c *Client) wake() {
	if c.idle {
		c.idle = false
		c.clock.Reset(tickPeriod)
	}
}

// now is the rule's time. A reader has looked at the clock when it began to count replies, and what it brings about is not later by
// anything that matters. The caller holds the lock.
func (c *Client) now() client.Time {
	if c.writes.readers > 0 {
		return c.writes.looked
	}
	return time.Since(c.epoch)
}

// send authenticates the request of a call and queues it for the replicas that an effect names. An error is that of Call.Sending,
// and the request has not left. The caller holds the lock.
func (c *Client) send(e *client.Effect) error {
	q, x := c.rule.Request(e.Slot), &c.calls[e.Slot]
	if e.New && x.Sending != nil && !q.ReadOnly {
		if err := x.Sending(e.Slot, q.Timestamp); err != nil {
			return err
		}
	}
	x.due.Store(uint64(q.Timestamp))
	c.authenticate(q)
	c.buffer = q.AppendBody(append(c.buffer[:0], byte(message.TypeRequest)))
	var shared *transport.Shared // a long one lies in one place for all
	if len(c.buffer) >= transport.ShareFrom {
		shared, c.buffer = transport.Share(c.buffer)
		defer shared.Release()
	}
	for i, p := range c.peers {
		if e.To&(1<<i) != 0 {
			c.queueFor(p, shared)
		}
	}
	return nil
}

// queueFor queues the request for one replica, if there is a way to it: what is shared, and behind it c.buffer.
func (c *Client) queueFor(p *replicaEnd, shared *transport.Shared) {
	conn := c.wayTo(p)
	if conn == nil {
		return
	}
	if !conn.SendShared(shared, c.buffer) {
		c.edge.dropped.Add(1)
	}
	c.writes.dirty.add(conn)
}

// wayTo is a connection on which a replica can be spoken to, nil if there is none.
func (c *Client) wayTo(p *replicaEnd) *transport.Conn {
	if conn := p.link.Conn(); conn != nil && p.session.Ready() && c.vouched(conn, p.session) {
		return conn
	}
	return nil
}

func (c *Client) authenticate(q *message.Request) {
	if c.id == Administrator {
		q.Signature = make([]byte, message.SignatureSize) // that there is one is signed too
		d := message.AdministratorDigest(c.group.Digest(), q)
		q.Signature = ed25519.Sign(c.key, d[:])
		return
	}
	c.ring.Authenticate(c.sessions, &c.scratch, q)
}

// separateAbove is the length of the longest operation that goes to the primary alone. A longer one goes to every replica at
// once, and the primary proposes it by its digest: its wire is spared what this client's carries instead
// [TOCS §6.1; R-OPT-BR-1]. On one host a copy costs the same whoever sends it, and many in one batch cost less than one by
// one: see docs/PERFORMANCE.md.
const separateAbove = 32 << 10

// A clientEdge tells the rule of a client's surroundings. Its methods are called under the client's lock.
type clientEdge Client

// Open implements client.Edge.
func (e *clientEdge) Open(i ReplicaID) bool { return (*Client)(e).wayTo(e.peers[i]) != nil }

// Queued implements client.Edge.
func (e *clientEdge) Queued(i ReplicaID) int {
	if conn := (*Client)(e).wayTo(e.peers[i]); conn != nil {
		return conn.Queued()
	}
	return 0
}

// Proves implements client.Edge.
func (e *clientEdge) Proves(i ReplicaID, p *message.Proof, result []byte) bool {
	return e.sessions[i].Proves(&e.scratch, p, result)
}

// Chance implements client.Edge.
func (e *clientEdge) Chance(n int64) int64 { return rand.Int64N(n) }

// tick tells the rule the time until Close.
func (c *Client) tick() {
	defer close(c.done)
	defer c.clock.Stop()
	for asked := time.Now(); ; {
		select {
		case <-c.stop:
			for _, p := range c.peers {
				p.link.Close()
			}
			return
		case now := <-c.clock.C:
			c.look()
			if now.Sub(asked) >= askKeyPeriod {
				asked = now
				c.askForKeys()
			}
		}
	}
}

// look has done what is due, and sets the clock.
func (c *Client) look() {
	c.mu.Lock()
	c.rule.Tick(time.Since(c.epoch))
	over := c.perform(nil)
	if c.idle = c.rule.UnderWay() == 0 && (c.rule.Began() || len(c.waiting) == 0); c.idle {
		c.clock.Reset(askKeyPeriod)
	} else {
		c.clock.Reset(tickPeriod)
	}
	c.finish(over)
	c.release()
}

// askForKeys sends a NEW-KEY to the replicas that we have no session key of.
func (c *Client) askForKeys() {
	for _, p := range c.peers {
		if conn := p.link.Conn(); conn != nil && !p.session.Ready() {
			c.sendKey(conn, p.session, "")
		}
	}
}

// failAll ends all calls, those that wait for a slot too. The caller holds the lock, and failAll gives it up.
func (c *Client) failAll(why error) {
	c.rule.FailAll(why)
	waiting := c.waiting
	c.waiting = nil
	c.finish(c.perform(nil))
	c.release()
	for _, x := range waiting {
		x.Done(nil, why)
	}
}

// Close stops the client. Calls under way end with ErrClosed.
func (c *Client) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		<-c.done
		return nil
	}
	c.closed = true
	c.signal()
	c.mu.Unlock()
	close(c.stop)
	<-c.done
	c.mu.Lock()
	c.failAll(ErrClosed)
	return nil
}

// Status of the client's connections, for people.
func (c *Client) Status() ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := c.rule.Counts()
	s := ClientStatus{ID: c.id, View: c.rule.View(), Queued: len(c.waiting), Outstanding: c.rule.UnderWay(),
		Retries: counts.Retries, Fallbacks: counts.Fallbacks}
	for _, p := range c.peers {
		s.Connected = append(s.Connected, p.link.Up() && p.session.Ready())
	}
	return s
}

// ClientStatus is a client's account of itself.
type ClientStatus struct {
	ID          ClientID `json:"client"`
	View        View     `json:"view"`
	Connected   []bool   `json:"connected"` // by replica
	Outstanding int      `json:"outstanding"`
	Queued      int      `json:"queued"`
	Retries     uint64   `json:"retries"`
	Fallbacks   uint64   `json:"fallbacks"` // read-only tries that had to be ordered
}
