// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"sync"
	"sync/atomic"
)

// ShareFrom is the length from which it pays to share what several connections send.
const ShareFrom = chunkSize / 2

// A Shared is bytes that leave on several connections, each time at the beginning of a frame of its own. They lie in one place
// until the last connection has written them, where Send copies them for each.
type Shared struct {
	b       []byte
	holders atomic.Int32 // who may read b yet: its maker, and the queues it is in
}

var spareShared = sync.Pool{New: func() any { return new(Shared) }}

// Share takes p over, and gives other memory of no length in its place. The maker calls Release when he has sent it.
func Share(p []byte) (s *Shared, other []byte) {
	s = spareShared.Get().(*Shared)
	s.b, other = p, s.b[:0]
	s.holders.Store(1)
	return s, other
}

// Bytes is what is shared, not to be written.
func (s *Shared) Bytes() []byte { return s.b }

// Release says that the caller does not read it any more. Its memory is used again when nobody does; of a connection that
// ended early the collector finds out.
func (s *Shared) Release() {
	if s.holders.Add(-1) == 0 {
		spareShared.Put(s)
	}
}
