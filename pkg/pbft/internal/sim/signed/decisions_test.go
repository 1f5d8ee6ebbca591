// SPDX-License-Identifier: Apache-2.0

package signed_test

import (
	"bytes"
	"cmp"
	"slices"

	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/sim/signed"
)

// tally counts what kinds of states were decided about.
type tally struct {
	States    int // view changes, both decisions compared
	Prepared  int // of them: with something prepared at a correct replica
	Committed int // with something committed above the checkpoint
	Conflicts int // with two digests pre-prepared at correct replicas for one number
	Free      int // with a number at which some prepared, but so few that null was possible too
	Differ    int // in which the two chose differently, both rightly
	Exact     int // in which they had to choose alike: no replica lied and they heard the same
	apart     int // histories ended because the two were no longer in step
}

// A decision holds the batches with which one protocol begins the view.
type decision struct {
	start  message.SeqNum
	chosen []message.Digest
	from   []message.ReplicaID
}

func (d decision) at(n message.SeqNum) message.Digest {
	if i := int(n) - int(d.start) - 1; i >= 0 && i < len(d.chosen) {
		return d.chosen[i]
	}
	return message.NullDigest
}

// change takes all to the next view in both protocols and compares the decisions. It
// returns the last number chosen.
func (h *history) change(s *tally) message.SeqNum {
	old := h.view
	h.view++
	primary := int(h.view.Primary(h.n))
	order := h.rng.Perm(h.n)
	lying := func(i int) bool { return h.liars[i] && i != primary && h.draw(3, "truthful", i) > 0 }
	truthful := true
	for i := range h.n {
		truthful = truthful && !lying(i)
	}
	mac, ok := h.changeCores(int(old.Primary(h.n)), primary, order, lying)
	if !ok {
		h.fail("the core of replica %d decides nothing, with all VIEW-CHANGEs", primary)
		return 0
	}
	sig, ok := h.changeModels(primary, order, lying)
	if !ok {
		h.fail("the model of replica %d decides nothing", primary)
		return 0
	}
	h.compare(s, mac, sig, truthful)
	clear(h.proposed)
	for i, d := range mac.chosen {
		n := mac.start + 1 + message.SeqNum(i)
		h.proposed[n] = append(h.proposed[n], d)
		v := signed.Vote{View: h.view, Seq: n, Digest: d}
		h.proposals[v] = h.keys[primary].Sign(signed.PrePrepare(v))
		if !h.liars[primary] {
			h.takes(n, d)
		}
	}
	return mac.start + message.SeqNum(len(mac.chosen))
}

// changeCores makes the old primary step down, lets all follow, and hands the new primary
// the VIEW-CHANGEs in order.
func (h *history) changeCores(old, primary int, order []int, lying func(int) bool) (decision, bool) {
	h.cores[old].StepDown()
	h.perform(old)
	changes := make([]*message.ViewChange, h.n)
	collect := func() {
		for _, w := range h.take(message.TypeViewChange) {
			if vc := w.m.(*message.ViewChange); vc.View == h.view && changes[w.from] == nil {
				if changes[w.from] = vc; lying(w.from) {
					changes[w.from] = h.falseChange(w.from, vc)
				}
			}
		}
	}
	deliver := func(to int) {
		for _, from := range order {
			if vc := changes[from]; vc != nil && from != to {
				h.cores[to].Step(vc)
				h.perform(to)
			}
		}
	}
	collect()
	for range 8000 {
		all := true
		for i := range h.n {
			if i == primary {
				continue
			}
			deliver(i)
			if v, _ := h.cores[i].View(); v < h.view {
				all = false
				h.cores[i].Tick()
				h.perform(i)
			}
		}
		collect()
		if all {
			break
		}
	}
	for i := range h.n {
		if i != primary {
			deliver(i) // so that all acknowledge all
		}
	}
	for _, from := range order {
		if vc := changes[from]; vc != nil && from != primary {
			h.cores[primary].Step(vc)
			h.perform(primary)
			h.converse(primary)
		}
	}
	for range 3 {
		h.cores[primary].Tick()
		h.perform(primary)
		h.converse(primary)
	}
	nv := h.cores[primary].Beginning()
	if nv == nil || nv.View != h.view {
		return decision{}, false
	}
	d := decision{start: nv.Checkpoint.Seq, chosen: nv.Chosen}
	for _, v := range nv.V {
		d.from = append(d.from, v.From)
	}
	h.enterCores(primary, nv, changes)
	return d, true
}

