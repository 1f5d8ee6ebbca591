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

// A Request is a client's signed wish to run an operation [TOCS §4.2]. Its authenticator travels
// with it, for backups check it too when the primary proposes the request.
type Request struct {
	Client    ClientID
	Slot      Slot
	Timestamp Timestamp
	ReadOnly  bool      // try the one-round-trip path; not part of the digest
	Replier   ReplicaID // who returns the full result, AnyReplier for all; not part of the digest
	Keep      bool      // keep the result even if the operation changed nothing: it was asked before, in vain (R-OUR-14)
	Op        []byte

	// Auth is the proof of origin, unless the request is the administrator's: those are signed
	// (R-OUR-12) and Signature is set.
	Auth      Authenticator
	Signature []byte

	// Digest is D(m), set by the decoder and by Seal: it is computed once per replica.
	Digest Digest
	// PassedBy is the replica that passed it on. It never travels.
	PassedBy ReplicaID
	// Authentic: this replica has checked the sender's MAC or signature. It never travels.
	Authentic bool
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
	return f
}

// Type implements Message.
func (*Request) Type() Type { return TypeRequest }

const requestHeader = 8 + 2 + 8 + 1 + 1 + 4

// Size is the length of AppendBody's encoding in bytes.
func (m *Request) Size() int {
	return requestHeader + len(m.Op) + 8 + 1 + len(m.Auth.Tags) + len(m.Signature)
}

// AppendBody implements Message.
func (m *Request) AppendBody(b []byte) []byte {
	b = appendU64(b, uint64(m.Client))
	b = appendU16(b, uint16(m.Slot))
	b = appendU64(b, uint64(m.Timestamp))
	b = append(b, m.flags(), byte(m.Replier))
	b = appendU32(b, uint32(len(m.Op)))
	b = append(b, m.Op...)
	if m.Signature != nil {
		return append(b, m.Signature...)
	}
	b = appendU64(b, m.Auth.Nonce)
	b = append(b, byte(len(m.Auth.Tags)/MACSize))
	return append(b, m.Auth.Tags...)
}

// AppendCovered implements Message: the digest stands for the rest, replier and flags beside it.
func (m *Request) AppendCovered(b []byte) []byte {
	b = append(b, byte(TypeRequest), m.flags(), byte(m.Replier))
	return append(b, m.Digest[:]...)
}

func (m *Request) decode(r *reader, lim *Limits) {
	start := r.b
	m.Client, m.Slot, m.Timestamp = ClientID(r.u64()), Slot(r.u16()), Timestamp(r.u64())
	flags := r.u8()
	if flags&^(flagReadOnly|flagSigned|flagKeep) != 0 {
		r.fail("unknown flags")
	}
	m.Keep = flags&flagKeep != 0
	m.ReadOnly, m.Replier = flags&flagReadOnly != 0, ReplicaID(r.u8())
	if m.Replier != AnyReplier && int(m.Replier) >= lim.Replicas {
		r.fail("no such replier")
	}
	m.Op = r.bytes(r.count(int(r.u32()), lim.Operation))
	signed := flags&flagSigned != 0
	if signed != (m.Client == Administrator) {
		r.fail("the administrator's requests are signed, and nobody else's")
	}
	if signed {
		m.Signature = r.bytes(SignatureSize)
	} else {
		m.Auth.Nonce = r.u64()
		m.Auth.Tags = r.bytes(r.count(int(r.u8()), lim.Replicas) * MACSize)
	}
	if r.why == "" {
		m.Digest = digestRequest(start, len(m.Op))
	}
}

// SetDigest computes the digest of a request that was made here.
func (m *Request) SetDigest() {
	var head [requestHeader]byte
	b := appendU64(head[:0], uint64(m.Client))
	b = appendU16(b, uint16(m.Slot))
	b = appendU64(b, uint64(m.Timestamp))
	b = append(b, m.flags()&flagKeep, 0)
	appendU32(b, uint32(len(m.Op)))
	h := sha256.New()
	h.Write([]byte(requestTag))
	h.Write(head[:])
	h.Write(m.Op)
	h.Sum(m.Digest[:0])
}

const requestTag = "bfs request v1\x00"

// digestRequest hashes an encoded request: (c, s, t, o) behind a tag, with replier and flags, but for Keep, which
// are not part of the wish, as zeros (R-OPT-IX-3).
func digestRequest(encoded []byte, op int) (d Digest) {
	const small = 512
	var buf [len(requestTag) + requestHeader + small]byte
	b := append(buf[:0], requestTag...)
	b = append(b, encoded[:requestHeader]...)
	b[len(requestTag)+18] &= flagKeep
	b[len(requestTag)+19] = 0
	if op <= small {
		return sha256.Sum256(append(b, encoded[requestHeader:requestHeader+op]...))
	}
	h := sha256.New()
	h.Write(b)
	h.Write(encoded[requestHeader : requestHeader+op])
	h.Sum(d[:0])
	return d
}
