// SPDX-License-Identifier: Apache-2.0

package model

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"strings"

	"bfs/pkg/nfs3"
)

// A Workload makes calls as badly behaved clients would: mostly sensible ones on files it
// has learnt of, and then handles of files that are gone or never were, names that may
// not be, sizes at every edge, and garbage. It sees replies and nothing else. Equal seeds
// and replies give equal calls.
type Workload struct {
	Clients int      // calls come from clients 0 to Clients-1
	Paths   []string // of exports, for MNT

	r      *rand.Rand
	live   []known // learnt of, and not yet found to be gone
	stale  []known // gone
	byName map[nfs3.Handle]int
	roots  []nfs3.Handle
}

// known is a workload's record of a file.
type known struct {
	handle nfs3.Handle
	kind   nfs3.FileType
	ctime  nfs3.Time3
	cookie uint64 // some cookie of a directory
}

// Bounds of a workload's memory.
const (
	maxLive  = 400
	maxStale = 50
)

// NewWorkload begins with the given directories, which are never forgotten.
func NewWorkload(seed uint64, clients int, roots []nfs3.Handle, paths []string) *Workload {
	w := &Workload{
		Clients: clients, Paths: paths,
		r: rand.New(rand.NewPCG(seed, 1813)), byName: map[nfs3.Handle]int{}, roots: roots,
	}
	for _, h := range roots {
		w.learn(h, nfs3.Fattr3{Type: nfs3.TypeDir})
	}
	return w
}

// A step is a kind of call and how often it comes.
type step struct {
	weight    int
	procedure uint32
	make      func(*Workload) interface{ Append([]byte) []byte }
}

var steps = []step{
	{1, nfs3.ProcNull, func(*Workload) interface{ Append([]byte) []byte } { return void{} }},
	{4, nfs3.ProcGetattr, (*Workload).getattr},
	{8, nfs3.ProcSetattr, (*Workload).setattr},
	{10, nfs3.ProcLookup, (*Workload).lookup},
	{4, nfs3.ProcAccess, (*Workload).access},
	{3, nfs3.ProcReadlink, (*Workload).readlink},
	{8, nfs3.ProcRead, (*Workload).read},
	{12, nfs3.ProcWrite, (*Workload).write},
	{14, nfs3.ProcCreate, (*Workload).create},
	{8, nfs3.ProcMkdir, (*Workload).mkdir},
	{4, nfs3.ProcSymlink, (*Workload).symlink},
	{4, nfs3.ProcMknod, (*Workload).mknod},
	{7, nfs3.ProcRemove, (*Workload).remove},
	{5, nfs3.ProcRmdir, (*Workload).rmdir},
	{10, nfs3.ProcRename, (*Workload).rename},
	{6, nfs3.ProcLink, (*Workload).link},
	{6, nfs3.ProcReaddir, (*Workload).readdir},
	{6, nfs3.ProcReaddirplus, (*Workload).readdirplus},
	{1, nfs3.ProcFsstat, (*Workload).fsstat},
	{1, nfs3.ProcFsinfo, (*Workload).fsinfo},
	{1, nfs3.ProcPathconf, (*Workload).pathconf},
	{2, nfs3.ProcCommit, (*Workload).commit},
}

// Next makes a call, and says which client makes it.
func (w *Workload) Next() (client int, c nfs3.Call) {
	c = nfs3.Call{Program: nfs3.ProgramNFS, Cred: w.credentials()}
	switch w.r.IntN(60) {
	case 0:
		c.Program, c.Procedure, c.Args = nfs3.ProgramMount, w.r.Uint32N(7), w.mount()
	case 1:
		c.Procedure, c.Args = 22+w.r.Uint32N(1000), w.bytes(30)
	default:
		s := w.step()
		c.Procedure, c.Args = s.procedure, s.make(w).Append(nil)
	}
	if w.oneIn(60) {
		c.Args = w.spoil(c.Args)
	}
	return w.r.IntN(w.Clients), c
}

func (w *Workload) step() step {
	total := 0
	for _, s := range steps {
		total += s.weight
	}
	n := w.r.IntN(total)
	for _, s := range steps {
		if n -= s.weight; n < 0 {
			return s
		}
	}
	panic("weights do not add up")
}

func (w *Workload) oneIn(n int) bool { return w.r.IntN(n) == 0 }

func pick[T any](w *Workload, from ...T) T { return from[w.r.IntN(len(from))] }

