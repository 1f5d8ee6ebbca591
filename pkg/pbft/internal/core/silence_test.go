// SPDX-License-Identifier: Apache-2.0

package core

import (
	"math"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A forgetful is the core of a replica that has forgotten what it promised, and the place
// of the effects around it.
type forgetful struct {
	*Core
	said   []message.Message
	fence  message.SeqNum // durable, and so is
	fenced message.View
}

func newForgetful(self message.ReplicaID, fence message.SeqNum) *forgetful {
	f := &forgetful{fence: fence}
	f.Core = New(Config{
		Self: self, Replicas: 4, CheckpointPeriod: 8, LogSize: 16, Window: 4,
		Batch: BatchLimit{Bytes: 1 << 10, Count: 4}, LogBytes: 1 << 20,
		Tentative: true, Clients: 2, Slots: 2, QueueBytes: 1 << 20,
		Ticks: Ticks{Status: 15, Resend: 5, Forward: 3, Timeout: 40}, Fence: fence,
	})
	f.Frozen(0, message.Digest{9})
	return f
}

// installed is a session that wants nothing.
type installed struct{ Session }

func (installed) Done() bool                 { return true }
func (installed) Wants(int) []message.NodeID { return nil }

// hear steps the core with what replicas say and performs its effects.
func (f *forgetful) hear(all ...message.Message) {
	for _, m := range all {
		f.Step(m)
	}
	f.perform()
}

func (f *forgetful) perform() {
	for {
		all := f.Effects()
		if len(all) == 0 {
			return
		}
		for _, e := range all {
			switch e.Verb {
			case Accept:
				f.Accepted(e.Proposal, true)
			case Choose:
				f.Chosen(e.Seq, nil)
			case Freeze:
				f.Frozen(e.Seq, message.Digest{1})
			case Fence:
				f.fence, f.fenced = e.Seq, e.View
			case Fetch:
				f.Fetching(installed{})
			case Install:
				f.Installed(e.Seq)
			case Send, Multicast:
				f.said = append(f.said, e.Message)
			}
		}
	}
}

func (f *forgetful) pass(ticks int) {
	for range ticks {
		f.Tick()
		f.perform()
	}
}

// A replica that forgot hears batch 9 prepare while it is silent. When the silence ends it votes
// for it, and says that it has prepared as well: with another replica silent the group has no other
// third COMMIT.
func TestCommitAfterSilence(t *testing.T) {
	f := newForgetful(1, 8)
	for n := message.SeqNum(1); n <= 9; n++ {
		b := message.Batch{Choice: []byte{byte(n)}}
		f.hear(&message.PrePrepare{Seq: n, Digest: b.Digest(), Batch: b, From: 0})
		f.hear(&message.Prepare{Seq: n, Digest: b.Digest(), From: 2},
			&message.Prepare{Seq: n, Digest: b.Digest(), From: 3})
		f.hear(&message.Commit{Seq: n, From: 0}, &message.Commit{Seq: n, From: 2})
		if n < 9 {
			f.hear(&message.Commit{Seq: n, From: 3})
		}
	}
	if f.SilentUntil() != 8 || f.LastExecuted() != 8 {
		t.Fatalf("silent until %d, executed %d, want 8 and 8", f.SilentUntil(), f.LastExecuted())
	}
	f.said = nil
	f.hear(&message.Checkpoint{Seq: 8, Digest: message.Digest{1}, From: 0},
		&message.Checkpoint{Seq: 8, Digest: message.Digest{1}, From: 2})
	if f.SilentUntil() != 0 || f.fence < 9 {
		t.Fatalf("silent until %d, want 0, and the fence stands at %d, want >= 9", f.SilentUntil(), f.fence)
	}
	f.pass(20)
	prepares, commits := 0, 0
	for _, m := range f.said {
		switch m := m.(type) {
		case *message.Prepare:
			prepares++
		case *message.Commit:
			if m.Seq == 9 {
				commits++
			}
		}
	}
	if prepares != 1 || commits != 1 {
		t.Errorf("after the silence: %d PREPAREs and %d COMMITs for n9, want one each", prepares, commits)
	}
}

// A replica leaves for view 1 while it is silent, and its silence ends there. Its VIEW-CHANGE is
// made then: the view is durable before it leaves, and it names the checkpoint that ended the
// silence.
func TestViewChangeAfterSilence(t *testing.T) {
	f := newForgetful(2, 8)
	for _, i := range []message.ReplicaID{0, 1} {
		f.hear(&message.ViewChange{View: 1, Low: 8,
			Checkpoints: []message.CheckpointID{{Seq: 8, Digest: message.Digest{1}}}, From: i})
	}
	if v, _ := f.View(); v != 1 || len(f.said) > 0 {
		t.Fatalf("in view %d it says %v, want view 1 and silence", v, f.said)
	}
	for _, i := range []message.ReplicaID{0, 1} {
		f.hear(&message.Checkpoint{Seq: 8, Digest: message.Digest{1}, Stable: true, From: i})
	}
	f.pass(30)
	f.hear(&message.Status{View: 1, Low: 8, LastExecuted: 8, From: 1})
	changes := 0
	for _, m := range f.said {
		if m, ok := m.(*message.ViewChange); ok {
			changes++
			if m.Low != 8 || f.fenced < 1 {
				t.Errorf("VIEW-CHANGE v%d with low mark %d, and the fence in view %d, want 8 and 1",
					m.View, m.Low, f.fenced)
			}
		}
	}
	if changes == 0 {
		t.Error("the silence has ended, and no VIEW-CHANGE was sent")
	}
}

// A replica that remembers its view and nothing else is between views until a NEW-VIEW comes. Its
// own checkpoint ends its silence all the same when the others say that it is stable.
func TestSilenceEndsBetweenViews(t *testing.T) {
	f := newForgetful(3, 8)
	f.view, f.active, f.fencedView = 2, false, 2
	for _, i := range []message.ReplicaID{0, 1} {
		f.hear(&message.Checkpoint{Seq: 8, Digest: message.Digest{1}, Stable: true, From: i})
	}
	f.pass(30)
	if f.SilentUntil() != 0 || f.Stable().Seq != 8 {
		t.Errorf("silent until %d, stable %d, want 0 and 8", f.SilentUntil(), f.Stable().Seq)
	}
	for _, m := range f.said {
		if m, ok := m.(*message.ViewChange); ok && m.View <= 2 {
			t.Errorf("it sends a VIEW-CHANGE for view %d, and may have sent another", m.View)
		}
	}
}

// A replica that says that it is silent without need causes a bounded number of null
// batches in a period.
func TestFalseSilence(t *testing.T) {
	f := newForgetful(0, 0)
	f.hear(&message.Status{From: 1, SilentUntil: 1 << 40})
	for n := message.SeqNum(1); n < 1000; n++ {
		b := message.Batch{}
		for _, i := range []message.ReplicaID{1, 2} {
			f.hear(&message.Prepare{Seq: n, Digest: b.Digest(), From: i}, &message.Commit{Seq: n, From: i})
		}
		if n%8 == 0 {
			f.hear(&message.Checkpoint{Seq: n, Digest: message.Digest{1}, From: 1},
				&message.Checkpoint{Seq: n, Digest: message.Digest{1}, From: 2})
		}
	}
	if n := int(f.LastProposed()); n != f.silences.fillsPerPeriod() {
		t.Errorf("it causes %d null batches, want %d", n, f.silences.fillsPerPeriod())
	}
}

// The null batches up to the checkpoint that is awaited are proposed together. A request that comes
// then is proposed at once, though more batches are under way than the window has room for.
func TestRequestBehindNullBatches(t *testing.T) {
	f := newForgetful(0, 0)
	f.Await(7)
	f.perform()
	if n := f.LastProposed(); n != 8 {
		t.Fatalf("%d null batches are under way, want 8, up to the checkpoint that holds 7", n)
	}
	for n := range message.SeqNum(6) {
		f.hear(&message.Request{Client: 1, Timestamp: message.Timestamp(n + 1), Authentic: true, PassedBy: 1})
		f.perform()
		if got, want := f.LastProposed(), 8+min(n+1, 4); got != want {
			t.Errorf("after %d requests %d is proposed, want %d: as many as the window has room for", n+1, got, want)
		}
	}
}

// A backup that lacks a number below those that are proposed asks for it at once. Null batches that
// have not prepared yet are no gap, however many are under way.
func TestGapBesideNullBatches(t *testing.T) {
	for _, lacking := range []message.SeqNum{0, 3} { // 0: none
		f := newForgetful(1, 0)
		for n := message.SeqNum(1); n <= 9; n++ {
			if n != lacking {
				f.hear(&message.PrePrepare{Seq: n, Digest: message.NullDigest, From: 0})
			}
		}
		f.said = nil
		f.pass(2 * gapTicks) // the regular STATUS comes later
		asks := false
		for _, m := range f.said {
			_, is := m.(*message.Status)
			asks = asks || is
		}
		if asks != (lacking > 0) {
			t.Errorf("without batch %d it asks %v", lacking, asks)
		}
	}
}

// An idle primary that is asked for a checkpoint proposes null batches until one holds all that was
// asked for, and no more after that. A number beyond the window is no reason for more.
func TestAwait(t *testing.T) {
	f := newForgetful(0, 0)
	agree := func(n message.SeqNum) {
		b := message.Batch{}
		for _, i := range []message.ReplicaID{1, 2} {
			f.hear(&message.Prepare{Seq: n, Digest: b.Digest(), From: i}, &message.Commit{Seq: n, From: i})
		}
		if n%8 == 0 {
			f.hear(&message.Checkpoint{Seq: n, Digest: message.Digest{1}, From: 1},
				&message.Checkpoint{Seq: n, Digest: message.Digest{1}, From: 2})
		}
	}
	if last := f.Await(0); last != 0 || f.LastProposed() != 0 || !f.Idle() {
		t.Fatalf("nothing was executed: last %d, proposed %d", last, f.LastProposed())
	}
	f.Await(1 << 40)
	f.perform()
	for n := message.SeqNum(1); n <= f.LastProposed(); n++ {
		agree(n)
	}
	if f.Stable().Seq != 16 || f.LastProposed() >= 24 || !f.Idle() {
		t.Fatalf("stable %d, proposed %d, executed %d, want checkpoint 16, which ends the window, and not the next",
			f.Stable().Seq, f.LastProposed(), f.LastExecuted())
	}
	last := f.LastProposed()
	if got := f.Await(0); got != last {
		t.Fatalf("got %d, want %d", got, last)
	}
	f.perform()
	for n := last + 1; n <= f.LastProposed(); n++ {
		agree(n)
	}
	if f.Stable().Seq != 24 || !f.Idle() {
		t.Errorf("stable %d, want 24, the checkpoint after batch %d", f.Stable().Seq, last)
	}
}

// A replica that names a checkpoint that there will never be does not make the others wait: the
// null batches up to the end of the log are proposed together all the same.
func TestNoSuchCheckpoint(t *testing.T) {
	for _, until := range []message.SeqNum{16, 1 << 20, math.MaxUint64} {
		f := newForgetful(0, 0)
		f.hear(&message.Status{Active: true, SilentUntil: until, From: 3})
		if n := f.LastProposed(); n != 16 {
			t.Errorf("silent until %d: %d null batches are under way, want 16", until, n)
		}
	}
}
