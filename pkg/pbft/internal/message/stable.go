// SPDX-License-Identifier: Apache-2.0

package message

// A QueryStable asks a replica how far it has come [TOCS §5.2.3], and where the asking
// client's slots stand.
type QueryStable struct {
	Nonce uint64    // comes back in the answer
	From  ReplicaID // of a replica that recovers; clients ask too
}

// Type implements Message.
func (*QueryStable) Type() Type { return TypeQueryStable }

// AppendBody implements Message.
func (m *QueryStable) AppendBody(b []byte) []byte { return appendU64(b, m.Nonce) }

// AppendCovered implements Message.
func (m *QueryStable) AppendCovered(b []byte) []byte {
	return m.AppendBody(append(b, byte(TypeQueryStable)))
}

func (m *QueryStable) decode(r *reader, _ *Limits) { m.Nonce = r.u64() }

// A ReplyStable answers a QUERY-STABLE.
type ReplyStable struct {
	Nonce  uint64
	Seq    SeqNum
	Digest Digest
	// View is the sender's. For a replica that asks with its own key it is the view that
	// this replica has said it left for, if that is higher.
	View   View
	Latest Timestamp // the highest of the asking client's slots: it goes on above

	Taken    SeqNum // the last checkpoint that its state has come to, stable or not
	Prepared SeqNum // the highest number that has prepared at it, or was executed
	From     ReplicaID
}

// Type implements Message.
func (*ReplyStable) Type() Type { return TypeReplyStable }

// AppendBody implements Message.
func (m *ReplyStable) AppendBody(b []byte) []byte {
	b = appendU64(appendU64(b, m.Nonce), uint64(m.Seq))
	b = appendU64(append(b, m.Digest[:]...), uint64(m.View))
	return appendU64(appendU64(appendU64(b, uint64(m.Latest)), uint64(m.Taken)), uint64(m.Prepared))
}

// AppendCovered implements Message.
func (m *ReplyStable) AppendCovered(b []byte) []byte {
	return m.AppendBody(append(b, byte(TypeReplyStable)))
}

func (m *ReplyStable) decode(r *reader, _ *Limits) {
	m.Nonce, m.Seq, m.Digest, m.View, m.Latest = r.u64(), r.seqNum(), r.digest(), r.view(), Timestamp(r.u64())
	m.Taken, m.Prepared = r.seqNum(), r.seqNum()
}
