// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"bfs/pkg/internal/blockhash"
)

var benchGiB = flag.Int("gib", 1, "largest state in benchmarks, in GiB of real memory; 8 for the full table")

// fill writes pages 0 to n, each different.
func fill(s *Store, n PageNum) {
	r := rand.NewChaCha8([32]byte{})
	var noise [PageSize]byte
	r.Read(noise[:])
	for i := range n {
		p := s.Overwrite(i)
		copy(p, noise[:])
		binary.LittleEndian.PutUint64(p, uint64(i))
	}
}

// filled returns a store with this many pages and one checkpoint, hashed.
func filled(b *testing.B, pages PageNum) *Store {
	b.Helper()
	s, err := New(Options{Pages: 1 << 24})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { s.Close() })
	fill(s, pages)
	s.Freeze(1, nil)
	if _, err := s.Root(1); err != nil {
		b.Fatal(err)
	}
	return s
}

// BenchmarkCheckpoint changes 128 pages somewhere in the state, freezes and hashes them,
// and discards the old checkpoint. The cost must not depend on the size of the state,
// except that 128 pages of 256 share parents and processor cache, and 128 of 2 Mi do not.
func BenchmarkCheckpoint(b *testing.B) {
	for _, size := range []struct {
		name  string
		pages PageNum
		gib   int
	}{{"1MiB", 1 << 8, 0}, {"1GiB", 1 << 18, 1}, {"8GiB", 1 << 21, 8}} {
		for _, spread := range []string{"scattered", "together"} {
			b.Run(size.name+"/"+spread, func(b *testing.B) {
				if size.gib > *benchGiB {
					b.Skipf("not run: needs %d GiB of memory; ask with -gib %d", size.gib, size.gib)
				}
				benchCheckpoint(b, filled(b, size.pages), size.pages, spread == "together")
			})
		}
	}
}

func benchCheckpoint(b *testing.B, s *Store, pages PageNum, together bool) {
	const dirty = 128
	r := rand.New(rand.NewPCG(1, 2))
	seq := Seq(1)
	b.ReportAllocs()
	for b.Loop() {
		from := PageNum(r.Uint64N(uint64(pages - dirty + 1)))
		for i := range PageNum(dirty) {
			n := from + i
			if !together {
				n = (from + i*(pages/dirty)) % pages // evenly, so exactly 128 different ones
			}
			binary.LittleEndian.PutUint64(s.Modify(n)[8:], uint64(seq))
		}
		seq++
		s.Freeze(seq, nil)
		if _, err := s.Root(seq); err != nil {
			b.Fatal(err)
		}
		s.Discard(seq)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/dirty, "µs/page")
}

// BenchmarkFirstWrite measures the first write to a page in an epoch, somewhere in 1 GiB
// or within 4 MiB, where memory plays no part: Modify copies the page, Overwrite and Zero
// do not. It includes the page's share of Freeze on the owner's side and of Discard.
func BenchmarkFirstWrite(b *testing.B) {
	touch := []struct {
		name string
		do   func(*Store, PageNum)
	}{
		{"Modify", func(s *Store, n PageNum) { s.Modify(n)[0]++ }},
		{"Overwrite", func(s *Store, n PageNum) { s.Overwrite(n)[0]++ }},
		{"OverwriteZero", func(s *Store, n PageNum) { s.Overwrite(n)[0]++; s.Zero(n) }},
	}
	for _, pages := range []PageNum{1 << 10, 1 << 18} {
		s := filled(b, pages)
		seq := Seq(1)
		for _, t := range touch {
			b.Run(fmt.Sprintf("%dMiB/%s", pages>>8, t.name), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; b.Loop(); i++ {
					t.do(s, PageNum(i)*5003%pages) // a prime, so all different for a while
					if i%512 == 511 {
						seq = turnEpoch(b, s, seq)
					}
				}
				seq = turnEpoch(b, s, seq)
			})
		}
	}
}

// turnEpoch freezes, hashes off the clock, and discards.
func turnEpoch(b *testing.B, s *Store, seq Seq) Seq {
	seq++
	s.Freeze(seq, nil)
	b.StopTimer()
	s.hasher.idle()
	b.StartTimer()
	s.Discard(seq)
	return seq
}

// BenchmarkLaterWrite: Modify of a page that has changed in the epoch already; and Read.
func BenchmarkLaterWrite(b *testing.B) {
	s := filled(b, 1<<10)
	for n := range PageNum(16) {
		s.Modify(n)
	}
	b.Run("Modify", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s.Modify(PageNum(i & 15))[i*64&(PageSize-1)]++
		}
	})
	b.Run("Read", func(b *testing.B) {
		b.ReportAllocs()
		sum := byte(0)
		for i := 0; b.Loop(); i++ {
			sum += s.Read(PageNum(i & 15))[i*64&(PageSize-1)]
		}
		_ = sum
	})
}

