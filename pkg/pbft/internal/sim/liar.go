// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"math/rand/v2"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A lie edits a message of a real core to one receiver: it returns the messages that are
// sent instead. A liar can sign only for itself: the receiver knows the sender, whatever
// the message says.
type lie struct {
	name string
	edit func(l *liarMemory, r *replica, to int, m message.Message) []message.Message
}

// liarMemory holds a liar's memory and its source of chance.
type liarMemory struct {
	rng  *rand.Rand
	said []message.Message // the latest few messages, for replay
	seen []message.Digest  // digests of batches, to be named falsely
	held map[int]bool      // replicas that get no message

	batches []message.Batch                           // the latest few that were proposed
	changes map[message.ReplicaID]*message.ViewChange // everyone's, the latest
	forged  *message.ViewChange                       // our own, the latest
	plot    *plot
	day     int64 // when fickle chose its lies
	today   []lie
}

// plot is the state that all liars share.
type plot struct {
	proposed map[message.SeqNum][]message.Prepared // proposals to any replica, with their views
	to       map[told]message.Digest               // what liars proposed to whom
}

type told struct {
	to int
	slotKey
}

func newPlot() plot {
	return plot{map[message.SeqNum][]message.Prepared{}, map[told]message.Digest{}}
}

func (p *plot) note(m *message.PrePrepare) {
	x := message.Prepared{Seq: m.Seq, Digest: m.Digest, View: m.View}
	if all := p.proposed[m.Seq]; len(all) < 32 && !slices.Contains(all, x) {
		p.proposed[m.Seq] = append(all, x)
	}
}

func (l *liarMemory) chance(p float64) bool { return l.rng.Float64() < p }

// tell returns what the site in fact sends when its replica wants to send m.
func (s *site) tell(r *replica, to int, m message.Message) []message.Message {
	if !s.edits() {
		return []message.Message{m}
	}
	if r.w.calm && !r.w.shape.stubborn {
		return nil
	}
	l := s.memory
	if l == nil {
		return nil // not begun
	}
	l.remember(r, m)
	said := l.tell(s.lies, r, to, m)
	if r.w.cunning != nil && len(said) == 1 && to < r.w.n {
		said = l.tell([]lie{deceitful}, r, to, said[0])
	}
	for _, x := range said {
		if p, ok := x.(*message.PrePrepare); ok {
			l.plot.note(p)
			l.plot.to[told{to, slotKey{p.View, p.Seq}}] = p.Digest
		}
	}
	return said
}

// learn makes a liar remember a message that it receives.
func (s *site) learn(from message.ReplicaID, m message.Message) {
	l := s.memory
	if l == nil {
		return
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		l.plot.note(m)
		if len(m.Batch.Requests) > 0 {
			l.batches = append(l.batches[max(0, len(l.batches)-15):], m.Batch)
		}
	case *message.ViewChange:
		if m.From == from {
			l.changes[from] = m
		}
	}
}

func (l *liarMemory) remember(r *replica, m message.Message) {
	if _, ok := m.(*message.Data); ok {
		return
	}
	if len(l.said) < 64 {
		l.said = append(l.said, m)
	} else {
		l.said[l.rng.IntN(64)] = m
	}
	if p, ok := m.(*message.PrePrepare); ok {
		l.know(p.Digest)
	}
	if vc, ok := m.(*message.ViewChange); ok && int(vc.From) == r.id {
		l.changes[vc.From] = vc
	}
	if p, ok := m.(*message.Prepare); ok {
		l.know(p.Digest)
	}
}

func (l *liarMemory) know(d message.Digest) {
	if len(l.seen) < 32 {
		l.seen = append(l.seen, d)
	} else {
		l.seen[l.rng.IntN(32)] = d
	}
}

func (l *liarMemory) digest() message.Digest {
	if len(l.seen) == 0 || l.chance(0.2) {
		return message.Digest{0xfa, byte(l.rng.IntN(4))}
	}
	if l.chance(0.15) {
		return message.NullDigest
	}
	return l.seen[l.rng.IntN(len(l.seen))]
}

func one(m message.Message) []message.Message { return []message.Message{m} }

