// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"bfs/pkg/internal/blockhash"
	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/message"
)

// Long operations are executed once each, whichever end does without separate
// transmission, also when one replica is down.
func TestLongOperations(t *testing.T) {
	limits := pbft.DefaultLimits()
	limits.CheckpointPeriod, limits.LogSize, limits.LogBytes = 4, 8, 8<<20
	c := newCluster(t, limits, pbft.TransportPlain)
	c.service = func(int) pbft.Service { return blockwise{newTally(c.g), t} }
	for i := range c.replicas {
		without := []pbft.Optimisation{}
		if i == 1 {
			without = append(without, pbft.Separate)
		}
		c.start(i, func(cfg *pbft.ReplicaConfig) { cfg.Without = without })
	}
	admin := c.client(c.admin)
	key := c.enrolled(admin, "")
	want := uint64(0)
	count := func(without ...pbft.Optimisation) {
		client := c.client(key, func(cfg *pbft.ClientConfig) { cfg.Without = without })
		defer client.Close()
		for _, n := range []int{1, 300, 32 << 10, 32<<10 + 1, 100 << 10, 1 << 20} {
			want++
			if got := invoke(t, client, "i"+strings.Repeat("x", n-1), false); got != want {
				t.Fatalf("the counter is %d, want %d", got, want)
			}
		}
	}
	count()
	count(pbft.Separate)
	c.stop(0) // replica 1 proposes in full
	count()
	count(pbft.Separate)
}

// blockwise is a tally that looks at the digests of its operations' blocks: all must be
// there, whichever way an operation came.
type blockwise struct {
	tally
	t *testing.T
}

func (s blockwise) Execute(op pbft.Operation) ([]byte, bool) {
	var want []pbft.Digest
	for rest := op.Body[len(op.Body)%pbft.PageSize:]; len(rest) > 0; rest = rest[pbft.PageSize:] {
		want = append(want, blockhash.Sum(rest[:pbft.PageSize]))
	}
	if !slices.Equal(op.Blocks, want) {
		s.t.Errorf("an operation of %d bytes comes with the digests %v, want %v", len(op.Body), op.Blocks, want)
	}
	return s.tally.Execute(op)
}

// A client says that it sends to everyone, and sends to the primary alone: the backups ask for it.
func TestOperationForThePrimaryAlone(t *testing.T) {
	c := newCluster(t, smallLimits(), pbft.TransportPlain, pbft.DurabilityReplicated)
	c.service = func(int) pbft.Service { return blockwise{newTally(c.g), t} }
	for i := range c.replicas {
		c.start(i)
	}
	admin := c.client(c.admin)
	client := c.client(c.enrolled(admin, ""))
	r := asClient(t, c, c.enrolled(admin, ""))
	r.ready(c)
	before := invoke(t, client, "r", false)
	for round := range 5 {
		q := &message.Request{Timestamp: message.Timestamp(1<<40 + round), Apart: true, Replier: message.AnyReplier,
			Op: fmt.Appendf(nil, "i%0*d", message.ShortOperation+round*1500, round)}
		r.ask(0, r.request(q))
		eventually(t, "it is executed", func() bool { return invoke(t, client, "r", true) == before+uint64(round)+1 })
	}
	missed := func(x *pbft.Replica) bool { return refusals(x, "an operation is missing") > 0 }
	if !slices.ContainsFunc(c.replicas, missed) {
		t.Error("no proposal came without an operation")
	}
	c.works(client)
}

// A request that comes without its operation is answered if it was executed, waits if its client
// has sent the operation before, and else the replica says that the operation is missing.
func TestRequestWithoutItsOperation(t *testing.T) {
	c := startCluster(t, smallLimits())
	r := asClient(t, c, c.enrolled(c.client(c.admin), ""))
	r.ready(c)
	r.known(c)
	says := func(i int, q *message.Request, want message.Outcome) {
		t.Helper()
		eventually(t, "the replica answers", func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			m := r.last[i]
			return m != nil && m.Answers[0].Timestamp == q.Timestamp && m.Answers[0].Outcome == want
		})
	}
	long := func(at int) *message.Request {
		return r.request(&message.Request{Timestamp: message.Timestamp(1<<40 + at), Replier: message.AnyReplier,
			Op: fmt.Appendf(nil, "i%0*d", message.ShortOperation, at)})
	}
	q := long(0)
	for i := range c.replicas {
		r.ask(i, q.Stub())
		says(i, q, message.Missing)
	}
	r.ask(0, q)
	for i := range c.replicas {
		says(i, q, message.Executed)
		r.ask(i, q.Stub())
		says(i, q, message.Executed)
	}

	q = long(1)
	q.Apart = true
	r.request(q)
	for _, i := range []int{1, 2, 3} {
		r.ask(i, q)
	}
	q.Apart = false
	r.request(q)
	for _, i := range []int{1, 2, 3} { // they pass the operation on
		r.ask(i, q.Stub())
	}
	for i := range c.replicas {
		says(i, q, message.Executed)
	}
}

// A long operation that all replicas were sent is executed once they can agree, though the client
// sends the request again without it meanwhile.
func TestLongOperationIsSentAgain(t *testing.T) {
	c := newCluster(t, pbft.DefaultLimits(), pbft.TransportPlain, pbft.DurabilityReplicated).withWires()
	for i := range c.replicas {
		c.start(i)
	}
	client := c.client(c.enrolled(c.client(c.admin), ""))
	before := invoke(t, client, "r", false)
	for _, i := range []int{1, 2} { // the client reaches them, and they reach no replica
		c.isolate(i, true)
	}
	done := make(chan error, 1)
	call := pbft.Call{Body: []byte("i" + strings.Repeat("x", 40<<10)), Done: func(_ []byte, err error) { done <- err }}
	if err := client.Start(call); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is sent again", func() bool { return client.Status().Retries >= 2 })
	for _, i := range []int{1, 2} {
		c.isolate(i, false)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got := invoke(t, client, "r", false); got != before+1 {
		t.Errorf("the counter is %d, want %d", got, before+1)
	}
}