// BenchmarkHashing: a checkpoint in which everything changed, and the bare hash beside it.
func BenchmarkHashing(b *testing.B) {
	b.Run("tree", func(b *testing.B) {
		const pages = 1 << 12
		s := filled(b, pages)
		seq := Seq(1)
		b.SetBytes(pages * PageSize)
		b.ReportAllocs()
		for b.Loop() {
			b.StopTimer()
			s.Discard(seq)
			for n := range PageNum(pages) {
				binary.LittleEndian.PutUint64(s.Modify(n)[8:], uint64(seq))
			}
			b.StartTimer()
			seq++
			s.Freeze(seq, nil)
			if _, err := s.Root(seq); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("sha256", func(b *testing.B) {
		p := pageOf(1)
		b.SetBytes(PageSize)
		for b.Loop() {
			sha256.Sum256(p)
		}
	})
}

// BenchmarkPut: a page filled and, some hundreds together, hashed for a checkpoint, with
// its block digest known and without.
func BenchmarkPut(b *testing.B) {
	for _, known := range []bool{false, true} {
		b.Run(map[bool]string{false: "Overwrite", true: "Put"}[known], func(b *testing.B) {
			const pages = 512
			s := filled(b, pages)
			contents, seq := pageOf(1), Seq(1)
			b.SetBytes(PageSize)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if i%pages == 0 {
					contents = pageOf(byte(1 + i/pages%255)) // so that all pages change
				}
				n := PageNum(i % pages)
				if known {
					s.Put(n, contents, blockOf[contents[0]])
				} else {
					copy(s.Overwrite(n), contents)
				}
				if n == pages-1 {
					seq++
					s.Freeze(seq, nil)
					if _, err := s.Root(seq); err != nil {
						b.Fatal(err)
					}
					s.Discard(seq)
				}
			}
		})
	}
}

// blockOf has the block digest of pageOf(b) for each b.
var blockOf = func() (d [256]blockhash.Digest) {
	for b := range d {
		d[b] = blockhash.Sum(pageOf(byte(b)))
	}
	return d
}()

// BenchmarkResident reports how many bytes are resident for one byte of data, after a stable
// checkpoint: once filled in one epoch, and again when a tenth of it was rewritten epoch by
// epoch.
func BenchmarkResident(b *testing.B) {
	pages := PageNum(*benchGiB) << 18
	before := resident(b)
	s := filled(b, pages)
	data := float64(pages * PageSize)
	b.ReportMetric(float64(resident(b)-before)/data, "filled-B/B")
	r := rand.New(rand.NewPCG(1, 2))
	for seq := Seq(2); seq < 12; seq++ {
		for range pages / 100 {
			s.Modify(PageNum(r.Uint64N(uint64(pages))))[0]++
		}
		s.Freeze(seq, nil)
		if _, err := s.Root(seq); err != nil {
			b.Fatal(err)
		}
		s.Discard(seq)
	}
	b.ReportMetric(float64(resident(b)-before)/data, "rewritten-B/B")
	for n := range pages {
		s.Zero(n)
	}
	s.Freeze(12, nil)
	if _, err := s.Root(12); err != nil {
		b.Fatal(err)
	}
	s.Discard(12)
	b.ReportMetric(float64(resident(b)-before)/data, "emptied-B/B")
	b.ReportMetric(0, "ns/op")
}

// resident returns the resident set of this process in bytes.
func resident(b *testing.B) int64 {
	b.Helper()
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		b.Fatal(err)
	}
	n, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return n * int64(os.Getpagesize())
}

// BenchmarkInstall: a state fetched in whole from a peer, both ends counted.
func BenchmarkInstall(b *testing.B) {
	const pages = 1 << 12
	peer := filled(b, pages)
	want, err := peer.Root(1)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(pages * PageSize)
	b.ReportAllocs()
	for b.Loop() {
		s, err := New(Options{Pages: 1 << 24})
		if err != nil {
			b.Fatal(err)
		}
		in, err := s.Install(1, want)
		if err != nil {
			b.Fatal(err)
		}
		for !in.Done() {
			for _, id := range in.Wants(64) {
				answer(b, in, id, peer)
			}
		}
		if err := in.Commit(); err != nil {
			b.Fatal(err)
		}
		if got, err := s.Root(1); err != nil || got != want {
			b.Fatal(fmt.Sprint(got, err))
		}
		s.Close()
	}
}
