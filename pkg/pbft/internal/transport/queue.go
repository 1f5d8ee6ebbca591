// SPDX-License-Identifier: Apache-2.0

package transport

import (
	"encoding/binary"
	"sync"
)

// chunkSize is the unit in which queues take memory: an idle connection holds none.
const chunkSize = 32 << 10

// A chunk holds bytes that wait to be sent: b[r:w].
type chunk struct {
	r, w   int
	b      []byte
	shared *Shared // owner of b; nil: b has chunkSize bytes, and is the chunk's own
}

var chunks = sync.Pool{New: func() any { return &chunk{b: make([]byte, chunkSize)} }}

// A queue is a stream of bytes in chunks: appended at the end, consumed at the front. Bytes once
// appended do not move, so that a write may read them while more are appended behind.
type queue struct {
	chunks []*chunk
	taken  uint64 // position in the stream of the first byte still here
	total  uint64 // position in the stream after the last
}

// bytes returns how many bytes wait.
func (q *queue) bytes() int { return int(q.total - q.taken) }

// appendFrame appends one frame of n bytes, the concatenation of the shared bytes, if there are
// any, and parts.
func (q *queue) appendFrame(n int, shared *Shared, parts [][]byte) {
	var header [headerSize]byte
	binary.LittleEndian.PutUint32(header[:], uint32(n))
	q.append(header[:])
	if shared != nil {
		shared.holders.Add(1)
		q.chunks = append(q.chunks, &chunk{w: len(shared.b), b: shared.b, shared: shared})
		q.total += uint64(len(shared.b))
	}
	for _, p := range parts {
		q.append(p)
	}
}

func (q *queue) append(p []byte) {
	q.total += uint64(len(p))
	for len(p) > 0 {
		last := len(q.chunks) - 1
		if last < 0 || q.chunks[last].w == len(q.chunks[last].b) {
			c := chunks.Get().(*chunk)
			c.r, c.w = 0, 0
			q.chunks = append(q.chunks, c)
			last++
		}
		c := q.chunks[last]
		n := copy(c.b[c.w:], p)
		c.w += n
		p = p[n:]
	}
}

// slices appends to to, up to its capacity, the first bytes of the queue, at most limit of them.
func (q *queue) slices(to [][]byte, limit int) [][]byte {
	for _, c := range q.chunks {
		if limit == 0 || len(to) == cap(to) {
			break
		}
		b := c.b[c.r:c.w]
		b = b[:min(len(b), limit)]
		limit -= len(b)
		to = append(to, b)
	}
	return to
}

// consume removes the first n bytes and gives back the chunks they filled. The caller must be their
// only reader.
func (q *queue) consume(n int) {
	q.taken += uint64(n)
	empty := 0
	for _, c := range q.chunks {
		k := min(n, c.w-c.r)
		c.r += k
		n -= k
		if c.r < c.w {
			break
		}
		c.done()
		empty++
	}
	if empty > 0 {
		rest := copy(q.chunks, q.chunks[empty:])
		clear(q.chunks[rest:])
		q.chunks = q.chunks[:rest]
	}
}

// done gives back the memory of a chunk that is no longer read.
func (c *chunk) done() {
	if c.shared != nil {
		c.shared.Release()
		return
	}
	chunks.Put(c)
}

// drop forgets everything. It leaves the chunks to the garbage collector, for a write may still
// be reading them.
func (q *queue) drop() {
	q.chunks = nil
	q.taken = q.total
}
