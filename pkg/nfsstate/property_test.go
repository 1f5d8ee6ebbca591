// SPDX-License-Identifier: Apache-2.0

package nfsstate_test

import (
	"bytes"
	"encoding/binary"
	"flag"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/nfsstate"
	"bfs/pkg/nfsstate/internal/model"
	"bfs/pkg/pbft"
)

var (
	seedFlag  = flag.Uint64("model.seed", 0, "run the model test with this seed only")
	opsFlag   = flag.Int("model.ops", 20_000, "operations of one run of the model test")
	seedsFlag = flag.Int("model.seeds", 2, "how many seeds the model test runs, from 1 on")
)

const (
	testPages    = 1 << 16
	testReserved = 4
	testEpoch    = 7
	checkEvery   = 1000 // operations between walks over the whole state
)

// exports of all tests here: plenty, a few pages, a few files.
var exports = []nfsstate.Export{
	{Name: "big", Mode: 0o777},
	{Name: "home", Mode: 0o1777, UID: 1000, GID: 100},
	{Name: "narrow", Mode: 0o777, QuotaBytes: 60 * pbft.PageSize, QuotaInodes: 40},
}

// principals are the clients of all tests here. The first ones, which have most rights, come often.
var principals = []nfsstate.Rights{
	{Grants: []nfsstate.Grant{{Export: 1}, {Export: 2}, {Export: 3}}},
	{Grants: []nfsstate.Grant{{Export: 1}, {Export: 2}, {Export: 3}}},
	{Grants: []nfsstate.Grant{{Export: 1}, {Export: 2}, {Export: 3}}},
	{Grants: []nfsstate.Grant{
		{Export: 1, Squash: nfsstate.SquashRoot, AnonUID: nfsstate.Nobody, AnonGID: nfsstate.Nobody},
		{Export: 2, Squash: nfsstate.SquashAll, AnonUID: 1001, AnonGID: 101},
		{Export: 3},
	}},
	{Grants: []nfsstate.Grant{
		{Export: 1, ReadOnly: true},
		{Export: 2, AnonUID: 5, AnonGID: 6,
			UIDs: []nfsstate.IDRange{{From: 0, To: 1000, Count: 1}, {From: 1000, To: 0, Count: 2}},
			GIDs: []nfsstate.IDRange{{From: 100, To: 100, Count: 2}}},
	}},
	{Expires: 1, Grants: []nfsstate.Grant{{Export: 1}}},
}

// as is how the exports see a user of a client: squash and maps, said again.
func as(r *nfsstate.Rights, cred nfs3.Credentials) model.Caller {
	c := model.Caller{}
	for _, g := range r.Grants {
		if r.Expires != 0 {
			continue // no test waits for it: it is over or never
		}
		id := func(id, anonymous uint32, ranges []nfsstate.IDRange) uint32 {
			if g.Squash == nfsstate.SquashAll || id == 0 && g.Squash == nfsstate.SquashRoot || id == 1<<32-1 {
				return anonymous
			}
			for _, m := range ranges {
				if id >= m.From && uint64(id) < uint64(m.From)+uint64(m.Count) {
					return id - m.From + m.To
				}
			}
			if len(ranges) > 0 {
				return anonymous
			}
			return id
		}
		back := func(id uint32, ranges []nfsstate.IDRange) uint32 {
			for _, m := range ranges {
				if id >= m.To && uint64(id) < uint64(m.To)+uint64(m.Count) {
					return id - m.To + m.From
				}
			}
			if len(ranges) > 0 {
				return nfsstate.Nobody
			}
			return id
		}
		a := model.Access{
			UID: id(cred.UID, g.AnonUID, g.UIDs), GID: id(cred.GID, g.AnonGID, g.GIDs), ReadOnly: g.ReadOnly,
			UserIn:   func(u uint32) uint32 { return id(u, g.AnonUID, g.UIDs) },
			UserOut:  func(u uint32) uint32 { return back(u, g.UIDs) },
			GroupIn:  func(u uint32) uint32 { return id(u, g.AnonGID, g.GIDs) },
			GroupOut: func(u uint32) uint32 { return back(u, g.GIDs) },
		}
		if cred.None {
			a.UID, a.GID = g.AnonUID, g.AnonGID
		}
		for _, group := range cred.Groups {
			a.Groups = append(a.Groups, id(group, g.AnonGID, g.GIDs))
		}
		c[g.Export] = a
	}
	return c
}