// lies are all there are. Their order is the order of their drawing and must not change:
// add at the end.
var lies = []lie{
	{"mute", mute},
	{"moody", moody},
	{"equivocate", equivocate},
	{"stale-view", staleView},
	{"false-root", falseRoot},
	{"isolate", isolate},
	{"false-data", falseData},
	{"off-by-one", offByOne},
	{"replay", replay},
	{"false-pq", falsePQ},
	{"false-new-view", falseNewView},
	{"eager", eager},
	{"false-decided", falseDecided},
	{"false-forward", falseForward},
	{"false-status", falseStatus},
	{"false-reply", falseReply},
	{"false-ack", falseAck},
	{"unfair", unfair},
	{"forge-relay", forgeRelay},
	{"usurp", usurp},
	{"false-record", falseRecord},
	{"convenient-new-view", convenientNewView},
	{"unreasonable", unreasonable},
	{"agreeable", agreeable},
	{"forge-request", forgeRequest},
	{"withhold", withhold},
}

// fickle changes its lies from time to time.
var fickle = lie{"fickle", func(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	if now := r.w.now / (fickleness * tick); l.today == nil || now != l.day {
		l.day, l.today = now, nil
		for range 1 + l.rng.IntN(3) {
			l.today = append(l.today, lies[l.rng.IntN(len(lies))])
		}
	}
	return l.tell(l.today, r, to, m)
}}

const fickleness = 25 // ticks

// scheming attacks view changes: if part of the group accepts another batch in this view,
// the next may choose it.
var scheming = lie{"scheming", func(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	all := []lie{{"", falseRecord}, {"", convenientNewView}, {"", agreeable}}
	switch m := m.(type) {
	case *message.PrePrepare:
		if m.Seq%2 == 0 {
			all = append(all, lie{"", equivocate})
		}
	case *message.NewView:
		all = append(all, lie{"", usurp})
	}
	return l.tell(all, r, to, m)
}}

// tell applies lies one after the other.
func (l *liarMemory) tell(lies []lie, r *replica, to int, m message.Message) []message.Message {
	said := one(m)
	for _, lie := range lies {
		var next []message.Message
		for _, x := range said {
			next = append(next, lie.edit(l, r, to, x)...)
		}
		said = next
	}
	return said
}

// mute sends nothing.
func mute(*liarMemory, *replica, int, message.Message) []message.Message { return nil }

// moody sends half of its messages.
func moody(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	if l.chance(0.5) {
		return nil
	}
	return one(m)
}

// otherBatch is a well-formed batch that differs from b and holds only requests of clients.
func (l *liarMemory) otherBatch(b message.Batch) message.Batch {
	other := message.Batch{Choice: append([]byte{}, b.Choice...), Requests: append([]*message.Request{}, b.Requests...)}
	switch k := len(other.Requests); {
	case k > 1 && l.chance(0.4):
		other.Requests[0], other.Requests[k-1] = other.Requests[k-1], other.Requests[0]
	case k > 1 && l.chance(0.5):
		other.Requests = other.Requests[1:]
	case k > 0 && l.chance(0.3):
		other.Requests = append(other.Requests, other.Requests[0])
	case l.chance(0.2):
		other.Requests = nil
	case l.chance(0.2) && k > 0 && !other.Requests[0].IsStub():
		forged := *other.Requests[0]
		forged.Op = append([]byte{opWrite}, forged.Op...)
		forged.Altered()
		other.Requests[0] = &forged
	case l.chance(0.2):
		other.Choice = []byte{badChoice}
	default:
		other.Choice = append(other.Choice, byte(l.rng.IntN(2)))
	}
	return other
}

// equivocate sends other messages to the upper half of the group.
func equivocate(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	if to >= r.w.n || to*2 < r.w.n || l.chance(0.2) {
		return one(m)
	}
	switch m := m.(type) {
	case *message.PrePrepare:
		x := *m
		x.Batch = l.otherBatch(m.Batch)
		x.Digest = x.Batch.Digest()
		l.know(x.Digest)
		return one(&x)
	case *message.Prepare:
		x := *m
		x.Digest = l.digest()
		return one(&x)
	case *message.Decided:
		x := *m
		x.Digest = l.digest()
		return one(&x)
	case *message.Checkpoint:
		x := *m
		x.Digest[0]++
		return one(&x)
	}
	return one(m)
}

// staleView votes in views that are over, and again in those where it voted.
func staleView(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	if !l.chance(0.3) {
		return one(m)
	}
	d := message.View(1 + l.rng.IntN(2))
	switch m := m.(type) {
	case *message.PrePrepare:
		x := *m
		x.View -= min(x.View, d)
		return []message.Message{m, &x}
	case *message.Prepare:
		x := *m
		x.View -= min(x.View, d)
		return []message.Message{m, &x}
	case *message.Commit:
		x := *m
		x.View -= min(x.View, d)
		return []message.Message{m, &x}
	case *message.ViewChange:
		x := *m
		x.View -= min(x.View, d)
		return []message.Message{m, &x}
	}
	return one(m)
}

