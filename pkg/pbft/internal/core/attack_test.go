// SPDX-License-Identifier: Apache-2.0

package core

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// newAttacked is a core in view 0 that hears what nobody honest would say.
func newAttacked(self message.ReplicaID, fence message.SeqNum) *Core {
	return New(Config{
		Self: self, Replicas: 4, CheckpointPeriod: 4, LogSize: 8, Window: 2,
		Batch: BatchLimit{Bytes: 1 << 10, Count: 8}, LogBytes: 1 << 12, Clients: 64, Slots: 4, QueueBytes: 1 << 11,
		Ticks: Ticks{Status: 10, Resend: 2}, Fence: fence,
	})
}

// perform does what the core says as a replica would whose service accepts everything,
// and returns what was sent.
func perform(c *Core) (sent []message.Message) {
	for {
		effects := c.Effects()
		if len(effects) == 0 {
			return sent
		}
		for i := range effects {
			switch e := &effects[i]; e.Verb {
			case Send, Multicast:
				sent = append(sent, e.Message)
			case Choose:
				c.Chosen(e.Seq, nil)
			case Accept:
				c.Accepted(e.Proposal, true)
			case Freeze:
				c.Frozen(e.Seq, message.Digest{byte(e.Seq)})
			}
		}
	}
}

func batchOf(ops ...string) message.Batch {
	var b message.Batch
	for i, op := range ops {
		r := &message.Request{Client: 9, Slot: message.Slot(i % 4), Timestamp: message.Timestamp(i + 1),
			Op: []byte(op), Authentic: true}
		b.Requests = append(b.Requests, r)
	}
	return b
}

func proposal(n message.SeqNum, op string) *message.PrePrepare {
	b := batchOf(op)
	return &message.PrePrepare{Seq: n, Digest: b.Digest(), Batch: b}
}

// largest is the largest number that a decoder lets through.
const largest = 1<<62 - 1

// edges are the numbers at which arithmetic goes wrong.
var edges = []uint64{0, 1, 3, 4, 5, 7, 8, 9, 12, 13, 1 << 31, 1 << 32, largest - 8, largest - 1, largest}

func edge(r *rand.Rand) uint64 {
	if r.IntN(2) == 0 {
		return edges[r.IntN(len(edges))]
	}
	return r.Uint64N(12)
}

// lie is any message that one faulty replica can send.
func lie(r *rand.Rand, from message.ReplicaID) message.Message {
	v := message.View(0)
	if r.IntN(8) == 0 {
		v = message.View(edge(r))
	}
	n, d := message.SeqNum(edge(r)), message.Digest{byte(r.IntN(3))}
	switch r.IntN(16) {
	case 8, 9:
		return lyingViewChange(r, from)
	case 10:
		return &message.ViewChangeAck{View: message.View(edge(r)), Of: message.ReplicaID(r.IntN(4)),
			Digest: d, From: from}
	case 11:
		m := &message.NewView{View: message.View(edge(r)),
			Checkpoint: message.CheckpointID{Seq: n, Digest: d}, From: from}
		for i := range message.ReplicaID(r.IntN(5)) {
			m.V = append(m.V, message.Vouched{From: i, Digest: d})
		}
		m.Chosen = make([]message.Digest, r.IntN(9))
		return m
	case 12:
		q := batchOf("f").Requests[0]
		return &message.Forward{Client: q.Client, Slot: q.Slot, Timestamp: message.Timestamp(edge(r)),
			Digest: q.Digest(), From: from}
	case 13:
		return &message.FetchBatch{Digests: []message.Digest{d, message.NullDigest}, From: from}
	case 14:
		p := proposal(n, fmt.Sprint(r.IntN(3)))
		p.From = from
		return &message.BatchBody{PrePrepare: *p}
	case 15:
		if r.IntN(2) == 0 {
			q := batchOf("f").Requests[0]
			q.Authentic, q.PassedBy, q.Slot = false, from, message.Slot(r.IntN(1<<16))
			return q
		}
		return &message.Decided{Seq: n, Digest: d, From: from}
	case 0:
		p := proposal(n, fmt.Sprint(r.IntN(3)))
		p.View, p.From = v, from
		p.Batch.Requests[0].Authentic = r.IntN(2) == 0
		if r.IntN(3) == 0 {
			q := p.Batch.Requests[0]
			q.Op = make([]byte, message.ShortOperation+1+r.IntN(2))
			q.Altered()
			p.Batch.Requests[0], p.Digest = q.Stub(), p.Batch.Digest()
		}
		return p
	case 1:
		return &message.Prepare{View: v, Seq: n, Digest: d, From: from}
	case 2:
		return &message.Commit{View: v, Seq: n, From: from}
	case 3:
		return &message.Checkpoint{Seq: n, Digest: d, Stable: r.IntN(2) == 0, From: from}
	case 4:
		return &message.Fetch{Seq: n, Tag: uint32(r.IntN(3)), Nodes: make([]message.NodeID, r.IntN(3)), From: from}
	case 5:
		return &message.Data{Seq: n, Tag: uint32(r.IntN(3)), Gone: r.IntN(2) == 0, From: from,
			Items: []message.Item{{Node: message.NodeID{Level: uint8(r.IntN(3)), Index: edge(r)},
				Bytes: make([]byte, r.IntN(64))}}}
	default:
		return &message.Status{View: v, Active: r.IntN(2) == 0, Low: n, LastExecuted: message.SeqNum(edge(r)),
			Prepared: message.Bitmap{0xff}, Committed: message.Bitmap{byte(r.IntN(256))}, From: from}
	}
}

