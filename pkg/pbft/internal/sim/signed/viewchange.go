// SPDX-License-Identifier: Apache-2.0

package signed

import (
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// Leave gives the present view up for v, as when the timer has run out [OSDI99 §4.4].
func (r *Replica) Leave(v message.View) {
	if v <= r.view {
		return
	}
	r.abandon(v)
	m := ViewChange{View: v, Low: r.low, Proof: r.proof}
	for n := r.low + 1; n <= r.low+r.cfg.LogSize; n++ {
		if c, ok := r.carried[n]; ok {
			m.P = append(m.P, c)
		}
	}
	r.say(m, nil)
}

// abandon ends all that belongs to the present view. A batch that was decided and cannot
// be executed yet is agreed on again, as in the core.
func (r *Replica) abandon(v message.View) {
	r.view, r.active, r.due = v, false, 0
	r.newView = Signed{}
	clear(r.slots)
	clear(r.proposed)
	for n := range r.decided {
		if n > r.lastExec {
			delete(r.decided, n)
		}
	}
}

// reached counts the replicas that have announced view v or a later one.
func (r *Replica) reached(v message.View) (n int) {
	for _, s := range r.changes {
		if m, ok := s.body.(ViewChange); ok && m.View >= v {
			n++
		}
	}
	return n
}

// onViewChange keeps a replica's VIEW-CHANGE, and follows f+1 others.
func (r *Replica) onViewChange(s Signed, m ViewChange) {
	old, has := r.changes[s.signer-1].body.(ViewChange)
	if m.View < r.view || has && old.View >= m.View || !r.correct(m) {
		return
	}
	r.changes[s.signer-1] = s
	var later []message.View
	for i, c := range r.changes {
		if m, ok := c.body.(ViewChange); ok && m.View > r.view && message.ReplicaID(i) != r.cfg.Self {
			later = append(later, m.View)
		}
	}
	if len(later) > r.f {
		slices.Sort(later)
		r.Leave(later[len(later)-r.f-1])
	}
	r.begin()
}

// correct checks every proof in a VIEW-CHANGE (R-PK-1).
func (r *Replica) correct(m ViewChange) bool {
	if m.View == 0 || m.Low%r.cfg.CheckpointPeriod != 0 || !r.stable(m.Low, m.Proof) {
		return false
	}
	last := m.Low
	for _, c := range m.P {
		v := c.Vote()
		if v.View >= m.View || v.Seq <= last || v.Seq > m.Low+r.cfg.LogSize || !r.certified(c) {
			return false
		}
		last = v.Seq
	}
	return true
}

func (r *Replica) stable(n message.SeqNum, proof []Signed) bool {
	return n == 0 || slices.ContainsFunc(proof, func(s Signed) bool {
		k, ok := s.body.(Checkpoint)
		return ok && k.Seq == n && signers(proof, k, nobody) >= r.quorum()
	})
}

// certified checks a prepared certificate.
func (r *Replica) certified(c Certificate) bool {
	p, ok := c.Proposal.body.(PrePrepare)
	primary := p.View.Primary(r.cfg.Replicas)
	return ok && c.Proposal.by(primary) && c.Batch != nil && c.Batch.Digest() == p.Digest &&
		signers(c.Prepares, Prepare(p), primary) >= r.quorum()-1
}

// begin makes the new primary begin the view when it has 2f+1 VIEW-CHANGEs, its own among
// them (R-PK-2).
func (r *Replica) begin() {
	if r.active || !r.isPrimary() || r.changes[r.cfg.Self].signer == 0 {
		return
	}
	nv := NewView{View: r.view, V: []Signed{r.changes[r.cfg.Self]}}
	for i, s := range r.changes {
		m, ok := s.body.(ViewChange)
		if ok && m.View == r.view && message.ReplicaID(i) != r.cfg.Self && len(nv.V) < r.quorum() {
			nv.V = append(nv.V, s)
		}
	}
	if len(nv.V) < r.quorum() {
		return
	}
	for _, c := range Choose(nv).Chosen {
		nv.O = append(nv.O, r.key.Sign(PrePrepare{r.view, c.Seq, c.Digest}))
	}
	r.say(nv, nil)
}

// A Choice follows from the VIEW-CHANGEs of a NEW-VIEW.
type Choice struct {
	Start  message.SeqNum // min-s
	Proof  []Signed
	Chosen []Chosen // for Start+1 up to max-s
}

// Chosen is the proposal of a NEW-VIEW for one number.
type Chosen struct {
	Vote  // the view is the one it prepared in
	Batch *message.Batch
}

// Choose computes O: the highest stable checkpoint of V, and for each number up to the
// highest that prepared, what prepared in the latest view, or null (R-PK-2).
func Choose(nv NewView) (c Choice) {
	end := message.SeqNum(0)
	best := map[message.SeqNum]Certificate{}
	for _, s := range nv.V {
		m, _ := s.body.(ViewChange)
		if m.Low > c.Start {
			c.Start, c.Proof = m.Low, m.Proof
		}
		for _, p := range m.P {
			v := p.Vote()
			end = max(end, v.Seq)
			if old, has := best[v.Seq]; !has || old.Vote().View < v.View {
				best[v.Seq] = p
			}
		}
	}
	for n := c.Start + 1; n <= end; n++ {
		x := Chosen{Vote{Seq: n, Digest: message.NullDigest}, &message.Batch{}}
		if p, ok := best[n]; ok {
			x = Chosen{p.Vote(), p.Batch}
		}
		c.Chosen = append(c.Chosen, x)
	}
	return c
}

// onNewView begins a view if its NEW-VIEW follows from what is in it (R-PK-3). 2f+1 have
// left for it, so we need not have left ourselves.
func (r *Replica) onNewView(s Signed, m NewView) {
	if m.View < r.view || m.View == r.view && (r.active || m.View == 0) || !s.by(m.View.Primary(r.cfg.Replicas)) {
		return
	}
	var seen uint64
	for _, v := range m.V {
		vc, ok := v.body.(ViewChange)
		if !ok || v.signer == 0 || seen&(1<<v.signer) != 0 || vc.View != m.View || !r.correct(vc) {
			return
		}
		seen |= 1 << v.signer
	}
	c := Choose(m)
	if len(m.V) < r.quorum() || len(m.O) != len(c.Chosen) {
		return
	}
	for i, x := range c.Chosen {
		if m.O[i].signer != s.signer || m.O[i].body != (PrePrepare{m.View, x.Seq, x.Digest}) {
			return
		}
	}
	if m.View > r.view {
		r.abandon(m.View)
	}
	r.newView, r.active, r.due = s, true, 0
	if c.Start > r.low {
		r.slide(c.Start, c.Proof)
	}
	r.seqno = max(c.Start+message.SeqNum(len(c.Chosen)), r.low)
	for i, x := range c.Chosen {
		for _, q := range x.Batch.Requests {
			r.proposed[q.Key()] = max(r.proposed[q.Key()], q.Timestamp)
		}
		r.onSaid(Said{m.O[i], x.Batch})
	}
}

// NewView is the NEW-VIEW with which the present view began.
func (r *Replica) NewView() (NewView, bool) {
	m, ok := r.newView.body.(NewView)
	return m, ok
}

// Change is our VIEW-CHANGE for the present view.
func (r *Replica) Change() (Signed, bool) {
	s := r.changes[r.cfg.Self]
	m, ok := s.body.(ViewChange)
	return s, ok && m.View == r.view
}
