// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// The time is the proposed one, but later than all before; a choice that is no time
// proposes nothing [TOCS §7.2].
func TestClock(t *testing.T) {
	fs, u := newFS(t, 1<<10)
	h := u.create(u.root, "f", nfs3.Guarded, nfs3.Sattr3{}).Object.Handle.FileHandle()
	at := func(ns uint64) []byte { return binary.BigEndian.AppendUint64(nil, ns) }
	last := *u.clock
	for _, x := range []struct {
		name   string
		choice []byte
		want   uint64
	}{
		{"later", at(last + 5), last + 5},
		{"the same again", at(last + 5), last + 6},
		{"earlier", at(12), last + 7},
		{"nothing", nil, last + 8},
		{"too short", at(last + 100)[1:], last + 9},
		{"too long", append(at(last+100), 0), last + 10},
		{"beyond the protocol", at(maxClock + 1), last + 11},
		{"the end of time", at(1<<64 - 1), last + 12},
		{"later again", at(last + 1000), last + 1000},
	} {
		a := nfs3.SetattrArgs{Object: h, New: nfs3.Sattr3{SetMode: true}}
		body := nfs3.AppendCall(nil, &nfs3.Call{Program: nfs3.ProgramNFS,
			Procedure: nfs3.ProcSetattr, Args: a.Append(nil)})
		fs.Execute(pbft.Operation{Client: u.client, Rights: u.rights, Choice: x.choice, Body: body})
		if got := u.getattr(h).Attr.Ctime; got != timeOf(x.want) {
			t.Errorf("%s: got %v, want %v", x.name, got, timeOf(x.want))
		}
	}
}

func TestAccept(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	fs, _ := newFS(t, 1<<10, func(c *Config) {
		c.Now, c.ClockBound = func() time.Time { return now }, time.Minute
	})
	if !fs.Accept(1, fs.Choose(1)) {
		t.Error("own choice is refused")
	}
	for _, x := range []struct {
		off  time.Duration
		want bool
	}{{time.Minute, true}, {-time.Minute, true}, {time.Minute + 1, false}, {-time.Minute - 1, false}} {
		choice := binary.BigEndian.AppendUint64(nil, uint64(now.Add(x.off).UnixNano()))
		if got := fs.Accept(1, choice); got != x.want {
			t.Errorf("a choice %v off: got %v", x.off, got)
		}
	}
	for _, choice := range [][]byte{nil, {1}, bytes.Repeat([]byte{255}, 8), make([]byte, 9)} {
		if fs.Accept(1, choice) {
			t.Errorf("choice %x is accepted", choice)
		}
	}
}

// Bytes that are no call, or have a wrong program, procedure or arguments, are refused by
// Query and Execute alike, and write no page.
func TestRefusals(t *testing.T) {
	fs, u := newFS(t, 1<<10)
	call := func(program, proc uint32, args string) []byte {
		return nfs3.AppendCall(nil, &nfs3.Call{Program: program, Procedure: proc, Args: []byte(args)})
	}
	for _, x := range []struct {
		name string
		body []byte
		want nfs3.AcceptStat
	}{
		{"nothing", nil, nfs3.GarbageArgs},
		{"a piece of a call", call(nfs3.ProgramNFS, 1, "")[:11], nfs3.GarbageArgs},
		{"no such program", call(1, 1, ""), nfs3.ProgUnavail},
		{"no such procedure", call(nfs3.ProgramNFS, 22, ""), nfs3.ProcUnavail},
		{"no such procedure of MOUNT", call(nfs3.ProgramMount, 6, ""), nfs3.ProcUnavail},
		{"no procedure of ours for all", call(nfs3.ProgramAdmin, AdminAdmit, ""), nfs3.ProcUnavail},
		{"NULL with arguments", call(nfs3.ProgramNFS, nfs3.ProcNull, "1234"), nfs3.GarbageArgs},
		{"GETATTR without", call(nfs3.ProgramNFS, nfs3.ProcGetattr, ""), nfs3.GarbageArgs},
		{"WRITE without", call(nfs3.ProgramNFS, nfs3.ProcWrite, ""), nfs3.GarbageArgs},
		{"MNT without", call(nfs3.ProgramMount, nfs3.MountProcMnt, ""), nfs3.GarbageArgs},
		{"an export without a name", call(nfs3.ProgramAdmin, AdminExportAdd, "\x00\x00\x00\xff"), nfs3.GarbageArgs},
		{"NULL", call(nfs3.ProgramNFS, nfs3.ProcNull, ""), nfs3.Success},
	} {
		op := pbft.Operation{Client: u.client, Rights: u.rights, Body: x.body}
		reply, _ := fs.Execute(op)
		stat, results, err := nfs3.ParseReply(reply)
		if err != nil || stat != x.want || len(results) != 0 {
			t.Errorf("%s: got %d %x %v, want %d", x.name, stat, results, err, x.want)
		}
		if queried, ok := fs.Query(op); ok && !bytes.Equal(queried, reply) {
			t.Errorf("%s: Query answers %x, Execute %x", x.name, queried, reply)
		}
	}
}