func lyingViewChange(r *rand.Rand, from message.ReplicaID) *message.ViewChange {
	m := &message.ViewChange{View: message.View(edge(r)), Low: message.SeqNum(edge(r)), From: from}
	if r.IntN(3) == 0 {
		m.From, m.Relayed = message.ReplicaID(r.IntN(4)), true
	}
	n := m.Low
	for range r.IntN(4) {
		n += message.SeqNum(r.IntN(5))
		m.Checkpoints = append(m.Checkpoints, message.CheckpointID{Seq: n, Digest: message.Digest{byte(n)}})
		m.P = append(m.P, message.Prepared{Seq: n + 1, Digest: message.Digest{byte(r.IntN(3))},
			View: message.View(r.IntN(2))})
		m.Q = append(m.Q, message.Prepared{Seq: n + 1, Digest: message.Digest{byte(r.IntN(3))},
			View: message.View(r.IntN(2))})
	}
	return m
}

// One faulty replica may say anything: a core must not stop for it. Its invariants are
// about our code.
func TestNoLieBreaksAnInvariant(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 1))
		c := newAttacked(message.ReplicaID(1+seed%3), 0)
		c.Frozen(0, message.Digest{})
		liar := message.ReplicaID(0)
		if seed%2 == 1 {
			liar = 1 + (c.cfg.Self % 3)
		}
		for range 300 {
			c.Step(lie(r, liar))
			if r.IntN(4) == 0 {
				c.Tick()
			}
			if r.IntN(4) == 0 {
				c.KeysChanged(liar)
			}
			perform(c)
		}
		if c.log.bytes > c.cfg.LogBytes {
			t.Fatalf("seed %d: the log holds %d bytes, want <= %d", seed, c.log.bytes, c.cfg.LogBytes)
		}
	}
}

// A STATUS whose numbers end at the largest there is made the loop over what its sender
// lacks begin at 0, outside the marks: one message stopped every replica that heard it.
// Decoders refuse such numbers now.
func TestStatusFromTheEndOfNumbers(t *testing.T) {
	for _, m := range []*message.Status{
		{Active: true, LastExecuted: largest, From: 2},
		{Active: true, Low: largest, From: 2},
		{Active: true, Low: largest, LastExecuted: largest, From: 2},
		{Active: true, Low: math.MaxUint64, LastExecuted: math.MaxUint64, From: 2},
	} {
		bytes := m.AppendBody([]byte{byte(message.TypeStatus)})
		decoded, err := message.Decode(bytes, &message.Limits{Replicas: 4, WindowLength: 8})
		if absurd := m.Low > largest; absurd != (err != nil) {
			t.Fatalf("STATUS of low %d: %v", m.Low, err)
		} else if absurd {
			continue
		}
		status := decoded.(*message.Status)
		status.From = 2
		c := newAttacked(1, 0)
		c.Step(status)
		c.KeysChanged(2)
		perform(c)
	}
}

// A replica that was silent for having forgotten its votes must vote, when the silence
// ends, for what came meanwhile: nobody sends it again in a way that would remind it.
func TestSilenceEndsWithVotes(t *testing.T) {
	c := newAttacked(3, 4)
	c.Frozen(0, message.Digest{})
	for n := message.SeqNum(1); n <= 5; n++ {
		p := proposal(n, fmt.Sprint(n))
		c.Step(p)
		c.Step(&message.Prepare{Seq: n, Digest: p.Digest, From: 1})
		if n <= 4 {
			c.Step(&message.Prepare{Seq: n, Digest: p.Digest, From: 2})
			for i := range message.ReplicaID(3) {
				c.Step(&message.Commit{Seq: n, From: i})
			}
		}
	}
	for _, m := range perform(c) {
		switch m.(type) {
		case *message.Prepare, *message.Commit:
			t.Fatalf("a silent replica sends %v", m.Type())
		}
	}
	for i := range message.ReplicaID(3) {
		c.Step(&message.Checkpoint{Seq: 4, Digest: message.Digest{4}, From: i})
	}
	voted := false
	for _, m := range perform(c) {
		if p, ok := m.(*message.Prepare); ok && p.Seq == 5 {
			voted = true
		}
	}
	if !voted {
		t.Fatal("no PREPARE for number 5, which was proposed during the silence")
	}
}

