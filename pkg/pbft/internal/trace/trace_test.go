// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"bytes"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A trace notes the first time of each step, and forgets the oldest batch first.
func TestTrace(t *testing.T) {
	x := New(1, 4)
	q := &message.Request{Client: 9, Slot: 2, Timestamp: 7}
	x.Begin(100)
	x.Request(q)
	x.Begin(200)
	x.Received(&message.PrePrepare{Seq: 5, From: 0})
	x.Received(&message.Prepare{Seq: 5, From: 2})
	x.Begin(300)
	x.Received(&message.Prepare{Seq: 5, From: 2})
	x.Ready(&message.Prepare{Seq: 5, From: 1})
	x.Left(&message.Prepare{Seq: 5, From: 1})
	x.Executed(5, &message.Batch{Requests: []*message.Request{q, {Client: 8}}})
	x.Replied(5)
	x.Received(&message.Prepare{Seq: 6, From: 40}) // a replica that is none

	var file bytes.Buffer
	if err := x.Write(&file); err != nil {
		t.Fatal(err)
	}
	r, err := Read(&file)
	if err != nil || r.Self != 1 || len(r.Batches) != 2 || len(r.Requests) != 1 {
		t.Fatalf("got %+v, %v", r, err)
	}
	if got, want := r.Requests[0], (Request{9, 2, 7, 100, 5}); got != want {
		t.Errorf("got request %+v, want %+v", got, want)
	}
	b := r.Batches[0]
	if b.Seq != 5 || b.Proposed != 200 || b.Votes[2] != 200 || b.Votes[0] != 0 {
		t.Errorf("got %+v, want proposal and PREPARE of replica 2 read at 200", b)
	}
	if b.Ready == 0 || b.Votes[1] < b.Ready || b.Executed < b.Votes[1] || b.Replied < b.Executed {
		t.Errorf("got %+v, want our own steps in order", b)
	}
	x.Received(&message.PrePrepare{Seq: 5 + maxBatches})
	x.Received(&message.PrePrepare{Seq: 5})
	if got := x.at(5 + maxBatches); got.Seq != 5+maxBatches || got.Executed != 0 {
		t.Errorf("got %+v in the place of batch 5, want a new record that an old message leaves alone", got)
	}
}

// A replica that is not traced has a nil Trace.
func TestNoTrace(t *testing.T) {
	var x *Trace
	x.Begin(x.Now())
	x.Request(&message.Request{})
	x.Received(&message.PrePrepare{})
	x.Ready(&message.Prepare{})
	x.Left(&message.Prepare{})
	x.Executed(1, &message.Batch{})
	x.Replied(1)
}