// converse delivers acknowledgements and batches asked for.
func (h *history) converse(primary int) {
	for {
		all := h.take(message.TypeViewChangeAck, message.TypeFetchBatch, message.TypeBatchBody)
		if len(all) == 0 {
			return
		}
		for _, w := range all {
			h.cores[w.to].Step(w.m)
			h.perform(w.to)
		}
	}
}

// hears says whether replica i gets the NEW-VIEW.
func (h *history) hears(i, primary int) bool {
	return i == primary || h.draw(5, "new view") > 0 && h.draw(4, "hears", i) > 0
}

// enterCores delivers the NEW-VIEW to some replicas, which must believe it.
func (h *history) enterCores(primary int, nv *message.NewView, changes []*message.ViewChange) {
	own := changes[primary]
	for _, w := range h.take(message.TypeViewChange) {
		if vc := w.m.(*message.ViewChange); w.from == primary && vc.View == h.view {
			own = vc
		}
	}
	for i := range h.n {
		if i == primary || own == nil {
			continue
		}
		h.cores[i].Step(own)
		h.perform(i)
		if !h.hears(i, primary) {
			continue
		}
		h.cores[i].Step(nv)
		h.perform(i)
		h.converse(primary)
		for range 3 {
			h.cores[i].Tick()
			h.perform(i)
			h.converse(primary)
		}
		if !h.active(i) && !h.liars[i] {
			h.fail("core %d does not believe the NEW-VIEW of replica %d", i, primary)
		}
	}
}

// falseChange is what a liar may say with MACs: anything, as long as it is well formed.
func (h *history) falseChange(i int, vc *message.ViewChange) *message.ViewChange {
	m := *vc
	m.P, m.Q = nil, nil
	for n := m.Low + 1; n <= m.Low+window; n++ {
		all := append([]message.Digest{message.NullDigest, {byte(n), 0xfa}}, h.took[n]...)
		d := all[h.draw(len(all), "P", i, n)]
		p := message.Prepared{Seq: n, Digest: d, View: message.View(h.draw(int(h.view), "Pv", i, n))}
		if h.draw(2, "has P", i, n) == 1 {
			m.P = append(m.P, p)
		}
		for _, x := range all {
			if h.draw(2, "has Q", i, n, x) == 1 {
				m.Q = append(m.Q, message.Prepared{Seq: n, Digest: x,
					View: message.View(h.draw(int(h.view), "Qv", i, n, x))})
			}
		}
	}
	slices.SortFunc(m.Q, func(a, b message.Prepared) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), bytes.Compare(a.Digest[:], b.Digest[:]))
	})
	m.Q = slices.CompactFunc(m.Q, func(a, b message.Prepared) bool { return a.Seq == b.Seq && a.Digest == b.Digest })
	return &m
}

// changeModels is the same with signatures.
func (h *history) changeModels(primary int, order []int, lying func(int) bool) (d decision, ok bool) {
	changes := make([]signed.Signed, h.n)
	for i, m := range h.models {
		m.Leave(h.view)
		h.performModel(i)
		if changes[i], _ = m.Change(); lying(i) {
			changes[i] = h.hidingChange(i, changes[i].Body().(signed.ViewChange))
		}
	}
	for _, from := range order {
		h.models[primary].Step(signed.Said{Signed: changes[from]})
		h.performModel(primary)
	}
	nv, ok := h.models[primary].NewView()
	if !ok || nv.View != h.view {
		return d, false
	}
	c := signed.Choose(nv)
	d.start = c.Start
	for _, x := range c.Chosen {
		d.chosen = append(d.chosen, x.Digest)
		h.batches[x.Digest] = x.Batch
	}
	for _, s := range nv.V {
		from, _ := s.By()
		d.from = append(d.from, from)
	}
	slices.Sort(d.from)
	said := signed.Said{Signed: h.keys[primary].Sign(nv)}
	for i, m := range h.models {
		if i != primary && h.hears(i, primary) {
			m.Step(said)
		}
		if h.hears(i, primary) {
			h.catchUp(i, c.Start)
			h.performModel(i)
			if v, active := m.View(); v != h.view || !active {
				h.fail("model %d does not believe the NEW-VIEW", i)
			}
		}
	}
	return d, true
}

// catchUp shows model i the decisions up to n.
func (h *history) catchUp(i int, n message.SeqNum) {
	for j, m := range h.models {
		if m.LastExecuted() < n || h.models[i].LastExecuted() >= n {
			continue
		}
		h.performModel(j)
		m.Step(signed.Status{From: message.ReplicaID(i), LastExecuted: h.models[i].LastExecuted()})
		for _, e := range m.Effects() {
			if x, ok := e.Message.(signed.Decision); ok && x.Seq <= n {
				h.models[i].Step(x)
			}
		}
	}
}

