// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"slices"
	"strings"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
)

// Open reads the journal that an earlier life of the replica left in fs, and calls replay for each
// record, in order; the sticky records that were still needed come first. The contents are lent for
// the call. ErrCorrupt says that nothing can be trusted; then Discard makes an empty journal of it.
// Without files the journal is empty.
func Open(f disk.FS, group message.Digest, options Options,
	replay func(seq message.SeqNum, record []byte) error) (*Journal, error) {
	j := &Journal{fs: f, group: group, options: options}
	r := &reader{limit: int64(options.SegmentBytes)}
	segments, err := j.list(r)
	if err == nil {
		err = j.read(r, segments, replay)
	}
	if err != nil {
		_ = j.Close()
		return nil, err
	}
	j.demand.before = int(j.files.Load()) // what an earlier life needed
	return j, nil
}

// Discard removes a journal's files.
func Discard(f disk.FS) error {
	names, err := f.List()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.HasPrefix(name, prefix) {
			if err := f.Remove(name); err != nil {
				return err
			}
		}
	}
	return f.Sync()
}

// prefix begins the names of segments.
const prefix = "journal-"

// list opens all segments. Those without a valid header are free; the others are returned
// by number, rising.
func (j *Journal) list(r *reader) (segments []*segment, err error) {
	names, err := j.fs.List()
	if err != nil {
		return nil, fmt.Errorf("list the journal's segments: %w", err)
	}
	for _, name := range names {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		file, err := j.fs.Open(name)
		if err != nil {
			return nil, fmt.Errorf("open a segment: %w", err)
		}
		s := &segment{name: name, file: file, end: int64(j.options.SegmentBytes)}
		j.free = append(j.free, s) // until read finds that it is needed; Close finds it here
		j.files.Add(1)
		if err := s.readHeader(j.group); err != nil {
			return nil, err
		}
		if s.number == 0 {
			if s.number, err = r.guessNumber(s); err != nil {
				return nil, err
			}
		}
		if s.filled = s.number != 0; s.filled {
			segments = append(segments, s)
			j.number = max(j.number, s.number)
		}
	}
	slices.SortFunc(segments, func(a, b *segment) int { return cmp.Compare(a.number, b.number) })
	return segments, nil
}

// readHeader sets the segment's number, 0 if the header is not valid. A crash in the middle of turn
// leaves an invalid header, and so does a disk that has changed it: then the blocks tell the
// number.
func (s *segment) readHeader(group message.Digest) error {
	var b [segmentHeader]byte
	if size, err := s.file.Size(); err != nil || size < segmentHeader {
		return err
	}
	if _, err := s.file.ReadAt(b[:], 0); err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	switch {
	case binary.LittleEndian.Uint32(b[48:]) != crc32.Checksum(b[:48], castagnoli):
		return nil
	case [8]byte(b[:8]) != magic:
		return fmt.Errorf("%s: %w: its format is not this program's", s.name, ErrForeign)
	case message.Digest(b[16:48]) != group:
		return fmt.Errorf("%s: %w", s.name, ErrForeign)
	}
	s.number = binary.LittleEndian.Uint64(b[8:])
	return nil
}

// A block is a block as it was read from a segment. What it holds is lent: the next read of the
// segment may overwrite it.
type block struct {
	segment        *segment
	first, durable Position
	oldest         uint64
	records        []byte
	at             int64  // offset in the segment
	raw            []byte // all of it
}