// Query never answers an operation that would write, and leaves the pages alone.
func TestQueryWritesNothing(t *testing.T) {
	fs, u := newFS(t, 1<<10)
	h := u.create(u.root, "f", nfs3.Guarded, nfs3.Sattr3{SetMode: true, Mode: 0o644}).Object.Handle.FileHandle()
	u.write(h, 0, []byte("text"))
	before := digest(t, fs, 1)
	o := &ops{u: u}
	for _, op := range []pbft.Operation{
		o.create(u.root, "g"), o.remove(u.root, "f"), o.write(h, 0, []byte("x")),
		{Client: pbft.Administrator, Body: ExportAddCall(&Export{Name: "x"})},
	} {
		if _, ok := fs.Query(op); ok {
			t.Errorf("Query answers %x", op.Body)
		}
	}
	for _, op := range []pbft.Operation{o.lookup(u.root, "f"), o.getattr(h), o.read(h, 0, 100),
		{Body: ExportListCall()}} {
		queried, ok := fs.Query(op)
		executed, wrote := fs.Execute(op)
		if !ok || wrote || !bytes.Equal(queried, executed) {
			t.Errorf("Query answers %x, %v; Execute %x, %v", queried, ok, executed, wrote)
		}
	}
	if after := digest(t, fs, 2); after != before {
		t.Errorf("root is %v, was %v", after, before)
	}
}

// Rights that have run out by this machine's clock are judged by the agreed one, in Execute.
func TestExpiry(t *testing.T) {
	now := time.Unix(1_600_000_000, 0)
	fs, u := newFS(t, 1<<10, func(c *Config) { c.Now = func() time.Time { return now } })
	v := u.with(9, Rights{Expires: uint64(now.Add(time.Hour).UnixNano()), Grants: []Grant{{Export: 1}}})
	o := &ops{u: v}
	if _, ok := fs.Query(o.getattr(u.root)); !ok {
		t.Error("an hour before the end Query does not answer")
	}
	now = now.Add(2 * time.Hour)
	if _, ok := fs.Query(o.getattr(u.root)); ok {
		t.Error("an hour after the end Query answers")
	}
	if st := v.getattr(u.root).Status; st != nfs3.OK {
		t.Errorf("by the agreed clock it is not over: got %v", st)
	}
	*u.clock += uint64(2 * time.Hour)
	if st := v.getattr(u.root).Status; st != nfs3.ErrAcces {
		t.Errorf("it is over: got %v", st)
	}
}

