package pbft

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/bits"
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
	ErrNotEnrolled = errors.New("client is not enrolled in the group")
	// ErrResultLost: the operation was executed, but its result is no longer kept; or it may have been, for its slot has gone on
	// to something that this client did not ask for (see also ErrKeyInUse).
	ErrResultLost = errors.New("operation was executed, or may have been, and its result is no longer available")
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
// Nothing is passed between goroutines on the way of an operation: Start sends on its caller's, and the
// goroutine that reads the deciding reply calls Done.
type Client struct {
	*endpoint
	id       ClientID
	key      ed25519.PrivateKey
	peers    []*replicaEnd
	sessions []*auth.Session // of peers

	mu          sync.Mutex
	slots       []clientSlot
	free        []Slot
	spare       []*outstanding // ended; at most as many as there are slots
	waiting     []*outstanding // calls without a slot, or too long for now, first in first out
	under       int            // bytes of the long operations under way
	queueLimit  int
	separate    bool
	view        View
	nextReplier int
	fresh       uint32      // bit i: replica i was among the 2f+1 that gave the last ordered result, or the first read; 0: none yet
	clock       *time.Timer // the next look at what is due
	idle        bool        // nothing can be due, and the clock ticks slowly
	timing      roundTrip
	lag         time.Duration // by which results, or the last of their proofs, follow the agreement, where they do
	waryUntil   time.Time     // until then everybody proves long results: those who were named for it did not agree
	progress    time.Time     // when an ordered operation had its result last
	scratch     auth.Scratch
	proves      client.Prover              // proven
	waited      func(Slot, Timestamp) bool // waits
	buffer      []byte
	dirty       flushes
	held        int       // readers that will flush when they are done
	looked      time.Time // when the last of them looked at the clock
	closed      bool
	ready       chan struct{} // closed and made anew when a session becomes ready
	counts      clientCounts
	nonce       uint64       // of the last QUERY-STABLE
	stable      *stableQuery // the one that waits
	origin      origin
	rivalry     rivalry

	stop chan struct{}
	done chan struct{}
}

type clientCounts struct{ retries, fallbacks uint64 }

// A replicaEnd is our way to one replica.
type replicaEnd struct {
	session   *auth.Session
	link      *transport.Link
	rekeyed   time.Time // when its new key last made us authenticate again
	lateUntil time.Time // until then reads are sent to others as well: it did not answer one in time
	silent    bool      // it left us waiting for a result or a proof, and has not been heard of since
}

// A clientSlot is one line of calls.
type clientSlot struct {
	last Timestamp
	call *outstanding  // nil: free
	due  atomic.Uint64 // the timestamp of call; 0 if there is none
}

// hold makes o what the slot waits for. The caller holds the client's lock.
func (s *clientSlot) hold(o *outstanding) {
	s.call = o
	if o == nil {
		s.due.Store(0)
	} else {
		s.due.Store(uint64(o.request.Timestamp))
	}
}

// waits reports whether a call of ours waits for replies to this request. The last f come when enough have come, and most of what
// there is to do for them is saved then.
func (c *Client) waits(s Slot, t Timestamp) bool {
	return int(s) < len(c.slots) && c.slots[s].due.Load() == uint64(t)
}

// An outstanding call waits for its certificate.
type outstanding struct {
	Call
	digest   message.Digest // OperationDigest of Body
	request  message.Request
	readOnly bool   // the present try
	asked    uint32 // bit i: the present try was sent to replica i
	resumed  bool
	keep     bool // the result of an earlier try was not kept
	tally    client.Tally
	failed   error // it could not be sent again
	sent     time.Time
	agreed   time.Time // when 2f+1 had executed it alike, and the result or a proof of it was not there; zero: that has not been so
	due      time.Time // of the next retransmission
	parted   bool      // a quorum gave one answer on different grounds: it was sent again soon
	tries    int
}

