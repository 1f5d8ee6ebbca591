// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/sha256"
	"maps"
	"math/bits"
	"slices"

	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/message"
)

// vows judges what the proof of safety demands of each correct replica, whenever the
// replica sends a message. It sees a mistake long before liars and chance turn it into
// two different states.
type vows struct {
	j        *judge
	votes    map[voteKey]message.Digest // digests that a replica proposed or accepted, in all its lives
	proposed map[voteKey]message.Digest // digests that a primary proposed, in all its lives
	left     []message.View             // by replica: the highest view for which it sent a VIEW-CHANGE

	// done is, by replica and number, what the replica must carry in P and Q. It ends
	// with a life.
	done []map[message.SeqNum]*record
	// certified has the correct replicas that said that a batch prepared at them, or
	// executed it because of that.
	certified map[slotKey]uint32
	prepared  map[slotKey]message.Digest
	executed  map[message.SeqNum]bool // by a correct replica, as committed
	// holders are the correct replicas that said that they have a checkpoint.
	holders map[message.CheckpointID]uint32

	changes map[message.Digest]*message.ViewChange // VIEW-CHANGEs that their senders sent
	pending message.View                           // in calm: the view that all correct replicas wait for
	first   int64                                  // since when
	since   int64                                  // the same, or when its primary last fetched the state

	faults map[message.Digest]string // of batches proposed: why no correct replica should accept them
	oaths  []oath                    // by replica
}

// An oath holds a replica's promises of all its lives (R-OUR-21): the proof relies on
// them whether or not the replica remembers.
type oath struct {
	n, before        message.SeqNum // the highest number of a promise; of one in an earlier life
	view, viewBefore message.View   // likewise
	left             message.View   // the highest for which an earlier life sent a VIEW-CHANGE
	answered         message.SeqNum // the last batch in a state from which it has answered
	changes          map[message.View]message.Digest
	begins           map[message.View]message.Digest
	roots            map[message.SeqNum]message.Digest
}

type voteKey struct {
	by int
	slotKey
}

// A record holds the batches that a replica accepted and prepared at one number.
type record struct {
	accepted map[message.Digest]message.View // the last view of each digest
	prepared message.Digest
	in       message.View // prepared last in this view
	any      bool         // a batch did
}

func (v *vows) init(j *judge) {
	*v = vows{
		j: j, votes: map[voteKey]message.Digest{}, proposed: map[voteKey]message.Digest{},
		left: make([]message.View, j.w.n), done: make([]map[message.SeqNum]*record, j.w.n),
		certified: map[slotKey]uint32{}, prepared: map[slotKey]message.Digest{},
		executed: map[message.SeqNum]bool{},
		holders:  map[message.CheckpointID]uint32{},
		changes:  map[message.Digest]*message.ViewChange{}, faults: map[message.Digest]string{},
		oaths: make([]oath, j.w.n),
	}
	for i := range v.done {
		v.forgets(i)
	}
}

// forgets notes that replica i begins a new life.
func (v *vows) forgets(i int) {
	v.done[i] = map[message.SeqNum]*record{}
	o := &v.oaths[i]
	o.before, o.viewBefore, o.left = o.n, o.view, v.left[i]
	if o.changes == nil {
		o.changes, o.begins = map[message.View]message.Digest{}, map[message.View]message.Digest{}
		o.roots = map[message.SeqNum]message.Digest{}
	}
}

