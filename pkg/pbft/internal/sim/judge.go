// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bytes"
	"encoding/binary"
	"slices"

	"bfs/pkg/internal/blockhash"
	"bfs/pkg/pbft"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/pbfttest"
)

// judge watches all that correct replicas do and all that correct clients are told, and fails
// the schedule at the first wrong step. Its main part is the automaton Safe: a single copy
// that executes requests that were made, each at most once, in the order that the group agreed
// on. A correct client may accept only the results of this copy [TOCS App. B; R-MOD-9].
type judge struct {
	w       *world
	in      map[message.Digest]bool // REQUEST and FAULTY-REQUEST: requests that were made
	out     map[outKey]outcome      // EXECUTE: results
	last    map[message.RequestKey]message.Timestamp
	copy    *register          // the single copy
	exec    *executor.Executor // of the administrator's operations on it
	history []step             // history[n] is the batch that a correct replica executed first as n
	after   []moment           // after[n] is the single copy's state after batch n
	chain   [][8]byte          // chain[k]: the digest in a reply whose place is k
	cells   []byte             // cells[k]: the cell after as many operations
	sets    int                // operations so far that set it
	floor   uint64             // the highest place that a correct client has seen
	// once has the timestamp under which each operation of a correct client was executed,
	// by its number.
	once map[uint64]message.Timestamp

	enrolled     map[message.ClientID]bool
	administered int                      // the last batch with an answered operation of the administrator
	since        map[message.ClientID]int // the batch that enrolled a client last

	roots    map[message.SeqNum]message.Digest // of correct replicas' checkpoints (I5)
	prepared map[slotKey]message.Digest        // I1
	ahead    map[slotKey]*message.Batch        // batches that correct replicas claim in replies to have prepared
	vows     vows
}

type outKey struct {
	message.RequestKey
	t message.Timestamp
}

type outcome struct {
	digest message.Digest
	result []byte
	place  uint64 // how many operations had written before
	batch  int
}

// A moment is the single copy between two batches.
type moment struct {
	place uint64
	sets  int
	cell  byte
}

type step struct {
	digest message.Digest
	by     int
	view   message.View // a view in which it committed, as far as is known
}

type slotKey struct {
	view message.View
	seq  message.SeqNum
}

func (j *judge) init(w *world) {
	*j = judge{
		w: w, in: map[message.Digest]bool{}, out: map[outKey]outcome{},
		last: map[message.RequestKey]message.Timestamp{}, copy: newRegister(pbfttest.NewMemory(), w.first),
		history: make([]step, 1), chain: make([][8]byte, 1),
		roots: map[message.SeqNum]message.Digest{}, prepared: map[slotKey]message.Digest{},
		ahead: map[slotKey]*message.Batch{}, cells: make([]byte, 1), after: make([]moment, 1),
		once: map[uint64]message.Timestamp{}, enrolled: map[message.ClientID]bool{}, since: map[message.ClientID]int{},
	}
	j.exec = w.newExecutor(j.copy, j.copy.memory)
	for i := range maxClients {
		j.enrolled[message.ClientOf(clientKey(i))] = true
	}
	j.vows.init(j)
}

// requested is REQUEST of a correct client, FAULTY-REQUEST of another.
func (j *judge) requested(_ *caller, q *message.Request) {
	if !q.ReadOnly {
		j.in[q.Digest()] = true
	}
}

// executed judges a batch that replica r executes as n: it is the same at all correct
// replicas (I3). The automaton executes a batch that is new.
func (j *judge) executed(r *replica, n message.SeqNum, b *message.Batch) {
	r.idle = 0
	w := j.w
	if r.lies() {
		return
	}
	view, _ := r.core.View()
	d := j.digest(r, b)
	if here, committed := r.core.Committed(n); !committed || here != d {
		w.marks.hit(markDecided)
		view = ^message.View(0) // in another view, which is not known
	}
	j.vows.committed(r, n, d)
	switch {
	case int(n) < len(j.history):
		if n+w.shape.log <= w.sites[r.id].cured {
			// After a recovery a restart runs batches again from a journal in which an
			// intruder may have put others, up to the checkpoint with which the recovery
			// ended. The root of that checkpoint has to be the group's all the same (I5),
			// and no client is answered before the root is known (core.Restore).
			return
		}
		if first := j.history[n]; first.digest != d {
			w.fail("I3: replica %d executes %v as n%d, replica %d executed %v", r.id, d, n, first.by, first.digest)
		}
		j.history[n].view = min(j.history[n].view, view)
		return
	case int(n) > len(j.history):
		w.fail("replica %d executes n%d, and no correct replica has executed n%d", r.id, n, n-1)
		return
	}
	j.commit(r.id, n, view, b)
	if w.ahead != nil {
		w.ahead(r)
	}
}

