// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"bfs/pkg/pbft/internal/message"
)

// A replica that gives one result after the other for a request leaves no more of them behind than
// there are replicas, and does not get one of them believed in the place of what 2f+1 say; nor does
// it lend a result the ground of another that it took back.
func TestManyResultsOfOneReplica(t *testing.T) {
	for _, lies := range []int{1, 100, 128, 255, 256, 300} {
		var y Tally
		y.Reset(4, 0)
		hear := func(i message.ReplicaID, seq message.SeqNum, tentative bool, result string) ([]byte, bool) {
			y.Add(&message.Reply{View: 1, Seq: seq, Tentative: tentative, From: i},
				&message.Answer{Outcome: message.Executed, Full: true, Length: len(result), Result: []byte(result)},
				message.AnyReplier, 0, nil)
			x := finding(&y, false)
			return x.Result, x.Kind == Believed
		}
		for i := range lies {
			if got, done := hear(1, 5, true, fmt.Sprintf("lie %3d", i)); done {
				t.Fatalf("after %d lies %q is believed", i+1, got)
			}
		}
		if hear(0, 0, false, "truth 1"); !bytes.Equal(y.results[y.replies[0].result], []byte("truth 1")) {
			t.Fatalf("after %d lies an answer counts as %q", lies, y.results[y.replies[0].result])
		}
		hear(1, 0, false, "truth 1")
		if v := y.replies[1]; v.seq != 0 {
			t.Errorf("what replica 1 knows to be committed stands on its lie as number %d too", v.seq)
		}
		if got, done := hear(2, 0, false, "truth 1"); !done || string(got) != "truth 1" {
			t.Errorf("after %d lies three replicas that say the same get %q believed (%t)", lies, got, done)
		}
		if n := len(y.results); n > 4 {
			t.Errorf("%d lies leave %d results", lies, n)
		}
	}
}

// A long result is believed when a quorum has executed the request on one ground and f+1
// of them give it or prove it.
func TestWhatIsBelieved(t *testing.T) {
	const prepared, committed = 5, 0
	type says struct {
		from   message.ReplicaID
		view   message.View
		seq    message.SeqNum
		what   string // "" is told by its length alone
		whole  bool
		length int // if it is not that of "truth"
	}
	whole := func(i message.ReplicaID, what string) says {
		return says{from: i, view: 1, seq: prepared, what: what, whole: true}
	}
	proves := func(i message.ReplicaID, what string) says { return says{from: i, view: 1, seq: prepared, what: what} }
	done := func(i message.ReplicaID) says { return says{from: i, view: 1, seq: prepared} }
	on := func(view message.View, seq message.SeqNum, s says) says { s.view, s.seq = view, seq; return s }
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
		{"three of five, who need share no correct replica with three others", 5, []says{whole(1, "truth"), proves(2, "truth"), done(0)}, ""},
		{"four of five", 5, []says{whole(1, "truth"), proves(2, "truth"), done(0), done(4)}, "truth"},
		{"three of six", 6, []says{whole(1, "truth"), proves(2, "truth"), done(0)}, ""},
		{"four of six", 6, []says{whole(1, "truth"), proves(2, "truth"), done(0), done(5)}, "truth"},
		{"who proves stands on another ground", 4, []says{whole(1, "truth"), on(2, prepared, proves(2, "truth")), done(0), done(3)}, ""},
		{"who proves knows it as another number", 4, []says{whole(1, "truth"), on(1, prepared+1, proves(2, "truth")), done(0), done(3)}, ""},
		{"who proves knows that it has committed", 4, []says{whole(1, "truth"), on(1, committed, proves(2, "truth")), done(0), done(3)}, ""},
		{"all know that it has committed", 4, []says{on(3, committed, whole(1, "truth")), on(2, committed, proves(2, "truth")), on(1, committed, done(0))}, "truth"},
		{"a quorum on two grounds", 4, []says{whole(1, "truth"), proves(2, "truth"), on(2, prepared, done(0)), on(2, committed, done(3))}, ""},
		{"another length", 4, []says{whole(1, "truth"), proves(2, "truth"), {from: 0, view: 1, seq: prepared, length: 900}}, ""},
	} {
		var y Tally
		y.Reset(x.n, 0)
		proof := func(i message.ReplicaID, what string) message.Proof {
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
			y.Add(&message.Reply{View: s.view, Seq: s.seq, Tentative: s.seq != committed, From: s.from}, a,
				message.AnyReplier, 0,
				func(i message.ReplicaID, p *message.Proof, r []byte) bool { return *p == proof(i, string(r[:5])) })
			if found := finding(&y, false); found.Kind == Believed {
				believed = strings.TrimRight(string(found.Result), ".")
				break
			}
		}
		if believed != x.believed {
			t.Errorf("%s: %q is believed, want %q", x.name, believed, x.believed)
		}
	}
}

