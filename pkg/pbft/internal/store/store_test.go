// SPDX-License-Identifier: Apache-2.0

package store

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
)

var (
	ours   = message.Digest{1}
	limits = message.Limits{Replicas: 4, Operation: 1 << 10, BatchBytes: 1 << 12, BatchCount: 16, Choice: 64,
		Reply: 1 << 10, WindowLength: 8}
)

const segment = 1 << 16

func options(d disk.FS) Options {
	return Options{Disk: d, Group: ours, SegmentBytes: segment, Self: 2, Limits: &limits}
}

// recall opens a store whose journal is whole, and returns it with its records but for the first,
// with which each journal begins.
func recall(t *testing.T, d disk.FS) (*Store[string], []message.Message) {
	t.Helper()
	m, err := Recall[string](options(d), 0, func() error { return errors.New("it is whole") })
	if err != nil || !m.Whole {
		t.Fatal(m.Whole, err)
	}
	if len(m.Records) > 0 && m.Records[0].Type() == message.TypeCheckpoint {
		m.Records = m.Records[1:]
	}
	return m.Store, m.Records
}

func proposal(v message.View, n message.SeqNum, op string) *message.PrePrepare {
	b := message.Batch{Requests: []*message.Request{{Client: 9, Timestamp: 1, Op: []byte(op),
		Auth: message.Authenticator{Tags: make([]byte, 4*message.MACSize)}}}}
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

// A message that follows a record leaves when the record is durable. A message before the
// record, or where nothing waits, leaves at once.
func TestWhatLeavesWhen(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	s, _ := recall(t, d)
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

// A store that is opened again returns the durable messages with their senders.
func TestRemembers(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	s, _ := recall(t, d)
	s.Persist(proposal(5, 2, "a"))
	s.Persist(&message.Commit{View: 5, Seq: 2, From: 2})
	s.Persist(&message.ViewChange{View: 6, From: 2})
	s.Persist(&message.ViewChange{View: 6, From: 1}, &message.ViewChange{View: 6, From: 3}, &message.NewView{View: 6})
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	s.Persist(proposal(6, 3, "lost"))
	d.Crash()
	_, all := recall(t, d)
	want := "PRE-PREPARE of 1 v5 n2 a; COMMIT of 2 v5 n2; VIEW-CHANGE of 2 v6; " +
		"VIEW-CHANGE of 1 v6; VIEW-CHANGE of 3 v6; NEW-VIEW of 2 v6; "
	if got := tell(all); got != want {
		t.Fatalf("got  %s\nwant %s", got, want)
	}
}

// The journal takes no more of the disk than what follows the image, however long the group lives;
// our way into the view outlives it.
func TestIsBounded(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	s, _ := recall(t, d)
	s.Persist(&message.ViewChange{View: 6, From: 2})
	s.Persist(&message.NewView{View: 6})
	for n := range message.SeqNum(2000) {
		s.Persist(proposal(6, n+1, strings.Repeat("x", 1000)))
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		if n > 30 {
			s.journal.Release(n - 30)
		}
	}
	if n := s.journal.Segments(); n > 8 {
		t.Fatalf("%d segments", n)
	}
	d.Crash()
	_, all := recall(t, d)
	if got, want := tell(all[:2]), "VIEW-CHANGE of 2 v6; NEW-VIEW of 2 v6; "; got != want {
		t.Fatalf("got %s, want %s", got, want)
	}
	if p, ok := all[len(all)-1].(*message.PrePrepare); !ok || p.Seq != 2000 {
		t.Fatalf("it ends in %v", tell(all[len(all)-1:]))
	}
}

// When the image has come to a checkpoint the journal still has all that follows, wherever in a
// segment the checkpoint lies, and what is not stable.
func TestJournalKeepsWhatTheImageLacks(t *testing.T) {
	const first, last = 30, 60
	for i := range message.SeqNum(40) {
		k := first + i/2
		at, stable := k, message.SeqNum(last)
		if i%2 == 1 {
			at, stable = last, k
		}
		d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
		s, _ := recall(t, d)
		write := func(n message.SeqNum) {
			s.Persist(proposal(6, n, strings.Repeat("x", 1000)))
			if _, err := s.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		for n := range message.SeqNum(last) {
			write(n + 1)
		}
		before := s.journal.Segments()
		s.update.to.Seq = at
		s.Followed(stable)
		write(last + 1) // names the oldest segment that is needed
		if after := s.journal.Segments(); after >= before {
			t.Fatalf("checkpoint %d: %d segments before it is on disk and %d after it", at, before, after)
		}
		d.Crash()
		_, all := recall(t, d)
		for n := k + 1; n <= last+1; n++ {
			if !slices.ContainsFunc(all, func(m message.Message) bool { return m.(*message.PrePrepare).Seq == n }) {
				t.Fatalf("checkpoint %d is on disk, %d is stable, and the journal has lost n%d", at, stable, n)
			}
		}
	}
}

// Records of a segment's length must be written before more are appended, and then need not be
// again.
func TestMustFlush(t *testing.T) {
	s, _ := recall(t, disk.NewMem(rand.New(rand.NewPCG(1, 1))))
	for round := range 3 {
		n := 0
		for ; !s.MustFlush(); n++ {
			s.Note(proposal(0, message.SeqNum(n+1), strings.Repeat("x", 1000)))
		}
		if n*1000 > segment || n*1300 < segment {
			t.Errorf("round %d: a flush is due after %d records of a kilobyte, with segments of %d bytes", round, n,
				segment)
		}
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
}

// A journal that has fewer records than the fence knows of is replaced, after it is on disk that
// the new one does not hold what was promised.
func TestLostJournal(t *testing.T) {
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	s, _ := recall(t, d)
	s.Persist(proposal(0, 1, "a"))
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	fence := uint64(s.Position())
	old := d.Snapshot()
	s.Persist(proposal(0, 2, "b"))
	if _, err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	later := uint64(s.Position())
	if m, err := Recall[string](options(d), fence, nil); err != nil || !m.Whole || len(m.Records) != 3 {
		t.Fatalf("more than the fence knows of is not whole: %v, %v", m, err)
	}
	d.Restore(old)
	distrusted := 0
	distrust := func() error {
		files, err := d.List()
		if distrusted++; len(files) == 0 {
			t.Error("the journal is gone before it is distrusted")
		}
		return err
	}
	m, err := Recall[string](options(d), later, distrust)
	if err != nil || m.Whole || m.Why == nil || distrusted != 1 || len(m.Records) != 0 {
		t.Fatalf("got %v, %v, distrusted %d times", m, err, distrusted)
	}
	for range 5 { // whatever the new one comes to hold
		m.Store.Persist(proposal(0, 3, "c"))
		if _, err := m.Store.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if m, err = Recall[string](options(d), NoJournal, distrust); err != nil || m.Whole || m.Why != nil {
		t.Fatalf("a journal that was distrusted before: got %v, %v", m, err)
	}
	refused := errors.New("the fence cannot be written")
	if _, err := Recall[string](options(d), NoJournal, func() error { return refused }); !errors.Is(err, refused) {
		t.Fatalf("got %v, want %v", err, refused)
	}
}

// A journal that is written anew holds the records that it had, or these and the new ones,
// whole, wherever the power is cut. Its sticky records are not sticky any more, and its old
// records go when the image has passed the stable checkpoint, whatever number they claim.
func TestRenewal(t *testing.T) {
	const stable = 4
	first, last := &message.Recovered{Seq: stable, Timestamp: 1}, &message.Recovered{View: 1, Seq: stable, Timestamp: 1}
	for cut := 0; ; cut++ {
		d := disk.NewMem(rand.New(rand.NewPCG(uint64(cut), 1)))
		s, _ := recall(t, d)
		s.Persist(proposal(0, 1<<40, "false"))
		s.Persist(&message.ViewChange{View: 9, From: 2})
		if _, err := s.Flush(); err != nil {
			t.Fatal(err)
		}
		d.CutAfter(cut)
		err := s.Renew(first)
		s.Note(proposal(0, 5, "true"))
		_, end := s.Renewed(stable, last)
		err = errors.Join(err, end)
		if err == nil {
			d.CutAfter(-1)
			for n := range message.SeqNum(3 * segment / 1024) {
				s.Persist(proposal(0, 6+n, strings.Repeat("x", 1000)))
				if n == 10 {
					s.journal.Release(stable)
				}
				if _, err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		d.Crash()
		_, records := recall(t, d)
		renewed := slices.ContainsFunc(records, func(m message.Message) bool {
			r, ok := m.(*message.Recovered)
			return ok && r.View == 1
		})
		all := tell(records)
		switch begin, real := strings.Index(all, "RECOVERED"), strings.Index(all, "true"); {
		case renewed && (begin < 0 || real < begin), !renewed && !strings.Contains(all, "false"):
			t.Fatalf("cut after %d: the journal has %s", cut, all)
		case err == nil && (!renewed || strings.Contains(all, "false") || strings.Contains(all, "VIEW-CHANGE")):
			t.Fatalf("it was written anew, and released, and has %.300s", all)
		case err == nil:
			return
		}
	}
}
