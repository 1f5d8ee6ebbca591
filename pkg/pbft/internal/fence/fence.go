// SPDX-License-Identifier: Apache-2.0

// Package fence keeps the file that says how far a replica may have voted, for a replica
// that remembers nothing else (R-OUR-5).
package fence

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"bfs/pkg/internal/disk"
	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// A Fence is that file. It is raised before the votes that it covers leave. Votes in a group with
// another digest, such as an earlier epoch, do not count in this one.
//
// The file has places for two records, and the later record counts. Each is written over the
// earlier one, with one call: to replace the file took four syncs, 4 ms on a calm disk and 60
// on a busy one.
//
//	offset  0   32    40      48        56    64
//	        |group|view|number|position|turn|CRC-32C|     numbers are little-endian, 8 bytes each, the CRC 4
//	offset  4096: the same again
//
// Position is how many records the journal held durably when the record was written. A journal
// that ends before it has lost something: the disk lied, or somebody put an old copy back. Then
// the fence is all that is known. A file of one record without turn and CRC is an earlier
// version's.
//
// A write to the disk may take a tenth of a second, and votes wait for it. So the fence
// is raised on another goroutine while there is still room below it. One goroutine at a
// time calls the methods; a replica does so under its lock.
type Fence struct {
	path   string
	group  message.Digest
	last   message.SeqNum // on disk, and so is view
	view   message.View
	turn   uint64     // of the record that counts
	placed bool       // the file has places for two records
	rising chan error // receives the result of writing next and nextIn; nil: no write is under way
	next   message.SeqNum
	nextIn message.View

	position uint64        // on disk: the journal held as many records, or store.NoJournal
	journal  func() uint64 // how many it holds durably now; nil without a journal

	write func(write func() error) error // makes room for the file if the disk is full; nil without a journal
}

const (
	oldSize    = message.DigestSize + 24 // of a file of an earlier version
	recordSize = oldSize + 12
	apart      = 4096 // the places of the records: a disk writes less than that at once
	size       = 2 * apart
)

// A record is what the file says.
type record struct {
	group    message.Digest
	view     message.View
	number   message.SeqNum
	position uint64
	turn     uint64
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (r *record) append(b []byte) []byte {
	start := len(b)
	b = append(b, r.group[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.view))
	b = binary.LittleEndian.AppendUint64(b, uint64(r.number))
	b = binary.LittleEndian.AppendUint64(b, r.position)
	b = binary.LittleEndian.AppendUint64(b, r.turn)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[start:], castagnoli))
}

// place is the offset of the record in its file: not that of the one before it.
func (r *record) place() int64 { return int64(r.turn%2) * apart }

// file is a whole file with one record.
func (r *record) file() []byte {
	b := make([]byte, size)
	r.append(b[r.place():r.place()])
	return b
}

// parse reads a record, of whose bytes a CRC was checked or the length of the file.
func parse(b []byte) (r record) {
	r.group = message.Digest(b[:message.DigestSize])
	b = b[message.DigestSize:]
	r.view = message.View(binary.LittleEndian.Uint64(b))
	r.number = message.SeqNum(binary.LittleEndian.Uint64(b[8:]))
	r.position = binary.LittleEndian.Uint64(b[16:])
	return r
}

// latest is the record of a file that counts. A damaged record may be one that promises rest on, so
// the other one does not stand in for it. (A crash does not cut a record: no disk writes a part of
// a sector.)
func latest(b []byte) (r record, ok bool) {
	if len(b) == oldSize {
		return parse(b), true
	}
	for ; len(b) >= recordSize; b = b[min(apart, len(b)):] {
		here := b[:recordSize]
		turn := binary.LittleEndian.Uint64(here[oldSize:])
		switch sum := binary.LittleEndian.Uint32(here[recordSize-4:]); {
		case bytes.Equal(here, make([]byte, recordSize)): // none was written yet
		case sum != crc32.Checksum(here[:recordSize-4], castagnoli):
			return record{}, false
		case !ok || turn > r.turn:
			r, ok = parse(here), true
			r.turn = turn
		}
	}
	return r, ok
}

// First is the file of a replica that has voted for nothing.
func First(group message.Digest) []byte { return (&record{group: group}).file() }

// everything is the number in the file of a replica whose fence was lost: it may have
// voted for anything.
const everything message.SeqNum = 1<<62 - 1

// Lost is the file of a replica whose fence was lost. It stays until a recovery of the
// replica is over, whatever its journal holds.
func Lost(group message.Digest) []byte {
	return (&record{group: group, number: everything, position: store.NoJournal}).file()
}

// Whole reports whether a file is a fence.
func Whole(path string) bool {
	b, err := read(path)
	_, ok := latest(b)
	return err == nil && ok
}

// read reads a file, or the beginning of one that is too long.
func read(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, size+1))
	if err = errors.Join(err, f.Close()); err == nil && len(b) != oldSize && len(b) != size {
		return nil, fmt.Errorf("fence %s: got %d bytes or more, want %d: %w", path, len(b), size, errRestore)
	}
	return b, err
}

