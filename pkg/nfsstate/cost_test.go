// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"testing"

	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// An expensive operation is cheap to send, so its cost must be known before it runs.
type expensive struct {
	name string
	op   pbft.Operation
}

// expensives fills a file system and makes the operations that cost most to run in it.
func expensives(t testing.TB) (fs *FS, all []expensive) {
	fs, u := newFS(t, 1<<18)
	o := &ops{u: u}
	file := u.create(u.root, "file", nfs3.Guarded, nfs3.Sattr3{}).Object.Handle.FileHandle()
	for i := range 4 {
		o.run(o.write(file, uint64(i)<<20, bytes.Repeat([]byte{1}, 1<<20)))
	}
	wide := u.mkdir(u.root, "wide").Object.Handle.FileHandle()
	for i := range 20000 {
		o.run(o.create(wide, fileName(i)))
	}
	// Each name of the path is the last of a directory that is large enough to have an index.
	at, path := u.root, "/export"
	for len(path)+2 <= nfs3.MaxMountPath {
		for i := range 120 {
			o.run(o.create(at, fileName(i)))
		}
		at, path = u.mkdir(at, "d").Object.Handle.FileHandle(), path+"/d"
	}
	u.mkdir(u.mkdir(at, "d").Object.Handle.FileHandle(), "full")
	aside := u.mkdir(u.root, "aside").Object.Handle.FileHandle()
	u.mkdir(aside, "a")
	listing := func(plus bool) pbft.Operation {
		if plus {
			a := nfs3.ReaddirplusArgs{Dir: wide, DirCount: 1 << 20, MaxCount: 1 << 20}
			return o.operation(nfs3.ProcReaddirplus, a.Append(nil))
		}
		a := nfs3.ReaddirArgs{Dir: wide, Count: 1 << 20}
		return o.operation(nfs3.ProcReaddir, a.Append(nil))
	}
	mount := nfs3.MountArgs{Path: []byte(path)}
	mnt := o.operation(0, nil)
	call := nfs3.Call{Program: nfs3.ProgramMount, Procedure: nfs3.MountProcMnt, Cred: u.cred, Args: mount.Append(nil)}
	mnt.Body = nfs3.AppendCall(nil, &call)
	// It is refused after the walk, so that it can be run again: the directory that has
	// the name is not empty.
	from, to := nfs3.DirOp{Dir: aside, Name: []byte("a")}, nfs3.DirOp{Dir: at, Name: []byte("d")}
	rename := nfs3.RenameArgs{From: from, To: to}
	return fs, []expensive{
		{"GETATTR", o.getattr(file)},
		{"LOOKUP", o.lookup(wide, fileName(777))},
		{"READ 4 KiB", o.read(file, 0, 4<<10)},
		{"READ 1 MiB", o.read(file, 0, 1<<20)},
		{"READDIR 1 MiB", listing(false)},
		{"READDIRPLUS 1 MiB", listing(true)},
		{"MNT of the longest path", mnt},
		{"RENAME far below the root", o.operation(nfs3.ProcRename, rename.Append(nil))},
	}
}

// BenchmarkCost measures the constants of cost.go: the cost of each operation, and the
// time of a byte of it.
func BenchmarkCost(b *testing.B) {
	fs, all := expensives(b)
	for _, x := range all {
		b.Run(x.name, func(b *testing.B) {
			cost := fs.Cost(x.op.Body)
			for b.Loop() {
				fs.Execute(x.op)
			}
			b.ReportMetric(float64(cost), "cost")
			if cost > 0 {
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(cost), "ns/cost")
			}
		})
	}
}

// The cost of an operation bounds the length of its result for any arguments, and depends
// only on its bytes.
func TestCost(t *testing.T) {
	fs, all := expensives(t)
	_, empty := newFS(t, 1<<10)
	const common = 4<<10 + 512 // the cost that every operation has
	costs := map[string]int{}
	for _, x := range all {
		cost := fs.Cost(x.op.Body)
		costs[x.name] = cost
		if other := empty.fs.Cost(x.op.Body); other != cost {
			t.Errorf("%s costs %d here, and %d in another state", x.name, cost, other)
		}
		reply, _ := fs.Execute(x.op)
		if len(reply) > cost+len(x.op.Body)+common {
			t.Errorf("%s costs %d, and its result is %d bytes long", x.name, cost, len(reply))
		}
	}
	for _, pair := range [][2]string{{"READ 4 KiB", "READ 1 MiB"}, {"READ 1 MiB", "READDIRPLUS 1 MiB"},
		{"LOOKUP", "MNT of the longest path"},
		{"LOOKUP", "RENAME far below the root"}} {
		if costs[pair[0]] >= costs[pair[1]] {
			t.Errorf("%s costs %d, and %s %d", pair[0], costs[pair[0]], pair[1], costs[pair[1]])
		}
	}
	for name, body := range map[string][]byte{
		"nothing":               nil,
		"a truncated READ":      all[3].op.Body[:40],
		"a READ and more":       append(bytes.Clone(all[3].op.Body), 0),
		"an unknown program":    nfs3.AppendCall(nil, &nfs3.Call{Program: 1, Procedure: nfs3.ProcRead}),
		"a RENAME in one place": renameWithin(),
	} {
		if cost := fs.Cost(body); cost != 0 {
			t.Errorf("%s costs %d, want 0", name, cost)
		}
	}
	huge := nfs3.ReadArgs{File: nfs3.FileHandle{1, 2, 3, 4}, Count: 1<<32 - 1}
	call := nfs3.Call{Program: nfs3.ProgramNFS, Procedure: nfs3.ProcRead, Args: huge.Append(nil)}
	if cost := fs.Cost(nfs3.AppendCall(nil, &call)); cost != nfs3.MaxTransfer {
		t.Errorf("a READ of 4 GiB costs %d, and has a result of %d at most", cost, nfs3.MaxTransfer)
	}
}

// renameWithin is a RENAME within one directory, which walks nowhere.
func renameWithin() []byte {
	dir := nfs3.FileHandle{1, 2, 3, 4}
	a := nfs3.RenameArgs{From: nfs3.DirOp{Dir: dir, Name: []byte("a")}, To: nfs3.DirOp{Dir: dir, Name: []byte("b")}}
	return nfs3.AppendCall(nil, &nfs3.Call{Program: nfs3.ProgramNFS, Procedure: nfs3.ProcRename, Args: a.Append(nil)})
}
