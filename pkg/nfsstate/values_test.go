// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"strings"
	"testing"
	"time"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// These tests are about values that XDR can carry and a client's decoder refuses, or
// takes for something else. One of them in the attributes of one file makes Linux drop
// the listing of a whole directory, again and again.

func owner(uid, gid uint32) nfs3.Sattr3 {
	return nfs3.Sattr3{SetUID: true, UID: uid, SetGID: true, GID: gid}
}

func (u *user) wantOwner(what string, a nfs3.Fattr3, uid, gid uint32) {
	u.t.Helper()
	if a.UID != uid || a.GID != gid {
		u.t.Errorf("%s: owner is %d:%d, want %d:%d", what, a.UID, a.GID, uid, gid)
	}
}

// 2^32-1 in credentials is the anonymous user or group; in attributes it asks for nothing.
func TestNoID(t *testing.T) {
	_, u := newFS(t, 1<<10)
	grants := Rights{Grants: []Grant{{Export: 1, AnonUID: 70, AnonGID: 80}}}
	root, none := u.with(8, grants), u.with(8, grants).as(nfs3.NoID, nfs3.NoID, 5, nfs3.NoID)

	made := none.create(u.root, "f", nfs3.Guarded, nfs3.Sattr3{})
	u.wantOwner("made by -1", made.Attr.Attr, 70, 80)
	h := made.Object.Handle.FileHandle()
	u.mustDo(root.setattr(h, owner(nfs3.NoID, 5)).Status)
	u.wantOwner("uid left alone", root.getattr(h).Attr, 70, 5)
	u.mustDo(root.setattr(h, owner(6, nfs3.NoID)).Status)
	u.wantOwner("gid left alone", root.getattr(h).Attr, 6, 5)

	before := root.getattr(h).Attr
	u.mustDo(u.with(8, grants).as(1000, 100).setattr(h, owner(nfs3.NoID, nfs3.NoID)).Status) // not the owner
	if after := root.getattr(h).Attr; after != before {
		t.Errorf("chown(-1, -1) made of %+v\n%+v", before, after)
	}
	u.wantOwner("made for -1", root.create(u.root, "g", nfs3.Guarded, owner(nfs3.NoID, nfs3.NoID)).Attr.Attr, 0, 0)
	u.check()
}

// Values that an earlier version stored are served as values that clients can decode.
func TestValuesOfEarlierVersions(t *testing.T) {
	fs, u := newFS(t, 1<<10)
	f := u.create(u.root, "f", nfs3.Guarded, nfs3.Sattr3{SetMode: true, Mode: 0o600}).Object.Handle
	l := u.symlink(u.root, "l", "text").Object.Handle
	var in inode
	fs.load(inodeNum(f.Inode), &in)
	in.uid, in.gid, in.rdev = nfs3.NoID, nfs3.NoID, nfs3.SpecData3{Major: 1 << 20, Minor: 1 << 30}
	fs.save(&in)
	fs.load(inodeNum(l.Inode), &in)
	in.size++ // a NUL follows the text
	fs.save(&in)

	a := u.getattr(f.FileHandle()).Attr
	u.wantOwner("stored -1", a, Nobody, Nobody)
	if a.Rdev != (nfs3.SpecData3{}) {
		t.Errorf("device %v is served", a.Rdev)
	}
	st := u.as(Nobody, Nobody).setattr(f.FileHandle(), nfs3.Sattr3{SetMode: true, Mode: 0o644}).Status
	if st != nfs3.OK {
		t.Errorf("the user shown as the owner may not set the mode: %v", st)
	}
	if r := u.readlink(l.FileHandle()); r.Status != nfs3.ErrInval || !r.Attr.Present {
		t.Errorf("text with a NUL: got %+v", r)
	}
	u.mustDo(u.remove(u.root, "l"))
	u.check()
}

func TestLinkTexts(t *testing.T) {
	fs, u := newFS(t, 1<<10)
	for _, x := range []struct {
		text string
		want nfs3.Status
	}{
		{"x", nfs3.OK},
		{"\xff\xfe\n ", nfs3.OK},
		{strings.Repeat("y", inodeTextSize+1), nfs3.OK},
		{strings.Repeat("z", nfs3.MaxPath), nfs3.OK},
		{strings.Repeat("z", nfs3.MaxPath+1), nfs3.ErrNameTooLong},
		{"", nfs3.ErrInval},
		{"\x00", nfs3.ErrInval},
		{"a\x00b", nfs3.ErrInval},
		{strings.Repeat("w", 300) + "\x00", nfs3.ErrInval},
	} {
		r := u.symlink(u.root, "l", x.text)
		if r.Status != x.want || !r.Dir.After.Present {
			t.Errorf("a text of %d bytes: got %v, want %v", len(x.text), r.Status, x.want)
		}
		if r.Status == nfs3.OK {
			if got := u.readlink(r.Object.Handle.FileHandle()); string(got.Path) != x.text {
				t.Errorf("got %q, want %q", got.Path, x.text)
			}
			u.mustDo(u.remove(u.root, "l"))
		}
	}
	if n := fs.counter(superInodesUsed); n != 1 {
		t.Errorf("%d inodes are in use, want the root alone", n)
	}
}

