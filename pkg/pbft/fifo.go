// SPDX-License-Identifier: Apache-2.0

package pbft

// A fifo is a queue, first in first out, that uses its memory again. A value keeps its place until
// it leaves or the queue grows.
type fifo[T any] struct {
	ring  []T
	head  int // place of the first value
	count int // of values
}

func (q *fifo[T]) len() int { return q.count }

// first is the value that has waited longest, of at least one.
func (q *fifo[T]) first() *T { return &q.ring[q.head] }

func (q *fifo[T]) push(x T) {
	if q.count == len(q.ring) {
		ring := make([]T, max(8, 2*q.count))
		copy(ring[copy(ring, q.ring[q.head:]):], q.ring[:q.head])
		q.ring, q.head = ring, 0
	}
	at := q.head + q.count
	if at >= len(q.ring) {
		at -= len(q.ring)
	}
	q.ring[at] = x
	q.count++
}

// drop removes the first value.
func (q *fifo[T]) drop() {
	var none T
	*q.first() = none
	q.count--
	if q.head++; q.head == len(q.ring) {
		q.head = 0
	}
}
