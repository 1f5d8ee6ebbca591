// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"bfs/pkg/internal/disk"
)

// The table is a file of blocks of 4096 bytes. All numbers are big endian.
//
//	0   checksum  4   CRC-32C of the rest of the block
//	4   kind      1   header, delta or commit
//	6   count     2   entries of a delta block
//	8   file      8   one more for each rewrite of the table
//	16  index     8   the block's number in the file
//	24  body
//
// Block 0 is the header: "bfs page image\0\0", format (4), the root's level (4), fan-out
// (4), 4 zeros, pages (8), group (32).
//
// A unit is delta blocks and a commit block. A delta block has up to 101 entries, each
// with page (4), slot (4) and the digest (32); a page of zeros has slot 0 and no digest.
// A commit block has the index of its unit's first block (8), seq (8), root (32) and a
// CRC-32C of the checksums of its delta blocks (4).
//
// A unit is written at the end of the one before, which was synced. So a commit block
// shows that all units before its own were durable once, and an error in these is damage.
// An error in the last unit may come from a crash, and the unit does not count.
const (
	blockBytes = 4096
	headBytes  = 24
	entryBytes = 40
	perBlock   = (blockBytes - headBytes) / entryBytes
	format     = 1

	kindHeader = 1
	kindDelta  = 2
	kindCommit = 3
)

