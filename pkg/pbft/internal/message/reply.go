// SPDX-License-Identifier: Apache-2.0

package message

import "encoding/binary"

// Outcome is what a REPLY says beside its result.
type Outcome uint8

// The outcomes.
const (
	// Executed: the result is what the operation returned.
	Executed Outcome = iota
	// NotKept: the operation was executed and changed nothing, so its result was not kept
	// (R-OUR-14). It may be asked again under a new timestamp.
	NotKept
	// Lost: the operation was executed, and its result is too long to be kept.
	Lost
	// Superseded: a later request of the slot was executed; Result is the last timestamp, 8 bytes.
	Superseded
	// NotReadOnly: the service would have to write to answer this read-only request.
	NotReadOnly
	// NotEnrolled: the client is not in the group's state, or was revoked.
	NotEnrolled
	// Missing: the request came without its operation, which is not here. It is to be sent whole.
	Missing
	outcomes
)

// ShortResult is the length in bytes up to which every replica sends the whole result. A longer one
// is sent by one and proved by some [TOCS §6.1].
const ShortResult = 256

// A Proof is a replica's MAC of a long result, for the client that asked: the owner of
// the result and the key can tell that this replica computed the same result. It takes
// the place of the paper's result digest, which costs four times as much to compute.
type Proof struct {
	Nonce uint64
	Tag   [MACSize]byte
}

// An Answer is the outcome of one request.
type Answer struct {
	Slot      Slot
	Timestamp Timestamp
	Outcome   Outcome
	ReadOnly  bool   // answers the read-only form of the request (R-OPT-RO-5)
	Full      bool   // Result is here
	Proved    bool   // if Long: Proof is here, as if Full; else the reply says only that the request was executed
	Length    int    // of the result
	Result    []byte // if Full
	Proof     Proof  // if Proved

	// Version is, of the result of a read, the number of the last batch in the sender's state that
	// changed anything that the result depends on, or of a later one: the result is what a read
	// gives right after that batch. Results of different versions are never counted together,
	// however equal they are (R-OUR-22).
	Version SeqNum
}

// Long reports whether the result is sent by one replica only, and proved by some.
func (a *Answer) Long() bool { return a.Length > ShortResult }

// A Reply is one replica's answers to requests of one client that stand on one ground [TOCS §4.2]:
// most often all of the client's that were in one batch.
//
// They stand on one of two grounds, or on both. With a number in Seq its sender says that
// the requests were executed in the batch that is prepared there as number Seq of view
// View. If 2f+1 replicas say so, the batch is certain to commit. Without Tentative the
// sender knows that it has committed. The two are never counted together (R-OPT-TE-2).
type Reply struct {
	View      View   // in which it prepared; with Seq 0, the sender's
	Seq       SeqNum // 0: executed in a batch that need not be prepared at the sender
	Tentative bool   // the batch is not known to have committed
	From      ReplicaID
	Answers   []Answer // if the last one is long and full, its result comes behind all that the MAC covers

	covered int // bytes of the encoding that the MAC covers
}

const (
	replyHeader  = 8 + 8 + 1 + 2
	answerHeader = 2 + 8 + 1 + 1 + 4
	versionSize  = 8
	proofSize    = 8 + MACSize

	// MaxAnswers bounds the answers of one REPLY.
	MaxAnswers = 512
)

// LateReply reports whether an encoded message is a REPLY whose answers no call waits for. It
// checks nothing else.
func LateReply(b []byte, waited func(Slot, Timestamp) bool) bool {
	if len(b) < 1+replyHeader || Type(b[0]) != TypeReply {
		return false
	}
	n := int(binary.LittleEndian.Uint16(b[replyHeader-1:]))
	b = b[1+replyHeader:]
	for range n {
		if len(b) < answerHeader {
			return false
		}
		length := int(binary.LittleEndian.Uint32(b[12:]))
		switch {
		case length <= ShortResult:
		case b[11]&answerProved != 0:
			length = proofSize
		default:
			length = 0
		}
		if b[11]&answerReadOnly != 0 {
			length += versionSize
		}
		if waited(Slot(binary.LittleEndian.Uint16(b)), Timestamp(binary.LittleEndian.Uint64(b[2:]))) ||
			len(b) < answerHeader+length {
			return false
		}
		b = b[answerHeader+length:]
	}
	return n > 0
}

const (
	answerReadOnly = 1 << iota
	answerFull
	answerProved
)

// Type implements Message.
func (*Reply) Type() Type { return TypeReply }

// AppendBody implements Message.
func (m *Reply) AppendBody(b []byte) []byte {
	b = m.AppendHead(b)
	if n := len(m.Answers); n > 0 && m.Answers[n-1].Long() && m.Answers[n-1].Full {
		b = append(b, m.Answers[n-1].Result...)
	}
	return b
}

