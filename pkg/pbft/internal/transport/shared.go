// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"sync"
	"sync/atomic"
)

// ShareFrom is the length from which it pays to share what several connections send.
const ShareFrom = chunkSize / 2

// A Shared is bytes that leave on several connections, each time at the beginning of a frame of its
// own. They lie in one place until the last connection has written them, where Send copies them for
// each.
type Shared struct {
	b       []byte
	holders atomic.Int32 // readers of b: its maker, and the queues it is in
}

var spareShared = sync.Pool{New: func() any { return new(Shared) }}

// Share takes p over, and gives other memory of no length in its place. The maker calls Release
// when it has sent the bytes.
func Share(p []byte) (s *Shared, other []byte) {
	s = spareShared.Get().(*Shared)
	s.b, other = p, s.b[:0]
	s.holders.Store(1)
	return s, other
}

// Bytes returns the shared bytes, which must not be written.
func (s *Shared) Bytes() []byte { return s.b }

// Release says that the caller no longer reads the bytes. Their memory is used again when no reader
// is left. If a connection ended early, the garbage collector takes it.
func (s *Shared) Release() {
	if s.holders.Add(-1) == 0 {
		spareShared.Put(s)
	}
}
