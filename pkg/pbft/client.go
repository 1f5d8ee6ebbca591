// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"bfs/pkg/pbft/internal/client"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/wire"
)

// Errors of a Client that callers branch on.
var (
	// ErrBusy: all slots are taken and the queue behind them is full.
	ErrBusy = errors.New("too many calls outstanding")
	// ErrNotEnrolled: 2f+1 replicas say that this client's key is not enrolled, or was revoked.
	ErrNotEnrolled = client.ErrNotEnrolled
	// ErrResultLost: the operation was executed, but its result is no longer kept; or it
	// may have been executed, for its slot has gone on to a request that this client did
	// not make (see also ErrKeyInUse).
	ErrResultLost = client.ErrResultLost
	// ErrKeyInUse: f+1 replicas say that another process uses this client's key. Calls
	// fail until it has ended; those that were under way may have been executed.
	ErrKeyInUse = errors.New("another process uses this client's key: stop one of the two, or " +
		"enrol a key of its own for it")
)

// A Call is one operation for Client.Start.
type Call struct {
	Body     []byte // the operation; the client keeps it until Done, the caller must not change it
	ReadOnly bool   // a hint: try the one-round-trip path first [TOCS §6.1]

	// Sending, if not nil, is told the slot and the timestamp before the operation first
	// leaves, for callers who must be able to send the very same request after a restart
	// (see Resume). Its error fails the call. It is not called for the read-only path.
	Sending func(slot Slot, t Timestamp) error

	// Done is called exactly once, on a goroutine of the client's: it must not block. It
	// owns reply.
	Done func(reply []byte, err error)
}

// Invoke runs one operation and waits for the reply that enough replicas agree on. When
// ctx ends first the operation itself goes on: it may still be executed.
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

// A Client speaks to a group for one key pair. Its slots let many operations be
// outstanding at once; further ones wait in a bounded queue, first come first served. All
// methods may be called from any goroutine.
//
// Package internal/client (rule) decides which request goes to which replicas and when, and which
// replies are believed. A Client gives it the time, the connections and the keys: it performs the
// rule's effects under one lock, and gives the lock up before it writes to sockets and calls Done.
//
// Nothing is passed between goroutines on the way of an operation: Start sends on its
// caller's, and the goroutine that reads the deciding reply calls Done.
type Client struct {
	group *Group
	end   *wire.Endpoint
	wires clientWires // its lock guards all below

	rule       *client.Client
	calls      clientCalls
	waiting    fifo[queuedCall] // for a slot, or for long ones under way; first in first out
	queueLimit int
	clock      clientClock
	stable     stableQuestion
	reading    reading
	keys       clientRenewal
	ready      chan struct{} // closed and made anew when a session becomes ready

	waited func(Slot, Timestamp) bool // calls.wait, bound once
	stop   chan struct{}
	done   chan struct{}
}

// clientCalls are the calls that slots serve.
type clientCalls []clientCall

// A clientCall is the call of one slot.
type clientCall struct {
	Call
	due atomic.Uint64 // the timestamp of its present request; 0 if no replies are waited for
}

// wait reports whether a call of ours waits for replies to this request. The last f replies come
// when enough have come, and are dropped before their MACs are checked. wait needs no lock.
func (x clientCalls) wait(s Slot, t Timestamp) bool {
	return int(s) < len(x) && x[s].due.Load() == uint64(t)
}

