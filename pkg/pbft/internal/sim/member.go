// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/sha256"
	"fmt"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/pbfttest"
)

// A replica is one live copy of a member: a real core, with a state, a ledger and a
// service around it, that does what pbft.Replica does with sockets.
type replica struct {
	w       *world
	id      int
	twin    int
	mute    bool // silent: no client is answered
	life    int  // raised by every restart: messages for an earlier life do not arrive
	core    *core.Core
	memory  *pbfttest.Memory
	exec    *executor.Executor
	service pbft.Service
	session pbft.Install
	ahead   *message.Batch // executed last, tentatively
	at      message.SeqNum // the last batch in the state
	fetched message.SeqNum // the last checkpoint that was fetched in this life
	pace    int64          // of its clock: a tick lasts so long
	paused  int64          // until when it stands still
	down    bool
	view    message.View // the highest seen
	begun   message.View // the last one it was active in
	idle    int          // views since it executed something
	hashing int64        // a root takes so long at most
	inbox   map[int][]frame
	decoder message.Decoder // of all connections: it uses its memory again, as in the product
	encoded struct {
		of message.Message // the last that was
		as []byte
	}
	stopped string

	keeper     *keeper // nil unless in disk mode
	recovers   bool    // this life began with a recovery that is not over
	remembers  bool    // it has all that its earlier lives promised
	installing bool    // its fetched state is not on its disk yet
}

func newReplica(w *world, id, twin int) *replica {
	r := &replica{w: w, id: id, twin: twin, pace: 95 + w.rng.Int64N(11)}
	r.boot()
	w.after(w.rng.Int64N(tick), r.tick)
	return r
}

// boot gives the replica an empty state and a core that remembers nothing but its fence.
func (r *replica) boot() {
	w := r.w
	r.memory = pbfttest.NewMemory()
	service := newRegister(r.memory, w.first)
	service.by = byte(r.id)
	r.service, r.session = service, nil
	r.exec, r.at = w.newExecutor(service, r.memory), 0
	cost := r.exec.Cost
	if w.shape.long {
		cost = nil // otherwise every request would wait for its turn
	}
	w.sites[r.id].forsaken()
	cfg := core.Config{
		Self: message.ReplicaID(r.id), Replicas: w.n,
		CheckpointPeriod: w.shape.period, CheckpointBytes: w.shape.bytes, LogSize: w.shape.log, Window: w.shape.window,
		Tentative: w.shape.tentative, Piggyback: w.shape.piggyback, Separate: w.shape.separate,
		Batch: core.BatchLimit{Bytes: 4 << 10, Count: w.shape.batch, Cost: 2 * costOfLong}, Cost: cost, Now: w.time,
		LogBytes: 1 << 20,
		Clients:  maxClients + 1 + w.n, Slots: ledgerSlots, QueueBytes: queueBytes,
		Ticks: core.Ticks{Status: 15, Resend: 5, Forward: 3, Timeout: firstTimeout}, Fence: w.sites[r.id].fence,
		FenceView: w.sites[r.id].view, Lost: w.sites[r.id].lost,
	}
	r.fetched = 0
	if w.sites[r.id].bound = 0; r.recovers {
		cfg.Recovery = w.rng.Uint64() | 1
	}
	var state message.CheckpointID
	if r.remembers, r.installing = false, false; w.shape.durable {
		cfg.Fence, cfg.FenceView = 0, 0
		var records []message.Message
		var ok bool
		if state, records, ok = r.recall(&cfg); !ok {
			return
		}
		r.core = core.Restore(cfg, state, records)
	} else {
		r.core = core.New(cfg)
	}
	r.core.Trace(func(m message.Message, why core.Refusal) {
		if w.log != nil {
			r.say("refuses %s: %v", describe(m), why)
		}
		w.judge.vows.refused(r, m, why)
		if why == core.OperationMissing && !r.lies() {
			w.marks.hit(markLacked)
		}
	})
	r.view, _ = r.core.View()
	r.begun, r.idle, r.mute = r.view, 0, r.core.SilentUntil() > 0
	if !r.remembers {
		w.judge.vows.forgets(r.id)
	}
	hashing := r.hashing
	r.hashing = 0
	if state.Seq == 0 {
		r.freeze(0)
	}
	if r.perform(); w.shape.durable || r.recovers {
		r.core.Resume()
		r.perform()
	}
	r.hashing = hashing
}

