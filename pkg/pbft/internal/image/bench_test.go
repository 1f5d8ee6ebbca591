// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"flag"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/internal/disk"
)

var (
	benchPages  = flag.Int("image.pages", 1<<16, "pages of the state in benchmarks")
	benchUpdate = flag.Int("image.update", 1<<13, "pages that differ in each update of a benchmark")
	benchDir    = flag.String("image.dir", "", "directory of the image of a benchmark, empty for a temporary one")
)

// A store is the digest tree of the file system as a Tree and a Source.
type store struct{ *fsmerkle.Store }

func (s store) Shape() (NodeID, int) { return NodeID(s.Top()), fsmerkle.Fanout }

func (s store) Digest(n PageNum, contents []byte) Digest {
	return Digest(fsmerkle.DigestPage(fsmerkle.PageNum(n), contents))
}

func (s store) Combine(id NodeID, children []Digest) Digest {
	family := make([]fsmerkle.Digest, len(children))
	for i, d := range children {
		family[i] = fsmerkle.Digest(d)
	}
	return Digest(s.Store.Combine(fsmerkle.NodeID(id), family))
}

func (s store) Children(seq SeqNum, id NodeID) ([]Digest, error) {
	family, err := s.Store.Children(fsmerkle.Seq(seq), fsmerkle.NodeID(id))
	children := make([]Digest, len(family))
	for i, d := range family {
		children[i] = Digest(d)
	}
	return children, err
}

func (s store) PageAt(seq SeqNum, n PageNum) ([]byte, error) {
	return s.Store.PageAt(fsmerkle.Seq(seq), fsmerkle.PageNum(n))
}

// An installing is a session of the store.
type installing struct{ *fsmerkle.Install }

func (i installing) Wants(max int) []NodeID {
	wants := i.Install.Wants(max)
	nodes := make([]NodeID, len(wants))
	for k, id := range wants {
		nodes[k] = NodeID(id)
	}
	return nodes
}

func (i installing) OfferNode(id NodeID, children []Digest) error {
	family := make([]fsmerkle.Digest, len(children))
	for k, d := range children {
		family[k] = fsmerkle.Digest(d)
	}
	return i.Install.OfferNode(fsmerkle.NodeID(id), family)
}

func (i installing) OfferPage(n PageNum, contents []byte) error {
	return i.Install.OfferPage(fsmerkle.PageNum(n), contents)
}

func (i installing) OfferDigested(n PageNum, contents []byte, d Digest) error {
	return i.Install.OfferDigested(fsmerkle.PageNum(n), contents, fsmerkle.Digest(d))
}

func (i installing) Ready(lent []byte) { fsmerkle.Ready(lent) }

func (i installing) Retry(id NodeID) { i.Install.Retry(fsmerkle.NodeID(id)) }

// A rig is a store with an image on the disk of this host, which counts what is written.
type rig struct {
	store
	image   *Image
	chance  *rand.Rand
	seq     SeqNum
	written int64
	spent   time.Duration // of the CPU, on updates
}

func newRig(b *testing.B) *rig {
	s, err := fsmerkle.New(fsmerkle.Options{Pages: 1 << 24})
	must(b, err)
	b.Cleanup(func() { _ = s.Close() })
	r := &rig{store: store{s}, chance: newChance(1)}
	dir := *benchDir
	if dir == "" {
		dir = b.TempDir()
	}
	r.image, err = Create(counting{disk.OS(dir), &r.written}, Options{Pages: 1 << 24, Tree: r.store})
	must(b, err)
	b.Cleanup(func() { _ = r.image.Close() })
	return r
}

// A counting FS counts the bytes that are written to its files.
type counting struct {
	disk.FS
	written *int64
}

func (c counting) Create(name string) (disk.File, error) {
	f, err := c.FS.Create(name)
	return countingFile{f, c.written}, err
}

type countingFile struct {
	disk.File
	written *int64
}

func (f countingFile) WriteAt(b []byte, off int64) (int, error) {
	*f.written += int64(len(b))
	return f.File.WriteAt(b, off)
}

// write gives a page new contents.
func (r *rig) write(n int) {
	page := r.Overwrite(fsmerkle.PageNum(n))
	for i := 0; i < pageSize; i += 8 {
		binary.LittleEndian.PutUint64(page[i:], r.chance.Uint64())
	}
}

