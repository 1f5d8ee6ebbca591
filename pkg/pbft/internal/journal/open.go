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
	segments, err := j.list()
	if err == nil {
		err = j.read(segments, replay)
	}
	if err != nil {
		_ = j.Close()
		return nil, err
	}
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
func (j *Journal) list() (segments []*segment, err error) {
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
			if err := s.guessNumber(j.options); err != nil {
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

// A block is a block as it was read from a segment.
type block struct {
	segment        *segment
	first, durable Position
	oldest         uint64
	records        []byte
	at             int64  // offset in the segment
	raw            []byte // all of it
}

// read finds the needed segments, and replays them.
func (j *Journal) read(segments []*segment, replay func(message.SeqNum, []byte) error) error {
	needed, err := j.needed(segments)
	if err != nil || len(needed) == 0 {
		return err
	}
	var durable Position // the highest that a block speaks of
	var tail []block     // those that no later block calls durable
	begun := false
	for i, s := range needed {
		err := s.blocks(j.options, func(b *block) error {
			durable = max(durable, b.durable)
			if !begun {
				if b.at != blockSize {
					return fmt.Errorf("%w: the beginning of segment %d is lost", ErrCorrupt, s.number)
				}
				begun, j.written = true, b.first
			}
			if b.first != j.written {
				return nil // it follows records that are lost
			}
			tail = append(slices.DeleteFunc(tail, func(x block) bool { return x.first < b.durable }), *b)
			return j.replay(b, i == 0, replay)
		})
		if err != nil {
			return err
		}
	}
	if durable > j.written {
		return fmt.Errorf("%w: it ends at record %d, but all up to %d was durable", ErrCorrupt, j.written, durable)
	}
	return j.adopt(slices.DeleteFunc(needed, func(s *segment) bool { return !s.used }), tail)
}

// needed are the segments from the oldest that the last durable block names on.
func (j *Journal) needed(segments []*segment) ([]*segment, error) {
	var last block
	for _, s := range slices.Backward(segments) {
		err := s.blocks(j.options, func(b *block) error {
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
	if needed[0].number != last.oldest {
		return nil, fmt.Errorf("%w: segment %d is missing", ErrCorrupt, last.oldest)
	}
	return needed, nil
}

// guessNumber sets the number to the highest that a valid block names, 0 if there is none.
func (s *segment) guessNumber(options Options) error {
	content, err := s.content(options)
	if err != nil {
		return err
	}
	var highest uint64
	for at := blockSize; at+blockHeader <= len(content); at += blockSize {
		s.number = binary.LittleEndian.Uint64(content[at+8:])
		if _, ok := s.parse(content[at:]); ok {
			highest = max(highest, s.number)
		}
	}
	s.number = highest
	return nil
}

func (s *segment) content(options Options) ([]byte, error) {
	size, err := s.file.Size()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	content := make([]byte, min(size, int64(options.SegmentBytes)))
	if _, err := s.file.ReadAt(content, 0); err != nil {
		return nil, fmt.Errorf("read %s: %w", s.name, err)
	}
	return content, nil
}

// blocks calls f for every valid block of a segment.
func (s *segment) blocks(options Options, f func(*block) error) error {
	content, err := s.content(options)
	if err != nil {
		return err
	}
	for at := blockSize; at+blockHeader <= len(content); {
		b, ok := s.parse(content[at:])
		if !ok {
			at += blockSize
			continue
		}
		length := (blockHeader + len(b.records) + blockSize - 1) / blockSize * blockSize
		next := min(at+length, len(content))
		b.at, b.raw = int64(at), content[at:next]
		if err := f(&b); err != nil {
			return err
		}
		at = next
	}
	return nil
}

// parse reads the block at the front of b, if there is a valid one of this segment.
func (s *segment) parse(b []byte) (block, bool) {
	length := int(binary.LittleEndian.Uint32(b[4:]))
	if length == 0 || length > len(b)-blockHeader || binary.LittleEndian.Uint64(b[8:]) != s.number {
		return block{}, false
	}
	if binary.LittleEndian.Uint32(b) != crc32.Checksum(b[4:blockHeader+length], castagnoli) {
		return block{}, false
	}
	return block{
		segment: s, first: Position(binary.LittleEndian.Uint64(b[16:])),
		durable: Position(binary.LittleEndian.Uint64(b[24:])), oldest: binary.LittleEndian.Uint64(b[32:]),
		records: b[blockHeader : blockHeader+length],
	}, true
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
			record := slices.Clone(rest[:length])
			record[slotOffset] &^= isCopy
			j.stick(record)
		}
		rest = rest[length:]
	}
	return nil
}

// adopt takes over the segments that hold records, and makes them durable: a crash of the program
// alone may have left them with the kernel only. A segment that holds copies only is the rest of a
// flush; the records that were copied may be lost.
//
// The blocks of the tail are written again. If the sync after which they were to be durable failed,
// the kernel has them and takes them for written, so that no sync would bring them to the disk.
func (j *Journal) adopt(needed []*segment, tail []block) error {
	for _, b := range tail {
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
	j.segments = needed
	j.free = slices.DeleteFunc(j.free, func(s *segment) bool { return slices.Contains(needed, s) })
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