// hidingChange is what a liar may say with signatures: it hides what it likes and shows
// any certificate that the PREPAREs of the past and the liars' own add up to; now and
// then one that does not add up, and is refused.
func (h *history) hidingChange(i int, m signed.ViewChange) signed.Signed {
	m.P = nil
	for n := m.Low + 1; n <= m.Low+window; n++ {
		var all []signed.Certificate
		for v := range h.view {
			for _, d := range h.took[n] {
				if c, ok := h.assemble(signed.Vote{View: v, Seq: n, Digest: d}); ok {
					all = append(all, c)
				}
			}
		}
		if k := h.draw(len(all)+1, "show", i, n); k < len(all) {
			m.P = append(m.P, all[k])
		}
	}
	if h.draw(4, "forge", i) == 0 && len(m.P) > 0 {
		v := signed.Vote{View: h.view - 1, Seq: m.P[0].Vote().Seq, Digest: h.batch(7, 1).Digest()}
		m.P[0] = signed.Certificate{Proposal: h.keys[i].Sign(signed.PrePrepare(v)),
			Prepares: m.P[0].Prepares, Batch: h.batch(7, 1)}
	}
	return h.keys[i].Sign(m)
}

func (h *history) assemble(v signed.Vote) (c signed.Certificate, ok bool) {
	c.Proposal, ok = h.proposals[v]
	c.Batch = h.batches[v.Digest]
	for j := range h.n {
		s, has := h.prepares[v][j]
		if v.View.Primary(h.n) == message.ReplicaID(j) {
			continue
		}
		if !has && h.liars[j] {
			s, has = h.keys[j].Sign(signed.Prepare(v)), true
		}
		if has {
			c.Prepares = append(c.Prepares, s)
		}
	}
	return c, ok && c.Batch != nil && len(c.Prepares) >= message.GroupSize(h.n).Quorum()-1
}

// compare judges both decisions by what is known of the old views, and by each other.
func (h *history) compare(s *tally, mac, sig decision, truthful bool) {
	s.States++
	exact := truthful && slices.Equal(mac.from, sig.from)
	differ := mac.start != sig.start
	var prepared, committed, conflict, free, unlike bool
	for n := max(mac.start, sig.start) + 1; n <= max(mac.start, sig.start)+window; n++ {
		a, b := mac.at(n), sig.at(n)
		unlike = unlike || a != b
		took := h.took[n]
		if d, ok := h.committed[n]; ok {
			committed = true
			if a != d || b != d {
				h.fail("%v committed at %d; the core chooses %v, the model %v", d, n, a, b)
			}
		}
		for _, x := range []message.Digest{a, b} {
			if x != message.NullDigest && !slices.Contains(took, x) {
				h.fail("%v chosen at %d, which no correct replica pre-prepared (core %v, model %v)", x, n, a, b)
			}
		}
		prepared = prepared || len(h.holds[n]) > 0
		conflict = conflict || len(took) > 1
		spare := h.n - message.GroupSize(h.n).Quorum() // so many can be left out of a decision
		if held := len(h.holds[n]); held > spare && len(took) == 1 && (a != took[0] || b != took[0]) {
			h.fail("only %v can be justified at %d; the core chooses %v, the model %v", took[0], n, a, b)
		} else if held > spare && !slices.Contains(took, message.NullDigest) &&
			(a == message.NullDigest || b == message.NullDigest) {
			h.fail("null chosen at %d, where %d prepared", n, held)
		} else if held > 0 && held <= spare {
			free = true
		}
	}
	// The core may begin at a checkpoint that f+1 replicas hold and that is not stable yet.
	if exact && (unlike || mac.start < sig.start) {
		h.fail("nobody lied and both heard %v, but the core begins at %d with %v, the model at %d with %v",
			mac.from, mac.start, mac.chosen, sig.start, sig.chosen)
	}
	for _, x := range []struct {
		is    bool
		count *int
	}{{prepared, &s.Prepared}, {committed, &s.Committed}, {conflict, &s.Conflicts}, {free, &s.Free},
		{unlike || differ, &s.Differ}, {exact, &s.Exact}} {
		if x.is {
			*x.count++
		}
	}
	if unlike || differ {
		h.diverge("the core begins at %d with %v, the model at %d with %v",
			mac.start, mac.chosen, sig.start, sig.chosen)
	}
}
