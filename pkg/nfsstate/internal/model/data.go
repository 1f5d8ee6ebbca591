// SPDX-License-Identifier: Apache-2.0

package model

import "bfs/pkg/nfs3"

func (m *Model) readlink(c Caller, a nfs3.ReadlinkArgs) nfs3.ReadlinkResult {
	f, _, s := m.find(c, a.Symlink)
	if s == nfs3.OK && !f.lnk() {
		s = nfs3.ErrInval
	}
	r := nfs3.ReadlinkResult{Status: s, Attr: c.post(f)}
	if s == nfs3.OK {
		r.Path = f.target
	}
	return r
}

func (m *Model) read(c Caller, a nfs3.ReadArgs) nfs3.ReadResult {
	f, who, s := m.find(c, a.File)
	switch {
	case s != nfs3.OK:
	case !f.reg():
		s = nfs3.ErrInval
	case who.UID != f.attr.UID && !may(who, f, read) && !may(who, f, execute):
		s = nfs3.ErrAcces
	}
	r := nfs3.ReadResult{Status: s, Attr: c.post(f)}
	if s != nfs3.OK {
		return r
	}
	count := min(uint64(a.Count), nfs3.MaxTransfer)
	if a.Offset >= f.size {
		r.EOF = true
		return r
	}
	count = min(count, f.size-a.Offset)
	r.EOF = a.Offset+count == f.size
	r.Data = [][]byte{f.bytes(a.Offset, count)}
	return r
}

// bytes are count of them from offset on, holes as zeros.
func (f *file) bytes(offset, count uint64) []byte {
	b := make([]byte, count)
	for done := uint64(0); done < count; {
		at := (offset + done) % pageSize
		n := min(pageSize-at, count-done)
		if page := f.pages[(offset+done)/pageSize]; page != nil {
			copy(b[done:done+n], page[at:])
		}
		done += n
	}
	return b
}

func (m *Model) write(c Caller, a nfs3.WriteArgs) nfs3.WriteResult {
	f, who, s := m.find(c, a.File)
	pre := before(f)
	if s == nfs3.OK {
		s = m.judgeWrite(who, f, &a)
	}
	if s == nfs3.OK && len(a.Data) > 0 {
		f.write(a.Offset, a.Data)
		m.changed(f)
		if !who.root() {
			dropPrivilege(f)
		}
	}
	return nfs3.WriteResult{
		Status: s, Wcc: c.wcc(pre, f),
		Count: uint32(len(a.Data)), Committed: nfs3.FileSync, Verifier: m.Verifier,
	}
}

func (m *Model) judgeWrite(who Access, f *file, a *nfs3.WriteArgs) nfs3.Status {
	n := uint64(len(a.Data))
	switch {
	case who.ReadOnly:
		return nfs3.ErrROFS
	case !f.reg():
		return nfs3.ErrInval
	case who.UID != f.attr.UID && !may(who, f, write):
		return nfs3.ErrAcces
	case a.Offset > nfs3.MaxFileSize || n > nfs3.MaxFileSize-a.Offset:
		return nfs3.ErrFBig
	case n > 0 && m.full():
		return m.Full
	}
	return nfs3.OK
}

func (f *file) write(offset uint64, data []byte) {
	f.size = max(f.size, offset+uint64(len(data)))
	for len(data) > 0 {
		page := f.pages[offset/pageSize]
		if page == nil {
			page = new([pageSize]byte)
			f.pages[offset/pageSize] = page
		}
		n := copy(page[offset%pageSize:], data)
		offset, data = offset+uint64(n), data[n:]
	}
}

func (m *Model) commit(c Caller, a nfs3.CommitArgs) nfs3.CommitResult {
	f, _, s := m.find(c, a.File)
	if s == nfs3.OK && !f.reg() {
		s = nfs3.ErrInval
	}
	return nfs3.CommitResult{Status: s, Wcc: c.wcc(before(f), f), Verifier: m.Verifier}
}
