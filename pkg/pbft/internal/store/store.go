// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"errors"
	"fmt"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/message"
)

// A Store is the journal of one replica, and the gate before what it says. T is something that it says. All methods but Flush are called
// by one goroutine at a time; Flush may run beside them, and beside itself.
type Store[T any] struct {
	journal *journal.Journal
	gate    journal.Gate[T]
	bound   journal.Position // what is said now relies on the records below it
	buffer  []byte

	image     *image.Image
	damaged   bool                 // the image was
	stable    message.CheckpointID // the last stable checkpoint
	following bool                 // an update of the image is under way
}

// Sticky slots of the journal.
const (
	slotNone journal.Slot = iota
	slotViewChange
	slotNewView
	slotActive
	slotStable
)

// Open reads the journal in a directory. It returns the messages of its records, in order: they follow the checkpoint that the image holds, or an
// earlier one.
func Open[T any](f disk.FS, group message.Digest, options journal.Options, self message.ReplicaID, lim *message.Limits) (*Store[T], []message.Message, error) {
	var all []message.Message
	j, err := journal.Open(f, group, options, func(_ message.SeqNum, record []byte) error {
		messages, err := decode(record, self, lim)
		all = append(all, messages...)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	s := &Store[T]{journal: j, bound: j.Next()}
	s.gate.Release(j.Durable(), nil)
	return s, all, nil
}

// Note appends a record that nothing waits for.
func (s *Store[T]) Note(record ...message.Message) {
	if len(record) == 0 {
		return
	}
	var seq message.SeqNum
	slot := slotNone
	s.buffer = s.buffer[:0]
	for _, m := range record {
		at := len(s.buffer)
		s.buffer = append(s.buffer, 0, 0, 0, 0, byte(m.Type()))
		s.buffer = m.AppendBody(s.buffer)
		binary.LittleEndian.PutUint32(s.buffer[at:], uint32(len(s.buffer)-at-4))
		seq = max(seq, about(m))
		slot = max(slot, sticky(m))
	}
	s.journal.Append(seq, slot, s.buffer)
	if cap(s.buffer) > maxKeptBuffer {
		s.buffer = nil
	}
}

// maxKeptBuffer is the longest buffer that is kept from one record to the next.
const maxKeptBuffer = 1 << 20

// Persist appends a record, and has everything that is said from now on wait for it and for all before it. Without a record it is
// these alone.
func (s *Store[T]) Persist(record ...message.Message) {
	s.Note(record...)
	s.bound = s.journal.Next()
}

// Hold keeps something that is said until what it relies on is durable. It reports false, and keeps nothing, if that is so already.
func (s *Store[T]) Hold(said T) bool {
	if s.gate.Opens(s.bound) {
		return false
	}
	s.gate.Hold(s.bound, said)
	return true
}

// Waiting reports whether something is held, or would be.
func (s *Store[T]) Waiting() bool { return !s.gate.Opens(s.bound) }

// Held is how much is held.
func (s *Store[T]) Held() int { return s.gate.Len() }

// Flush makes durable what was appended before. An error is final.
func (s *Store[T]) Flush() (journal.Position, error) { return s.journal.Flush() }

// Flushed lets what waited for no more than is durable now leave, in the order in which it was said.
func (s *Store[T]) Flushed(durable journal.Position, leave func(T)) { s.gate.Release(durable, leave) }

// Position is how far the journal is durable.
func (s *Store[T]) Position() journal.Position { return s.journal.Durable() }

// Bytes is how much of the disk the journal needs.
func (s *Store[T]) Bytes() int { return s.journal.Bytes() }

// Close closes the files. What was not flushed is lost.
func (s *Store[T]) Close() error {
	err := s.journal.Close()
	if s.image != nil {
		err = errors.Join(err, s.image.Close())
	}
	return err
}

// about is the number of the batch that a message is about. One that is about none outlives its segment in a sticky slot.
func about(m message.Message) message.SeqNum {
	switch m := m.(type) {
	case *message.PrePrepare:
		return m.Seq
	case *message.Prepare:
		return m.Seq
	case *message.Commit:
		return m.Seq
	case *message.Decided:
		return m.Seq
	}
	return 0
}

// sticky is the slot of a message. The VIEW-CHANGEs that a NEW-VIEW was made of share its record, and its slot.
func sticky(m message.Message) journal.Slot {
	switch m.(type) {
	case *message.ViewChange:
		return slotViewChange
	case *message.NewView:
		return slotNewView
	case *message.Status:
		return slotActive
	case *message.Checkpoint:
		return slotStable
	}
	return slotNone
}

// decode reads a record.
func decode(record []byte, self message.ReplicaID, lim *message.Limits) (all []message.Message, err error) {
	for len(record) > 0 {
		if len(record) < 4 || int(binary.LittleEndian.Uint32(record)) > len(record)-4 {
			return nil, fmt.Errorf("%w: a record of the journal is cut short", journal.ErrCorrupt)
		}
		length := int(binary.LittleEndian.Uint32(record))
		m, err := message.Decode(append([]byte(nil), record[4:4+length]...), lim)
		if err != nil {
			return nil, fmt.Errorf("%w: a record of the journal: %v", journal.ErrCorrupt, err)
		}
		from := self
		switch m := m.(type) {
		case *message.PrePrepare:
			from = m.View.Primary(lim.Replicas)
		case *message.NewView:
			from = m.View.Primary(lim.Replicas)
		case *message.ViewChange:
			from = m.From
		}
		message.Attribute(m, from)
		all = append(all, m)
		record = record[4+length:]
	}
	return all, nil
}
