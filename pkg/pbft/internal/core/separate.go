// SPDX-License-Identifier: Apache-2.0

package core

import "bfs/pkg/pbft/internal/message"

// Long operations may come to every replica from their clients, and proposals name them by their
// digests: so the primary's wire carries each once and not 3f times [TOCS §6.1; R-OPT-BR]. Each
// replica keeps the last such request of every slot until it is executed, and has no timer for it:
// if the primary leaves it, the client sends it again in the common way. A replica that lacks a
// proposed operation holds the proposal and does not vote, until the operation comes from its
// client, or in a batch by digest.

// layBy keeps a request that its client sent to everyone, in place of the slot's earlier one
// (R-OPT-BR-2).
func (q *queue) layBy(r *message.Request) Refusal {
	if int(r.Slot) >= q.slots {
		return TooManyRequests
	}
	l, freed := q.line(r.Client), 0
	if old := l.laidBy[r.Slot]; old != nil {
		if r.Timestamp <= old.Timestamp {
			return OlderRequest
		}
		freed = old.Length()
	}
	switch {
	case r.Timestamp <= l.done[r.Slot].t:
		return OlderRequest
	case !q.room.fits(l, r.Length(), freed):
		return TooManyRequests
	}
	q.room.weigh(l, r.Length()-freed)
	l.laidBy[r.Slot], l.lastNonce = r, r.Auth.Nonce
	return accepted
}

// hasLaidBy reports whether a request's operation is here because its client sent it to everyone.
// l is nil if the client has no line.
func (l *line) hasLaidBy(r *message.Request) bool {
	if l == nil || int(r.Slot) >= len(l.laidBy) {
		return false
	}
	a := l.laidBy[r.Slot]
	return a != nil && sameWish(a, r)
}

// passed reports whether a stub's client has sent us something later than the stub's request. A
// client's messages come in order, as its nonces rise, so that request will not come from it.
func (q *queue) passed(r *message.Request) bool {
	l := q.find(r.Client)
	return l != nil && l.lastNonce > r.Auth.Nonce
}

// fill gives a stub its operation, if that is here.
func (q *queue) fill(r *message.Request) bool {
	l := q.find(r.Client)
	if l == nil || int(r.Slot) >= q.slots {
		return false
	}
	for _, x := range []*message.Request{l.laidBy[r.Slot], l.pending[r.Slot]} {
		if x != nil && r.Fill(x) {
			return true
		}
	}
	return false
}

// fillBatch gives the stubs of a batch the operations that are here, and reports whether all are.
func (q *queue) fillBatch(b *message.Batch) bool {
	all := true
	for _, r := range b.Requests {
		if r.IsStub() && !q.fill(r) {
			all = false
		}
	}
	return all
}

// abridged is a batch as the primary proposes it in a tick. It names the operations by their
// digests that their clients sent to everyone, or that a quorum holds because they have waited.
func (q *queue) abridged(b message.Batch, tick int, held func(*message.Request) bool) message.Batch {
	requests := make([]*message.Request, len(b.Requests))
	for i, r := range b.Requests {
		if requests[i] = r; (r.Apart || held(r)) && q.line(r.Client).inFull.over(tick) {
			requests[i] = r.Stub()
		}
	}
	return message.Batch{Requests: requests, Choice: b.Choice}
}

// How long, in ticks, a client's operations are proposed in full after some did not reach everyone.
// It grows if that happens again.
const (
	inFullTicks    = 100
	maxInFullTicks = 64 * inFullTicks
)

// spellOut has a client's operations proposed in full for a while.
func (q *queue) spellOut(c message.ClientID, tick int) {
	l := q.line(c)
	if !l.inFull.over(tick) {
		return
	}
	l.inFull.forget(tick, 10)
	l.inFull.begin(tick, inFullTicks, maxInFullTicks)
}
