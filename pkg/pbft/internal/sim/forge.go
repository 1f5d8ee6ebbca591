// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// nudge adds one or subtracts one.
func nudge[T ~uint64](l *liarMemory, x T) T {
	if l.chance(0.5) {
		return x + 1
	}
	return x - min(x, 1)
}

// offByOne changes a number or a view by one (ByzzFuzz's small mutations).
func offByOne(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	if !l.chance(0.3) {
		return one(m)
	}
	number := l.chance(0.5)
	switch m := m.(type) {
	case *message.PrePrepare:
		x := *m
		if number {
			x.Seq = nudge(l, x.Seq)
		} else {
			x.View = nudge(l, x.View)
		}
		return one(&x)
	case *message.Prepare:
		x := *m
		if number {
			x.Seq = nudge(l, x.Seq)
		} else {
			x.View = nudge(l, x.View)
		}
		return one(&x)
	case *message.Commit:
		x := *m
		if number {
			x.Seq = nudge(l, x.Seq)
		} else {
			x.View = nudge(l, x.View)
		}
		return one(&x)
	case *message.Checkpoint:
		x := *m
		x.Seq, x.Stable = nudge(l, x.Seq), x.Stable != number
		return one(&x)
	case *message.ViewChange:
		return one(nudgeViewChange(l, m, number))
	case *message.NewView:
		x := *m
		if number {
			x.Checkpoint.Seq = nudge(l, x.Checkpoint.Seq)
		} else {
			x.View = nudge(l, x.View)
		}
		return one(&x)
	case *message.Status:
		x := *m
		x.LastExecuted, x.View = nudge(l, x.LastExecuted), nudge(l, x.View)
		return one(&x)
	case *message.Decided:
		x := *m
		x.Seq = nudge(l, x.Seq)
		return one(&x)
	}
	return one(m)
}

func nudgeViewChange(l *liarMemory, m *message.ViewChange, number bool) message.Message {
	x := *m
	x.P, x.Q = slices.Clone(m.P), slices.Clone(m.Q)
	switch {
	case number && len(x.P) > 0:
		i := l.rng.IntN(len(x.P))
		x.P[i].View = nudge(l, x.P[i].View)
	case len(x.Q) > 0:
		i := l.rng.IntN(len(x.Q))
		x.Q[i].View = nudge(l, x.Q[i].View)
	case number:
		x.Low = nudge(l, x.Low)
	default:
		x.View = nudge(l, x.View)
	}
	return &x
}

// falsePQ claims to have prepared other batches, and leaves out those that it has
// prepared, to each receiver differently.
func falsePQ(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	vc, ok := m.(*message.ViewChange)
	if !ok || int(vc.From) != r.id {
		return one(m)
	}
	x := *vc
	x.P, x.Q = slices.Clone(vc.P), slices.Clone(vc.Q)
	if l.chance(0.3) {
		x.P = nil
	}
	if l.chance(0.3) {
		x.Q = nil
	}
	for range 1 + l.rng.IntN(3) {
		p := message.Prepared{Seq: x.Low + 1 + message.SeqNum(l.rng.IntN(int(r.w.shape.log))),
			Digest: l.digest(), View: x.View - 1}
		if l.chance(0.3) {
			p.View -= min(p.View, 1)
		}
		x.P = append(slices.DeleteFunc(x.P, func(q message.Prepared) bool { return q.Seq == p.Seq }), p)
		x.Q = append(slices.DeleteFunc(x.Q, func(q message.Prepared) bool {
			return q.Seq == p.Seq && q.Digest == p.Digest
		}), p)
	}
	if l.chance(0.2) {
		k := message.CheckpointID{Seq: (x.Low/r.w.shape.period + 1) * r.w.shape.period, Digest: l.digest()}
		x.Checkpoints = append(slices.Clone(x.Checkpoints[:min(1, len(x.Checkpoints))]), k)
	}
	sortPrepared(x.P)
	sortPrepared(x.Q)
	return one(&x)
}