// read finds the needed segments, and replays them.
func (j *Journal) read(r *reader, segments []*segment, replay func(message.SeqNum, []byte) error) error {
	needed, err := j.needed(r, segments)
	if err != nil || len(needed) == 0 {
		return err
	}
	var durable Position // the highest that a block speaks of
	var oldest uint64    // that the last block with records of its own names
	var tail []block     // those that no later block calls durable
	for i, s := range needed {
		whole := false
		err := r.blocks(s, func(b *block) error {
			durable = max(durable, b.durable)
			if b.at == blockSize {
				if whole = true; i == 0 {
					j.written = b.first
				}
			}
			if !whole || b.first != j.written {
				return nil // it follows records or copies that are lost
			}
			if !b.copies() {
				oldest = b.oldest
			}
			tail = slices.DeleteFunc(tail, func(x block) bool { return x.first < b.durable })
			tail = append(tail, block{segment: s, first: b.first, at: b.at, raw: slices.Clone(b.raw)})
			return j.replay(b, i == 0, replay)
		})
		if err == nil && i == 0 && !whole {
			err = fmt.Errorf("%w: the beginning of segment %d is lost", ErrCorrupt, s.number)
		}
		if err != nil {
			return err
		}
	}
	if durable > j.written {
		return fmt.Errorf("%w: it ends at record %d, but all up to %d was durable", ErrCorrupt, j.written, durable)
	}
	var named []*segment
	for _, s := range segments {
		if oldest <= s.number && s.number < needed[0].number {
			named = append(named, s)
		}
	}
	return j.adopt(slices.DeleteFunc(needed, func(s *segment) bool { return !s.used }), named, tail)
}