func (r *replica) say(format string, args ...any) {
	if r.w.log == nil {
		return
	}
	who := fmt.Sprint(r.id)
	if r.w.sites[r.id].twins {
		who += string(rune('a' + r.twin))
	}
	r.w.say("%-3s %s", who, fmt.Sprintf(format, args...))
}

func (r *replica) lies() bool { return r.w.sites[r.id].liar() }

// running runs f now, or when the replica no longer stands still, but not in another life.
func (r *replica) running(f func()) {
	switch {
	case r.down || r.stopped != "":
	case r.paused > r.w.now:
		life := r.life
		r.w.at(r.paused, func() {
			if r.life == life {
				r.running(f)
			}
		})
	default:
		r.w.acting = r
		f()
	}
}

func (r *replica) tick() {
	w := r.w
	if !r.down && r.paused <= w.now && r.stopped == "" && !r.aside() {
		w.acting = r
		r.core.Tick()
		r.core.UnderWay() // asked for once a tick, to see that it does no harm
		r.perform()
		w.judge.bounds(r)
	}
	w.after(r.pace, r.tick)
}

// restart ends this life and begins another, which knows only its fence and what is on
// its disk. A recovery that is under way begins anew.
func (r *replica) restart(pause int64) { r.end(pause) }

// recover is a restart that is a recovery.
func (r *replica) recover(pause int64) {
	r.recovers = true
	r.end(pause)
}

func (r *replica) end(pause int64) {
	r.life++
	r.down, r.inbox = true, nil
	if r.keeper != nil && r.w.rng.IntN(4) > 0 { // otherwise only the process ended, and not the machine
		r.keeper.disk.Crash()
	}
	r.wake(pause)
}

// wake begins another life after a while. If the disk is too full for that, it tries again.
func (r *replica) wake(pause int64) {
	r.w.after(pause, func() {
		r.down, r.stopped = false, ""
		if r.boot(); r.down {
			r.wake(20 * tick)
			return
		}
		r.say("restarts with fence %d, recovers %t", r.w.sites[r.id].fence, r.recovers)
		for _, s := range r.w.sites {
			for _, peer := range s.copies {
				if peer != r {
					r.w.after(r.w.rng.Int64N(3*tick), func() {
						peer.running(func() { peer.core.KeysChanged(message.ReplicaID(r.id)); peer.perform() })
					})
				}
			}
		}
	})
}

// gather lets the replica take in a message of a principal, at once or together with
// others that come from the same principal a moment later: a read of a connection brings
// up to 64 messages, and the core steps all of them before its effects are performed.
func (r *replica) gather(from int, b frame) {
	w := r.w
	if w.shape.gather == 0 {
		r.take(from, b)
		r.taken()
		return
	}
	if r.inbox == nil {
		r.inbox = map[int][]frame{}
	}
	r.inbox[from] = append(r.inbox[from], b)
	if len(r.inbox[from]) > 1 {
		return
	}
	life := r.life
	w.after(w.rng.Int64N(w.shape.gather), func() {
		if r.life == life {
			r.running(func() { r.drain(from) })
		}
	})
}

// drain takes in the gathered messages of a principal.
func (r *replica) drain(from int) {
	all := r.inbox[from]
	if len(all) > 64 {
		r.inbox[from] = all[64:]
		r.w.after(0, func() { r.running(func() { r.drain(from) }) })
	} else {
		delete(r.inbox, from)
	}
	for _, b := range all[:min(len(all), 64)] {
		if r.stopped == "" {
			r.take(from, b)
		}
	}
	r.taken()
}

// taken performs the effects of the messages that were taken in, whose memory is then used again.
func (r *replica) taken() {
	r.perform()
	r.decoder.Reset()
}

// A frame is a message on its way, and the epoch of its receiver's keys in which it was
// sealed. A client's request has MACs of its own.
type frame struct {
	b     []byte
	under int
}

// take steps the core with a message of a replica or a client.
func (r *replica) take(from int, x frame) {
	switch {
	case r.aside():
	case from >= r.w.n:
		r.hear(x.b)
	case r.w.keys.opens(from, r.id, x.under):
		r.receive(from, x.b)
	}
}

