// SPDX-License-Identifier: Apache-2.0

package core

import (
	"slices"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A scene is a core in view 0 that some messages of others bring to the brink of a step.
// With the last of them it takes the step, if what was said before still counts.
type scene struct {
	name  string
	self  message.ReplicaID
	by    message.ReplicaID // said one of the first, without which there is no step
	first []message.Message // in one epoch
	last  message.Message   // in the next
	again []message.Message // what the others say once more; empty: first
	moved func(c *Core) bool
}

func prepare(from message.ReplicaID, n message.SeqNum, op string) *message.Prepare {
	return &message.Prepare{Seq: n, Digest: proposal(n, op).Digest, From: from}
}

func commit(from message.ReplicaID, n message.SeqNum) *message.Commit {
	return &message.Commit{Seq: n, From: from}
}

func checkpointOf(from message.ReplicaID, stable bool) *message.Checkpoint {
	return &message.Checkpoint{Seq: 4, Digest: message.Digest{4}, Stable: stable, From: from}
}

func leavesFor(from message.ReplicaID, v message.View) *message.ViewChange {
	return &message.ViewChange{View: v, Checkpoints: []message.CheckpointID{{Digest: message.Digest{0}}}, From: from}
}

func forwardOf(from message.ReplicaID) *message.Forward {
	q := batchOf("x").Requests[0]
	return &message.Forward{Client: q.Client, Slot: q.Slot, Timestamp: q.Timestamp, Digest: q.Digest(), From: from}
}

func passedOn2() *message.Request {
	q := batchOf("x").Requests[0]
	q.Authentic, q.PassedBy = false, 2
	return q
}

func decidedAs(from message.ReplicaID) *message.Decided {
	return &message.Decided{Seq: 1, Digest: proposal(1, "x").Digest, From: from}
}

func executedOne(c *Core) bool { return c.log.lastExec == 1 }

// fourBatches are executed, and the last brings a checkpoint.
func fourBatches() (all []message.Message) {
	for n := message.SeqNum(1); n <= 4; n++ {
		all = append(all, proposal(n, "x"), prepare(2, n, "x"), commit(2, n), commit(0, n))
	}
	return all
}

func scenes() []scene {
	prepared := func(c *Core) bool { _, ok := c.Prepared(1); return ok }
	stable := func(c *Core) bool { return c.stable.Seq == 4 }
	return []scene{
		{"a PREPARE and a proposal", 1, 2, []message.Message{prepare(2, 1, "x")}, proposal(1, "x"), nil, prepared},
		{"a proposal and a PREPARE", 1, 0, []message.Message{proposal(1, "x")}, prepare(2, 1, "x"), nil, prepared},
		{"two PREPAREs at the primary", 0, 1,
			[]message.Message{batchOf("x").Requests[0], prepare(1, 1, "x")}, prepare(2, 1, "x"),
			[]message.Message{prepare(1, 1, "x")}, prepared},
		{"two COMMITs", 1, 2, []message.Message{proposal(1, "x"), prepare(2, 1, "x"), commit(2, 1)}, commit(0, 1),
			[]message.Message{commit(2, 1)}, executedOne},
		{"two CHECKPOINTs", 1, 2, append(fourBatches(), checkpointOf(2, false)), checkpointOf(0, false),
			[]message.Message{checkpointOf(2, false)}, stable},
		{"two that say it is stable", 1, 2, []message.Message{checkpointOf(2, true)}, checkpointOf(0, true), nil,
			func(c *Core) bool {
				return c.checkpoints.claims.provenStable(message.CheckpointID{Seq: 4, Digest: message.Digest{4}})
			}},
		{"two VIEW-CHANGEs", 1, 2, []message.Message{leavesFor(2, 2)}, leavesFor(3, 2), nil, func(c *Core) bool { return c.view == 2 }},
		{"the VIEW-CHANGEs of a NEW-VIEW", 1, 2, []message.Message{
			leavesFor(0, 1), leavesFor(2, 1),
			&message.ViewChangeAck{View: 1, Of: 0, Digest: leavesFor(0, 1).Digest(), From: 2},
		}, &message.ViewChangeAck{View: 1, Of: 2, Digest: leavesFor(2, 1).Digest(), From: 0}, nil, func(c *Core) bool {
			return c.view == 1 && c.active
		}},
		{"two DECIDEDs", 1, 2, []message.Message{proposal(1, "x"), decidedAs(2)}, decidedAs(3), []message.Message{decidedAs(2)}, executedOne},
		{"two FORWARDs", 0, 2, []message.Message{forwardOf(2)}, forwardOf(3), nil, func(c *Core) bool {
			c.forwards.keepUnproven(passedOn2())
			return c.queue.total == 1
		}},
	}
}

// Votes of one epoch of our keys and votes of the next do not make one certificate;
// repeated in the next they do. If the key of one replica was refreshed, that holds for
// its votes alone.
func TestCertificatesAreOfOneEpoch(t *testing.T) {
	for _, x := range scenes() {
		t.Run(x.name, func(t *testing.T) {
			for _, y := range []struct {
				what    string
				refresh func(*Core)
				forgets bool
			}{
				{"no key", func(*Core) {}, false},
				{"all keys", (*Core).Refreshed, true},
				{"the voter's key", func(c *Core) { c.RefreshedFor(x.by) }, true},
				{"another's key", func(c *Core) { c.RefreshedFor(3) }, false},
			} {
				c := newAttacked(x.self, 0)
				c.Frozen(0, message.Digest{0})
				say := func(m message.Message) {
					c.Step(m)
					perform(c)
				}
				perform(c)
				for _, m := range x.first {
					say(m)
				}
				if x.moved(c) {
					t.Fatal("it moves before the last message")
				}
				y.refresh(c)
				perform(c)
				if say(x.last); x.moved(c) == y.forgets {
					t.Fatalf("%s refreshed, moved %v", y.what, !y.forgets)
				}
				if !y.forgets {
					continue
				}
				again := x.again
				if again == nil {
					again = x.first
				}
				for _, m := range again {
					say(m)
				}
				if !x.moved(c) {
					t.Errorf("%s refreshed: it does not move when all is said once more", y.what)
				}
			}
		})
	}
}

// A replica that executes another's recovery request, or finds it in a state that it
// fetched, has that one, and no other, speak under a new key.
func TestRecoveryChangesOneKey(t *testing.T) {
	c := newAttacked(1, 0)
	c.Frozen(0, message.Digest{0})
	perform(c)
	keys := func() (all []message.ReplicaID) {
		for _, e := range c.Effects() {
			if e.Verb == Refresh {
				all = append(all, e.To)
			}
		}
		return all
	}
	c.Recovered(3, 1, 8, 1)
	if got := keys(); !slices.Equal(got, []message.ReplicaID{3}) {
		t.Errorf("replica 3 recovers, and new keys are for %v", got)
	}
	c.Recovered(1, 2, 8, 1) // our own: we have had new keys since we were started
	if got := keys(); len(got) > 0 {
		t.Errorf("we recover, and new keys are for %v", got)
	}
}

// A certificate that was whole stays so: what has prepared goes on to commit, and the
// view goes on with the VIEW-CHANGEs that it began with, which others may need from us.
func TestWholeCertificatesStay(t *testing.T) {
	c := newAttacked(1, 0)
	c.Frozen(0, message.Digest{0})
	for _, m := range []message.Message{proposal(1, "x"), prepare(2, 1, "x")} {
		c.Step(m)
		perform(c)
	}
	c.Refreshed()
	if _, prepared := c.Prepared(1); !prepared {
		t.Error("what had prepared has not prepared any more")
	}
	c.Step(commit(2, 1))
	c.Step(commit(0, 1))
	if perform(c); !executedOne(c) {
		t.Error("it does not commit")
	}

	c = newAttacked(1, 0)
	c.Frozen(0, message.Digest{0})
	perform(c)
	for _, m := range []message.Message{
		leavesFor(0, 1), leavesFor(2, 1),
		&message.ViewChangeAck{View: 1, Of: 0, Digest: leavesFor(0, 1).Digest(), From: 2},
		&message.ViewChangeAck{View: 1, Of: 2, Digest: leavesFor(2, 1).Digest(), From: 0}, leavesFor(3, 1),
	} {
		c.Step(m)
		perform(c)
	}
	c.Refreshed()
	if c.change.last[0] == nil || c.change.last[2] == nil || c.change.newView == nil || !c.active {
		t.Error("the VIEW-CHANGEs with which the view began are forgotten")
	}
	if c.change.last[3] != nil {
		t.Error("a VIEW-CHANGE that nobody named is kept")
	}
	if c.LeftFor(3) != 1 {
		t.Error("it is forgotten that replica 3 has left for view 1")
	}
}

// A request under a client's old MAC is not proposed, nor vouched for, nor found to be
// authentic in a proposal, until the client says it again; and a wish that it never had
// does not keep it from that. Meanwhile it waits as it did.
func TestQueuedRequestsExpire(t *testing.T) {
	for _, forged := range []bool{false, true} {
		c := newAttacked(1, 0)
		c.Frozen(0, message.Digest{0})
		perform(c)
		q := batchOf("x").Requests[0]
		q.Auth.Nonce = 1
		old := *q
		if forged {
			old.Timestamp, old.Op = 9, []byte("forged")
			old.Altered()
		}
		c.Step(&old)
		perform(c)
		arrived := c.queue.find(9).arrived[0]
		c.Refreshed()
		for range 3 * tellTicks {
			c.Tick()
			for _, m := range perform(c) {
				if _, vouches := m.(*message.Forward); vouches {
					t.Fatal("a FORWARD for a request whose MAC has expired")
				}
			}
		}
		if c.queue.holds(&old) || c.queue.total != 1 || c.queue.waiting != 0 {
			t.Errorf("an expired request: held %v, %d wait, %d of them to be proposed",
				c.queue.holds(&old), c.queue.total, c.queue.waiting)
		}
		p := proposal(1, "x")
		p.Batch.Requests[0].Authentic = false
		c.Step(p)
		if perform(c); c.log.slot(1).proposal != nil {
			t.Error("a proposal is accepted whose request is authentic by an old key only")
		}
		again := *q
		again.Auth.Nonce = 2
		c.Step(&again)
		c.Tick()
		if perform(c); !c.queue.holds(&again) || c.log.slot(1).proposal == nil {
			t.Error("the request came again, and the proposal is not accepted")
		}
		if at := c.queue.find(9).arrived[0]; at != arrived && !forged {
			t.Errorf("the request waits since tick %d, and came first at %d", at, arrived)
		}
	}
}

// A primary proposes a queued request with the authenticator that its client made last:
// the replicas whose keys have changed find their MACs in that one alone.
func TestProposedWithTheNewestMACs(t *testing.T) {
	c := newAttacked(0, 0)
	c.Frozen(0, message.Digest{0})
	perform(c)
	old := batchOf("x").Requests[0]
	old.Auth.Nonce = 1
	again := *old
	again.Auth.Nonce, again.Replier = 2, message.AnyReplier
	c.Step(old)
	c.Step(&again) // before the first is proposed
	late := *old
	c.Step(&late)
	for _, m := range perform(c) {
		if p, ok := m.(*message.PrePrepare); ok {
			if got := p.Batch.Requests[0].Auth.Nonce; got != 2 || p.Batch.Requests[0].Replier != message.AnyReplier {
				t.Errorf("proposed with the authenticator of nonce %d, want 2", got)
			}
			return
		}
	}
	t.Fatal("nothing is proposed")
}

// A replica that is restored from its journal knows which request each slot executed
// last: those who wait for one that it alone has executed need its word.
func TestRestoredKnowsWhatIsDone(t *testing.T) {
	p := proposal(1, "x")
	cfg := newAttacked(1, 0).cfg
	cfg.Durable = true
	records := []message.Message{p, &message.Decided{Seq: 1, Digest: p.Digest}}
	c := Restore(cfg, message.CheckpointID{}, records)
	q := p.Batch.Requests[0]
	if !c.forwards.wasDone(q.Key(), forward{q.Timestamp, q.Digest()}) {
		t.Error("it does not know that the request is done")
	}
}

// A NEW-VIEW from another than its primary is believed when f+1 tell of the same one,
// also in place of what the primary sent. When the key of one of them changes, what rests
// on its word is forgotten.
func TestToldOfANewView(t *testing.T) {
	c := newAttacked(3, 0)
	c.leave(1)
	chosen := func(from message.ReplicaID, d byte) *message.NewView {
		return &message.NewView{View: 1, V: []message.Vouched{{From: 0, Digest: message.Digest{d}}}, From: from}
	}
	c.Step(chosen(1, 1))
	c.Step(chosen(2, 2))
	if m := c.change.newView; m == nil || !m.Equal(chosen(1, 1)) {
		t.Fatalf("one replica tells of another NEW-VIEW than the primary sent, and %v is believed", m)
	}
	c.Step(chosen(0, 3))
	if c.change.vouched {
		t.Fatal("two replicas tell of two, and one is believed")
	}
	c.Step(chosen(0, 2))
	if m := c.change.newView; !c.change.vouched || !m.Equal(chosen(1, 2)) || m.From != 1 {
		t.Fatalf("two replicas tell of one NEW-VIEW, and %v is believed", m)
	}
	c.RefreshedFor(2)
	if c.change.newView != nil || c.change.vouched {
		t.Fatal("a NEW-VIEW is believed for the word of somebody whose key was changed")
	}
}
