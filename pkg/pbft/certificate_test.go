package pbft

import (
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
	o.tally.Reset(4, 0)
	hear := func(i ReplicaID, v View) (hurries bool) {
		o.due = far
		o.tally.Add(&message.Reply{View: v, Seq: 5, Tentative: true, From: i},
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