// receive takes in a message of replica from.
func (r *replica) receive(from int, b []byte) {
	m, err := r.decoder.Decode(b, &r.w.wire)
	if err != nil {
		if !r.w.sites[from].liar() {
			r.w.fail("replica %d, which is correct, sent %d what does not decode: %v", from, r.id, err)
		}
		return
	}
	if m = r.attribute(m, message.ReplicaID(from)); m == nil {
		return
	}
	r.w.keys.note(r, from, m)
	switch m := m.(type) {
	case *message.Request:
		r.request(m)
	case *message.BatchBody:
		lacked := r.core.Lacks(m.Digest)
		if r.core.Step(m); lacked && !r.core.Lacks(m.Digest) && !r.lies() {
			r.w.marks.hit(markFetched)
		}
	default:
		r.core.Step(m)
	}
	r.w.keys.begin(r)
}

// attribute writes into a message who sent it, as the sessions' MACs say.
func (r *replica) attribute(m message.Message, from message.ReplicaID) message.Message {
	if q, ok := m.(*message.Request); ok {
		q.PassedBy, q.Authentic = from, r.w.authentic(q, r.id)
		return q
	}
	if !message.Attribute(m, from) {
		return nil
	}
	r.w.sites[r.id].learn(from, m)
	if p, ok := m.(*message.PrePrepare); ok {
		for _, q := range p.Batch.Requests {
			q.Authentic = r.w.authentic(q, r.id)
		}
	}
	return m
}

// hear takes in a client's request from its own connection.
func (r *replica) hear(b []byte) {
	m, err := r.decoder.Decode(b, &r.w.wire)
	if err != nil {
		return
	}
	q := m.(*message.Request)
	q.PassedBy, q.Authentic = message.ReplicaID(r.id), r.w.authentic(q, r.id)
	if q.Authentic {
		r.request(q)
	}
}

// request answers a request that the slot has executed already, and gives any other to the core.
func (r *replica) request(q *message.Request) {
	if r.installing {
		return // its answers must survive the fetch
	}
	if i, recovers := q.Client.Recoverer(); recovers && q.Authentic {
		if _, seen := r.seen(q); seen {
			last := r.exec.Ledger().Recovery(i)
			r.core.AnswerRecovery(i, last.Seq, last.Timestamp)
			return
		}
	}
	if q.ReadOnly {
		if _, ok := r.exec.Ledger().Client(q.Client); !ok {
			a := executor.Answer{Outcome: message.NotEnrolled}
			r.answerUnless(r.mute || r.forgets(a), q, a, r.ground())
			return
		}
	} else if a, seen := r.seen(q); seen {
		if !q.Authentic || r.mute || r.forgets(a) {
			return
		}
		st, certain := r.core.Standing(q)
		r.answerUnless(!certain, q, a, st)
		if certain && !st.Tentative {
			return
		}
	}
	if q.IsStub() {
		if !r.core.Fill(q) {
			a := executor.Answer{Outcome: message.Missing}
			r.answerUnless(r.mute || int(q.PassedBy) != r.id, q, a, r.ground())
			return
		}
		r.w.marks.hit(markFilled)
	}
	r.core.Step(q)
}

// seen is what the state says of a request, if the state is where the core is.
func (r *replica) seen(q *message.Request) (executor.Answer, bool) {
	if _, seen := r.exec.Seen(q); !seen {
		return executor.Answer{}, false
	}
	r.performAll(r.core.Due)
	return r.exec.Seen(q)
}

// forgets reports whether an answer may be wrong because the state is being fetched.
func (r *replica) forgets(a executor.Answer) bool {
	return a.Outcome == message.NotEnrolled && r.core.Forgets()
}

// ground is the standing of an answer that certainly holds.
func (r *replica) ground() (st core.Standing) {
	st.View, _ = r.core.View()
	return st
}

// execute runs a batch as number n and answers on the ground of st, unless it is mute.
func (r *replica) execute(n message.SeqNum, b *message.Batch, st core.Standing, mute bool) {
	r.exec.Begin(n)
	r.at = n
	for i, q := range b.Requests {
		r.w.judge.blocks(r, q)
		a, ran := r.exec.Execute(q, b.Choice)
		if !ran {
			r.core.NoEffect(n, i, q, a.Outcome != message.NotEnrolled)
		}
		r.answerUnless(mute, q, a, st)
		if q.Client == message.Administrator {
			r.retain()
		}
	}
	r.tellRecoveries()
}

