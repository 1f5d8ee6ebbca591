// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"runtime"
	"testing"
	"time"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// ops makes operations without the codec's allocations counting for the file system.
type ops struct {
	u     *user
	rng   uint64
	clock uint64
}

func (o *ops) operation(proc uint32, args []byte) pbft.Operation {
	o.clock += 1000
	body := nfs3.AppendCall(make([]byte, 0, 64+len(args)),
		&nfs3.Call{Program: nfs3.ProgramNFS, Procedure: proc, Cred: o.u.cred, Args: args})
	return pbft.Operation{
		Client: o.u.client, Rights: o.u.rights, Body: body,
		Choice: binary.BigEndian.AppendUint64(nil, uint64(1_700_000_000*time.Second)+o.clock),
	}
}

func (o *ops) create(dir nfs3.FileHandle, name string) pbft.Operation {
	a := nfs3.CreateArgs{Where: nfs3.DirOp{Dir: dir, Name: []byte(name)}, Mode: nfs3.Guarded,
		Attr: nfs3.Sattr3{SetMode: true, Mode: 0o644}}
	return o.operation(nfs3.ProcCreate, a.Append(nil))
}

func (o *ops) lookup(dir nfs3.FileHandle, name string) pbft.Operation {
	a := nfs3.LookupArgs{What: nfs3.DirOp{Dir: dir, Name: []byte(name)}}
	return o.operation(nfs3.ProcLookup, a.Append(nil))
}

func (o *ops) remove(dir nfs3.FileHandle, name string) pbft.Operation {
	a := nfs3.RemoveArgs{Object: nfs3.DirOp{Dir: dir, Name: []byte(name)}}
	return o.operation(nfs3.ProcRemove, a.Append(nil))
}

func (o *ops) getattr(h nfs3.FileHandle) pbft.Operation {
	a := nfs3.GetattrArgs{Object: h}
	return o.operation(nfs3.ProcGetattr, a.Append(nil))
}

func (o *ops) read(h nfs3.FileHandle, offset uint64, count uint32) pbft.Operation {
	a := nfs3.ReadArgs{File: h, Offset: offset, Count: count}
	return o.operation(nfs3.ProcRead, a.Append(nil))
}

func (o *ops) write(h nfs3.FileHandle, offset uint64, data []byte) pbft.Operation {
	a := nfs3.WriteArgs{File: h, Offset: offset, Stable: nfs3.Unstable, Data: data}
	return o.operation(nfs3.ProcWrite, a.Append(nil))
}

// some is an even spread over 0 to n-1, the same in every run.
func (o *ops) some(n int) int {
	o.rng += 0x9e3779b97f4a7c15
	x := (o.rng ^ o.rng>>31) * 0xbf58476d1ce4e5b9
	return int((x ^ x>>29) % uint64(n))
}

func fileName(i int) string { return fmt.Sprintf("file-%07d", i) }

// run executes an operation that must succeed.
func (o *ops) run(op pbft.Operation) {
	reply, _ := o.u.fs.Execute(op)
	if binary.BigEndian.Uint64(reply) != 0 { // Success, OK
		o.u.t.Fatalf("got reply %x", reply[:8])
	}
}

