// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// bodies finds batches by their digests, and fetches those that are not here. A batch may be
// missing for three reasons, and each asks in its own way:
//
//   - a NEW-VIEW chose it, or ours may: everyone is asked, at most once in a resend interval (R-RTX-7);
//   - f+1 replicas say that it was decided: one of these is asked, then another if it brings
//     nothing, in the end everyone;
//   - it was proposed, and an operation did not come from its client: the primary is asked, in the end everyone.
//
// A batch is believed for its digest, whoever sends it.
type bodies struct {
	*base
	log     *messageLog
	shares  *shares
	shunned shunned

	fetched   map[message.Digest]*message.Batch // dropped with the window
	askingAll limit
	fetches   []fetch // ring by number, as the log's slots

	pulling  bool  // a number was decided whose batch may have to be asked for
	pullSize int   // about how long such a batch is: the latest were no longer
	pulled   []int // by replica: what it was asked for in the present tick, as it counts: see serveCost

	lacking message.SeqNum // no proposal above it is held for want of an operation
}

// A fetch is what we have asked for the batch of one number. The zero value: nobody was asked.
type fetch struct {
	seq   message.SeqNum
	of    message.ReplicaID // that is asked for the batch that was decided
	due   int               // tick at which another is asked; 0: nobody was asked
	tries int               // that came to nothing

	// tick since which the held proposal lacks an operation; at which that was asked for,
	// 0: not yet
	lackedAt, askedAt int
}

const (
	pullsPerReplica = message.MaxFetchBatch // decided batches asked of one replica at a time
	pullBytes       = 1 << 20               // fewer, if they are so long
	// at most this much is asked of a replica in a tick, counted as it counts: its ticks
	// begin at other times than ours
	pullsPerTick  = servesPerTick / 2
	pullTicks     = 3  // an answer may take so long before another is asked
	pullShunTicks = 20 // and its sender is left alone so long if others have it
	maxPulls      = 2  // then everyone is asked
)

// patienceTicks is how long an operation may be under way from its client after it was proposed. It
// is long when the group is busy, and would be longer yet if everything were sent twice.
const patienceTicks = 10

func (b *bodies) init(base *base, l *messageLog, s *shares, left shunned) {
	*b = bodies{
		base: base, log: l, shares: s, shunned: left,
		fetched:  map[message.Digest]*message.Batch{},
		fetches:  make([]fetch, base.cfg.LogSize),
		pullSize: base.cfg.Batch.Bytes,
		pulled:   make([]int, base.cfg.Replicas),
	}
}

// fetch is the asking for the batch of number n, which is between the water marks.
func (b *bodies) fetch(n message.SeqNum) *fetch {
	f := &b.fetches[uint64(n)%uint64(len(b.fetches))]
	if f.seq != n {
		*f = fetch{seq: n}
	}
	return f
}

// underWay reports whether a replica was asked for the batch that was decided as n.
func (b *bodies) underWay(n message.SeqNum) bool { return b.fetch(n).due > 0 }

// leave forgets what was fetched and what is lacking, because the view is over. Batches decided in
// it are still asked for.
func (b *bodies) leave() {
	b.drop()
	b.lacking = 0
	for i := range b.fetches {
		b.fetches[i].lackedAt, b.fetches[i].askedAt = 0, 0
	}
}

// drop forgets the batches that were fetched. A batch that was proposed or decided is also kept in
// its slot.
func (b *bodies) drop() { b.fetched = map[message.Digest]*message.Batch{} }

// find is a batch that we hold, by its digest; nil if we do not.
func (b *bodies) find(d message.Digest) *message.Batch {
	if d == message.NullDigest {
		return &message.Batch{}
	}
	if here := b.log.find(d); here != nil {
		return here
	}
	return b.fetched[d]
}

// missing lists the batches that we need and do not hold: batches that a NEW-VIEW chose, batches
// that ours may choose, and decided batches that no replica we asked has brought. A correct replica
// has pre-prepared each of them: nobody need keep a batch that only one replica names.
func (b *bodies) missing(choosable func() []message.Digest) (digests []message.Digest) {
	add := func(d message.Digest) {
		if len(digests) < message.MaxFetchBatch && !slices.Contains(digests, d) && b.find(d) == nil {
			digests = append(digests, d)
		}
	}
	for n := b.log.low + 1; n <= min(b.log.decidedTo, b.log.high); n++ {
		s := b.log.slot(n)
		if s.proposal == nil && !s.chosen.IsZero() {
			add(s.chosen)
		}
		if s.isCommitted || b.fetch(n).tries < maxPulls {
			continue // before the votes are counted: this is asked for every BATCH that comes
		}
		if d, ok := s.decided.with(b.weak()); ok {
			add(d)
		}
	}
	for _, d := range choosable() {
		add(d)
	}
	return digests
}

