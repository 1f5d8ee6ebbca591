// SPDX-License-Identifier: Apache-2.0

package pbft_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// two is a service of two cells, each on a page of its own: 'w' writes the first, 'a' and
// 'b' read one.
type two struct {
	state pbft.State
	base  pbft.PageNum
}

func (s two) Execute(op pbft.Operation) ([]byte, bool) {
	if reply, ok := s.Query(op); ok {
		return reply, false
	}
	s.state.Modify(s.base)[0]++
	return nil, true
}

func (two) Cost([]byte) int { return 0 }

func (s two) Query(op pbft.Operation) ([]byte, bool) {
	switch op.Body[0] {
	case 'a':
		return slices.Clone(s.state.Page(s.base)[:1]), true
	case 'b':
		return slices.Clone(s.state.Page(s.base + 1)[:1]), true
	}
	return nil, false
}

func (s two) Choose(pbft.SeqNum) []byte       { return nil }
func (s two) Accept(pbft.SeqNum, []byte) bool { return true }
func (s two) State() pbft.State               { return s.state }

// unversioned hides which batch changed a page last.
type unversioned struct{ pbft.State }

// BenchmarkReadsBesideWrites is one client that reads while another writes, with eight
// writes outstanding: what is written, or something else; on a state that knows what a
// batch changed, and on one that does not. ordered/op is how many reads had to be ordered.
func BenchmarkReadsBesideWrites(b *testing.B) {
	for _, state := range []struct {
		name string
		of   func() pbft.State
	}{
		{"changes", func() pbft.State { return pbfttest.NewMemory() }},
		{"batches", func() pbft.State { return unversioned{pbfttest.NewMemory()} }},
	} {
		for _, what := range []struct{ name, op string }{{"other", "b"}, {"same", "a"}} {
			b.Run(state.name+"/"+what.name, func(b *testing.B) {
				_, client := startGroup(b, 4, func(g *pbft.Group) pbft.Service {
					return two{state.of(), g.ReservedPages()}
				})
				writer, reader := client(), client()
				ctx, stop := context.WithCancel(context.Background())
				done := make(chan bool)
				for range 8 {
					go func() {
						defer func() { done <- true }()
						for ctx.Err() == nil {
							_, _ = writer.Invoke(ctx, []byte("w"), false)
						}
					}()
				}
				var took []time.Duration
				before := reader.Status().Fallbacks
				for b.Loop() {
					start := time.Now()
					if _, err := reader.Invoke(context.Background(), []byte(what.op), true); err != nil {
						b.Fatal(err)
					}
					took = append(took, time.Since(start))
				}
				slices.Sort(took)
				b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
				b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
				b.ReportMetric(float64(reader.Status().Fallbacks-before)/float64(len(took)), "ordered/op")
				stop()
				for range 8 {
					<-done
				}
			})
		}
	}
}