// digest is the digest of a batch that replica r executes, computed from its contents and
// not taken from r.
func (j *judge) digest(r *replica, b *message.Batch) message.Digest {
	checked := message.Batch{Choice: b.Choice}
	for _, q := range b.Requests {
		if q.IsStub() {
			j.w.fail("replica %d executes a request without its operation: %s", r.id, describe(q))
		}
		x := *q
		x.Altered()
		checked.Requests = append(checked.Requests, &x)
	}
	return checked.Digest()
}

// commit lets the automaton execute the next batch of the order, on the word of replica by.
func (j *judge) commit(by int, n message.SeqNum, view message.View, b *message.Batch) {
	j.history = append(j.history, step{b.Digest(), by, view})
	if len(b.Requests) == 0 {
		j.w.marks.hit(markNullBatch)
	}
	for _, q := range b.Requests {
		j.execute(by, n, q, b.Choice)
	}
	j.after = append(j.after, moment{uint64(len(j.chain) - 1), j.sets, j.cells[len(j.cells)-1]})
}

// decided judges a DECIDED of replica r: some correct replica has executed the batch.
func (j *judge) decided(r *replica, m *message.Decided) {
	if r.lies() {
		return
	}
	if int(m.Seq) >= len(j.history) || j.history[m.Seq].digest != m.Digest {
		j.w.fail("replica %d says that %v was decided as n%d, and no correct replica has executed that",
			r.id, m.Digest, m.Seq)
	}
}

// ordered judges a RECOVERED of replica r: the batch with the recovery request has committed,
// and a correct replica has it on its disk, so that it keeps its number.
func (j *judge) ordered(r *replica, m *message.Recovered) {
	if !r.lies() && int(m.Seq) >= len(j.history) {
		j.w.fail("replica %d says that a recovery request was executed in n%d, and no correct replica "+
			"has that on its disk", r.id, m.Seq)
	}
}

// tentative judges a batch that replica r executes because it has prepared, whether or
// not it is known to have committed.
func (j *judge) tentative(r *replica, n message.SeqNum, v message.View, b *message.Batch) {
	if r.lies() {
		return
	}
	key := slotKey{v, n}
	j.certificate(r, v, n, j.digest(r, b))
	if int(n) > len(j.history) {
		j.w.fail("replica %d executes n%d tentatively, and no correct replica has executed n%d", r.id, n, n-1)
		return
	}
	j.vows.prepares(r, v, n, b.Digest())
	first := j.ahead[key] == nil
	j.ahead[key] = b
	if first && int(n) == len(j.history) && j.w.ahead != nil {
		j.w.ahead(r)
	}
}

// stands judges that replica r answers a read from a batch that has prepared in a view, which may
// be later than the one in which r executed it.
func (j *judge) stands(r *replica, v message.View, n message.SeqNum) {
	if r.lies() {
		return
	}
	d, prepared := r.core.Prepared(n)
	if !prepared {
		j.w.fail("Safe: replica %d answers a read on the ground of v%d n%d, which has not prepared there", r.id, v, n)
		return
	}
	j.certificate(r, v, n, d)
}

