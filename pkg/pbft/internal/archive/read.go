// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"

	"bfs/pkg/pbft/internal/image"
)

// An Archive is a file whose certificate and length are those of an archive.
type Archive struct {
	Certificate
	file  io.ReaderAt
	chain uint32 // the checksum at its end
}

// Open reads the certificate. Nothing else is checked: see Check.
func Open(file io.ReaderAt, size int64) (*Archive, error) {
	b := make([]byte, headBytes)
	if size < headBytes+endBytes {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrNone, size)
	}
	if _, err := file.ReadAt(b, 0); err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	c, err := decode(b)
	if err != nil {
		return nil, err
	}
	if want := c.size(); size != want {
		what := "it was cut short"
		if size > want {
			what = "something stands behind it"
		}
		return nil, fmt.Errorf("%w: the file has %d bytes, and %d pages take %d: %s",
			ErrDamaged, size, c.Pages, want, what)
	}
	end := b[:endBytes]
	if _, err := file.ReadAt(end, size-endBytes); err != nil {
		return nil, fmt.Errorf("read the last bytes: %w", err)
	}
	if string(end[:12]) != endMagic+"\x00\x00\x00\x00" {
		return nil, fmt.Errorf("%w: it does not have the end mark in its last %d bytes", ErrDamaged, endBytes)
	}
	return &Archive{Certificate: c, file: file, chain: binary.BigEndian.Uint32(end[12:])}, nil
}

// A cursor reads pages in order.
type cursor struct {
	a      *Archive
	buf    []byte
	at     int64
	count  int // pages in buf
	next   int // of these
	before uint64
	last   PageNum
	some   bool // last is one
	chain  uint32
}

func (a *Archive) cursor() *cursor {
	return &cursor{a: a, buf: make([]byte, blockHead+perBlock*perPage), at: headBytes}
}

// page lends the next page until the call after it. The error is io.EOF behind the last.
func (c *cursor) page() (n PageNum, contents []byte, err error) {
	if c.next == c.count {
		if err := c.block(); err != nil {
			return 0, nil, err
		}
	}
	n = PageNum(binary.BigEndian.Uint64(c.buf[blockHead+8*c.next:]))
	contents = c.buf[blockHead+8*c.count+pageSize*c.next:][:pageSize]
	if c.some && n <= c.last {
		return 0, nil, fmt.Errorf("%w: page %d follows page %d", ErrFalse, n, c.last)
	}
	c.last, c.some = n, true
	c.next++
	return n, contents, nil
}

// block reads the next block, whose length follows from the certificate.
func (c *cursor) block() error {
	left := c.a.Pages - c.before
	if left == 0 {
		return c.end()
	}
	count := int(min(left, perBlock))
	b := c.buf[:blockHead+perPage*count]
	where := fmt.Sprintf("block %d, which has %d of its pages from byte %d on", c.before/perBlock, count, c.at)
	if _, err := c.a.file.ReadAt(b, c.at); err != nil {
		return fmt.Errorf("read %s: %w", where, err)
	}
	if binary.BigEndian.Uint32(b) != crc32.Checksum(b[4:], castagnoli) {
		return fmt.Errorf("%w: %s, does not have its checksum", ErrDamaged, where)
	}
	if got := binary.BigEndian.Uint32(b[4:]); got != uint32(count) {
		return fmt.Errorf("%w: %s, says that it has %d", ErrFalse, where, got)
	}
	c.chain = crc32.Update(c.chain, castagnoli, b[:4])
	c.at += int64(len(b))
	c.before += uint64(count)
	c.count, c.next = count, 0
	return nil
}

// end checks the checksum of all blocks.
func (c *cursor) end() error {
	head := c.a.encode()
	if crc32.Update(c.chain, castagnoli, head[:4]) != c.a.chain {
		return fmt.Errorf("%w: the checksum of all blocks, in its last 4 bytes, is another", ErrDamaged)
	}
	return io.EOF
}

// Check reads the archive, and returns nil if it is undamaged and its pages have the
// certificate's root. The caller decides whether that root is to be believed. It takes 43
// bytes of memory for each page.
func (a *Archive) Check(tree image.Tree, progress func(pages uint64)) error {
	_, err := a.sums(tree, nil, progress)
	return err
}

