// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkDirty measures a checkpoint of 256 MiB by the number of pages that changed, as
// the paper does [TOCS §8.1.5, figure 13].
//
//	copy-ms    the writes, each the first to its page since the last checkpoint
//	digest-ms  from Freeze until the root is known
func BenchmarkDirty(b *testing.B) {
	const pages = 1 << 16
	for _, dirty := range []int{128, 256, 512, 1024} {
		b.Run(fmt.Sprint(dirty), func(b *testing.B) {
			s := filled(b, pages)
			r := rand.New(rand.NewPCG(1, 2))
			seq := Seq(1)
			var copied, digested time.Duration
			b.ReportAllocs()
			for b.Loop() {
				start := time.Now()
				from := PageNum(r.Uint64N(pages))
				for i := range PageNum(dirty) {
					n := (from + i*PageNum(pages/dirty)) % pages // scattered evenly, so that no two are the same
					binary.LittleEndian.PutUint64(s.Modify(n)[8:], uint64(seq))
				}
				frozen := time.Now()
				seq++
				s.Freeze(seq, nil)
				if _, err := s.Root(seq); err != nil {
					b.Fatal(err)
				}
				copied += frozen.Sub(start)
				digested += time.Since(frozen)
				s.Discard(seq)
			}
			perLoop := func(d time.Duration) float64 { return d.Seconds() * 1000 / float64(b.N) }
			b.ReportMetric(perLoop(copied), "copy-ms")
			b.ReportMetric(perLoop(digested), "digest-ms")
		})
	}
}
