// SPDX-License-Identifier: Apache-2.0

package client

import "time"

// Bounds of the long operations that a client has under way.
const (
	// bulkLength is the length from which an operation counts as long.
	bulkLength = 32 << 10
	// mostBulk bounds the bytes of long operations under way; a single one may be longer. The
	// group is no faster when it is sent more of them, and they fill the connections.
	mostBulk = 8 << 20
	// firstBulk is the limit of a client that knows nothing about the group.
	firstBulk = 1 << 20
	// bulkStep is how much the limit grows or shrinks while answers to as many bytes as it is
	// come.
	bulkStep = 1 << 20
	// bulkDelay is how long a long operation may take, however fast the group is when it is
	// idle, before the client has less under way.
	bulkDelay = 250 * time.Millisecond
	// slowestBulk bounds what the client takes for the speed of an idle group, which it cannot
	// know if the group is never idle.
	slowestBulk = 500 * time.Millisecond
	// bulkMemory is how many long operations the client looks back, to know that speed.
	bulkMemory = 1024
)

// bulk is the room for a client's long operations. The replicas have one room for those of all
// clients, and refuse what does not fit, of which the client learns only from silence. When many
// clients fill it, each long operation is sent again and again to all replicas, and the group is
// busy with nothing else. So each client has as many under way as the group executes in a quarter
// of a second, which is enough to keep the group busy: it measures how long they take, has more if
// that is short, and less if it is long, as LEDBAT does [RFC6817]. If one has to be sent again, it
// has half as many, as TCP does [RFC5681 §3.1].
type bulk struct {
	under  int // bytes of the long operations under way
	limit  int // for under, unless there is one alone
	halved Time
	// The least time that long operations took of late: of the last few, and of those before.
	least, before Time
	count         int // of those that least is about
}

func (b *bulk) init() {
	*b = bulk{limit: firstBulk, halved: never, least: slowestBulk, before: slowestBulk}
}

// of is how many bytes an operation of n bytes counts as.
func (*bulk) of(n int) int {
	if n < bulkLength {
		return 0
	}
	return n
}

// room reports whether an operation of n bytes finds room beside the long ones.
func (b *bulk) room(n int) bool { return b.of(n) == 0 || b.under == 0 || b.under+n <= b.limit }

func (b *bulk) begin(n int) { b.under += b.of(n) }
func (b *bulk) end(n int)   { b.under -= b.of(n) }

// answered learns from an operation of n bytes that was sent once.
func (b *bulk) answered(n int, took Time) {
	if b.of(n) == 0 {
		return
	}
	b.least = min(b.least, took)
	idle := min(b.least, b.before)
	if b.count++; b.count == bulkMemory {
		b.least, b.before, b.count = slowestBulk, b.least, 0
	}
	step := max(1, int(int64(bulkStep)*int64(min(n, b.limit))/int64(b.limit)))
	switch enough := max(bulkDelay, 2*idle); {
	case took > enough:
		b.limit = max(b.limit-step, bulkLength)
	case took < enough/2:
		b.limit = min(b.limit+max(n, step), mostBulk)
	default:
		b.limit = min(b.limit+step, mostBulk)
	}
}

// late notes that an operation of n bytes, sent for the first time at some time, is sent again.
// Operations that were under way when the limit was halved say nothing about the new limit.
func (b *bulk) late(now, sent Time, n int) {
	if b.of(n) > 0 && sent >= b.halved {
		b.limit, b.halved = max(b.limit/2, bulkLength), now
	}
}