func sortPrepared(all []message.Prepared) {
	slices.SortFunc(all, func(a, b message.Prepared) int {
		if a.Seq != b.Seq {
			return int(a.Seq) - int(b.Seq)
		}
		return bytes.Compare(a.Digest[:], b.Digest[:])
	})
}

// falseNewView begins its views with other choices than the conditions allow, or with
// different ones for different replicas.
func falseNewView(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	nv, ok := m.(*message.NewView)
	if !ok || l.chance(0.2) {
		return one(m)
	}
	x := *nv
	x.V, x.Chosen = slices.Clone(nv.V), slices.Clone(nv.Chosen)
	switch k := l.rng.IntN(6); {
	case k == 0 && len(x.Chosen) > 0:
		x.Chosen[l.rng.IntN(len(x.Chosen))] = message.NullDigest
	case k == 1 && len(x.Chosen) > 0:
		x.Chosen = x.Chosen[:len(x.Chosen)-1]
	case k == 2:
		x.Chosen = append(x.Chosen, l.digest())
	case k == 3 && len(x.Chosen) > 0:
		x.Chosen[l.rng.IntN(len(x.Chosen))] = l.digest()
	case k == 4 && len(x.V) > 0:
		x.V = slices.Delete(x.V, 0, 1)
	case k == 5 && len(x.V) > 0:
		x.V[l.rng.IntN(len(x.V))].Digest[0]++
	default:
		x.Checkpoint.Seq += r.w.shape.period
	}
	if len(x.Chosen) > int(r.w.shape.log) {
		x.Chosen = x.Chosen[:r.w.shape.log]
	}
	return one(&x)
}

// forgeRelay begins its views from VIEW-CHANGEs that the others have not sent: it forgets
// what they prepared, and hands its forgeries round as copies of theirs.
func forgeRelay(l *liarMemory, r *replica, to int, m message.Message) []message.Message {
	nv, ok := m.(*message.NewView)
	if !ok {
		return one(m)
	}
	x := *nv
	x.V, x.Chosen = nil, nil
	said := []message.Message{&x}
	for _, v := range nv.V {
		if vc := l.changes[v.From]; vc != nil && vc.View == nv.View {
			forged := *vc
			forged.P = nil
			if l.chance(0.3) {
				forged.Q = nil
			}
			v.Digest = forged.Digest()
			said = append(said, &forged, &message.ViewChangeAck{View: nv.View, Of: v.From, Digest: v.Digest})
		}
		x.V = append(x.V, v)
	}
	return said
}

// usurp proposes out of turn: as a backup, in a view that has not begun, and against the
// choice of its own NEW-VIEW.
func usurp(l *liarMemory, _ *replica, _ int, m message.Message) []message.Message {
	var v message.View
	var n message.SeqNum
	switch m := m.(type) {
	case *message.Prepare:
		v, n = m.View, m.Seq
	case *message.Commit:
		v, n = m.View, m.Seq+1
	case *message.ViewChange:
		v, n = m.View, m.Low+1
	case *message.NewView:
		v, n = m.View, m.Checkpoint.Seq+1
	}
	if v == 0 && n == 0 || len(l.batches) == 0 {
		return one(m)
	}
	said := one(m)
	for k := range message.SeqNum(1 + l.rng.IntN(4)) {
		b := l.otherBatch(l.batches[l.rng.IntN(len(l.batches))])
		p := &message.PrePrepare{View: v, Seq: n + k, Batch: b, Digest: b.Digest()}
		l.know(p.Digest)
		said = append(said, p)
		if l.chance(0.5) {
			said = append(said, &message.Prepare{View: v, Seq: p.Seq, Digest: p.Digest},
				&message.Commit{View: v, Seq: p.Seq})
		}
	}
	if _, begins := m.(*message.NewView); begins && l.chance(0.5) {
		said[0], said[1] = said[1], said[0]
	}
	return said
}

