// SPDX-License-Identifier: Apache-2.0

package message

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrMalformed is the refusal of bytes that no encoder of ours writes.
var ErrMalformed = errors.New("malformed message")

func appendU16(b []byte, v uint16) []byte { return binary.LittleEndian.AppendUint16(b, v) }
func appendU32(b []byte, v uint32) []byte { return binary.LittleEndian.AppendUint32(b, v) }
func appendU64(b []byte, v uint64) []byte { return binary.LittleEndian.AppendUint64(b, v) }

func appendBool(b []byte, v bool) []byte {
	if v {
		return append(b, 1)
	}
	return append(b, 0)
}

// A reader takes fields off the front of a message. The first thing wrong sticks; later reads
// give zeros, so that a decoder is a straight line with one check at its end.
type reader struct {
	b   []byte
	why string
}

func (r *reader) fail(why string) {
	if r.why == "" {
		r.why = why
	}
	r.b = nil
}

func (r *reader) bytes(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.fail("it ends too soon")
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}

func (r *reader) u8() uint8 {
	if v := r.bytes(1); v != nil {
		return v[0]
	}
	return 0
}

func (r *reader) bool() bool {
	v := r.u8()
	if v > 1 {
		r.fail("a flag is neither 0 nor 1")
	}
	return v == 1
}

func (r *reader) u16() uint16 {
	if v := r.bytes(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if v := r.bytes(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if v := r.bytes(8); v != nil {
		return binary.LittleEndian.Uint64(v)
	}
	return 0
}

// maxNumber is above every view and every number that a group can reach: at a million batches a
// second it lasts for a hundred thousand years. A higher number is a lie, and refused here, so that
// sums of numbers never wrap.
const maxNumber = 1 << 62

func (r *reader) number() uint64 {
	v := r.u64()
	if v >= maxNumber {
		r.fail("a number that no group reaches")
		return 0
	}
	return v
}

func (r *reader) view() View     { return View(r.number()) }
func (r *reader) seqNum() SeqNum { return SeqNum(r.number()) }

func (r *reader) digest() (d Digest) {
	copy(d[:], r.bytes(DigestSize))
	return d
}

// count is n if it is within the bound, which is checked before anything is allocated for it.
func (r *reader) count(n, bound int) int {
	if n < 0 || n > bound {
		r.fail("a count is above its bound")
		return 0
	}
	return n
}

// end is the error of the whole reading; bytes left over are one.
func (r *reader) end(t Type) error {
	if r.why == "" && len(r.b) > 0 {
		r.why = "bytes follow its end"
	}
	if r.why != "" {
		return fmt.Errorf("%w: %v: %s", ErrMalformed, t, r.why)
	}
	return nil
}

// Decode reads a message whose last trailer bytes, if any, were cut off already. The message
// aliases b, so the caller must not change b as long as the message lives.
func Decode(b []byte, lim *Limits) (Message, error) {
	var r reader
	return decode(b, lim, &r, blank)
}

// decode reads a message into a blank one of its type, nil if there is no such type.
func decode(b []byte, lim *Limits, r *reader, blank func(Type) decodable) (Message, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("%w: empty", ErrMalformed)
	}
	t := Type(b[0])
	*r = reader{b: b[1:]}
	m := blank(t)
	if m == nil {
		return nil, fmt.Errorf("%w: %v", ErrMalformed, t)
	}
	m.decode(r, lim)
	if err := r.end(t); err != nil {
		return nil, err
	}
	return m, nil
}

// A Decoder decodes the messages of one connection. It makes votes and replies, which are many and
// short-lived, in memory that it uses again after Reset, and requests several at a time. It is for
// one goroutine at a time.
type Decoder struct {
	r        reader
	prepares slab[Prepare]
	commits  slab[Commit]
	replies  slab[Reply]
	requests []Request // blank ones, for those to come
}

// Decode is like the function, but a Prepare, Commit or Reply is good only until Reset.
func (d *Decoder) Decode(b []byte, lim *Limits) (Message, error) {
	return decode(b, lim, &d.r, d.blank)
}

// Reset ends the lives of all Prepares, Commits and Replies that were decoded.
func (d *Decoder) Reset() { d.prepares.used, d.commits.used, d.replies.used = 0, 0, 0 }

func (d *Decoder) blank(t Type) decodable {
	switch t {
	case TypePrepare:
		m := d.prepares.next()
		*m = Prepare{Commits: m.Commits[:0]}
		return m
	case TypeCommit:
		m := d.commits.next()
		*m = Commit{}
		return m
	case TypeReply:
		m := d.replies.next()
		*m = Reply{Answers: m.Answers[:0]}
		return m
	case TypeRequest:
		return d.request()
	}
	return blank(t)
}

// requestsAtATime share an allocation, and live until the last of them is forgotten.
const requestsAtATime = 16

func (d *Decoder) request() *Request {
	if len(d.requests) == 0 {
		d.requests = make([]Request, requestsAtATime)
	}
	m := &d.requests[0]
	d.requests = d.requests[1:]
	return m
}

// slabSize is how many messages of a type are made in memory that is used again.
const slabSize = 64

type slab[T any] struct {
	items []T // slabSize of them, once there is one
	used  int
}

func (s *slab[T]) next() *T {
	if s.used == slabSize {
		return new(T)
	}
	if s.items == nil {
		s.items = make([]T, slabSize)
	}
	s.used++
	return &s.items[s.used-1]
}

// A decodable message reads its body off a reader.
type decodable interface {
	Message
	decode(r *reader, lim *Limits)
}

// blank returns an empty message of a type, nil if there is no such type.
func blank(t Type) decodable {
	switch t {
	case TypeNewKey:
		return new(NewKey)
	case TypeRequest:
		return new(Request)
	case TypeReply:
		return new(Reply)
	case TypePrePrepare:
		return new(PrePrepare)
	case TypePrepare:
		return new(Prepare)
	case TypeCommit:
		return new(Commit)
	case TypeCheckpoint:
		return new(Checkpoint)
	case TypeStatus:
		return new(Status)
	case TypeFetch:
		return new(Fetch)
	case TypeData:
		return new(Data)
	case TypeViewChange:
		return new(ViewChange)
	case TypeViewChangeAck:
		return new(ViewChangeAck)
	case TypeNewView:
		return new(NewView)
	case TypeForward:
		return new(Forward)
	case TypeFetchBatch:
		return new(FetchBatch)
	case TypeBatchBody:
		return new(BatchBody)
	case TypeDecided:
		return new(Decided)
	case TypeQueryStable:
		return new(QueryStable)
	case TypeReplyStable:
		return new(ReplyStable)
	case TypeRecovered:
		return new(Recovered)
	}
	return nil
}