// unreasonable proposes choices that no replica finds reasonable.
func unreasonable(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	p, ok := m.(*message.PrePrepare)
	if !ok || p.Seq%3 == 0 {
		return one(m)
	}
	x := *p
	x.Batch.Choice = []byte{badChoice}
	x.Digest = x.Batch.Digest()
	return one(&x)
}

// forgeRequest proposes to some replicas a request that no client made.
func forgeRequest(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	p, ok := m.(*message.PrePrepare)
	if !ok || len(p.Batch.Requests) == 0 || (to+int(p.Seq))%2 == 0 {
		return one(m)
	}
	x, forged := *p, *p.Batch.Requests[0]
	if n := len(forged.Op); n > message.ShortOperation {
		forged.Op = bytes.Clone(forged.Op) // of the same length, for the digest stands for it
		forged.Op[n-1]++
	} else {
		forged.Op = append([]byte{opWrite}, forged.Op...)
	}
	forged.Altered()
	x.Batch.Requests = append([]*message.Request{&forged}, p.Batch.Requests[1:]...)
	x.Digest = x.Batch.Digest()
	return one(&x)
}

// withhold proposes requests without their operations, some of which nobody has, and
// mostly does not send them when asked.
func withhold(l *liarMemory, _ *replica, to int, m message.Message) []message.Message {
	switch m := m.(type) {
	case *message.PrePrepare:
		x := *m
		x.Batch.Requests = nil
		for i, q := range m.Batch.Requests {
			if i == 0 && m.Seq%4 == 0 {
				forged := *q
				forged.Op = make([]byte, message.ShortOperation+1)
				forged.Altered()
				q = &forged
			}
			x.Batch.Requests = append(x.Batch.Requests, q.Stub())
		}
		x.Digest = x.Batch.Digest()
		return one(&x)
	case *message.BatchBody:
		if l.chance(0.7) {
			return nil
		}
	}
	return one(m)
}

// agreeable votes with each replica for the batch that was proposed to that replica,
// whatever it was.
func agreeable(l *liarMemory, _ *replica, to int, m message.Message) []message.Message {
	p, ok := m.(*message.Prepare)
	if !ok {
		return one(m)
	}
	x := *p
	if d, ok := l.plot.to[told{to, slotKey{p.View, p.Seq}}]; ok {
		x.Digest = d
	}
	return []message.Message{&x, &message.Commit{View: p.View, Seq: p.Seq}}
}

// falseRoot claims a state that differs from all others.
func falseRoot(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	switch m := m.(type) {
	case *message.Checkpoint:
		x := *m
		x.Digest[1] ^= 0x55
		x.Stable = x.Stable || l.chance(0.3)
		return one(&x)
	case *message.ViewChange:
		x := *m
		x.Checkpoints = append([]message.CheckpointID{}, m.Checkpoints...)
		for i := range x.Checkpoints {
			x.Checkpoints[i].Digest[1] ^= 0x55
		}
		return one(&x)
	}
	return one(m)
}

// isolate sends nothing to as many others as a quorum can do without: they do not learn
// what the group agrees on.
func isolate(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	if l.held == nil {
		l.held = map[int]bool{}
		for len(l.held) < r.w.n-r.w.q {
			if i := l.rng.IntN(r.w.n); i != r.id {
				l.held[i] = true
			}
		}
	}
	if l.held[to] {
		return nil
	}
	return one(m)
}

// falseData serves pages and nodes that are not the state's.
func falseData(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	d, ok := m.(*message.Data)
	if !ok {
		return one(m)
	}
	x := *d
	switch l.rng.IntN(4) {
	case 0:
		return nil
	case 1:
		x.Gone = !x.Gone
	case 2:
		x.Items = x.Items[:len(x.Items)/2]
	default:
		x.Items = append([]message.Item{}, d.Items...)
		for i := range x.Items {
			b := append([]byte{}, x.Items[i].Bytes...)
			if len(b) > 0 {
				b[l.rng.IntN(len(b))]++
			}
			x.Items[i].Bytes = b
		}
	}
	return one(&x)
}

// eager votes as the primary too, sends COMMIT before a batch has prepared, and sends to
// some only.
func eager(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	switch p := m.(type) {
	case *message.PrePrepare:
		return []message.Message{m, &message.Prepare{View: p.View, Seq: p.Seq, Digest: p.Digest},
			&message.Commit{View: p.View, Seq: p.Seq}}
	case *message.Prepare:
		return []message.Message{m, &message.Commit{View: p.View, Seq: p.Seq}}
	case *message.Commit:
		if l.chance(0.4) {
			return nil
		}
	}
	return one(m)
}

