// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"
)

func newMem(seed uint64) *Mem { return NewMem(rand.New(rand.NewPCG(seed, 1))) }

func create(t *testing.T, d FS, name string) File {
	t.Helper()
	f, err := d.Create(name)
	must(t, err)
	return f
}

func open(t *testing.T, d FS, name string) File {
	t.Helper()
	f, err := d.Open(name)
	must(t, err)
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, f File, off int64, b []byte) {
	t.Helper()
	n, err := f.WriteAt(b, off)
	if err != nil || n != len(b) {
		t.Fatalf("wrote %d bytes of %d: %v", n, len(b), err)
	}
}

func contentsOf(t *testing.T, f File) []byte {
	t.Helper()
	size, err := f.Size()
	must(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); n != len(b) || err != nil && err != io.EOF {
		t.Fatalf("read %d bytes of %d: %v", n, size, err)
	}
	return b
}

func fill(c byte, n int) []byte { return bytes.Repeat([]byte{c}, n) }

// Both file systems do what the interfaces say, as long as nothing fails.
func TestFS(t *testing.T) {
	for name, d := range map[string]FS{"OS": OS(t.TempDir()), "Mem": newMem(1)} {
		t.Run(name, func(t *testing.T) {
			f := create(t, d, "b")
			if _, err := d.Create("b"); !errors.Is(err, fs.ErrExist) {
				t.Errorf("create again: %v", err)
			}
			if _, err := d.Open("a"); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("open nothing: %v", err)
			}
			write(t, f, 5000, []byte("hello"))
			write(t, f, 10, fill('x', 5000))
			want := slices.Concat(make([]byte, 10), fill('x', 5000))
			if got := contentsOf(t, f); !bytes.Equal(got, want) {
				t.Errorf("got %d bytes, want %d", len(got), len(want))
			}
			must(t, f.Truncate(20))
			must(t, f.Allocate(9000))
			must(t, f.Allocate(100))
			want = slices.Concat(want[:20], make([]byte, 8980))
			if got := contentsOf(t, f); !bytes.Equal(got, want) {
				t.Error("a shorter file that is made longer does not have zeros there")
			}
			must(t, f.Sync())
			must(t, f.WriteThrough([]byte("at once"), 8990))
			want = slices.Concat(want[:8990], []byte("at once"), want[8997:])
			create(t, d, "a")
			must(t, d.Rename("b", "a"))
			if names, err := d.List(); err != nil || !slices.Equal(names, []string{"a"}) {
				t.Errorf("names %v, %v", names, err)
			}
			if got := contentsOf(t, open(t, d, "a")); !bytes.Equal(got, want) {
				t.Error("a renamed file has other contents")
			}
			must(t, d.Remove("a"))
			write(t, f, 0, []byte("still open"))
			must(t, d.Sync())
			must(t, f.Close())
			if err := f.Sync(); err == nil {
				t.Error("a closed file can be synced")
			}
		})
	}
}

// Synced contents survive a crash. A sector that was written after that has its old
// contents or its new ones, and both happen, within one write too.
func TestCrashOfWrites(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		m := newMem(seed)
		f := create(t, m, "f")
		must(t, m.Sync())
		write(t, f, 0, fill('a', 8192))
		must(t, f.Sync())
		write(t, f, 1000, fill('b', 3000))
		write(t, f, 4096, fill('c', 512))
		m.Crash()
		if _, err := f.ReadAt(make([]byte, 1), 0); !errors.Is(err, ErrPower) {
			t.Fatalf("a file of before the crash: %v", err)
		}
		got := contentsOf(t, open(t, m, "f"))
		before, after := got[:1000], got[4608:]
		if len(got) != 8192 || !bytes.Equal(before, fill('a', 1000)) || !bytes.Equal(after, fill('a', 8192-4608)) {
			t.Fatal("bytes that were not written again have changed")
		}
		for from := 1000; from < 4000; {
			to := min((from/512+1)*512, 4000)
			if s := got[from:to]; bytes.Count(s, s[:1]) != len(s) {
				t.Fatalf("seed %d: the sector at %d is torn", seed, from)
			}
			from = to
		}
		seen[fmt.Sprintf("%c %c", got[1100], got[3999])]++
		seen[fmt.Sprintf("second %c", got[4200])]++
	}
	for _, outcome := range []string{"a a", "a b", "b a", "b b", "second a", "second c"} {
		if seen[outcome] == 0 {
			t.Errorf("%q never happened", outcome)
		}
	}
}

