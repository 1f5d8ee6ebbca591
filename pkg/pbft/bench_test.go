// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// simple is the paper's simple service: no state, no work, results of a fixed length [TOCS §8.1].
type simple struct {
	*pbfttest.Memory
	result int
}

func (s simple) Execute(pbft.Operation) ([]byte, bool) { return make([]byte, s.result), false }
func (s simple) Query(pbft.Operation) ([]byte, bool)   { return make([]byte, s.result), true }
func (simple) Cost([]byte) int                         { return 0 }
func (s simple) Choose(pbft.SeqNum) []byte             { return nil }
func (s simple) Accept(pbft.SeqNum, []byte) bool       { return true }
func (s simple) State() pbft.State                     { return s.Memory }

// startGroup runs n replicas in this process and returns a way to make enrolled clients.
func startGroup(t testing.TB, n int, service func(g *pbft.Group) pbft.Service) (g *pbft.Group,
	client func() *pbft.Client) {
	t.Helper()
	g, keys, admin := newGroup(n)
	ctx := context.Background()
	for i, key := range keys {
		r, err := pbft.StartReplica(pbft.ReplicaConfig{Group: g, Self: pbft.ReplicaID(i), Key: key,
			Directory: t.TempDir(), Service: service(g), Transport: pbft.TransportPlain})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.Close(ctx) })
	}
	open := func(key ed25519.PrivateKey) *pbft.Client {
		c, err := pbft.NewClient(pbft.ClientConfig{Group: g, Key: key, Transport: pbft.TransportPlain})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Ready(ctx); err != nil {
			t.Fatal(err)
		}
		return c
	}
	administrator := open(admin)
	return g, func() *pbft.Client {
		public, private, _ := ed25519.GenerateKey(nil)
		if err := administrator.Enrol(ctx, public, nil); err != nil {
			t.Fatal(err)
		}
		return open(private)
	}
}

// BenchmarkClosedLoop is one client with one operation outstanding; replicas and client
// share this process.
func BenchmarkClosedLoop(b *testing.B) {
	for _, readOnly := range []bool{false, true} {
		b.Run(map[bool]string{false: "rw", true: "ro"}[readOnly], func(b *testing.B) {
			_, client := startGroup(b, 4, func(*pbft.Group) pbft.Service {
				return simple{Memory: pbfttest.NewMemory()}
			})
			c := client()
			ctx := context.Background()
			var took []time.Duration
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				if _, err := c.Invoke(ctx, nil, readOnly); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
		})
	}
}

// BenchmarkPipelined keeps 16 × 64 operations outstanding.
func BenchmarkPipelined(b *testing.B) {
	for _, size := range []int{0, 4096} {
		b.Run(fmt.Sprintf("argument=%d", size), func(b *testing.B) {
			_, client := startGroup(b, 4, func(*pbft.Group) pbft.Service {
				return simple{Memory: pbfttest.NewMemory()}
			})
			var clients []*pbft.Client
			for range 16 {
				clients = append(clients, client())
			}
			body := make([]byte, size)
			b.ReportAllocs()
			b.ResetTimer()
			var left atomic.Int64
			left.Store(int64(b.N))
			var wg sync.WaitGroup
			for _, c := range clients {
				for range 64 {
					wg.Add(1)
					var again func([]byte, error)
					again = func(_ []byte, err error) {
						if err != nil {
							b.Error(err)
						}
						if left.Add(-1) < 0 || c.Start(pbft.Call{Body: body, Done: again}) != nil {
							wg.Done()
						}
					}
					again(nil, nil)
				}
			}
			wg.Wait()
		})
	}
}
