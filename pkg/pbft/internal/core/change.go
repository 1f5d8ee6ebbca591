// SPDX-License-Identifier: Apache-2.0

package core

import (
	"bytes"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// viewChange holds the VIEW-CHANGEs, acks and NEW-VIEWs of the present view and of a later one.
type viewChange struct {
	*base
	log     *messageLog
	own     *message.ViewChange   // ours for the present view; nil in view 0, and if we have sent none in this life
	last    []*message.ViewChange // by replica: its own for our view, authentic to us, or the latest for a later one
	digests []message.Digest      // of last
	next    []*message.ViewChange // by replica: its latest for a later view, if last has the one for ours
	relayed []*message.ViewChange // by replica: a copy the new primary relayed, named by the NEW-VIEW below
	acks    [][]ack               // [of][from]: the latest
	newView *message.NewView      // of the present view: ours, or received and not refused
	told    []*message.NewView    // by replica: the NEW-VIEW of the present view as it says that it was
	vouched bool                  // newView is what f+1 others say
	later   *message.NewView      // one for a view we have not reached
	left    []message.View        // by replica: the highest view for which it has sent a VIEW-CHANGE
	news    bool                  // something has come that may let the present view begin, or show that it cannot
}

type ack struct {
	view   message.View
	digest message.Digest
}

func (x *viewChange) init(b *base, l *messageLog) {
	n := b.cfg.Replicas
	x.base, x.log = b, l
	x.last = make([]*message.ViewChange, n)
	x.digests = make([]message.Digest, n)
	x.next = make([]*message.ViewChange, n)
	x.relayed = make([]*message.ViewChange, n)
	x.told = make([]*message.NewView, n)
	x.left = make([]message.View, n)
	x.acks = make([][]ack, n)
	for i := range x.acks {
		x.acks[i] = make([]ack, n)
	}
}

// latest is the VIEW-CHANGE for the highest view that replica i has sent us, nil if there is none.
func (x *viewChange) latest(i int) *message.ViewChange {
	if x.next[i] != nil {
		return x.next[i]
	}
	return x.last[i]
}

// record notes a VIEW-CHANGE that its sender brought. One for our view, v, stays when its sender's
// next one comes: a NEW-VIEW may name it, and replicas that have not had it need it from us, or our
// ack (R-RTX-4).
func (x *viewChange) record(m *message.ViewChange, v message.View) {
	x.left[m.From] = max(x.left[m.From], m.View)
	if old := x.last[m.From]; old != nil && old.View == v {
		x.next[m.From] = m
		return
	}
	x.last[m.From], x.digests[m.From] = m, m.Digest()
}

// adopt keeps the VIEW-CHANGEs with which our view begins as if their senders had brought them. We
// believe the relayed ones because a correct replica had them, and others may believe them on our
// word: a replica that restarts in this view needs f acks for each, and replicas that restarted
// before it would have none to give. If a sender forgot its VIEW-CHANGE and made another for this
// view, the other gives way: acks are needed for what the NEW-VIEW names.
func (x *viewChange) adopt(set []*message.ViewChange) {
	for _, m := range set {
		x.left[m.From] = max(x.left[m.From], m.View)
		if old := x.last[m.From]; old != nil && old.View > m.View {
			x.next[m.From] = old
		}
		x.last[m.From], x.digests[m.From] = m, m.Digest()
	}
}

// reach is called when our view has become a later one.
func (x *viewChange) reach() {
	for i, m := range x.next {
		if m != nil {
			x.last[i], x.digests[i], x.next[i] = m, m.Digest(), nil
		}
	}
}

// correctViewChange is what every correct replica's VIEW-CHANGE satisfies (R-VC-13).
func (x *viewChange) correctViewChange(m *message.ViewChange) bool {
	if m.View == 0 {
		return false
	}
	in := func(n message.SeqNum) bool { return m.Low < n && n <= m.Low+x.cfg.LogSize }
	for _, k := range m.Checkpoints {
		if k.Seq%x.cfg.step() != 0 || k.Seq != m.Low && !in(k.Seq) {
			return false
		}
	}
	for i, p := range m.P {
		if p.View >= m.View || !in(p.Seq) || i > 0 && m.P[i-1].Seq >= p.Seq {
			return false
		}
	}
	for i, q := range m.Q {
		if q.View >= m.View || !in(q.Seq) && !in(q.Seq-x.cfg.LogSize) { // a primary may have chosen above its window
			return false
		}
		if i > 0 {
			b := m.Q[i-1]
			if b.Seq > q.Seq || b.Seq == q.Seq && bytes.Compare(b.Digest[:], q.Digest[:]) >= 0 {
				return false
			}
		}
	}
	return true
}

// hear notes what a replica that works in the present view says its NEW-VIEW was, and believes what
// f+1 say: one of them is correct, and has it from the primary, with all the VIEW-CHANGEs that it
// names. The primary itself may have sent us nothing, or another one.
func (x *viewChange) hear(m *message.NewView) {
	x.told[m.From] = m
	alike := 0
	for _, other := range x.told {
		if other != nil && other.Equal(m) {
			alike++
		}
	}
	if alike < x.weak() || x.vouched {
		return
	}
	if x.newView == nil || !x.newView.Equal(m) {
		clear(x.relayed)
	}
	believed := *m
	believed.From = x.primary()
	x.newView, x.vouched = &believed, true
}

// forgetNewView forgets how the present view is said to begin.
func (x *viewChange) forgetNewView() {
	x.newView, x.vouched = nil, false
	clear(x.told)
	clear(x.relayed)
}

// usable is j's VIEW-CHANGE with digest d, if we may believe it: from j itself, or from another if
// f vouch for it, or for the NEW-VIEW that names it.
func (x *viewChange) usable(j message.ReplicaID, d message.Digest) *message.ViewChange {
	if m := x.last[j]; m != nil && m.View == x.view && x.digests[j] == d {
		return m
	}
	if m := x.relayed[j]; m != nil && (x.vouched || x.vouchers(j, d) >= x.f) {
		return m
	}
	return nil
}

// hasViewChange reports whether j's VIEW-CHANGE for our pending view needs no more
// sending: the new primary has it and may use it, a backup has it, or may believe the
// copy that the NEW-VIEW names.
func (x *viewChange) hasViewChange(j message.ReplicaID) bool {
	if nv := x.newView; nv != nil {
		for _, v := range nv.V {
			if v.From == j {
				return x.usable(j, v.Digest) != nil
			}
		}
	}
	m := x.last[j]
	if m == nil || m.View < x.view {
		return false
	}
	return !x.isPrimary() || j == x.cfg.Self || x.acknowledged(j)
}

// acknowledged reports whether we, the new primary, may use the VIEW-CHANGE that we have of j: with
// j and us the replicas that hold it are a quorum (R-VC-17). Of those that acknowledged it f are
// correct and present, whichever others lie or are away, so that every backup can believe our copy
// of it (R-VC-30).
func (x *viewChange) acknowledged(j message.ReplicaID) bool {
	return x.vouchers(j, x.digests[j]) >= x.size.Acks()
}

// joinable is the view that f+1 other replicas have reached or passed (R-VT-4): one of
// them is correct.
func (x *viewChange) joinable() message.View {
	views := make([]message.View, 0, len(x.last))
	for i := range x.last {
		if m := x.latest(i); m != nil && message.ReplicaID(i) != x.cfg.Self {
			views = append(views, m.View)
		}
	}
	if len(views) < x.weak() {
		return 0
	}
	slices.Sort(views)
	return views[len(views)-x.weak()]
}

// ackFor is our ack for j's VIEW-CHANGE, nil if there is nothing to acknowledge.
func (x *viewChange) ackFor(j message.ReplicaID) *message.ViewChangeAck {
	m := x.last[j]
	if m == nil || m.View != x.view || x.isPrimary() || j == x.cfg.Self || j == x.primary() || x.silent() {
		return nil
	}
	return &message.ViewChangeAck{View: x.view, Of: j, Digest: x.digests[j], From: x.cfg.Self}
}

// vouchers counts the replicas, other than j itself, the view's primary and we, whose
// acks for j's VIEW-CHANGE carry digest d.
func (x *viewChange) vouchers(j message.ReplicaID, d message.Digest) (n int) {
	for i, a := range x.acks[j] {
		from := message.ReplicaID(i)
		if a.view == x.view && a.digest == d && from != j && from != x.primary() && from != x.cfg.Self {
			n++
		}
	}
	return n
}

// choosable are the batches above the water mark that we may choose as the new primary,
// by what P of the VIEW-CHANGEs here say of them; nil if we are not about to.
func (x *viewChange) choosable() (digests []message.Digest) {
	if x.active || !x.isPrimary() || x.newView != nil {
		return nil
	}
	d := decision{base: x.base}
	for _, m := range x.last {
		if m != nil && m.View == x.view {
			d.set = append(d.set, m)
		}
	}
	for _, m := range d.set {
		for _, p := range m.P {
			if p.Seq > x.log.low && d.witnessed(p) {
				digests = append(digests, p.Digest)
			}
		}
	}
	return digests
}

// reached counts the replicas that have come as far as we, ourselves included, by their
// VIEW-CHANGEs or as waits reports of them: a replica that was restarted waits in the view for
// which it sent a VIEW-CHANGE in an earlier life, and can only say so in STATUS.
func (x *viewChange) reached(waits func(message.ReplicaID) bool) int {
	// we have: if our VIEW-CHANGE is one of an earlier life, which we forgot and must not
	// make again, we can leave all the same
	n := 1
	for i := range x.last {
		id := message.ReplicaID(i)
		if m := x.latest(i); id != x.cfg.Self && (m != nil && m.View >= x.view || waits(id)) {
			n++
		}
	}
	return n
}

// maySay reports whether we may tell the others that we hold checkpoint n. A silent replica says
// nothing. One that has left a view says no more of checkpoints than its VIEW-CHANGE does: by a
// later word of it a checkpoint might become stable at a replica that has yet to leave and that
// will name none below it, and the new primary would find no checkpoint that a quorum has not
// passed and f+1 hold.
func (x *viewChange) maySay(n message.SeqNum) bool {
	own := x.own
	if n > x.log.bound {
		return false
	}
	if x.silent() || x.active {
		return x.active && !x.silent()
	}
	named := func(k message.CheckpointID) bool { return k.Seq == n }
	return own != nil && (n <= own.Low || slices.ContainsFunc(own.Checkpoints, named))
}

// bottom is the number at and below which nothing is ordered in this view: it began from
// there, whether or not that checkpoint is stable here yet.
func (x *viewChange) bottom() message.SeqNum {
	if m := x.newView; x.active && m != nil {
		return max(x.log.low, m.Checkpoint.Seq)
	}
	return x.log.low
}

// forgetOthers forgets these replicas' messages about views that have not begun. The
// VIEW-CHANGEs with which the present view began are a whole certificate, as are those
// with which we began it as its primary; others may need them from us. The acks of a
// forgotten VIEW-CHANGE go, too: its sender makes another, which has acks of its own.
func (x *viewChange) forgetOthers(these replicas) {
	ours := x.newView != nil && x.isPrimary()
	whole := x.active || ours
	primary := these.has(x.primary())
	if !whole && (primary || x.vouched) {
		x.forgetNewView()
	}
	if x.later != nil && these.has(x.later.From) {
		x.later = nil
	}
	for i := range x.last {
		id := message.ReplicaID(i)
		for j := range x.acks[i] {
			if these.has(id) || these.has(message.ReplicaID(j)) {
				x.acks[i][j] = ack{}
			}
		}
		if primary || these.has(id) {
			x.relayed[i] = nil
		}
		if !these.has(id) {
			continue
		}
		x.next[i], x.told[i] = nil, nil
		if id != x.cfg.Self && !(whole && x.named(i)) {
			x.last[i], x.digests[i] = nil, message.Digest{}
		}
	}
}

// named reports whether the NEW-VIEW that we hold was made of the VIEW-CHANGE that we
// have of replica i.
func (x *viewChange) named(i int) bool {
	held := message.Vouched{From: message.ReplicaID(i), Digest: x.digests[i]}
	return x.newView != nil && slices.Contains(x.newView.V, held)
}

// forgetAll forgets the VIEW-CHANGEs of all others.
func (x *viewChange) forgetAll() {
	for i := range x.last {
		if message.ReplicaID(i) != x.cfg.Self {
			x.last[i], x.digests[i] = nil, message.Digest{}
		}
	}
}
