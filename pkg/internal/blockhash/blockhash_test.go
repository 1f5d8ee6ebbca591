package blockhash

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// A block's digest is that of its two halves' digests.
func TestSum(t *testing.T) {
	r := rand.NewChaCha8([32]byte{1})
	for range 20 {
		block := make([]byte, Size)
		if _, err := r.Read(block); err != nil {
			t.Fatal(err)
		}
		first := sha256.Sum256(append(append([]byte(nil), block[:2048]...), "bfs half"...))
		second := sha256.Sum256(append(append([]byte(nil), block[2048:]...), "bfs half"...))
		want := sha256.Sum256(append(append([]byte("bfs block"), first[:]...), second[:]...))
		if got := Sum(block); got != want {
			t.Errorf("got %x, want %x", got, want)
		}
	}
}

func BenchmarkSum(b *testing.B) {
	block := make([]byte, Size)
	b.SetBytes(Size)
	b.ReportAllocs()
	for b.Loop() {
		Sum(block)
	}
}
