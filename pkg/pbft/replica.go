// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// A Replica is one member of a group: the event loop around the core.
//
// There is no loop goroutine. The goroutine that has an event performs it to its end: the reader
// of a connection decodes and checks MACs (receiver), then takes the lock, steps the core,
// performs its effects in order, releases the lock and writes what was queued. The goroutines are
//
//	the transport's   one reader and at times one writer for each connection, one dialler for each link
//	tick              every tickPeriod, less often when idle: retransmission
//	flood             says what an offender makes up, in measurements
//	keeperWatch.run   asks the keeper how it is, if there is one
//	newKeys.run       refreshes the session keys every KeyPeriod, and sends the NEW-KEYs
//	signRecovery's    has a recovery request signed, for as long as that takes
//	the State's       calls back when the root of a checkpoint is known
//	the fence's       writes it, while there is still room below it
//	storage.flush     syncs the journal, in disk mode, when no reader does
//	imageFollower.run takes the image along and keeps room in reserve, in disk mode
//
// One lock, mu, guards the core, the service, and every part below it that does not say
// otherwise. Locks that are taken while mu is held: those of clients and its ends, of the gate
// and its callers, of keeper, and the transport's. Nothing takes mu while it holds one of these.
//
// Each part is a type that owns its state, and none of them knows the Replica. A file
// uses files of the lines below its own, and files before it in its own line:
//
//	life                                        start, hand over
//	flood                                       what an offender says without end, in measurements
//	inbound  newkeys                            what comes on connections: NEW-KEYs, messages, requests; our NEW-KEYs
//	replica                                     this type: events, one at a time, and what the core asks for
//	receive  imagefollower  replies             frames to messages; the image on the disk; answers to clients
//	pages  storage                              FETCHes and fetching; what must wait for the disk
//	peers  outgoing  clients  events  recovery  ways to others and what is said on them; what operators read
//	clock  ending  measured  files              time, the end, counts, the replica's directory
//	keeperwatch                                 what the keeper says of itself
//	service  group  config  status              what callers give and are told
//
// Package wire is below all of them: a client has the same endpoint.
type Replica struct {
	cfg        ReplicaConfig
	group      *Group
	end        *wire.Endpoint
	listener   *transport.Listener
	peers      peers
	clients    *clients
	receiver   receiver // needs no lock
	mismatches mismatches

	mu       sync.Mutex
	core     *core.Core // nil if unreplicated
	exec     *executor.Executor
	out      *outgoing
	replies  replies
	clock    clock
	measured measured
	pages    pageServer
	transfer transfer
	events   events
	fence    *fence.Fence
	recovery recovering
	keeper   *keeperWatch   // nil if there is no keeper
	disk     *storage       // nil unless in disk mode
	image    *imageFollower // nil unless in disk mode
	ending   *ending
}

// Done is closed when the replica has stopped; Err then says why, nil after Close.
func (r *Replica) Done() <-chan struct{} { return r.ending.done }

// Err is the reason of a stop.
func (r *Replica) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ending.err
}

