// SPDX-License-Identifier: Apache-2.0

package signed_test

import (
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A primary that shows its NEW-VIEW to one replica alone must not stop the others for
// ever. Replica 3 alone among the correct has executed batch 4, and the liar 1 says that
// it has too: f+1 hold checkpoint 4, the NEW-VIEW of view 1 may begin there, and 3
// believes it. But 4 is not stable: 2f+1 do not hold it. If 3 raises its low water mark
// all the same, it has neither checkpoint 0 nor P below 4 to bring into view 2, where 0,
// 2 and 3 must do without the liar: no checkpoint is held by f+1 of them and passed by
// none (R-VC-21 takes for granted that h is stable, TOCS §4.5.1).
func TestWithheldNewView(t *testing.T) {
	h := newHistory(2)
	h.n, h.f, h.liars = 4, 1, []bool{false, true, false, false}
	all := []int{0, 2, 3}
	vote := func(to int, m message.Message) {
		h.cores[to].Step(m)
		h.perform(to)
	}
	for n := message.SeqNum(1); n <= period; n++ {
		b := h.batch(1, n)
		d := b.Digest()
		for _, i := range all {
			vote(i, &message.PrePrepare{Seq: n, Digest: d, Batch: *b})
			for _, from := range []message.ReplicaID{1, 2, 3} {
				vote(i, &message.Prepare{Seq: n, Digest: d, From: from})
			}
		}
		for _, from := range []message.ReplicaID{0, 1, 2} {
			vote(3, &message.Commit{Seq: n, From: from}) // lost to the others
		}
	}
	h.wires = nil
	h.cores[0].StepDown()
	h.perform(0)
	changes := h.exchange(all)
	liar := *changes[3]
	liar.From = 1
	nv := &message.NewView{View: 1, Checkpoint: changes[3].Checkpoints[1], From: 1}
	for j := range h.n {
		vc := changes[j]
		if j == 1 {
			vc = &liar
		}
		vote(3, vc)
		nv.V = append(nv.V, message.Vouched{From: message.ReplicaID(j), Digest: vc.Digest()})
	}
	vote(3, nv)
	for range 4000 { // all run out of patience with view 1
		for _, i := range all {
			if v, _ := h.cores[i].View(); v < 2 {
				h.cores[i].Tick()
				h.perform(i)
			}
		}
		h.exchange(all)
	}
	for _, i := range all {
		v, active := h.cores[i].View()
		t.Logf("core %d: view %d active %v executed %d stable %d",
			i, v, active, h.cores[i].LastExecuted(), h.cores[i].Stable().Seq)
	}
	if nv := h.cores[2].Beginning(); nv == nil || nv.View != 2 {
		t.Error("core 2, primary of view 2, has the VIEW-CHANGEs of all correct replicas and decides nothing")
	}
}

// exchange delivers what is under way among the correct until all is quiet, except
// NEW-VIEWs and state.
func (h *history) exchange(all []int) []*message.ViewChange {
	changes := make([]*message.ViewChange, h.n)
	for {
		quiet := true
		for _, w := range h.take(message.TypeViewChange, message.TypeViewChangeAck, message.TypeFetchBatch,
			message.TypeBatchBody) {
			if vc, ok := w.m.(*message.ViewChange); ok && w.from == int(vc.From) {
				changes[w.from] = vc
			}
			if !h.liars[w.to] {
				h.cores[w.to].Step(w.m)
				h.perform(w.to)
				quiet = false
			}
		}
		if quiet {
			return changes
		}
	}
}