// An Edit changes a page of a checkpoint in place, and reports whether it did.
type Edit func(n PageNum, contents []byte) (changed bool, err error)

// sums checks the archive, and returns the digests of its pages after edit.
func (a *Archive) sums(tree image.Tree, edit Edit, progress func(pages uint64)) (*sums, error) {
	top, fanout := tree.Shape()
	if top.Level != a.Level || fanout != int(a.Fanout) {
		return nil, fmt.Errorf("%w: its tree has %d levels of %d, and this group's %d of %d: it is another "+
			"group's, or state.size is another", ErrFalse, a.Level, a.Fanout, top.Level, fanout)
	}
	s := &sums{tree: tree, top: top, fanout: uint64(fanout)}
	var edited []sum
	c := a.cursor()
	for {
		n, contents, err := c.page()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		d := tree.Digest(n, contents)
		if d.IsZero() || !s.inRange(n) {
			return nil, fmt.Errorf("%w: page %d is zeros, or above all pages of the state", ErrFalse, n)
		}
		s.add(n, d)
		if edit != nil {
			if changed, err := edit(n, contents); err != nil {
				return nil, fmt.Errorf("page %d: %w", n, err)
			} else if changed {
				edited = append(edited, sum{uint64(n), tree.Digest(n, contents)})
			}
		}
		if progress != nil {
			progress(uint64(s.pages()))
		}
	}
	if got := s.build(); got != a.Root {
		return nil, fmt.Errorf("%w: its pages have root %x, and its certificate says %x", ErrFalse, got[:], a.Root[:])
	}
	s.replace(edited)
	return s, nil
}

// Renewed checks the archive, and returns the root that its pages have after edit.
func (a *Archive) Renewed(tree image.Tree, edit Edit, progress func(pages uint64)) (Digest, error) {
	s, err := a.sums(tree, edit, progress)
	if err != nil {
		return Digest{}, err
	}
	return s.root(), nil
}

// Extract checks the archive, and has its pages, after edit, written to an empty image as
// the checkpoint of this root.
func (a *Archive) Extract(to *image.Image, root Digest, tree image.Tree, edit Edit, progress func(pages uint64)) error {
	s, err := a.sums(tree, edit, nil)
	if err != nil {
		return err
	}
	if got := s.root(); got != root {
		return fmt.Errorf("%w: its state, in this epoch, has root %x, and the group file says %x: this is "+
			"another archive than the one that the group file was made for", ErrFalse, got[:], root[:])
	}
	u, err := to.Begin(a.Seq, root)
	if err != nil {
		return err
	}
	defer u.Abort()
	from := &source{sums: s, cursor: a.cursor(), edit: edit}
	for done := false; !done; {
		if done, err = u.Step(from, stepPages); err != nil {
			return err
		}
		if err := u.Write(); err != nil {
			return err
		}
		if progress != nil {
			progress(from.pages)
		}
	}
	return u.Commit()
}

// stepPages is how many pages are copied before they are written.
const stepPages = 1024

// A source is what an image's update reads. It asks for pages in rising order.
type source struct {
	*sums
	cursor *cursor
	edit   Edit
	pages  uint64
}

// Children implements image.Source.
func (x *source) Children(_ SeqNum, id NodeID) ([]Digest, error) { return x.children(id), nil }

// PageAt implements image.Source. The file may have changed since it was checked.
func (x *source) PageAt(_ SeqNum, n PageNum) ([]byte, error) {
	for {
		at, contents, err := x.cursor.page()
		if err != nil {
			return nil, err
		}
		if at < n {
			continue
		}
		if at == n && x.edit != nil {
			if _, err := x.edit(n, contents); err != nil {
				return nil, fmt.Errorf("page %d: %w", n, err)
			}
		}
		if at > n || x.tree.Digest(n, contents) != x.digest(n) {
			return nil, fmt.Errorf("%w: it has changed while it was read, at page %d", ErrDamaged, n)
		}
		x.pages++
		return contents, nil
	}
}
