// SPDX-License-Identifier: Apache-2.0

package nfsstate_test

import (
	"bytes"
	"runtime"
	"sync"
	"testing"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
	"bfs/pkg/nfsstate/internal/model"
	"bfs/pkg/pbft"
)

const (
	tracePages = 4096 // small, so that there is no room at times
	traceSteps = 400  // operations from one checkpoint to the next
	traceLegs  = 12
)

// A trace is the history of one instance: operations, replies, and the root at the end of each leg.
type trace struct {
	ops     [traceLegs][]pbft.Operation
	replies [traceLegs][][]byte
	roots   [traceLegs]pbft.Digest
}

// record lets a workload make a trace.
func record(t *testing.T, seed uint64) *trace {
	t.Helper()
	s := newSubject(t, tracePages)
	roots, paths := s.roots(t)
	w := model.NewWorkload(seed, len(principals), roots, paths)
	var tr trace
	for leg := range tr.ops {
		for i := range traceSteps {
			client, call := w.Next()
			s.now = s.now.Add(pickPause(i))
			op := operation(client, &call, s.Choose(0))
			reply, _ := s.Execute(op)
			reply = bytes.Clone(reply) // the next reply is encoded in the same memory
			w.Learn(call, reply[4:])
			for range 2 {
				h := w.Some()
				ask := nfs3.Call{Program: nfs3.ProgramNFS, Procedure: nfs3.ProcGetattr,
					Args: (&nfs3.GetattrArgs{Object: h.FileHandle()}).Append(nil)}
				got, _ := s.Query(operation(0, &ask, nil))
				w.Learn(ask, got[4:]) // the workload forgets files that no longer exist
			}
			tr.ops[leg] = append(tr.ops[leg], op)
			tr.replies[leg] = append(tr.replies[leg], reply)
		}
		tr.roots[leg] = s.freeze(t, pbft.SeqNum(leg+1))
	}
	return &tr
}

// freeze takes a checkpoint and waits for its root.
func (s *subject) freeze(t testing.TB, seq pbft.SeqNum) pbft.Digest {
	t.Helper()
	rooted := make(chan pbft.Digest, 1)
	s.State().Freeze(seq, func(d pbft.Digest) { rooted <- d })
	return <-rooted
}

// replay runs one leg and wants the same replies.
func (s *subject) replay(t *testing.T, tr *trace, leg int) {
	t.Helper()
	for i, op := range tr.ops[leg] {
		if reply, _ := s.Execute(op); !bytes.Equal(reply, tr.replies[leg][i]) {
			t.Fatalf("leg %d, operation %d: got\n%x\nwant\n%x", leg, i, reply, tr.replies[leg][i])
		}
	}
}

// wantRoot takes the checkpoint behind a leg and compares.
func (s *subject) wantRoot(t *testing.T, tr *trace, leg int) {
	t.Helper()
	if got := s.freeze(t, pbft.SeqNum(leg+1)); got != tr.roots[leg] {
		t.Fatalf("root behind leg %d: got %x, want %x", leg, got, tr.roots[leg])
	}
}

// noise keeps goroutines busy that have nothing to do with us, until the test ends.
func noise(t *testing.T) {
	stop := make(chan struct{})
	var all sync.WaitGroup
	for range 3 {
		all.Go(func() {
			for waste := 1; ; waste = waste*3%4093 + 1 {
				select {
				case <-stop:
					return
				default:
					_ = make([]byte, waste)
					runtime.Gosched()
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); all.Wait() })
}

// TestSameRoots runs the same operations on several instances, which have the same root
// at every checkpoint: with other work in the process, any number of threads, queries in
// between, and any digests of an operation's blocks.
func TestSameRoots(t *testing.T) {
	tr := record(t, 11)
	before := runtime.GOMAXPROCS(0)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	for _, procs := range []int{1, 2, 7} {
		runtime.GOMAXPROCS(procs)
		t.Run("", func(t *testing.T) {
			noise(t)
			s := newSubject(t, tracePages)
			s.now = time.Unix(1, 0) // a clock that is wrong decides nothing
			for leg := range tr.ops {
				for i, op := range tr.ops[leg] {
					s.Query(tr.ops[leg][(i*7)%traceSteps])
					reply, _ := s.Execute(nfsstate.Digested(op, i*procs%5))
					if !bytes.Equal(reply, tr.replies[leg][i]) {
						t.Fatalf("leg %d, operation %d: got\n%x\nwant\n%x", leg, i, reply, tr.replies[leg][i])
					}
				}
				s.wantRoot(t, tr, leg)
			}
			if err := s.Check(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestRollback: from every checkpoint it keeps, the instance goes on as the first time,
// after tentative execution of something else. Rollbacks reach back one checkpoint, and two.
func TestRollback(t *testing.T) {
	tr := record(t, 12)
	s := newSubject(t, tracePages)
	s.replay(t, tr, 0)
	s.wantRoot(t, tr, 0)
	s.replay(t, tr, 1)
	s.wantRoot(t, tr, 1)
	for leg := 2; leg < traceLegs; leg++ {
		for i, op := range tr.ops[leg] { // in another order, as a faulty primary's tentative batches may have it
			if i%3 != 0 {
				s.Execute(op)
			}
		}
		back := leg - leg%2 // the last checkpoint but one, or the last
		if err := s.State().Rollback(pbft.SeqNum(back)); err != nil {
			t.Fatal(err)
		}
		if back < leg {
			s.replay(t, tr, leg-1)
			s.wantRoot(t, tr, leg-1)
		}
		s.replay(t, tr, leg)
		s.wantRoot(t, tr, leg)
		s.State().Discard(pbft.SeqNum(leg - 1))
	}
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
}

// TestPagesAreAll: an instance that gets nothing but the pages of another goes on like
// it, after every leg.
func TestPagesAreAll(t *testing.T) {
	tr := record(t, 13)
	s := newSubject(t, tracePages)
	zeros := make([]byte, pbft.PageSize)
	for leg := range tr.ops {
		s.replay(t, tr, leg)
		s.wantRoot(t, tr, leg)
		heir := bareStore(t, tracePages)
		for n := range fsmerkle.PageNum(tracePages) {
			if page := s.store.Read(n); !bytes.Equal(page, zeros) {
				copy(heir.Modify(n), page)
			}
		}
		s = &subject{store: heir, now: s.now}
		s.FS = overStore(t, heir, tracePages, func() time.Time { return s.now })
	}
}

// TestRightsAreTheOperations changes the rights of a client between operations: they are
// parsed once, but those of the present operation count.
func TestRightsAreTheOperations(t *testing.T) {
	s := newSubject(t, tracePages)
	roots, _ := s.roots(t)
	ask := nfs3.Call{Program: nfs3.ProgramNFS, Procedure: nfs3.ProcGetattr,
		Args: (&nfs3.GetattrArgs{Object: roots[1].FileHandle()}).Append(nil)}
	op := operation(0, &ask, nil)
	want, _ := s.Query(op)
	want = bytes.Clone(want)
	none := op
	none.Rights = (&nfsstate.Rights{}).Append(nil)
	refused, _ := s.Query(none)
	refused = bytes.Clone(refused)
	again, _ := s.Query(op)
	if bytes.Equal(want, refused) || !bytes.Equal(want, again) {
		t.Errorf("rights stay: got\n%x\n%x\n%x", want, refused, again)
	}
}