// promises judges every message that a correct replica sends, to one or to all, against
// its promises in all its lives.
func (v *vows) promises(r *replica, m message.Message) {
	if v.afterLoss(r, m); r.lies() {
		return
	}
	v.bounded(r, m)
	o := &v.oaths[r.id]
	switch m := m.(type) {
	case *message.PrePrepare:
		v.promise(r, m, m.Seq, m.View)
	case *message.Prepare:
		v.promise(r, m, m.Seq, m.View)
	case *message.Commit:
		v.promise(r, m, m.Seq, m.View)
	case *message.Checkpoint:
		v.holds(r, m)
		v.promise(r, m, m.Seq, o.viewBefore)
		v.same(r, m, m.Digest, o.roots[m.Seq])
		o.roots[m.Seq] = m.Digest
	case *message.ViewChange:
		if int(m.From) != r.id {
			return // another replica made this promise
		}
		v.promise(r, m, m.Low, m.View)
		if m.View <= o.left && o.changes[m.View] != m.Digest() {
			v.j.w.fail("replica %d sends %s, and in an earlier life it had left for view %d", r.id, describe(m), o.left)
		}
		v.same(r, m, m.Digest(), o.changes[m.View])
		o.changes[m.View] = m.Digest()
	case *message.NewView:
		if int(m.View.Primary(v.j.w.n)) != r.id {
			return // another replica made this promise
		}
		v.promise(r, m, m.Checkpoint.Seq+message.SeqNum(len(m.Chosen)), m.View)
		d := message.Digest(sha256.Sum256(encode(m)))
		v.same(r, m, d, o.begins[m.View])
		if o.begins[m.View].IsZero() {
			v.j.w.keys.begins(r, m)
		}
		o.begins[m.View] = d
	}
}

// promise judges that the fence stands at or above every promise before it leaves. A
// replica that forgot makes no promise until a checkpoint is stable at or above all its
// promises in earlier lives, and none for a view that it had left.
func (v *vows) promise(r *replica, m message.Message, n message.SeqNum, view message.View) {
	w, s, o := v.j.w, v.j.w.sites[r.id], &v.oaths[r.id]
	switch {
	case n > s.fence || view > s.view:
		w.fail("replica %d sends %s beyond its fence, n%d view %d", r.id, describe(m), s.fence, s.view)
	case r.core.Stable().Seq < o.before:
		w.fail("replica %d sends %s, and made promises up to n%d before it forgot", r.id, describe(m), o.before)
	case view < o.viewBefore:
		w.fail("replica %d sends %s, and was in view %d before it forgot", r.id, describe(m), o.viewBefore)
	}
	o.n, o.view = max(o.n, n), max(o.view, view)
}

// same judges that two promises for one purpose name the same digest.
func (v *vows) same(r *replica, m message.Message, is, was message.Digest) {
	if was != is && !was.IsZero() {
		v.j.w.fail("replica %d sends %s, and has sent another before", r.id, describe(m))
	}
}

// replies judges a correct replica's REPLY. It is a promise of the state that the answer
// comes from, and the version of a read is no earlier than the last batch that changed
// what the answer depends on. If that batch is tentative the answer says so. No read is
// answered from an earlier state than another request was, in whatever life. at is the last
// batch in that state.
func (v *vows) replies(r *replica, c *caller, m *message.Reply, at message.SeqNum, tentative bool) {
	if r.lies() {
		return
	}
	v.promise(r, m, at, v.oaths[r.id].viewBefore)
	a, o := &m.Answers[0], &v.oaths[r.id]
	if a.ReadOnly && a.Outcome == message.Executed && at < o.answered {
		v.j.w.fail("replica %d answers a read from n%d, and has answered from n%d before", r.id, at, o.answered)
	}
	o.answered = max(o.answered, at)
	n := v.j.since[c.id]
	if a.Outcome == message.NotEnrolled && int(a.Slot) < ledgerSlots && v.j.enrolled[c.id] && n < int(at) {
		v.j.w.fail("replica %d says that client %d is not enrolled, and has executed n%d, which enrolled it",
			r.id, c.index, n)
	}
	if a.ReadOnly && a.Outcome == message.Executed && tentative && message.SeqNum(a.Version) == at &&
		!(m.Tentative && m.Seq == at) {
		v.j.w.fail("replica %d answers a read from n%d, which is tentative, as if it had committed", r.id, at)
	}
	if !a.ReadOnly || a.Outcome != message.Executed || int(at) >= len(v.j.after) || int(a.Version) >= len(v.j.after) {
		return // a batch that this replica executed first is judged when a client believes it
	}
	then, now := v.j.after[a.Version], v.j.after[at]
	changed := then.place != now.place
	if len(a.Result) == 1 {
		changed = then.sets != now.sets
	}
	if changed && !tentative {
		v.j.w.fail("replica %d answers a read from n%d, and says that nothing it depends on has changed since n%d",
			r.id, at, a.Version)
	}
}