// unitBlocks returns how many blocks a unit with this many entries takes.
func unitBlocks(entries int) uint64 { return uint64(entries+perBlock-1)/perBlock + 1 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const magic = "bfs page image\x00\x00"

// An entry says where a page lies.
type entry struct {
	page   PageNum
	slot   uint32
	digest Digest
}

// A commit is the contents of a commit block.
type commit struct {
	first uint64
	seq   SeqNum
	root  Digest
	chain uint32
}

type block []byte

// empty reports whether b was allocated and never written.
func (b block) empty() bool { return [blockBytes]byte(b) == [blockBytes]byte{} }

func (b block) kind() byte       { return b[4] }
func (b block) count() int       { return int(binary.BigEndian.Uint16(b[6:])) }
func (b block) checksum() uint32 { return binary.BigEndian.Uint32(b) }

func (b block) seal(kind byte, count int, file, index uint64) {
	b[4] = kind
	binary.BigEndian.PutUint16(b[6:], uint16(count))
	binary.BigEndian.PutUint64(b[8:], file)
	binary.BigEndian.PutUint64(b[16:], index)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
}

// valid reports whether b was written as the block with this index of this file.
func (b block) valid(file, index uint64) bool {
	return binary.BigEndian.Uint64(b[8:]) == file && binary.BigEndian.Uint64(b[16:]) == index &&
		b.checksum() == crc32.Checksum(b[4:], castagnoli) && b.count() <= perBlock
}

// header writes the options that must be the same when the table is opened.
func (b block) header(o Options) {
	top, fanout := o.Tree.Shape()
	at := append(b[:headBytes], magic...)
	at = binary.BigEndian.AppendUint32(at, format)
	at = binary.BigEndian.AppendUint32(at, uint32(top.Level))
	at = binary.BigEndian.AppendUint32(at, uint32(fanout))
	at = binary.BigEndian.AppendUint32(at, 0)
	at = binary.BigEndian.AppendUint64(at, uint64(o.Pages))
	_ = append(at, o.Group[:]...)
}

func (b block) putEntry(i int, e entry) {
	at := b[headBytes+i*entryBytes:]
	binary.BigEndian.PutUint32(at, uint32(e.page))
	binary.BigEndian.PutUint32(at[4:], e.slot)
	copy(at[8:entryBytes], e.digest[:])
}

func (b block) entry(i int) entry {
	at := b[headBytes+i*entryBytes:]
	return entry{PageNum(binary.BigEndian.Uint32(at)), binary.BigEndian.Uint32(at[4:]), Digest(at[8:entryBytes])}
}

func (b block) putCommit(c commit) {
	at := b[headBytes:]
	binary.BigEndian.PutUint64(at, c.first)
	binary.BigEndian.PutUint64(at[8:], uint64(c.seq))
	copy(at[16:], c.root[:])
	binary.BigEndian.PutUint32(at[48:], c.chain)
}

func (b block) commit() commit {
	at := b[headBytes:]
	return commit{
		first: binary.BigEndian.Uint64(at),
		seq:   SeqNum(binary.BigEndian.Uint64(at[8:])),
		root:  Digest(at[16:48]),
		chain: binary.BigEndian.Uint32(at[48:]),
	}
}

// A tableFile is the file that a table is kept in.
type tableFile struct {
	file  disk.File
	life  uint64 // the number in all blocks
	end   uint64 // blocks that count
	used  uint64 // blocks that count, and those behind them that were written
	units int
}

// A unit is the delta blocks since a commit block.
type unit struct {
	first uint64
	chain uint32 // CRC-32C of their checksums
}

func (u *unit) add(b block) { u.chain = crc32.Update(u.chain, castagnoli, b[:4]) }

// closes reports whether a commit block belongs to these blocks, and to all of them.
func (u *unit) closes(c commit) bool { return c.first == u.first && c.chain == u.chain }

// read puts all units that count into t, makes sure that they are durable, and returns
// the last commit.
func (l *tableFile) read(o Options, t *table) (last commit, err error) {
	size, err := l.file.Size()
	if err != nil {
		return last, fmt.Errorf("image: %w", err)
	}
	r := &blockReader{file: l.file, blocks: uint64(size) / blockBytes}
	if err := l.checkHeader(r, o); err != nil {
		return last, err
	}
	if last, err = l.find(r); err != nil {
		return last, err
	}
	if size%blockBytes != 0 {
		l.used = r.blocks + 1
	}
	if err := l.apply(r, t, o); err != nil {
		return last, err
	}
	return last, l.settle(r, last)
}

// settle cuts off a torn unit, and writes the last one that counts again. If the sync of
// that unit failed, an earlier process stopped, and the unit may be in the cache alone,
// where no sync finds it any more. Blocks in reserve stay: to free and allocate them at each start
// would have other syncs on that disk wait.
func (l *tableFile) settle(r *blockReader, last commit) error {
	for i := last.first; i < l.end; {
		many := r.some(i, l.end)
		for at := 0; at < len(many); at += blockBytes {
			if !block(many[at:][:blockBytes]).valid(l.life, i+uint64(at/blockBytes)) {
				return fmt.Errorf("%w: block %d cannot be read again", ErrCorrupt, i+uint64(at/blockBytes))
			}
		}
		if len(many) == 0 {
			return fmt.Errorf("%w: block %d cannot be read again", ErrCorrupt, i)
		}
		if _, err := l.file.WriteAt(many, int64(i*blockBytes)); err != nil {
			return fmt.Errorf("image: %w", err)
		}
		i += uint64(len(many) / blockBytes)
	}
	var err error
	if l.used > l.end {
		err = l.file.Truncate(int64(l.end * blockBytes))
	}
	if err = errors.Join(err, l.file.Sync()); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

func (l *tableFile) checkHeader(r *blockReader, o Options) error {
	b := r.block(0)
	if b == nil {
		return fmt.Errorf("%w: its header cannot be read", ErrCorrupt)
	}
	l.life, l.end = binary.BigEndian.Uint64(b[8:]), 1
	if !b.valid(l.life, 0) || b.kind() != kindHeader {
		return fmt.Errorf("%w: its header has a wrong checksum", ErrCorrupt)
	}
	want := make(block, blockBytes)
	want.header(o)
	if string(b[headBytes:]) != string(want[headBytes:]) {
		got, want := b[headBytes:][:72], want[headBytes:][:72]
		return fmt.Errorf("%w: %q begins with %x, want %x", ErrForeign, tableName, got, want)
	}
	return nil
}

// find finds the last unit that counts.
func (l *tableFile) find(r *blockReader) (last commit, err error) {
	u := unit{first: 1}
	for i := uint64(1); i < r.blocks; i++ {
		b := r.block(i)
		if b == nil || !b.empty() {
			l.used = i + 1
		}
		switch {
		case b == nil || !b.valid(l.life, i):
			// A commit block after it does not close the unit.
		case b.kind() == kindDelta:
			u.add(b)
		case b.kind() == kindCommit && u.closes(b.commit()):
			last, l.end, u = b.commit(), i+1, unit{first: i + 1}
			l.units++
		case b.kind() == kindCommit && b.commit().first == l.end:
			// Its own unit is torn, and so the last.
		default:
			return last, fmt.Errorf("%w: between its blocks %d and %d", ErrCorrupt, l.end, i)
		}
	}
	if l.units == 0 {
		return last, ErrNone
	}
	return last, nil
}

func (l *tableFile) apply(r *blockReader, t *table, o Options) error {
	for i := uint64(1); i < l.end; i++ {
		b := r.block(i)
		if b == nil || !b.valid(l.life, i) {
			return fmt.Errorf("%w: block %d cannot be read again", ErrCorrupt, i)
		}
		for k := 0; b.kind() == kindDelta && k < b.count(); k++ {
			e := b.entry(k)
			if e.page >= o.Pages || uint64(e.slot) > 2*uint64(o.Pages) || (e.slot == 0) != e.digest.IsZero() {
				return fmt.Errorf("%w: block %d has page %d in slot %d", ErrCorrupt, i, e.page, e.slot)
			}
			t.set(e)
		}
	}
	return nil
}

// A blockReader reads blocks of a file in turn, many at once.
type blockReader struct {
	file   disk.File
	blocks uint64 // in the file
	buf    []byte
	first  uint64 // of those in buf
}

const blocksAtOnce = 64

// block lends a block until the next call, or returns nil if it cannot be read.
func (r *blockReader) block(i uint64) block {
	if i >= r.blocks {
		return nil
	}
	if have := uint64(len(r.buf)) / blockBytes; i < r.first || i >= r.first+have {
		n := min(blocksAtOnce, r.blocks-i)
		if r.buf == nil {
			r.buf = make([]byte, blocksAtOnce*blockBytes)
		}
		r.first, r.buf = i, r.buf[:n*blockBytes]
		if !readFull(r.file, r.buf, int64(i*blockBytes)) {
			r.buf = r.buf[:blockBytes] // one of the blocks cannot be read, perhaps not this one
			if !readFull(r.file, r.buf, int64(i*blockBytes)) {
				r.buf = r.buf[:0]
				return nil
			}
		}
	}
	return block(r.buf[(i-r.first)*blockBytes:][:blockBytes])
}

// some lends as many blocks from i on as were read at once, before end. There are none if block i
// cannot be read.
func (r *blockReader) some(i, end uint64) []byte {
	if r.block(i) == nil {
		return nil
	}
	have := r.buf[(i-r.first)*blockBytes:]
	return have[:min(uint64(len(have)), (end-i)*blockBytes)]
}

func readFull(f disk.File, b []byte, off int64) bool {
	n, err := f.ReadAt(b, off)
	return n == len(b) && (err == nil || err == io.EOF)
}

// A blockWriter appends a unit to a table.
type blockWriter struct {
	file   disk.File
	life   uint64
	next   uint64 // the index of the block that is written next
	unit   unit
	buf    []byte // blocks that are complete, and one that is not
	filled int    // entries of that one
}

func (l *tableFile) writer() *blockWriter {
	return &blockWriter{file: l.file, life: l.life, next: l.end, unit: unit{first: l.end}}
}

// fresh returns the next block, still zeros.
func (w *blockWriter) fresh() (block, error) {
	if len(w.buf) == blocksAtOnce*blockBytes {
		if err := w.flush(); err != nil {
			return nil, err
		}
	}
	w.buf = append(w.buf, make([]byte, blockBytes)...)
	return w.last(), nil
}

func (w *blockWriter) last() block { return block(w.buf[len(w.buf)-blockBytes:]) }

func (w *blockWriter) seal(kind byte, count int) {
	w.last().seal(kind, count, w.life, w.next)
	w.next++
}

// header begins a file.
func (w *blockWriter) header(o Options) error {
	b, err := w.fresh()
	if err != nil {
		return err
	}
	b.header(o)
	w.seal(kindHeader, 0)
	w.unit.first = w.next
	return w.flush()
}

func (w *blockWriter) add(e entry) error {
	if w.filled == 0 {
		if _, err := w.fresh(); err != nil {
			return err
		}
	}
	w.last().putEntry(w.filled, e)
	if w.filled++; w.filled == perBlock {
		w.sealDelta()
	}
	return nil
}

func (w *blockWriter) sealDelta() {
	if w.filled > 0 {
		w.seal(kindDelta, w.filled)
		w.unit.add(w.last())
		w.filled = 0
	}
}

// commit ends the unit, and writes its last blocks.
func (w *blockWriter) commit(seq SeqNum, root Digest) error {
	w.sealDelta()
	b, err := w.fresh()
	if err != nil {
		return err
	}
	b.putCommit(commit{first: w.unit.first, seq: seq, root: root, chain: w.unit.chain})
	w.seal(kindCommit, 0)
	return w.flush()
}

func (w *blockWriter) flush() error {
	off := int64(w.next)*blockBytes - int64(len(w.buf))
	if _, err := w.file.WriteAt(w.buf, off); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	w.buf = w.buf[:0]
	return nil
}