func TestDeviceNumbers(t *testing.T) {
	_, u := newFS(t, 1<<10)
	for _, x := range []struct {
		spec nfs3.SpecData3
		want nfs3.Status
	}{
		{nfs3.SpecData3{Major: 0, Minor: 0}, nfs3.OK},
		{nfs3.SpecData3{Major: nfs3.MaxMajor, Minor: nfs3.MaxMinor}, nfs3.OK},
		{nfs3.SpecData3{Major: nfs3.MaxMajor + 1}, nfs3.ErrInval},
		{nfs3.SpecData3{Minor: nfs3.MaxMinor + 1}, nfs3.ErrInval},
		{nfs3.SpecData3{Major: 1<<32 - 1, Minor: 1<<32 - 1}, nfs3.ErrInval},
	} {
		a := nfs3.MknodArgs{Where: nfs3.DirOp{Dir: u.root, Name: []byte("n")}, Type: nfs3.TypeChr, Spec: x.spec}
		r, err := nfs3.DecodeCreateResult(u.call(nfs3.ProgramNFS, nfs3.ProcMknod, a.Append(nil)))
		if must(t, r, err).Status != x.want {
			t.Errorf("device %d:%d: got %v, want %v", x.spec.Major, x.spec.Minor, r.Status, x.want)
		}
		u.remove(u.root, "n")
	}
}

// Root of the export chooses the owner of new objects. Objects of other users get their
// own ids, whatever they ask for.
func TestOwnerAtCreation(t *testing.T) {
	for _, x := range []struct {
		name             string
		grant            Grant
		uid, gid         uint32 // the caller
		asks             nfs3.Sattr3
		ownUID, ownGID   uint32 // on the export
		seenUID, seenGID uint32 // by the caller's client
	}{
		{"root", Grant{}, 0, 0, owner(5, 6), 5, 6, 5, 6},
		{"a user for itself", Grant{}, 1000, 100, owner(1000, 100), 1000, 100, 1000, 100},
		{"a user for another", Grant{}, 1000, 100, owner(0, 0), 1000, 100, 1000, 100},
		{"root squashed, for root", Grant{Squash: SquashRoot, AnonUID: 70, AnonGID: 80}, 0, 0, owner(0, 0), 70, 80, 70, 80},
		{"root squashed, for another", Grant{Squash: SquashRoot, AnonUID: 70, AnonGID: 80}, 0, 0, owner(5, 6), 70, 80, 70, 80},
		{"all squashed", Grant{Squash: SquashAll, AnonUID: 70, AnonGID: 80}, 1000, 100, owner(1000, 100), 70, 80, 70, 80},
		{"a user mapped", mapped, 1001, 100, owner(1001, 100), 5001, 300, 1001, 100},
		{"root mapped to root, for a user", mapped, 0, 0, owner(1001, 100), 5001, 300, 1001, 100},
		{"root mapped to root, for a user in no range", mapped, 0, 0, owner(9, 9), 70, 80, Nobody, Nobody},
	} {
		x.grant.Export = 1
		_, u := newFS(t, 1<<10)
		v := u.with(8, Rights{Grants: []Grant{x.grant}}).as(x.uid, x.gid)
		file := v.create(u.root, "file", nfs3.Guarded, x.asks)
		m := nfs3.MkdirArgs{Where: nfs3.DirOp{Dir: u.root, Name: []byte("dir")}, Attr: x.asks}
		s := nfs3.SymlinkArgs{Where: nfs3.DirOp{Dir: u.root, Name: []byte("link")}, Attr: x.asks, Path: []byte("t")}
		n := nfs3.MknodArgs{Where: nfs3.DirOp{Dir: u.root, Name: []byte("pipe")}, Attr: x.asks, Type: nfs3.TypeFifo}
		dir, err1 := nfs3.DecodeCreateResult(v.call(nfs3.ProgramNFS, nfs3.ProcMkdir, m.Append(nil)))
		link, err2 := nfs3.DecodeCreateResult(v.call(nfs3.ProgramNFS, nfs3.ProcSymlink, s.Append(nil)))
		pipe, err3 := nfs3.DecodeCreateResult(v.call(nfs3.ProgramNFS, nfs3.ProcMknod, n.Append(nil)))
		for i, r := range [...]nfs3.CreateResult{file, must(t, dir, err1), must(t, link, err2), must(t, pipe, err3)} {
			if r.Status != nfs3.OK {
				t.Errorf("%s: creator %d: %v", x.name, i, r.Status)
				continue
			}
			u.wantOwner(x.name+", as the client sees it", r.Attr.Attr, x.seenUID, x.seenGID)
			u.wantOwner(x.name+", on the export", u.getattr(r.Object.Handle.FileHandle()).Attr, x.ownUID, x.ownGID)
		}
	}
}