// Equal results of a read that were read from different versions of the state are not counted
// together on any ground: three replicas at batches 3, 1 and 7 need have no state in common.
func TestReadsOfDifferentVersions(t *testing.T) {
	type says struct {
		from      message.ReplicaID
		version   message.SeqNum
		tentative bool
	}
	for _, x := range []struct {
		name     string
		said     []says
		believed bool
	}{
		{"three versions, all committed", []says{{0, 3, false}, {1, 1, false}, {2, 7, false}}, false},
		{"three versions, all prepared", []says{{0, 3, true}, {1, 1, true}, {2, 7, true}}, false},
		{"two versions", []says{{0, 3, false}, {1, 3, false}, {2, 1, false}}, false},
		{"two versions, and all have answered", []says{{0, 3, false}, {1, 3, false}, {2, 1, false}, {3, 1, false}}, false},
		{"one version", []says{{0, 3, false}, {1, 3, false}, {2, 3, false}}, true},
		{"one version, and a replica that lags", []says{{0, 3, false}, {3, 1, false}, {1, 3, false}, {2, 3, false}}, true},
		{"a replica that catches up", []says{{0, 3, false}, {1, 3, false}, {2, 1, false}, {2, 3, false}}, true},
		{"one version, prepared everywhere and committed at one", []says{{0, 3, true}, {1, 3, false}, {2, 3, true}}, true},
	} {
		var y Tally
		y.Reset(4, 0)
		for _, s := range x.said {
			y.Add(&message.Reply{Seq: s.version, Tentative: s.tentative, From: s.from},
				&message.Answer{Outcome: message.Executed, ReadOnly: true, Full: true, Length: 1,
					Result: []byte("a"), Version: s.version}, message.AnyReplier, 0, nil)
		}
		if got := finding(&y, true).Kind == Believed; got != x.believed {
			t.Errorf("%s: believed %t, want %t", x.name, got, x.believed)
		}
	}
}

// A replica that gives another result than the one that is believed is named, if it does
// so on the same ground: a correct replica may have prepared the request under another
// number, and taken that back.
func TestWrongResultsAreNamed(t *testing.T) {
	for _, x := range []struct {
		name      string
		seq       message.SeqNum
		tentative bool
		result    string
		want      uint32
	}{
		{"the same result", 5, true, "truth", 0},
		{"another on the same ground", 5, true, "false", 1 << 3},
		{"another, prepared as another number", 6, true, "false", 0},
	} {
		var y Tally
		y.Reset(4, 0)
		var found Finding
		hear := func(i message.ReplicaID, seq message.SeqNum, tentative bool, result string) {
			y.Add(&message.Reply{View: 1, Seq: seq, Tentative: tentative, From: i},
				&message.Answer{Outcome: message.Executed, Full: true, Length: len(result), Result: []byte(result)},
				message.AnyReplier, 0, nil)
			found = finding(&y, false)
		}
		hear(3, x.seq, x.tentative, x.result)
		for i := range message.ReplicaID(3) {
			hear(i, 5, true, "truth")
		}
		if found.Kind != Believed || string(found.Result) != "truth" || found.Wrong != x.want {
			t.Errorf("%s: got %+v, want %b named", x.name, found, x.want)
		}
	}
}

func finding(t *Tally, readOnly bool) (x Finding) {
	t.Find(readOnly, &x)
	return x
}
