// SPDX-License-Identifier: Apache-2.0

package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
)

// A Position counts records: that of the first ever appended is 0. A record is durable when the
// durable position is above its own.
type Position uint64

// A Slot is 0, or a sticky slot: the latest record of each outlives its segment.
type Slot uint8

// Slots bounds the sticky slots.
const Slots = 8

// ErrCorrupt: the disk has lost or changed records that were durable.
var ErrCorrupt = errors.New("the journal is corrupt")

// ErrFull: the disk has no room for another segment. Nothing is lost: the records that found no
// room wait, and a later Flush tries again.
var ErrFull = errors.New("the disk has no room for another segment")

// ErrForeign: the journal is another group's.
var ErrForeign = errors.New("the journal belongs to another group")

// Options are the sizes of a journal.
type Options struct {
	SegmentBytes int // a multiple of 4096, and longer than the longest record by two blocks
	Spare        int // segments that Reserve has ready, so that the journal goes on for as long on a full disk
}

const (
	blockSize     = 4096
	segmentHeader = 52
	blockHeader   = 40
	recordHeader  = 13
	slotOffset    = 12   // in a record's header
	isCopy        = 0x80 // added to the slot of a sticky record that is written again
)

var magic = [8]byte{'b', 'f', 's', 'j', 'r', 'n', 'l', 1}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A Journal is open for appending. All its methods but Close may be called by different
// goroutines.
type Journal struct {
	fs      disk.FS
	group   message.Digest
	options Options

	mu       sync.Mutex // the fields that Append and Release share with Flush
	pending  []byte     // records that no flush has taken
	ends     []ending   // of the records in pending
	spare    []byte     // a buffer for pending
	next     Position   // of the next record
	durable  Position
	segments []*segment // those that are needed, oldest first; the last is being written
	released []*segment // no longer needed, but a restart would look for them until the next flush

	flushing sync.Mutex    // held by Flush, which alone uses the fields below
	sticky   [Slots][]byte // the latest record of each slot, header and all
	order    []Slot        // slots in use, by the position of their records
	free     []*segment    // no durable block says that they are needed; the last is used first
	number   uint64        // the highest of any segment, needed or not
	oldest   uint64        // of the segments needed when the flush began; 0: there was none
	dirty    []*segment    // written since the last sync
	written  Position      // of the next record to be written
	block    []byte
	failed   error
	cut      uint64 // number of the segment that Cut began last
	demand   demand // for files

	files atomic.Int64 // segments on the disk, needed or not
}

// An ending is the end of a record in a buffer, and what the record is about.
type ending struct {
	at  int
	seq message.SeqNum
}

// A segment is one file of the ring.
type segment struct {
	name   string
	file   disk.File
	number uint64
	end    int64          // where the next block goes
	seq    message.SeqNum // the highest batch that a record in it is about
	used   bool           // Open found a record in it, not only copies
	filled bool           // its blocks were written since they were reserved: see fill
}

// Append puts a record into memory. It is about batch seq: its segment is kept until Release is
// called for that batch or a later one. A sticky record is kept until the next one of its slot is
// durable. The record is copied.
func (j *Journal) Append(seq message.SeqNum, slot Slot, record ...[]byte) Position {
	length := 0
	for _, part := range record {
		length += len(part)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.pending = binary.LittleEndian.AppendUint32(j.pending, uint32(length))
	j.pending = binary.LittleEndian.AppendUint64(j.pending, uint64(seq))
	j.pending = append(j.pending, byte(slot))
	for _, part := range record {
		j.pending = append(j.pending, part...)
	}
	j.ends = append(j.ends, ending{len(j.pending), seq})
	j.next++
	return j.next - 1
}

// Next is the position of the next record.
func (j *Journal) Next() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.next
}

// Pending is the length of the records that no flush has taken.
func (j *Journal) Pending() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.pending)
}

// Durable is the position below which all is durable.
func (j *Journal) Durable() Position {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.durable
}

// Segments is how many segments are needed.
func (j *Journal) Segments() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.segments)
}

// Release says that records about batches up to seq are not needed any more, because the
// image on disk has passed them.
func (j *Journal) Release(seq message.SeqNum) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.release(func(s *segment) bool { return s.seq <= seq })
}

// release gives up the oldest segments that are not needed, but never the last. The
// caller holds mu.
func (j *Journal) release(needless func(*segment) bool) {
	for len(j.segments) > 1 && needless(j.segments[0]) {
		j.released = append(j.released, j.segments[0])
		j.segments = j.segments[1:]
	}
}