// NewClient connects to a group. It does not wait for the connections: see Ready.
func NewClient(cfg ClientConfig) (*Client, error) {
	g := cfg.Group
	if g == nil || len(cfg.Key) != ed25519.PrivateKeySize {
		return nil, errors.New("a client needs a group and a private key")
	}
	public := cfg.Key.Public().(ed25519.PublicKey)
	c := &Client{
		id: ClientOf(public), key: cfg.Key, queueLimit: cfg.Queue,
		separate: !slices.Contains(cfg.Without, Separate) && !g.Administrator.Equal(public),
		slots:    make([]clientSlot, g.Limits.Slots), ready: make(chan struct{}),
		stop: make(chan struct{}), done: make(chan struct{}), clock: time.NewTimer(tickPeriod),
	}
	if g.Administrator.Equal(public) {
		c.id = Administrator
	}
	if c.queueLimit <= 0 {
		c.queueLimit = 4096
	}
	var err error
	self := message.Principal{Client: c.id}
	if c.endpoint, err = newEndpoint(g, self, auth.NewMemorySigner(cfg.Key), cfg.Transport, cfg.Delay, cfg.Logger); err != nil {
		return nil, err
	}
	c.timing.reset()
	c.proves, c.waited = c.proven, c.waits // bound once
	start := Timestamp(time.Now().UnixNano())
	for i := range c.slots {
		c.slots[i].last = start
		c.free = append(c.free, Slot(len(c.slots)-1-i))
	}
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
	switch {
	case c.closed:
		c.mu.Unlock()
		return ErrClosed
	case c.inUse() != nil:
		defer c.mu.Unlock()
		return c.rivalry.err
	case !c.room(len(call.Body)) && len(c.waiting) >= c.queueLength():
		c.mu.Unlock()
		return ErrBusy
	case !c.room(len(call.Body)):
		c.waiting = append(c.waiting, c.outstanding(call, digest))
		c.wake()
		c.mu.Unlock()
		return nil
	}
	err := c.assign(c.outstanding(call, digest))
	c.release()
	return err
}

// outstanding makes a call one that waits, in the memory of one that has ended if there is such.
func (c *Client) outstanding(call Call, digest message.Digest) *outstanding {
	n := len(c.spare)
	if n == 0 {
		return &outstanding{Call: call, digest: digest}
	}
	o := c.spare[n-1]
	c.spare = c.spare[:n-1]
	o.Call, o.digest = call, digest
	return o
}

// forget gives back the memory of a call that has ended and that nobody knows any more.
func (c *Client) forget(o *outstanding) {
	if len(c.spare) < len(c.slots) {
		*o = outstanding{tally: o.tally, request: message.Request{Auth: message.Authenticator{Tags: o.request.Auth.Tags[:0]}}}
		c.spare = append(c.spare, o)
	}
}

// release gives up the lock and sends what was queued, unless a reader will.
func (c *Client) release() {
	var space [flushSpace]flusher
	list := space[:0]
	if c.held == 0 {
		list = c.dirty.take(list)
	}
	c.mu.Unlock()
	for _, x := range list {
		x.Flush()
	}
}

// assign gives a call a slot and sends it for the first time. The caller holds the lock.
func (c *Client) assign(o *outstanding) error {
	s := c.free[len(c.free)-1]
	c.free = c.free[:len(c.free)-1]
	c.under += bulk(len(o.Body))
	if err := c.issue(o, s, o.ReadOnly); err != nil {
		c.free = append(c.free, s)
		c.under -= bulk(len(o.Body))
		return err
	}
	return nil
}

// bulkBytes is how many bytes of long operations a client has under way at most, a single one apart. The group executes no more of
// them at a time for being sent more, and they fill the connections that the votes of other clients' requests share.
const (
	bulkBytes    = 8 << 20
	bulkLength   = 32 << 10
	slowestBytes = 32 << 20 // a second: what bulk makes others of ours wait for
)

// bulk is what an operation of n bytes counts as.
func bulk(n int) int {
	if n < bulkLength {
		return 0
	}
	return n
}

// room reports whether a call of n bytes may begin: it is known where timestamps begin, there is a free slot, and a long one finds
// room beside the others.
func (c *Client) room(n int) bool {
	return c.origin.known && len(c.free) > 0 && (bulk(n) == 0 || c.under == 0 || c.under+n <= bulkBytes)
}