// update takes a checkpoint and the image to it, 256 nodes or pages a step.
func (r *rig) update(b *testing.B) {
	b.StopTimer()
	r.seq++
	r.Freeze(fsmerkle.Seq(r.seq), nil)
	root, err := r.Root(fsmerkle.Seq(r.seq))
	must(b, err)
	r.Discard(fsmerkle.Seq(r.seq))
	runtime.GC()
	b.StartTimer()
	from := cpu()
	u, err := r.image.Begin(r.seq, Digest(root))
	must(b, err)
	for done := false; !done; {
		done, err = u.Step(r.store, 256)
		must(b, err)
		must(b, u.Write())
	}
	must(b, u.Commit())
	r.spent += cpu() - from
}

func cpu() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkUpdate is one update of the image: of new pages one after the other, and of
// pages anywhere in a state. The time of the CPU has the kernel's in it, but not what the
// kernel does behind our back.
func BenchmarkUpdate(b *testing.B) {
	b.Run("new", func(b *testing.B) {
		next := 0
		benchmarkUpdate(b, newRig(b), func(r *rig) {
			r.write(next)
			next++
		})
	})
	b.Run("random", func(b *testing.B) {
		r := newRig(b)
		for n := range *benchPages {
			r.write(n)
		}
		r.update(b)
		benchmarkUpdate(b, r, func(r *rig) { r.write(r.chance.IntN(*benchPages)) })
	})
}

func benchmarkUpdate(b *testing.B, r *rig, write func(r *rig)) {
	pages := 0
	r.written, r.spent = 0, 0
	for b.Loop() {
		b.StopTimer()
		for range *benchUpdate {
			write(r)
		}
		b.StartTimer()
		r.update(b)
		pages += r.image.changed
	}
	size, err := r.image.pages.Size()
	must(b, err)
	b.ReportMetric(float64(r.written)/float64(pages*pageSize), "written/changed")
	b.ReportMetric(float64(r.spent.Microseconds())/float64(pages), "cpu-µs/page")
	b.ReportMetric(float64(size+int64(r.image.log.end*blockBytes))/float64(r.image.Live()*pageSize), "disk/live")
}

// BenchmarkLoad measures the start of a replica: it opens the image and loads the state from
// it. Pages are in the page cache, in the order of their numbers, or scattered by updates.
func BenchmarkLoad(b *testing.B) {
	b.Run("new", func(b *testing.B) { benchmarkLoad(b, 0) })
	b.Run("scattered", func(b *testing.B) { benchmarkLoad(b, 16) })
}

func benchmarkLoad(b *testing.B, updates int) {
	r := newRig(b)
	for n := range *benchPages {
		r.write(n)
	}
	r.update(b)
	for range updates {
		for range *benchUpdate {
			r.write(r.chance.IntN(*benchPages))
		}
		r.update(b)
	}
	b.SetBytes(int64(*benchPages) * pageSize)
	from, pages := cpu(), 0
	for b.Loop() {
		load(b, r)
		pages += *benchPages
	}
	b.ReportMetric(float64((cpu()-from).Microseconds())/float64(pages), "cpu-µs/page")
}

// BenchmarkCheck measures the part of BenchmarkLoad that finds an intruder's changes:
// each page is read and compared with its digest in the tree. The rest of a load is
// memory for the state, which the kernel has to clear, and the copy into it.
func BenchmarkCheck(b *testing.B) {
	r := newRig(b)
	for n := range *benchPages {
		r.write(n)
	}
	r.update(b)
	b.SetBytes(int64(*benchPages) * pageSize)
	from, pages := cpu(), 0
	for b.Loop() {
		if bad := r.image.Verify(); len(bad) > 0 {
			b.Fatalf("pages %v have not their digests", bad)
		}
		pages += *benchPages
	}
	b.ReportMetric(float64((cpu()-from).Microseconds())/float64(pages), "cpu-µs/page")
}

func load(b *testing.B, r *rig) {
	s, err := fsmerkle.New(fsmerkle.Options{Pages: 1 << 24})
	must(b, err)
	im, err := Open(r.image.fs, r.image.options)
	must(b, err)
	seq, root, _ := im.Checkpoint()
	in, err := s.Install(fsmerkle.Seq(seq), fsmerkle.Digest(root))
	must(b, err)
	if missing := im.Load(installing{in}); len(missing) > 0 || !in.Done() {
		b.Fatal("the image is not whole")
	}
	must(b, in.Commit())
	must(b, im.Close())
	must(b, s.Close())
}