// promised judges a batch that a client believes because 2f+1 replicas have prepared it:
// the batch counts as committed from now on, and must stay so (R-HD-20).
func (j *judge) promised(c *caller, at slotKey) {
	b, digest := j.ahead[at], j.prepared[at]
	if b != nil {
		digest = b.Digest()
	}
	switch {
	case digest.IsZero(), b == nil && int(at.seq) >= len(j.history):
		j.w.fail("Safe: client %d believes a reply to v%d n%d, which no correct replica has executed",
			c.index, at.view, at.seq)
	case int(at.seq) < len(j.history):
		if first := j.history[at.seq]; first.digest != digest {
			j.w.fail("Safe: client %d believes v%d n%d %v, replica %d executed %v",
				c.index, at.view, at.seq, digest, first.by, first.digest)
		}
		j.history[at.seq].view = min(j.history[at.seq].view, at.view)
	default:
		j.w.marks.hit(markTentative)
		j.commit(-1, at.seq, at.view, b)
	}
}

func (j *judge) execute(by int, n message.SeqNum, q *message.Request, choice []byte) {
	check := *q
	check.Altered()
	if check.Digest() != q.Digest() || !j.in[q.Digest()] {
		j.w.fail("Safe: replica %d executes in n%d a request that nobody made: %s", by, n, describe(q))
		return
	}
	_, recovers := q.Client.Recoverer()
	switch {
	case q.Client == message.Administrator:
		j.administer(n, q, choice)
		return
	case recovers:
		return // the state of the copy does not depend on it
	case !j.enrolled[q.Client]:
		return
	case q.Timestamp <= j.last[q.Key()] || int(q.Slot) >= ledgerSlots:
		j.w.marks.hit(markDuplicate)
		return
	}
	j.last[q.Key()] = q.Timestamp
	result, wrote := j.copy.Execute(pbft.Operation{Client: q.Client, Choice: choice, Body: q.Op})
	if wrote {
		j.unique(q)
		_, chain := place(result)
		j.chain, j.cells = append(j.chain, chain), append(j.cells, j.copy.memory.Page(j.copy.cell())[0])
		if q.Op[0] == opSet {
			j.sets++
		}
	}
	j.out[outKey{q.Key(), q.Timestamp}] = outcome{q.Digest(), result, uint64(len(j.chain) - 1), int(n)}
}

// unique judges that an operation of a correct client is executed at most once, under
// whatever timestamps.
func (j *judge) unique(q *message.Request) {
	number := binary.LittleEndian.Uint64(q.Op[3:11])
	if c := j.w.clientOf(q.Client); c == nil || c.mischief != nil || number == 0 {
		return // a schedule that was written by hand does not number its operations
	}
	if t, done := j.once[number]; done {
		j.w.fail("Safe: an operation of client %v is executed as t%d and as t%d of slot %d",
			q.Client, t, q.Timestamp, q.Slot)
	}
	j.once[number] = q.Timestamp
}

// administer is EXECUTE of an operation of the administrator: it runs on the single copy.
// The clients that are enrolled then follow from the operations so far.
func (j *judge) administer(n message.SeqNum, q *message.Request, choice []byte) {
	if q.Timestamp <= j.last[q.Key()] {
		return
	}
	j.last[q.Key()] = q.Timestamp
	a, _ := j.exec.Execute(q, choice)
	j.out[outKey{q.Key(), q.Timestamp}] = outcome{q.Digest(), a.Result, uint64(len(j.chain) - 1), int(n)}
	if len(q.Op) <= len(clientKey(0)) {
		return
	}
	id := message.ClientOf(q.Op[1:])
	was := j.enrolled[id]
	j.enrolled[id] = q.Op[0] == executor.AdminEnrol
	switch {
	case was && !j.enrolled[id]:
		j.w.marks.hit(markRevoked)
	case !was && j.enrolled[id]:
		j.w.marks.hit(markEnrolled)
		j.since[id] = int(n)
	}
	if c, ok := j.exec.Ledger().Client(id); j.enrolled[id] != (ok && !c.Revoked) {
		j.w.fail("Safe: after n%d client %v is enrolled %t, want %t", n, id, !j.enrolled[id], j.enrolled[id])
	}
}

// notEnrolled judges the answer that a client is not enrolled: it was not, at some time
// since it called.
func (j *judge) notEnrolled(c *caller, k *call) {
	if j.enrolled[c.id] && j.since[c.id] <= k.enrolled {
		j.w.fail("client %d is told that it is not enrolled, and was since before it called", c.index)
	}
}