// queueLength is how many calls may wait. As long as none can begin those wait too for which there are slots.
func (c *Client) queueLength() int {
	if c.origin.known {
		return c.queueLimit
	}
	return c.queueLimit + len(c.free)
}

// patience is how much longer an answer may take for what of ours is before it.
func (c *Client) patience() time.Duration { return time.Duration(c.under) * time.Second / slowestBytes }

// issue makes the call's request under a new timestamp of slot s, and sends it.
func (c *Client) issue(o *outstanding, s Slot, readOnly bool) error {
	slot := &c.slots[s]
	slot.last++
	if o.Sending != nil && !readOnly {
		if err := o.Sending(s, slot.last); err != nil {
			return err
		}
	}
	c.prepare(o, s, slot.last, readOnly)
	o.resumed = false // nobody sent this one before
	slot.hold(o)
	c.transmit(o, false)
	c.wake()
	return nil
}

// wake has the clock tick that an idle client does not need. The caller holds the lock.
func (c *Client) wake() {
	if c.idle {
		c.idle = false
		c.clock.Reset(tickPeriod)
	}
}

// now is the time. A reader has looked when it began to settle, and what it brings about is not later by anything that matters.
// The caller holds the lock.
func (c *Client) now() time.Time {
	if c.held > 0 {
		return c.looked
	}
	return time.Now()
}

func (c *Client) prepare(o *outstanding, s Slot, t Timestamp, readOnly bool) {
	o.readOnly = readOnly
	o.request = message.Request{Client: c.id, Slot: s, Timestamp: t, ReadOnly: readOnly, Keep: o.keep, Auth: o.request.Auth}
	o.request.SetOperation(o.Body, o.digest)
	o.tally.Reset(len(c.peers), transport.Keep)
	o.tries = 0
	o.agreed, o.parted = time.Time{}, false
	o.sent = c.now()
	o.due = o.sent.Add(c.timing.timeout() + c.patience())
}

// Resume sends again, unchanged, what an earlier life of this client sent as (slot, t). It must be called before any
// Start.
func (c *Client) Resume(slot Slot, t Timestamp, call Call) error {
	o := &outstanding{Call: c.forService(call), resumed: true}
	if err := c.checkLength(&o.Call); err != nil {
		return err
	}
	o.digest = message.OperationDigest(o.Body)
	c.mu.Lock()
	i := slices.Index(c.free, slot)
	switch {
	case c.closed:
		c.mu.Unlock()
		return ErrClosed
	case i < 0:
		c.mu.Unlock()
		return fmt.Errorf("slot %d: not there, or taken", slot)
	}
	c.free = slices.Delete(c.free, i, i+1)
	c.slots[slot].last = max(c.slots[slot].last, t)
	c.under += bulk(len(o.Body))
	c.prepare(o, slot, t, false)
	c.slots[slot].hold(o)
	c.transmit(o, true)
	c.wake()
	c.release()
	return nil
}

// transmit authenticates the request and sends it: a first ordered try to the primary alone, if there is a way to it, a
// first read to those who answered last, all else to every replica (R-CLI-2, R-CLI-5).
func (c *Client) transmit(o *outstanding, again bool) {
	set := c.audience(o, again)
	q := &o.request
	if q.Apart = !again && c.apart(o); q.Apart {
		set = c.everybody()
	}
	q.Replier, q.Provers = c.replier(again, o.readOnly, set)
	c.authenticate(q)
	c.buffer = q.AppendBody(append(c.buffer[:0], byte(message.TypeRequest)))
	var shared *transport.Shared // a long one lies in one place for all
	if len(c.buffer) >= transport.ShareFrom {
		shared, c.buffer = transport.Share(c.buffer)
		defer shared.Release()
	}
	if o.asked = set; c.sendTo(set, shared) == 0 && set != c.everybody() {
		o.asked = c.everybody()
		c.sendTo(o.asked, shared)
	}
}

// separateAbove is the length of the longest operation that goes to the primary alone. A longer one goes to every replica at
// once, and the primary proposes it by its digest: its wire is spared what this client's carries instead
// [TOCS §6.1; R-OPT-BR-1]. On one host a copy costs the same whoever sends it, and many in one batch cost less than one by
// one: see docs/PERFORMANCE.md.
const separateAbove = 32 << 10