var errRestore = errors.New("restore the file, or replace this replica by one with a new key")

// Open reads the file at path. Without a file, or with one of another group, the fence
// covers no vote.
func Open(path string, group message.Digest) (*Fence, error) {
	f := &Fence{path: path, group: group}
	b, err := read(path)
	switch {
	case os.IsNotExist(err):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("read fence: %w", err)
	}
	r, ok := latest(b)
	if !ok {
		return nil, fmt.Errorf("fence %s: no record in it is whole: %w", path, errRestore)
	}
	if f.turn, f.placed = r.turn, len(b) == size; r.group == group {
		f.view, f.last, f.position = r.view, r.number, r.position
	}
	return f, nil
}

// Last is the highest number, and View the highest view, that votes may have been for.
func (f *Fence) Last() message.SeqNum { return f.last }

// View is explained at Last.
func (f *Fence) View() message.View { return f.view }

// IsLost reports whether the fence was lost: an earlier life may have voted for anything.
func (f *Fence) IsLost() bool { return f.last == everything }

// Position is how many records the journal must hold, or store.NoJournal.
func (f *Fence) Position() uint64 { return f.position }

// Follow makes the file say from now on how many records the journal holds.
func (f *Fence) Follow(journal func() uint64) { f.journal = journal }

// WriteWith sets the function that writes the file. It makes room for the file if the
// disk is full.
func (f *Fence) WriteWith(write func(write func() error) error) { f.write = write }

// Raise returns when it is on disk that we may have voted up to n, and reached view v.
func (f *Fence) Raise(v message.View, n message.SeqNum) error {
	if err := f.Settle(); err != nil {
		return err
	}
	if n <= f.last && v <= f.view {
		return nil
	}
	f.begin(max(v, f.view), max(n, f.last))
	return f.Settle()
}

// Distrust returns when it is on disk that the journal does not hold all that was promised.
func (f *Fence) Distrust() error {
	if err := f.Settle(); err != nil {
		return err
	}
	return f.Reset(f.view, f.last, true)
}

// Trust returns when it is on disk that the journal holds all promises from now on.
// journal says how many records it holds.
func (f *Fence) Trust(journal func() uint64) error {
	if err := f.Settle(); err != nil {
		return err
	}
	f.journal = journal
	f.begin(f.view, f.last)
	return f.Settle()
}

// Seal returns when it is on disk how many records the journal holds now. Without it the end of the
// journal may be lost, or changed, and pass for what a crash has torn.
func (f *Fence) Seal() error {
	if err := f.Settle(); err != nil {
		return err
	}
	if f.journal == nil || f.position == f.journal() {
		return nil
	}
	f.begin(f.view, f.last)
	return f.Settle()
}

// Reset replaces the fence by one that says only that this replica may have voted up to n
// and reached view v. It returns when this is on disk. With distrust the fence also says
// that the journal does not hold all promises.
func (f *Fence) Reset(v message.View, n message.SeqNum, distrust bool) error {
	if err := f.Settle(); err != nil {
		return err
	}
	if distrust {
		f.journal, f.position = nil, store.NoJournal
	}
	f.begin(v, n)
	return f.Settle()
}

// Foresee begins to raise the fence if it is due to be raised.
func (f *Fence) Foresee(v message.View, executed, period message.SeqNum) {
	if n := Foreseen(f.last, executed, period); f.rising == nil && n > f.last {
		f.begin(max(v, f.view), n)
	}
}

// Foreseen is where a fence at last should be when a batch is executed: two checkpoint periods
// higher if less than two are left below it. One client alone may fill these in less than 40 ms.
func Foreseen(last, executed, period message.SeqNum) message.SeqNum {
	if last > 0 && executed+2*period >= last {
		return last + 2*period
	}
	return last
}

func (f *Fence) begin(v message.View, n message.SeqNum) {
	done := make(chan error, 1)
	f.rising, f.nextIn, f.next = done, v, n
	if f.journal != nil {
		f.position = f.journal()
	}
	f.turn++
	r := record{f.group, v, n, f.position, f.turn}
	write := func() error { return durable.WriteFile(f.path, r.file()) }
	if f.placed {
		write = func() error { return r.overwrite(f.path) }
	}
	f.placed = true // or the error stops the replica
	if with := f.write; with != nil {
		go func() { done <- with(write) }()
		return
	}
	go func() { done <- write() }()
}

// overwrite writes a record over the earlier of the two in a file.
func (r *record) overwrite(path string) error {
	f, err := disk.OS(filepath.Dir(path)).Open(filepath.Base(path))
	if err != nil {
		return err
	}
	return errors.Join(f.WriteThrough(r.append(nil), r.place()), f.Close())
}

// Settle waits until no write is under way.
func (f *Fence) Settle() error {
	if f.rising == nil {
		return nil
	}
	err := <-f.rising
	f.rising = nil
	if err != nil {
		return fmt.Errorf("raise fence to %d: %w", f.next, err)
	}
	f.last, f.view = f.next, f.nextIn
	return nil
}
