// SPDX-License-Identifier: Apache-2.0

package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/message"
)

// A Store is the journal and image of one replica, and the gate that holds its messages until their
// records are durable. T is such a message. All methods but Flush are called by one goroutine at a
// time; Flush may run beside them, and beside itself.
type Store[T any] struct {
	options Options
	journal *journal.Journal
	gate    journal.Gate[T]
	bound   journal.Position // messages said now rely on the records below it
	buffer  []byte

	image  *image.Image
	update following
	at     message.SeqNum // the image's checkpoint
	given  int            // updates of the image that were given up
}

// Options say where a store is, and whose.
type Options struct {
	Disk         disk.FS
	Group        message.Digest // of the group file
	SegmentBytes int            // see journal.Options
	Self         message.ReplicaID
	Limits       *message.Limits

	// ReserveBytes is how much room is kept for the journal, in segments that are ready, and for
	// the pages of one update of the image (R-OUR-7). Reserve says when there is not as much.
	ReserveBytes int
}

// spare is how many segments are kept ready: those in reserve, and the one that Journal
// keeps to free others.
func (o *Options) spare() int { return (o.ReserveBytes+o.SegmentBytes-1)/o.SegmentBytes + 1 }

// NoJournal is a position that no journal reaches. A fence that has it says that the journal does
// not hold all that was promised.
const NoJournal = math.MaxUint64

// A Memory is an opened store, with the records that were found in it.
type Memory[T any] struct {
	Store   *Store[T]
	Records []message.Message // in order: they follow the checkpoint that the image holds, or an earlier one
	Whole   bool              // they hold all that was promised
	Why     error             // if not, unless it was known before
}

// Recall opens the journal. It is whole if it holds as many records as it did when the fence was
// raised last. Otherwise it has lost records, and is replaced by an empty journal. First distrust
// makes durable that the fence has position NoJournal, because the new journal must not pass for
// whole. The fence gets another position when the replica makes promises again.
func Recall[T any](o Options, fence uint64, distrust func() error) (m Memory[T], err error) {
	m.Store, m.Records, err = open[T](o)
	switch {
	case err == nil:
		m.Whole = uint64(m.Store.Position()) >= fence
	case !errors.Is(err, journal.ErrCorrupt):
		return m, err
	}
	if !m.Whole {
		if m.Why = err; err == nil && fence != NoJournal {
			m.Why = fmt.Errorf("it has %d records, and had %d once: an old copy was put back, or the disk "+
				"has lost what it should keep", m.Store.Position(), fence)
		}
		if err := m.replace(o, distrust); err != nil {
			return m, err
		}
	}
	// A fence is never raised beside an empty journal, so a journal that is found empty later
	// was lost.
	if m.Store.Position() == 0 {
		m.Store.Persist(&message.Checkpoint{})
		durable, err := m.Store.Flush()
		if err != nil {
			return m, errors.Join(err, m.Store.Close())
		}
		m.Store.Flushed(durable, nil)
	}
	return m, nil
}

// replace puts an empty journal in the place of one that is not whole.
func (m *Memory[T]) replace(o Options, distrust func() error) (err error) {
	if m.Store != nil {
		err = m.Store.Close()
	}
	if err = errors.Join(err, distrust()); err != nil {
		return err
	}
	if err = journal.Discard(o.Disk); err != nil {
		return err
	}
	m.Store, m.Records, err = open[T](o)
	return err
}

// Sticky slots of the journal.
const (
	slotNone journal.Slot = iota
	slotViewChange
	slotNewView
	slotActive
	slotStable
)