// Flush makes the records durable that were appended before it began, and returns the durable
// position. With ErrFull the rest is not durable. Any other error is final: records since the last
// good Flush may be durable or lost, and all later calls fail too.
func (j *Journal) Flush() (Position, error) {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	j.mu.Lock()
	records, ends := j.pending, j.ends
	j.pending, j.ends = j.spare[:0], nil
	released := len(j.released)
	if j.oldest = 0; len(j.segments) > 0 {
		oldest := j.segments[0]
		for released > 0 && oldest.end == blockSize { // Cut began it, and it has no block
			released--
			oldest = j.released[released]
		}
		j.oldest = oldest.number
	}
	j.mu.Unlock()
	written, err := 0, j.failed
	if err == nil {
		if written, err = j.write(records, ends); !errors.Is(err, ErrFull) {
			j.failed = err
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if written < len(ends) {
		j.putBack(records, ends, written)
	}
	j.spare = records
	if j.failed == nil {
		j.durable = j.written
	}
	// The blocks that are durable now say that the released segments are not needed.
	if written > 0 && j.failed == nil {
		j.free = append(j.free, j.released[:released]...)
		j.released = j.released[released:]
	}
	if err != nil {
		err = fmt.Errorf("journal: %w", err)
	}
	return j.durable, err
}

// putBack puts records that were not written before those that were appended since. The
// first n were written.
func (j *Journal) putBack(records []byte, ends []ending, n int) {
	from := 0
	if n > 0 {
		from = ends[n-1].at
	}
	pending := append(slices.Clone(records[from:]), j.pending...)
	all := make([]ending, 0, len(ends)-n+len(j.ends))
	for _, e := range ends[n:] {
		all = append(all, ending{e.at - from, e.seq})
	}
	for _, e := range j.ends {
		all = append(all, ending{e.at + len(records) - from, e.seq})
	}
	j.pending, j.ends = pending, all
}

// settle syncs the records that were written before the disk was found to be full. The error is
// that of the sync if it fails.
func (j *Journal) settle(err error) error {
	if !errors.Is(err, ErrFull) {
		return err
	}
	if failed := j.sync(); failed != nil {
		return failed
	}
	return err
}

// write writes records as blocks and syncs the segments they went to. It returns how many it has
// written: all but for an error. After ErrFull those are durable.
func (j *Journal) write(records []byte, ends []ending) (written int, err error) {
	from := 0
	for written < len(ends) {
		n, length := j.fitting(ends[written:], from)
		if n == 0 {
			if err := j.turn(); err != nil {
				return written, j.settle(err)
			}
			if n, length = j.fitting(ends[written:], from); n == 0 {
				return written, fmt.Errorf("a record of %d bytes does not fit into a segment of %d",
					ends[written].at-from, j.options.SegmentBytes)
			}
		}
		part := records[from : from+length]
		if err := j.writeBlock(part, ends[written:written+n], written+n == len(ends)); err != nil {
			return written, err
		}
		j.stick(part)
		j.written += Position(n)
		from += length
		written += n
	}
	return written, j.sync()
}

// fitting is how many of the records, which begin at from, fit into the rest of the
// segment, and their length.
func (j *Journal) fitting(ends []ending, from int) (n, length int) {
	s := j.current()
	if s == nil {
		return 0, 0
	}
	room := j.options.SegmentBytes - int(s.end) - blockHeader
	for n < len(ends) && ends[n].at-from <= room {
		n++
	}
	if n == 0 {
		return 0, 0
	}
	return n, ends[n-1].at - from
}

func (j *Journal) current() *segment {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.segments) == 0 {
		return nil
	}
	return j.segments[len(j.segments)-1]
}

// writeBlock writes records at the end of the present segment. The oldest segment that it names was
// needed when the flush began: if that is released meanwhile it may have the only durable copies of
// sticky records. If it is the last block of a flush and the only one, it is durable then.
func (j *Journal) writeBlock(records []byte, ends []ending, last bool) error {
	j.mu.Lock()
	s, durable := j.segments[len(j.segments)-1], j.durable
	for _, e := range ends {
		s.seq = max(s.seq, e.seq)
	}
	j.mu.Unlock()
	b := append(j.block[:0], make([]byte, blockHeader)...)
	binary.LittleEndian.PutUint32(b[4:], uint32(len(records)))
	binary.LittleEndian.PutUint64(b[8:], s.number)
	binary.LittleEndian.PutUint64(b[16:], uint64(j.written))
	binary.LittleEndian.PutUint64(b[24:], uint64(durable))
	binary.LittleEndian.PutUint64(b[32:], j.oldest)
	b = append(b, records...)
	binary.LittleEndian.PutUint32(b, crc32.Checksum(b[4:], castagnoli))
	if tail := len(b) % blockSize; tail != 0 {
		b = append(b, zeros[tail:]...)
	}
	j.block = b
	if cap(j.block) > maxKeptBlock {
		j.block = nil
	}
	if last && len(j.dirty) == 0 {
		if err := s.file.WriteThrough(b, s.end); err != nil {
			return fmt.Errorf("write %s: %w", s.name, err)
		}
		s.end += int64(len(b))
		return nil
	}
	if _, err := s.file.WriteAt(b, s.end); err != nil {
		return fmt.Errorf("write %s: %w", s.name, err)
	}
	s.end += int64(len(b))
	j.touch(s)
	return nil
}

// maxKeptBlock is the longest buffer that is kept from one flush to the next.
const maxKeptBlock = 4 << 20

var zeros [blockSize]byte

func (j *Journal) touch(s *segment) {
	if !slices.Contains(j.dirty, s) {
		j.dirty = append(j.dirty, s)
	}
}

// sync makes the written records durable.
func (j *Journal) sync() error {
	for _, s := range j.dirty {
		if err := s.file.Sync(); err != nil {
			return fmt.Errorf("sync %s: %w", s.name, err)
		}
	}
	j.dirty = j.dirty[:0]
	return nil
}

// stick notes the sticky records among some that were written.
func (j *Journal) stick(records []byte) {
	for len(records) > 0 {
		length := recordHeader + int(binary.LittleEndian.Uint32(records))
		if slot := Slot(records[slotOffset]); slot != 0 {
			j.sticky[slot] = append(j.sticky[slot][:0], records[:length]...)
			j.order = append(slices.DeleteFunc(j.order, func(s Slot) bool { return s == slot }), slot)
		}
		records = records[length:]
	}
}

// turn begins a new segment, in a file that is free or a new one, and writes the sticky
// records at its head.
func (j *Journal) turn() error {
	s, err := j.take()
	if err != nil {
		return err
	}
	j.number += step()
	s.number, s.end, s.seq = j.number, blockSize, 0
	if j.oldest == 0 {
		j.oldest = s.number
	}
	if err := j.writeHeader(s); err != nil {
		return err
	}
	j.touch(s)
	j.mu.Lock()
	j.segments = append(j.segments, s)
	inUse := len(j.segments) + len(j.released)
	j.mu.Unlock()
	j.demand.turned(inUse, int(j.files.Load()))
	return j.restate()
}

func (j *Journal) writeHeader(s *segment) error {
	header := make([]byte, blockSize)
	copy(header, magic[:])
	binary.LittleEndian.PutUint64(header[8:], s.number)
	copy(header[16:], j.group[:])
	binary.LittleEndian.PutUint32(header[48:], crc32.Checksum(header[:48], castagnoli))
	if _, err := s.file.WriteAt(header, 0); err != nil {
		return fmt.Errorf("write %s: %w", s.name, err)
	}
	return nil
}

// step is how much higher the number of a segment is than the last: nobody can guess it. Records
// hold what clients wrote, and the rest of a file that is used again, or of a block that is torn,
// is searched for blocks. A client that knew the number of a segment to come could put some there.
// The numbers that there are last for 2^33 segments, some 38 petabytes.
func step() uint64 {
	var b [4]byte
	rand.Read(b[:])
	return 1 + uint64(binary.LittleEndian.Uint32(b[:]))
}

// Cut begins a segment without copies of sticky records: the records appended from now on stand by
// themselves. An error other than ErrFull is final.
func (j *Journal) Cut() error {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	if j.failed != nil {
		return j.failed
	}
	clear(j.sticky[:])
	j.order = nil
	if err := j.turn(); err != nil {
		if !errors.Is(err, ErrFull) {
			j.failed = err
		}
		return fmt.Errorf("journal: %w", err)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cut = j.number
	return nil
}

// Confine says that the records before the last Cut about batches above seq are not needed.
func (j *Journal) Confine(seq message.SeqNum) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, s := range j.segments {
		if s.number < j.cut {
			s.seq = min(s.seq, seq)
		}
	}
}

// restate writes the sticky records again, as copies, which have no position of their own.
func (j *Journal) restate() error {
	var records []byte
	for _, slot := range j.order {
		at := len(records) + slotOffset
		records = append(records, j.sticky[slot]...)
		records[at] |= isCopy
	}
	if len(records) == 0 {
		return nil
	}
	return j.writeBlock(records, nil, false)
}

// take returns a file for a new segment. The last free file is taken only if writing it frees
// others: without a free file the journal could not note that they are free.
func (j *Journal) take() (*segment, error) {
	if len(j.free) < 2 {
		if err := j.allocate(); err != nil && (len(j.free) == 0 || !j.releases()) {
			return nil, err
		}
	}
	n := len(j.free) - 1
	s := j.free[n]
	if !s.filled {
		if err := j.fill(s.file); err != nil {
			return nil, fmt.Errorf("fill %s: %w", s.name, err)
		}
		s.filled = true
	}
	j.free = j.free[:n]
	return s, nil
}

// releases reports whether segments wait to become free.
func (j *Journal) releases() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.released) > 0
}

