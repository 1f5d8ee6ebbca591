// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"io"
	"io/fs"
	"slices"
	"strings"

	"bfs/pkg/nfs3"
)

// listingBytes is the size of one READDIRPLUS in bytes: some thousand entries.
const listingBytes = 256 << 10

// A listing goes through a directory. Its place is a cookie, which stays right while
// entries come and go [RFC1813 §3.3.17].
type listing struct {
	cookie   uint64
	verifier nfs3.Verifier
	ready    []*info
	end      bool
}

// more reads on until there are entries, or no more.
func (l *listing) more(f *FS, dir nfs3.Handle) error {
	for len(l.ready) == 0 && !l.end {
		a := &nfs3.ReaddirplusArgs{Dir: dir.FileHandle(), Cookie: l.cookie, Verifier: l.verifier,
			DirCount: listingBytes, MaxCount: listingBytes}
		r, err := nfs(f, nfs3.ProcReaddirplus, a, nfs3.DecodeReaddirplusResult)
		if err == nil {
			err = statusError(r.Status)
		}
		if err != nil {
			return err
		}
		if len(r.Entries) == 0 && !r.EOF {
			return io.ErrNoProgress
		}
		if err := l.take(f, dir, r.Entries); err != nil {
			return err
		}
		l.verifier, l.end = r.Verifier, r.EOF
	}
	return nil
}

func (l *listing) take(f *FS, dir nfs3.Handle, entries []nfs3.EntryPlus) error {
	for i := range entries {
		e := &entries[i]
		l.cookie = e.Cookie
		name := string(e.Name)
		if name == "." || name == ".." {
			continue
		}
		attr := e.Attr.Attr
		if !e.Attr.Present {
			n, err := f.lookup(dir, name)
			if err != nil {
				return err
			}
			attr = n.attr
		}
		l.ready = append(l.ready, &info{name: name, attr: attr})
	}
	return nil
}

// list returns all entries, by name.
func (f *FS) list(dir nfs3.Handle) ([]*info, error) {
	var l listing
	var all []*info
	for !l.end {
		if err := l.more(f, dir); err != nil {
			return nil, err
		}
		all = append(all, l.ready...)
		l.ready = nil
	}
	slices.SortFunc(all, func(a, b *info) int { return strings.Compare(a.name, b.name) })
	return all, nil
}

func dirEntries(list []*info) []fs.DirEntry {
	entries := make([]fs.DirEntry, len(list))
	for i, e := range list {
		entries[i] = e
	}
	return entries
}