// askAll asks everyone for the batches that we miss (R-RTX-7), not more often than the
// resend interval.
func (b *bodies) askAll(choosable func() []message.Digest) {
	if !b.askingAll.allows(b.tick) {
		return
	}
	b.pulling = true // a decided batch may have come in another role
	if d := b.missing(choosable); len(d) > 0 {
		b.askingAll.restart(b.tick, b.cfg.Ticks.Resend)
		b.multicast(&message.FetchBatch{Digests: d, From: b.cfg.Self})
	}
}

// wanted notes that a number was decided whose batch may have to be asked for.
func (b *bodies) wanted() { b.pulling = true }

// take keeps a batch that came, if we miss it.
func (b *bodies) take(m *message.BatchBody, choosable func() []message.Digest) bool {
	if !b.takePulled(m) && !slices.Contains(b.missing(choosable), m.Digest) {
		return false
	}
	b.fetched[m.Digest] = &m.Batch
	return true
}

// serve sends batches that another replica asks for by digest, within its share.
func (b *bodies) serve(m *message.FetchBatch) {
	for _, d := range m.Digests {
		if !b.shares.mayHave(m.From) { // before we look for it
			b.refuse(m, TooSoon)
			return
		}
		if here := b.find(d); here != nil {
			b.shares.took(m.From, here.Bytes())
			b.send(m.From, &message.BatchBody{PrePrepare: message.PrePrepare{Digest: d, Batch: *here}})
		}
	}
}

// Decided batches, which one replica is asked for.

// pull asks for the batches that f+1 say were decided and that are not here, lowest number first.
// It runs once for each event. A decided batch that is here already, for example as a proposal, is
// committed.
func (b *bodies) pull(commit func(*slot, *message.Batch, message.Digest)) {
	if !b.pulling {
		return
	}
	b.pulling = false
	if b.log.decidedTo <= b.log.lastExec {
		b.pullSize = b.cfg.Batch.Bytes // the length of the next is not known yet
		return                         // mostly
	}
	under, cost := b.pullsUnderWay(), serveCost(b.pullSize)
	asks := make([][]message.Digest, b.cfg.Replicas)
	for n := b.log.next(); n <= min(b.log.decidedTo, b.log.high); n++ {
		s, f := b.log.slot(n), b.fetch(n)
		d, decided := s.decided.with(b.weak())
		if !decided || s.isCommitted || f.due > 0 {
			continue
		}
		if here := b.find(d); here != nil { // it has come as something else
			commit(s, here, d)
			continue
		}
		if f.tries >= maxPulls {
			continue // askAll asks everyone
		}
		to, ok := b.chooseSource(s, f, d, under)
		if !ok {
			break
		}
		f.of, f.due = to, b.tick+pullTicks
		under[to]++
		b.pulled[to] += cost
		asks[to] = append(asks[to], d)
	}
	for to, d := range asks {
		if len(d) > 0 {
			b.send(message.ReplicaID(to), &message.FetchBatch{Digests: d, From: b.cfg.Self})
		}
	}
}

// pullsAtOnce is how many batches one replica is asked for at a time: as many as it can send us
// while we wait, if they are as long as the last.
func (b *bodies) pullsAtOnce() int { return max(1, min(pullsPerReplica, pullBytes/max(b.pullSize, 1))) }

// pullsUnderWay counts what each replica was asked for and has not brought. A replica that has
// brought less than half of them counts as fully employed, so that we do not ask for a single batch
// each time that one comes.
func (b *bodies) pullsUnderWay() []int {
	under := make([]int, b.cfg.Replicas)
	for n := b.log.next(); n <= min(b.log.decidedTo, b.log.high); n++ {
		if f := b.fetch(n); f.due > 0 && !b.log.slot(n).isCommitted {
			under[f.of]++
		}
	}
	most := b.pullsAtOnce()
	for i, n := range under {
		if n > most/2 {
			under[i] = most
		}
	}
	return under
}

