// SPDX-License-Identifier: Apache-2.0

package store

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/message"
)

var (
	ours    = message.Digest{1}
	limits  = message.Limits{Replicas: 4, Operation: 1 << 10, BatchBytes: 1 << 12, BatchCount: 16, Choice: 64, Reply: 1 << 10, WindowLength: 8}
	options = journal.Options{SegmentBytes: 1 << 16}
)

func open(t *testing.T, d disk.FS) (*Store[string], []message.Message) {
	t.Helper()
	s, all, err := Open[string](d, ours, options, 2, &limits)
	if err != nil {
		t.Fatal(err)
	}
	return s, all
}

func proposal(v message.View, n message.SeqNum, op string) *message.PrePrepare {
	b := message.Batch{Requests: []*message.Request{{Client: 9, Timestamp: 1, Op: []byte(op), Auth: message.Authenticator{Tags: make([]byte, 4*message.MACSize)}}}}
	return &message.PrePrepare{View: v, Seq: n, Digest: b.Digest(), Batch: b, From: v.Primary(4)}
}

func tell(all []message.Message) string {
	var b strings.Builder
	for _, m := range all {
		switch m := m.(type) {
		case *message.PrePrepare:
			fmt.Fprintf(&b, "%v of %d v%d n%d %s; ", m.Type(), m.From, m.View, m.Seq, m.Batch.Requests[0].Op)
		case *message.Commit:
			fmt.Fprintf(&b, "%v of %d v%d n%d; ", m.Type(), m.From, m.View, m.Seq)
		case *message.ViewChange:
			fmt.Fprintf(&b, "%v of %d v%d; ", m.Type(), m.From, m.View)
		case *message.NewView:
			fmt.Fprintf(&b, "%v of %d v%d; ", m.Type(), m.From, m.View)
		default:
			fmt.Fprintf(&b, "%v; ", m.Type())
		}
	}
	return b.String()
}

// What is said after a record leaves when that is durable, and what is said before it, or where nothing waits, at once.
func TestWhatLeavesWhen(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	s, _ := open(t, d)
	if s.Hold("hello") {
		t.Fatal("nothing was appended, and it waits")
	}
	s.Note(&message.Decided{Seq: 1})
	if s.Hold("noted") {
		t.Fatal("it waits for a record that nothing waits for")
	}
	s.Persist(proposal(0, 2, "a"))
	if !s.Hold("PREPARE 2") || !s.Waiting() {
		t.Fatal("a vote leaves before its record is durable")
	}
	first, err := s.Flush()
	if err != nil {
		t.Fatal(err)
	}
	s.Persist(&message.Commit{Seq: 2})
	if !s.Hold("COMMIT 2") {
		t.Fatal("a vote leaves before its record is durable")
	}
	var left []string
	leave := func(x string) { left = append(left, x) }
	s.Flushed(first, leave)
	if want := []string{"PREPARE 2"}; !slices.Equal(left, want) {
		t.Fatalf("got %v, want %v", left, want)
	}
	second, err := s.Flush()
	if err != nil {
		t.Fatal(err)
	}
	s.Flushed(second, leave)
	if want := []string{"PREPARE 2", "COMMIT 2"}; !slices.Equal(left, want) || s.Waiting() {
		t.Fatalf("got %v, want %v", left, want)
	}
}

// A store that is opened again tells what was durable, with who said it.
func TestRemembers(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	s, _ := open(t, d)
	s.Persist(proposal(5, 2, "a"))
	s.Persist(&message.Commit{View: 5, Seq: 2, From: 2})
	s.Persist(&message.ViewChange{View: 6, From: 2})
	s.Persist(&message.ViewChange{View: 6, From: 1}, &message.ViewChange{View: 6, From: 3}, &message.NewView{View: 6})
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s.Persist(proposal(6, 3, "lost"))
	d.Crash()
	_, all := open(t, d)
	want := "PRE-PREPARE of 1 v5 n2 a; COMMIT of 2 v5 n2; VIEW-CHANGE of 2 v6; " +
		"VIEW-CHANGE of 1 v6; VIEW-CHANGE of 3 v6; NEW-VIEW of 2 v6; "
	if got := tell(all); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// The journal takes no more of the disk than what follows the image, however long the group lives; our way into the view outlives it.
func TestIsBounded(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	s, _ := open(t, d)
	s.Persist(&message.ViewChange{View: 6, From: 2})
	s.Persist(&message.NewView{View: 6})
	for n := range message.SeqNum(2000) {
		s.Persist(proposal(6, n+1, strings.Repeat("x", 1000)))
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if n > 30 {
			s.Followed(n - 30)
		}
	}
	if s.Bytes() > 8*options.SegmentBytes {
		t.Fatalf("%d bytes", s.Bytes())
	}
	d.Crash()
	_, all := open(t, d)
	if got, want := tell(all[:2]), "VIEW-CHANGE of 2 v6; NEW-VIEW of 2 v6; "; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if p, ok := all[len(all)-1].(*message.PrePrepare); !ok || p.Seq != 2000 {
		t.Fatalf("it ends in %v", tell(all[len(all)-1:]))
	}
}