// A subject is a file system with a clock in our hand.
type subject struct {
	*nfsstate.FS
	store *fsmerkle.Store
	now   time.Time
}

func newSubject(t testing.TB, pages uint64) *subject {
	t.Helper()
	s := &subject{store: bareStore(t, pages), now: time.Unix(800_000_000, 0)}
	s.FS = overStore(t, s.store, pages, func() time.Time { return s.now })
	return s
}

func bareStore(t testing.TB, pages uint64) *fsmerkle.Store {
	t.Helper()
	store, err := fsmerkle.New(fsmerkle.Options{Pages: fsmerkle.PageNum(pages)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := store.Close(); err != nil {
			t.Error(err)
		}
	})
	return store
}

func overStore(t testing.TB, store *fsmerkle.Store, pages uint64, now func() time.Time) *nfsstate.FS {
	t.Helper()
	fs, err := nfsstate.New(store, nfsstate.Config{
		Pages: pages, Reserved: testReserved, Inodes: pages / 4, Epoch: testEpoch, Exports: exports, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// operation is a call as the library would hand it on.
func operation(client int, call *nfs3.Call, choice []byte) pbft.Operation {
	return pbft.Operation{
		Client: pbft.ClientID(100 + client), Rights: principals[client].Append(nil), Choice: choice,
		Body: nfs3.AppendCall(nil, call),
	}
}

// roots mounts the exports.
func (s *subject) roots(t testing.TB) (roots []nfs3.Handle, paths []string) {
	t.Helper()
	for _, x := range exports {
		paths = append(paths, "/"+x.Name)
		call := nfs3.Call{Program: nfs3.ProgramMount, Procedure: nfs3.MountProcMnt,
			Args: (&nfs3.MountArgs{Path: []byte("/" + x.Name)}).Append(nil)}
		reply, ok := s.Query(operation(0, &call, nil))
		if !ok || len(reply) < 4 {
			t.Fatalf("MNT %s: got %x, %v", x.Name, reply, ok)
		}
		r, err := nfs3.DecodeMountResult(reply[4:])
		if err != nil || r.Status != nfs3.MountOK || !slices.Equal(r.Flavors, []uint32{nfs3.AuthSys}) {
			t.Fatalf("MNT %s: got %+v, %v", x.Name, r, err)
		}
		roots = append(roots, r.Handle)
	}
	return roots, paths
}

// A duel runs operations through the file system and through the model.
type duel struct {
	t       *testing.T
	fs      *subject
	m       *model.Model
	w       *model.Workload
	clock   uint64               // the model's, in nanoseconds
	given   map[nfs3.Handle]bool // handles of all files that ever were
	seed    uint64
	ops     int
	what    map[string]int // statuses met, by procedure
	refused map[nfs3.Status]int
}

func newDuel(t *testing.T, seed uint64, pages uint64) *duel {
	d := &duel{t: t, fs: newSubject(t, pages), m: model.New(), given: map[nfs3.Handle]bool{}, seed: seed,
		what: map[string]int{}, refused: map[nfs3.Status]int{}}
	roots, paths := d.fs.roots(t)
	for i, h := range roots {
		x := exports[i]
		d.m.AddExport(x.Name, h, nfs3.Fattr3{Type: nfs3.TypeDir, Mode: x.Mode, Nlink: 2, UID: x.UID, GID: x.GID})
		d.given[h] = true
	}
	d.m.Linkmax, d.m.Dtpref, d.m.MaxListing = 1<<30, 64<<10, nfs3.MaxTransfer
	binary.BigEndian.PutUint64(d.m.Verifier[:], testEpoch)
	d.w = model.NewWorkload(seed, len(principals), roots, paths)
	return d
}

// step runs one operation and compares.
func (d *duel) step() {
	client, call := d.w.Next()
	op := operation(client, &call, nil)
	d.fs.now = d.fs.now.Add(pickPause(d.ops))
	op.Choice = d.fs.Choose(0)
	d.ops++
	if d.ops%50 == 0 {
		op.Choice = op.Choice[:d.ops/50%9] // no honest primary sends such
	}
	op = nfsstate.Digested(op, d.ops%5)
	now := max(proposal(op.Choice), d.clock+1)

	if queried, ok := d.fs.Query(op); ok {
		executed, wrote := d.fs.Execute(op)
		if wrote || !bytes.Equal(queried, executed) {
			d.fail(client, &call, "Execute of a read: wrote %v, got\n%x\nand of Query\n%x", wrote, executed, queried)
		}
		d.compare(client, &call, queried)
		return
	}
	reply, wrote := d.fs.Execute(op)
	if wrote {
		d.clock = now
	}
	d.m.Now = nfs3.Time3{Seconds: uint32(now / 1e9), Nanoseconds: uint32(now % 1e9)}
	d.compare(client, &call, reply)
}

// proposal is the time that a choice stands for, 0 for none.
func proposal(choice []byte) uint64 {
	if len(choice) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(choice)
}

// pickPause lets the clock run, stand, jump and run backwards.
func pickPause(i int) time.Duration {
	switch i % 11 {
	case 0:
		return 0
	case 1:
		return -3 * time.Millisecond
	case 2:
		return time.Hour
	}
	return 7 * time.Millisecond
}

// compare asks the model and compares every byte.
func (d *duel) compare(client int, call *nfs3.Call, reply []byte) {
	stat, got, err := nfs3.ParseReply(reply)
	if err != nil {
		d.fail(client, call, "%v", err)
	}
	who := as(&principals[client], call.Cred)
	d.prepare(call, stat, got)
	want, wantStat := d.m.Call(who, call)
	if stat != wantStat {
		d.fail(client, call, "got accept status %d, want %d", stat, wantStat)
	}
	if stat != nfs3.Success {
		d.what[fmt.Sprintf("accept %d", stat)]++
		return
	}
	if call.Program == nfs3.ProgramNFS {
		d.compareResults(client, call, got, want)
	} else if wire := want.Append(nil); !bytes.Equal(got, wire) {
		d.fail(client, call, "got  %x\nwant %x", got, wire)
	}
	d.w.Learn(*call, got)
	d.forgetSome()
	if d.ops%checkEvery == 0 {
		if err := d.fs.Check(); err != nil {
			d.fail(client, call, "the state is not in order: %v", err)
		}
	}
}

// prepare tells the model the facts that only the layout decides: a new file's handle,
// and that there is no room.
func (d *duel) prepare(call *nfs3.Call, stat nfs3.AcceptStat, results []byte) {
	d.m.Full, d.m.NewHandle = nfs3.OK, func() nfs3.Handle { return nfs3.Handle{} }
	if call.Program != nfs3.ProgramNFS || stat != nfs3.Success || len(results) < 4 {
		return
	}
	if s := nfs3.Status(binary.BigEndian.Uint32(results)); s == nfs3.ErrNoSpc || s == nfs3.ErrDQuot {
		d.m.Full = s
	}
	switch call.Procedure {
	case nfs3.ProcCreate, nfs3.ProcMkdir, nfs3.ProcSymlink, nfs3.ProcMknod:
		r, err := nfs3.DecodeCreateResult(results)
		if err != nil || r.Status != nfs3.OK {
			return
		}
		h := r.Object.Handle
		d.m.NewHandle = func() nfs3.Handle {
			if d.given[h] || h.Inode == 0 {
				d.t.Errorf("handle %+v is given again", h)
			}
			d.given[h] = true
			return h
		}
	}
}

// decoders of results, by procedure.
var decoders = map[uint32]func([]byte) (appender, error){
	nfs3.ProcGetattr:     decoder(nfs3.DecodeGetattrResult),
	nfs3.ProcSetattr:     decoder(nfs3.DecodeSetattrResult),
	nfs3.ProcLookup:      decoder(nfs3.DecodeLookupResult),
	nfs3.ProcAccess:      decoder(nfs3.DecodeAccessResult),
	nfs3.ProcReadlink:    decoder(nfs3.DecodeReadlinkResult),
	nfs3.ProcRead:        decoder(nfs3.DecodeReadResult),
	nfs3.ProcWrite:       decoder(nfs3.DecodeWriteResult),
	nfs3.ProcCreate:      decoder(nfs3.DecodeCreateResult),
	nfs3.ProcMkdir:       decoder(nfs3.DecodeMkdirResult),
	nfs3.ProcSymlink:     decoder(nfs3.DecodeSymlinkResult),
	nfs3.ProcMknod:       decoder(nfs3.DecodeMknodResult),
	nfs3.ProcRemove:      decoder(nfs3.DecodeRemoveResult),
	nfs3.ProcRmdir:       decoder(nfs3.DecodeRmdirResult),
	nfs3.ProcRename:      decoder(nfs3.DecodeRenameResult),
	nfs3.ProcLink:        decoder(nfs3.DecodeLinkResult),
	nfs3.ProcReaddir:     decoder(nfs3.DecodeReaddirResult),
	nfs3.ProcReaddirplus: decoder(nfs3.DecodeReaddirplusResult),
	nfs3.ProcFsstat:      decoder(nfs3.DecodeFsstatResult),
	nfs3.ProcFsinfo:      decoder(nfs3.DecodeFsinfoResult),
	nfs3.ProcPathconf:    decoder(nfs3.DecodePathconfResult),
	nfs3.ProcCommit:      decoder(nfs3.DecodeCommitResult),
}

type appender interface{ Append([]byte) []byte }

func decoder[R any, P interface {
	*R
	appender
}](decode func([]byte) (R, error)) func([]byte) (appender, error) {
	return func(b []byte) (appender, error) {
		r, err := decode(b)
		return P(&r), err
	}
}

// compareResults requires the model's bytes, except for the numbers that the layout
// decides, which it checks.
func (d *duel) compareResults(client int, call *nfs3.Call, got []byte, want appender) {
	if call.Procedure == nfs3.ProcNull {
		if len(got) > 0 {
			d.fail(client, call, "NULL answers %x", got)
		}
		return
	}
	r, err := decoders[call.Procedure](got)
	if err != nil || !bytes.Equal(r.Append(nil), got) {
		d.fail(client, call, "%v: results are not canonical: %x", err, got)
	}
	d.what[fmt.Sprintf("%d %v", call.Procedure, nfs3.Status(binary.BigEndian.Uint32(got)))]++
	if f, ok := r.(*nfs3.FsstatResult); ok {
		d.judgeFsstat(client, call, f)
	}
	d.judgeUsed(client, call, reflect.ValueOf(r), reflect.ValueOf(want))
	if d.m.Full != nfs3.OK && !d.m.Took {
		d.fail(client, call, "got %v of a call that takes no room", d.m.Full)
	}
	if g, w := r.Append(nil), want.Append(nil); !bytes.Equal(g, w) {
		d.fail(client, call, "got  %+v\nwant %+v", r, want)
	}
	if d.m.Full != nfs3.OK {
		d.refused[d.m.Full]++
		d.judgeFull(client, call)
	}
}

// judgeUsed checks Used in all attributes of two results of one type. A regular file may
// use its pages of data and, for finding each of them, at most as many as a tree is high;
// the use of others is bounded. Then the model's number replaces the other.
func (d *duel) judgeUsed(client int, call *nfs3.Call, got, want reflect.Value) {
	if a, ok := got.Interface().(nfs3.Fattr3); ok {
		w := want.Interface().(nfs3.Fattr3)
		const page, height = pbft.PageSize, 4
		most := uint64(page) * (16 + w.Size)
		if w.Type == nfs3.TypeReg {
			most = w.Used * (1 + height)
		}
		if a.Used%page != 0 || a.Used < w.Used || a.Used > most {
			d.fail(client, call, "file %d of type %d and size %d uses %d bytes, %d of them data",
				a.FileID, a.Type, a.Size, a.Used, w.Used)
		}
		w.Used = a.Used
		want.Set(reflect.ValueOf(w))
		return
	}
	switch got.Kind() {
	case reflect.Pointer:
		d.judgeUsed(client, call, got.Elem(), want.Elem())
	case reflect.Struct:
		for i := range got.NumField() {
			d.judgeUsed(client, call, got.Field(i), want.Field(i))
		}
	case reflect.Slice:
		if got.Type().Elem().Kind() == reflect.Struct {
			for i := range min(got.Len(), want.Len()) {
				d.judgeUsed(client, call, got.Index(i), want.Index(i))
			}
		}
	}
}

func (d *duel) judgeFsstat(client int, call *nfs3.Call, f *nfs3.FsstatResult) {
	if f.Status != nfs3.OK {
		return
	}
	if f.Tbytes == 0 || f.Fbytes > f.Tbytes || f.Abytes > f.Fbytes ||
		f.Tfiles == 0 || f.Ffiles > f.Tfiles || f.Afiles > f.Ffiles || f.Invarsec != 0 {
		d.fail(client, call, "numbers that cannot be: %+v", f)
	}
	*f = nfs3.FsstatResult{Attr: f.Attr}
}

// judgeFull wants a reason for NOSPC and DQUOT: few pages or no inode left, seen through FSSTAT.
func (d *duel) judgeFull(client int, call *nfs3.Call) {
	fh, ok := firstHandle(call)
	ask := nfs3.Call{Program: nfs3.ProgramNFS, Procedure: nfs3.ProcFsstat,
		Args: (&nfs3.FsstatArgs{Root: fh}).Append(nil)}
	reply, _ := d.fs.Query(operation(0, &ask, nil))
	f, err := nfs3.DecodeFsstatResult(reply[4:])
	if !ok || err != nil || f.Status != nfs3.OK {
		d.fail(client, call, "FSSTAT: got %+v, %v", f, err)
	}
	most := uint64(30 + 5*(len(call.Args)/pbft.PageSize))
	if f.Abytes > most*pbft.PageSize && f.Afiles > 0 {
		d.fail(client, call, "got %v while there are %d pages and %d files left",
			d.m.Full, f.Abytes/pbft.PageSize, f.Afiles)
	}
}

// firstHandle is the handle that the arguments of a call of NFS begin with.
func firstHandle(call *nfs3.Call) (nfs3.FileHandle, bool) {
	a := call.Args
	if len(a) < 4+nfs3.HandleSize || binary.BigEndian.Uint32(a) != nfs3.HandleSize {
		return nil, false
	}
	return a[4 : 4+nfs3.HandleSize], true
}

// forgetSome tells the workload of files that are gone, so that most of its calls meet one.
func (d *duel) forgetSome() {
	for range 3 {
		if h := d.w.Some(); !d.m.Alive(h) {
			d.w.Stale(h)
		}
	}
}

func (d *duel) fail(client int, call *nfs3.Call, format string, args ...any) {
	d.t.Helper()
	d.t.Fatalf("client %d, program %d, procedure %d, %+v, arguments %x (of %d bytes)\n%s\noperation %d; repeat with\n"+
		"go test ./pkg/nfsstate -run '^%s$' -model.seed %d -model.ops %d",
		client, call.Program, call.Procedure, call.Cred, call.Args[:min(len(call.Args), 200)], len(call.Args),
		fmt.Sprintf(format, args...), d.ops, d.t.Name(), d.seed, d.ops)
}

func seeds() []uint64 {
	if *seedFlag != 0 {
		return []uint64{*seedFlag}
	}
	var all []uint64
	for s := range *seedsFlag {
		all = append(all, uint64(s)+1)
	}
	return all
}

// TestModel compares every reply and every attribute with the model's.
func TestModel(t *testing.T) {
	for _, seed := range seeds() {
		d := newDuel(t, seed, testPages)
		start := time.Now()
		for d.ops < *opsFlag {
			d.step()
		}
		spent := time.Since(start)
		t.Logf("seed %d: %d operations, %.0f a second, %d files at the end",
			seed, d.ops, float64(d.ops)/spent.Seconds(), d.m.Files())
		if testing.Verbose() {
			t.Log(d.what)
		}
	}
}

// TestModelFull does the same in a state so small that there is no room most of the time.
func TestModelFull(t *testing.T) {
	refused := map[nfs3.Status]int{}
	for _, seed := range seeds() {
		d := newDuel(t, seed, 700)
		for d.ops < *opsFlag {
			d.step()
		}
		for st, times := range d.refused {
			refused[st] += times
		}
		if testing.Verbose() {
			t.Log(d.what)
		}
	}
	if *seedFlag == 0 && (refused[nfs3.ErrNoSpc] < 100 || refused[nfs3.ErrDQuot] < 10) {
		t.Errorf("there was room: %v", refused)
	}
}