func (v *vows) record(i int, n message.SeqNum) *record {
	x := v.done[i][n]
	if x == nil {
		x = &record{accepted: map[message.Digest]message.View{}}
		v.done[i][n] = x
	}
	return x
}

// told notes a message that any replica, liars included, sends.
func (v *vows) told(r *replica, m message.Message) {
	switch m := m.(type) {
	case *message.ViewChange:
		if int(m.From) == r.id {
			v.changes[m.Digest()] = m
		}
	case *message.Commit: // a COMMIT that is held back may be sent to a single replica before all others
		if !r.lies() {
			v.commits(r, m.View, m.Seq)
		}
	case *message.PrePrepare:
		if _, known := v.faults[m.Digest]; !known && m.Batch.Digest() == m.Digest {
			v.faults[m.Digest] = v.fault(m)
		}
	}
}

func (v *vows) fault(m *message.PrePrepare) string {
	for _, q := range m.Batch.Requests {
		if !v.j.in[q.Digest()] {
			return "with a request that nobody made"
		}
	}
	if len(m.Batch.Requests) > 0 && !v.j.copy.Accept(m.Seq, m.Batch.Choice) {
		return "with an unreasonable choice"
	}
	return ""
}

// said judges a message that a correct replica sends to all.
func (v *vows) said(r *replica, m message.Message) {
	switch m := m.(type) {
	case *message.PrePrepare:
		v.told(r, m)
		v.proposes(r, m)
		if v.j.w.shape.durable {
			if len(m.Commits) > 0 && r.keeper.store.Waiting() {
				v.j.w.fail("replica %d sends %s, and its disk may not have what says that these prepared",
					r.id, describe(m))
			}
			return // its PREPARE is its vote
		}
		v.accepts(r, m.View, m.Seq, m.Digest)
		v.commits(r, m.View, m.Commits...)
	case *message.Prepare:
		if m.Seq > r.core.Low() && !r.core.Holds(m.Digest) {
			v.j.w.fail("replica %d votes for %v at v%d n%d without its operations", r.id, m.Digest, m.View, m.Seq)
		}
		v.accepts(r, m.View, m.Seq, m.Digest)
		v.commits(r, m.View, m.Commits...)
	case *message.ViewChange:
		v.told(r, m)
		v.leaves(r, m)
	case *message.NewView: // it is the PRE-PREPARE of all batches that it chose
		if int(m.View.Primary(v.j.w.n)) != r.id {
			return // this NEW-VIEW is another primary's
		}
		for i, d := range m.Chosen {
			v.record(r.id, m.Checkpoint.Seq+1+message.SeqNum(i)).accepted[d] = m.View
		}
	}
}

// proposes judges that a primary proposes one batch for a number of its view, in all its lives.
func (v *vows) proposes(r *replica, m *message.PrePrepare) {
	key := voteKey{r.id, slotKey{m.View, m.Seq}}
	v.same(r, m, m.Digest, v.proposed[key])
	v.proposed[key] = m.Digest
}

// holds judges that a replica that says that it holds a checkpoint names it in its
// VIEW-CHANGE, sent or to be sent, or has passed it.
func (v *vows) holds(r *replica, m *message.Checkpoint) {
	k := message.CheckpointID{Seq: m.Seq, Digest: m.Digest}
	v.holders[k] |= 1 << r.id
	if own := r.core.Leaving(); own != nil && !m.Stable && m.Seq > own.Low && !slices.Contains(own.Checkpoints, k) {
		v.j.w.fail("replica %d says that it holds n%d, and left for view %d without saying so", r.id, m.Seq, own.View)
	}
}

