// SPDX-License-Identifier: Apache-2.0

package bench

import (
	"strings"
	"testing"
	"time"

	"bfs/pkg/pbft"
)

// A group of four orders operations of 100 µs each. One waits 5 ms for the PREPARE of replica
// 2, and one for the answer of replica 3, which is spared.
func TestSlowestAreFollowed(t *testing.T) {
	const us = pbft.Stamp(time.Microsecond)
	reports := make([]*pbft.TraceReport, 4)
	for i := range reports {
		reports[i] = &pbft.TraceReport{Self: pbft.ReplicaID(i)}
	}
	var h histogram
	before := h.counts()
	var x recorder
	const n = 1000
	for k := range n {
		at := pbft.Stamp(k+1) * pbft.Stamp(time.Second)
		vote, answer := 60*us, 95*us
		ended := 100 * us
		switch k {
		case 500:
			vote, answer, ended = 5060*us, 5095*us, 5100*us
		case 700:
			ended = 9100 * us
		}
		for i, r := range reports {
			b := pbft.TracedBatch{Seq: pbft.SeqNum(k + 1), Proposed: at + 20*us, Ready: at + 21*us,
				Votes: make([]pbft.Stamp, 4)}
			b.Votes[1], b.Votes[2] = at+30*us, at+vote
			b.Executed, b.Replied = at+vote+10*us, at+answer-pbft.Stamp(3-i)*us
			if i == 3 {
				b.Executed, b.Replied = at+9000*us, at+9050*us
			}
			if i == 2 {
				b.Ready = at + vote - 10*us
				b.Votes[2] = at + vote - 9*us
			}
			r.Batches = append(r.Batches, b)
		}
		q := pbft.TracedRequest{Client: 1, Timestamp: pbft.Timestamp(k), Read: at + 10*us, Seq: pbft.SeqNum(k + 1)}
		reports[0].Requests = append(reports[0].Requests, q)
		x.add(tracedOp{client: 1, timestamp: pbft.Timestamp(k), began: at, ended: at + ended})
		h.add(time.Duration(ended))
	}
	c := h.counts().since(before)
	tr := &traces{quorum: 3, votes: 2, requests: map[tracedKey]tracedRequest{}, collects: []pbft.Stamp{501*1e9 + 1}}
	tr.add(reports)
	r := tr.report(x.within(time.Unix(0, 0), time.Unix(n+2, 0)), c)
	if len(r.slowest) < 2 || r.lost != 0 {
		t.Fatalf("got %d of the slowest, %d lost", len(r.slowest), r.lost)
	}
	usual := r.usual()
	spared, voted := r.slowest[0], r.slowest[1]
	if spared.replica != 3 || !spared.spared || spared.cause(&usual) != toExecuted {
		t.Errorf("got %+v, cause %q, want replica 3, which is spared", spared, stepNames[spared.cause(&usual)])
	}
	if voted.backup != 2 || voted.spared || !voted.collects || voted.cause(&usual) != toReady {
		t.Errorf("got %+v, cause %q, want replica 2, which was long before its PREPARE", voted,
			stepNames[voted.cause(&usual)])
	}
	for _, p := range r.slowest {
		sum := time.Duration(0)
		for _, d := range p.took {
			sum += d
		}
		if sum != p.op.took() {
			t.Errorf("steps of %v for a latency of %v", sum, p.op.took())
		}
	}
	var text strings.Builder
	if err := r.WriteTable(&text); err != nil || !strings.Contains(text.String(), stepNames[toReady]) {
		t.Errorf("got %v and\n%s", err, text.String())
	}
}