// maxBehind is how much may wait on a connection to a replica before an operation leaves for it that a proposal names. The
// proposal would overtake what is behind more: a client whose own wire is full leaves some of the carrying to the primary.
const maxBehind = 1 << 20

// apart reports whether a first try goes to every replica, though only the primary orders it. Backups do not pass it on, so
// there must be a way to the primary.
func (c *Client) apart(o *outstanding) bool {
	if !c.separate || o.readOnly || len(o.Body) <= separateAbove || c.wayTo(c.peers[c.view.Primary(len(c.peers))]) == nil {
		return false
	}
	for _, p := range c.peers {
		if conn := c.wayTo(p); conn != nil && conn.Queued() > maxBehind {
			return false
		}
	}
	return true
}

// sendTo queues the request, what is shared and behind it c.buffer, for a set of replicas and counts those there is a way to.
func (c *Client) sendTo(set uint32, shared *transport.Shared) (n int) {
	for i, p := range c.peers {
		if set&(1<<i) != 0 && c.queueFor(p, shared) {
			n++
		}
	}
	return n
}

func (c *Client) everybody() uint32 { return 1<<len(c.peers) - 1 }

// audience is whom to send a request to. A read needs 2f+1 answers that are alike, and those who gave the last ordered
// result have executed all that this client knows of: the others are asked only if that does not do.
func (c *Client) audience(o *outstanding, again bool) uint32 {
	switch {
	case again:
		return c.everybody()
	case !o.readOnly:
		return 1 << c.view.Primary(len(c.peers))
	case c.fresh == 0:
		return c.everybody()
	}
	now := c.now()
	for i, p := range c.peers {
		if c.fresh&(1<<i) != 0 && (now.Before(p.lateUntil) || !p.link.Up()) {
			return c.everybody()
		}
	}
	return c.fresh
}

// askRest asks the replicas that a read was not sent to, because those it was sent to differ.
func (c *Client) askRest(o *outstanding) {
	rest := c.everybody() &^ o.asked
	o.request.Replier = message.AnyReplier
	c.authenticate(&o.request)
	c.buffer = o.request.AppendBody(append(c.buffer[:0], byte(message.TypeRequest)))
	o.asked = c.everybody()
	c.sendTo(rest, nil)
}

// queueFor queues the request for one replica. It reports whether there was a connection to queue it on.
func (c *Client) queueFor(p *replicaEnd, shared *transport.Shared) bool {
	conn := c.wayTo(p)
	if conn == nil {
		return false
	}
	if !conn.SendShared(shared, c.buffer) {
		c.edge.dropped.Add(1)
	}
	c.dirty.add(conn)
	return true
}

// wayTo is a connection on which a replica can be spoken to, nil if there is none.
func (c *Client) wayTo(p *replicaEnd) *transport.Conn {
	if conn := p.link.Conn(); conn != nil && p.session.Ready() && c.vouched(conn, p.session) {
		return conn
	}
	return nil
}

// replier picks who returns the full result: in turn, but not one that kept us waiting [TOCS §6.1]. Of an ordered request the f
// who come next prove it; everybody, if there are not so many, or if that did not do lately.
func (c *Client) replier(again, readOnly bool, set uint32) (who ReplicaID, provers uint32) {
	if again {
		return message.AnyReplier, 0
	}
	if !readOnly {
		// All execute what the primary alone is sent, but those who gave the last result first.
		if set = c.fresh; set == 0 {
			set = c.everybody()
		}
	}
	now := c.now()
	next := func(i int) (int, bool) {
		for range c.peers {
			i = (i + 1) % len(c.peers)
			if p := c.peers[i]; set&(1<<i) != 0 && !p.silent && !now.Before(p.lateUntil) {
				return i, true
			}
		}
		return i, false
	}
	first, ok := next(c.nextReplier)
	if !ok {
		return message.AnyReplier, 0
	}
	c.nextReplier = first
	if now.Before(c.waryUntil) {
		return ReplicaID(first), c.everybody()
	}
	for i := first; bits.OnesCount32(provers) < c.group.Weak()-1; {
		if i, _ = next(i); i == first {
			return ReplicaID(first), c.everybody()
		}
		provers |= 1 << i
	}
	return ReplicaID(first), provers
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

// tick retransmits what is due.
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
			var failed []*outstanding
			c.mu.Lock()
			c.askOrigin(now)
			if c.idle = len(c.free) == len(c.slots) && (c.origin.known || len(c.waiting) == 0); c.idle {
				c.clock.Reset(askKeyPeriod)
			} else {
				c.clock.Reset(tickPeriod)
			}
			for i := range c.slots {
				o := c.slots[i].call
				if o == nil || now.Before(o.due) || c.inTurn(o, now) {
					continue
				}
				if c.retry(o, now); o.failed != nil {
					c.slots[i].hold(nil)
					failed = append(failed, o)
				}
			}
			c.release()
			c.abandon(failed)
			if now.Sub(asked) >= askKeyPeriod {
				asked = now
				c.askForKeys()
			}
		}
	}
}

