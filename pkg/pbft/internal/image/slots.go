// SPDX-License-Identifier: Apache-2.0

package image

import "math/bits"

// slots knows which slots of the file of pages are in use. The lowest free one is taken
// first, so that the file stays short.
type slots struct {
	words []uint64 // bit i of word w stands for slot 64*w+i+1
	hint  int      // words before have no free slot
}

// lowest returns the lowest free slot.
func (s *slots) lowest() uint32 {
	for s.hint < len(s.words) && s.words[s.hint] == ^uint64(0) {
		s.hint++
	}
	free := s.hint * 64
	if s.hint < len(s.words) {
		free += bits.TrailingZeros64(^s.words[s.hint])
	}
	return uint32(free + 1)
}

// take takes the lowest free slot.
func (s *slots) take() uint32 {
	slot := s.lowest()
	s.claim(slot)
	return slot
}

// claim takes a slot, unless it is in use.
func (s *slots) claim(slot uint32) bool {
	w, bit := int((slot-1)/64), uint64(1)<<((slot-1)%64)
	if w >= len(s.words) {
		s.words = append(s.words, make([]uint64, w+1-len(s.words))...)
	}
	if s.words[w]&bit != 0 {
		return false
	}
	s.words[w] |= bit
	return true
}

func (s *slots) free(slot uint32) {
	w := int((slot - 1) / 64)
	s.words[w] &^= 1 << ((slot - 1) % 64)
	s.hint = min(s.hint, w)
}

// high returns the highest slot in use, 0 if there is none.
func (s *slots) high() int {
	for w := len(s.words) - 1; w >= 0; w-- {
		if s.words[w] != 0 {
			return w*64 + bits.Len64(s.words[w])
		}
	}
	return 0
}