// blocks judges the block digests of an operation that a replica hands to its service:
// those of the blocks with which the operation ends, all of them and in order.
func (j *judge) blocks(r *replica, q *message.Request) {
	var want []message.Digest
	for rest := q.Op[len(q.Op)%blockhash.Size:]; len(rest) > 0; rest = rest[blockhash.Size:] {
		want = append(want, blockhash.Sum(rest[:blockhash.Size]))
	}
	if !slices.Equal(q.Blocks(), want) {
		j.w.fail("Safe: replica %d executes %s with the digests %v of its blocks, want %v",
			r.id, describe(q), q.Blocks(), want)
	}
	if len(want) > 1 {
		j.w.marks.hit(markBlocks)
	}
}

// accepted judges REPLY: the result is the automaton's. The result of a read is one that
// a single copy could have given between the call and now, and no earlier than any result
// that a correct client had seen before the call.
func (j *judge) accepted(c *caller, k *call, result []byte) {
	w := j.w
	if !k.q.ReadOnly {
		o, ok := j.out[outKey{k.q.Key(), k.q.Timestamp}]
		if !ok || o.digest != k.q.Digest() || !bytes.Equal(o.result, result) {
			w.fail("Safe: client %d accepts %x for t%d of slot %d, a single copy gives %x",
				c.index, result, k.q.Timestamp, k.q.Slot, o.result)
		}
		if c.id == message.Administrator {
			j.administered = max(j.administered, o.batch)
		}
		j.see(c, k, o.place)
		return
	}
	w.marks.hit(markFastRead)
	if k.q.Op[0] == opGet {
		at := k.floor // values recur: the first place where the cell had this value is the safe one
		for at < uint64(len(j.cells)) && (len(result) != 1 || j.cells[at] != result[0]) {
			at++
		}
		if at == uint64(len(j.cells)) {
			w.fail("Safe: client %d reads %q, and since place %d, which had been seen before it called, the "+
				"cell has never had that value", c.index, result, k.floor)
			return
		}
		j.see(c, k, at)
		return
	}
	at, chain := place(result)
	if at >= uint64(len(j.chain)) || j.chain[at] != chain {
		w.fail("Safe: client %d accepts the result %d %x, which no correct replica had", c.index, at, chain)
		return
	}
	j.see(c, k, at)
}

// see notes that a correct client has seen the state of the single copy at a place.
func (j *judge) see(c *caller, k *call, at uint64) {
	if at < k.floor {
		j.w.fail("Safe: client %d accepts a result of place %d, and %d had been seen before it called",
			c.index, at, k.floor)
	}
	j.floor = max(j.floor, at)
}

// lost judges the answer that a request was executed and its result is not kept.
func (j *judge) lost(c *caller, k *call) {
	o, ok := j.out[outKey{k.q.Key(), k.q.Timestamp}]
	if !ok || o.digest != k.q.Digest() {
		j.w.fail("Safe: client %d is told that t%d of slot %d was executed, and it was not",
			c.index, k.q.Timestamp, k.q.Slot)
	} else if k.q.Op[0] == opWrite || len(o.result) <= ledger.KeptReply &&
		(k.q.Op[0] == opLong || k.q.Op[0] == opKept) {
		j.w.fail("client %d is told that the result of t%d is not kept, and it should be", c.index, k.q.Timestamp)
	}
}

// root judges a correct replica's checkpoint: it is equal at all correct replicas, with
// replies and timestamps (I5).
func (j *judge) root(r *replica, n message.SeqNum, d message.Digest) {
	if r.lies() {
		return
	}
	if first, ok := j.roots[n]; !ok {
		j.roots[n] = d
	} else if first != d {
		j.w.fail("I5: replica %d has root %v at n%d, another correct one %v", r.id, d, n, first)
	}
}