// A message once made must not change: the slot it was made for may be reset before it is sent.
func TestVotesOutliveTheirSlot(t *testing.T) {
	c := newAttacked(3, 0)
	c.Frozen(0, message.Digest{})
	p := proposal(1, "x")
	c.Step(p)
	for _, e := range c.Effects() { // what the service accepts becomes votes in the list after it
		if e.Verb == Accept {
			c.Accepted(e.Proposal, true)
		}
	}
	effects := append([]Effect(nil), c.Effects()...)
	c.log.slide(4)
	for _, e := range effects {
		if m, ok := e.Message.(*message.Prepare); ok && (m.Seq != 1 || m.Digest != p.Digest) {
			t.Fatalf("the PREPARE for 1 became one for %d", m.Seq)
		}
	}
}

// Proposals that are held, because a request in them is not authentic here, are bounded
// like those accepted.
func TestHeldProposalsAreBounded(t *testing.T) {
	c := newAttacked(1, 0)
	op := make([]byte, 1000)
	for n := message.SeqNum(1); n <= 8; n++ {
		p := proposal(n, string(op))
		p.Batch.Requests[0].Authentic = false
		c.Step(p)
		c.Step(p)
	}
	held := 0
	for i := range c.log.slots {
		if h := c.log.slots[i].held; h != nil {
			held += h.Batch.Bytes()
		}
	}
	if held > c.cfg.LogBytes || c.Refused(LogIsFull) == 0 {
		t.Fatalf("%d bytes are held, want <= %d", held, c.cfg.LogBytes)
	}
	if c.log.bytes != held {
		t.Fatalf("the log counts %d bytes, holds %d", c.log.bytes, held)
	}
}

// A root of the initial state that comes late must not take the place of a later stable checkpoint.
func TestLateInitialRoot(t *testing.T) {
	c := newAttacked(3, 0)
	c.stability.collect(8, message.Digest{8})
	c.Frozen(0, message.Digest{1})
	if got := c.Stable().Seq; got != 8 {
		t.Fatalf("stable checkpoint %d, want 8", got)
	}
}

// Whatever replicas say of checkpoints, the highest that enough of them speak of is
// found: as by who counts them all.
func TestClaimed(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := newAttacked(3, 0)
		for range 150 {
			n := message.SeqNum(4 * r.IntN(24))
			c.checkpoints.claims.note(&message.Checkpoint{Seq: n, Digest: message.Digest{byte(r.IntN(2))},
				Stable: r.IntN(3) == 0, From: message.ReplicaID(r.IntN(3))})
		}
		type counts struct{ all, stable int }
		said := map[message.CheckpointID]counts{}
		for i := range c.reports.peers {
			for _, k := range c.checkpoints.claims.of[i] {
				id := message.CheckpointID{Seq: k.Seq, Digest: k.Digest}
				x := said[id]
				if x.all++; k.Stable {
					x.stable++
				}
				said[id] = x
			}
		}
		above := message.SeqNum(4 * r.IntN(24))
		for _, stable := range []bool{false, true} {
			want := message.SeqNum(0)
			for id, x := range said {
				if id.Seq > above && (x.stable >= 2 || x.all >= 3 || !stable && x.all >= 2) {
					want = max(want, id.Seq)
				}
			}
			if got, found := c.checkpoints.claims.highest(above, stable); got.Seq != want || found != (want > 0) {
				t.Fatalf("seed %d: above %d, stable: %t: got %d, %t, want %d",
					seed, above, stable, got.Seq, found, want)
			}
		}
	}
}

// A checkpoint that becomes stable may let a view begin, in which a later one becomes stable at
// once, so that the place in the ring where the first was counted is another's when we come back to
// it. Roots come in any order, and the one that the view begins from comes last here. A state told
// to discard the checkpoints below a number that a liar has made up has none left to go back to.
func TestStableWhileBecomingStable(t *testing.T) {
	c := New(Config{
		Self: 3, Replicas: 4, CheckpointPeriod: 16, LogSize: 32, CheckpointBytes: 1, Window: 2,
		Batch: BatchLimit{Bytes: 1 << 10, Count: 8}, LogBytes: 1 << 12, Clients: 64, Slots: 4, QueueBytes: 1 << 11,
		Ticks: Ticks{Status: 10, Resend: 2},
	})
	root := func(n message.SeqNum) message.Digest { return message.Digest{byte(n), 1} }
	step := func(m message.Message) (discarded []message.SeqNum) {
		c.Step(m)
		for effects := c.Effects(); len(effects) > 0; effects = c.Effects() {
			for _, e := range effects {
				switch e.Verb {
				case Freeze:
					if e.Seq != 2 {
						c.Frozen(e.Seq, root(e.Seq))
					}
				case Discard:
					discarded = append(discarded, e.Seq)
				}
			}
		}
		return discarded
	}
	execute := func(from, to message.SeqNum) {
		for n := from; n <= to; n++ {
			b := batchOf(fmt.Sprint(n))
			for i := range message.ReplicaID(2) {
				step(&message.Decided{Seq: n, Digest: b.Digest(), From: i})
			}
			step(&message.BatchBody{PrePrepare: message.PrePrepare{Digest: b.Digest(), Batch: b}})
		}
		if c.log.lastExec != to {
			t.Fatalf("executed %d, want %d", c.log.lastExec, to)
		}
	}
	c.Frozen(0, root(0))
	execute(1, 3)
	begin := &message.NewView{View: 1, Checkpoint: message.CheckpointID{Seq: 2, Digest: root(2)}, From: 1}
	for i := range message.ReplicaID(3) {
		m := &message.ViewChange{View: 1, Low: 2, Checkpoints: []message.CheckpointID{begin.Checkpoint}, From: i}
		step(m)
		begin.V = append(begin.V, message.Vouched{From: i, Digest: m.Digest()})
	}
	step(begin)
	execute(4, 6)
	liar := message.ReplicaID(2)
	step(&message.Checkpoint{Seq: 3 + message.SeqNum(len(c.checkpoints.ring)), From: liar})
	for i := range message.ReplicaID(3) {
		step(&message.Checkpoint{Seq: 6, Digest: root(6), From: i})
	}
	step(&message.Checkpoint{Seq: 3, Digest: root(3), From: 0})
	if v, active := c.View(); v != 1 || active || c.log.low != 0 {
		t.Fatalf("in view %d, active: %t, low water mark %d; want to wait for view 1 from 0", v, active, c.log.low)
	}
	discarded := step(&message.Checkpoint{Seq: 3, Digest: root(3), From: 1})
	if _, active := c.View(); !active || c.stable.Seq != 6 {
		t.Fatalf("active: %t, stable checkpoint %d, want 6 in view 1", active, c.stable.Seq)
	}
	if !slices.Equal(discarded, []message.SeqNum{3, 6}) {
		t.Errorf("discards what is below %v, want below 3 and then 6", discarded)
	}
}

