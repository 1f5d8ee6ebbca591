// SPDX-License-Identifier: Apache-2.0

package client

import (
	"bytes"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"bfs/pkg/pbft/internal/message"
)

// A Tally gathers replies to one request until enough of them agree: it is the rule by which
// replies are believed [TOCS §4.2, §6.1].
type Tally struct {
	heard     uint32 // bit i: replica i has answered
	committed uint32 // bit i: replica i knows that what it answered has committed
	replies   []verdict
	results   [][]byte // results that have come in full, no two alike: no more than there are replicas
	lent      int      // bytes up to which a result's memory is lent for the call, and must be copied to be kept
}

// A verdict is one replica's answer. It may stand on two grounds: the replica has executed the
// request in the batch prepared as number seq of view prepared, and it knows that it has committed
// (Tally.committed). It has the length of a cache line.
type verdict struct {
	view     message.View
	seq      message.SeqNum // 0: not on that ground
	prepared message.View
	version  message.SeqNum // of the result of a read
	proof    message.Proof  // if the result is unproved; its nonce is the last timestamp of a Superseded
	length   int32
	try      int16 // the request's tries when it came, as far as these are counted
	result   int8  // which of the results it is, or proves; unproved, untold
	outcome  message.Outcome
}

const (
	// unproved: the verdict proves none of the results that have come. Two unproved verdicts may
	// yet prove the same result.
	unproved = -1 - iota
	// untold: the verdict has the length alone. It says that the request was executed.
	untold
)

// alike: the same answer, whatever it stands on. Of results that are not here only the
// length is known.
func (v *verdict) alike(w *verdict) bool {
	return v.outcome == w.outcome && v.version == w.version && v.length == w.length && v.result == w.result
}

// supports reports whether v is the same answer as w, or an untold one that may be. Correct
// replicas that executed a request on one ground executed it alike. A read has no ground before it
// is asked, so every replica gives or proves its result, and equal results support each other only
// if they were read from the same version (R-OUR-22).
func (v *verdict) supports(w *verdict) bool {
	return v.outcome == w.outcome && v.version == w.version && v.length == w.length &&
		(v.result == w.result || v.result == untold)
}

// Reset readies the tally for the answers of n replicas to another request, or to another try of it
// that is not to be mixed up with earlier ones. Results of at most lent bytes are copied when they
// are kept.
func (t *Tally) Reset(n, lent int) {
	t.lent = lent
	if t.replies == nil {
		t.replies = make([]verdict, n)
	}
	t.forget() // the last result is its receiver's
}

// forget lets go of the results.
func (t *Tally) forget() {
	clear(t.results)
	t.heard, t.committed, t.results = 0, 0, t.results[:0]
}

// Has reports whether replica i has answered.
func (t *Tally) Has(i message.ReplicaID) bool { return t.heard&(1<<i) != 0 }

// Add notes an answer to the given try of a request of which replier was to return the full result.
// A replica may answer again, with the full result or after catching up: its last word counts. But
// a replica also says that a result is no longer kept when a copy comes of a request that it has
// just answered; this replaces its answer at a later try only.
func (t *Tally) Add(m *message.Reply, a *message.Answer, replier message.ReplicaID, try int, proves Prover) {
	v, old, again := &t.replies[m.From], t.replies[m.From], t.Has(m.From)
	try = min(try, math.MaxInt16)
	noResult := a.Outcome == message.NotKept || a.Outcome == message.Lost
	if noResult && again && old.outcome == message.Executed && int16(try) <= old.try {
		return
	}
	*v = verdict{outcome: a.Outcome, length: int32(a.Length), view: m.View, seq: m.Seq, prepared: m.View,
		version: a.Version, try: int16(try)}
	committed := !m.Tentative
	fresh := false // no replica gave it before
	switch full := a.Full && (!a.Long() || m.From == replier || replier == message.AnyReplier); {
	case a.Outcome == message.Superseded && a.Length == 8 && a.Full:
		v.proof.Nonce = binary.LittleEndian.Uint64(a.Result)
		v.length = 0
		v.result, fresh = t.find(nil, m.From)
	case full:
		v.result, fresh = t.find(a.Result, m.From)
	case !a.Proved:
		v.result = untold
	default:
		v.proof, v.result = a.Proof, t.provenBy(m.From, &a.Proof, a.Length, proves)
	}
	if !fresh && again && old.alike(v) {
		// It gave the same answer before, and need not repeat on one ground what it said on the
		// other.
		committed = committed || t.committed&(1<<m.From) != 0
		if v.seq == 0 {
			v.seq, v.prepared = old.seq, old.prepared
		}
	}
	t.heard |= 1 << m.From
	if t.committed &^= 1 << m.From; committed {
		t.committed |= 1 << m.From
	}
	if fresh {
		t.recognise(v.result, proves)
	}
}

