package pbft

import (
	"bytes"
	"fmt"
	"strings"
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

// A long result is believed when 2f+1 have executed the request on one ground and f+1 of them give it or prove it.
func TestWhatIsBelieved(t *testing.T) {
	const prepared, committed = 5, 0
	type says struct {
		from   ReplicaID
		view   View
		seq    SeqNum
		what   string // "" is told by its length alone
		whole  bool
		length int // if it is not that of "truth"
	}
	whole := func(i ReplicaID, what string) says {
		return says{from: i, view: 1, seq: prepared, what: what, whole: true}
	}
	proves := func(i ReplicaID, what string) says { return says{from: i, view: 1, seq: prepared, what: what} }
	done := func(i ReplicaID) says { return says{from: i, view: 1, seq: prepared} }
	on := func(view View, seq SeqNum, s says) says { s.view, s.seq = view, seq; return s }
	for _, x := range []struct {
		name     string
		n        int
		said     []says
		believed string
	}{
		{"the result, a proof and a third", 4, []says{whole(1, "truth"), proves(2, "truth"), done(0)}, "truth"},
		{"the result last", 4, []says{done(0), proves(2, "truth"), whole(1, "truth")}, "truth"},
		{"the proof last", 4, []says{done(0), whole(1, "truth"), proves(2, "truth")}, "truth"},
		{"no result", 4, []says{done(0), proves(2, "truth"), done(3)}, ""},
		{"the result alone", 4, []says{done(0), whole(1, "truth"), done(3), done(2)}, ""},
		{"proofs of nobody's result", 4, []says{proves(0, "truth"), proves(2, "truth"), done(3), done(1)}, ""},
		{"2f have executed it", 4, []says{whole(1, "truth"), proves(2, "truth")}, ""},
		{"a liar who was to send it", 4, []says{whole(1, "false"), proves(2, "truth"), done(0), done(3)}, ""},
		{"a liar who was to prove it", 4, []says{whole(1, "truth"), proves(2, "false"), done(0), done(3)}, ""},
		{"a liar who was asked for nothing", 4, []says{whole(1, "truth"), proves(2, "truth"), proves(0, "false"), done(3)}, "truth"},
		{"one who says it twice", 4, []says{whole(1, "false"), proves(1, "false"), done(0), done(3)}, ""},
		{"a liar, and then all in full", 4, []says{whole(1, "false"), proves(2, "truth"), done(0), done(3),
			whole(2, "truth"), whole(0, "truth"), whole(3, "truth")}, "truth"},
		{"f liars of one mind", 7, []says{whole(1, "false"), proves(6, "false"), proves(2, "truth"), proves(3, "truth"), done(0), done(4), done(5)}, ""},
		{"f+1 of 7", 7, []says{whole(1, "truth"), proves(2, "truth"), proves(3, "truth"), done(0), done(4)}, "truth"},
		{"f+1 of 7, and f liars", 7, []says{whole(1, "truth"), proves(5, "false"), proves(6, "false"), proves(2, "truth"), proves(3, "truth"), done(0), done(4)}, "truth"},
		{"who proves stands on another ground", 4, []says{whole(1, "truth"), on(2, prepared, proves(2, "truth")), done(0), done(3)}, ""},
		{"who proves knows it as another number", 4, []says{whole(1, "truth"), on(1, prepared+1, proves(2, "truth")), done(0), done(3)}, ""},
		{"who proves knows that it has committed", 4, []says{whole(1, "truth"), on(1, committed, proves(2, "truth")), done(0), done(3)}, ""},
		{"all know that it has committed", 4, []says{on(3, committed, whole(1, "truth")), on(2, committed, proves(2, "truth")), on(1, committed, done(0))}, "truth"},
		{"2f+1 on two grounds", 4, []says{whole(1, "truth"), proves(2, "truth"), on(2, prepared, done(0)), on(2, committed, done(3))}, ""},
		{"another length", 4, []says{whole(1, "truth"), proves(2, "truth"), {from: 0, view: 1, seq: prepared, length: 900}}, ""},
	} {
		c := &Client{endpoint: &endpoint{group: &Group{Members: make([]Member, x.n)}}}
		o := &outstanding{due: time.Now().Add(time.Hour)}
		o.tally.reset(x.n)
		proof := func(i ReplicaID, what string) message.Proof {
			return message.Proof{Nonce: uint64(i), Tag: [16]byte([]byte(what + strings.Repeat(".", 11)))}
		}
		result := func(what string) []byte { return []byte(what + strings.Repeat(".", 495)) }
		var believed string
		for _, s := range x.said {
			a := &message.Answer{Outcome: message.Executed, Length: 500, Full: s.whole, Proved: s.what != ""}
			if s.length > 0 {
				a.Length = s.length
			}
			if s.whole {
				a.Result = result(s.what)
			}
			if s.what != "" {
				a.Proof = proof(s.from, s.what)
			}
			o.tally.add(&message.Reply{View: s.view, Seq: s.seq, Tentative: s.seq != committed, From: s.from}, a, message.AnyReplier, 0,
				func(i ReplicaID, p *message.Proof, r []byte) bool { return *p == proof(i, string(r[:5])) })
			if got, _, done := c.decide(o); done {
				believed = strings.TrimRight(string(got), ".")
				break
			}
		}
		if believed != x.believed {
			t.Errorf("%s: %q is believed, want %q", x.name, believed, x.believed)
		}
	}
}