// inTurn reports whether an ordered request is late, but others of ours get their results: the group is busy, and would be
// busier yet if everything were sent twice. One whose result is agreed on lacks only a full reply, and is asked for at once;
// and nothing waits for longer than maxFloor, since a primary may serve others to starve it.
func (c *Client) inTurn(o *outstanding, now time.Time) bool {
	if o.readOnly || o.tries > 0 || now.Sub(o.sent) > maxFloor+c.patience() || now.Sub(c.progress) > minTimeout {
		return false
	}
	return bits.OnesCount32(o.tally.Find(false).By) < c.group.Quorum()
}

// askForKeys sends a NEW-KEY to the replicas that we have no session key of.
func (c *Client) askForKeys() {
	for _, p := range c.peers {
		if conn := p.link.Conn(); conn != nil && !p.session.Ready() {
			c.sendKey(conn, p.session, "")
		}
	}
}

// abandon ends calls that could not be sent again.
func (c *Client) abandon(failed []*outstanding) {
	for _, o := range failed {
		o.Done(nil, o.failed)
		c.mu.Lock()
		c.vacate(o)
		c.release()
	}
}

// retry sends a request again, to all and for all to answer in full, with exponential back-off; a read-only
// try that did not succeed is ordered instead [TOCS §6.1].
func (c *Client) retry(o *outstanding, now time.Time) {
	c.counts.retries++
	if !o.agreed.IsZero() && !o.readOnly {
		c.waryUntil = now.Add(time.Second)
	}
	for i, p := range c.peers {
		if q := &o.request; (i == int(q.Replier) || !o.readOnly && q.Provers&(1<<i) != 0) && !o.tally.Has(ReplicaID(i)) {
			p.silent = true
		}
		if o.readOnly && o.asked&(1<<i) != 0 && !o.tally.Has(ReplicaID(i)) {
			p.lateUntil = now.Add(time.Second)
		}
	}
	if o.readOnly && o.tries >= 1 {
		c.fallBack(o)
		return
	}
	o.tries++
	o.due = now.Add(c.timing.backOff(o.tries) + c.patience())
	c.transmit(o, true)
}

// fallBack orders an operation whose read-only try found no 2f+1 equal answers, under a new timestamp so that the
// answers cannot be mixed up (R-OPT-RO-5).
func (c *Client) fallBack(o *outstanding) {
	c.counts.fallbacks++
	if err := c.issue(o, o.request.Slot, false); err != nil {
		o.failed = err
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
	ended := c.waiting
	c.waiting = nil
	for i := range c.slots {
		if o := c.slots[i].call; o != nil {
			c.slots[i].hold(nil)
			ended = append(ended, o)
		}
	}
	c.signal()
	c.mu.Unlock()
	close(c.stop)
	<-c.done
	for _, o := range ended {
		o.Done(nil, ErrClosed)
	}
	return nil
}

// Status of the client's connections, for people.
func (c *Client) Status() ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := ClientStatus{ID: c.id, View: c.view, Queued: len(c.waiting), Outstanding: len(c.slots) - len(c.free),
		Retries: c.counts.retries, Fallbacks: c.counts.fallbacks}
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