// Ready waits until 2f+1 replicas have exchanged keys with this client. Replicas exchange
// keys with any client: whether this one is enrolled shows with the first call.
func (c *Client) Ready(ctx context.Context) error {
	for {
		c.wires.mu.Lock()
		n := 0
		for i := range c.group.N() {
			if c.wires.connected(i) {
				n++
			}
		}
		changed, closed := c.ready, c.wires.closed
		c.wires.mu.Unlock()
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
	if c.wires.id == Administrator {
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
	c.wires.mu.Lock()
	defer c.wires.release()
	room := c.rule.Room(len(call.Body))
	switch why := c.rule.InUse(c.now()); {
	case c.wires.closed:
		return ErrClosed
	case why != nil:
		return why
	case c.keys.drains:
		room = false
	}
	switch {
	case !room && c.waiting.len() >= c.queueLength():
		return ErrBusy
	case !room:
		c.waiting.push(queuedCall{call, digest})
		c.clock.wake()
		return nil
	}
	return c.assign(&call, digest)
}

// queueLength is how many calls may wait. While no call can begin, calls for which there
// are slots wait too.
func (c *Client) queueLength() int {
	if c.rule.Began() {
		return c.queueLimit
	}
	return c.queueLimit + len(c.calls) - c.rule.UnderWay()
}

// assign gives a call a slot and sends it for the first time. The caller holds the lock,
// and has seen that there is room.
func (c *Client) assign(call *Call, digest message.Digest) error {
	s := c.rule.Start(c.now(), client.Operation{Body: call.Body, Digest: digest, ReadOnly: call.ReadOnly})
	c.calls[s].Call = *call
	for _, e := range c.rule.Effects() { // one: its request is sent
		if err := c.send(&e); err != nil {
			c.vacate(s)
			return err
		}
	}
	c.clock.wake()
	return nil
}

// Resume sends the request that an earlier life of this client sent as (slot, t) again,
// unchanged. It must be called before any Start.
func (c *Client) Resume(slot Slot, t Timestamp, call Call) error {
	call = c.forService(call)
	if err := c.checkLength(&call); err != nil {
		return err
	}
	op := client.Operation{Body: call.Body, Digest: message.OperationDigest(call.Body), ReadOnly: call.ReadOnly}
	c.wires.mu.Lock()
	defer c.wires.release()
	if c.wires.closed {
		return ErrClosed
	}
	if err := c.rule.Resume(c.now(), slot, t, op); err != nil {
		return err
	}
	c.calls[slot].Call = call
	c.perform(nil)
	c.clock.wake()
	return nil
}

// An endedCall is a call that is over, and the result to tell it.
type endedCall struct {
	slot   Slot
	done   func(reply []byte, err error)
	result []byte
	err    error
}

// perform carries out the rule's effects, and adds the calls that are over to a list, for
// finish. The caller holds the lock.
func (c *Client) perform(over []endedCall) []endedCall {
	for effects := c.rule.Effects(); len(effects) > 0; effects = c.rule.Effects() {
		for i := range effects {
			switch e := &effects[i]; e.Verb {
			case client.Send:
				if err := c.send(e); err != nil {
					c.rule.Fail(e.Slot, err)
				}
			case client.Ask:
				c.wires.queryStable(e.To, e.Nonce)
			case client.Done:
				x := &c.calls[e.Slot]
				x.due.Store(0)
				over = append(over, endedCall{e.Slot, x.Done, e.Result, e.Err})
			}
		}
	}
	return over
}

// finish tells calls their results, and then gives their slots to the calls that wait:
// the group keeps only the last result of a slot, so Done must have noted it before. The
// caller holds the lock, which finish gives up meanwhile.
func (c *Client) finish(over []endedCall) {
	if len(over) == 0 {
		return
	}
	c.wires.mu.Unlock()
	for _, e := range over {
		e.done(e.result, e.err)
	}
	c.wires.mu.Lock()
	for _, e := range over {
		c.vacate(e.slot)
	}
	c.keys.drained(c.rule.UnderWay())
	c.beginWaiting()
}

// vacate frees a slot. The caller holds the lock.
func (c *Client) vacate(s Slot) {
	c.calls[s].due.Store(0)
	c.calls[s].Call = Call{}
	c.rule.Free(s)
}

// A queuedCall is a call that waits for a slot.
type queuedCall struct {
	Call
	digest message.Digest // OperationDigest of Body
}

// beginWaiting gives slots to the calls that have waited longest, for as long as there is room. The
// caller holds the lock.
func (c *Client) beginWaiting() {
	for c.waiting.len() > 0 && !c.keys.drains {
		x := c.waiting.first()
		if !c.rule.Room(len(x.Body)) {
			return
		}
		if err := c.assign(&x.Call, x.digest); err != nil {
			go x.Done(nil, err)
		}
		c.waiting.drop()
	}
}

// now is the rule's time. A reader looks at the clock when it begins to count replies,
// and the calls that it starts use that time too: one look at the clock for many calls.
// The caller holds the lock.
func (c *Client) now() client.Time {
	if c.wires.readers > 0 {
		return c.clock.now
	}
	return c.clock.look()
}

// send sends the request of a call to the replicas that an effect names. An error is that
// of Call.Sending, and the request has not left. The caller holds the lock.
func (c *Client) send(e *client.Effect) error {
	q, x := c.rule.Request(e.Slot), &c.calls[e.Slot]
	if e.New && x.Sending != nil && !q.ReadOnly {
		if err := x.Sending(e.Slot, q.Timestamp); err != nil {
			return err
		}
	}
	x.due.Store(uint64(q.Timestamp))
	c.wires.request(e.To, e.Brief, q, e.Apart)
	if e.Shown != 0 {
		c.wires.request(e.Shown, e.Brief, q, true)
	}
	return nil
}

// separateAbove is the length of the longest operation that goes to the primary alone. A
// longer one goes to every replica at once, and the primary proposes it by its digest:
// the primary's wire is spared what this client's carries instead [TOCS §6.1;
// R-OPT-BR-1]. On one host a copy costs the same from either sender, and many copies in
// one batch cost less than one by one: see docs/PERFORMANCE.md.
const separateAbove = 32 << 10

// tick tells the rule the time until Close.
func (c *Client) tick() {
	defer close(c.done)
	defer c.clock.timer.Stop()
	for asked := time.Now(); ; {
		select {
		case <-c.stop:
			c.wires.close()
			return
		case <-c.keys.ended:
			c.renewKeys(time.Now())
		case now := <-c.clock.timer.C:
			c.look()
			c.renewKeys(now)
			if now.Sub(asked) >= restPeriod {
				asked = now
				c.wires.askForKeys()
			}
		}
	}
}

// look sends again the requests that are due, and sets the clock.
func (c *Client) look() {
	c.wires.mu.Lock()
	c.rule.Tick(c.clock.look())
	over := c.perform(nil)
	c.clock.set(c.rule.UnderWay() == 0 && (c.rule.Began() || c.waiting.len() == 0))
	c.finish(over)
	c.wires.release()
}

// renewKeys refreshes the keys when it is time to: as soon as no call is under way, or
// after drainPeriod.
func (c *Client) renewKeys(now time.Time) {
	x := &c.keys
	if now.Before(x.due) {
		return
	}
	c.wires.mu.Lock()
	if !x.begins(now, c.rule.UnderWay()) {
		c.clock.wake()
		c.wires.mu.Unlock()
		return
	}
	c.refreshKeys()
}

// refreshKeys gives the replicas new keys under which they must answer. Answers under the
// old ones that have not been believed yet are forgotten, and asked for again. The caller
// holds the lock, and refreshKeys gives it up.
func (c *Client) refreshKeys() {
	fresh := !c.wires.closed && c.end.Refresh()
	if fresh {
		c.stable.forget()
		c.rule.Refreshed()
	}
	c.wires.mu.Unlock()
	if fresh {
		c.wires.announceKeys()
	}
	c.wires.mu.Lock()
	if fresh {
		c.rule.Again(c.now())
	}
	c.perform(nil) // nothing ends: requests are sent again under the timestamps that they have
	c.beginWaiting()
	c.wires.release()
}

// failAll ends all calls, those that wait for a slot too. The caller holds the lock, and
// failAll gives it up.
func (c *Client) failAll(why error) {
	c.rule.FailAll(why)
	waiting := c.waiting
	c.waiting = fifo[queuedCall]{}
	c.finish(c.perform(nil))
	c.wires.release()
	for ; waiting.len() > 0; waiting.drop() {
		waiting.first().Done(nil, why)
	}
}

// Close stops the client. Calls under way end with ErrClosed.
func (c *Client) Close() error {
	c.wires.mu.Lock()
	if c.wires.closed {
		c.wires.mu.Unlock()
		<-c.done
		return nil
	}
	c.wires.closed = true
	c.signal()
	c.wires.mu.Unlock()
	close(c.stop)
	<-c.done
	c.wires.mu.Lock()
	c.failAll(ErrClosed)
	return nil
}

// Status of the client's connections, for people.
func (c *Client) Status() ClientStatus {
	c.wires.mu.Lock()
	defer c.wires.mu.Unlock()
	counts := c.rule.Counts()
	s := ClientStatus{ID: c.wires.id, View: c.rule.View(), Queued: c.waiting.len(), Outstanding: c.rule.UnderWay(),
		Retries: counts.Retries, Fallbacks: counts.Fallbacks}
	for i := range c.group.N() {
		s.Connected = append(s.Connected, c.wires.connected(i))
		s.WrongReplies = append(s.WrongReplies, c.rule.Wrong(ReplicaID(i)))
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

	WrongReplies []uint64 `json:"wrong_replies"` // by replica: results other than a quorum's on the same ground
}
