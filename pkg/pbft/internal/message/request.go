// SPDX-License-Identifier: Apache-2.0

package message

import "crypto/sha256"

// MACSize is the length of a tag on the wire: the whole of an AES-GMAC tag.
const MACSize = 16

// An Authenticator is the paper's α: one MAC for each replica, all under one nonce, of which
// a receiver checks only its own entry [TOCS §2].
type Authenticator struct {
	Nonce uint64
	Tags  []byte // MACSize bytes for each replica, in order; all zeros where the sender has no key
}

// Tag is the entry for replica i, nil if there is none.
func (a *Authenticator) Tag(i ReplicaID) []byte {
	if end := (int(i) + 1) * MACSize; end <= len(a.Tags) {
		return a.Tags[end-MACSize : end]
	}
	return nil
}

// SignatureSize is the length of an Ed25519 signature.
const SignatureSize = 64

// A Request is a client's authenticated request to run an operation [TOCS §4.2]. Its
// authenticator travels with it, because backups check it too when the primary proposes
// the request.
type Request struct {
	Client    ClientID
	Slot      Slot
	Timestamp Timestamp
	ReadOnly  bool      // try the one-round-trip path; not part of the digest
	Replier   ReplicaID // the replica that returns the full result, AnyReplier for all; not part of the digest
	Provers   uint32    // bit i: replica i proves an ordered result it does not return in full; not digested
	Keep      bool      // keep the result even if nothing changed: it was asked for in vain (R-OUR-14)
	Apart     bool      // its client sent it to all: a proposal need not hold the operation; not digested
	Op        []byte    // nil in a stub

	// Auth is the proof of origin, unless the request is the administrator's, or a replica's that
	// recovers: those are signed (R-OUR-12) and Signature is set.
	Auth      Authenticator
	Signature []byte

	// PassedBy is the replica that passed it on. It never travels.
	PassedBy ReplicaID
	// Authentic: this replica has checked the sender's MAC or signature. It never travels.
	Authentic bool
	// Cost is what running it costs at most, in bytes copied; 0: not known yet. It never travels:
	// each replica computes it from the operation.
	Cost int

	// hash is the digest of a long operation, or of the whole request if that is short. It is zero
	// until it is asked for; the decoder asks for a long operation's.
	hash   Digest
	blocks []Digest // of Op, see Blocks; empty or all of them
	absent int      // in a stub, the length of the operation; else 0
}

// RequestKey names a request among all requests of a group.
type RequestKey struct {
	Client ClientID
	Slot   Slot
}

// Key is the (client, slot) of the request.
func (m *Request) Key() RequestKey { return RequestKey{m.Client, m.Slot} }

const (
	flagReadOnly = 1 << iota
	flagSigned
	flagKeep
	flagApart
	flagStub // how it travels, and so not covered by its MAC
)

func (m *Request) flags() (f byte) {
	if m.ReadOnly {
		f |= flagReadOnly
	}
	if m.Signature != nil {
		f |= flagSigned
	}
	if m.Keep {
		f |= flagKeep
	}
	if m.Apart {
		f |= flagApart
	}
	return f
}

// Type implements Message.
func (*Request) Type() Type { return TypeRequest }

const (
	requestHeader = 8 + 2 + 8 + 1 + 1 + 4
	proversSize   = 4 // behind the header
)

// Size is the length of AppendBody's encoding in bytes.
func (m *Request) Size() int {
	return requestHeader + proversSize + len(m.Op) + len(m.stubDigest()) + 8 + 1 + len(m.Auth.Tags) + len(m.Signature)
}

// AppendBody implements Message.
func (m *Request) AppendBody(b []byte) []byte {
	flags := m.flags()
	if m.IsStub() {
		flags |= flagStub
	}
	b = m.appendHeader(b, flags, m.Replier)
	b = appendU32(b, m.Provers)
	b = append(b, m.Op...)
	b = append(b, m.stubDigest()...)
	if m.Signature != nil {
		return append(b, m.Signature...)
	}
	b = appendU64(b, m.Auth.Nonce)
	b = append(b, byte(len(m.Auth.Tags)/MACSize))
	return append(b, m.Auth.Tags...)
}

// AppendCovered implements Message: replier, provers and flags stand beside the essence,
// because the digest leaves them out.
func (m *Request) AppendCovered(b []byte) []byte {
	b = append(b, byte(TypeRequest), m.flags(), byte(m.Replier))
	return m.appendEssence(appendU32(b, m.Provers))
}

// appendEssence appends the request's essence: its header, with replier and flags, but for Keep, as
// zeros (R-OPT-IX-3), then the operation, or the digest of a long one. The header holds the
// operation's length, so that no two requests have one essence.
func (m *Request) appendEssence(b []byte) []byte {
	b = m.appendHeader(b, m.flags()&flagKeep, 0)
	if m.Length() <= ShortOperation {
		return append(b, m.Op...)
	}
	d := m.operation()
	return append(b, d[:]...)
}

