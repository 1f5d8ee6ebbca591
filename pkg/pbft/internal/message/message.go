// SPDX-License-Identifier: Apache-2.0

package message

import "fmt"

// A Type is the first byte of every message.
type Type uint8

// The messages. Their numbers are on the wire and never change meaning.
const (
	TypeNewKey        Type = 1
	TypeRequest       Type = 2
	TypeReply         Type = 3
	TypePrePrepare    Type = 4
	TypePrepare       Type = 5
	TypeCommit        Type = 6
	TypeCheckpoint    Type = 7
	TypeStatus        Type = 8
	TypeFetch         Type = 9
	TypeData          Type = 10
	TypeViewChange    Type = 11
	TypeViewChangeAck Type = 12
	TypeNewView       Type = 13
	TypeForward       Type = 14
	TypeFetchBatch    Type = 15
	TypeBatchBody     Type = 16
	TypeDecided       Type = 17
	TypeQueryStable   Type = 18
	TypeReplyStable   Type = 19
	TypeRecovered     Type = 20
)

// String is the paper's name of the message.
func (t Type) String() string {
	names := [...]string{"", "NEW-KEY", "REQUEST", "REPLY", "PRE-PREPARE", "PREPARE", "COMMIT", "CHECKPOINT",
		"STATUS", "FETCH", "DATA", "VIEW-CHANGE", "VIEW-CHANGE-ACK", "NEW-VIEW", "FORWARD",
		"FETCH-BATCH", "BATCH", "DECIDED",
		"QUERY-STABLE", "REPLY-STABLE", "RECOVERED"}
	if int(t) < len(names) && t != 0 {
		return names[t]
	}
	return fmt.Sprintf("message type %d", uint8(t))
}

// A Message is one of the protocol's messages. Which principal sent it is not in its body: the
// connection's session says so, and auth writes it into From when the MAC has been checked.
type Message interface {
	Type() Type
	// AppendBody appends the canonical encoding without the type byte and without any
	// authenticator.
	AppendBody(b []byte) []byte
	// AppendCovered appends the bytes that a MAC protects: the type and a header of fixed size, in
	// which a digest stands for the variable part [TOCS §7.1].
	AppendCovered(b []byte) []byte
}

// Covered returns the bytes that a MAC protects, of a message whose encoding with its type byte is
// given. For most messages they are the encoding or its beginning; for the others they are made in
// scratch.
func Covered(m Message, encoded, scratch []byte) []byte {
	switch m := m.(type) {
	case *Prepare, *Commit, *Checkpoint, *Status:
		return encoded
	case *Reply:
		if m.covered > 0 {
			return encoded[:m.covered]
		}
	}
	return m.AppendCovered(scratch[:0])
}

// Limits bound what a decoder accepts; they are the group's, the same at every replica.
type Limits struct {
	Replicas     int // n
	Operation    int // bytes of one request's operation
	BatchBytes   int // bytes of all operations of a batch
	BatchCount   int // requests in a batch
	Choice       int // bytes a primary may choose
	Reply        int // bytes of a result
	WindowLength int // L: numbers between the water marks
}

// A Prepare is a backup's vote for a proposal [TOCS §4.3].
type Prepare struct {
	View    View
	Seq     SeqNum
	Digest  Digest
	Commits []SeqNum // the sender's COMMITs for these numbers of the same view ride along (R-OPT-PC)
	From    ReplicaID
}

// MaxCommits bounds the COMMITs that ride on one message.
const MaxCommits = 8

func appendCommits(b []byte, commits []SeqNum) []byte {
	b = append(b, byte(len(commits)))
	for _, n := range commits {
		b = appendU64(b, uint64(n))
	}
	return b
}

func (r *reader) commits(all []SeqNum) []SeqNum {
	for range r.count(int(r.u8()), MaxCommits) {
		all = append(all, r.seqNum())
	}
	return all
}

// A Commit says that its sender holds a prepared certificate for (view, seq). It carries no
// digest: at most one can have prepared [TOCS §4.3].
type Commit struct {
	View View
	Seq  SeqNum
	From ReplicaID
}

// A Checkpoint is a replica's statement of its state after executing Seq [TOCS §4.4].
type Checkpoint struct {
	Seq    SeqNum
	Digest Digest
	Stable bool // the sender holds a stable certificate for it
	From   ReplicaID
}

// A Status tells the others where its sender stands, so that they send again what it
// lacks (R-RTX-1). Bit k of Prepared and Committed speaks of Base()+1+k. While its view
// is not active the sender says instead whose VIEW-CHANGEs for the view it has (R-RTX-3).
type Status struct {
	View         View
	Active       bool
	Low          SeqNum // h, the sender's last stable checkpoint
	LastExecuted SeqNum
	Prepared     Bitmap
	Committed    Bitmap
	ViewChanges  uint32 // bit i: has replica i's VIEW-CHANGE, and may use it
	HasNewView   bool
	SlowPrimary  bool   // the primary of the sender's view is slow (R-HD-5)
	SilentUntil  SeqNum // the sender votes once a checkpoint from here on is stable there; 0: it votes
	From         ReplicaID
}

