// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// past holds the latest batches decided at and below the low water mark. A replica whose fetched
// checkpoint is already superseded finds the later batches here. Invariant: it holds the numbers in
// (low, high], entry n at n mod len(entries), and bytes of operations.
type past struct {
	low, high message.SeqNum
	entries   []pastBatch
	bytes     int
}

type pastBatch struct {
	digest message.Digest
	batch  *message.Batch
	size   int
}

// pastBytes bounds the operations that past keeps. Together with the log's they stay within the
// log's bound.
const pastBytes = 16 << 20

func (p *past) entry(n message.SeqNum) *pastBatch {
	return &p.entries[uint64(n)%uint64(len(p.entries))]
}

// add takes the batch decided as n. It follows the last entry, or replaces all of them.
func (p *past) add(n message.SeqNum, b pastBatch) {
	if n != p.high+1 {
		p.drop(p.high)
		p.low, p.high = n-1, n-1
	}
	if p.high-p.low == message.SeqNum(len(p.entries)) {
		p.drop(p.low + 1)
	}
	p.high = n
	*p.entry(n) = b
	p.bytes += b.size
}

// drop forgets what is at and below n.
func (p *past) drop(n message.SeqNum) {
	for ; p.low < min(n, p.high); p.low++ {
		e := p.entry(p.low + 1)
		p.bytes -= e.size
		*e = pastBatch{}
	}
}

// fit forgets the oldest entries until the rest takes no more than this many bytes.
func (p *past) fit(bytes int) {
	for p.bytes > max(bytes, 0) {
		p.drop(p.low + 1)
	}
}

// find is a batch by its digest.
func (p *past) find(d message.Digest) *message.Batch {
	for i := range p.entries {
		if e := &p.entries[i]; e.batch != nil && e.digest == d {
			return e.batch
		}
	}
	return nil
}
