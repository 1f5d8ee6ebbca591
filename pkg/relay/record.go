package relay

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"sync"

	"bfs/pkg/nfsstate/nfs3"
)

// maxHeader bounds an RPC call header: six words, then flavour, length and at most 400 bytes of
// credentials and of verifier [RFC5531 §8.2].
const maxHeader = 24 + 2*(8+maxAuthBody)

// maxRecord bounds one call on the wire.
const maxRecord = maxHeader + nfs3.MaxArguments

// smallRecord is the size up to which a record costs no byte budget: the limit on calls bounds
// these well enough.
const smallRecord = 8 << 10

const lastFragment = 1 << 31

// longRecords holds the memory of long records whose calls are over. A kernel that writes a large file sends one of a
// mebibyte after the other, and to touch fresh memory for each costs more than to receive it does.
var longRecords sync.Pool

// takeRecord returns an empty record with room for n bytes. A long one has at most twice the room it needs: its call reserves n
// bytes, and what others leave behind must not make much more of them.
func takeRecord(n int) []byte {
	if n <= smallRecord {
		return make([]byte, 0, n)
	}
	room := (n + longStep - 1) / longStep * longStep
	switch b, _ := longRecords.Get().(*[]byte); {
	case b == nil || cap(*b) < n:
	case cap(*b) > 2*room:
		longRecords.Put(b)
	default:
		return (*b)[:0]
	}
	return make([]byte, 0, room)
}

// longStep is what the room of a long record is a multiple of, so that it serves for others of about its length.
const longStep = 64 << 10

// recycleRecord takes back the memory of a record that nobody reads any more. Small ones are left alone.
func recycleRecord(record []byte) {
	if cap(record) > smallRecord {
		spoil(record)
		longRecords.Put(&record)
	}
}

// spoil is told of memory that is given back. Tests overwrite it, so that whoever still reads it is found out.
var spoil = func([]byte) {}

var (
	errOversized     = errors.New("record is longer than any call")
	errEmptyFragment = errors.New("empty fragment that is not the last")
)

// A recordReader takes calls off a stream by the record marking of [RFC5531 §11]. A record is a
// chain of fragments, each behind a word with its length and a bit that says whether it is the last.
type recordReader struct {
	src  io.Reader
	buf  []byte // what was read ahead is buf[r:w]
	r, w int

	// reserve is asked before memory for a record of n bytes is taken; its error ends the stream.
	reserve func(n int) error
	// partial is called before waiting for the rest of a record that has begun, whole when it came.
	partial, whole func()
}

// next returns the next record, in memory of its own. io.EOF only between records.
func (r *recordReader) next() ([]byte, error) {
	var record []byte
	for begun := false; ; begun = true {
		mark, err := r.mark(begun)
		if err != nil {
			return nil, err
		}
		n, last := int(mark&^lastFragment), mark&lastFragment != 0
		switch {
		case n > maxRecord-len(record):
			return nil, errOversized
		case n == 0 && !last: // or a record could have fragments without end
			return nil, errEmptyFragment
		}
		if record, err = r.fragment(record, n, begun, last); err != nil {
			return nil, err
		}
		if last {
			r.whole()
			return record, nil
		}
	}
}

// mark reads the word before a fragment.
func (r *recordReader) mark(begun bool) (uint32, error) {
	for r.w-r.r < 4 {
		if begun || r.w > r.r {
			r.partial()
		}
		if err := r.fill(); err != nil {
			if err == io.EOF && (begun || r.w > r.r) {
				err = io.ErrUnexpectedEOF
			}
			return 0, err
		}
	}
	mark := binary.BigEndian.Uint32(r.buf[r.r:])
	r.r += 4
	return mark, nil
}

// fragment appends the n bytes of a fragment to record. The first fragment of several reserves the
// largest record at once: nobody may hold memory while waiting for more of it.
func (r *recordReader) fragment(record []byte, n int, begun, last bool) ([]byte, error) {
	if !begun {
		need := n
		if !last {
			need = maxRecord
		}
		if need > smallRecord {
			if err := r.reserve(need); err != nil {
				return nil, err
			}
		}
		record = takeRecord(n)
	}
	have := min(n, r.w-r.r)
	start := len(record)
	record = append(record, r.buf[r.r:r.r+have]...)
	r.r += have
	if have == n {
		return record, nil
	}
	record = slices.Grow(record, n-have)[:start+n] // in place: the capacity is there for a single fragment
	r.partial()
	if _, err := io.ReadFull(r.src, record[start+have:]); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return record, nil
}

// fill reads ahead as much as the buffer holds. Precondition: fewer than four bytes are in it.
func (r *recordReader) fill() error {
	r.w = copy(r.buf, r.buf[r.r:r.w])
	r.r = 0
	n, err := r.src.Read(r.buf[r.w:])
	r.w += n
	if n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}
