// SPDX-License-Identifier: Apache-2.0

// Package fence keeps the file that says how far a replica may have voted, for a replica
// that remembers nothing else (R-OUR-5).
package fence

import (
	"encoding/binary"
	"fmt"
	"os"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// A Fence is that file. It holds the digest of the group file, the view, the number, and
// how many records the journal held durably when the file was written. The last three take
// 8 bytes each, little-endian. The file is raised before the votes that it covers leave.
// Votes in a group with another digest, such as an earlier epoch, do not count in this one.
//
// A journal that ends before that position has lost something: the disk lied, or somebody
// put an old copy back. Then the fence is all that is known.
//
// A write to the disk may take a tenth of a second, and votes wait for it. So the fence
// is raised on another goroutine while there is still room below it. One goroutine at a
// time calls the methods; a replica does so under its lock.
type Fence struct {
	path   string
	group  message.Digest
	last   message.SeqNum // on disk, and so is view
	view   message.View
	rising chan error // receives the result of writing next and nextIn; nil: no write is under way
	next   message.SeqNum
	nextIn message.View

	position uint64        // on disk: the journal held as many records, or store.NoJournal
	journal  func() uint64 // how many it holds durably now; nil without a journal

	write func(write func() error) error // makes room for the file if the disk is full; nil without a journal
}

// size is the length of the file.
const size = message.DigestSize + 24

// First is the file of a replica that has voted for nothing.
func First(group message.Digest) []byte {
	return append(group[:], make([]byte, size-message.DigestSize)...)
}

// everything is the number in the file of a replica whose fence was lost: it may have
// voted for anything.
const everything message.SeqNum = 1<<62 - 1

// Lost is the file of a replica whose fence was lost. It stays until a recovery of the
// replica is over, whatever its journal holds.
func Lost(group message.Digest) []byte {
	b := binary.LittleEndian.AppendUint64(group[:], 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(everything))
	return binary.LittleEndian.AppendUint64(b, store.NoJournal)
}

// Whole reports whether a file has the length of a fence.
func Whole(path string) bool {
	s, err := os.Stat(path)
	return err == nil && s.Mode().IsRegular() && s.Size() == size
}

// Open reads the file at path. Without a file, or with one of another group, the fence
// covers no vote.
func Open(path string, group message.Digest) (*Fence, error) {
	f := &Fence{path: path, group: group}
	b, err := os.ReadFile(path)
	switch {
	case os.IsNotExist(err):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("read fence: %w", err)
	case len(b) != size:
		return nil, fmt.Errorf("fence %s: got %d bytes, want %d: restore the file, or replace this "+
			"replica by one with a new key", path, len(b), size)
	}
	if message.Digest(b[:message.DigestSize]) == group {
		f.view = message.View(binary.LittleEndian.Uint64(b[message.DigestSize:]))
		f.last = message.SeqNum(binary.LittleEndian.Uint64(b[message.DigestSize+8:]))
		f.position = binary.LittleEndian.Uint64(b[message.DigestSize+16:])
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

// Foresee begins to raise the fence if less than half a checkpoint period is left below it.
func (f *Fence) Foresee(v message.View, executed, period message.SeqNum) {
	if f.rising == nil && f.last > 0 && executed+period/2 >= f.last {
		f.begin(max(v, f.view), f.last+2*period)
	}
}

func (f *Fence) begin(v message.View, n message.SeqNum) {
	done := make(chan error, 1)
	f.rising, f.nextIn, f.next = done, v, n
	b := append(make([]byte, 0, size), f.group[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(v))
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	if f.journal != nil {
		f.position = f.journal()
	}
	b = binary.LittleEndian.AppendUint64(b, f.position)
	write := func() error { return durable.WriteFile(f.path, b) }
	if with := f.write; with != nil {
		go func() { done <- with(write) }()
		return
	}
	go func() { done <- write() }()
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