// Keys that change all the time must not make us send our log each time.
func TestKeyChangesResendAtMostOncePerInterval(t *testing.T) {
	c := newAttacked(0, 0)
	c.Frozen(0, message.Digest{})
	r := batchOf("x").Requests[0]
	c.Step(r)
	perform(c)
	sent := 0
	for range 100 {
		c.KeysChanged(2)
		sent += len(perform(c))
	}
	if sent != 1 {
		t.Fatalf("100 changes of keys in one tick brought %d messages, want the proposal once", sent)
	}
}

// newAhead is a primary whose checkpoint 8 is stable, and that has just proposed number
// 9: beyond the window of who has installed no checkpoint yet.
func newAhead() *Core {
	c := newAttacked(0, 0)
	c.log.lastExec, c.log.numbered = 8, 8
	c.stability.collect(8, message.Digest{8})
	c.Step(batchOf("x").Requests[0])
	perform(c)
	return c
}

// sentAgain counts the proposals that a STATUS brings replica 2, which stands at a checkpoint, when
// our last word of number 9 has just left.
func sentAgain(c *Core, checkpoint message.SeqNum) (proposals int) {
	c.log.slot(9).sent.restart(c.tick, c.cfg.Ticks.Resend)
	c.Step(&message.Status{Active: true, Low: checkpoint, LastExecuted: checkpoint, From: 2})
	for _, m := range perform(c) {
		if _, ok := m.(*message.PrePrepare); ok {
			proposals++
		}
	}
	return proposals
}

// A replica that says by turns that it has installed a checkpoint, and that it has not, is sent the
// messages that it refused before the checkpoint once. Afterwards it may lack only messages that
// left long ago, like every replica.
func TestMarksThatGoToAndFro(t *testing.T) {
	c := newAhead()
	sent := 0
	for i := range 100 {
		for range c.cfg.Ticks.Resend {
			c.Tick()
		}
		sent += sentAgain(c, message.SeqNum(i%2)*8)
	}
	if sent != 1 {
		t.Fatalf("what had just left was sent %d times more, want once", sent)
	}
}

// A replica that was restarted, and has installed a checkpoint once more, is sent the messages that
// it refused meanwhile, though the first STATUS in which it told us so came too soon.
func TestInstalledWhileNotAnswered(t *testing.T) {
	c := newAhead()
	if n := sentAgain(c, 8); n != 1 {
		t.Fatalf("%d proposals for who has installed a checkpoint, want 1", n)
	}
	for range c.cfg.Ticks.Resend {
		c.Tick()
	}
	c.KeysChanged(2)
	perform(c)
	for c.Refused(TooSoon) == 0 {
		if n := sentAgain(c, 0); n != 0 {
			t.Fatalf("%d proposals for who is before its checkpoint", n)
		}
	}
	if n := sentAgain(c, 8); n != 0 || c.Refused(TooSoon) != 2 {
		t.Fatalf("%d proposals beyond its share", n)
	}
	for range askBurst * c.cfg.Ticks.Resend {
		c.Tick()
	}
	if n := sentAgain(c, 8); n != 1 {
		t.Errorf("%d proposals for who has installed a checkpoint once more, want 1", n)
	}
}

// A FETCH-BATCH of a few bytes must not make us send megabytes as often as it comes.
func TestFetchBatchIsBoundedInBytes(t *testing.T) {
	c := newAttacked(1, 0)
	c.cfg.LogBytes = 1 << 30
	b := batchOf(string(make([]byte, 1<<20)))
	c.Step(&message.PrePrepare{Seq: 1, Digest: b.Digest(), Batch: b})
	perform(c)
	bytes := 0
	for range 100 {
		c.Step(&message.FetchBatch{Digests: []message.Digest{b.Digest(), b.Digest(), b.Digest()}, From: 2})
		for _, m := range perform(c) {
			bytes += m.(*message.BatchBody).Batch.Bytes()
		}
	}
	if bound := servesPerTick * fetchBytes; bytes > bound+1<<20 {
		t.Fatalf("%d bytes sent in one tick, want <= %d", bytes, bound)
	}
}