func (w *Workload) bytes(most int) []byte {
	b := make([]byte, w.r.IntN(most+1))
	for i := range b {
		b[i] = byte(w.r.Uint32())
	}
	return b
}

// spoil makes arguments that are not.
func (w *Workload) spoil(b []byte) []byte {
	switch {
	case w.oneIn(3) || len(b) == 0:
		return append(b, w.bytes(8)...)
	case w.oneIn(2):
		return b[:w.r.IntN(len(b))]
	}
	b = bytes.Clone(b)
	b[w.r.IntN(min(len(b), 200))] ^= 1 << w.r.IntN(8)
	return b
}

func (w *Workload) credentials() nfs3.Credentials {
	if w.oneIn(30) {
		return nfs3.Credentials{None: true}
	}
	c := nfs3.Credentials{UID: pick[uint32](w, 0, 0, 0, 0, 0, 1000, 1000, 1001, 1002),
		GID: pick[uint32](w, 0, 100, 100, 101)}
	if w.oneIn(30) {
		c.UID = 1<<32 - 1
	}
	for w.oneIn(2) && len(c.Groups) < nfs3.MaxGroups {
		c.Groups = append(c.Groups, pick[uint32](w, 0, 100, 101, 102, 1<<32-1))
	}
	return c
}

// Handles.

// any is a handle of some file, or of none.
func (w *Workload) any() nfs3.FileHandle {
	switch w.r.IntN(80) {
	case 0:
		return w.bytes(nfs3.MaxFileHandle)
	case 1:
		h := w.pick(0).handle
		switch w.r.IntN(3) {
		case 0:
			h.Generation += w.r.Uint32N(3)
		case 1:
			h.Inode += w.r.Uint64N(1 << 34)
		default:
			h.Export += w.r.Uint32N(3)
		}
		return h.FileHandle()
	case 2:
		if len(w.stale) > 0 {
			return pick(w, w.stale...).handle.FileHandle()
		}
	}
	return w.pick(0).handle.FileHandle()
}

// of is mostly a handle of a file of the kind.
func (w *Workload) of(kind nfs3.FileType) nfs3.FileHandle {
	if w.oneIn(20) {
		return w.any()
	}
	return w.pick(kind).handle.FileHandle()
}

// pick is a live file of the kind, if one is soon found; roots are likely.
func (w *Workload) pick(kind nfs3.FileType) known {
	k := w.live[w.r.IntN(len(w.live))]
	for range 40 {
		if kind == 0 || k.kind == kind {
			break
		}
		k = w.live[w.r.IntN(len(w.live))]
	}
	if kind == nfs3.TypeDir && w.oneIn(4) {
		k = w.live[w.byName[pick(w, w.roots...)]]
	}
	return k
}

// Names.

var longName = strings.Repeat("n", nfs3.MaxName)