// Reserve makes files for Options.Spare segments beyond those that are in use, and removes files
// that were not needed lately: see demand. ErrFull says that the disk has no room for them.
func (j *Journal) Reserve() error {
	if err := j.shrink(); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.flushing.Lock()
	defer j.flushing.Unlock()
	for _, s := range j.free { // a crash may have left one without its blocks
		if err := s.file.Allocate(int64(j.options.SegmentBytes)); err != nil {
			return fmt.Errorf("journal: %w", full(err))
		}
	}
	for j.failed == nil && len(j.free) < j.options.Spare {
		if err := j.allocate(); err != nil {
			return fmt.Errorf("journal: %w", err)
		}
	}
	return nil
}

// shrink removes the surplus files. None of them holds what a restart looks for, so a removal may
// be lost in a crash: the file is free again then. On some file systems a removal needs room, too.
// If there is none the file stays free.
func (j *Journal) shrink() error {
	for s := j.surplus(); s != nil; s = j.surplus() {
		if err := j.fs.Remove(s.name); err != nil {
			j.putFree(s)
			if disk.IsFull(err) {
				return nil
			}
			return fmt.Errorf("remove %s, which is not needed: %w", s.name, err)
		}
		if err := s.file.Close(); err != nil {
			return fmt.Errorf("close %s, which is removed: %w", s.name, err)
		}
	}
	return nil
}

