// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"

	"bfs/pkg/nfs3"
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

// longRecords holds the memory of long records whose calls are over. A kernel that writes
// a large file sends records of 1 MiB one after the other, and touching fresh memory for
// each costs more than receiving it.
var longRecords sync.Pool

// takeRecord returns an empty record with room for n bytes. A long one has at most twice
// the room it needs, because its call reserves only n bytes of the budget.
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

// longStep divides the room of every long record, so that its memory also fits others of
// about its length.
const longStep = 64 << 10

// recycleRecord takes back the memory of a record that is no longer read. Small records
// are left to the garbage collector.
func recycleRecord(record []byte) {
	if cap(record) > smallRecord {
		spoil(record)
		longRecords.Put(&record)
	}
}

// spoil is called with memory that is given back. Tests overwrite the memory, so that a
// goroutine that still reads it is found out.
var spoil = func([]byte) {}

var (
	errOversized     = errors.New("record is longer than any call")
	errEmptyFragment = errors.New("empty fragment that is not the last")
	errUnfinished    = errors.New("record is not whole yet")
)

// A recordReader takes calls off a stream by the record marking of [RFC5531 §11]. A
// record is a chain of fragments, each behind a word with its length and a bit that says
// whether it is the last.
//
// Its caller reads into space, tells filled how many bytes came, and calls next until it returns
// errUnfinished.
type recordReader struct {
	buf  []byte // buf[r:w] was read ahead
	r, w int

	record []byte // the bytes so far of the record under construction, with capacity for the fragments begun
	begun  bool   // the record has a fragment already
	left   int    // bytes of the current fragment that are not in record; then buf is empty
	last   bool   // it is the last

	// reserve is asked before memory for a record of n bytes is taken; its error ends the stream.
	reserve func(n int) error
	// partial is called before waiting for the rest of a record that has begun, whole
	// when the rest has come.
	partial, whole func()
}

// space returns the memory for the next bytes of the stream; it is never empty.
func (r *recordReader) space() []byte {
	if r.left > 0 {
		return r.record[len(r.record) : len(r.record)+r.left]
	}
	r.w = copy(r.buf, r.buf[r.r:r.w])
	r.r = 0
	return r.buf[r.w:]
}

// filled records that the first n bytes of space have come.
func (r *recordReader) filled(n int) {
	if r.left > 0 {
		r.record = r.record[:len(r.record)+n]
		r.left -= n
		return
	}
	r.w += n
}

// next returns the next record, in memory of its own, or errUnfinished if more must come first.
func (r *recordReader) next() ([]byte, error) {
	for {
		if r.left > 0 {
			r.partial()
			return nil, errUnfinished
		}
		if r.last {
			record := r.record
			r.record, r.begun, r.last = nil, false, false
			r.whole()
			return record, nil
		}
		if r.w-r.r < 4 {
			if r.unfinished() {
				r.partial()
			}
			return nil, errUnfinished
		}
		mark := binary.BigEndian.Uint32(r.buf[r.r:])
		r.r += 4
		if err := r.fragment(int(mark&^lastFragment), mark&lastFragment != 0); err != nil {
			return nil, err
		}
	}
}

// unfinished reports whether a record has begun that is not whole: a stream must not end there.
func (r *recordReader) unfinished() bool { return r.begun || r.w > r.r }

// fragment begins a fragment of n bytes with those that have come already. The first of
// several fragments reserves the largest record at once, because a peer that waits for
// budget in the middle of a record would hold memory meanwhile.
func (r *recordReader) fragment(n int, last bool) error {
	switch {
	case n > maxRecord-len(r.record):
		return errOversized
	case n == 0 && !last: // or a record could have fragments without end
		return errEmptyFragment
	}
	if !r.begun {
		need := n
		if !last {
			need = maxRecord
		}
		if need > smallRecord {
			if err := r.reserve(need); err != nil {
				return err
			}
		}
		r.record = takeRecord(n)
	}
	have := min(n, r.w-r.r)
	r.record = append(r.record, r.buf[r.r:r.r+have]...)
	r.r += have
	r.record = slices.Grow(r.record, n-have) // in place: the capacity is there for a single fragment
	r.begun, r.left, r.last = true, n-have, last
	return nil
}