// chooseSource returns a replica to ask for a slot's decided batch: one that says it was decided,
// and preferably one that has answered lately.
func (b *bodies) chooseSource(s *slot, f *fetch, d message.Digest, under []int) (message.ReplicaID, bool) {
	most, cost := b.pullsAtOnce(), serveCost(b.pullSize)
	first := int(s.seq)/most + f.tries
	for _, shunned := range []bool{false, true} {
		some := false
		for k := range b.pulled {
			i := message.ReplicaID((first + k) % len(b.pulled))
			if !s.decided.has(i) || s.decided.digests[i] != d || (b.shunned[i] > b.tick) != shunned {
				continue
			}
			// a batch may be longer than a share
			if p := b.pulled[i]; under[i] < most && (p == 0 || p+cost <= pullsPerTick) {
				return i, true
			}
			some = true
		}
		if some {
			break // it will have time
		}
	}
	return 0, false
}

// tickPulls turns from replicas that were asked for batches and brought none to others, and asks
// again those that had used up their share of a tick.
func (b *bodies) tickPulls() {
	for i, n := range b.pulled {
		if n > 0 {
			b.pulled[i] = 0
			b.pulling = true
		}
	}
	for n := b.log.next(); n <= min(b.log.decidedTo, b.log.high); n++ {
		if f := b.fetch(n); f.due > 0 && !b.log.slot(n).isCommitted && b.tick >= f.due {
			b.shunned[f.of] = max(b.shunned[f.of], b.tick+pullShunTicks)
			f.due = 0
			f.tries++
			b.pulling = true
		}
	}
}

// takePulled reports whether a batch is one that we asked for because it was decided.
func (b *bodies) takePulled(m *message.BatchBody) (some bool) {
	for n := b.log.next(); n <= min(b.log.decidedTo, b.log.high); n++ {
		s, f := b.log.slot(n), b.fetch(n)
		if s.isCommitted || f.due == 0 && f.tries == 0 {
			continue
		}
		if d, ok := s.decided.with(b.weak()); ok && d == m.Digest {
			some = true
		}
	}
	if some {
		b.pulling = true
		b.pullSize = max(m.Batch.Bytes(), b.pullSize/2)
	}
	return some
}

// Proposals that lack an operation.

// lack notes that an operation of the proposal that a slot holds is not here.
func (b *bodies) lack(n message.SeqNum) {
	b.lacking = max(b.lacking, n)
	if f := b.fetch(n); f.lackedAt == 0 {
		f.lackedAt = b.tick
	}
}

// eachLacking calls f for the slots whose proposal is held because an operation is missing.
func (b *bodies) eachLacking(f func(s *slot)) {
	for n := b.log.next(); n <= min(b.lacking, b.log.high); n++ {
		if s := b.log.slot(n); s.proposal == nil && s.held != nil && !s.held.Batch.Complete() {
			f(s)
		}
	}
}

// askOperations asks for the batches of proposals that lack an operation: the primary when the
// client had its time or has passed the request, everyone when the primary had its time (R-RTX-7).
func (b *bodies) askOperations(primary message.ReplicaID, passed func(*message.Request) bool) {
	var first, repeated []message.Digest
	b.eachLacking(func(s *slot) {
		f := b.fetch(s.seq)
		overdue := func() bool {
			return b.tick-f.lackedAt >= patienceTicks ||
				slices.ContainsFunc(s.held.Batch.Requests, func(r *message.Request) bool {
					return r.IsStub() && passed(r)
				})
		}
		switch {
		case f.askedAt == 0 && len(first) < message.MaxFetchBatch && overdue():
			first = append(first, s.held.Digest)
		case f.askedAt > 0 && len(repeated) < message.MaxFetchBatch && b.tick-f.askedAt >= b.cfg.Ticks.Resend:
			repeated = append(repeated, s.held.Digest)
		default:
			return
		}
		f.askedAt = b.tick
	})
	if len(first) > 0 {
		b.send(primary, &message.FetchBatch{Digests: first, From: b.cfg.Self})
	}
	if len(repeated) > 0 {
		b.multicast(&message.FetchBatch{Digests: repeated, From: b.cfg.Self})
	}
}

// complete gives a batch's operations to the proposals of the same digest that lack some, and calls
// f for each. The batch is believed for its digest, whoever sent it.
func (b *bodies) complete(m *message.BatchBody, f func(*slot)) (some bool) {
	b.eachLacking(func(s *slot) {
		if s.held.Digest == m.Digest {
			some = true
			s.held.Batch.Fill(&m.Batch)
			f(s)
		}
	})
	return some
}
