// SPDX-License-Identifier: Apache-2.0

package model

import (
	"encoding/binary"
	"testing"

	"bfs/pkg/nfs3"
)

// alone is a model with two exports and a workload on it; handles are numbered here.
func alone(seed uint64) (*Model, *Workload) {
	m := New()
	m.Linkmax, m.Dtpref, m.MaxListing = 32000, 4096, 1<<18
	next := uint64(10)
	m.NewHandle = func() nfs3.Handle { next++; return nfs3.Handle{Export: 1, Inode: next} }
	var roots []nfs3.Handle
	for e := range uint32(2) {
		h := nfs3.Handle{Export: e + 1, Inode: 2}
		m.AddExport("ab"[e:e+1], h, nfs3.Fattr3{Type: nfs3.TypeDir, Mode: 0o777, Nlink: 2})
		roots = append(roots, h)
	}
	return m, NewWorkload(seed, 1, roots, []string{"/a", "/b"})
}

// TestWorkloadReachesEverything wants every procedure to succeed, and every status that
// the model knows to be given, within one run: else the comparisons with it say little.
func TestWorkloadReachesEverything(t *testing.T) {
	m, w := alone(1)
	statuses := map[nfs3.Status]int{}
	succeeded := map[uint32]int{}
	for i := range uint32(60_000) {
		m.Now = nfs3.Time3{Seconds: i}
		_, c := w.Next()
		who := Caller{1: {UID: c.Cred.UID, GID: c.Cred.GID, Groups: c.Cred.Groups},
			2: {UID: c.Cred.UID, ReadOnly: true}}
		r, stat := m.Call(who, &c)
		if stat != nfs3.Success || c.Program != nfs3.ProgramNFS {
			continue
		}
		wire := r.Append(nil)
		w.Learn(c, wire)
		if c.Procedure == nfs3.ProcNull {
			succeeded[0]++
			continue
		}
		s := nfs3.Status(binary.BigEndian.Uint32(wire))
		if s == nfs3.OK {
			succeeded[c.Procedure]++
		}
		statuses[s]++
		for range 3 { // as if clients found out which files no longer exist
			if h := w.Some(); !m.Alive(h) {
				w.Stale(h)
			}
		}
		if i%1000 == 0 {
			check(t, m)
		}
	}
	for p := range nfs3.ProcCommit + 1 {
		if succeeded[p] == 0 {
			t.Errorf("procedure %d never succeeded", p)
		}
	}
	for _, s := range []nfs3.Status{
		nfs3.OK, nfs3.ErrPerm, nfs3.ErrNoEnt, nfs3.ErrAcces, nfs3.ErrExist, nfs3.ErrXDev, nfs3.ErrNotDir, nfs3.ErrIsDir,
		nfs3.ErrInval, nfs3.ErrFBig, nfs3.ErrROFS, nfs3.ErrNameTooLong, nfs3.ErrNotEmpty, nfs3.ErrStale,
		nfs3.ErrBadHandle, nfs3.ErrNotSync, nfs3.ErrBadCookie, nfs3.ErrTooSmall, nfs3.ErrBadType,
	} {
		if statuses[s] == 0 {
			t.Errorf("%v was never answered", s)
		}
	}
	t.Logf("%d files, statuses %v, successes %v", m.Files(), statuses, succeeded)
}

// check walks all files from the roots and counts: link counts, parents and cookies must agree.
func check(t *testing.T, m *Model) {
	t.Helper()
	links := map[*file]uint32{}
	for h, f := range m.files {
		if f.handle != h {
			t.Fatalf("%v is filed as %v", f.handle, h)
		}
		if !f.dir() {
			continue
		}
		links[f]++ // its own dot
		if f.parent == f {
			links[f]++
		}
		seen := map[uint64]bool{}
		for name, e := range f.entries {
			if e.cookie < 3 || e.cookie >= f.cookie || seen[e.cookie] {
				t.Fatalf("%v/%q has cookie %d, next is %d", h, name, e.cookie, f.cookie)
			}
			seen[e.cookie] = true
			links[e.file]++
			if e.file.dir() {
				links[f]++
				if e.file.parent != f {
					t.Fatalf("%v/%q has another parent", h, name)
				}
			}
		}
	}
	for h, f := range m.files {
		if links[f] != f.attr.Nlink {
			t.Fatalf("%v: got %d links, counted %d", h, f.attr.Nlink, links[f])
		}
	}
}