// A replica that fetches for ever has twice the state at full speed, and then little;
// after a while it may fetch again.
func TestFetchingForEverIsBounded(t *testing.T) {
	c := newAttacked(1, 0)
	const pages = 1 << 19
	c.StateSize(pages)
	served := func(ticks int) (n int) {
		for range ticks {
			for range servesPerTick + 1 {
				c.Step(&message.Fetch{Nodes: make([]message.NodeID, message.MaxFetch), From: 2})
			}
			for _, e := range c.Effects() {
				if e.Verb == Serve {
					n += message.MaxFetch
				}
			}
			c.Tick()
		}
		return n
	}
	if n := served(2 * pages / message.MaxFetch / servesPerTick); n < 2*pages*9/10 {
		t.Fatalf("%d pages served at full speed, want about %d", n, 2*pages)
	}
	served(100)
	const ticks = 1000
	if n, bound := served(ticks), ticks*(message.MaxFetch+2*pages/creditTicks+1); n > bound || n == 0 {
		t.Fatalf("%d pages served then in %d ticks, want some and <= %d", n, ticks, bound)
	}
	for range creditTicks + 100 {
		c.Tick()
	}
	if n := served(10); n < 10*(servesPerTick-1)*message.MaxFetch {
		t.Fatalf("%d pages served in 10 ticks later", n)
	}
}

// While clients are served a replica that fetches has a quarter of the speed.
func TestFetchingBesideClients(t *testing.T) {
	c := newAttacked(1, 0)
	served := func() (n int) {
		c.Tick()
		for range servesPerTick + 1 {
			c.Step(&message.Fetch{Nodes: make([]message.NodeID, 1), From: 2})
		}
		for _, e := range c.Effects() {
			if e.Verb == Serve {
				n++
			}
		}
		return n
	}
	if n := served(); n != servesPerTick {
		t.Errorf("%d FETCHes answered in a tick, want %d", n, servesPerTick)
	}
	c.queue.serves(7, c.tick)
	if n := served(); n != 4 {
		t.Errorf("%d FETCHes answered in a tick in which a client is served, want 4", n)
	}
}

// A correct replica has asksPerReplica FETCHes under way. All are answered, some of them in the
// next ticks if clients are served: a replica that is not answered leaves us alone for a second,
// and would never come up with a busy group.
func TestFetchesWaitForTheirShare(t *testing.T) {
	c := newForgetful(0, 0).Core
	served := func() (tags []uint32) {
		for _, e := range c.Effects() {
			if e.Verb == Serve {
				tags = append(tags, e.Message.(*message.Fetch).Tag)
			}
		}
		return tags
	}
	c.Tick()
	c.queue.serves(7, c.tick)
	c.Tick()
	for tag := range uint32(asksPerReplica) {
		c.Step(&message.Fetch{Tag: tag, Nodes: make([]message.NodeID, 1), From: 2})
	}
	got, want := served(), []uint32{0, 1, 2, 3, 4, 5, 6, 7}
	if len(got) != 4 {
		t.Errorf("%d FETCHes answered in a tick in which a client is served, want 4", len(got))
	}
	for range 2 {
		c.Tick()
		got = append(got, served()...)
	}
	if !slices.Equal(got, want) {
		t.Errorf("answered %d, want %d", got, want)
	}
}

// A client that is not enrolled any more leaves no request waiting, and no place taken.
func TestRevokedClientsAreForgotten(t *testing.T) {
	c := newAttacked(1, 0)
	for client := range message.ClientID(3) {
		r := &message.Request{Client: client + 1, Timestamp: 1, Authentic: true, Op: []byte("x")}
		c.Step(r)
		c.Step(&message.Forward{Client: r.Client, Timestamp: 1, Digest: r.Digest(), From: 2})
	}
	c.Retain(func(id message.ClientID) bool { return id == 2 })
	q := &c.queue
	if len(q.lines) != 1 || len(q.order) != 1 || len(q.turn) != 1 || q.total != 1 || q.waiting != 1 ||
		len(c.forwards.of[2]) != 1 {
		t.Fatalf("%d lines, %d in order, %d in turn, %d held, %d waiting, %d FORWARDs, want 1 of each",
			len(q.lines), len(q.order), len(q.turn), q.total, q.waiting, len(c.forwards.of[2]))
	}
	if batch := q.take(room{8, 1 << 10, 0}, 1); len(batch) != 1 || batch[0].Client != 2 {
		t.Fatalf("to be proposed: %v", batch)
	}
	if q.find(2); q.find(3) != nil {
		t.Fatal("a revoked client still has a line")
	}
	c.Retain(func(message.ClientID) bool { return false })
	if q.find(2) != nil {
		t.Fatal("the line that was asked for last is there though its client was revoked")
	}
}

