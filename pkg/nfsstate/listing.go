// SPDX-License-Identifier: Apache-2.0

package nfsstate

import "bfs/pkg/nfs3"

// maxListing bounds the bytes of one reply to READDIR or READDIRPLUS, even if the client
// would take more.
const maxListing = nfs3.MaxTransfer

// listable holds the checks that READDIR and READDIRPLUS share. The verifier is always 0,
// because cookies are valid for as long as the directory lives.
func (c *caller) listable(d *inode, cookie uint64, v nfs3.Verifier) nfs3.Status {
	switch {
	case d.kind != nfs3.TypeDir:
		return nfs3.ErrNotDir
	case !c.who.may(d, mayRead):
		return nfs3.ErrAcces
	case cookie >= cookieLimit, v != nfs3.Verifier{}:
		return nfs3.ErrBadCookie
	}
	return nfs3.OK
}

var (
	dotName    = []byte(".")
	dotDotName = []byte("..")
)

// walk calls f with the entries behind a cookie, in the order of cookies, until it says
// false. It says whether f has seen all.
func (fs *FS) walk(d *inode, cookie uint64, f func(e entry) bool) (all bool) {
	if cookie < cookieDot && !f(entry{cookieDot, d.num, dotName}) {
		return false
	}
	if cookie < cookieDotDot && !f(entry{cookieDotDot, d.parent, dotDotName}) {
		return false
	}
	all = true
	entries := fs.entries(d)
	entries.ascend(key{hi: cookie + 1}, func(rec []byte) bool {
		all = f(entryOf(rec))
		return all
	})
	return all
}

// readdir is READDIR [RFC1813 §3.3.16].
func (fs *FS) readdir(c *caller, a *nfs3.ReaddirArgs) (r nfs3.ReaddirResult) {
	var d inode
	if r.Status = fs.open(c, a.Dir, &d); r.Status != nfs3.OK {
		return r
	}
	r.Dir = c.post(&d)
	if r.Status = c.listable(&d, a.Cookie, a.Verifier); r.Status != nfs3.OK {
		return r
	}
	left := min(int(a.Count), maxListing) - nfs3.ListingSize(true)
	list := fs.listing[:0]
	r.EOF = left >= 0 && fs.walk(&d, a.Cookie, func(e entry) bool {
		if left -= nfs3.EntrySize(len(e.name)); left < 0 {
			return false
		}
		list = append(list, nfs3.Entry{FileID: uint64(e.inode), Name: e.name, Cookie: e.cookie})
		return true
	})
	fs.listing = list
	if len(list) == 0 && !r.EOF {
		r.Status = nfs3.ErrTooSmall
		return r
	}
	r.Entries = list
	return r
}

// readdirplus is READDIRPLUS [RFC1813 §3.3.17].
func (fs *FS) readdirplus(c *caller, a *nfs3.ReaddirplusArgs) (r nfs3.ReaddirplusResult) {
	var d inode
	if r.Status = fs.open(c, a.Dir, &d); r.Status != nfs3.OK {
		return r
	}
	r.Dir = c.post(&d)
	if r.Status = c.listable(&d, a.Cookie, a.Verifier); r.Status != nfs3.OK {
		return r
	}
	left, names := min(int(a.MaxCount), maxListing)-nfs3.ListingSize(true), int64(a.DirCount)
	list := fs.plus[:0]
	var in inode
	r.EOF = left >= 0 && fs.walk(&d, a.Cookie, func(e entry) bool {
		left -= nfs3.EntryPlusSize(len(e.name))
		names -= int64(nfs3.EntrySize(len(e.name)))
		if left < 0 || names < 0 && len(list) > 0 { // dircount is a hint, and must not keep the client from going on
			return false
		}
		fs.load(e.inode, &in)
		list = append(list, nfs3.EntryPlus{
			FileID: uint64(e.inode), Name: e.name, Cookie: e.cookie, Attr: c.post(&in),
			Handle: nfs3.PostFH(in.handle()),
		})
		return true
	})
	fs.plus = list
	if len(list) == 0 && !r.EOF {
		r.Status = nfs3.ErrTooSmall
		return r
	}
	r.Entries = list
	return r
}