// tellRecoveries tells the core of the recovery requests that have come into the state.
func (r *replica) tellRecoveries() {
	for _, x := range r.exec.News() {
		r.core.Recovered(x.Replica, x.Seq, x.Bound, x.Timestamp)
	}
}

// retain makes the core forget the clients that are not enrolled any more.
func (r *replica) retain() {
	r.core.Retain(func(id message.ClientID) bool {
		_, ok := r.exec.Ledger().Client(id)
		return ok
	})
}

// tentative reports whether the last batch in the state may still be undone.
func (r *replica) tentative() bool { return r.core.Ahead() == r.at && r.at > 0 }

func (r *replica) answerUnless(mute bool, q *message.Request, x executor.Answer, st core.Standing) {
	w := r.w
	c := w.clientOf(q.Client)
	if mute || c == nil {
		return
	}
	a := message.Answer{Slot: q.Slot, Timestamp: q.Timestamp, Outcome: x.Outcome, ReadOnly: q.ReadOnly,
		Length: len(x.Result), Result: x.Result, Version: x.Version}
	if !a.Long() || int(q.Replier) == r.id || q.Replier == message.AnyReplier {
		a.Full = true
	}
	if a.Long() && (a.Full || q.ReadOnly || q.Provers&(1<<r.id) != 0) {
		a.Proved, a.Proof = true, prove(r.id, x.Result)
	}
	m := &message.Reply{View: st.View, Seq: st.Seq, Tentative: st.Tentative, Answers: []message.Answer{a}}
	at, tentative := r.at, r.tentative()
	r.when(func() { r.reply(c, m, at, tentative) })
}

// reply sends a REPLY that was made from the state after batch at.
func (r *replica) reply(c *caller, m *message.Reply, at message.SeqNum, tentative bool) {
	w := r.w
	if m.Answers[0].Outcome == message.Missing {
		w.marks.hit(markMissing)
	} else {
		w.judge.vows.afterLoss(r, m)
		w.judge.vows.replies(r, c, m, at, tentative)
	}
	for _, edited := range w.sites[r.id].tell(r, c.principal(), m) {
		if w.network.loses(r.id, c.principal(), edited) {
			continue
		}
		b := encode(edited)
		life, under := c.life, w.keys.under(r.id, c.principal())
		w.network.send(r.id, c.principal(), func() {
			if w.keys.opens(r.id, c.principal(), under) {
				c.hear(life, r.id, b)
			}
		})
	}
}

// prove stands for replica i's MAC of a result, under the key that it shares with each client.
func prove(i int, result []byte) (p message.Proof) {
	d := sha256.Sum256(append([]byte{byte(i)}, result...))
	copy(p.Tag[:], d[:])
	return p
}

// perform carries out the core's effects, top to bottom, until none is left.
func (r *replica) perform() {
	r.performAll(r.core.Effects)
	r.w.judge.watch(r)
	r.w.judge.waits(r)
	r.flush()
}

func (r *replica) performAll(next func() []core.Effect) {
	for r.stopped == "" {
		effects := next()
		if len(effects) == 0 {
			return
		}
		for i := range effects {
			r.effect(&effects[i])
		}
	}
}

