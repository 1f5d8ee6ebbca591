// SPDX-License-Identifier: Apache-2.0

package message

import "crypto/sha256"

// Version of the wire protocol. A replica speaks to peers of the same major version.
const (
	VersionMajor = 5
	VersionMinor = 0
)

// A Principal is a replica or a client.
type Principal struct {
	Replica ReplicaID // if Client is 0
	Client  ClientID
}

// IsReplica reports whether p is a replica.
func (p Principal) IsReplica() bool { return p.Client == 0 }

// PublicKeySize is the length of an Ed25519 or X25519 public key.
const PublicKeySize = 32

// MaxRival bounds the address of another process in bytes: an IPv6 address with its zone and port.
const MaxRival = 64

// maxSealed bounds a session key under HPKE: encapsulated key, key, tag.
const maxSealed = 128

// A NewKey carries the session key its receiver shall use for messages to its sender,
// sealed to the receiver, and a fresh X25519 key to seal the receiver's own to [TOCS
// §5.2.2; R-OUR-8]. It is the first message on every connection, and the only one besides
// the administrator's that is signed. One is made for each receiver.
type NewKey struct {
	Major, Minor uint16
	Group        Digest // of the group file: members with different files do not speak to each other
	From, To     Principal
	SenderKey    [PublicKeySize]byte // the sender's Ed25519 key: a client is known by it
	Channel      Digest              // names the connection; its receiver had a part in the choice, so it is fresh
	Counter      uint64              // rises from one to the next on a connection
	SealTo       [PublicKeySize]byte // the sender's X25519 key of this life
	TransportKey Digest              // fingerprint of the sender's TLS certificate, zero if the transport is plain
	Recipient    [PublicKeySize]byte // the X25519 key that Sealed is sealed to; zero if none is known yet
	Sealed       []byte              // encapsulated key and sealed session key; empty if Recipient is zero
	Wants        bool                // the sender has no session key of the receiver's: it asks for a NEW-KEY
	Rival        []byte              // to a client: the address of another process that uses its key, if any
	Signature    [SignatureSize]byte
}

// Type implements Message.
func (*NewKey) Type() Type { return TypeNewKey }

func (m *NewKey) appendUnsigned(b []byte) []byte {
	b = appendU16(b, m.Major)
	b = appendU16(b, m.Minor)
	b = append(b, m.Group[:]...)
	b = appendPrincipal(b, m.From)
	b = appendPrincipal(b, m.To)
	b = append(b, m.SenderKey[:]...)
	b = append(b, m.Channel[:]...)
	b = appendU64(b, m.Counter)
	b = append(b, m.SealTo[:]...)
	b = append(b, m.TransportKey[:]...)
	b = append(b, m.Recipient[:]...)
	b = appendU16(b, uint16(len(m.Sealed)))
	b = appendBool(append(b, m.Sealed...), m.Wants)
	return append(append(b, byte(len(m.Rival))), m.Rival...)
}

func appendPrincipal(b []byte, p Principal) []byte {
	b = append(b, byte(p.Replica))
	return appendU64(b, uint64(p.Client))
}

func (r *reader) principal() Principal {
	p := Principal{ReplicaID(r.u8()), ClientID(r.u64())}
	if p.Replica != 0 && !p.IsReplica() {
		r.fail("a client with the number of a replica")
	}
	return p
}

// AppendBody implements Message.
func (m *NewKey) AppendBody(b []byte) []byte {
	return append(m.appendUnsigned(b), m.Signature[:]...)
}

// AppendCovered implements Message: it appends the signed bytes.
func (m *NewKey) AppendCovered(b []byte) []byte {
	return m.appendUnsigned(append(append(b, newKeyTag...), byte(TypeNewKey)))
}

func (m *NewKey) decode(r *reader, _ *Limits) {
	m.Major, m.Minor, m.Group = r.u16(), r.u16(), r.digest()
	m.From, m.To = r.principal(), r.principal()
	copy(m.SenderKey[:], r.bytes(PublicKeySize))
	m.Channel = r.digest()
	m.Counter = r.u64()
	copy(m.SealTo[:], r.bytes(PublicKeySize))
	m.TransportKey = r.digest()
	copy(m.Recipient[:], r.bytes(PublicKeySize))
	m.Sealed = r.bytes(r.count(int(r.u16()), maxSealed))
	m.Wants = r.bool()
	m.Rival = r.bytes(r.count(int(r.u8()), MaxRival))
	copy(m.Signature[:], r.bytes(SignatureSize))
}

// AdministratorDigest is the digest that the administrator signs: the request, bound to the group
// (R-OUR-12).
func AdministratorDigest(group Digest, m *Request) Digest {
	b := append(make([]byte, 0, 128), "bfs administrator v1\x00"...)
	b = append(b, group[:]...)
	b = m.AppendCovered(b)
	return sha256.Sum256(b)
}