// accepts judges that a replica accepts one digest for a number and view, the one that
// the NEW-VIEW chose, and none in a view that it has left.
func (v *vows) accepts(r *replica, view message.View, n message.SeqNum, d message.Digest) {
	w := v.j.w
	v.inView(r, view, n)
	key := voteKey{r.id, slotKey{view, n}}
	if first, ok := v.votes[key]; ok && first != d {
		w.fail("replica %d votes for %v at v%d n%d, and voted for %v before", r.id, d, view, n, first)
	}
	v.votes[key] = d
	chosen := false
	w.keys.begin(r)
	if x := w.keys.began[r.id][view]; x != nil {
		switch i := int(n) - int(x.Checkpoint.Seq) - 1; {
		case i < 0:
			w.fail("replica %d votes at v%d n%d, and the view begins after n%d", r.id, view, n, x.Checkpoint.Seq)
		case i < len(x.Chosen) && x.Chosen[i] != d:
			w.fail("replica %d votes for %v at v%d n%d, and the NEW-VIEW chose %v", r.id, d, view, n, x.Chosen[i])
		default:
			chosen = i < len(x.Chosen)
		}
	}
	if fault := v.faults[d]; fault != "" && !chosen {
		w.fail("replica %d votes at v%d n%d for a batch %s", r.id, view, n, fault)
	}
	x := v.record(r.id, n)
	x.accepted[d] = max(x.accepted[d], view)
}

// refused judges that no replica refuses as wrong what a correct replica says about the
// beginning of a view.
func (v *vows) refused(r *replica, m message.Message, why core.Refusal) {
	if r.lies() || why != core.BadViewChange && why != core.BadNewView {
		return
	}
	from := r.id
	switch m := m.(type) {
	case *message.ViewChange:
		if known := v.changes[m.Digest()]; known != nil {
			from = int(m.From)
		}
	case *message.NewView:
		from = int(m.From)
	}
	if from != r.id && !v.j.w.sites[from].liar() {
		v.j.w.fail("replica %d refuses %s, and %d, which sent it, is correct", r.id, describe(m), from)
	}
}

// inView judges that a replica sends nothing in a view that it has left, not even in
// another life (R-VC-11).
func (v *vows) inView(r *replica, view message.View, n message.SeqNum) {
	if view < v.left[r.id] {
		v.j.w.fail("replica %d votes at v%d n%d, and has left for view %d", r.id, view, n, v.left[r.id])
	}
}

// commits judges that a replica voted for the digest that it says has prepared.
func (v *vows) commits(r *replica, view message.View, numbers ...message.SeqNum) {
	for _, n := range numbers {
		v.inView(r, view, n)
		d, known := r.core.Prepared(n)
		now, _ := r.core.View()
		if now == view && n > r.core.Low() && !known {
			v.j.w.fail("replica %d says that v%d n%d has prepared, and it has not", r.id, view, n)
		}
		if now != view || !known {
			d, known = v.votes[voteKey{r.id, slotKey{view, n}}]
		}
		if known {
			v.prepares(r, view, n, d)
		}
	}
}

func (v *vows) prepares(r *replica, view message.View, n message.SeqNum, d message.Digest) {
	x, key := v.record(r.id, n), slotKey{view, n}
	if !x.any || view >= x.in {
		x.any, x.in, x.prepared = true, view, d
	}
	if v.certified[key]&(1<<r.id) == 0 {
		v.j.w.keys.prepares(r, view, n, d)
	}
	v.certified[key] |= 1 << r.id
	v.prepared[key] = d
	votes := 0
	for i, s := range v.j.w.sites {
		cast, ok := v.votes[voteKey{i, key}]
		// The primary's vote may be its NEW-VIEW.
		if !s.liarAt(n) && (ok && cast == d || i == int(view.Primary(v.j.w.n)) && !v.j.w.shape.durable) {
			votes++
		}
	}
	if votes < v.j.w.quorum(n) {
		v.j.w.fail("replica %d has %v prepared at v%d n%d, and %d correct replicas have voted for it",
			r.id, d, view, n, votes)
	}
}

// leaves judges that P and Q hold what the replica has done, and all of it (R-VC-1, R-VC-2).
func (v *vows) leaves(r *replica, m *message.ViewChange) {
	w := v.j.w
	v.left[r.id] = max(v.left[r.id], m.View)
	for n, x := range v.done[r.id] {
		if n <= m.Low {
			delete(v.done[r.id], n)
			continue
		}
		if x.any {
			i := slices.IndexFunc(m.P, func(p message.Prepared) bool { return p.Seq == n })
			if i < 0 || m.P[i].View < x.in || m.P[i].View == x.in && m.P[i].Digest != x.prepared {
				w.fail("I2: replica %d leaves for view %d, and P lacks %v that prepared at v%d n%d",
					r.id, m.View, x.prepared, x.in, n)
			}
		}
		if len(x.accepted) > 8 {
			continue // Q is bounded
		}
		for d, view := range x.accepted {
			if !slices.ContainsFunc(m.Q, func(q message.Prepared) bool {
				return q.Seq == n && q.Digest == d && q.View >= view
			}) {
				w.fail("I2: replica %d leaves for view %d, and Q lacks %v that it accepted at v%d n%d",
					r.id, m.View, d, view, n)
			}
		}
	}
}