// said judges a message that a correct replica sends to all.
func (j *judge) said(r *replica, m message.Message) {
	if r.lies() {
		return
	}
	j.vows.said(r, m)
	switch m := m.(type) {
	case *message.PrePrepare:
		j.authenticity(r, m.Batch.Requests)
		if m.Digest == message.NullDigest {
			j.w.marks.hit(markNullFill)
		}
		if !m.Batch.Complete() {
			j.w.marks.hit(markApart)
		}
	case *message.Commit:
		// One that waited for the disk may leave in a later view.
		if view, _ := r.core.View(); view == m.View {
			if d, ok := r.core.Prepared(m.Seq); ok {
				j.certificate(r, m.View, m.Seq, d)
			}
		}
	case *message.ViewChange:
		j.viewChange(r, m)
	case *message.NewView:
		j.beginning(r, m)
	}
}

// authenticity judges that a correct primary proposes only requests that their client has
// made authentic to it, or to f+1 of the others.
func (j *judge) authenticity(r *replica, all []*message.Request) {
	for _, q := range all {
		if !j.w.authentic(q, r.id) {
			j.w.marks.hit(markForwarded)
		}
	}
}

// certificate: no two correct replicas hold prepared certificates with different digests
// for one view and number (I1).
func (j *judge) certificate(r *replica, v message.View, n message.SeqNum, d message.Digest) {
	key := slotKey{v, n}
	if first, ok := j.prepared[key]; !ok {
		j.prepared[key] = d
	} else if first != d {
		j.w.fail("I1: replica %d has %v prepared at v%d n%d, another correct one %v", r.id, d, v, n, first)
	}
}

// viewChange judges a correct replica's VIEW-CHANGE (I2).
func (j *judge) viewChange(r *replica, m *message.ViewChange) {
	for i, p := range m.P {
		if i > 0 && m.P[i-1].Seq == p.Seq {
			j.w.fail("I2: replica %d has two tuples in P for n%d", r.id, p.Seq)
		}
		j.certificate(r, p.View, p.Seq, p.Digest)
		witness := false
		for _, q := range m.Q {
			witness = witness || q.Seq == p.Seq && q.Digest == p.Digest && q.View >= p.View
		}
		if !witness {
			j.w.fail("I2: replica %d has n%d %v v%d in P and nothing as late in Q", r.id, p.Seq, p.Digest, p.View)
		}
	}
	if len(m.P) > 0 {
		j.w.marks.hit(markPrepared)
	}
}

// beginning judges a NEW-VIEW that a correct replica sends or accepts: it chooses again
// every batch that committed before (I4).
func (j *judge) beginning(r *replica, m *message.NewView) {
	j.vows.begins(r, m)
	for n := int(m.Checkpoint.Seq) + 1; n < len(j.history); n++ {
		if j.history[n].view >= m.View {
			continue
		}
		i := n - int(m.Checkpoint.Seq) - 1
		if i >= len(m.Chosen) || m.Chosen[i] != j.history[n].digest {
			j.w.fail("I4: v%d begins without the batch that was executed as n%d (replica %d)", m.View, n, r.id)
			return
		}
	}
	if len(m.Chosen) > 0 {
		j.w.marks.hit(markChosen)
	}
}

// watch judges a replica after every event.
func (j *judge) watch(r *replica) {
	view, active := r.core.View()
	if r.lies() {
		return
	}
	switch {
	case view < r.view:
		j.w.fail("replica %d went back from view %d to %d", r.id, r.view, view)
	case view > r.view:
		r.say("leaves for view %d", view)
		j.w.marks.hit(markViewChange)
		if r.idle += int(view - r.view); r.idle >= 3 {
			j.w.marks.hit(markThreeViews)
		}
		r.view = view
	}
	if active && view > r.begun {
		r.begun = view
		r.say("is active in view %d", view)
		if m := r.core.Beginning(); m != nil {
			if m.Checkpoint.Seq > r.core.Low() {
				j.w.marks.hit(markUnstableStart)
			}
			r.when(func() {
				if !r.lies() { // it may have turned faulty before its VIEW-CHANGE was durable
					j.beginning(r, m)
				}
			})
		}
	}
}