// A rolled back file system is the one of the checkpoint: the same operations lead to the
// same roots as before.
func TestRollbackAndAgain(t *testing.T) {
	fs, u := newFS(t, 1<<12)
	work := func(seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 0))
		for range 2000 {
			name := fmt.Sprint("f", rng.IntN(500))
			switch rng.IntN(4) {
			case 0, 1:
				u.create(u.root, name, nfs3.Unchecked, nfs3.Sattr3{SetMode: true, Mode: 0o644})
			case 2:
				u.remove(u.root, name)
			case 3:
				if r := u.lookup(u.root, name); r.Status == nfs3.OK {
					u.write(r.Object.FileHandle(), uint64(rng.IntN(1<<18)), make([]byte, rng.IntN(9000)))
				}
			}
		}
	}
	work(1)
	start := *u.clock
	before := digest(t, fs, 1)
	var after [2]fsmerkle.Digest
	for i := range after {
		*u.clock = start
		work(2)
		u.check()
		after[i] = digest(t, fs, 2)
		if err := fs.State().Rollback(1); err != nil {
			t.Fatal(err)
		}
		u.check()
	}
	if after[0] != after[1] || after[0] == before {
		t.Errorf("roots are %v, then %v and %v", before, after[0], after[1])
	}
}

// The digest of each node can be computed from its children's, down to the pages', under
// the tree's shape.
func TestCombine(t *testing.T) {
	fs, u := newFS(t, 1<<10)
	u.create(u.root, "f", nfs3.Unchecked, nfs3.Sattr3{})
	root := pbft.Digest(digest(t, fs, 1))
	s := fs.State().(interface {
		pbft.State
		pbft.Digester
		Shape() (pbft.NodeID, int)
		Combine(pbft.NodeID, []pbft.Digest) pbft.Digest
	})
	top, fanout := s.Shape()
	var sum func(id pbft.NodeID) pbft.Digest
	sum = func(id pbft.NodeID) pbft.Digest {
		if id.Level == 0 {
			page, err := s.PageAt(1, pbft.PageNum(id.Index))
			if err != nil {
				return pbft.Digest{} // beyond the last page
			}
			return s.Digest(pbft.PageNum(id.Index), page)
		}
		children := make([]pbft.Digest, fanout)
		for i := range children {
			children[i] = sum(pbft.NodeID{Level: id.Level - 1, Index: id.Index*uint64(fanout) + uint64(i)})
		}
		return s.Combine(id, children)
	}
	if got := sum(top); got != root {
		t.Errorf("got %v, want %v", got, root)
	}
}

// Pages that another configuration laid out are refused; those of the same one are
// accepted unchanged.
func TestReopen(t *testing.T) {
	store, err := fsmerkle.New(fsmerkle.Options{Pages: 1 << 12})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	c := Config{Pages: 1 << 12, Reserved: 3, Inodes: 500, Epoch: 1, Exports: []Export{{Name: "e", Mode: 0o755}}}
	if _, err := New(store, c); err != nil {
		t.Fatal(err)
	}
	c.Exports = nil
	fs, err := New(store, c)
	if err != nil || fs.exportNamed([]byte("e")) != 1 {
		t.Errorf("reopened: %v", err)
	}
	for i, change := range []func(*Config){
		func(c *Config) { c.Pages-- }, func(c *Config) { c.Reserved++ }, func(c *Config) { c.Inodes++ },
		func(c *Config) { c.Epoch++ }, func(c *Config) { c.Reserved = 0 }, func(c *Config) { c.Pages++ },
		func(c *Config) { c.Inodes = 1 << 40 },
	} {
		other := c
		change(&other)
		if _, err := New(store, other); err == nil && i != 1 {
			t.Errorf("change %d is not noticed", i)
		}
	}
}

