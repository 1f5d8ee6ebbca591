// SPDX-License-Identifier: Apache-2.0

package signed

import (
	"crypto/sha256"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// Config is what a replica must know of its group; names and meanings are the core's.
type Config struct {
	Self                      message.ReplicaID
	Replicas                  int            // n >= 3f+1
	CheckpointPeriod, LogSize message.SeqNum // K and L
	Window                    message.SeqNum // batches under way at the primary, at most
	BatchCount                int
	ResendTicks               int // all is said again every so many ticks
	TimeoutTicks              int // the view-change timer's first period
}

// A Verb is a kind of effect.
type Verb uint8

// What a replica can be told to do.
const (
	Send      Verb = iota + 1 // Message to replica To
	Multicast                 // Message to all other replicas
	Execute                   // run Batch as number Seq
)

// An Effect is one instruction to whoever runs a replica.
type Effect struct {
	Verb    Verb
	To      message.ReplicaID
	Message Message
	Seq     message.SeqNum
	Batch   *message.Batch
}

const maxDoubling = 6 // of the view-change timer

// A Replica is one replica's state of the protocol.
type Replica struct {
	cfg    Config
	key    Key
	f      int
	view   message.View
	active bool

	low         message.SeqNum
	proof       []Signed // that low is stable
	checkpoints map[message.SeqNum][]Signed
	slots       map[message.SeqNum]*slot       // of this view, in (low, low+L]
	carried     map[message.SeqNum]Certificate // P: what prepared last, in this view or before
	seqno       message.SeqNum

	decided  map[message.SeqNum]Decision // all of them, from 1 on
	lastExec message.SeqNum
	state    message.Digest // chained over all that was executed

	queue    []*message.Request // waits to be executed, in order of arrival
	proposed map[message.RequestKey]message.Timestamp
	done     map[message.RequestKey]message.Timestamp

	changes []Signed // by replica: its latest VIEW-CHANGE, for our view or a later one
	newView Signed   // with which the view began

	tick, due, timeout int // due 0: the timer is off
	out                []Effect
}

// A slot holds a replica's knowledge of a number in the present view.
type slot struct {
	proposal Signed
	batch    *message.Batch
	prepares []Signed // by replica, the first of each
	commits  []Signed
}

// New is a replica in the initial state.
func New(cfg Config, key Key) *Replica {
	return &Replica{
		cfg: cfg, key: key, f: message.GroupSize(cfg.Replicas).Faulty(), active: true, timeout: cfg.TimeoutTicks,
		checkpoints: map[message.SeqNum][]Signed{}, slots: map[message.SeqNum]*slot{},
		carried: map[message.SeqNum]Certificate{}, decided: map[message.SeqNum]Decision{},
		proposed: map[message.RequestKey]message.Timestamp{}, done: map[message.RequestKey]message.Timestamp{},
		changes: make([]Signed, cfg.Replicas),
	}
}

// View is the view this replica is in, and whether it is active.
func (r *Replica) View() (v message.View, active bool) { return r.view, r.active }

// LastExecuted is the number up to which batches were executed.
func (r *Replica) LastExecuted() message.SeqNum { return r.lastExec }

// Low is the number of the stable checkpoint.
func (r *Replica) Low() message.SeqNum { return r.low }

// Decided is the digest that was decided for n, if this replica knows.
func (r *Replica) Decided(n message.SeqNum) (message.Digest, bool) {
	d, ok := r.decided[n]
	if !ok {
		return message.Digest{}, false
	}
	return d.Batch.Digest(), true
}

func (r *Replica) quorum() int                { return message.GroupSize(r.cfg.Replicas).Quorum() }
func (r *Replica) primary() message.ReplicaID { return r.view.Primary(r.cfg.Replicas) }
func (r *Replica) isPrimary() bool            { return r.primary() == r.cfg.Self }

// Step takes in a message from whomever: what matters in it is signed.
func (r *Replica) Step(m Message) {
	switch m := m.(type) {
	case Wish:
		r.onWish(m.Request)
	case Status:
		for n := m.LastExecuted + 1; n <= min(r.lastExec, m.LastExecuted+r.cfg.LogSize); n++ {
			r.out = append(r.out, Effect{Verb: Send, To: m.From, Message: r.decided[n]})
		}
	case Decision:
		r.onDecision(m)
	case Said:
		if m.signer > 0 && m.signer <= r.cfg.Replicas {
			r.onSaid(m)
		}
	}
}

func (r *Replica) onSaid(m Said) {
	switch b := m.body.(type) {
	case PrePrepare:
		r.onPrePrepare(m.Signed, b, m.Batch)
	case Prepare:
		if s := r.slot(Vote(b)); s != nil && !m.by(r.primary()) {
			record(s.prepares, m.Signed)
			r.advance(b.Seq, s)
		}
	case Commit:
		if s := r.slot(Vote(b)); s != nil {
			record(s.commits, m.Signed)
			r.advance(b.Seq, s)
		}
	case Checkpoint:
		r.onCheckpoint(m.Signed, b)
	case ViewChange:
		r.onViewChange(m.Signed, b)
	case NewView:
		r.onNewView(m.Signed, b)
	}
}

// record keeps the first vote of each replica.
func record(votes []Signed, s Signed) {
	if votes[s.signer-1].signer == 0 {
		votes[s.signer-1] = s
	}
}

// Tick notes that one tick of time passed.
func (r *Replica) Tick() {
	r.tick++
	if r.tick%r.cfg.ResendTicks == 0 {
		r.resend()
	}
	switch {
	case r.active && len(r.queue) == 0:
		r.due = 0
	case r.due == 0 && (r.active || r.reached(r.view) >= r.quorum()):
		r.due = r.tick + r.timeout
	case r.due > 0 && r.tick >= r.due:
		r.timeout = min(2*r.timeout, r.cfg.TimeoutTicks<<maxDoubling)
		r.Leave(r.view + 1)
	}
}

// Effects takes what must now be done.
func (r *Replica) Effects() []Effect {
	r.propose()
	out := r.out
	r.out = nil
	return out
}

// say signs a statement, tells all and takes it in ourselves.
func (r *Replica) say(body Statement, b *message.Batch) {
	m := Said{r.key.Sign(body), b}
	r.out = append(r.out, Effect{Verb: Multicast, Message: m})
	r.onSaid(m)
}

// resend says again all that may have been lost.
func (r *Replica) resend() {
	tell := func(m Message) { r.out = append(r.out, Effect{Verb: Multicast, Message: m}) }
	tell(Status{r.cfg.Self, r.lastExec})
	for _, s := range r.proof {
		tell(Said{Signed: s})
	}
	for n := r.low + 1; n <= r.low+r.cfg.LogSize; n++ {
		if votes := r.checkpoints[n]; votes != nil && votes[r.cfg.Self].signer > 0 {
			tell(Said{Signed: votes[r.cfg.Self]})
		}
		s := r.slots[n]
		if s == nil {
			continue
		}
		if s.proposal.by(r.cfg.Self) {
			tell(Said{s.proposal, s.batch})
		}
		for _, own := range []Signed{s.prepares[r.cfg.Self], s.commits[r.cfg.Self]} {
			if own.signer > 0 {
				tell(Said{Signed: own})
			}
		}
	}
	for _, s := range []Signed{r.changes[r.cfg.Self], r.newView} {
		if s.signer > 0 {
			tell(Said{Signed: s})
		}
	}
}

// onWish queues a request; a backup passes it on [OSDI99 §4.1].
func (r *Replica) onWish(q *message.Request) {
	if q.Timestamp <= r.done[q.Key()] {
		return
	}
	for _, have := range r.queue {
		if have.Key() == q.Key() && have.Timestamp >= q.Timestamp {
			return
		}
	}
	r.queue = append(r.queue, q)
	if !r.isPrimary() {
		r.out = append(r.out, Effect{Verb: Send, To: r.primary(), Message: Wish{q}})
	}
}

// propose gives numbers to waiting requests [OSDI99 §4.2].
func (r *Replica) propose() {
	for r.active && r.isPrimary() && r.seqno < min(r.lastExec+r.cfg.Window, r.low+r.cfg.LogSize) {
		b := &message.Batch{}
		for _, q := range r.queue {
			if q.Timestamp > r.proposed[q.Key()] && len(b.Requests) < r.cfg.BatchCount {
				b.Requests = append(b.Requests, q)
				r.proposed[q.Key()] = q.Timestamp
			}
		}
		if len(b.Requests) == 0 {
			return
		}
		r.seqno++
		r.say(PrePrepare{r.view, r.seqno, b.Digest()}, b)
	}
}

// slot is where a vote belongs; nil if it may not be said now.
func (r *Replica) slot(v Vote) *slot {
	if !r.active || v.View != r.view || v.Seq <= r.low || v.Seq > r.low+r.cfg.LogSize {
		return nil
	}
	s := r.slots[v.Seq]
	if s == nil {
		s = &slot{prepares: make([]Signed, r.cfg.Replicas), commits: make([]Signed, r.cfg.Replicas)}
		r.slots[v.Seq] = s
	}
	return s
}

func (r *Replica) onPrePrepare(m Signed, p PrePrepare, b *message.Batch) {
	s := r.slot(Vote(p))
	if s == nil || !m.by(r.primary()) || s.proposal.signer > 0 || b == nil || b.Digest() != p.Digest {
		return
	}
	s.proposal, s.batch = m, b
	r.advance(p.Seq, s)
}

// advance decides what the votes of a slot now mean [OSDI99 §4.2].
func (r *Replica) advance(n message.SeqNum, s *slot) {
	if s.proposal.signer == 0 {
		return
	}
	d := s.proposal.body.(PrePrepare).Digest
	if !r.isPrimary() && s.prepares[r.cfg.Self].signer == 0 {
		r.say(Prepare{r.view, n, d}, nil)
		return // say came back here
	}
	if signers(s.prepares, Prepare{r.view, n, d}, nobody) < r.quorum()-1 {
		return
	}
	r.carry(n, s, d)
	if s.commits[r.cfg.Self].signer == 0 {
		r.say(Commit{r.view, n, d}, nil)
		return
	}
	if signers(s.commits, Commit{r.view, n, d}, nobody) >= r.quorum() {
		r.onDecision(Decision{n, s.batch, slices.Clone(s.commits)})
	}
}

// carry keeps the prepared certificate.
func (r *Replica) carry(n message.SeqNum, s *slot, d message.Digest) {
	if r.carried[n].Proposal == s.proposal {
		return
	}
	c := Certificate{Proposal: s.proposal, Batch: s.batch}
	for _, p := range s.prepares {
		if p.body == (Prepare{r.view, n, d}) && len(c.Prepares) < r.quorum()-1 {
			c.Prepares = append(c.Prepares, p)
		}
	}
	r.carried[n] = c
}

// onDecision takes a decision for its proof and executes in order.
func (r *Replica) onDecision(m Decision) {
	if _, known := r.decided[m.Seq]; known || m.Batch == nil {
		return
	}
	if !slices.ContainsFunc(m.Commits, func(s Signed) bool {
		c, ok := s.body.(Commit)
		return ok && c.Seq == m.Seq && c.Digest == m.Batch.Digest() && signers(m.Commits, c, nobody) >= r.quorum()
	}) {
		return
	}
	r.decided[m.Seq] = m
	for {
		d, ok := r.decided[r.lastExec+1]
		if !ok {
			return
		}
		r.execute(d)
	}
}

func (r *Replica) execute(d Decision) {
	r.lastExec = d.Seq
	digest := d.Batch.Digest()
	r.state = sha256.Sum256(append(r.state[:], digest[:]...))
	r.out = append(r.out, Effect{Verb: Execute, Seq: d.Seq, Batch: d.Batch})
	for _, q := range d.Batch.Requests {
		r.done[q.Key()] = max(r.done[q.Key()], q.Timestamp)
		if r.timeout = r.cfg.TimeoutTicks; r.active {
			r.due = 0
		}
	}
	r.queue = slices.DeleteFunc(r.queue, func(q *message.Request) bool { return q.Timestamp <= r.done[q.Key()] })
	if d.Seq%r.cfg.CheckpointPeriod == 0 && d.Seq > r.low {
		r.say(Checkpoint{Seq: d.Seq, Digest: r.state}, nil)
	}
}

// onCheckpoint gathers the proof of a stable checkpoint [OSDI99 §4.3]. Ours is among the
// votes, as in the core.
func (r *Replica) onCheckpoint(m Signed, k Checkpoint) {
	if k.Seq <= r.low || k.Seq%r.cfg.CheckpointPeriod != 0 || k.Seq > r.low+2*r.cfg.LogSize {
		return
	}
	votes := r.checkpoints[k.Seq]
	if votes == nil {
		votes = make([]Signed, r.cfg.Replicas)
		r.checkpoints[k.Seq] = votes
	}
	record(votes, m)
	own, ours := votes[r.cfg.Self].body.(Checkpoint)
	if k = own; !ours || signers(votes, k, nobody) < r.quorum() {
		return
	}
	proof := slices.DeleteFunc(slices.Clone(votes), func(s Signed) bool { return s.body != k })
	r.slide(k.Seq, proof)
}

func (r *Replica) slide(low message.SeqNum, proof []Signed) {
	r.low, r.proof = low, proof
	r.seqno = max(r.seqno, low)
	for n := range r.slots {
		if n <= low {
			delete(r.slots, n)
		}
	}
	for n := range r.carried {
		if n <= low {
			delete(r.carried, n)
		}
	}
	for n := range r.checkpoints {
		if n <= low {
			delete(r.checkpoints, n)
		}
	}
}
