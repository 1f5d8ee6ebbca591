package pbft

import (
	"bytes"
	"fmt"
	"testing"
	"time"

	"bfs/pkg/pbft/internal/message"
)

// A view change parts replicas that executed a request before it from those that did so after: 2f+1 give one answer, on two
// grounds. The client asks again soon, however long its back-off has become, and does so once.
func TestOneAnswerOnTwoGrounds(t *testing.T) {
	c := &Client{endpoint: &endpoint{group: &Group{Members: make([]Member, 4)}}}
	far := time.Now().Add(time.Hour)
	o := &outstanding{due: far, tries: 4}
	o.tally.reset(4)
	hear := func(i ReplicaID, v View) (hurries bool) {
		o.due = far
		o.tally.add(&message.Reply{View: v, Seq: 5, Tentative: true, From: i},
			&message.Answer{Outcome: message.Executed, Full: true, Length: 1, Result: []byte("r")}, message.AnyReplier, o.tries, nil)
		if _, _, done := c.decide(o); done {
			t.Fatalf("the answer of replica %d in view %d decides", i, v)
		}
		return o.due != far
	}
	for _, step := range []struct {
		from    ReplicaID
		view    View
		hurries bool
	}{{0, 1, false}, {3, 1, false}, {1, 2, true}, {1, 2, false}, {3, 2, false}} {
		if got := hear(step.from, step.view); got != step.hurries {
			t.Errorf("after the answer of replica %d in view %d: hurries %t", step.from, step.view, got)
		}
	}
}

// A replica that gives one result after the other for a request leaves no more of them behind than there are replicas, and does
// not get one of them believed in the place of what 2f+1 say; nor does it lend a result the ground of another that it took back.
func TestManyResultsOfOneReplica(t *testing.T) {
	for _, lies := range []int{1, 100, 128, 255, 256, 300} {
		c := &Client{endpoint: &endpoint{group: &Group{Members: make([]Member, 4)}}}
		o := &outstanding{}
		o.tally.reset(4)
		hear := func(i ReplicaID, seq SeqNum, tentative bool, result string) ([]byte, bool) {
			o.tally.add(&message.Reply{View: 1, Seq: seq, Tentative: tentative, From: i},
				&message.Answer{Outcome: message.Executed, Full: true, Length: len(result), Result: []byte(result)}, message.AnyReplier, 0, nil)
			got, _, done := c.decide(o)
			return got, done
		}
		for i := range lies {
			if got, done := hear(1, 5, true, fmt.Sprintf("lie %3d", i)); done {
				t.Fatalf("after %d lies %q is believed", i+1, got)
			}
		}
		if hear(0, 0, false, "truth 1"); !bytes.Equal(o.tally.results[o.tally.replies[0].result], []byte("truth 1")) {
			t.Fatalf("after %d lies an answer counts as %q", lies, o.tally.results[o.tally.replies[0].result])
		}
		hear(1, 0, false, "truth 1")
		if v := o.tally.replies[1]; v.seq != 0 {
			t.Errorf("what replica 1 knows to be committed stands on its lie as number %d too", v.seq)
		}
		if got, done := hear(2, 0, false, "truth 1"); !done || string(got) != "truth 1" {
			t.Errorf("after %d lies three replicas that say the same get %q believed (%t)", lies, got, done)
		}
		if n := len(o.tally.results); n > 4 {
			t.Errorf("%d lies leave %d results", lies, n)
		}
	}
}