// A directory deeper than any path still works, but nothing is moved to where the way up
// is too long to be walked.
func TestDeepDirectories(t *testing.T) {
	_, u := newFS(t, 1<<16)
	deep := u.root
	for range maxDepth + 1 {
		r := u.mkdir(deep, "d")
		if r.Status != nfs3.OK {
			t.Fatal(r.Status)
		}
		deep = r.Object.Handle.FileHandle()
	}
	u.mkdir(u.root, "x")
	if st := u.rename(u.root, "x", deep, "x"); st != nfs3.ErrInval {
		t.Errorf("moving a directory that deep: got %v", st)
	}
	u.mkdir(deep, "y")
	if st := u.rename(deep, "y", deep, "z"); st != nfs3.OK {
		t.Errorf("renaming one where it is: got %v", st)
	}
	if st := u.rename(deep, "z", u.root, "z"); st != nfs3.OK {
		t.Errorf("moving one up: got %v", st)
	}
	if st := u.as(1000, 1000).rename(u.root, "z", u.root, "w"); st != nfs3.OK {
		t.Errorf("renaming by another user: got %v", st)
	}
	if st := u.rmdir(u.root, "w"); st != nfs3.OK {
		t.Errorf("removing: got %v", st)
	}
}

// The last entry of a directory is alone on its second page: renaming it makes the
// directory small, which drops the index, and large again, which builds it. However few
// pages are free, that is done wholly or refused.
func TestRenameWhenFull(t *testing.T) {
	for spare := range 10 {
		fs, u := newFS(t, 1<<10)
		made := 0
		name := func(i int) string { // the shortest names there are
			for b := range 256 {
				if one := string([]byte{byte(b)}); goodName([]byte(one)) == nfs3.OK && one != "." {
					if i--; i < 0 {
						return one
					}
				}
			}
			return fmt.Sprint("x", i)
		}
		var d inode
		for d.height < 2 {
			u.create(u.root, name(made), nfs3.Guarded, nfs3.Sattr3{})
			fs.load(firstInode, &d)
			made++
		}
		f := u.create(u.root, "file", nfs3.Guarded, nfs3.Sattr3{}).Object.Handle.FileHandle()
		u.remove(u.root, name(made-1))
		u.rename(u.root, "file", u.root, name(made-1))
		for off := uint64(0); fs.freeAtAll() > uint64(spare); off += pageSize {
			if r := u.write(f, off, make([]byte, pageSize)); r.Status != nfs3.OK {
				break
			}
		}
		for i := range 5 {
			st := u.rename(u.root, name(made-1), u.root, name(made))
			if st != nfs3.OK && st != nfs3.ErrNoSpc {
				t.Fatalf("%d pages free: rename %d of entry %d: got %v", spare, i, made, st)
			}
			if st == nfs3.OK {
				made++
			}
			u.check()
		}
	}
}

