// SPDX-License-Identifier: Apache-2.0

package message

import "encoding/binary"

// firstRecoverer is the client under whose number replica 0 asks for its recovery. The others
// follow, up to the highest number. A key's ClientOf is that high with a chance of 2^-59.
const firstRecoverer ClientID = 1<<64 - MaxReplicas

// RecovererOf is the client as which replica i sends its recovery requests. It is not enrolled: the
// group file has the replica's key.
func RecovererOf(i ReplicaID) ClientID { return firstRecoverer + ClientID(i) }

// Recoverer is the replica that asks for its recovery as this client; not ok if the
// client is none of these.
func (c ClientID) Recoverer() (i ReplicaID, ok bool) {
	if c < firstRecoverer {
		return 0, false
	}
	return ReplicaID(c - firstRecoverer), true
}

// Signs reports whether the client's requests are signed: the administrator's are, and a replica's
// recovery requests. The requests of all others carry MACs.
func (c ClientID) Signs() bool {
	_, recovers := c.Recoverer()
	return recovers || c == Administrator
}

// recoveryTag begins the signed bytes of a recovery request, so that they are never those of
// another signature of the key.
const recoveryTag = "bfs recovery v1"

// A Recovery is the request that a recovering replica has the group order [TOCS §5.2.3].
type Recovery struct {
	Replica ReplicaID
	Counter uint64 // of the replica's signatures: the request's timestamp
	Bound   SeqNum // H_M: it sends nothing for a higher number before a checkpoint at or above it is stable there
}

// AppendCovered appends the bytes that the replica's long-term key signs.
func (x Recovery) AppendCovered(b []byte, group Digest) []byte {
	b = append(append(append(b, recoveryTag...), group[:]...), byte(x.Replica))
	return appendU64(appendU64(b, x.Counter), uint64(x.Bound))
}

// Request is the recovery as a request to be ordered.
func (x Recovery) Request(signature []byte) *Request {
	return &Request{Client: RecovererOf(x.Replica), Timestamp: Timestamp(x.Counter), Replier: AnyReplier,
		Op: binary.LittleEndian.AppendUint64(nil, uint64(x.Bound)), Signature: signature}
}

// RecoveryOf is the recovery that a request asks for; not ok if it asks for none, or in another
// form than Request makes.
func RecoveryOf(m *Request) (x Recovery, ok bool) {
	i, ok := m.Client.Recoverer()
	if !ok || m.Slot != 0 || m.ReadOnly || m.Keep || m.Apart || len(m.Op) != 8 || m.Timestamp == 0 {
		return x, false
	}
	return Recovery{Replica: i, Counter: uint64(m.Timestamp), Bound: SeqNum(binary.LittleEndian.Uint64(m.Op))}, true
}

// A Recovered answers a recovery request: it was executed as part of a batch that has committed.
type Recovered struct {
	View      View      // the sender's
	Seq       SeqNum    // n_R, the batch
	Timestamp Timestamp // of the request
	From      ReplicaID
}

// Type implements Message.
func (*Recovered) Type() Type { return TypeRecovered }

// AppendBody implements Message.
func (m *Recovered) AppendBody(b []byte) []byte {
	return appendU64(appendU64(appendU64(b, uint64(m.View)), uint64(m.Seq)), uint64(m.Timestamp))
}

// AppendCovered implements Message.
func (m *Recovered) AppendCovered(b []byte) []byte {
	return m.AppendBody(append(b, byte(TypeRecovered)))
}

func (m *Recovered) decode(r *reader, _ *Limits) {
	m.View, m.Seq, m.Timestamp = r.view(), r.seqNum(), Timestamp(r.u64())
}