func (w *Workload) name() []byte {
	switch w.r.IntN(60) {
	case 0:
		return []byte(pick(w, "", ".", "..", "/", "a/b", "nul\x00", longName, longName+"n", "\xff\xfe", " "))
	case 1:
		return w.bytes(12)
	}
	return []byte(pick(w, "a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "Makefile", "a longer name"))
}

// dirOp is a name in a directory. The first root is crowded.
func (w *Workload) dirOp() nfs3.DirOp {
	if w.oneIn(6) {
		return nfs3.DirOp{Dir: w.roots[0].FileHandle(),
			Name: fmt.Appendf(nil, "%0*d", 1+w.r.IntN(2)*60, w.r.IntN(1000))}
	}
	return nfs3.DirOp{Dir: w.of(nfs3.TypeDir), Name: w.name()}
}

// Numbers.

// size is a size or an offset, at an edge of the layout or beyond all.
func (w *Workload) size() uint64 {
	switch w.r.IntN(12) {
	case 0:
		return pick[uint64](w, nfs3.MaxFileSize, nfs3.MaxFileSize+1, nfs3.MaxFileSize-1, nfs3.MaxFileSize-pageSize,
			1<<63, 1<<64-1, 1<<64-100)
	case 1:
		return w.r.Uint64N(1 << w.r.IntN(44))
	case 2, 3, 4:
		return pageSize*pick[uint64](w, 1, 2, 11, 12, 13, 1024, 12+1024, 1<<20, 1<<30) - 2 + w.r.Uint64N(5)
	}
	return w.r.Uint64N(5 * pageSize)
}

func (w *Workload) count() uint32 {
	switch w.r.IntN(10) {
	case 0:
		return pick[uint32](w, 0, nfs3.MaxTransfer, nfs3.MaxTransfer+1, 1<<32-1)
	case 1, 2, 3:
		return pageSize
	}
	return w.r.Uint32N(3 * pageSize)
}

func (w *Workload) data() []byte {
	if w.oneIn(10) {
		return nil
	}
	n := 1 + w.r.IntN(2*pageSize)
	if w.oneIn(200) {
		n = 1 + w.r.IntN(nfs3.MaxTransfer)
	}
	if w.oneIn(4) {
		n = min((n+pageSize-1)&^(pageSize-1), nfs3.MaxTransfer) // whole pages, if it begins where one does
	}
	return bytes.Repeat([]byte{byte(1 + w.r.IntN(255))}, n)
}

func (w *Workload) mode() uint32 {
	return pick[uint32](w, 0, 0o777, 0o755, 0o755, 0o644, 0o700, 0o070, 0o007, 0o4755, 0o6711, 0o2775, 0o2644, 0o1777,
		0o7777, 0o100644, 1<<31|0o640)
}

func (w *Workload) time() nfs3.Time3 {
	t := nfs3.Time3{Seconds: w.r.Uint32(), Nanoseconds: w.r.Uint32N(1e9)}
	if w.oneIn(20) {
		t.Nanoseconds = 1e9 + w.r.Uint32N(3e9)
	}
	return t
}

func (w *Workload) setTime() nfs3.SetTime {
	t := nfs3.SetTime{How: pick(w, nfs3.DontChange, nfs3.DontChange, nfs3.SetToServerTime, nfs3.SetToClientTime)}
	if t.How == nfs3.SetToClientTime {
		t.Time = w.time()
	}
	return t
}

// sattr sets each attribute in one of rare calls.
func (w *Workload) sattr(rare int) (s nfs3.Sattr3) {
	if s.SetMode = !w.oneIn(4); s.SetMode {
		s.Mode = w.mode()
	}
	if s.SetUID = w.oneIn(rare); s.SetUID {
		s.UID = pick[uint32](w, 0, 1000, 1001, 65534, 1<<32-1)
	}
	if s.SetGID = w.oneIn(rare); s.SetGID {
		s.GID = pick[uint32](w, 0, 100, 101, 102, 1<<32-1)
	}
	if s.SetSize = w.oneIn(rare); s.SetSize {
		s.Size = w.size()
	}
	if w.oneIn(rare) {
		s.Atime, s.Mtime = w.setTime(), w.setTime()
	}
	return s
}

// The procedures' arguments.

type arguments = interface{ Append([]byte) []byte }

func (w *Workload) getattr() arguments { return &nfs3.GetattrArgs{Object: w.any()} }

func (w *Workload) setattr() arguments {
	k := w.pick(pick[nfs3.FileType](w, 0, nfs3.TypeReg, nfs3.TypeReg))
	a := nfs3.SetattrArgs{Object: k.handle.FileHandle(), New: w.sattr(3)}
	if w.oneIn(3) {
		a.New.SetMode, a.New.Mode = false, 0
	}
	if w.oneIn(8) {
		a.New = nfs3.Sattr3{}
	}
	if w.oneIn(6) {
		a.Guard = nfs3.SetattrGuard{Check: true, Ctime: k.ctime}
	}
	if w.oneIn(20) {
		a.Object = w.any()
	}
	return &a
}

func (w *Workload) lookup() arguments {
	a := nfs3.LookupArgs{What: w.dirOp()}
	if w.oneIn(10) {
		a.What.Name = []byte(pick(w, ".", ".."))
	}
	return &a
}

func (w *Workload) access() arguments {
	return &nfs3.AccessArgs{Object: w.any(), Access: pick[uint32](w, nfs3.AccessAll, w.r.Uint32())}
}

func (w *Workload) readlink() arguments { return &nfs3.ReadlinkArgs{Symlink: w.of(nfs3.TypeLnk)} }

func (w *Workload) read() arguments {
	return &nfs3.ReadArgs{File: w.of(nfs3.TypeReg), Offset: w.size(), Count: w.count()}
}

func (w *Workload) write() arguments {
	return &nfs3.WriteArgs{File: w.of(nfs3.TypeReg), Offset: w.size(),
		Stable: nfs3.StableHow(w.r.Uint32N(3)), Data: w.data()}
}

func (w *Workload) create() arguments {
	a := nfs3.CreateArgs{Where: w.dirOp(), Mode: nfs3.CreateMode(w.r.Uint32N(3))}
	if a.Mode == nfs3.Exclusive {
		a.Verifier[7] = byte(w.r.IntN(3))
	} else {
		a.Attr = w.sattr(12)
	}
	return &a
}

func (w *Workload) mkdir() arguments { return &nfs3.MkdirArgs{Where: w.dirOp(), Attr: w.sattr(15)} }

func (w *Workload) symlink() arguments {
	n := pick(w, 0, 1, 20, 100, 200, 500, nfs3.MaxPath, nfs3.MaxPath+1)
	if n == nfs3.MaxPath+1 && !w.oneIn(5) {
		n = 103 + w.r.IntN(3)
	}
	text := bytes.Repeat([]byte("t"), n)
	if n > 0 && w.oneIn(15) {
		text[w.r.IntN(n)] = 0
	}
	return &nfs3.SymlinkArgs{Where: w.dirOp(), Attr: w.sattr(15), Path: text}
}

func (w *Workload) mknod() arguments {
	a := nfs3.MknodArgs{Where: w.dirOp(), Type: nfs3.FileType(1 + w.r.Uint32N(7))}
	a.Attr = w.sattr(15)
	a.Spec = nfs3.SpecData3{Major: w.r.Uint32N(300), Minor: w.r.Uint32N(1 << 20)}
	if w.oneIn(8) {
		a.Spec = pick(w, nfs3.SpecData3{Major: 1<<12 - 1, Minor: 1<<20 - 1}, nfs3.SpecData3{Major: 1 << 12},
			nfs3.SpecData3{Minor: 1 << 20})
	}
	return &a
}

func (w *Workload) remove() arguments { return &nfs3.RemoveArgs{Object: w.dirOp()} }
func (w *Workload) rmdir() arguments  { return &nfs3.RmdirArgs{Object: w.dirOp()} }

func (w *Workload) rename() arguments {
	a := nfs3.RenameArgs{From: w.dirOp(), To: w.dirOp()}
	if w.oneIn(3) {
		a.To.Dir = a.From.Dir
	}
	return &a
}

func (w *Workload) link() arguments {
	return &nfs3.LinkArgs{File: w.of(nfs3.TypeReg), Link: w.dirOp()}
}

// cookie is 0, one that was seen, or one that was not.
func (w *Workload) cookie(k known) uint64 {
	switch w.r.IntN(20) {
	case 0:
		return pick[uint64](w, 1, 2, 3, 1<<40, 1<<63-1, 1<<63, 1<<64-1)
	case 1, 2, 3, 4, 5, 6:
		return k.cookie
	case 7:
		return k.cookie + w.r.Uint64N(4)
	}
	return 0
}

// room is a size for a listing: too small, just enough for some, or enough.
func (w *Workload) room() uint32 {
	switch w.r.IntN(6) {
	case 0:
		return w.r.Uint32N(300)
	case 1:
		return pick[uint32](w, 0, nfs3.MaxTransfer+1, 1<<32-1)
	case 2:
		return pageSize
	}
	return 100 + w.r.Uint32N(3000)
}

func (w *Workload) dirVerifier() (v nfs3.Verifier) {
	if w.oneIn(50) {
		v[w.r.IntN(8)] = 1
	}
	return v
}

func (w *Workload) readdir() arguments {
	k := w.pick(nfs3.TypeDir)
	a := nfs3.ReaddirArgs{Dir: k.handle.FileHandle(), Cookie: w.cookie(k), Verifier: w.dirVerifier(), Count: w.room()}
	if w.oneIn(25) {
		a.Dir = w.any()
	}
	return &a
}

func (w *Workload) readdirplus() arguments {
	k := w.pick(nfs3.TypeDir)
	return &nfs3.ReaddirplusArgs{
		Dir: k.handle.FileHandle(), Cookie: w.cookie(k), Verifier: w.dirVerifier(),
		DirCount: w.room(), MaxCount: w.room(),
	}
}

func (w *Workload) fsstat() arguments   { return &nfs3.FsstatArgs{Root: w.any()} }
func (w *Workload) fsinfo() arguments   { return &nfs3.FsinfoArgs{Root: w.any()} }
func (w *Workload) pathconf() arguments { return &nfs3.PathconfArgs{Object: w.any()} }

func (w *Workload) commit() arguments {
	return &nfs3.CommitArgs{File: w.of(nfs3.TypeReg), Offset: w.size(), Count: w.count()}
}

// mount returns a path, for any procedure of MOUNT.
func (w *Workload) mount() []byte {
	p := pick(w, w.Paths...)
	for w.oneIn(2) {
		p += "/" + string(w.name())
	}
	switch w.r.IntN(10) {
	case 0:
		p = pick(w, "", "/", "//", "export", p+"/", "/"+p, "/none", strings.Repeat("p", 1000), p+"x")
	case 1:
		return nil
	}
	return (&nfs3.MountArgs{Path: []byte(p[:min(len(p), nfs3.MaxMountPath)])}).Append(nil)
}

// Learning.

// Learn takes the files that a reply mentions into the workload's memory.
func (w *Workload) Learn(c nfs3.Call, results []byte) {
	if c.Program != nfs3.ProgramNFS {
		return
	}
	switch c.Procedure {
	case nfs3.ProcLookup:
		if r, err := nfs3.DecodeLookupResult(results); err == nil && r.Status == nfs3.OK {
			w.learn(r.Object, r.Attr.Attr)
		}
	case nfs3.ProcCreate, nfs3.ProcMkdir, nfs3.ProcSymlink, nfs3.ProcMknod:
		if r, err := nfs3.DecodeCreateResult(results); err == nil && r.Status == nfs3.OK {
			w.learn(r.Object.Handle, r.Attr.Attr)
		}
	case nfs3.ProcReaddirplus:
		if r, err := nfs3.DecodeReaddirplusResult(results); err == nil && r.Status == nfs3.OK {
			for _, e := range r.Entries {
				w.learn(e.Handle.Handle, e.Attr.Attr)
			}
			if n := len(r.Entries); n > 0 {
				w.sawCookie(c, r.Entries[w.r.IntN(n)].Cookie)
			}
		}
	case nfs3.ProcReaddir:
		if r, err := nfs3.DecodeReaddirResult(results); err == nil && len(r.Entries) > 0 {
			w.sawCookie(c, r.Entries[w.r.IntN(len(r.Entries))].Cookie)
		}
	case nfs3.ProcGetattr:
		r, err := nfs3.DecodeGetattrResult(results)
		a, _ := nfs3.DecodeGetattrArgs(c.Args)
		if h, ok := a.Object.Parse(); ok && err == nil && r.Status == nfs3.OK {
			w.learn(h, r.Attr)
		} else if ok && r.Status == nfs3.ErrStale {
			w.forget(h)
		}
	}
}

func (w *Workload) learn(h nfs3.Handle, a nfs3.Fattr3) {
	if i, ok := w.byName[h]; ok {
		w.live[i].ctime = a.Ctime
		return
	}
	if len(w.live) >= maxLive {
		w.forget(w.live[w.r.IntN(len(w.live))].handle)
	}
	w.byName[h] = len(w.live)
	w.live = append(w.live, known{handle: h, kind: a.Type, ctime: a.Ctime})
}

// forget moves a file to those that are gone, unless it is a root.
func (w *Workload) forget(h nfs3.Handle) {
	i, ok := w.byName[h]
	if !ok || i < len(w.roots) {
		return
	}
	if len(w.stale) >= maxStale {
		w.stale = w.stale[1:]
	}
	w.stale = append(w.stale, w.live[i])
	last := len(w.live) - 1
	w.live[i] = w.live[last]
	w.byName[w.live[i].handle] = i
	w.live = w.live[:last]
	delete(w.byName, h)
}

func (w *Workload) sawCookie(c nfs3.Call, cookie uint64) {
	a, err := nfs3.DecodeReaddirArgs(c.Args)
	fh := a.Dir
	if c.Procedure == nfs3.ProcReaddirplus {
		var p nfs3.ReaddirplusArgs
		p, err = nfs3.DecodeReaddirplusArgs(c.Args)
		fh = p.Dir
	}
	if h, ok := fh.Parse(); ok && err == nil {
		if i, ok := w.byName[h]; ok {
			w.live[i].cookie = cookie
		}
	}
}

// Stale tells the workload that a handle is no longer valid. The caller may look for such
// handles among Live, so that most calls meet existing files.
func (w *Workload) Stale(h nfs3.Handle) { w.forget(h) }

// Some is a file that the workload believes alive.
func (w *Workload) Some() nfs3.Handle { return w.pick(0).handle }