func (r *replica) effect(e *core.Effect) {
	w := r.w
	switch e.Verb {
	case core.Send:
		r.says(e.Message, int(e.To))
	case core.Multicast:
		r.says(e.Message, everyone)
	case core.Note:
		r.keeper.store.Note(e.Records...)
	case core.Persist:
		r.keeper.store.Persist(e.Records...)
	case core.Choose:
		r.core.Chosen(e.Seq, r.service.Choose(e.Seq))
	case core.Accept:
		r.core.Accepted(e.Proposal, r.service.Accept(e.Proposal.Seq, e.Proposal.Batch.Choice))
	case core.Execute:
		if e.Standing.Tentative {
			r.say("executes n%d %s tentatively", e.Seq, describeBatch(e.Batch))
			n, view, batch := e.Seq, e.Standing.View, e.Batch
			r.when(func() { w.judge.tentative(r, n, view, batch) })
			for _, f := range w.early {
				f(r, e.Standing.View, e.Seq)
			}
			r.ahead = e.Batch
		} else {
			r.say("executes n%d %s", e.Seq, describeBatch(e.Batch))
			r.judged(e.Seq, e.Batch)
			if n, view, batch := e.Seq, e.Standing.View, e.Batch; e.Standing.Seq > 0 {
				r.when(func() { w.judge.tentative(r, n, view, batch) })
			}
		}
		r.execute(e.Seq, e.Batch, e.Standing, e.Mute)
		if s := w.sites[r.id]; w.shape.foresees {
			s.fence = fence.Foreseen(s.fence, e.Seq, w.shape.period)
		}
	case core.Confirm:
		r.judged(e.Seq, r.ahead)
		r.standsAgain(e.Seq, r.ahead)
	case core.Rollback:
		r.rollback(e.Seq)
	case core.Repeat:
		r.execute(e.Seq, e.Batch, core.Standing{}, true)
	case core.Query:
		a := r.exec.Query(e.Request)
		st := r.core.Ground(a.Version)
		if st.Seq > 0 && !st.Tentative {
			w.judge.stands(r, st.View, st.Seq)
		}
		r.answerUnless(false, e.Request, a, st)
	case core.Freeze:
		r.freeze(e.Seq)
	case core.Discard:
		r.say("checkpoint n%d is stable", e.Seq)
		if n := e.Seq; n > 0 {
			r.when(func() { w.judge.stable(r, n) })
		}
		r.followStable(e.Seq)
		r.discard()
	case core.Fence:
		r.say("may promise up to n%d and view %d", e.Seq, e.View)
		w.sites[r.id].fence, w.sites[r.id].view = max(w.sites[r.id].fence, e.Seq), max(w.sites[r.id].view, e.View)
		if r.remembers {
			w.sites[r.id].position = uint64(r.keeper.store.Position())
		}
	case core.Speak:
		r.say("is silent no more")
		if r.mute = false; !r.trustJournal() {
			return
		}
	case core.Fetch:
		r.fetch(e.Seq, e.Digest)
	case core.Serve:
		r.serve(int(e.To), e.Message.(*message.Fetch))
	case core.Install:
		r.install(e.Seq)
	case core.Stop:
		r.stop(e.Reason)
	default:
		r.recoveryEffect(e)
	}
}

// everyone is all other replicas.
const everyone = -1

// says sends a message as soon as it may leave.
func (r *replica) says(m message.Message, to int) {
	if !core.IsPromise(m) {
		r.leaves(m, to)
		return
	}
	r.when(func() { r.leaves(m, to) })
}

// leaves judges a message and sends it.
func (r *replica) leaves(m message.Message, to int) {
	w := r.w
	w.judge.vows.promises(r, m)
	if to != everyone {
		switch m := m.(type) {
		case *message.Decided:
			w.judge.decided(r, m)
		case *message.Recovered:
			w.judge.ordered(r, m)
		}
		r.send(to, m)
		return
	}
	w.judge.said(r, m)
	for to := range w.n {
		if to != r.id {
			r.send(to, m)
		}
	}
}

// judged judges an execution. In disk mode the execution counts when the records that it
// follows from are on the disk: before that no message tells of it.
func (r *replica) judged(n message.SeqNum, b *message.Batch) {
	r.when(func() { r.w.judge.executed(r, n, b) })
}

// standsAgain notes that a batch that was executed tentatively in one view has prepared
// in a later one too. Answers from the state after it then stand on the later view.
func (r *replica) standsAgain(n message.SeqNum, b *message.Batch) {
	view, _ := r.core.View()
	if d, prepared := r.core.Prepared(n); prepared && d == b.Digest() {
		r.when(func() { r.w.judge.tentative(r, n, view, b) })
	}
}

func (r *replica) rollback(n message.SeqNum) {
	r.say("rolls back to n%d", n)
	r.w.marks.hit(markRollback)
	if err := r.memory.Rollback(n); err != nil {
		r.stop(err.Error())
	}
	r.exec.Replaced(n)
	r.at = n
}

func (r *replica) stop(why string) {
	r.stopped = why
	r.say("stops: %s", why)
	switch s := r.w.sites[r.id]; {
	case !r.lies():
		r.w.fail("replica %d, which is correct, stops: %s", r.id, why)
	case !s.edits():
		r.setAside()
	}
}

