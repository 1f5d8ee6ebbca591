// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"encoding/binary"

	"bfs/pkg/nfs3"
)

// zeros are the contents of a hole's page.
var zeros [pageSize]byte

// readData is READ [RFC1813 §3.3.6].
func (fs *FS) readData(c *caller, a *nfs3.ReadArgs) (r nfs3.ReadResult) {
	var in inode
	if r.Status = fs.open(c, a.File, &in); r.Status != nfs3.OK {
		return r
	}
	r.Attr = c.post(&in)
	switch {
	case in.kind != nfs3.TypeReg:
		r.Status = nfs3.ErrInval
		return r
	case !c.who.mayData(&in, mayRead):
		r.Status = nfs3.ErrAcces
		return r
	case a.Offset >= in.size:
		r.EOF = true
		return r
	}
	count := min(uint64(a.Count), nfs3.MaxTransfer, in.size-a.Offset)
	r.EOF = a.Offset+count == in.size
	r.Data = fs.lend(&in, a.Offset, count)
	return r
}

// lend is a stretch of the file as pieces of its pages, good until the next operation.
func (fs *FS) lend(in *inode, offset, count uint64) [][]byte {
	fs.pieces = fs.pieces[:0]
	for end := offset + count; offset < end; {
		page := zeros[:]
		if p := fs.mapGet(in, offset/pageSize); p != 0 {
			page = fs.read(p)
		}
		from := offset % pageSize
		piece := page[from:min(pageSize, from+end-offset)]
		fs.pieces = append(fs.pieces, piece)
		offset += uint64(len(piece))
	}
	return fs.pieces
}

// write is WRITE [RFC1813 §3.3.7]. Data is as stable as the group when the operation is
// executed, so every answer is FILE_SYNC.
func (fs *FS) write(c *caller, a *nfs3.WriteArgs) (r nfs3.WriteResult) {
	var in inode
	if r.Status = fs.open(c, a.File, &in); r.Status != nfs3.OK {
		return r
	}
	before := pre(&in)
	if r.Status = fs.mayStore(c, &in, a); r.Status == nfs3.OK {
		if len(a.Data) > 0 {
			fs.storeData(c, &in, a)
		}
		r.Count, r.Committed, r.Verifier = uint32(len(a.Data)), nfs3.FileSync, fs.verifier()
	}
	r.Wcc = c.wcc(before, &in)
	return r
}

// mayStore judges a WRITE, and sees that there is room for it.
func (fs *FS) mayStore(c *caller, in *inode, a *nfs3.WriteArgs) nfs3.Status {
	switch {
	case c.readOnly:
		return nfs3.ErrROFS
	case in.kind != nfs3.TypeReg:
		return nfs3.ErrInval
	case !c.who.mayData(in, mayWrite):
		return nfs3.ErrAcces
	case a.Offset > nfs3.MaxFileSize || uint64(len(a.Data)) > nfs3.MaxFileSize-a.Offset:
		return nfs3.ErrFBig
	case len(a.Data) == 0:
		return nfs3.OK
	}
	last := (a.Offset + uint64(len(a.Data)) - 1) / pageSize
	return fs.room(in.export, fs.mapMissing(in, a.Offset/pageSize, last), 0)
}

// storeData copies a WRITE's data to the file's pages. A page that is written whole is
// not read first, and takes the digest along if the library has it.
func (fs *FS) storeData(c *caller, in *inode, a *nfs3.WriteArgs) {
	in.size = max(in.size, a.Offset+uint64(len(a.Data)))
	for offset, data := a.Offset, a.Data; len(data) > 0; {
		p, _ := fs.mapMake(in, offset/pageSize)
		from := offset % pageSize
		piece := data[:min(pageSize-from, uint64(len(data)))]
		if len(piece) < pageSize {
			copy(fs.modify(p)[from:], piece)
		} else if block, ok := c.block(len(data) + a.Behind()); ok {
			fs.put(p, piece, block)
		} else {
			copy(fs.overwrite(p), piece)
		}
		data, offset = data[len(piece):], offset+uint64(len(piece))
	}
	c.touchData(in)
	in.mtime, in.ctime = c.now, c.now
	fs.save(in)
}

// resize sets the size. Bytes that are cut off read as zeros if the file grows again: the rest of
// the last page is zeroed, so bytes behind the size are always zero. The caller saves the inode.
func (fs *FS) resize(in *inode, size uint64) {
	if size < in.size {
		fs.mapCut(in, (size+pageSize-1)/pageSize)
		if rest := size % pageSize; rest > 0 {
			if p := fs.mapGet(in, size/pageSize); p != 0 {
				clear(fs.modify(p)[rest:])
			}
		}
	}
	in.size = size
}

// commit is COMMIT [RFC1813 §3.3.21]: there is nothing left to do.
func (fs *FS) commit(c *caller, a *nfs3.CommitArgs) (r nfs3.CommitResult) {
	var in inode
	if r.Status = fs.open(c, a.File, &in); r.Status != nfs3.OK {
		return r
	}
	if in.kind != nfs3.TypeReg {
		r.Status = nfs3.ErrInval
	}
	r.Wcc = c.wcc(pre(&in), &in)
	r.Verifier = fs.verifier()
	return r
}

// verifier returns the write verifier. It changes when the group begins a new epoch,
// after it has lost acknowledged data.
func (fs *FS) verifier() (v nfs3.Verifier) {
	binary.BigEndian.PutUint64(v[:], fs.config.Epoch)
	return v
}

// readlink is READLINK [RFC1813 §3.3.5].
func (fs *FS) readlink(c *caller, a *nfs3.ReadlinkArgs) (r nfs3.ReadlinkResult) {
	var in inode
	if r.Status = fs.open(c, a.Symlink, &in); r.Status != nfs3.OK {
		return r
	}
	r.Attr = c.post(&in)
	if in.kind != nfs3.TypeLnk {
		r.Status = nfs3.ErrInval
		return r
	}
	if text := fs.text(&in); goodText(text) == nfs3.OK {
		r.Path = text
	} else {
		r.Status = nfs3.ErrInval // kept by a version that did not judge texts
	}
	return r
}

// goodText checks the text of a symlink: 1 to MaxPath bytes without a NUL, because a
// client's programs can express no other.
func goodText(text []byte) nfs3.Status {
	switch {
	case len(text) > nfs3.MaxPath:
		return nfs3.ErrNameTooLong
	case len(text) == 0, bytes.IndexByte(text, 0) >= 0:
		return nfs3.ErrInval
	}
	return nfs3.OK
}

// text returns the text of a symlink. The slice is part of its inode's page, or of a page
// of its own if the text is long.
func (fs *FS) text(in *inode) []byte {
	if in.size > inodeTextSize {
		return fs.read(in.direct[0])[:in.size]
	}
	p, off := fs.inodeAt(in.num)
	return fs.read(p)[off+inodeText:][:in.size]
}

// textNeeds counts the pages that a symlink's text takes.
func textNeeds(text []byte) uint64 {
	if len(text) > inodeTextSize {
		return 1
	}
	return 0
}

// setText gives a new symlink its text. The caller saves the inode, which leaves the text alone.
func (fs *FS) setText(in *inode, text []byte) {
	in.size = uint64(len(text))
	if textNeeds(text) > 0 {
		p, _ := fs.mapMake(in, 0)
		copy(fs.modify(p), text)
		return
	}
	p, off := fs.inodeAt(in.num)
	copy(fs.modify(p)[off+inodeText:off+inodeSize], text)
}
