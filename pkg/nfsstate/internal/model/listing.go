// SPDX-License-Identifier: Apache-2.0

package model

import (
	"sort"

	"bfs/pkg/nfs3"
)

// listed is the entries of d behind a cookie, in the order of their cookies.
func (c Caller) listed(d *file, cookie uint64) []nfs3.EntryPlus {
	var all []nfs3.EntryPlus
	add := func(name string, cookie uint64, f *file) {
		all = append(all, nfs3.EntryPlus{
			FileID: f.handle.Inode, Name: []byte(name), Cookie: cookie, Attr: c.post(f), Handle: nfs3.PostFH(f.handle),
		})
	}
	add(".", 1, d)
	add("..", 2, d.parent)
	for name, e := range d.entries {
		add(name, e.cookie, e.file)
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Cookie < all[j].Cookie })
	for len(all) > 0 && all[0].Cookie <= cookie {
		all = all[1:]
	}
	return all
}

// judgeListing finds the directory to list.
func (m *Model) judgeListing(c Caller, fh nfs3.FileHandle, cookie uint64, v nfs3.Verifier) (*file, nfs3.Status) {
	d, who, s := m.directory(c, fh)
	switch {
	case s != nfs3.OK:
	case !may(who, d, read):
		s = nfs3.ErrAcces
	case v != nfs3.Verifier{} || cookie >= 1<<63:
		s = nfs3.ErrBadCookie
	}
	return d, s
}

func (m *Model) readdir(c Caller, a nfs3.ReaddirArgs) nfs3.ReaddirResult {
	d, s := m.judgeListing(c, a.Dir, a.Cookie, a.Verifier)
	if s != nfs3.OK {
		return nfs3.ReaddirResult{Status: s, Dir: c.post(d)}
	}
	r := nfs3.ReaddirResult{Dir: c.post(d), EOF: true}
	limit := int(min(a.Count, m.MaxListing))
	size := len(r.Append(nil)) - 4
	for _, e := range c.listed(d, a.Cookie) {
		one := nfs3.Entry{FileID: e.FileID, Name: e.Name, Cookie: e.Cookie}
		if size += entrySize(&nfs3.ReaddirResult{Entries: []nfs3.Entry{one}}, &nfs3.ReaddirResult{}); size > limit {
			r.EOF = false
			break
		}
		r.Entries = append(r.Entries, one)
	}
	if !r.EOF && len(r.Entries) == 0 || len(r.Append(nil))-4 > limit {
		return nfs3.ReaddirResult{Status: nfs3.ErrTooSmall, Dir: c.post(d)}
	}
	return r
}

func (m *Model) readdirplus(c Caller, a nfs3.ReaddirplusArgs) nfs3.ReaddirplusResult {
	d, s := m.judgeListing(c, a.Dir, a.Cookie, a.Verifier)
	if s != nfs3.OK {
		return nfs3.ReaddirplusResult{Status: s, Dir: c.post(d)}
	}
	r := nfs3.ReaddirplusResult{Dir: c.post(d), EOF: true}
	limit := int(min(a.MaxCount, m.MaxListing))
	size, names := len(r.Append(nil))-4, 0
	for _, e := range c.listed(d, a.Cookie) {
		size += entrySize(&nfs3.ReaddirplusResult{Entries: []nfs3.EntryPlus{e}}, &nfs3.ReaddirplusResult{})
		plain := nfs3.Entry{FileID: e.FileID, Name: e.Name, Cookie: e.Cookie}
		names += entrySize(&nfs3.ReaddirResult{Entries: []nfs3.Entry{plain}}, &nfs3.ReaddirResult{})
		if size > limit || uint64(names) > uint64(a.DirCount) && len(r.Entries) > 0 {
			r.EOF = false
			break
		}
		r.Entries = append(r.Entries, e)
	}
	if !r.EOF && len(r.Entries) == 0 || len(r.Append(nil))-4 > limit {
		return nfs3.ReaddirplusResult{Status: nfs3.ErrTooSmall, Dir: c.post(d)}
	}
	return r
}

// entrySize is by how much one entry makes a listing longer.
func entrySize(with, without Result) int { return len(with.Append(nil)) - len(without.Append(nil)) }