// Clients share a batch evenly when it has no room for all that waits, the first come first served;
// and what it has of one stands together.
func TestBatchIsSharedEvenly(t *testing.T) {
	var q queue
	q.init(8, 1<<10)
	for client := range message.ClientID(3) {
		for s := range message.Slot(2 + 3*client) { // 2, 5 and 8
			q.add(&message.Request{Client: client + 1, Slot: s, Timestamp: 1, Authentic: true}, 0)
		}
	}
	for i, want := range []string{"1.0 1.1 2.0 2.1 2.2 3.0 3.1 3.2", "2.3 2.4 3.3 3.4 3.5 3.6 3.7", ""} {
		var got []string
		for _, r := range q.take(room{8, 1 << 10, 0}, 1) {
			got = append(got, fmt.Sprintf("%d.%d", r.Client, r.Slot))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("batch %d: got %q, want %q", i, got, want)
		}
	}
}

// Each view that a client stalls has it suspected for longer, and as it behaves it is forgiven.
func TestSuspicionGrows(t *testing.T) {
	var q queue
	q.init(2, 1<<10)
	l := q.line(7)
	offend := func(tick, want int) int {
		t.Helper()
		q.suspect(7, tick)
		q.suspect(7, tick) // with another request
		if l.suspect.until != tick+want {
			t.Fatalf("suspected for %d ticks, want %d", l.suspect.until-tick, want)
		}
		return l.suspect.until
	}
	at := 1
	for double := range 10 {
		at = offend(at, suspicion<<min(double, suspicionDouble))
	}
	// one period of good behaviour, and twice half of it
	at = offend(at+suspicion<<suspicionDouble, suspicion<<suspicionDouble)
	offend(at+suspicion<<(suspicionDouble+1), suspicion) // long ago
}

// A client is suspected for a proposal that stood for a request's time, and not for what was just
// under way when the view ended: replicas are restarted, recover and hand over.
func TestSuspicionNeedsTime(t *testing.T) {
	for _, x := range []struct {
		name     string
		stands   int
		to       string // who has the request
		suspects bool
	}{
		{"the view ends at once", 0, "0", false},
		{"just before the time is over", 19, "0", false},
		{"nobody else can authenticate it", 20, "0", true},
		{"its client has sent it to all", 20, "0123", false},
	} {
		p := &play{}
		p.command(t, "group n=4")
		p.command(t, "cut 0->1 0->2 0->3") // nothing prepares
		p.command(t, "request client=9 op=x to="+x.to)
		p.command(t, "deliver")
		for range x.stands {
			p.command(t, "tick")
			p.command(t, "deliver")
		}
		c := p.cores[0]
		if c.view == 0 {
			p.command(t, "leave at=0 v=1")
		}
		if got := !c.queue.line(9).suspect.over(c.tick); got != x.suspects {
			t.Errorf("%s: the client is suspected: %v, want %v", x.name, got, x.suspects)
		}
	}
}

// leaving is the VIEW-CHANGE of a replica at which nothing has happened.
func leaving(from message.ReplicaID, v message.View) *message.ViewChange {
	return &message.ViewChange{View: v, Checkpoints: []message.CheckpointID{{}}, From: from}
}

// A faulty replica may have its VIEW-CHANGE named by a NEW-VIEW and leave for a later view at once.
// Whoever has not had the first must still get it from the primary, and acks for it from the
// others: or it could not check the NEW-VIEW, and f such replicas could spoil one view after the
// other.
func TestNamedViewChangeOutlivesItsSendersNext(t *testing.T) {
	for _, self := range []message.ReplicaID{1, 0} { // the primary of view 1, and a backup
		c := newAttacked(self, 0)
		c.Frozen(0, message.Digest{})
		named := leaving(3, 1)
		c.Step(named)
		c.Step(leaving(1-self, 1))
		for i := range message.ReplicaID(4) {
			c.Step(&message.ViewChangeAck{View: 1, Of: 3, Digest: named.Digest(), From: i % 3})
			c.Step(&message.ViewChangeAck{View: 1, Of: 0, Digest: leaving(0, 1).Digest(), From: i})
		}
		perform(c)
		c.Step(leaving(3, 2))
		c.Step(&message.Status{View: 1, ViewChanges: 1<<0 | 1<<1 | 1<<2, HasNewView: true, From: 2})
		helped := false
		for _, m := range perform(c) {
			switch m := m.(type) {
			case *message.ViewChange:
				helped = helped || m.From == 3 && m.View == 1
			case *message.ViewChangeAck:
				helped = helped || m.Of == 3 && m.View == 1 && m.Digest == named.Digest()
			}
		}
		if !helped {
			t.Errorf("replica %d does not help with the VIEW-CHANGE of 3 for view 1, for 3 has left for view 2", self)
		}
	}
}