func (m *Request) appendHeader(b []byte, flags byte, replier ReplicaID) []byte {
	b = appendU64(b, uint64(m.Client))
	b = appendU16(b, uint16(m.Slot))
	b = appendU64(b, uint64(m.Timestamp))
	b = append(b, flags, byte(replier))
	return appendU32(b, uint32(m.Length()))
}

// Length is that of the operation, whether it is here or not.
func (m *Request) Length() int { return len(m.Op) + m.absent }

// SetOperation makes op the request's operation, and d its OperationDigest. A caller that
// sends the request again, or holds a lock that others wait for, has computed d before.
func (m *Request) SetOperation(op []byte, d Digest) { m.Op, m.hash, m.blocks, m.absent = op, d, nil, 0 }

// operation is the digest of a long operation.
func (m *Request) operation() Digest {
	if m.hash.IsZero() {
		m.hash = digestOperation(m.Op, nil)
	}
	return m.hash
}

// A stub is a request without its operation, which is long, so that its digest stands for it in all
// that is MAC'd and hashed. Proposals hold stubs of what clients have sent to every replica [TOCS
// §6.1; R-OPT-BR-1], and a client that sends a request again sends a stub of it.

// IsStub reports whether the operation is not here.
func (m *Request) IsStub() bool { return m.absent > 0 }

// Stub is a copy without the operation, or the request itself if that is short.
func (m *Request) Stub() *Request {
	if m.IsStub() || len(m.Op) <= ShortOperation {
		return m
	}
	stub := *m
	stub.hash, stub.absent, stub.Op, stub.blocks = m.operation(), len(m.Op), nil, nil
	return &stub
}

// Fill gives a stub the operation of another request, with its digests, if the stub's digest names
// it.
func (m *Request) Fill(from *Request) bool {
	if !m.IsStub() || from.IsStub() || from.Length() != m.absent || from.operation() != m.hash {
		return false
	}
	m.Op, m.blocks, m.absent = from.Op, from.blocks, 0
	return true
}

func (m *Request) stubDigest() []byte {
	if m.IsStub() {
		return m.hash[:]
	}
	return nil
}

const requestTag = "bfs request v1\x00"

// Digest is D(m), over the essence. It is seldom needed: a batch's digest and the MACs are over
// the essence itself. A request is for one goroutine at a time, because the digest is remembered.
func (m *Request) Digest() Digest {
	short := m.Length() <= ShortOperation
	if short && !m.hash.IsZero() {
		return m.hash
	}
	var buf [len(requestTag) + requestHeader + ShortOperation]byte
	d := sha256.Sum256(m.appendEssence(append(buf[:0], requestTag...)))
	if short {
		m.hash = d
	}
	return d
}

// Altered forgets the digests, because the request was changed.
func (m *Request) Altered() { m.Cost, m.hash, m.blocks = 0, Digest{}, nil }

func (m *Request) decode(r *reader, lim *Limits) {
	if m.read(r, lim); m.IsStub() && (m.ReadOnly || m.Client.Signs()) {
		r.fail("a read or a signed request, and its operation is not there")
	}
}

// read decodes a request that stands in another message.
func (m *Request) read(r *reader, lim *Limits) {
	m.Client, m.Slot, m.Timestamp = ClientID(r.u64()), Slot(r.u16()), Timestamp(r.u64())
	flags := r.u8()
	if flags >= flagStub<<1 {
		r.fail("unknown flags")
	}
	m.Keep, m.Apart = flags&flagKeep != 0, flags&flagApart != 0
	m.ReadOnly, m.Replier = flags&flagReadOnly != 0, ReplicaID(r.u8())
	if m.Replier != AnyReplier && int(m.Replier) >= lim.Replicas {
		r.fail("no such replier")
	}
	n := r.count(int(r.u32()), lim.Operation)
	if m.Provers = r.u32(); m.Provers>>lim.Replicas != 0 {
		r.fail("no such prover")
	}
	if flags&flagStub == 0 {
		m.Op = r.bytes(n)
	} else if m.hash, m.absent = r.digest(), n; n <= ShortOperation || m.hash.IsZero() {
		r.fail("a stub of a short operation, or of none")
	}
	signed := flags&flagSigned != 0
	if signed != m.Client.Signs() {
		r.fail("the requests of the administrator and of recovering replicas are signed, and nobody else's")
	}
	if signed {
		m.Signature = r.bytes(SignatureSize)
	} else {
		m.Auth.Nonce = r.u64()
		m.Auth.Tags = r.bytes(r.count(int(r.u8()), lim.Replicas) * MACSize)
	}
	if r.why == "" && len(m.Op) > ShortOperation {
		m.hashOperation()
	}
}