// needed are the segments from the oldest that the last durable block names on.
func (j *Journal) needed(r *reader, segments []*segment) ([]*segment, error) {
	var last block
	for _, s := range slices.Backward(segments) {
		err := r.blocks(s, func(b *block) error {
			if b.first >= last.first {
				last = *b
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		if last.segment != nil {
			break
		}
	}
	if last.segment == nil {
		return nil, nil
	}
	needed := slices.DeleteFunc(slices.Clone(segments), func(s *segment) bool { return s.number < last.oldest })
	if len(needed) == 0 || needed[0].number != last.oldest {
		return nil, fmt.Errorf("%w: segment %d is missing", ErrCorrupt, last.oldest)
	}
	return needed, nil
}

// copies reports whether a block holds copies of sticky records, and no others.
func (b *block) copies() bool {
	return len(b.records) > slotOffset && b.records[slotOffset]&isCopy != 0
}

// A reader reads segments a piece after the other, through one buffer: a segment in memory would be
// fresh memory, which takes the kernel longer to give than the disk to read.
type reader struct {
	limit int64 // bytes of a segment

	segment *segment
	size    int64
	buffer  []byte
	from    int64 // where the buffer's contents are in the segment
	have    []byte
}

// readAtOnce is how much a reader reads at a time, or a block if that is longer.
const readAtOnce = 256 << 10

// open makes the reader read a segment.
func (r *reader) open(s *segment) error {
	size, err := s.file.Size()
	if err != nil {
		return fmt.Errorf("read %s: %w", s.name, err)
	}
	r.segment, r.size, r.from, r.have = s, min(size, r.limit), 0, nil
	return nil
}

// at returns the segment's next length bytes from there on. They are good until the next call.
func (r *reader) at(off int64, length int) ([]byte, error) {
	if end := r.from + int64(len(r.have)); off < r.from || off+int64(length) > end {
		piece := int(min(r.size-off, int64(max(length, readAtOnce))))
		if piece > len(r.buffer) {
			r.buffer = make([]byte, piece)
		}
		r.from, r.have = off, r.buffer[:piece]
		if _, err := r.segment.file.ReadAt(r.have, off); err != nil {
			r.have = nil
			return nil, fmt.Errorf("read %s: %w", r.segment.name, err)
		}
	}
	return r.have[off-r.from:][:length], nil
}

// block reads the block of segment number that begins there, if a valid one does.
func (r *reader) block(off int64, number uint64) (b block, ok bool, err error) {
	header, err := r.at(off, blockHeader)
	if err != nil {
		return b, false, err
	}
	length := int64(blockHeader) + int64(binary.LittleEndian.Uint32(header[4:]))
	if length == blockHeader || length > r.size-off || binary.LittleEndian.Uint64(header[8:]) != number {
		return b, false, nil
	}
	raw, err := r.at(off, int(min((length+blockSize-1)/blockSize*blockSize, r.size-off)))
	if err != nil || binary.LittleEndian.Uint32(raw) != crc32.Checksum(raw[4:length], castagnoli) {
		return b, false, err
	}
	return block{
		segment: r.segment, first: Position(binary.LittleEndian.Uint64(raw[16:])),
		durable: Position(binary.LittleEndian.Uint64(raw[24:])), oldest: binary.LittleEndian.Uint64(raw[32:]),
		records: raw[blockHeader:length], at: off, raw: raw,
	}, true, nil
}

// guessNumber is the highest number that a valid block of the segment names, 0 if there is none.
func (r *reader) guessNumber(s *segment) (highest uint64, err error) {
	if err := r.open(s); err != nil {
		return 0, err
	}
	for off := int64(blockSize); off+blockHeader <= r.size; off += blockSize {
		header, err := r.at(off, blockHeader)
		if err != nil {
			return 0, err
		}
		number := binary.LittleEndian.Uint64(header[8:])
		if _, ok, err := r.block(off, number); err != nil {
			return 0, err
		} else if ok {
			highest = max(highest, number)
		}
	}
	return highest, nil
}

// blocks calls f for every valid block of a segment.
func (r *reader) blocks(s *segment, f func(*block) error) error {
	if err := r.open(s); err != nil {
		return err
	}
	for off := int64(blockSize); off+blockHeader <= r.size; {
		b, ok, err := r.block(off, s.number)
		switch {
		case err != nil:
			return err
		case !ok:
			off += blockSize
			continue
		}
		off += int64(len(b.raw))
		if err := f(&b); err != nil {
			return err
		}
	}
	return nil
}

// replay takes the records of a block. Copies count only at the beginning, where their originals
// are gone.
func (j *Journal) replay(b *block, oldest bool, replay func(message.SeqNum, []byte) error) error {
	for rest := b.records; len(rest) > 0; {
		if len(rest) < recordHeader {
			return fmt.Errorf("%w: a record is cut short", ErrCorrupt)
		}
		length := recordHeader + int(binary.LittleEndian.Uint32(rest))
		if length > len(rest) || rest[slotOffset]&^isCopy >= Slots {
			return fmt.Errorf("%w: a record is not one", ErrCorrupt)
		}
		seq, copied := message.SeqNum(binary.LittleEndian.Uint64(rest[4:])), rest[slotOffset]&isCopy != 0
		if !copied {
			b.segment.seq, b.segment.used = max(b.segment.seq, seq), true
			j.written++
		}
		if !copied || oldest {
			if err := replay(seq, rest[recordHeader:length]); err != nil {
				return err
			}
			if rest[slotOffset]&^isCopy != 0 {
				record := slices.Clone(rest[:length])
				record[slotOffset] &^= isCopy
				j.stick(record)
			}
		}
		rest = rest[length:]
	}
	return nil
}

// adopt takes over the segments that hold records, and makes them durable: a crash of the program
// alone may have left them with the kernel only. A segment that holds copies only is the rest of a
// flush; the records that were copied may be lost.
//
// The last block of all may hold copies only, and be overwritten when its segment is used again.
// The block before it may name an older segment. The segments from that one on are as if they had
// just been released: they become free when the next flush has made another block durable.
//
// The blocks of the tail are written again, and the headers of segments that they begin. If the
// sync after which they were to be durable failed, the kernel has them and takes them for written,
// so that no sync would bring them to the disk.
func (j *Journal) adopt(needed, named []*segment, tail []block) error {
	for _, b := range tail {
		if b.at == blockSize {
			if err := j.writeHeader(b.segment); err != nil {
				return err
			}
		}
		if _, err := b.segment.file.WriteAt(b.raw, b.at); err != nil {
			return fmt.Errorf("write %s: %w", b.segment.name, err)
		}
	}
	for _, s := range needed {
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", s.name, err)
		}
	}
	if err := j.fs.Sync(); err != nil {
		return fmt.Errorf("sync the journal's directory: %w", err)
	}
	j.segments, j.released = needed, named
	j.free = slices.DeleteFunc(j.free, func(s *segment) bool {
		return slices.Contains(needed, s) || slices.Contains(named, s)
	})
	slices.SortStableFunc(j.free, filledLast)
	j.next, j.durable = j.written, j.written
	return nil
}

// filledLast orders free segments: the last is used first, and one that was written
// before need not be filled.
func filledLast(a, b *segment) int {
	switch {
	case a.filled == b.filled:
		return 0
	case b.filled:
		return -1
	}
	return 1
}