// The client whose requests waited first cannot keep the others' from being forwarded.
func TestEveryWaitingRequestIsForwarded(t *testing.T) {
	c := New(Config{
		Self: 1, Replicas: 4, CheckpointPeriod: 4, LogSize: 8, Window: 2,
		Batch: BatchLimit{Bytes: 1 << 10, Count: 8}, LogBytes: 1 << 12,
		Clients: 64, Slots: 256, QueueBytes: 1 << 20, Ticks: Ticks{Status: 10, Resend: 2, Forward: 3, Timeout: 40},
	})
	c.Frozen(0, message.Digest{})
	ask := func(client message.ClientID, slots int) {
		for s := range slots {
			r := &message.Request{Client: client, Slot: message.Slot(s), Timestamp: 1, Op: []byte("x"), Authentic: true}
			c.Step(r)
		}
	}
	for client := range message.ClientID(3) {
		ask(10+client, 256) // that only this replica can tell to be theirs: they wait for ever
	}
	ask(20, 1)
	for range 40 {
		c.Tick()
		for _, m := range perform(c) {
			if f, ok := m.(*message.Forward); ok && f.Client == 20 {
				return
			}
		}
	}
	t.Fatal("768 requests that wait keep a client's only one from being forwarded")
}

// A batch that a single replica says it has prepared is not asked for, nor taken from it:
// a batch is fetched for a new view when f+1 have pre-prepared it, so that a correct one
// did.
func TestNobodyMakesThePrimaryKeepBatches(t *testing.T) {
	c := newAttacked(1, 0)
	c.Frozen(0, message.Digest{})
	lie := leaving(3, 1)
	for n := message.SeqNum(1); n <= 8; n++ {
		b := batchOf(fmt.Sprint("made up ", n))
		lie.P = append(lie.P, message.Prepared{Seq: n, Digest: b.Digest()})
	}
	lie.Q = lie.P
	c.Step(lie)
	c.Step(leaving(0, 1))
	for n := message.SeqNum(1); n <= 8; n++ {
		b := batchOf(fmt.Sprint("made up ", n))
		c.Step(&message.BatchBody{PrePrepare: message.PrePrepare{Digest: b.Digest(), Batch: b, From: 3}})
	}
	perform(c)
	if n := c.Sizes().Bodies; n > 0 {
		t.Fatalf("%d batches are kept that one replica alone knows of", n)
	}
}

// A replica whose state is that of a checkpoint it fetched does not hold the earlier ones. A view
// that begins from one of these begins here all the same: what it lacks is the earlier root, and it
// has executed what follows.
func TestViewFromBelowTheFetchedState(t *testing.T) {
	c := newAttacked(2, 0)
	c.Frozen(0, message.Digest{})
	c.catchUp.fetchState(message.CheckpointID{Seq: 8, Digest: message.Digest{8}})
	c.Fetching(newToy(8))
	c.Installed(8)
	perform(c)
	if c.log.low != 0 || c.log.lastExec != 8 {
		t.Fatalf("h is %d and %d executed, want 0 and 8", c.log.low, c.log.lastExec)
	}
	m := &message.NewView{View: 1, Checkpoint: message.CheckpointID{Seq: 4, Digest: message.Digest{4}}, From: 1}
	for _, i := range []message.ReplicaID{0, 1, 3} {
		vc := leaving(i, 1)
		vc.Checkpoints = append(vc.Checkpoints, m.Checkpoint)
		c.Step(vc)
		m.V = append(m.V, message.Vouched{From: i, Digest: vc.Digest()})
	}
	c.Step(m)
	perform(c)
	if v, active := c.View(); v != 1 || !active {
		t.Fatalf("view %d, active %v: the view that begins from checkpoint 4 does not begin here", v, active)
	}
}

// The root of a checkpoint that comes when the state was replaced by a later one is no
// more ours to vouch for.
func TestLateRootOfAStateThatWasReplaced(t *testing.T) {
	c := newAttacked(2, 0)
	c.Frozen(0, message.Digest{})
	c.catchUp.fetchState(message.CheckpointID{Seq: 8, Digest: message.Digest{8}})
	c.Fetching(newToy(8))
	c.Installed(8)
	perform(c)
	c.Frozen(4, message.Digest{4})
	c.leave(1)
	for _, k := range c.change.own.Checkpoints {
		if k.Seq == 4 {
			t.Fatal("a VIEW-CHANGE names a checkpoint that is not held")
		}
	}
}

// Requests of one client that wait here, and that no other replica can authenticate, are
// not sent to the primary again without end, because votes take the same way.
func TestPassingOnIsBounded(t *testing.T) {
	c := New(Config{
		Self: 1, Replicas: 4, CheckpointPeriod: 4, LogSize: 8, Window: 2,
		Batch: BatchLimit{Bytes: 1 << 20, Count: 8}, LogBytes: 1 << 24,
		Clients: 64, Slots: 64, QueueBytes: 64 << 20, Ticks: Ticks{Status: 10, Resend: 2, Forward: 3, Timeout: 40},
	})
	c.Frozen(0, message.Digest{})
	for s := range 64 {
		r := &message.Request{Client: 9, Slot: message.Slot(s), Timestamp: 1, Op: make([]byte, 1<<20), Authentic: true}
		c.Step(r)
	}
	perform(c)
	bytes, ticks := 0, 200
	for range ticks {
		c.Tick()
		for _, m := range perform(c) {
			if r, ok := m.(*message.Request); ok {
				bytes += len(r.Op)
			}
		}
	}
	if bound := ticks*passBytes + 1<<20; bytes == 0 || bytes > bound {
		t.Fatalf("%d bytes are passed on again in %d ticks, want some and <= %d", bytes, ticks, bound)
	}
}