// Close stops the replica and waits for it, until ctx is done.
func (r *Replica) Close(ctx context.Context) error {
	r.mu.Lock()
	r.ending.begin()
	r.mu.Unlock()
	select {
	case <-r.ending.done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// enter takes the lock for one event. The core's time is right then.
func (r *Replica) enter() {
	r.mu.Lock()
	r.replies.bytes = 0
	if !r.disk.aside() && r.core != nil {
		r.clock.catchUp(r.core)
	}
}

// leave performs what the event brought about, releases the lock and sends. Another goroutine syncs
// the journal if that is due.
func (r *Replica) leave() {
	r.conclude()
	r.disk.poke()
	r.out.dirty.Unlock(&r.mu)
}

// leaveSynced is leave for a caller that has time: it syncs the journal itself if that is due and
// nobody else is at it, or if too much is to be written.
func (r *Replica) leaveSynced() {
	r.conclude()
	due, behind := r.disk.due(), r.disk.behind()
	if r.out.dirty.Unlock(&r.mu); due || behind {
		r.disk.sync(due)
	}
}

// conclude performs what an event brought about.
func (r *Replica) conclude() {
	if r.core != nil {
		r.perform()
		r.events.noteView(r.core, r.measured.executed)
		r.recovery.note(r.core)
		if r.clock.slow && (r.out.sparing.Queued || !r.core.Idle()) {
			r.clock.wake()
		}
	}
	r.replies.sealAll()
}

// perform does what the core asks for, top to bottom, until nothing is left to do.
func (r *Replica) perform() { r.performAll(r.core.Effects) }

func (r *Replica) performAll(next func() []core.Effect) {
	for {
		effects := next()
		if len(effects) == 0 {
			return
		}
		for i := range effects {
			if r.ending.err != nil {
				return // the effects below may rely on the one that failed, as a vote on its fence
			}
			r.effect(&effects[i])
		}
	}
}

// freeze takes a checkpoint. Its root is computed elsewhere and comes back as an event.
func (r *Replica) freeze(n SeqNum) {
	state := r.cfg.Service.State()
	if s, ok := state.(Sized); ok {
		r.core.StateSize(s.Pages())
		r.measured.state = int64(s.Pages()) * PageSize
	}
	r.exec.Frozen(n)
	if r.disk != nil && r.disk.resuming {
		r.core.Frozen(n, freeze(state, n))
		return
	}
	state.Freeze(n, func(root Digest) {
		r.enter()
		if !r.ending.begun {
			r.core.Frozen(n, root)
		}
		r.leave()
		r.serveKept()
	})
}

// serveKept answers the kept FETCHes that can be answered now. Others have their turn
// between two of them.
func (r *Replica) serveKept() {
	for more := true; more; {
		r.enter()
		more = !r.ending.begun && r.pages.serveKept()
		r.leave()
	}
}

// tick is a goroutine that gives the core its ticks, and ends the replica.
func (r *Replica) tick() {
	for {
		select {
		case <-r.ending.stop:
			r.clock.timer.Stop()
			r.shutdown()
			return
		case <-r.clock.timer.C:
			r.clock.turned.Store(time.Now().UnixNano())
			if r.core != nil {
				r.oneTick()
				r.serveKept()
			}
			r.mu.Lock()
			r.clock.next(r.core == nil)
			r.mu.Unlock()
		}
	}
}

// oneTick is a tick of the core.
func (r *Replica) oneTick() {
	r.enter()
	defer r.leave()
	if r.disk.aside() {
		return
	}
	r.clock.tick(r.core)
	r.out.tick()
	r.perform()
	r.out.endSparing()
	r.clock.slow = r.core.Idle()
}

// shutdown ends everything, when the goroutines have been told to stop.
func (r *Replica) shutdown() {
	_ = closeSigner(r.recovery.signer) // first, because goroutines that are to end may wait for it
	r.listener.Close()
	r.peers.close()
	r.recovery.signing.Wait()
	r.mu.Lock()
	r.ending.note(r.fence.Settle())
	r.mu.Unlock()
	if err := r.disk.close(); err != nil {
		r.ending.note(err)
	} else {
		r.mu.Lock()
		r.ending.note(r.fence.Seal())
		r.mu.Unlock()
	}
	r.ending.lock.Close()
	<-r.end.Renewal.Over
	r.keeper.wait()
	close(r.ending.done)
}

// effect does one thing that the core asks for.
func (r *Replica) effect(e *core.Effect) {
	switch e.Verb {
	case core.Send:
		if !r.disk.holds(said{message: e.Message, to: e.To}) {
			r.out.send(e.To, e.Message)
		}
	case core.Multicast:
		if r.cfg.Trace.Ready(e.Message); !r.disk.holds(said{message: e.Message, all: true}) {
			r.measured.multicast(e.Message)
			r.out.multicast(e.Message)
		}
	case core.Note:
		r.disk.store.Note(e.Records...)
	case core.Persist:
		r.disk.store.Persist(e.Records...)
	case core.Choose:
		r.choose(e.Seq)
	case core.Accept:
		p := e.Proposal
		r.core.Accepted(p, r.cfg.Service.Accept(p.Seq, p.Batch.Choice))
	case core.Execute:
		r.cfg.Trace.Executed(e.Seq, e.Batch)
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
		r.measured.queries++
		a := r.exec.Query(e.Request)
		st := r.core.Ground(a.Version)
		r.replies.answer(e.Request, &a, &st)
	case core.Freeze:
		r.freeze(e.Seq)
	case core.Discard:
		if r.image != nil {
			r.image.stable(e.Seq)
			break
		}
		r.cfg.Service.State().Discard(r.pages.lent(e.Seq))
	case core.Fence:
		if err := r.fence.Raise(e.View, e.Seq); err != nil {
			r.ending.fail(err)
		}
	case core.Speak:
		r.speak()
	case core.Fetch:
		r.fetch(e.Seq, e.Digest)
	case core.Serve:
		r.pages.serve(e.To, e.Message.(*message.Fetch))
	case core.Install:
		r.install(e.Seq, e.Digest)
	case core.Stop:
		r.ending.fail(r.recovery.stray(e.Reason))
	default:
		r.recoveryEffect(e)
	}
}

// speak ends a silence.
func (r *Replica) speak() {
	r.replies.mute = false
	r.trustJournal()
	r.end.Log.Info("this replica votes again", "checkpoint", r.core.Stable().Seq)
}

// trustJournal has the fence say from now on that the journal holds all promises.
func (r *Replica) trustJournal() {
	k := r.disk
	if k == nil || k.trusted {
		return
	}
	k.trusted = true
	_, err := k.store.Flush() // the journal's first record must be durable before the journal is trusted
	if err == nil {
		err = r.fence.Trust(k.position)
	}
	if err != nil {
		r.disk.fail(err)
	}
}

// choose answers the core's wish for a choice for batch n, late if this replica is an offender.
func (r *Replica) choose(n SeqNum) {
	choice := choose(r.cfg.Service, n)
	if d := r.out.liar.Dawdle(); d > 0 {
		time.AfterFunc(d, func() { r.later(func() { r.core.Chosen(n, choice) }) })
		return
	}
	r.core.Chosen(n, choice)
}

// later does what an offender has put off.
func (r *Replica) later(do func()) {
	r.enter()
	defer r.leave()
	if !r.ending.begun && !r.disk.aside() {
		do()
	}
}

// choose lets the service choose for batch n.
func choose(s Service, n SeqNum) []byte {
	choice := s.Choose(n)
	return choice[:min(len(choice), MaxChoice)]
}

// execute runs a batch, and answers its requests unless the replica is mute.
func (r *Replica) execute(e *core.Effect) {
	var to recipient
	b := e.Batch
	r.exec.Begin(e.Seq)
	for i, q := range b.Requests {
		if !e.Mute && (i == 0 || q.Client != b.Requests[i-1].Client) {
			to = r.clients.recipient(q.Client)
		}
		r.measured.executed++
		a, ran := r.exec.Execute(q, b.Choice)
		if r.replies.answerTo(to, q, &a, &e.Standing); !ran {
			r.core.NoEffect(e.Seq, i, q, a.Outcome != message.NotEnrolled)
		}
		if q.Client == Administrator {
			r.forgetRevoked()
			r.clients.registerStrangers()
		}
	}
	if r.disk == nil || !r.disk.resuming {
		r.tellRecoveries()
	}
}

// rollback makes the state that of checkpoint n again.
func (r *Replica) rollback(n SeqNum) {
	if err := r.cfg.Service.State().Rollback(n); err != nil {
		r.ending.fail(fmt.Errorf("roll back to checkpoint %d: %w", n, err))
		return
	}
	r.exec.Replaced(n)
	r.receiver.gate.Follow(r.exec.Ledger())
	r.measured.rollbacks++
	r.end.Log.Info("a batch was executed that did not commit: rolled back",
		"checkpoint", n, "executed", r.core.LastExecuted())
}

// recoveryEffect does what a recovery asks for, our own or another replica's.
func (r *Replica) recoveryEffect(e *core.Effect) {
	switch e.Verb {
	case core.Renew:
		r.renewed(r.disk.store.Renew(e.Records...))
	case core.Renewed:
		durable, err := r.disk.store.Renewed(e.Seq, e.Records...)
		if r.renewed(err); r.ending.err == nil {
			r.disk.store.Flushed(durable, r.disk.say)
		}
	case core.Hush:
		r.replies.mute = true
	case core.Refresh:
		r.refreshKeyOf(e.To)
	case core.Sign:
		r.signRecovery(e.Seq)
	case core.Distrust:
		r.ending.fail(r.recovery.distrust(e))
	case core.Healed:
		r.healed(e)
	}
}

// signRecovery makes the recovery request and has it ordered. The core asks again if it
// cannot be made now. The keeper may hang, so it is asked without the lock, and not for a
// second request meanwhile.
func (r *Replica) signRecovery(bound SeqNum) {
	x := &r.recovery
	if x.asked || r.ending.begun {
		return
	}
	x.asked = true
	x.signing.Go(func() {
		request, err := x.request(bound)
		r.enter()
		defer r.leave()
		x.asked = false
		switch {
		case r.ending.begun, r.disk.aside(): // the core asks again when this replica comes back
		case err != nil:
			r.end.Warn("cannot sign the recovery request: this replica goes on recovering, and tries again", "err", err)
		default:
			r.core.Signed(request)
		}
	})
}

// tellRecoveries tells the core of the recovery requests that have come into the state.
func (r *Replica) tellRecoveries() {
	for _, x := range r.exec.News() {
		if r.core != nil {
			r.peers.noteRecovery(x.Replica)
			r.end.Log.Info("a replica recovers", "replica", x.Replica, "batch", x.Seq)
			r.core.Recovered(x.Replica, x.Seq, x.Bound, x.Timestamp)
		}
	}
}

// fetch opens a session that replaces our state by a checkpoint's. Queries are refused
// meanwhile, and batches are logged but not executed.
func (r *Replica) fetch(n SeqNum, root Digest) {
	session, err := r.transfer.begin(n, root)
	if err != nil {
		r.ending.fail(fmt.Errorf("cannot fetch checkpoint %d: %w", n, err))
		return
	}
	r.end.Log.Info("behind the group: fetching its state", "checkpoint", n, "executed", r.core.LastExecuted())
	if r.disk != nil {
		r.disk.store.Feed(session)
	}
	r.measured.fetching = time.Now()
	r.core.Fetching(session)
}

// install makes the fetched state ours.
func (r *Replica) install(n SeqNum, root Digest) {
	if err := r.transfer.session.Commit(); err != nil {
		r.ending.fail(fmt.Errorf("install the fetched state: %w", err))
		return
	}
	r.exec.Replaced(n)
	if r.disk == nil {
		r.installed(n)
		return
	}
	r.disk.installing = true
	r.image.take(&imageJob{message.CheckpointID{Seq: n, Digest: root}, func() { r.installed(n) }})
}

// installed goes on from the fetched state, which is on disk now in disk mode.
func (r *Replica) installed(n SeqNum) {
	if r.transfer.end(); r.disk != nil {
		r.disk.installing = false
	}
	r.core.Forget(r.exec.Executed)
	r.forgetRevoked()
	r.core.Installed(n)
	r.tellRecoveries()
	r.measured.installed()
	r.end.Log.Info("state fetched", "checkpoint", n,
		"took", r.measured.fetched.Took.Duration().Round(time.Millisecond), "bytes", r.measured.fetched.Bytes)
}

// refreshKeys gives every peer and client a new key under which they must speak. Messages
// under the old keys no longer count unless they are part of a whole certificate. The
// NEW-KEYs leave on another goroutine. The caller holds the lock.
func (r *Replica) refreshKeys() {
	if r.ending.begun || r.disk.aside() || !r.end.Refresh() {
		return
	}
	r.out.sparing.Refreshed()
	if r.core != nil {
		r.core.Refreshed()
	}
	fill(r.end.Renewal.Tell)
}

// refreshKeyOf has replica i, which recovers, speak under a new key. Its messages under
// the old key no longer count unless they are part of a whole certificate. The NEW-KEY
// leaves on another goroutine. The caller holds the lock.
func (r *Replica) refreshKeyOf(i ReplicaID) {
	if r.ending.begun || r.disk.aside() {
		return
	}
	r.end.RefreshOf(r.peers[i].session)
	r.out.sparing.Refreshed()
	if r.core != nil {
		r.core.RefreshedFor(i)
	}
	r.end.Renewal.Single.Owe(i)
}

// forgetRevoked treats clients that are not enrolled any more as strangers. Their waiting
// requests are not proposed.
func (r *Replica) forgetRevoked() {
	r.clients.follow()
	if r.core != nil {
		r.core.Retain(r.clients.enrolled)
	}
}

// renewed takes the result of writing the journal anew.
func (r *Replica) renewed(err error) {
	switch {
	case err == nil:
	case disk.IsFull(err):
		r.recovery.full = true
		r.disk.stepAside(err)
	default:
		r.disk.fail(err)
	}
}

// healed ends the recovery.
func (r *Replica) healed(e *core.Effect) {
	if err := r.recovery.end(e); err != nil {
		r.ending.fail(err)
		return
	}
	// An intruder may have had it speak with a journal that was not trusted, by a fence that guards
	// nothing.
	r.trustJournal()
	r.exec.Settled(r.core.Stable().Seq)
	r.recovery.note(r.core)
	r.recovery.ended(r.core)
}

// Status returns the replica's account of itself.
func (r *Replica) Status() Status {
	s := r.status()
	if s.Disk != nil { // the file system is asked without the lock
		s.Disk.Free, s.Disk.Size, _ = disk.Room(r.disk.directory)
	}
	return s
}

// status is Status without the figures of the file system.
func (r *Replica) status() Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := &r.measured
	s := Status{
		Replica: r.cfg.Self, Active: true, Durability: r.group.Durability, StateBytes: m.state,
		KeyAge: Seconds(r.end.Renewal.Age(m.started)), Refreshes: r.end.Renewal.Count.Load(),
		Executed: m.executed, Queries: m.queries,
		Refusals: append(r.end.Edge.List(), r.receiver.gate.Refused.List()...),
		Clients:  r.clients.connected(), Uptime: Seconds(time.Since(m.started)), Keeper: r.keeper.seen(),
	}
	if l := r.receiver.gate.Listener.Load(); l != nil {
		s.Floods = l.Floods()
		s.Refusals = append(s.Refusals, Refusals{Reason: "connections too many", Count: l.Stats().Refused})
	}
	if r.core == nil {
		s.LastExecuted = SeqNum(m.executed)
		return s
	}
	s.View, s.Active = r.core.View()
	s.Primary = s.View.Primary(r.group.N())
	s.SilentUntil, s.Fetching, s.Recovery = r.core.SilentUntil(), r.core.Transferring(), r.recovery.status(r.core)
	s.LastExecuted, s.LogBytes = r.core.LastExecuted(), r.core.LogBytes()
	r.core.OverShare(func(client ClientID) { s.OverShare = append(s.OverShare, client) })
	stable := r.core.Stable()
	s.Stable, s.Root = stable.Seq, hex.EncodeToString(stable.Digest[:])
	s.ViewChanges, s.ViewChange, s.Fetched = m.changes, Seconds(m.stall), m.fetched
	s.SlowPrimary = r.core.LeftSlow().Times
	s.Rollbacks, s.Disk = m.rollbacks, r.disk.status()
	for i, p := range r.peers {
		if p != nil {
			low, last := r.core.Peer(ReplicaID(i))
			_, over := r.core.RecoveryOf(ReplicaID(i))
			wrong := r.core.Dispute(ReplicaID(i))
			s.Peers = append(s.Peers, PeerStatus{Replica: ReplicaID(i), Connected: p.link.Up() && p.inbound != nil,
				Keys: p.session.Ready(), LastExecuted: last, Stable: low, Recovering: !over,
				WrongVotes: wrong.Votes, WrongRoots: wrong.Roots, False: wrong.False, Recovered: p.recoveredAgo()})
		}
	}
	for _, why := range core.Refusals() {
		s.Refusals = append(s.Refusals, Refusals{Reason: why.String(), Count: r.core.Refused(why)})
	}
	return s
}