// A directory of a million entries behaves like a small one. The test makes one, looks
// names up, lists it all, removes a tenth at random and checks every page. It prints the
// cost in time and memory.
func TestMillionEntries(t *testing.T) {
	sizes := []int{1_000, 100_000, 1_000_000}
	if testing.Short() || raceDetector {
		sizes = sizes[:2]
	}
	fs, u := newFS(t, 1<<21)
	o := &ops{u: u}
	empty, made := fs.store.Used(), 0
	for _, size := range sizes {
		const sample = 1000
		lap := func(what string, n int, f func(i int)) {
			start := time.Now()
			for i := range n {
				f(i)
			}
			t.Logf("%8d entries: %-8s %7.0f ns", size, what, float64(time.Since(start).Nanoseconds())/float64(n))
		}
		lap("create", size-made, func(i int) { o.run(o.create(u.root, fileName(made+i))) })
		made = size
		t.Logf("%8d entries: %.0f bytes of pages for each empty file",
			size, float64(fs.store.Used()-empty)*pageSize/float64(size))
		lap("lookup", 10*sample, func(int) { o.run(o.lookup(u.root, fileName(o.some(size)))) })
		lap("remove", sample, func(i int) { o.run(o.remove(u.root, fileName(i*(size/sample)))) })
		lap("create", sample, func(i int) { o.run(o.create(u.root, fileName(i*(size/sample)))) })
	}
	size := sizes[len(sizes)-1]
	if per := uint64(fs.store.Used()-empty) * pageSize / uint64(size); per > 1024 {
		t.Errorf("an empty file takes %d bytes, want <= 1024", per)
	}
	names, cookie := 0, uint64(0)
	for eof := false; !eof; {
		a := nfs3.ReaddirArgs{Dir: u.root, Cookie: cookie, Count: 64 << 10}
		r, err := nfs3.DecodeReaddirResult(u.call(nfs3.ProgramNFS, nfs3.ProcReaddir, a.Append(nil)))
		if err != nil || r.Status != nfs3.OK {
			t.Fatalf("READDIR: %v, %v", r.Status, err)
		}
		names, eof = names+len(r.Entries), r.EOF
		cookie = r.Entries[len(r.Entries)-1].Cookie
	}
	if names != size+2 {
		t.Errorf("listed %d names, want %d", names, size+2)
	}
	for i := 0; i < size; i += 10 {
		o.run(o.remove(u.root, fileName(i)))
	}
	u.check()
}

// A file of 8 GiB, of which a few pages are written, behaves like a small one and takes
// only those pages; removing it is one step.
func TestSparse8GiB(t *testing.T) {
	fs, u := newFS(t, 1<<18)
	o := &ops{u: u}
	free := fs.freeAtAll()
	h := u.create(u.root, "sparse", nfs3.Guarded, nfs3.Sattr3{}).Object.Handle.FileHandle()
	const size = 8 << 30
	if r := u.setattr(h, nfs3.Sattr3{SetSize: true, Size: size}); r.Status != nfs3.OK {
		t.Fatal(r.Status)
	}
	if used := u.getattr(h).Attr.Used; used != 0 {
		t.Errorf("a hole of 8 GiB uses %d bytes", used)
	}
	page := bytes.Repeat([]byte{7}, pageSize)
	const writes = 4000
	offsets := make([]uint64, writes)
	for i := range offsets {
		offsets[i] = uint64(o.some(size/pageSize)) * pageSize
	}
	lap := func(what string, f func(offset uint64)) {
		start := time.Now()
		for _, off := range offsets {
			f(off)
		}
		t.Logf("8 GiB sparse: %-22s %6.0f ns", what, float64(time.Since(start).Nanoseconds())/writes)
	}
	lap("write a page to a hole", func(off uint64) { o.run(o.write(h, off, page)) })
	lap("write it again", func(off uint64) { o.run(o.write(h, off, page)) })
	lap("read it", func(off uint64) { o.run(o.read(h, off, pageSize)) })
	for _, off := range offsets[:100] {
		if _, got := u.read(h, off, pageSize); !bytes.Equal(got, page) {
			t.Fatalf("wrong bytes at %d", off)
		}
	}
	u.check()
	start := time.Now()
	if st := u.remove(u.root, "sparse"); st != nfs3.OK {
		t.Fatal(st)
	}
	t.Logf("8 GiB sparse: remove %v, %d pages wait to be freed and count as free",
		time.Since(start), fs.counter(superOrphanPages))
	if got := fs.freeAtAll(); got != free {
		t.Errorf("%d pages are free, want %d", got, free)
	}
	u.check()
	for fs.counter(superOrphanPages) > 0 {
		o.run(o.create(u.root, fmt.Sprint(fs.counter(superOrphanPages))))
	}
	u.check()
}

// benchSizes are the directories that BenchmarkDirectory compares.
var benchSizes = []int{1_000, 100_000, 1_000_000}

