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
