package core

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// Long operations may come to every replica from their clients, and proposals name them by their digests: so the primary's
// wire carries each once and not 3f times [TOCS §6.1; R-OPT-BR]. Each replica keeps the last of every slot until it is
// executed. It does not wait for it: the client sends again, and in the common way, what the primary leaves. A proposal that
// names what is not here is held, and nobody who lacks it votes, until it comes from its client or as a batch by digest.

// layBy keeps a request for the proposal that will name it.
func (c *Core) layBy(r *message.Request) {
	if why := c.queue.layBy(r); why != accepted {
		c.refuse(r, why)
		return
	}
	c.operationCame(r)
}

// layBy takes in what a client sent to everyone, in place of what was there of its slot (R-OPT-BR-2).
func (q *queue) layBy(r *message.Request) Refusal {
	if int(r.Slot) >= q.slots {
		return TooManyRequests
	}
	l, freed := q.line(r.Client), 0
	if old := l.apart[r.Slot]; old != nil {
		if r.Timestamp <= old.Timestamp {
			return OlderRequest
		}
		freed = old.Length()
	}
	switch {
	case r.Timestamp <= l.done[r.Slot].t:
		return OlderRequest
	case l.bytes-freed > 0 && l.bytes-freed+r.Length() > q.lineBytes:
		return TooManyRequests
	}
	l.bytes += r.Length() - freed
	l.apart[r.Slot], l.heard = r, r.Auth.Nonce
	return accepted
}

// passed reports whether a stub's client has brought us something later than what the stub stands for. What comes from a
// client comes in order, and its nonces rise: so that will not come.
func (q *queue) passed(r *message.Request) bool {
	l := q.find(r.Client)
	return l != nil && l.heard > r.Auth.Nonce
}

func (l *line) dropApart(s message.Slot) {
	l.bytes -= l.apart[s].Length()
	l.apart[s] = nil
}

// fill gives a stub its operation, if that is here.
func (q *queue) fill(r *message.Request) bool {
	l := q.find(r.Client)
	if l == nil || int(r.Slot) >= q.slots {
		return false
	}
	for _, x := range []*message.Request{l.apart[r.Slot], l.pending[r.Slot]} {
		if x != nil && r.Fill(x) {
			return true
		}
	}
	return false
}

// fill gives the stubs of a batch the operations that are here, and reports whether none is missing.
func (c *Core) fill(b *message.Batch) bool {
	all := true
	for _, r := range b.Requests {
		if r.IsStub() && !c.queue.fill(r) {
			all = false
		}
	}
	return all
}

// operationCame tries the proposals again that lack an operation.
func (c *Core) operationCame(r *message.Request) {
	if r.Length() > message.ShortOperation {
		c.bodies.eachLacking(c.advance)
	}
}

// abridged is a batch as the primary proposes it.
func (c *Core) abridged(b message.Batch) message.Batch {
	if !c.cfg.Separate {
		return b
	}
	requests := make([]*message.Request, len(b.Requests))
	for i, r := range b.Requests {
		if requests[i] = r; r.Apart && c.queue.line(r.Client).inFull.over(c.tick) {
			requests[i] = r.Stub()
		}
	}
	return message.Batch{Requests: requests, Choice: b.Choice}
}

// For so many ticks a client's operations are proposed in full after some did not reach everyone; longer if that happens again.
const (
	inFullTicks    = 100
	maxInFullTicks = 64 * inFullTicks
)

// spellOut has the primary send whole, for a while, what those clients ask whose operations a backup lacked. Each of its
// batches is late by the backup's patience, and all behind it.
func (c *Core) spellOut(m *message.FetchBatch) {
	if !c.isPrimary() || !c.active {
		return
	}
	for n := c.log.next(); n <= min(c.proposing.last, c.log.high); n++ {
		p := c.log.slot(n).proposal
		if p == nil || !slices.Contains(m.Digests, p.Digest) {
			continue
		}
		for _, r := range p.Batch.Requests {
			if r.Apart {
				c.queue.line(r.Client).spellOut(c.tick)
			}
		}
	}
}

func (l *line) spellOut(tick int) {
	if !l.inFull.over(tick) {
		return
	}
	l.inFull.forget(tick, 10)
	l.inFull.begin(tick, inFullTicks, maxInFullTicks)
}