// A DATA that brings nothing of what was asked for, as fast as it is asked, is a lie like
// a false one.
func TestEmptyDataIsShunned(t *testing.T) {
	c := newAttacked(2, 0)
	c.Frozen(0, message.Digest{})
	c.catchUp.fetchState(message.CheckpointID{Seq: 8, Digest: message.Digest{8}})
	c.Fetching(newToy(8))
	asked := 0
	for range 10 {
		for _, e := range c.Effects() {
			if f, ok := e.Message.(*message.Fetch); ok && e.To == 3 {
				asked++
				c.Step(&message.Data{Seq: f.Seq, Tag: f.Tag, From: 3})
			} else if ok {
				c.Step(&message.Data{Seq: f.Seq, Tag: f.Tag, Gone: true, From: e.To})
			}
		}
		c.Tick()
		c.Tick()
		c.Tick()
	}
	if asked != 1 {
		t.Fatalf("replica 3 answers with nothing and is asked %d times, want once", asked)
	}
}

// A later checkpoint that a view begins from must not be aimed at while the state that
// was fetched is being installed.
func TestNoNewAimDuringInstall(t *testing.T) {
	c := newAttacked(2, 0)
	c.Frozen(0, message.Digest{})
	c.catchUp.fetchState(message.CheckpointID{Seq: 4, Digest: message.Digest{4}})
	s := newToy(4)
	s.left = nil // all is here already
	c.Fetching(s)
	c.catchUp.fetchState(message.CheckpointID{Seq: 8, Digest: message.Digest{8}})
	for _, e := range c.Effects() {
		if e.Verb == Install {
			c.Installed(e.Seq)
		}
	}
	if c.log.lastExec != 4 || c.catchUp.fetching() {
		t.Fatalf("%d executed, want 4", c.log.lastExec)
	}
}

// The primary of a new view proposes what its NEW-VIEW chose, without an operation that this
// replica never had. There is no vote before the batch is here.
func TestChosenWithoutItsOperation(t *testing.T) {
	c := newAttacked(2, 0)
	whole := proposal(1, strings.Repeat("x", message.ShortOperation+1))
	stub := *whole
	stub.Batch.Requests = []*message.Request{whole.Batch.Requests[0].Stub()}
	c.log.slot(1).chosen = whole.Digest
	c.log.decidedTo = 1
	voted := func() bool {
		return slices.ContainsFunc(perform(c), func(m message.Message) bool { return m.Type() == message.TypePrepare })
	}
	if c.Step(&stub); voted() || c.Refused(OperationMissing) != 1 {
		t.Fatal("it votes for what it cannot execute")
	}
	c.Step(&message.BatchBody{PrePrepare: *whole})
	if !voted() {
		t.Fatal("it does not vote for what it has")
	}
}

// Nobody makes a replica keep more operations for a client than that client may have waiting.
func TestOperationsLaidByAreBounded(t *testing.T) {
	c := newAttacked(2, 0)
	for round := range 20 {
		for s := range message.Slot(6) {
			q := &message.Request{Client: 9, Slot: s, Timestamp: message.Timestamp(round), Apart: true,
				PassedBy: 2, Authentic: true, Op: make([]byte, message.ShortOperation+100*round)}
			c.Step(q)
		}
		if got := c.Sizes().LineBytes; got > 1<<10+message.ShortOperation {
			t.Fatalf("round %d: it keeps %d bytes", round, got)
		}
		if c.Pending() > 0 || len(perform(c)) > 0 {
			t.Fatal("it waits for them, or passes them on")
		}
	}
}

// The benchmark measures a FORWARD that makes no request authentic, when a faulty primary
// has filled the log with proposals that wait for FORWARDs.
func BenchmarkForwardAlone(b *testing.B) {
	const window, each = 256, 512
	c := New(Config{
		Self: 1, Replicas: 4, CheckpointPeriod: window / 2, LogSize: window, Window: 2,
		Batch: BatchLimit{Bytes: 1 << 20, Count: each}, LogBytes: 1 << 28, Clients: 2, Slots: 1 << 16,
		QueueBytes: 1 << 20, Ticks: Ticks{Status: 10, Resend: 2},
	})
	for n := message.SeqNum(1); n <= window; n++ {
		var batch message.Batch
		for i := range each {
			batch.Requests = append(batch.Requests, &message.Request{Client: 9, Slot: message.Slot(i),
				Timestamp: message.Timestamp(n), Authentic: i < each-1})
		}
		c.Step(&message.PrePrepare{Seq: n, Digest: batch.Digest(), Batch: batch})
	}
	if perform(c); c.log.slot(window).held == nil {
		b.Fatal("the last proposal is not held")
	}
	t := message.Timestamp(0)
	for b.Loop() {
		t++
		c.Step(&message.Forward{Client: 10, Timestamp: t, From: 2})
	}
}