// falseDecided says that another batch was decided.
func falseDecided(l *liarMemory, r *replica, _ int, m message.Message) []message.Message {
	switch p := m.(type) {
	case *message.Commit:
		return []message.Message{m, &message.Decided{Seq: p.Seq, Digest: l.digest()}}
	case *message.Decided:
		return one(&message.Decided{Seq: p.Seq, Digest: l.digest()})
	case *message.Status:
		n := r.core.LastExecuted() + message.SeqNum(l.rng.IntN(3))
		return []message.Message{m, &message.Decided{Seq: n, Digest: l.digest()}}
	}
	return one(m)
}

// falseForward vouches for requests that no client made, and sends many.
func falseForward(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	said := one(m)
	if to >= r.w.n || !l.chance(0.1) {
		return said
	}
	c := r.w.clients[l.rng.IntN(len(r.w.clients))]
	q := message.Request{Client: c.id, Slot: message.Slot(l.rng.IntN(ledgerSlots)),
		Timestamp: message.Timestamp(100 + l.rng.IntN(40)), Op: []byte{opWrite, byte(l.rng.IntN(3))}}
	q.Auth.Tags = make([]byte, r.w.n*message.MACSize)
	for range 1 + l.rng.IntN(8) {
		said = append(said, &message.Forward{Client: q.Client, Slot: q.Slot,
			Timestamp: q.Timestamp, Digest: q.Digest()})
		if l.chance(0.5) {
			q.Slot = message.Slot(l.rng.Uint32())
		}
	}
	return append(said, &q)
}

// falseStatus claims to have executed more than it has, or nothing.
func falseStatus(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	s, ok := m.(*message.Status)
	if !ok {
		return one(m)
	}
	x := *s
	switch l.rng.IntN(4) {
	case 0:
		x.Low, x.LastExecuted = 0, 0
	case 1:
		x.View += message.View(l.rng.IntN(4))
	case 2:
		x.LastExecuted += message.SeqNum(l.rng.IntN(100))
	default:
		x.Active, x.ViewChanges = !x.Active, l.rng.Uint32()
	}
	return one(&x)
}

// falseReply answers clients with another result.
func falseReply(l *liarMemory, r *replica, _ int, m message.Message) []message.Message {
	if p, ok := m.(*message.ReplyStable); ok {
		x := *p
		x.Latest = message.Timestamp(l.rng.Uint64() >> l.rng.IntN(64))
		return one(&x)
	}
	p, ok := m.(*message.Reply)
	if !ok {
		return one(m)
	}
	x, a := *p, p.Answers[0]
	switch l.rng.IntN(3) {
	case 0:
		a.Outcome = message.Outcome(l.rng.IntN(7))
	case 1:
		x.View += message.View(l.rng.IntN(9))
	}
	a.Result = append([]byte(nil), a.Result...)
	if len(a.Result) > 0 {
		a.Result[0]++
	}
	if a.Long() {
		// It proves its result whether asked or not: another replica may give this very result.
		a.Proved, a.Proof = true, prove(r.id, a.Result)
		switch k := l.rng.IntN(4); {
		case k == 0:
			a.Full, a.Proved = false, false
		case k == 1 && !a.Full:
			a.Proof.Tag[0]++
		}
	}
	x.Answers = []message.Answer{a}
	return one(&x)
}

// falseAck acknowledges other VIEW-CHANGEs than those that were sent.
func falseAck(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	if a, ok := m.(*message.ViewChangeAck); ok && l.chance(0.6) {
		x := *a
		x.Digest[0]++
		return one(&x)
	}
	return one(m)
}

// unfair never proposes the requests of one client.
func unfair(l *liarMemory, r *replica, _ int, m message.Message) []message.Message {
	if p, ok := m.(*message.PrePrepare); ok {
		for _, q := range p.Batch.Requests {
			if q.Client == r.w.clients[0].id {
				return nil
			}
		}
	}
	return one(m)
}

// replay sends earlier messages again.
func replay(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	if to < r.w.n && len(l.said) > 0 && l.chance(0.25) {
		old := l.said[l.rng.IntN(len(l.said))]
		if old.Type() != message.TypeReply && old.Type() != message.TypeReplyStable {
			return []message.Message{m, old}
		}
	}
	return one(m)
}
