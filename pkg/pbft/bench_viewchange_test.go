// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"flag"
	"slices"
	"sync"
	"testing"
	"time"

	"bfs/pkg/pbft"
)

var viewStateFlag = flag.Uint64("viewstate", 256, "mebibytes of state under which views change in benchmarks")

// BenchmarkViewChange makes the primary step down again and again, and measures at each
// replica the time from its VIEW-CHANGE to the first execution that follows. All four
// replicas share this process.
//
//	p50-ms, p90-ms  over replicas and views
//	slowest-ms      median over views of the slowest of the four
func BenchmarkViewChange(b *testing.B) {
	b.Run("idle", func(b *testing.B) { benchmarkViewChange(b, 0) })
	b.Run("writes=10%", func(b *testing.B) { benchmarkViewChange(b, 10) })
	b.Run("writes=50%", func(b *testing.B) { benchmarkViewChange(b, 2) })
}

// Of what is asked for meanwhile, every so many-th operation writes; 0: nothing is asked for.
func benchmarkViewChange(b *testing.B, every uint64) {
	c, client := pagedCluster(b, false)
	c.startPaged(3)
	fill(b, client, *viewStateFlag)
	pass(b, client, c.g.Limits.CheckpointPeriod)
	c.level(client)
	stop := c.mixed(client, every)
	var all, slowest []time.Duration
	b.ResetTimer()
	for range b.N {
		mustWrite(b, client, write(0, 1, 1, uint64(len(slowest))))
		took := c.stepDown(client)
		all = append(all, took...)
		slowest = append(slowest, slices.Max(took))
	}
	b.StopTimer()
	stop()
	b.ReportMetric(milliseconds(all, 50), "p50-ms")
	b.ReportMetric(milliseconds(all, 90), "p90-ms")
	b.ReportMetric(milliseconds(slowest, 50), "slowest-ms")
	b.ReportMetric(0, "ns/op")
}

// stepDown ends a view, and returns how long that took each replica.
func (c *cluster) stepDown(client *pbft.Client) (took []time.Duration) {
	c.t.Helper()
	before := make([]int, len(c.replicas))
	for i, r := range c.replicas {
		before[i] = r.Status().ViewChanges
	}
	eventually(c.t, "a primary steps down", func() bool {
		return slices.ContainsFunc(c.replicas, (*pbft.Replica).StepDown)
	})
	eventually(c.t, "the view begins everywhere", func() bool {
		mustWrite(c.t, client, write(0, 1, 1, 1)) // again, for one that the first did not find in the view
		took = took[:0]
		for i, r := range c.replicas {
			if s := r.Status(); s.ViewChanges > before[i] && s.Active {
				took = append(took, s.ViewChange.Duration())
			}
		}
		return len(took) == len(c.replicas)
	})
	return took
}

// level waits until all replicas that run have executed the same and vote.
func (c *cluster) level(client *pbft.Client) {
	c.t.Helper()
	eventually(c.t, "all are level", func() bool {
		mustWrite(c.t, client, write(0, 0, 0, 0))
		var first *pbft.Status
		for _, r := range c.replicas {
			if r == nil {
				continue
			}
			s := r.Status()
			if first == nil {
				first = &s
			}
			if s.SilentUntil != 0 || s.Fetching || !s.Active || s.Stable != first.Stable {
				return false
			}
		}
		return true
	})
}

// mixed has eight clients at work until stop, of whose operations every so many-th writes
// a page and the others read.
func (c *cluster) mixed(client *pbft.Client, every uint64) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	for w := range 8 {
		if every == 0 {
			break
		}
		all.Go(func() {
			for n := uint64(w); ctx.Err() == nil; n++ {
				if n%every == 0 {
					_, _ = client.Invoke(ctx, write(n*7919%(256**viewStateFlag), 1, 1, n), false)
				} else {
					_, _ = client.Invoke(ctx, nil, true)
				}
			}
		})
	}
	return func() {
		cancel()
		all.Wait()
	}
}

func milliseconds(all []time.Duration, percent int) float64 {
	slices.Sort(all)
	return float64(all[len(all)*percent/100].Microseconds()) / 1000
}

// BenchmarkPrimaryKilled closes the primary, and measures how long a client then waits
// for its write: the timers, the view change, and the client's own retry.
func BenchmarkPrimaryKilled(b *testing.B) {
	c, client := pagedCluster(b, false)
	c.startPaged(3)
	fill(b, client, *viewStateFlag)
	var waits, changes []time.Duration
	for range b.N {
		pass(b, client, 3*c.g.Limits.LogSize)
		c.level(client)
		old := int(c.replicas[0].Status().Primary)
		c.stop(old)
		start := time.Now()
		mustWrite(b, client, write(0, 1, 1, 1))
		waits = append(waits, time.Since(start))
		next := c.replicas[(old+1)%len(c.replicas)].Status()
		changes = append(changes, next.ViewChange.Duration())
		c.startPaged(old)
	}
	b.ReportMetric(milliseconds(waits, 50), "p50-ms")
	b.ReportMetric(milliseconds(waits, 100-1), "max-ms")
	b.ReportMetric(milliseconds(changes, 50), "view-change-ms")
	b.ReportMetric(0, "ns/op")
}