// Bytes written through survive a crash. If the power fails before the call has returned,
// each sector is an old one or a new one. A sync that fails is an error.
func TestWriteThrough(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		m := newMem(seed)
		f := create(t, m, "f")
		must(t, m.Sync())
		must(t, f.WriteThrough(fill('a', 8192), 0))
		m.CutAfter(int(seed % 3))
		err := f.WriteThrough(fill('b', 4096), 4096)
		m.Crash()
		got := contentsOf(t, open(t, m, "f"))
		switch {
		case len(got) != 8192 || !bytes.Equal(got[:4096], fill('a', 4096)):
			t.Fatal("what was written through before is lost")
		case err == nil && !bytes.Equal(got[4096:], fill('b', 4096)):
			t.Fatal("what was written through is lost")
		}
		seen[fmt.Sprintf("%v, %c", err, got[5000])]++
	}
	for _, outcome := range []string{"<nil>, b", ErrPower.Error() + ", a", ErrPower.Error() + ", b"} {
		if seen[outcome] == 0 {
			t.Errorf("%q never happened: %v", outcome, seen)
		}
	}
	m := newMem(1)
	f := create(t, m, "f")
	m.FailSync(1)
	if err := f.WriteThrough(fill('a', 100), 0); err == nil {
		t.Error("a sync failed and nothing was said of it")
	}
}

// A later write to a sector carries what earlier ones put there.
func TestCrashKeepsAppendsInOrder(t *testing.T) {
	for seed := range uint64(200) {
		m := newMem(seed)
		f := create(t, m, "f")
		must(t, m.Sync())
		for i := range 8 {
			write(t, f, int64(i*50), fill('1'+byte(i), 50))
		}
		m.Crash()
		if got := contentsOf(t, open(t, m, "f")); bytes.IndexByte(got, 0) >= 0 {
			t.Fatalf("seed %d: a hole in a sector: %q", seed, got)
		}
	}
}

// Names are durable after a Sync of them, and contents after one of the file: neither
// does the other's work.
func TestCrashOfNames(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(200) {
		m := newMem(seed)
		old, f := create(t, m, "f"), create(t, m, "new")
		write(t, old, 0, []byte("old"))
		must(t, errors.Join(old.Sync(), m.Sync()))
		write(t, f, 0, []byte("new"))
		must(t, m.Rename("new", "f"))
		m.Crash()
		names, err := m.List()
		must(t, err)
		if !slices.Contains(names, "f") {
			t.Fatalf("seed %d: a rename lost the name: %v", seed, names)
		}
		seen[fmt.Sprintf("%v %s", names, contentsOf(t, open(t, m, "f")))]++
	}
	for _, outcome := range []string{"[f new] old", "[f] new", "[f] "} {
		if seen[outcome] == 0 {
			t.Errorf("%q never happened: %v", outcome, seen)
		}
	}
}

// A change of length is kept or lost.
func TestCrashOfLengths(t *testing.T) {
	seen := map[int]int{}
	for seed := range uint64(50) {
		m := newMem(seed)
		f := create(t, m, "f")
		write(t, f, 0, fill('a', 6000))
		must(t, errors.Join(f.Sync(), m.Sync()))
		must(t, errors.Join(f.Truncate(100), f.Allocate(200)))
		m.Crash()
		seen[len(contentsOf(t, open(t, m, "f")))]++
	}
	if seen[6000] == 0 || seen[100] == 0 || seen[200] == 0 {
		t.Errorf("lengths %v", seen)
	}
}

// Equal seeds and calls make equal disks.
func TestMemIsDeterministic(t *testing.T) {
	life := func() []byte {
		m := newMem(7)
		for i := range 20 {
			f := create(t, m, fmt.Sprint(i))
			write(t, f, 0, fill('a'+byte(i), 3000))
		}
		m.Crash()
		names, err := m.List()
		must(t, err)
		var all []byte
		for _, name := range names {
			all = append(append(all, name...), contentsOf(t, open(t, m, name))...)
		}
		return all
	}
	if !bytes.Equal(life(), life()) {
		t.Error("two disks under one seed differ")
	}
}