// mapped is a grant with root, two users and two groups.
var mapped = Grant{
	AnonUID: 70, AnonGID: 80,
	UIDs: []IDRange{{From: 0, To: 0, Count: 1}, {From: 1000, To: 5000, Count: 2}},
	GIDs: []IDRange{{From: 0, To: 0, Count: 1}, {From: 100, To: 300, Count: 2}},
}

// A client with maps reads its own ids everywhere, and can set the ids that it reads
// again, as cp -p and tar do.
func TestMapsBothWays(t *testing.T) {
	_, u := newFS(t, 1<<10)
	g := mapped
	g.Export = 1
	root := u.with(8, Rights{Grants: []Grant{g}}).as(0, 0)
	user := root.as(1000, 100, 101)
	made := user.create(u.root, "f", nfs3.Guarded, nfs3.Sattr3{SetMode: true, Mode: 0o644})
	h := made.Object.Handle.FileHandle()
	u.wantOwner("on the export", u.getattr(h).Attr, 5000, 300)
	u.wantOwner("LOOKUP", user.lookup(u.root, "f").Attr.Attr, 1000, 100)
	u.wantOwner("WRITE", user.write(h, 0, []byte("x")).Wcc.After.Attr, 1000, 100)
	a := nfs3.ReaddirplusArgs{Dir: u.root, DirCount: 1 << 12, MaxCount: 1 << 12}
	list, err := nfs3.DecodeReaddirplusResult(user.call(nfs3.ProgramNFS, nfs3.ProcReaddirplus, a.Append(nil)))
	u.wantOwner("READDIRPLUS", must(t, list, err).Entries[2].Attr.Attr, 1000, 100)

	u.mustDo(user.setattr(h, owner(1000, 101)).Status) // to itself, and to another group of its
	u.wantOwner("group on the export", u.getattr(h).Attr, 5000, 301)
	if st := user.setattr(h, owner(5000, 301)).Status; st != nfs3.ErrPerm {
		t.Errorf("ids of the export, which are none of the client's: got %v, want PERM", st)
	}
	u.mustDo(root.setattr(h, owner(1001, 100)).Status)
	u.wantOwner("given away", root.getattr(h).Attr, 1001, 100)
	u.wantOwner("given away, on the export", u.getattr(h).Attr, 5001, 300)

	u.mustDo(u.setattr(h, owner(1000, 100)).Status) // ids of the export that the client has no users for
	seen := root.getattr(h).Attr
	u.wantOwner("of no user of the client", seen, Nobody, Nobody)
	u.mustDo(root.setattr(h, owner(seen.UID, seen.GID)).Status)
	u.wantOwner("set as it was read", u.getattr(h).Attr, 70, 80)
}

// No export begins with an owner that cannot be told to clients.
func TestExportOfNoID(t *testing.T) {
	fs, _ := newFS(t, 1<<10)
	for _, x := range []Export{{Name: "a", UID: nfs3.NoID}, {Name: "a", GID: nfs3.NoID}} {
		reply, _ := fs.Execute(pbft.Operation{Client: pbft.Administrator, Body: ExportAddCall(&x)})
		if _, err := ParseExportAdd(reply); err != nfs3.ErrInval {
			t.Errorf("%+v: got %v, want INVAL", x, err)
		}
		store, err := fsmerkle.New(fsmerkle.Options{Pages: 1 << 10})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := New(store, Config{Pages: 1 << 10, Reserved: 1, Exports: []Export{x}}); err == nil {
			t.Errorf("%+v: a state begins with it", x)
		}
		store.Close()
	}
}

// The roots of the exports that a state begins with are as old as the group says.
func TestCreated(t *testing.T) {
	_, u := newFS(t, 1<<10, func(c *Config) { c.Created = time.Unix(1_500_000_000, 77) })
	want := nfs3.Time3{Seconds: 1_500_000_000, Nanoseconds: 77}
	if a := u.getattr(u.root).Attr; a.Atime != want || a.Mtime != want || a.Ctime != want {
		t.Errorf("times are %v %v %v, want %v", a.Atime, a.Mtime, a.Ctime, want)
	}
}

// Rights with the id 2^32-1 grant nothing, even if an administrator's program let them pass.
func TestRightsOfNoID(t *testing.T) {
	_, u := newFS(t, 1<<10)
	v := u.with(8, Rights{Grants: []Grant{{Export: 1, Squash: SquashAll, AnonUID: nfs3.NoID}}})
	if st := v.create(u.root, "f", nfs3.Guarded, nfs3.Sattr3{}).Status; st != nfs3.ErrAcces {
		t.Errorf("got %v, want ACCES", st)
	}
}
