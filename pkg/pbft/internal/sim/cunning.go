// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"

	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// cunning makes every second schedule with recoveries worse, from a random stream of its
// own: liars deceive the recovering replica, intruders leave records that fit together,
// and replicas crash while they recover, and as soon as they have recovered.
func (d *drawing) cunning() {
	rng := rand.New(rand.NewPCG(d.s.Seed, 8))
	if rng.IntN(2) > 0 {
		return
	}
	every, times := 1+rng.IntN(60), rng.IntN(4)
	restarts := rng.IntN(2) == 0
	d.add(func(w *world) {
		w.cunning = &cunning{rng: rng, restarts: restarts}
		for i := range times {
			w.patiently((i+1)*w.shape.stop/(times+1), func() bool { return w.crashes(int64(every) * tick) })
		}
	}, "liars deceive who recovers, and intruders plan ahead; %d times a replica crashes while it recovers, "+
		"and an ordinary start of %d ticks follows; and one restarts when it has recovered: %t", times, every, restarts)
}

// cunning holds what intruders and liars do to recoveries.
type cunning struct {
	rng      *rand.Rand
	restarts bool
}

// deceitful lies to replicas that recover.
var deceitful = lie{"deceitful", func(l *liarMemory, r *replica, _ int, m message.Message) []message.Message {
	n := message.SeqNum(l.rng.Uint64() >> (24 + l.rng.IntN(40)))
	v := message.View(l.rng.Uint64() >> (24 + l.rng.IntN(40)))
	switch m := m.(type) {
	case *message.ReplyStable:
		x := *m
		switch l.rng.IntN(5) {
		case 0:
			x.Taken, x.Prepared = 0, 0
		case 1:
			x.Taken, x.Prepared = n/r.w.shape.period*r.w.shape.period, n
		case 2:
			x.Taken, x.Prepared = 0, 1<<40
		case 3:
			x.View = v
		}
		return one(&x)
	case *message.Recovered:
		x := *m
		switch l.rng.IntN(4) {
		case 0:
			x.Seq = n
		case 1:
			x.View = v
		case 2:
			x.View = 0
		}
		return []message.Message{&x, m}[l.rng.IntN(2):]
	}
	return one(m)
}}

// parts makes an intruder leave more behind: records that fit together, for numbers and
// views that are yet to come.
func (x *cunning) parts(r *replica) {
	if r.keeper == nil {
		return
	}
	view, _ := r.core.View()
	far := message.SeqNum(x.rng.IntN(3)) * r.w.shape.log
	batch := message.Batch{Choice: []byte{byte(x.rng.IntN(3))}}
	var all []message.Message
	propose := func(each func(n message.SeqNum) []message.Message) {
		for n := r.core.Low() + far + 1; n < r.core.Low()+far+8*r.w.shape.log; n++ {
			all = append(all, &message.PrePrepare{View: view, Seq: n, Digest: batch.Digest(), Batch: batch,
				From: view.Primary(r.w.n)})
			all = append(all, each(n)...)
		}
	}
	switch x.rng.IntN(6) {
	case 0:
		propose(func(n message.SeqNum) []message.Message {
			return one(&message.Decided{Seq: n, Digest: batch.Digest()})
		})
	case 1:
		propose(func(n message.SeqNum) []message.Message { return one(&message.Commit{View: view, Seq: n}) })
	case 2:
		all = forgedBeginning(r, view+message.View(x.rng.IntN(3)))
		if x.rng.IntN(2) == 0 {
			all = append(all, &message.Status{View: view, Active: true})
		}
	case 3:
		all = forgedBeginning(r, view+message.View(x.rng.IntN(3)))
		all = all[:len(all)-1]
	case 4:
		own := &message.ViewChange{View: view + 1 + message.View(x.rng.IntN(3)), Low: r.core.Low() + far,
			From: message.ReplicaID(r.id)}
		for n := own.Low + 1; n <= own.Low+r.w.shape.log; n++ {
			p := message.Prepared{Seq: n, Digest: batch.Digest(), View: own.View - 1}
			own.P, own.Q = append(own.P, p), append(own.Q, p)
		}
		all = []message.Message{own}
	case 5:
		return
	}
	r.write(all...)
}

// crashes ends the life of a replica that recovers and takes part already, if there is
// one. The replica has an ordinary start, and recovers again a while later, or at once.
// It then knows that the last recovery did not end.
func (w *world) crashes(rest int64) bool {
	for i, s := range w.sites {
		r := s.copies[0]
		if !r.recovers || r.down || r.stopped != "" || s.edits() || r.estimates() || s.bound == 0 ||
			w.disabled(i) >= w.n-w.q {
			continue
		}
		w.say("replica %d crashes in the middle of its recovery", i)
		again := func() bool {
			if s.edits() || r.down || s.away || w.disabled(i) >= w.n-w.q {
				return s.edits()
			}
			s.position = store.NoJournal
			r.recover(tick)
			return true
		}
		if w.cunning.rng.IntN(3) == 0 {
			return again()
		}
		r.restart(tick)
		w.after(rest, func() { w.insists(again) })
		return true
	}
	return false
}

// insists has f happen as soon as it can, even after the last fault.
func (w *world) insists(f func() bool) {
	if !f() {
		w.after(3*tick, func() { w.insists(f) })
	}
}
