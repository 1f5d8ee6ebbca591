// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// A Writer writes an archive. It keeps one block in memory.
type Writer struct {
	file  io.WriterAt
	block []byte // with room for the head and 64 pages
	count int    // pages in it
	at    int64
	chain uint32 // CRC-32C of the checksums of the blocks so far
	pages uint64
	last  PageNum
}

// NewWriter begins an archive in an empty file.
func NewWriter(file io.WriterAt) *Writer {
	return &Writer{file: file, at: headBytes, block: make([]byte, blockHead+perBlock*perPage)}
}

// Page adds a page that is not zeros. Pages come in rising order.
func (w *Writer) Page(n PageNum, contents []byte) error {
	if len(contents) != pageSize || w.pages > 0 && n <= w.last || w.pages >= maxPages {
		return fmt.Errorf("archive: page %d of %d bytes after %d pages up to %d", n, len(contents), w.pages, w.last)
	}
	binary.BigEndian.PutUint64(w.block[blockHead+8*w.count:], uint64(n))
	copy(w.block[blockHead+8*perBlock+pageSize*w.count:], contents)
	w.count++
	w.pages++
	w.last = n
	if w.count == perBlock {
		return w.flush()
	}
	return nil
}

// flush writes the block.
func (w *Writer) flush() error {
	if w.count == 0 {
		return nil
	}
	b := w.block
	if w.count < perBlock { // the numbers and the pages lie together
		copy(b[blockHead+8*w.count:], b[blockHead+8*perBlock:][:pageSize*w.count])
		b = b[:blockHead+perPage*w.count]
	}
	binary.BigEndian.PutUint32(b[4:], uint32(w.count))
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	w.chain = crc32.Update(w.chain, castagnoli, b[:4])
	w.count = 0
	return w.write(b)
}

func (w *Writer) write(b []byte) error {
	if _, err := w.file.WriteAt(b, w.at); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	w.at += int64(len(b))
	return nil
}

// Close ends the archive with the certificate, whose Pages it sets. Then sign signs it,
// unless the signer is nobody.
func (w *Writer) Close(c *Certificate, sign func(covered []byte) []byte) error {
	if len(c.Name) > 255 {
		return fmt.Errorf("archive: the group's name has %d bytes, want at most 255", len(c.Name))
	}
	if err := w.flush(); err != nil {
		return err
	}
	c.Pages, c.Signature = w.pages, nil
	if c.Signer != Nobody {
		c.Signature = sign(c.Covered())
	}
	head := c.encode()
	end := append([]byte(endMagic), 0, 0, 0, 0)
	if err := w.write(binary.BigEndian.AppendUint32(end, crc32.Update(w.chain, castagnoli, head[:4]))); err != nil {
		return err
	}
	if _, err := w.file.WriteAt(head, 0); err != nil {
		return fmt.Errorf("archive: %w", err)
	}
	return nil
}