// A write that was in the cache when a Sync failed may be lost though the next Sync succeeds.
func TestFailSync(t *testing.T) {
	lost := 0
	for seed := range uint64(50) {
		m := newMem(seed)
		f := create(t, m, "f")
		must(t, m.Sync())
		write(t, f, 0, fill('a', 100))
		m.FailSync(1)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatalf("a Sync that fails: %v", err)
		}
		must(t, f.Sync())
		if got := contentsOf(t, f); !bytes.Equal(got, fill('a', 100)) {
			t.Fatal("the cache has lost it")
		}
		m.Crash()
		if got := contentsOf(t, open(t, m, "f")); !bytes.Equal(got, fill('a', 100)) {
			lost++
		}
	}
	if lost == 0 || lost == 50 {
		t.Errorf("lost %d of 50 times", lost)
	}
}

// A full disk refuses what needs more pages, and takes what does not.
func TestLimit(t *testing.T) {
	m := newMem(1)
	f, g := create(t, m, "f"), create(t, m, "g")
	m.Limit(3 * pageBytes)
	must(t, f.Allocate(2*pageBytes))
	write(t, g, 10, []byte("x"))
	if n, err := g.WriteAt(fill('y', 2*pageBytes), 20); n != pageBytes-20 || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("wrote %d bytes: %v", n, err)
	}
	if err := f.Allocate(2*pageBytes + 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("allocated: %v", err)
	}
	write(t, f, 0, fill('z', 2*pageBytes))
	must(t, m.Remove("g"))
	must(t, f.Allocate(3*pageBytes))
}

// Faults of the medium: a flip changes some bits of its range only, a misdirected write
// lands elsewhere once.
func TestFlipAndMisdirect(t *testing.T) {
	m := newMem(1)
	f := create(t, m, "f")
	write(t, f, 0, make([]byte, 10000))
	must(t, f.Sync())
	must(t, m.Flip("f", 4090, 20))
	got := contentsOf(t, f)
	zeros := func(b []byte) bool { return bytes.Equal(b, make([]byte, len(b))) }
	if zeros(got[4090:4110]) || !zeros(got[:4090]) || !zeros(got[4110:]) {
		t.Error("a flip is to change its range, and nothing else")
	}
	must(t, m.Rename("f", "g"))
	must(t, m.Misdirect("g", 4096))
	write(t, f, 0, []byte("astray"))
	write(t, f, 100, []byte("back"))
	got = contentsOf(t, f)
	if string(got[4096:4102]) != "astray" || string(got[100:104]) != "back" || got[0] != 0 {
		t.Error("a write did not go where it was sent")
	}
}

// A snapshot put back is the disk of then, as often as it is put back, whatever came in between.
func TestSnapshot(t *testing.T) {
	m := newMem(1)
	f := create(t, m, "f")
	write(t, f, 0, fill('a', 5000))
	must(t, f.Sync())
	write(t, f, 10, fill('b', 10))
	want := contentsOf(t, f)
	s := m.Snapshot()
	for range 2 {
		write(t, f, 0, fill('c', 9000))
		must(t, errors.Join(f.Sync(), m.Flip("f", 0, 10), m.Remove("f")))
		m.Restore(s)
		m.Crash()
		f = open(t, m, "f")
		if !bytes.Equal(contentsOf(t, f), want) {
			t.Fatal("a restored snapshot has other contents")
		}
	}
}

// CutAfter lets so many changes happen; nothing answers then until the power is back.
func TestCutAfter(t *testing.T) {
	m := newMem(1)
	f := create(t, m, "f")
	must(t, m.Sync())
	m.CutAfter(2)
	write(t, f, 0, []byte("a"))
	must(t, f.Sync())
	_, reading := f.ReadAt(make([]byte, 1), 0)
	_, writing := f.WriteAt([]byte("b"), 0)
	_, opening := m.Open("f")
	for _, err := range []error{reading, writing, opening, f.Sync(), m.Sync(), m.Remove("f")} {
		if !errors.Is(err, ErrPower) {
			t.Errorf("without power: %v", err)
		}
	}
	m.Crash()
	if got := contentsOf(t, open(t, m, "f")); string(got) != "a" {
		t.Errorf("got %q", got)
	}
	if s := m.Stats(); s != (Stats{Written: 1, Writes: 1, Syncs: 2}) {
		t.Errorf("counted %+v", s)
	}
}

// BenchmarkMem is an append of a record and its Sync, as a simulated journal has them.
func BenchmarkMem(b *testing.B) {
	m := newMem(1)
	f, _ := m.Create("f")
	_ = f.Allocate(1 << 20)
	record := make([]byte, 600)
	for i := 0; b.Loop(); i++ {
		_, _ = f.WriteAt(record, int64(i*600)%(1<<20-600))
		_ = f.Sync()
	}
}
