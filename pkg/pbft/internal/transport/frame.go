// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"fmt"
	"sync"
)

const (
	// Keep is the length up to which a frame is lent to the handler. A frame of Keep bytes or
	// fewer lies in the read buffer and is valid until Frames returns; a longer one was allocated
	// for itself alone, and is the handler's to keep and to change.
	Keep = 8 << 10

	headerSize    = 4
	minReadBuffer = 2 * (headerSize + Keep) // room for a lent frame and as much again
	maxFrames     = 1024                    // handed over at one time
)

// spare holds frames that were given back. A state that is fetched comes as thousands of
// a quarter of a mebibyte each, and fresh memory for every one costs more than reading it
// does: it is cleared, touched and collected.
var spare sync.Pool

// takeLarge returns memory for a frame of n bytes, not much more than that: the handler
// may keep it.
func takeLarge(n int) []byte {
	b, _ := spare.Get().(*[]byte)
	switch {
	case b == nil || cap(*b) < n:
		return make([]byte, n)
	case cap(*b) > 2*n:
		spare.Put(b)
		return make([]byte, n)
	}
	return (*b)[:n]
}

// Recycle takes back a frame that its handler has no more use for, so that its memory
// serves for one to come. Lent frames are left alone.
func Recycle(frame []byte) {
	if cap(frame) > Keep {
		spare.Put(&frame)
	}
}

// A splitter cuts a stream of bytes into frames. The reader fills Space, tells Filled how much
// came, and calls Next until there is nothing.
//
// Invariant: a frame under construction is either at the start of buf[r:w], and then its length is
// unknown or at most Keep; or it is large, and then r == w.
type splitter struct {
	max    int // longest frame allowed; may change between calls
	maxBuf int // the length that buf may grow to
	buf    []byte
	r, w   int    // buf[r:w] is received and not yet handed over
	large  []byte // the frame under construction if it is longer than Keep: allocated whole
	got    int    // large[:got] is received
	frames [][]byte
}

func newSplitter(maxFrame, maxBuf int) *splitter {
	return &splitter{max: maxFrame, maxBuf: maxBuf, buf: make([]byte, minReadBuffer)}
}

// space returns the memory for the next bytes; it is never empty. All lent frames become invalid.
func (s *splitter) space() []byte {
	if s.large != nil {
		return s.large[s.got:]
	}
	full := s.w == len(s.buf)
	old := s.buf
	if full && len(old) < s.maxBuf { // the peer has more for us than we took: take more
		s.buf = make([]byte, min(2*len(old), s.maxBuf))
	}
	s.w = copy(s.buf, old[s.r:s.w])
	s.r = 0
	return s.buf[s.w:]
}

// filled records that the first n bytes of space were received.
func (s *splitter) filled(n int) {
	if s.large != nil {
		s.got += n
		return
	}
	s.w += n
}

// next returns the next complete frames, in order, at most maxFrames; none if more bytes are
// needed first. The error is final and comes after all frames before the bad one.
func (s *splitter) next() ([][]byte, error) {
	s.frames = s.frames[:0]
	if s.large != nil {
		if s.got < len(s.large) {
			return nil, nil
		}
		s.frames = append(s.frames, s.large)
		s.large = nil
	}
	for len(s.frames) < maxFrames {
		more, err := s.cut()
		if err != nil && len(s.frames) == 0 {
			return nil, err
		}
		if err != nil || !more {
			break
		}
	}
	return s.frames, nil
}

// cut appends the frame at the start of buf[r:w] to frames, if all of it is there.
func (s *splitter) cut() (more bool, err error) {
	have := s.buf[s.r:s.w]
	if len(have) < headerSize {
		return false, nil
	}
	length := binary.LittleEndian.Uint32(have)
	if uint64(length) > uint64(s.max) {
		return false, fmt.Errorf("%w: got %d bytes, want <= %d", ErrOversized, length, s.max)
	}
	n := int(length)
	have = have[headerSize:]
	switch {
	case n > Keep:
		frame := takeLarge(n)
		got := copy(frame, have)
		s.r += headerSize + got
		if got < n {
			s.large, s.got = frame, got
			return false, nil
		}
		s.frames = append(s.frames, frame)
	case n > len(have):
		return false, nil
	default:
		s.frames = append(s.frames, have[:n:n])
		s.r += headerSize + n
	}
	return true, nil
}

// partial reports whether a frame has begun that is not complete. Meaningful when next has
// returned nothing.
func (s *splitter) partial() bool { return s.large != nil || s.r < s.w }