// open reads the journal, and returns the messages of its records.
func open[T any](o Options) (*Store[T], []message.Message, error) {
	var all []message.Message
	j, err := journal.Open(o.Disk, o.Group, journal.Options{SegmentBytes: o.SegmentBytes, Spare: o.spare()},
		func(_ message.SeqNum, record []byte) error {
			messages, err := decode(record, o.Self, o.Limits)
			all = append(all, messages...)
			return err
		})
	if err != nil {
		return nil, nil, err
	}
	s := &Store[T]{options: o, journal: j, bound: j.Next()}
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

// Persist appends a record, and has all messages said from now on wait for it and for all
// earlier records. Without a record they wait for the earlier ones.
func (s *Store[T]) Persist(record ...message.Message) {
	s.Note(record...)
	s.bound = s.journal.Next()
}

// Hold keeps a message until the records that it relies on are durable. It reports false, and keeps
// nothing, if they are durable already.
func (s *Store[T]) Hold(said T) bool {
	if s.gate.Opens(s.bound) {
		return false
	}
	s.gate.Hold(s.bound, said)
	return true
}

// Waiting reports whether messages are held, or a new one would be.
func (s *Store[T]) Waiting() bool { return !s.gate.Opens(s.bound) }

// MustFlush reports whether the records that no flush has taken would fill a segment of the
// journal: the caller must have some written before it appends more.
func (s *Store[T]) MustFlush() bool { return s.journal.Pending() >= s.options.SegmentBytes }

// Full reports whether too many messages are held for another: the caller must drop new
// ones, because the disk stands still, and others will ask again.
func (s *Store[T]) Full() bool { return s.gate.Len() >= maxHeld }

// maxHeld bounds the messages that wait for the disk.
const maxHeld = 1 << 14

// Flush makes the records durable that were appended before. An error is final unless disk.IsFull
// holds for it. Then some records may be durable, and a later Flush goes on with the rest.
func (s *Store[T]) Flush() (journal.Position, error) { return s.journal.Flush() }

// Flushed lets the messages leave whose records are durable now, in the order in which they were
// said.
func (s *Store[T]) Flushed(durable journal.Position, leave func(T)) { s.gate.Release(durable, leave) }

// Reserve allocates what is missing of the reserve. If the disk is too full, disk.IsFull holds for
// the error. Of the store's other methods only those that do not change the image may run beside
// it.
func (s *Store[T]) Reserve() error {
	return errors.Join(s.journal.Reserve(), s.image.Reserve(), s.reserveSmall())
}

const (
	// smallName is a file that holds room for small files beside the store, such as the fence.
	smallName  = "reserve"
	smallBytes = 256 << 10
)

// reserveSmall reserves room for small files, unless the reserve is to be spent.
func (s *Store[T]) reserveSmall() error {
	if s.options.ReserveBytes == 0 {
		return nil
	}
	f, err := s.options.Disk.Open(smallName)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = s.options.Disk.Create(smallName)
	}
	if err == nil {
		err = errors.Join(f.Allocate(smallBytes), f.Close())
	}
	if err != nil {
		return fmt.Errorf("reserve room for small files: %w", err)
	}
	return nil
}

// Short reports whether the journal has used some of its reserve.
func (s *Store[T]) Short() bool { return s.journal.Short() }

// Yield gives the room for small files to one of them, and reports whether there was some.
func (s *Store[T]) Yield() bool { return s.options.Disk.Remove(smallName) == nil }

// Figures are a store's figures for the operator.
type Figures struct {
	Durable              journal.Position // records below it are durable
	Next                 journal.Position // of the next record
	Held                 int              // messages that wait for the disk
	JournalBytes, Needed int64            // of the journal's files, and of those that hold records which are needed
	Image                message.SeqNum   // the checkpoint that the image is at
	ImageBytes           int64
	GivenUp              int   // updates of the image that were given up, since the store was opened
	Reserve              int64 // bytes kept for journal and image when the disk is full, if there is room
}

// Figures returns the present ones.
func (s *Store[T]) Figures() (f Figures) {
	f = Figures{Durable: s.journal.Durable(), Next: s.journal.Next(), Held: s.gate.Len(), Image: s.at, GivenUp: s.given}
	f.JournalBytes, f.Needed = s.journal.Bytes()
	if s.image != nil {
		f.ImageBytes = s.image.Bytes()
		f.Reserve = int64(s.options.spare()*s.options.SegmentBytes) + s.image.Reserved()
	}
	return f
}

// Renew makes the noted records durable, and begins the journal anew with a record. The old records
// stay until Renewed. If the disk is full (disk.IsFull), they stay longer, but do not count once
// Renewed is durable.
func (s *Store[T]) Renew(first ...message.Message) error {
	_, err := s.journal.Flush()
	err = errors.Join(err, s.journal.Cut())
	s.Note(first...)
	return err
}

// Renewed appends the last of the records that replace all those before Renew, and makes them
// durable. Of the old records the batches up to the stable checkpoint are still needed, until the
// image has passed them. It returns what Flush returns.
func (s *Store[T]) Renewed(stable message.SeqNum, last ...message.Message) (journal.Position, error) {
	s.Persist(last...)
	durable, err := s.journal.Flush()
	if err == nil {
		s.journal.Confine(stable)
	}
	return durable, err
}

// Position is how far the journal is durable.
func (s *Store[T]) Position() journal.Position { return s.journal.Durable() }

// Close closes the files. Records that were not flushed are lost.
func (s *Store[T]) Close() error {
	err := s.journal.Close()
	if s.image != nil {
		err = errors.Join(err, s.image.Close())
	}
	return err
}

// about returns the number of the batch that a message is about. A message about no batch outlives
// its segment in a sticky slot.
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

// sticky is the slot of a message. The VIEW-CHANGEs that a NEW-VIEW was made of share its
// record, and its slot.
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
