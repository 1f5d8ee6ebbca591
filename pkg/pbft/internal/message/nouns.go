// SPDX-License-Identifier: Apache-2.0

// Package message holds PBFT's nouns: the numbers replicas count with and every message they
// exchange, each with one canonical encoding.
//
// The encoding is little-endian, fixed-size fields first, variable parts behind their length.
// A decoder refuses what an encoder would not have written, so that equal messages are equal
// bytes and a digest over the bytes is a digest of the meaning [TOCS §4.2].
package message

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
)

// MaxReplicas bounds the size of a group, so that sets of replicas fit a word and vectors of
// MACs a small array.
const MaxReplicas = 32

// A View is the paper's v: a configuration in which one replica is primary. Views are
// consecutive and begin at 0 [TOCS §4.1].
type View uint64

// Primary is the replica that orders requests in view v of a group of n [TOCS §4.1].
func (v View) Primary(n int) ReplicaID { return ReplicaID(uint64(v) % uint64(n)) }

// A SeqNum is the paper's n, the place of a batch in the order of execution. The first batch
// is 1; 0 is the state a group begins with.
type SeqNum uint64

// A ReplicaID is the number of a replica, 0 to n-1.
type ReplicaID uint8

// AnyReplier asks every replica for the full result [TOCS §6.1].
const AnyReplier ReplicaID = 0xff

// A ClientID names a client for as long as its key lives: the first eight bytes of the SHA-256 of
// its public key, so no authority hands out numbers. 0 is no client.
type ClientID uint64

// Administrator is the client that signs administrative operations.
const Administrator ClientID = 1

// ClientOf derives the client's number from its Ed25519 public key.
func ClientOf(publicKey []byte) ClientID {
	sum := sha256.Sum256(publicKey)
	return ClientID(binary.BigEndian.Uint64(sum[:8]))
}

// String writes the identifier as its sixteen hexadecimal digits.
func (c ClientID) String() string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], uint64(c))
	return hex.EncodeToString(b[:])
}

// A Slot is one of a client's lines of calls: at most one request of a slot is outstanding,
// and the paper's "client" is a (client, slot) here.
type Slot uint16

// A Timestamp is the paper's t: it rises with every request of a slot [TOCS §4.2].
type Timestamp uint64

// A PageNum is the number of a page of the replicated state.
type PageNum uint64

// DigestSize is the length of a Digest in bytes.
const DigestSize = sha256.Size

// A Digest is the paper's D(m), SHA-256 over a domain tag and the canonical encoding.
type Digest [DigestSize]byte

// String writes the first four bytes, enough for people to compare.
func (d Digest) String() string { return hex.EncodeToString(d[:4]) }

// IsZero reports whether d was never set. No message hashes to it.
func (d Digest) IsZero() bool { return d == Digest{} }