// waits judges that a replica waits for nothing that it has executed. It would tell the others of
// it for ever.
func (j *judge) waits(r *replica) {
	if r.lies() || r.stopped != "" || r.session != nil || r.installing || r.core.Transferring() {
		return
	}
	r.core.EachPending(func(q *message.Request) {
		if st, certain := r.core.Standing(q); certain && !st.Tentative && r.exec.Executed(q) {
			j.w.fail("replica %d waits for %s, which it has executed", r.id, describe(q))
		}
	})
}

// stable notes how a checkpoint became stable.
func (j *judge) stable(r *replica, n message.SeqNum) {
	if r.lies() {
		return
	}
	j.vows.stable(r, n)
	j.w.marks.hit(markStable)
}

// installed notes a state transfer.
func (j *judge) installed(r *replica) {
	r.idle = 0
	if r.lies() {
		return
	}
	j.w.marks.hit(markTransfer)
	for _, c := range j.w.clients {
		for _, s := range c.slots {
			if s.call != nil && !j.w.calm {
				j.w.marks.hit(markTransferUnderLoad)
			}
		}
	}
}

// bounds judges that a replica's memory stays within its bounds.
func (j *judge) bounds(r *replica) {
	s, shape := r.core.Sizes(), j.w.shape
	l := int(shape.log)
	checkpoints := l/int(shape.period) + 2
	if shape.bytes > 0 {
		checkpoints = l + 2 // each batch may bring one
	}
	if shape.durable { // the image keeps a checkpoint until the group has come a window further
		checkpoints += checkpoints
	}
	prepared, preprepared := l, 2*l
	// The VIEW-CHANGE that an intruder wrote may be for another window than the log's.
	if j.w.sites[r.id].corrupt {
		prepared, preprepared = prepared+l, preprepared+l
	}
	for _, x := range []struct {
		what      string
		got, most int
	}{
		{"P", s.Prepared, prepared}, {"Q", s.Preprepared, preprepared}, {"digests of Q", s.Digests, 16},
		{"fetched batches", s.Bodies, 16 * l}, {"forwards", s.Forwards, (maxClients + 1 + j.w.n) * ledgerSlots},
		{"unproven requests", s.Unproven, 8}, {"bytes of one client", s.LineBytes, max(queueBytes/2, longest)},
		{"bytes that wait", s.QueueBytes, queueBytes + s.Lines*longest},
		{"lines", s.Lines, maxClients + 1 + j.w.n}, {"a line", s.Line, 4*ledgerSlots + 32},
		{"fetches", s.Asks, 4 * j.w.n}, {"bytes of the log", s.LogBytes, 1 << 20}, {"held COMMITs", s.Held, 8},
		{"slots that nobody looks at", s.Overlooked, 0}, {"checkpoints", r.memory.Checkpoints(), checkpoints},
	} {
		if x.got > x.most {
			j.w.fail("memory: replica %d keeps %d of %s, want <= %d", r.id, x.got, x.what, x.most)
		}
	}
}

// end judges the states when all is quiet: correct replicas that have executed the same
// batches have equal states, byte for byte.
func (j *judge) end() {
	roots := map[message.SeqNum]pbft.Digest{}
	for _, r := range j.w.correct() {
		if r.core.Ahead() > 0 {
			continue // it has a batch that may still commit elsewhere
		}
		n, root := r.core.LastExecuted(), r.memory.Root()
		if first, ok := roots[n]; ok && first != root {
			j.w.fail("replica %d ends with root %v after n%d, another correct one with %v", r.id, root, n, first)
		}
		roots[n] = root
		j.disputes(r)
	}
}

// disputes judges that a correct replica never reports a correct one for a false state,
// nor, in a schedule without liars, for a wrong vote.
func (j *judge) disputes(r *replica) {
	honest := !slices.ContainsFunc(j.w.sites, func(s *site) bool { return s.liar() || s.cured > 0 })
	for i, s := range j.w.sites {
		d := r.core.Dispute(message.ReplicaID(i))
		if d.Roots > 0 && !s.liar() && s.cured == 0 || d.Votes > 0 && honest {
			j.w.fail("replica %d says that %d, which is correct, has spoken against the group: %+v", r.id, i, d)
		}
	}
}