// surplus takes a file out of those that are free if there are more than are kept, nil if not. It
// is one that would have to be filled, if there is such. A flush need not wait for its removal.
func (j *Journal) surplus() *segment {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	if j.failed != nil || len(j.free) == 0 || int(j.files.Load()) <= j.kept() {
		return nil
	}
	s := j.free[0]
	j.free = j.free[1:]
	j.files.Add(-1)
	return s
}

func (j *Journal) putFree(s *segment) {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	j.free = slices.Insert(j.free, 0, s)
	j.files.Add(1)
}

// kept is how many files are not surplus: those that were in use at once lately, and the spare
// ones. When the next turn brings as many into use again, take finds two free files before it.
func (j *Journal) kept() int { return j.demand.lately() + max(j.options.Spare, 1) }

// Short reports whether Reserve has files to make.
func (j *Journal) Short() bool {
	j.flushing.Lock()
	defer j.flushing.Unlock()
	return len(j.free) < j.options.Spare
}

func (j *Journal) discard(s *segment) error {
	j.files.Add(-1)
	return errors.Join(s.file.Close(), j.fs.Remove(s.name))
}

// Bytes is how much of the disk the journal takes, and how much of that holds records
// that are needed.
func (j *Journal) Bytes() (all, needed int64) {
	each := int64(j.options.SegmentBytes)
	return j.files.Load() * each, int64(j.Segments()) * each
}

// allocate makes a file for a segment, the last to be used among those that are free.
func (j *Journal) allocate() error {
	for i := 0; ; i++ {
		name := fmt.Sprintf("journal-%03d", i)
		file, err := j.fs.Create(name)
		switch {
		case errors.Is(err, fs.ErrExist):
			continue
		case err != nil:
			return fmt.Errorf("create a segment: %w", full(err))
		}
		s := &segment{name: name, file: file}
		j.files.Add(1)
		if err := file.Allocate(int64(j.options.SegmentBytes)); err != nil {
			return errors.Join(fmt.Errorf("create %s: %w", name, full(err)), j.discard(s))
		}
		j.free = slices.Insert(j.free, 0, s)
		return nil
	}
}

// full marks an error that says that the disk is full.
func full(err error) error {
	if disk.IsFull(err) {
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return err
}

// fill writes the blocks of a new segment once. A sync of a block that was never written has to
// note in the file system's own journal that it is, which costs several times as much.
func (j *Journal) fill(file disk.File) error {
	chunk := make([]byte, min(j.options.SegmentBytes, fillBytes))
	for at := 0; at < j.options.SegmentBytes; at += len(chunk) {
		if _, err := file.WriteAt(chunk[:min(len(chunk), j.options.SegmentBytes-at)], int64(at)); err != nil {
			return full(err)
		}
	}
	return errors.Join(file.Sync(), j.fs.Sync())
}

// fillBytes is how much of a new segment is written at a time.
const fillBytes = 1 << 20

// Close closes the files. Records that were not flushed are lost.
func (j *Journal) Close() error {
	var errs []error
	for _, list := range [][]*segment{j.segments, j.released, j.free} {
		for _, s := range list {
			errs = append(errs, s.file.Close())
		}
	}
	return errors.Join(errs...)
}
