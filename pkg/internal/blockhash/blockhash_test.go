// SPDX-License-Identifier: Apache-2.0

package blockhash

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"
)

// defined is a block's digest as the comment of Sum has it.
func defined(block []byte) Digest {
	first := sha256.Sum256(fmt.Appendf(nil, "%sbfs half", block[:2048]))
	second := sha256.Sum256(fmt.Appendf(nil, "%sbfs half", block[2048:]))
	return sha256.Sum256(fmt.Appendf(nil, "bfs block%s%s", first, second))
}

// check compares all ways to digest a block.
func check(t *testing.T, block []byte) {
	t.Helper()
	want := defined(block)
	if got := Sum(block); got != want {
		t.Errorf("Sum: got %x, want %x", got, want)
	}
	if got := plain((*[Size]byte)(block)); got != want {
		t.Errorf("plain: got %x, want %x", got, want)
	}
	checkDigest(t, block, want)
}

func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// The digest of a block is computed from those of its two halves.
func TestSum(t *testing.T) {
	for seed := range byte(100) {
		check(t, noise(seed, Size))
	}
}

// The digest of zeros is a constant, because states and operations of other versions contain it.
func TestSumOfZeros(t *testing.T) {
	const want = "d0cf73d34d74441c3bac3077092a8bf6caa76715d5ac7a5d3410a7c0a987961f"
	if got := fmt.Sprintf("%x", Sum(make([]byte, Size))); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Blocks of one byte again and again, among them all zeros and all ones.
func TestSumOfOneByte(t *testing.T) {
	block := make([]byte, Size)
	for b := range 256 {
		for i := range block {
			block[i] = byte(b)
		}
		check(t, block)
	}
}

// Each byte counts, where it stands.
func TestSumOfEachByte(t *testing.T) {
	block, seen := make([]byte, Size), map[Digest]int{}
	for i := range block {
		block[i] = 1
		check(t, block)
		d := Sum(block)
		if at, twice := seen[d]; twice {
			t.Fatalf("bytes %d and %d give one digest", at, i)
		}
		seen[d] = i
		block[i] = 0
	}
}

// A block may lie at any address.
func TestSumUnaligned(t *testing.T) {
	b := noise(1, Size+128)
	for at := range 128 {
		check(t, b[at:][:Size])
	}
}

func TestSumAllocatesNothing(t *testing.T) {
	block := noise(1, Size)
	var d Digest
	if n := testing.AllocsPerRun(100, func() { d = Sum(block) }); n != 0 {
		t.Errorf("Sum allocates %v times", n)
	}
	_ = d
}

func FuzzSum(f *testing.F) {
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{0xff}, uint16(1))
	f.Add([]byte("bfs half"), uint16(2048))
	f.Add(noise(1, Size), uint16(63))
	f.Fuzz(func(t *testing.T, contents []byte, at uint16) {
		// Contents that are not too long, somewhere in a block that is somewhere in memory.
		b := make([]byte, Size+64)
		block := b[at%64:][:Size]
		copy(block[at/64*4:], contents)
		check(t, block)
	})
}

func BenchmarkSum(b *testing.B) {
	block := noise(1, Size)
	for _, way := range []struct {
		name string
		sum  func([]byte) Digest
	}{
		{"Sum", Sum},
		{"plain", func(block []byte) Digest { return plain((*[Size]byte)(block)) }},
		{"sha256", func(block []byte) Digest { return sha256.Sum256(block) }},
	} {
		b.Run(way.name, func(b *testing.B) {
			b.SetBytes(Size)
			b.ReportAllocs()
			for b.Loop() {
				way.sum(block)
			}
		})
	}
}