// AppendHead appends the encoding without the long result that may end it.
func (m *Reply) AppendHead(b []byte) []byte {
	b = appendU64(b, uint64(m.View))
	b = appendU64(b, uint64(m.Seq))
	b = appendBool(b, m.Tentative)
	b = appendU16(b, uint16(len(m.Answers)))
	for i := range m.Answers {
		b = m.Answers[i].append(b)
	}
	return b
}

func (a *Answer) append(b []byte) []byte {
	b = appendU16(b, uint16(a.Slot))
	b = appendU64(b, uint64(a.Timestamp))
	flags := byte(0)
	if a.ReadOnly {
		flags |= answerReadOnly
	}
	if a.Full {
		flags |= answerFull
	}
	if a.Proved {
		flags |= answerProved
	}
	b = append(b, byte(a.Outcome), flags)
	b = appendU32(b, uint32(a.Length))
	if a.ReadOnly {
		b = appendU64(b, uint64(a.Version))
	}
	switch {
	case !a.Long():
		return append(b, a.Result...)
	case !a.Proved:
		return b
	}
	b = appendU64(b, a.Proof.Nonce)
	return append(b, a.Proof.Tag[:]...)
}

// AppendCovered implements Message: all but the long result, which has a proof of its own.
func (m *Reply) AppendCovered(b []byte) []byte { return m.AppendHead(append(b, byte(TypeReply))) }

func (m *Reply) decode(r *reader, lim *Limits) {
	all := len(r.b)
	m.View, m.Seq, m.Tentative = r.view(), r.seqNum(), r.bool()
	n := r.count(int(r.u16()), MaxAnswers)
	if n*answerHeader > len(r.b) {
		r.fail("it ends too soon")
		return
	}
	if m.Tentative && m.Seq == 0 {
		r.fail("a tentative reply names no number")
	}
	var last *Answer
	for range n {
		if last != nil && last.Long() && last.Full {
			r.fail("a long result is not its last")
		}
		m.Answers = append(m.Answers, Answer{})
		last = &m.Answers[len(m.Answers)-1]
		last.decode(r, lim)
	}
	m.covered = 1 + all - len(r.b)
	if last != nil && last.Long() && last.Full {
		last.Result = r.bytes(last.Length)
	}
}

func (a *Answer) decode(r *reader, lim *Limits) {
	a.Slot, a.Timestamp, a.Outcome = Slot(r.u16()), Timestamp(r.u64()), Outcome(r.u8())
	flags := r.u8()
	if a.Outcome >= outcomes || flags&^(answerReadOnly|answerFull|answerProved) != 0 {
		r.fail("unknown outcome or flags")
	}
	a.ReadOnly, a.Full, a.Proved = flags&answerReadOnly != 0, flags&answerFull != 0, flags&answerProved != 0
	a.Length = r.count(int(r.u32()), lim.Reply)
	if a.ReadOnly {
		a.Version = r.seqNum()
	}
	switch {
	case a.Proved && !a.Long(), a.Long() && a.Full && !a.Proved:
		r.fail("a proof of a short result, or none of a long one that is here")
	case a.Proved:
		a.Proof.Nonce = r.u64()
		copy(a.Proof.Tag[:], r.bytes(MACSize))
	case a.Full:
		a.Result = r.bytes(a.Length)
	case !a.Long():
		r.fail("a short result is not there")
	}
}

// A ReplyWriter encodes a REPLY answer by answer, so that no result is kept before it is
// sent. Its zero value is ready.
type ReplyWriter struct {
	b []byte
	n int
}

// Begin starts a REPLY on a ground.
func (w *ReplyWriter) Begin(v View, n SeqNum, tentative bool) {
	w.n = 0
	w.b = appendU64(append(w.b[:0], byte(TypeReply)), uint64(v))
	w.b = appendU64(w.b, uint64(n))
	w.b = appendU16(appendBool(w.b, tentative), 0)
}

// Add appends an answer. After an answer that is long and full only its result may
// follow, which the caller sends.
func (w *ReplyWriter) Add(a *Answer) {
	w.b = a.append(w.b)
	w.n++
	binary.LittleEndian.PutUint16(w.b[replyHeader-1:], uint16(w.n))
}

// Clear forgets all answers.
func (w *ReplyWriter) Clear() { w.n = 0 }

// Len is how many answers there are.
func (w *ReplyWriter) Len() int { return w.n }

// Head is the encoding of all that the MAC covers.
func (w *ReplyWriter) Head() []byte { return w.b }
