// SPDX-License-Identifier: Apache-2.0

package executor_test

import (
	"bytes"
	"testing"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/pbfttest"
)

// cells is a service of one-byte cells, a page each. An operation is the number of a
// cell, and to write, a value.
type cells struct {
	state interface {
		Page(n message.PageNum) []byte
		Modify(n message.PageNum) []byte
	}
	first message.PageNum
}

func (s cells) Execute(op executor.Operation) ([]byte, bool) {
	if len(op.Body) == 1 {
		return s.Query(op)
	}
	s.state.Modify(s.first + message.PageNum(op.Body[0]))[0] = op.Body[1]
	return nil, true
}

// Cost is not looked at.
func (cells) Cost([]byte) int { return 0 }

func (s cells) Query(op executor.Operation) ([]byte, bool) {
	if len(op.Body) != 1 {
		return nil, false
	}
	return []byte{s.state.Page(s.first + message.PageNum(op.Body[0]))[0]}, true
}

const clients, slots = 2, 8

var key = bytes.Repeat([]byte{1}, 32)

func newExecutor(t *testing.T, versioned bool) (*executor.Executor, *pbfttest.Memory) {
	t.Helper()
	m := pbfttest.NewMemory()
	var memory ledger.Memory = m
	if !versioned {
		memory = struct{ ledger.Memory }{m}
	}
	s := cells{state: m, first: ledger.Pages(clients, slots)}
	x, err := executor.New(s, memory, clients, slots, executor.Limits{Reply: 512, Rights: 16})
	if err != nil {
		t.Fatal(err)
	}
	if err := x.Ledger().Enrol(key, nil, 0); err != nil {
		t.Fatal(err)
	}
	return x, m
}

func request(client message.ClientID, ts message.Timestamp, op ...byte) *message.Request {
	return &message.Request{Client: client, Timestamp: ts, Op: op}
}

// The version of a read is the last batch that changed what it depends on, no earlier than the
// latest checkpoint; an operation of the administrator may have changed the caller's rights, and a
// rollback forgets what is rolled back.
func TestVersions(t *testing.T) {
	x, m := newExecutor(t, true)
	id := message.ClientOf(key)
	ts := message.Timestamp(0)
	run := func(n message.SeqNum, client message.ClientID, op ...byte) {
		t.Helper()
		ts++
		x.Begin(n)
		if a, ran := x.Execute(request(client, ts, op...), nil); !ran || a.Outcome != message.Executed {
			t.Fatalf("n%d: ran %t, outcome %v", n, ran, a.Outcome)
		}
	}
	check := func(what string, cell byte, want message.SeqNum) {
		t.Helper()
		if a := x.Query(request(id, 0, cell)); a.Version != want {
			t.Errorf("%s: cell %d is read as of n%d, want n%d", what, cell, a.Version, want)
		}
	}
	check("at first", 1, 0)
	run(1, id, 1, 'a')
	run(2, id, 2, 'b')
	check("two batches later", 1, 1)
	check("two batches later", 2, 2)
	m.Freeze(4, nil)
	x.Frozen(4)
	check("after a checkpoint", 1, 4)
	run(5, id, 1, 'c')
	check("since", 1, 5)
	check("since", 2, 4)
	run(6, message.Administrator, executor.AdminList, 0, 0, 0)
	check("after the administrator", 2, 6)
	if err := m.Rollback(4); err != nil {
		t.Fatal(err)
	}
	x.Replaced(4)
	check("rolled back", 1, 4)
	run(5, id, 2, 'd')
	check("and another batch in its place", 2, 5)
}

// The version of a read on a state that does not know what changed when is the last batch.
func TestVersionOfAnUnversionedState(t *testing.T) {
	x, _ := newExecutor(t, false)
	id := message.ClientOf(key)
	x.Begin(3)
	x.Execute(request(id, 1, 1, 'a'), nil)
	if a := x.Query(request(id, 0, 2)); a.Version != 3 {
		t.Errorf("read as of n%d, want n3", a.Version)
	}
}

// A recovery is told of that the present state knows, though an earlier and false one
// knew of a later one.
func TestNewsOfAReplacedState(t *testing.T) {
	x, m := newExecutor(t, true)
	m.Freeze(4, nil)
	x.Frozen(4)
	run := func(n message.SeqNum, counter uint64) []executor.Recovery {
		x.Begin(n)
		x.Execute(message.Recovery{Replica: 1, Counter: counter}.Request(nil), nil)
		return x.News()
	}
	if all := run(5, 1<<60); len(all) != 1 {
		t.Errorf("told of %v, want one recovery", all)
	}
	if err := m.Rollback(4); err != nil {
		t.Fatal(err)
	}
	x.Replaced(4)
	if all := run(5, 7); len(all) != 1 || all[0].Timestamp != 7 {
		t.Errorf("told of %v in the true state, want the recovery with counter 7", all)
	}
}

var _ pbft.Versioned = (*pbfttest.Memory)(nil)