func TestRights(t *testing.T) {
	good := []Rights{
		{},
		{Expires: 77, Grants: []Grant{{Export: 1}}},
		{Grants: []Grant{
			{Export: 1, ReadOnly: true, Squash: SquashAll, AnonUID: 5, AnonGID: 6},
			{Export: 9, Squash: SquashRoot, UIDs: []IDRange{{0, 1000, 10}, {10, 0, 1}}, GIDs: []IDRange{{5, 5, 5}}},
		}},
	}
	for _, r := range good {
		b := r.Append(nil)
		got, err := ParseRights(b)
		if err != nil || !bytes.Equal(got.Append(nil), b) {
			t.Errorf("%+v: got %+v, %v", r, got, err)
		}
		for i := range b {
			if _, err := ParseRights(b[:i]); err == nil {
				t.Errorf("the first %d bytes of %x are taken for rights", i, b)
			}
		}
		if _, err := ParseRights(append(b, 0)); !errors.Is(err, ErrRights) {
			t.Errorf("a byte too many: got %v", err)
		}
	}
	many := make([]IDRange, MaxRanges)
	for i := range many {
		many[i] = IDRange{From: uint32(i), To: uint32(i), Count: 1}
	}
	wide := Grant{UIDs: many, GIDs: many}
	for name, r := range map[string]Rights{
		"export 0":            {Grants: []Grant{{}}},
		"one export twice":    {Grants: []Grant{{Export: 1}, {Export: 1}}},
		"falling":             {Grants: []Grant{{Export: 2}, {Export: 1}}},
		"no such squash":      {Grants: []Grant{{Export: 1, Squash: 3}}},
		"an empty range":      {Grants: []Grant{{Export: 1, UIDs: []IDRange{{1, 1, 0}}}}},
		"ranges that overlap": {Grants: []Grant{{Export: 1, UIDs: []IDRange{{1, 1, 5}, {3, 9, 1}}}}},
		"a range beyond all":  {Grants: []Grant{{Export: 1, GIDs: []IDRange{{1<<32 - 1, 1, 2}}}}},
		"anonymous user -1":   {Grants: []Grant{{Export: 1, AnonUID: nfs3.NoID}}},
		"anonymous group -1":  {Grants: []Grant{{Export: 1, AnonGID: nfs3.NoID}}},
		"a range from -1":     {Grants: []Grant{{Export: 1, UIDs: []IDRange{{nfs3.NoID, 1, 1}}}}},
		"a range to -1":       {Grants: []Grant{{Export: 1, GIDs: []IDRange{{1, nfs3.NoID - 1, 2}}}}},
		"too many grants":     {Grants: make([]Grant, MaxGrants+1)},
		"too many ranges":     {Grants: []Grant{{Export: 1, UIDs: append(many, IDRange{99, 99, 1})}}},
		"longer than a kilobyte": {Grants: []Grant{
			{Export: 1, UIDs: wide.UIDs, GIDs: wide.GIDs}, {Export: 2, UIDs: wide.UIDs, GIDs: wide.GIDs}, {Export: 3, UIDs: wide.UIDs, GIDs: wide.GIDs},
		}},
	} {
		if r.Check() == nil {
			t.Errorf("%s: Check finds nothing", name)
		}
		if _, err := ParseRights(r.Append(nil)); err == nil {
			t.Errorf("%s: taken for rights", name)
		}
	}
}

func TestIDMaps(t *testing.T) {
	g := Grant{
		Squash: SquashRoot, AnonUID: 65534, AnonGID: 65533,
		UIDs: []IDRange{{From: 1000, To: 5000, Count: 2}}, GIDs: []IDRange{{From: 100, To: 0, Count: 1}},
	}
	for _, x := range []struct {
		in, want nfs3.Credentials
	}{
		{nfs3.Credentials{UID: 1001, GID: 100, Groups: []uint32{100, 0, 7}}, nfs3.Credentials{UID: 5001, GID: 0, Groups: []uint32{0, 65533, 65533}}},
		{nfs3.Credentials{UID: 1002, GID: 0}, nfs3.Credentials{UID: 65534, GID: 65533}},
		{nfs3.Credentials{UID: nfs3.NoID, GID: nfs3.NoID, Groups: []uint32{nfs3.NoID, 100}},
			nfs3.Credentials{UID: 65534, GID: 65533, Groups: []uint32{65533, 0}}},
		{nfs3.Credentials{None: true, UID: 1000}, nfs3.Credentials{UID: 65534, GID: 65533}},
	} {
		got := g.cred(&x.in)
		if got.UID != x.want.UID || got.GID != x.want.GID ||
			fmt.Sprint(got.groups[:got.count]) != fmt.Sprint(x.want.Groups) {
			t.Errorf("%+v: got %+v", x.in, got)
		}
	}
}

// FuzzExportList gives any bytes to the reader of a list of exports; it always ends.
func FuzzExportList(f *testing.F) {
	fs, _ := newFS(f, 1<<10)
	reply, _ := fs.Execute(pbft.Operation{Client: pbft.Administrator, Body: ExportListCall()})
	f.Add(reply)
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = ParseExportList(b)
		_, _ = ParseExportAdd(b)
		_ = ParseAdminStatus(b)
	})
}
