// SPDX-License-Identifier: Apache-2.0

package message

import (
	"crypto/sha256"
	"slices"
)

// Prepared is a tuple of P or Q: digest d at number n, last prepared or pre-prepared in view v
// [TOCS §4.5].
type Prepared struct {
	Seq    SeqNum
	Digest Digest
	View   View
}

// CheckpointID names a checkpoint by number and root.
type CheckpointID struct {
	Seq    SeqNum
	Digest Digest
}

// A ViewChange says that its sender has left all views below View, and what it must carry
// into it: the stable checkpoint h, every checkpoint it holds, P and Q [TOCS §4.5]. No
// other message travels in it.
type ViewChange struct {
	View        View
	Low         SeqNum
	Checkpoints []CheckpointID // C, rising
	P           []Prepared     // by number, rising, one for each
	Q           []Prepared     // by number, rising; within one by digest, one for each
	From        ReplicaID      // in the body, for the new primary relays it

	// Relayed: it came from another than From, so that its digest must be vouched for. It
	// never travels.
	Relayed bool
}

// maxPreprepared bounds the entries of Q in proportion to the window (R-VC-7).
const maxPreprepared = 16

// MaxViewChange is the length of the longest VIEW-CHANGE for a window, about.
func MaxViewChange(window int) int {
	return (window+1)*(8+DigestSize) + window*(1+maxPreprepared)*preparedSize + 64
}

// Type implements Message.
func (*ViewChange) Type() Type { return TypeViewChange }

// AppendBody implements Message.
func (m *ViewChange) AppendBody(b []byte) []byte {
	b = append(b, byte(m.From))
	b = appendU64(b, uint64(m.View))
	b = appendU64(b, uint64(m.Low))
	b = appendU16(b, uint16(len(m.Checkpoints)))
	for _, c := range m.Checkpoints {
		b = appendU64(b, uint64(c.Seq))
		b = append(b, c.Digest[:]...)
	}
	b = appendPrepared(b, m.P)
	return appendPrepared(b, m.Q)
}

func appendPrepared(b []byte, all []Prepared) []byte {
	b = appendU32(b, uint32(len(all)))
	for _, p := range all {
		b = appendU64(b, uint64(p.Seq))
		b = append(b, p.Digest[:]...)
		b = appendU64(b, uint64(p.View))
	}
	return b
}

// Digest names the message in acks and in NEW-VIEW. It covers the body and no
// authenticator, so that copies for different receivers have one digest (R-VC-15).
func (m *ViewChange) Digest() Digest {
	return sha256.Sum256(m.AppendBody([]byte("bfs view-change v1\x00")))
}

// AppendCovered implements Message.
func (m *ViewChange) AppendCovered(b []byte) []byte {
	d := m.Digest()
	return append(append(b, byte(TypeViewChange)), d[:]...)
}

func (m *ViewChange) decode(r *reader, lim *Limits) {
	m.From, m.View, m.Low = ReplicaID(r.u8()), r.view(), r.seqNum()
	if int(m.From) >= lim.Replicas {
		r.fail("no such replica")
	}
	n := r.count(int(r.u16()), lim.WindowLength+1)
	for range n {
		c := CheckpointID{r.seqNum(), r.digest()}
		if k := len(m.Checkpoints); k > 0 && m.Checkpoints[k-1].Seq >= c.Seq {
			r.fail("its checkpoints do not rise")
			return
		}
		m.Checkpoints = append(m.Checkpoints, c)
	}
	m.P = r.prepared(lim.WindowLength)
	m.Q = r.prepared(lim.WindowLength * maxPreprepared)
}

const preparedSize = 8 + DigestSize + 8

func (r *reader) prepared(bound int) (all []Prepared) {
	n := r.count(int(r.u32()), bound)
	if n*preparedSize > len(r.b) {
		r.fail("it ends too soon")
		return nil
	}
	for range n {
		all = append(all, Prepared{r.seqNum(), r.digest(), r.view()})
	}
	return all
}

// A ViewChangeAck tells the new primary that its sender has an authentic VIEW-CHANGE of replica Of
// with this digest: a MAC convinces no third party, but 2f+1 acks do [TOCS §4.5].
type ViewChangeAck struct {
	View   View
	Of     ReplicaID
	Digest Digest
	From   ReplicaID
}

// Type implements Message.
func (*ViewChangeAck) Type() Type { return TypeViewChangeAck }

// AppendBody implements Message.
func (m *ViewChangeAck) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.View))
	b = append(b, byte(m.Of))
	return append(b, m.Digest[:]...)
}

// AppendCovered implements Message.
func (m *ViewChangeAck) AppendCovered(b []byte) []byte {
	return m.AppendBody(append(b, byte(TypeViewChangeAck)))
}

func (m *ViewChangeAck) decode(r *reader, lim *Limits) {
	m.View, m.Of, m.Digest = r.view(), ReplicaID(r.u8()), r.digest()
	if int(m.Of) >= lim.Replicas {
		r.fail("no such replica")
	}
}

// A NewView begins a view: V names the VIEW-CHANGEs that the new primary decided by,
// Checkpoint and Chosen are its X: the checkpoint to begin from, and for each number above it,
// up to the last that needs one, the digest to be agreed there again [TOCS §4.5; R-VC-26].
type NewView struct {
	View       View
	V          []Vouched // by replica, rising
	Checkpoint CheckpointID
	Chosen     []Digest  // for Checkpoint.Seq+1, +2, ...
	From       ReplicaID // that brought it: the primary, or one that tells a replica which the primary does not
}