// A Prover reports whether replica i made this proof of this result.
type Prover func(i message.ReplicaID, p *message.Proof, result []byte) bool

// find returns the number of a result that a replica gives now, and keeps it if it is fresh. It
// replaces a result that is no other replica's last word, or a liar could make us keep any number
// of results.
func (t *Tally) find(result []byte, from message.ReplicaID) (k int8, fresh bool) {
	for i, r := range t.results {
		if bytes.Equal(r, result) {
			return int8(i), false
		}
	}
	if len(result) <= t.lent {
		result = append([]byte(nil), result...) // it lies in memory that is lent
	}
	for i := range t.results {
		if !t.given(int8(i), from) {
			t.results[i] = result
			return int8(i), true
		}
	}
	t.results = append(t.results, result)
	return int8(len(t.results) - 1), true
}

// given reports whether a result is the last word of a replica other than this one.
func (t *Tally) given(k int8, but message.ReplicaID) bool {
	for i := range t.replies {
		if j := message.ReplicaID(i); j != but && t.Has(j) && t.replies[i].result == k {
			return true
		}
	}
	return false
}

// provenBy is the number of the result that replica i proves, or unproved.
func (t *Tally) provenBy(i message.ReplicaID, p *message.Proof, length int, proves Prover) int8 {
	for k, r := range t.results {
		if len(r) == length && proves(i, p, r) {
			return int8(k)
		}
	}
	return unproved
}

// recognise checks the earlier proofs against a result that has just come.
func (t *Tally) recognise(k int8, proves Prover) {
	for i := range t.replies {
		v := &t.replies[i]
		if t.Has(message.ReplicaID(i)) && v.result == unproved && int(v.length) == len(t.results[k]) &&
			proves(message.ReplicaID(i), &v.proof, t.results[k]) {
			v.result = k
		}
	}
}

// A support is the set of replicas that agree on an answer, on one ground.
type support struct {
	all  uint32 // bit i: replica i gives the answer, or may have it for all that it tells
	told uint32 // replicas that give the result or prove it

	prepared bool // the ground is that they have prepared it, in the view and as the number that the answer names
}

func (s *support) add(i int, told bool) {
	s.all |= 1 << i
	if told {
		s.told |= 1 << i
	}
}

// decides reports whether an answer is certain: a quorum executed the request on one ground, and
// f+1 of it give or prove the result. One of these is correct, and executed what all correct
// replicas did.
func (s support) decides(n message.GroupSize) bool {
	return bits.OnesCount32(s.all) >= n.Quorum() && bits.OnesCount32(s.told) >= n.Weak()
}

// best returns the answer that is certain, or else the one that most replicas agree on, with the
// replicas that agree on one ground: all know that it has committed, or all have prepared it under
// one number in one view. Replicas on different grounds prove nothing together: what one prepared
// need not be what another saw commit, and a replica that must take its answer back may tell the
// next reader otherwise.
func (t *Tally) best() (v verdict, by support) {
	n := message.GroupSize(len(t.replies))
	var best *verdict
	var certain bool
	for i := range t.replies {
		if !t.Has(message.ReplicaID(i)) {
			continue
		}
		x := &t.replies[i]
		committed, prepared := t.agreeing(x)
		for _, s := range [2]support{committed, prepared} {
			c := x.result != unproved && s.decides(n)
			if c && !certain || c == certain && bits.OnesCount32(s.all) > bits.OnesCount32(by.all) {
				best, by, certain = x, s, c
			}
		}
		if certain && by.all == t.heard {
			break // all do, as mostly
		}
	}
	if best != nil {
		v = *best
	}
	return v, by
}

// agreeing returns the replicas that support the answer x: those that know that the request has
// committed, and those that have prepared it under the number and view of x.
func (t *Tally) agreeing(x *verdict) (committed, prepared support) {
	prepared.prepared = true
	for i := range t.replies {
		y := &t.replies[i]
		if !t.Has(message.ReplicaID(i)) || !y.supports(x) {
			continue
		}
		told := y.result != untold
		if t.committed&(1<<i) != 0 {
			committed.add(i, told)
		}
		if x.seq != 0 && y.seq == x.seq && y.prepared == x.prepared {
			prepared.add(i, told)
		}
	}
	return committed, prepared
}

// alike counts the replicas that support the answer x, on whatever ground.
func (t *Tally) alike(x *verdict) (n int) {
	for i := range t.replies {
		if t.Has(message.ReplicaID(i)) && t.replies[i].supports(x) {
			n++
		}
	}
	return n
}

// lastOf is the (f+1)-th largest last timestamp of those that say Superseded: a correct
// replica has seen one at least as large.
func (t *Tally) lastOf(weak int) message.Timestamp {
	var all []message.Timestamp
	for i, v := range t.replies {
		if t.Has(message.ReplicaID(i)) && v.outcome == message.Superseded {
			all = append(all, message.Timestamp(v.proof.Nonce))
		}
	}
	slices.Sort(all)
	return all[len(all)-weak]
}

