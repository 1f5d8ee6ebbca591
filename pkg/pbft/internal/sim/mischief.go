// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"

	"bfs/pkg/pbft/internal/message"
)

// A mischief is how a faulty client sends a request. It must tell the judge of every
// request that it makes.
type mischief func(s *callSlot, q *message.Request)

var mischiefs = []struct {
	name string
	do   mischief
}{
	{"has wrong MACs for some", wrongMACs},
	{"wishes different things under one timestamp", twoWishes},
	{"uses stale and far timestamps", staleTimes},
	{"floods", flood},
	{"makes for each replica a request that is good there alone", goodAtOne},
	{"sends long operations to some only", hoard},
}

// faultyClient adds a client whose calls need not end.
func (d *drawing) faultyClient() {
	m := mischiefs[d.rng.IntN(len(mischiefs))]
	d.add(func(w *world) {
		if len(w.clients) < guest {
			c := newClient(w, len(w.clients))
			c.mischief = m.do
			w.clients = append(w.clients, c)
		}
	}, "a client %s", m.name)
}

// wish makes a request of a faulty client, and has its mischief send it four times.
func (s *callSlot) wish(op []byte, readOnly bool) {
	s.last++
	q := &message.Request{Client: s.c.id, Slot: s.slot, Timestamp: s.last, ReadOnly: readOnly, Op: op}
	s.call = &call{line: s, q: q}
	s.c.w.judge.requested(s.c, s.call.q)
	s.insist()
}

func (s *callSlot) insist() {
	k, w := s.call, s.c.w
	k.q.Replier, k.q.Provers = message.ReplicaID(w.rng.IntN(w.n)), 0
	for i := range w.f {
		k.q.Provers |= 1 << ((int(k.q.Replier) + 1 + i) % w.n)
	}
	k.q.Apart = w.shape.separate && k.tries == 0 && !k.q.ReadOnly && k.q.Length() > message.ShortOperation
	if k.tries > 0 {
		k.q.Replier = message.AnyReplier
	}
	s.c.mischief(s, k.q)
	wait := int64(4*tick) << k.tries
	w.after(wait+w.rng.Int64N(wait/4), func() {
		if k.tries++; k.tries > 3 {
			s.end()
			return
		}
		s.insist()
	})
}

func (s *callSlot) some() []bool {
	good := make([]bool, s.c.w.n)
	for i := range good {
		good[i] = s.c.w.rng.IntN(2) == 0
	}
	return good
}

func (s *callSlot) sendSome(q *message.Request) {
	for i := range s.c.w.n {
		if s.c.w.rng.IntN(3) > 0 {
			s.c.send(i, q)
		}
	}
}

func wrongMACs(s *callSlot, q *message.Request) {
	s.c.w.seal(q, s.some())
	s.sendSome(q)
	if s.c.w.rng.IntN(3) == 0 {
		s.c.w.seal(q, s.some())
		s.sendSome(q)
	}
}

// goodAtOne gives each replica a request that it alone can authenticate, so that every
// primary has one to propose that no backup accepts.
func goodAtOne(s *callSlot, q *message.Request) {
	for i := range s.c.w.n {
		x, good := *q, make([]bool, s.c.w.n)
		x.Slot, x.ReadOnly, good[i] = message.Slot(i), false, true
		s.c.w.seal(&x, good)
		s.c.w.judge.requested(s.c, &x)
		s.c.send(i, &x)
	}
}

func twoWishes(s *callSlot, q *message.Request) {
	for i := range s.c.w.n {
		x := *q
		x.Op = append([]byte{opWrite, byte(s.c.w.rng.IntN(2))}, q.Op[1:]...)
		s.c.w.seal(&x, s.c.w.everyone)
		s.c.w.judge.requested(s.c, &x)
		s.c.send(i, &x)
	}
}

// hoard marks a request as sent to all, and sends it to the primary and some others, or
// sends another one to those.
func hoard(s *callSlot, q *message.Request) {
	w := s.c.w
	q.ReadOnly, q.Apart = false, true
	q.Op = append(bytes.Clone(q.Op), make([]byte, message.ShortOperation)...)
	w.seal(q, w.everyone)
	w.judge.requested(s.c, q)
	other := *q
	other.Op = bytes.Clone(q.Op)
	other.Op[len(other.Op)-1]++
	w.seal(&other, s.c.w.everyone)
	w.judge.requested(s.c, &other)
	for i := range w.n {
		switch {
		case i == int(w.latest().Primary(w.n)), w.rng.IntN(4) == 0:
			s.c.send(i, q)
		case w.rng.IntN(3) == 0:
			s.c.send(i, &other)
		}
	}
}

func staleTimes(s *callSlot, q *message.Request) {
	switch s.c.w.rng.IntN(5) {
	case 0:
		q.Timestamp -= message.Timestamp(s.c.w.rng.IntN(10))
	case 1:
		q.Timestamp = ^message.Timestamp(0)
	case 2:
		q.Slot = message.Slot(s.c.w.rng.IntN(2 * ledgerSlots))
	case 3:
		q.Timestamp = 0
	}
	s.c.w.seal(q, s.c.w.everyone)
	s.c.w.judge.requested(s.c, q)
	s.sendSome(q)
}

func flood(s *callSlot, q *message.Request) {
	for k := range 24 {
		x := *q
		x.Slot = message.Slot(k % ledgerSlots)
		x.Timestamp += message.Timestamp(k)
		x.ReadOnly = false
		x.Op = append(make([]byte, 0, 700), q.Op...)[:12+s.c.w.rng.IntN(600)]
		if x.Op[0] == 0 {
			x.Op[0] = opWrite
		}
		s.c.w.seal(&x, s.some())
		s.c.w.judge.requested(s.c, &x)
		s.sendSome(&x)
	}
	s.last += 24
}