// Base is the number that the bitmaps count from.
func (m *Status) Base() SeqNum { return max(m.Low, m.LastExecuted) }

// Type implements Message.
func (*Prepare) Type() Type { return TypePrepare }

// AppendBody implements Message.
func (m *Prepare) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.View))
	b = appendU64(b, uint64(m.Seq))
	b = append(b, m.Digest[:]...)
	return appendCommits(b, m.Commits)
}

// AppendCovered implements Message.
func (m *Prepare) AppendCovered(b []byte) []byte { return m.AppendBody(append(b, byte(TypePrepare))) }

func (m *Prepare) decode(r *reader, _ *Limits) {
	m.View, m.Seq, m.Digest, m.Commits = r.view(), r.seqNum(), r.digest(), r.commits(m.Commits)
}

// Type implements Message.
func (*Commit) Type() Type { return TypeCommit }

// AppendBody implements Message.
func (m *Commit) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.View))
	return appendU64(b, uint64(m.Seq))
}

// AppendCovered implements Message.
func (m *Commit) AppendCovered(b []byte) []byte { return m.AppendBody(append(b, byte(TypeCommit))) }

func (m *Commit) decode(r *reader, _ *Limits) { m.View, m.Seq = r.view(), r.seqNum() }

// Type implements Message.
func (*Checkpoint) Type() Type { return TypeCheckpoint }

// AppendBody implements Message.
func (m *Checkpoint) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.Seq))
	b = append(b, m.Digest[:]...)
	return appendBool(b, m.Stable)
}

// AppendCovered implements Message.
func (m *Checkpoint) AppendCovered(b []byte) []byte {
	return m.AppendBody(append(b, byte(TypeCheckpoint)))
}

func (m *Checkpoint) decode(r *reader, _ *Limits) {
	m.Seq, m.Digest, m.Stable = r.seqNum(), r.digest(), r.bool()
}

// Type implements Message.
func (*Status) Type() Type { return TypeStatus }

// AppendBody implements Message.
func (m *Status) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.View))
	b = appendBool(b, m.Active)
	b = appendU64(b, uint64(m.Low))
	b = appendU64(b, uint64(m.LastExecuted))
	b = m.Prepared.append(b)
	b = m.Committed.append(b)
	b = appendU32(b, m.ViewChanges)
	b = appendBool(b, m.HasNewView)
	b = appendBool(b, m.SlowPrimary)
	return appendU64(b, uint64(m.SilentUntil))
}

// AppendCovered implements Message.
func (m *Status) AppendCovered(b []byte) []byte { return m.AppendBody(append(b, byte(TypeStatus))) }

func (m *Status) decode(r *reader, lim *Limits) {
	m.View, m.Active = r.view(), r.bool()
	m.Low, m.LastExecuted = r.seqNum(), r.seqNum()
	m.Prepared.decode(r, lim.WindowLength)
	m.Committed.decode(r, lim.WindowLength)
	m.ViewChanges, m.HasNewView, m.SlowPrimary = r.u32(), r.bool(), r.bool()
	m.SilentUntil = r.seqNum()
}

// A Bitmap is a small set of positions in the window.
type Bitmap []byte

// Get reports whether position k is in the set.
func (m Bitmap) Get(k int) bool { return k >= 0 && k/8 < len(m) && m[k/8]&(1<<(k%8)) != 0 }

// Set returns the set with position k in it.
func (m Bitmap) Set(k int) Bitmap {
	for len(m) <= k/8 {
		m = append(m, 0)
	}
	m[k/8] |= 1 << (k % 8)
	return m
}

func (m Bitmap) append(b []byte) []byte {
	b = appendU16(b, uint16(len(m)))
	return append(b, m...)
}

func (m *Bitmap) decode(r *reader, window int) {
	*m = append((*m)[:0], r.bytes(r.count(int(r.u16()), (window+7)/8))...)
	if n := len(*m); n > 0 && (*m)[n-1] == 0 {
		r.fail("a bitmap ends in a zero byte")
	}
}

// Attribute writes the sending replica into a message whose body does not name it: messages that
// only replicas send, and whose MAC proves the sender. A VIEW-CHANGE names its sender, and another
// replica may relay it. Attribute returns false for any other message.
func Attribute(m Message, from ReplicaID) bool {
	switch m := m.(type) {
	case *PrePrepare:
		m.From = from
	case *Prepare:
		m.From = from
	case *Commit:
		m.From = from
	case *Checkpoint:
		m.From = from
	case *Status:
		m.From = from
	case *Fetch:
		m.From = from
	case *Data:
		m.From = from
	case *ViewChange:
		m.Relayed = m.From != from
	case *ViewChangeAck:
		m.From = from
	case *NewView:
		m.From = from
	case *Forward:
		m.From = from
	case *FetchBatch:
		m.From = from
	case *BatchBody:
		m.From = from
	case *Decided:
		m.From = from
	case *QueryStable:
		m.From = from
	case *ReplyStable:
		m.From = from
	case *Recovered:
		m.From = from
	default:
		return false
	}
	return true
}