// viewOf is the largest view that f+1 of the agreeing replies have reached: one alone
// must not be trusted (R-CLI-6).
func (t *Tally) viewOf(agreed verdict, weak int) message.View {
	var space [32]message.View
	all := space[:0]
	for i := range t.replies {
		if v := &t.replies[i]; t.Has(message.ReplicaID(i)) && v.supports(&agreed) {
			all = append(all, v.view)
		}
	}
	slices.Sort(all)
	return all[len(all)-weak]
}

// A Kind is the conclusion from the answers so far.
type Kind uint8

// The conclusions from the answers. All but Waiting, MustOrder and Apart are what a quorum says on
// one ground.
const (
	Waiting     Kind = iota // nothing yet
	Believed                // the request was executed, with this result
	Untold                  // it was executed, and the result, or f+1 proofs of it, are missing
	NotEnrolled             // the client is not enrolled
	Lost                    // it was executed, and its result was too long to be kept
	NotKept                 // it was executed, changed nothing, and its result was not kept
	Superseded              // the slot has executed a later request
	MustOrder               // the request cannot be answered as a read: f+1 say so, or no quorum can agree on it
	Apart                   // a quorum gives one answer, on different grounds
)

// A Finding is the conclusion from the answers so far, with its details.
type Finding struct {
	Kind   Kind
	Result []byte            // if Believed; the tally has given it up
	By     uint32            // bit i: replica i supports it
	Wrong  uint32            // if Believed: bit i: replica i gave another result on the same ground
	View   message.View      // if Believed: the largest that f+1 of these have reached
	Last   message.Timestamp // if Superseded: one that a correct replica has seen

	// The ground of the quorum. It has prepared the batch as number Seq of view Prepared, or, if
	// Seq is 0, it knows that the batch has committed.
	Seq      message.SeqNum
	Prepared message.View
}

// Find applies the reply rule: a quorum of replies on one ground for every operation, because reads
// take the one-round-trip path (R-CLI-3, R-OPT-RO-6), f+1 of them with a proof of the result and
// one with the result. Refusals need a quorum: correct replicas may be so far behind that they do
// not know the client yet, and f others may lie. f+1 do to say that a read must be ordered. The
// finding is put into x, which is zero: returned, it would be copied at every reply.
func (t *Tally) Find(readOnly bool, x *Finding) {
	n := message.GroupSize(len(t.replies))
	quorum, weak, heard := n.Quorum(), n.Weak(), bits.OnesCount32(t.heard)
	if heard < weak || !readOnly && heard < quorum {
		return
	}
	v, by := t.best()
	x.By = by.all
	if by.prepared {
		x.Seq, x.Prepared = v.seq, v.prepared
	}
	count := bits.OnesCount32(by.all)
	switch {
	case count >= quorum && v.outcome == message.Executed:
		if x.Kind = Untold; v.result >= 0 && bits.OnesCount32(by.told) >= weak {
			x.Kind, x.Result, x.View = Believed, t.results[v.result], t.viewOf(v, weak)
			x.Wrong = t.wrong(&v, by.prepared)
		}
	case count >= quorum && v.outcome == message.NotEnrolled:
		x.Kind = NotEnrolled
	case count >= quorum && v.outcome == message.Lost:
		x.Kind = Lost
	case count >= quorum && v.outcome == message.NotKept:
		x.Kind = NotKept
	case count >= quorum && v.outcome == message.Superseded:
		x.Kind, x.Last = Superseded, t.lastOf(weak)
	case readOnly && (count >= weak && v.outcome == message.NotReadOnly || count+int(n)-heard < quorum):
		x.Kind = MustOrder
	case !readOnly && v.outcome == message.Executed && t.alike(&v) >= quorum:
		x.Kind = Apart
	}
}

// wrong are the replicas that have given another result than v, which is certain, on the
// ground on which it is: no correct one does. Those that only prove one are left out, for
// a proof may be under a key that is replaced.
func (t *Tally) wrong(v *verdict, prepared bool) (all uint32) {
	if len(t.results) < 2 {
		return 0
	}
	for i := range t.replies {
		y := &t.replies[i]
		ground := t.committed&(1<<i) != 0
		if prepared {
			ground = y.seq == v.seq && y.prepared == v.prepared
		}
		if t.Has(message.ReplicaID(i)) && ground && y.outcome == message.Executed && y.version == v.version &&
			y.result >= 0 && y.result != v.result {
			all |= 1 << i
		}
	}
	return all
}

// Heard is the set of the replicas that have answered: bit i stands for replica i.
func (t *Tally) Heard() uint32 { return t.heard }
