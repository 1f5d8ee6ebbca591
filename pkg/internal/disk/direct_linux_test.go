// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A long read sees what was written, whether it is in the cache, on the disk alone or in part in
// each, written a moment ago or synced, and whether memory and place allow it to go past the cache.
func TestLongReads(t *testing.T) {
	dir := t.TempDir()
	f, err := OS(dir).Create("file")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	want := make([]byte, 3*longRead+100)
	fill := rand.NewChaCha8([32]byte{1})
	_, _ = fill.Read(want)
	write := func(off, n int) {
		_, _ = fill.Read(want[off : off+n])
		if _, err := f.WriteAt(want[off:off+n], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
	write(0, len(want))
	memory := make([]byte, 4*longRead+2*directAlign)
	aligned := memory[directAlign-uintptr(unsafe.Pointer(&memory[0]))%directAlign:]
	check := func(what string) {
		t.Helper()
		for _, r := range []struct{ from, off, n int }{
			{0, 0, longRead}, {0, longRead, 2 * longRead}, {0, directAlign, longRead}, {1, 0, longRead},
			{0, 100, longRead}, {0, 2 * longRead, 2 * longRead}, {0, 0, 100}, {0, 4 * longRead, longRead},
		} {
			b := aligned[r.from : r.from+r.n]
			clear(b)
			n, err := f.ReadAt(b, int64(r.off))
			expect := want[min(r.off, len(want)):min(r.off+r.n, len(want))]
			if n != len(expect) || !bytes.Equal(b[:n], expect) || (n < r.n) != errors.Is(err, io.EOF) {
				t.Errorf("%s, %d bytes at %d: got %d, %v, want %d", what, r.n, r.off, n, err, len(expect))
			}
		}
	}
	evict := func() {
		again, err := os.Open(filepath.Join(dir, "file"))
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if err := unix.Fadvise(int(again.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
			t.Fatal(err)
		}
	}
	check("not synced")
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	check("synced")
	evict()
	check("not in the cache")
	write(longRead/2, longRead)
	check("partly in the cache, not synced")
	evict()
	check("partly in the cache")
}