// falseRecord lies about what it did and tells everyone the same, so that its VIEW-CHANGE
// is acknowledged and used: it leaves out batches, or claims that another batch prepared,
// or none where one did.
func falseRecord(l *liarMemory, r *replica, _ int, m message.Message) []message.Message {
	switch m := m.(type) {
	case *message.ViewChange:
		if int(m.From) != r.id {
			break
		}
		if l.forged == nil || l.forged.View != m.View {
			l.forged = l.forge(r, m)
		}
		return one(l.forged)
	case *message.NewView:
		if l.forged == nil || l.forged.View != m.View {
			break
		}
		x := *m
		x.V = slices.Clone(m.V)
		for i := range x.V {
			if int(x.V[i].From) == r.id {
				x.V[i].Digest = l.forged.Digest()
			}
		}
		return one(&x)
	}
	return one(m)
}

func (l *liarMemory) forge(r *replica, vc *message.ViewChange) *message.ViewChange {
	x := *vc
	x.P, x.Q = slices.Clone(vc.P), slices.Clone(vc.Q)
	if l.chance(0.3) {
		x.Low += r.w.shape.period * message.SeqNum(1+l.rng.IntN(2))
		x.Checkpoints = []message.CheckpointID{{Seq: x.Low, Digest: l.digest()}}
		collected := func(p message.Prepared) bool { return p.Seq <= x.Low }
		x.P, x.Q = without(x.P, collected), without(x.Q, collected)
	}
	const forgets, nulls, others = 0, 1, 2
	mood := l.rng.IntN(4)
	for n := x.Low + 1; n <= x.Low+r.w.shape.log; n++ {
		act := mood
		if mood > others {
			act = l.rng.IntN(5)
		}
		p := message.Prepared{Seq: n, Digest: message.NullDigest, View: vc.View - 1}
		known := l.plot.proposed[n]
		switch {
		case act == forgets:
			x.P = without(x.P, func(q message.Prepared) bool { return q.Seq == n })
			x.Q = without(x.Q, func(q message.Prepared) bool { return q.Seq == n })
			continue
		case act == nulls && (len(known) > 0 || l.chance(0.2)):
		case act == others && len(known) > 0:
			if p = known[l.rng.IntN(len(known))]; p.View >= vc.View || l.chance(0.5) {
				p.View = vc.View - 1
			}
		default:
			continue
		}
		x.P = append(without(x.P, func(q message.Prepared) bool { return q.Seq == n }), p)
		x.Q = append(without(x.Q, func(q message.Prepared) bool { return q.Seq == n && q.Digest == p.Digest }), p)
	}
	sortPrepared(x.P)
	sortPrepared(x.Q)
	return &x
}

func without(all []message.Prepared, which func(message.Prepared) bool) []message.Prepared {
	return slices.DeleteFunc(all, which)
}

// convenientNewView begins its views with any batch that some VIEW-CHANGE names, whether
// the conditions hold or not, and from no more VIEW-CHANGEs than it must.
func convenientNewView(l *liarMemory, r *replica, _ int, m message.Message) []message.Message {
	nv, ok := m.(*message.NewView)
	if !ok {
		return one(m)
	}
	x := *nv
	x.V, x.Chosen = slices.Clone(nv.V), slices.Clone(nv.Chosen)
	for len(x.V) > r.w.q && l.chance(0.7) {
		i := l.rng.IntN(len(x.V))
		x.V = slices.Delete(x.V, i, i+1)
	}
	odds := []float64{0.1, 0.5, 1}[l.rng.IntN(3)]
	for i := range x.Chosen {
		if !l.chance(odds) {
			continue
		}
		n := x.Checkpoint.Seq + 1 + message.SeqNum(i)
		may := []message.Digest{message.NullDigest}
		for _, v := range x.V {
			if vc := l.changes[v.From]; vc != nil {
				for _, p := range vc.P {
					if p.Seq == n {
						may = append(may, p.Digest)
					}
				}
			}
		}
		x.Chosen[i] = may[l.rng.IntN(len(may))]
	}
	if k := len(x.Chosen); k > 0 && l.chance(0.2) {
		x.Chosen = x.Chosen[:l.rng.IntN(k)]
	}
	return one(&x)
}