// committed judges a batch that a first correct replica takes for committed: it prepared at
// the correct replicas of a quorum in one view, so that no later view can miss it [TOCS §4.3].
func (v *vows) committed(r *replica, n message.SeqNum, d message.Digest) {
	if v.executed[n] {
		return
	}
	v.executed[n] = true
	for key, by := range v.certified {
		if by |= 1 << r.id; key.seq == n && v.prepared[key] == d && bits.OnesCount32(by) >= v.j.w.quorum(n) {
			return
		}
	}
	v.j.w.fail("replica %d executes %v as n%d, and too few correct replicas say that it prepared", r.id, d, n)
}

// stable judges that every quorum has a correct replica that holds the checkpoint: the
// messages before it are forgotten.
func (v *vows) stable(r *replica, n message.SeqNum) {
	by := v.holders[message.CheckpointID{Seq: n, Digest: v.j.roots[n]}] | 1<<r.id
	if bits.OnesCount32(by) < v.j.w.quorum(n) {
		v.j.w.fail("replica %d takes n%d for stable, and of the correct replicas only %b have said that they hold it",
			r.id, n, by)
	}
}

// fetches judges that a fetched state is one that a correct replica had.
func (v *vows) fetches(r *replica, n message.SeqNum, root message.Digest) {
	if have, ok := v.j.roots[n]; !r.lies() && (!ok || have != root) {
		v.j.w.fail("replica %d fetches n%d with root %v, which no correct replica had", r.id, n, root)
	}
}

// quorum is how many replicas that were correct when they spoke of batch n are in every quorum.
func (w *world) quorum(n message.SeqNum) int {
	q := w.q
	for _, s := range w.sites {
		if s.liarAt(n) {
			q--
		}
	}
	return q
}

// cures notes that replica i is correct again. Its messages so far are not held against it.
func (v *vows) cures(i int) {
	v.oaths[i], v.left[i] = oath{}, 0
	v.forgets(i)
	v.j.w.keys.began[i] = beginnings{}
	for _, all := range []map[voteKey]message.Digest{v.votes, v.proposed} {
		maps.DeleteFunc(all, func(k voteKey, _ message.Digest) bool { return k.by == i })
	}
}

// bounds reports whether a primary recovers, and may not say how the view begins that all wait for,
// because something has prepared above its bound (R-PR-16). The next primary says it.
func (w *world) bounds(primary *replica) bool {
	for _, r := range w.correct() {
		if m := r.core.Leaving(); m != nil && len(m.P) > 0 && w.above(primary, m.P[len(m.P)-1].Seq) {
			return true
		}
	}
	return false
}

// calm judges from time to time, when all faults have ended, whether a view begins whose
// primary is correct: the VIEW-CHANGEs of the correct replicas suffice, whatever the
// others claim (R-VC-22).
func (v *vows) calm() {
	w := v.j.w
	if w.lost {
		return // more than f replicas forgot their VIEW-CHANGEs
	}
	w.after(5*tick, v.calm)
	var view message.View
	for _, r := range w.correct() {
		if w.sites[r.id].away {
			continue
		}
		x, active := r.core.View()
		if r.down || r.aside() || active || view != 0 && x != view {
			v.pending = 0 // one that stands aside says nothing until its image is written
			return
		}
		view = x
	}
	i := view.Primary(w.n)
	p := w.sites[i].copies[0]
	remembers := p.core.SilentUntil() == 0 && p.core.Leaving() != nil // also a VIEW-CHANGE of an earlier life
	switch {
	case view != v.pending:
		v.pending, v.since, v.first = view, w.now, w.now
	case (p.core.Transferring() || p.installing) && w.now <= v.first+beginning*tick:
		v.since = w.now // it fetches the state first, and a liar may leave it waiting for that
	case !w.sites[i].liar() && !w.sites[i].away && remembers && !w.bounds(p) && w.now > v.since+beginning*tick:
		w.fail("all correct replicas wait for view %d since tick %d, and %d, its primary, is correct",
			view, v.since/tick, i)
	}
}

