// SPDX-License-Identifier: Apache-2.0

package pbft

// A fifo is a queue, first in first out, that uses its memory again.
type fifo[T any] struct {
	all  []T
	gone int // of all, those that have left
}

func (q *fifo[T]) len() int { return len(q.all) - q.gone }

// waiting are the values in the queue. They are good until the next change.
func (q *fifo[T]) waiting() []T { return q.all[q.gone:] }

// first is the value that has waited longest, of at least one.
func (q *fifo[T]) first() *T { return &q.all[q.gone] }

func (q *fifo[T]) push(x T) {
	if q.gone > 0 && len(q.all) == cap(q.all) {
		n := copy(q.all, q.waiting())
		clear(q.all[n:])
		q.all, q.gone = q.all[:n], 0
	}
	q.all = append(q.all, x)
}

// drop removes the first value.
func (q *fifo[T]) drop() {
	var none T
	*q.first() = none
	if q.gone++; q.gone == len(q.all) {
		q.all, q.gone = q.all[:0], 0
	}
}