// send carries a message to the live copies of a replica.
func (r *replica) send(to int, m message.Message) {
	w := r.w
	for _, edited := range w.sites[r.id].tell(r, to, m) {
		if w.log != nil {
			r.say("-> %d  %s", to, describe(edited))
		}
		w.judge.vows.told(r, edited)
		if w.network.loses(r.id, to, edited) {
			continue
		}
		if r.encoded.of != edited {
			r.encoded.of, r.encoded.as = edited, encode(edited)
		}
		x, life := frame{r.encoded.as, w.keys.under(r.id, to)}, r.life
		for _, peer := range w.sites[to].copies {
			if w.sites[to].twins && !w.network.reaches(r, peer) || w.sites[r.id].twins && !w.network.reaches(peer, r) {
				continue
			}
			was := peer.life
			w.network.send(r.id, to, func() {
				if peer.life == was && r.life == life {
					peer.running(func() { peer.gather(r.id, x) })
				}
			})
		}
	}
}

// freeze takes a checkpoint. Its root is known later.
func (r *replica) freeze(n message.SeqNum) {
	r.exec.Frozen(n)
	r.memory.Freeze(n, nil)
	root := r.memory.Root()
	r.when(func() { r.w.judge.root(r, n, root) })
	frozen := func() {
		r.core.Frozen(n, root)
		r.perform()
	}
	if r.hashing == 0 || n == 0 {
		r.core.Frozen(n, root)
		return
	}
	life, of := r.life, r.core
	r.w.after(r.w.rng.Int64N(r.hashing), func() {
		if r.life == life && r.core == of {
			r.running(frozen)
		}
	})
}

func (r *replica) fetch(n message.SeqNum, root message.Digest) {
	r.w.judge.vows.fetches(r, n, root)
	session, err := r.memory.Install(n, root)
	if err != nil {
		r.stop(err.Error())
		return
	}
	r.say("begins to fetch checkpoint n%d", n)
	if r.session = session; r.keeper != nil {
		r.keeper.store.Feed(session)
	}
	r.core.Fetching(session)
}

func (r *replica) serve(to int, m *message.Fetch) {
	answer := &message.Data{Seq: m.Seq, Tag: m.Tag}
	for _, id := range m.Nodes {
		var item message.Item
		var err error
		if id.Level == 0 {
			item.Bytes, err = r.memory.PageAt(m.Seq, pbft.PageNum(id.Index))
		} else {
			var children []pbft.Digest
			children, err = r.memory.Children(m.Seq, id)
			for _, d := range children {
				item.Bytes = append(item.Bytes, d[:]...)
			}
		}
		if err == nil {
			item.Node = id
			answer.Items = append(answer.Items, item)
		}
	}
	answer.Gone = len(answer.Items) == 0 && len(m.Nodes) > 0
	r.send(to, answer)
}

func (r *replica) install(n message.SeqNum) {
	if err := r.session.Commit(); err != nil {
		r.stop(err.Error())
		return
	}
	r.say("installs checkpoint n%d", n)
	r.session = nil
	r.exec.Replaced(n)
	r.at, r.fetched = n, n
	r.w.judge.root(r, n, r.memory.Root())
	r.w.judge.installed(r)
	installed := func() {
		r.installing = false
		r.core.Forget(r.exec.Executed)
		r.retain()
		r.core.Installed(n)
		r.tellRecoveries()
	}
	if r.keeper == nil {
		installed()
		return
	}
	r.installing = true
	r.follow(message.CheckpointID{Seq: n, Digest: r.memory.Root()}, installed)
}

// newExecutor runs requests on a service whose ledger has all clients enrolled.
func (w *world) newExecutor(s pbft.Service, m *pbfttest.Memory) *executor.Executor {
	x, err := executor.New(s, m, maxClients, ledgerSlots, executor.Limits{Reply: w.wire.Reply, Rights: maxRights})
	if err != nil {
		panic(err)
	}
	for i := range maxClients {
		if err := x.Ledger().Enrol(clientKey(i), nil, 0); err != nil {
			panic(err)
		}
	}
	return x
}

// maxRights bounds the rights of a client, in bytes.
const maxRights = 16