const beginning = 70 // ticks that a view may take to begin

// begins judges a NEW-VIEW with which a correct replica begins a view, by the conditions
// alone [TOCS Fig. 23; R-VC-24a, 26].
func (v *vows) begins(r *replica, m *message.NewView) {
	w := v.j.w
	var set []*message.ViewChange
	for _, x := range m.V {
		vc := v.changes[x.Digest]
		if vc == nil || vc.From != x.From || vc.View != m.View {
			w.fail("replica %d begins view %d with a VIEW-CHANGE of %d that was never sent", r.id, m.View, x.From)
			return
		}
		set = append(set, vc)
	}
	d := decisions{set, w.q, w.f + 1}
	if !d.highest(m.Checkpoint) {
		w.fail("replica %d begins view %d from n%d, which its VIEW-CHANGEs do not allow",
			r.id, m.View, m.Checkpoint.Seq)
	}
	for i := range w.shape.log {
		n := m.Checkpoint.Seq + 1 + i
		switch {
		case int(i) >= len(m.Chosen):
			if !d.b(n) {
				w.fail("replica %d begins view %d with nothing at n%d, which its VIEW-CHANGEs do not allow",
					r.id, m.View, n)
			}
		case !d.a(n, m.Chosen[i]) && !(m.Chosen[i] == message.NullDigest && d.b(n)):
			w.fail("replica %d begins view %d with %v at n%d, which its VIEW-CHANGEs do not allow",
				r.id, m.View, m.Chosen[i], n)
		}
	}
}

// decisions evaluates the conditions of Fig. 23 over a set of VIEW-CHANGEs, as they are printed.
type decisions struct {
	set          []*message.ViewChange
	quorum, weak int
}

func (d decisions) most(holds func(m *message.ViewChange) bool) (n int) {
	for _, m := range d.set {
		if holds(m) {
			n++
		}
	}
	return n
}

// highest reports whether k is the last checkpoint that f+1 replicas hold and a quorum
// has not passed.
func (d decisions) highest(k message.CheckpointID) bool {
	may := func(k message.CheckpointID) bool {
		return d.most(func(m *message.ViewChange) bool { return m.Low <= k.Seq }) >= d.quorum &&
			d.most(func(m *message.ViewChange) bool { return slices.Contains(m.Checkpoints, k) }) >= d.weak
	}
	for _, m := range d.set {
		for _, other := range m.Checkpoints {
			if other.Seq > k.Seq && may(other) {
				return false
			}
		}
	}
	return may(k)
}

// a is condition A of digest x at n.
func (d decisions) a(n message.SeqNum, x message.Digest) bool {
	for _, m := range d.set {
		for _, p := range m.P {
			if p.Seq == n && p.Digest == x && d.a1(p) && d.a2(p) {
				return true
			}
		}
	}
	return false
}

func (d decisions) a1(p message.Prepared) bool {
	return d.most(func(m *message.ViewChange) bool {
		for _, q := range m.P {
			if q.Seq == p.Seq && (q.View > p.View || q.View == p.View && q.Digest != p.Digest) {
				return false
			}
		}
		return m.Low < p.Seq
	}) >= d.quorum
}

func (d decisions) a2(p message.Prepared) bool {
	return d.most(func(m *message.ViewChange) bool {
		for _, q := range m.Q {
			if q.Seq == p.Seq && q.Digest == p.Digest && q.View >= p.View {
				return true
			}
		}
		return false
	}) >= d.weak
}

// b is condition B at n.
func (d decisions) b(n message.SeqNum) bool {
	return d.most(func(m *message.ViewChange) bool {
		for _, p := range m.P {
			if p.Seq == n {
				return false
			}
		}
		return m.Low < n
	}) >= d.quorum
}