// BenchmarkDirectory is the cost of one call, with its decoding and encoding, in
// directories of several sizes.
func BenchmarkDirectory(b *testing.B) {
	for _, size := range benchSizes {
		_, u := newFS(b, 1<<21)
		o := &ops{u: u}
		for i := range size {
			o.run(o.create(u.root, fileName(i)))
		}
		calls := make([]pbft.Operation, 4096)
		bench := func(name string, make func(i int) pbft.Operation, undo func(i int) pbft.Operation) {
			b.Run(fmt.Sprintf("%s/%d", name, size), func(b *testing.B) {
				b.ReportAllocs()
				for i := 0; i < b.N; i++ {
					at := i % len(calls)
					if at == 0 {
						b.StopTimer()
						if undo != nil && i > 0 {
							for j := range calls {
								u.fs.Execute(undo(j))
							}
						}
						for j := range calls {
							calls[j] = make(j)
						}
						b.StartTimer()
					}
					u.fs.Execute(calls[at])
				}
				b.StopTimer()
				if undo != nil {
					for j := range calls {
						u.fs.Execute(undo(j))
					}
				}
			})
		}
		fresh := func(i int) string { return "new-" + fileName(i) }
		bench("lookup", func(int) pbft.Operation { return o.lookup(u.root, fileName(o.some(size))) }, nil)
		bench("create", func(i int) pbft.Operation { return o.create(u.root, fresh(i)) },
			func(i int) pbft.Operation { return o.remove(u.root, fresh(i)) })
		for i := range calls {
			u.fs.Execute(o.create(u.root, fresh(i)))
		}
		bench("remove", func(i int) pbft.Operation { return o.remove(u.root, fresh(i)) },
			func(i int) pbft.Operation { return o.create(u.root, fresh(i)) })
		runtime.GC()
	}
}

// A call allocates nothing: its arguments, results and reply lie in memory that the next
// call uses again.
func TestCallsDoNotAllocate(t *testing.T) {
	_, u := newFS(t, 1<<10)
	o := &ops{u: u}
	h := u.create(u.root, "file", nfs3.Guarded, nfs3.Sattr3{}).Object.Handle.FileHandle()
	o.run(o.write(h, 0, make([]byte, 4096)))
	for name, op := range map[string]pbft.Operation{
		"GETATTR": o.getattr(h),
		"READ":    o.read(h, 0, 4096),
		"WRITE":   o.write(h, 0, make([]byte, 4096)),
	} {
		if got := testing.AllocsPerRun(100, func() { u.fs.Execute(op) }); got > 0 {
			t.Errorf("%s: got %v allocations, want 0", name, got)
		}
	}
}

// BenchmarkCall is the cost of the other hot calls.
func BenchmarkCall(b *testing.B) {
	_, u := newFS(b, 1<<20)
	u.cred.Groups = []uint32{1, 2, 3}
	o := &ops{u: u}
	h := u.create(u.root, "file", nfs3.Guarded, nfs3.Sattr3{}).Object.Handle.FileHandle()
	big := make([]byte, nfs3.MaxTransfer)
	for off := uint64(0); off < 64<<20; off += uint64(len(big)) {
		o.run(o.write(h, off, big))
	}
	access := nfs3.AccessArgs{Object: h, Access: nfs3.AccessAll}
	for _, x := range []struct {
		name  string
		op    pbft.Operation
		bytes int64
	}{
		{"getattr", o.getattr(h), 0},
		{"access", o.operation(nfs3.ProcAccess, access.Append(nil)), 0},
		{"read-4K", o.read(h, 1<<20, 4096), 4096},
		{"read-1M", o.read(h, 1<<20, 1<<20), 1 << 20},
		{"write-4K", o.write(h, 1<<20, big[:4096]), 4096},
		{"write-4K-unaligned", o.write(h, 1<<20+100, big[:4096]), 4096},
		{"write-1M", o.write(h, 1<<20, big), 1 << 20},
	} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(x.bytes)
			for b.Loop() {
				u.fs.Execute(x.op)
			}
		})
	}
}
