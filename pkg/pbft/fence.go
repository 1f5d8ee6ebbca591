// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"encoding/binary"
	"fmt"
	"os"

	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// fence is the file that remembers how far a replica may have voted, when it remembers nothing else (R-OUR-5): the
// digest of the group file, view, number, and how far the journal was durable then, the latter three 8 bytes each, little-endian. It is raised before the votes it
// covers leave. Votes in a group with another digest, such as one of an earlier epoch, bind nobody in this one.
//
// A journal that ends before that position has lost something: the disk lied, or somebody put yesterday's back. Then the fence is all
// that is known.
//
// A disk may take a tenth of a second, and votes wait for it. So it is raised while there is still room below it, on
// another goroutine. All but that goroutine's writing is under the replica's lock.
type fence struct {
	path   string
	group  Digest
	last   SeqNum // on disk, and so is view
	view   View
	rising chan error // what came of writing next and nextIn; nil: nobody is writing
	next   SeqNum
	nextIn View

	position uint64        // on disk: the journal held as many records, or store.NoJournal
	journal  func() uint64 // how many it holds durably now; nil without a journal

	writing func(write func() error) error // makes room for the file if the disk is full; nil without a journal
}

const fenceSize = message.DigestSize + 24

func openFence(path string, group Digest) (*fence, error) {
	f := &fence{path: path, group: group}
	b, err := os.ReadFile(path)
	switch {
	case os.IsNotExist(err):
		return f, nil
	case err != nil:
		return nil, fmt.Errorf("read fence: %w", err)
	case len(b) != fenceSize:
		return nil, fmt.Errorf("fence %s: got %d bytes, want %d: restore the file, or replace this replica by one with a new key", path, len(b), fenceSize)
	}
	if Digest(b[:message.DigestSize]) == group {
		f.view = View(binary.LittleEndian.Uint64(b[message.DigestSize:]))
		f.last = SeqNum(binary.LittleEndian.Uint64(b[message.DigestSize+8:]))
		f.position = binary.LittleEndian.Uint64(b[message.DigestSize+16:])
	}
	return f, nil
}

// raise returns when it is on disk that we may have voted up to n, and reached view v.
func (f *fence) raise(v View, n SeqNum) error {
	if err := f.settle(); err != nil {
		return err
	}
	if n <= f.last && v <= f.view {
		return nil
	}
	f.begin(max(v, f.view), max(n, f.last))
	return f.settle()
}

// distrust returns when it is on disk that the journal does not hold all that was promised.
func (f *fence) distrust() error {
	if err := f.settle(); err != nil {
		return err
	}
	f.journal, f.position = nil, store.NoJournal
	f.begin(f.view, f.last)
	return f.settle()
}

// trust returns when it is on disk that the journal, which holds so many records, holds all that was promised from now on.
func (f *fence) trust(journal func() uint64) error {
	if err := f.settle(); err != nil {
		return err
	}
	f.journal = journal
	f.begin(f.view, f.last)
	return f.settle()
}

// reset returns when it is on disk that we may have voted up to n and reached view v, and nothing else of what the fence said. With
// distrust it also says that the journal does not hold what was promised.
func (f *fence) reset(v View, n SeqNum, distrust bool) error {
	if distrust {
		f.last, f.view = n, v
		return f.distrust()
	}
	if err := f.settle(); err != nil {
		return err
	}
	f.begin(v, n)
	return f.settle()
}

// foresee begins to raise the fence if it will have to be soon: half a checkpoint period is left below it.
func (f *fence) foresee(v View, executed, period SeqNum) {
	if f.rising == nil && f.last > 0 && executed+period/2 >= f.last {
		f.begin(max(v, f.view), f.last+2*period)
	}
}

func (f *fence) begin(v View, n SeqNum) {
	done := make(chan error, 1)
	f.rising, f.nextIn, f.next = done, v, n
	b := append(make([]byte, 0, fenceSize), f.group[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(v))
	b = binary.LittleEndian.AppendUint64(b, uint64(n))
	if f.journal != nil {
		f.position = f.journal()
	}
	b = binary.LittleEndian.AppendUint64(b, f.position)
	write := func() error { return durable.WriteFile(f.path, b) }
	if writing := f.writing; writing != nil {
		go func() { done <- writing(write) }()
		return
	}
	go func() { done <- write() }()
}

// settle waits until nobody is writing.
func (f *fence) settle() error {
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