// Vouched names one replica's VIEW-CHANGE.
type Vouched struct {
	From   ReplicaID
	Digest Digest
}

// Equal reports whether two NEW-VIEWs say the same, whoever brought them.
func (m *NewView) Equal(other *NewView) bool {
	return m.View == other.View && m.Checkpoint == other.Checkpoint && slices.Equal(m.V, other.V) &&
		slices.Equal(m.Chosen, other.Chosen)
}

// Type implements Message.
func (*NewView) Type() Type { return TypeNewView }

// AppendBody implements Message.
func (m *NewView) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.View))
	b = append(b, byte(len(m.V)))
	for _, v := range m.V {
		b = append(append(b, byte(v.From)), v.Digest[:]...)
	}
	b = appendU64(b, uint64(m.Checkpoint.Seq))
	b = append(b, m.Checkpoint.Digest[:]...)
	b = appendU32(b, uint32(len(m.Chosen)))
	for _, d := range m.Chosen {
		b = append(b, d[:]...)
	}
	return b
}

// AppendCovered implements Message.
func (m *NewView) AppendCovered(b []byte) []byte {
	d := sha256.Sum256(m.AppendBody([]byte("bfs new-view v1\x00")))
	return append(append(b, byte(TypeNewView)), d[:]...)
}

func (m *NewView) decode(r *reader, lim *Limits) {
	m.View = r.view()
	for range r.count(int(r.u8()), lim.Replicas) {
		v := Vouched{ReplicaID(r.u8()), r.digest()}
		if k := len(m.V); int(v.From) >= lim.Replicas || k > 0 && m.V[k-1].From >= v.From {
			r.fail("its V does not rise")
			return
		}
		m.V = append(m.V, v)
	}
	m.Checkpoint = CheckpointID{r.seqNum(), r.digest()}
	n := r.count(int(r.u32()), lim.WindowLength)
	if n*DigestSize > len(r.b) {
		r.fail("it ends too soon")
		return
	}
	for range n {
		m.Chosen = append(m.Chosen, r.digest())
	}
}

// A Forward says that its sender holds a request with a good MAC that the primary has not
// proposed for a while. f+1 of them make the request authentic everywhere; 2f+1 make
// replicas wait for it (R-OUR-11).
type Forward struct {
	Client    ClientID
	Slot      Slot
	Timestamp Timestamp
	Digest    Digest
	Executed  bool // the sender does not wait: it answers a replica that does
	From      ReplicaID
}

// Type implements Message.
func (*Forward) Type() Type { return TypeForward }

// AppendBody implements Message.
func (m *Forward) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.Client))
	b = appendU16(b, uint16(m.Slot))
	b = appendU64(b, uint64(m.Timestamp))
	b = append(b, m.Digest[:]...)
	return appendBool(b, m.Executed)
}

// AppendCovered implements Message.
func (m *Forward) AppendCovered(b []byte) []byte { return m.AppendBody(append(b, byte(TypeForward))) }

func (m *Forward) decode(r *reader, _ *Limits) {
	m.Client, m.Slot, m.Timestamp, m.Digest = ClientID(r.u64()), Slot(r.u16()), Timestamp(r.u64()), r.digest()
	m.Executed = r.bool()
}

// A FetchBatch asks anyone for batches by digest (R-RTX-7).
type FetchBatch struct {
	Digests []Digest
	From    ReplicaID
}

// MaxFetchBatch is how many batches one FETCH-BATCH asks for at most.
const MaxFetchBatch = 16

// Type implements Message.
func (*FetchBatch) Type() Type { return TypeFetchBatch }

// AppendBody implements Message.
func (m *FetchBatch) AppendBody(b []byte) []byte {
	b = append(b, byte(len(m.Digests)))
	for _, d := range m.Digests {
		b = append(b, d[:]...)
	}
	return b
}

// AppendCovered implements Message.
func (m *FetchBatch) AppendCovered(b []byte) []byte {
	return m.AppendBody(append(b, byte(TypeFetchBatch)))
}

func (m *FetchBatch) decode(r *reader, _ *Limits) {
	for range r.count(int(r.u8()), MaxFetchBatch) {
		m.Digests = append(m.Digests, r.digest())
	}
}

// A BatchBody is a batch by itself. It is believed for its digest, whoever sends it.
type BatchBody struct {
	PrePrepare // its view and number mean nothing here
}

// Type implements Message.
func (*BatchBody) Type() Type { return TypeBatchBody }

// AppendCovered implements Message.
func (m *BatchBody) AppendCovered(b []byte) []byte {
	return append(append(b, byte(TypeBatchBody)), m.Digest[:]...)
}

func (m *BatchBody) decode(r *reader, lim *Limits) {
	if m.PrePrepare.decode(r, lim); !m.Batch.Complete() {
		r.fail("an operation is not there")
	}
}

// A Decided says that the batch with this digest committed at its sender. A replica that a faulty
// primary leaves out takes f+1 of them as the decision: one is a correct replica's (R-HD-15).
type Decided struct {
	Seq    SeqNum
	Digest Digest
	From   ReplicaID
}

// Type implements Message.
func (*Decided) Type() Type { return TypeDecided }

// AppendBody implements Message.
func (m *Decided) AppendBody(b []byte) []byte {
	return append(appendU64(b, uint64(m.Seq)), m.Digest[:]...)
}

// AppendCovered implements Message.
func (m *Decided) AppendCovered(b []byte) []byte { return m.AppendBody(append(b, byte(TypeDecided))) }

func (m *Decided) decode(r *reader, _ *Limits) { m.Seq, m.Digest = r.seqNum(), r.digest() }
