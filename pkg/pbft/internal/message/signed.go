// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"fmt"
)

// newKeyTag begins the signed bytes of a NEW-KEY. Neither it nor recoveryTag is the beginning of
// the other one, so that a signature of one kind is never one of the other kind.
const newKeyTag = "bfs new-key v1\x00"

// MaxSigned bounds the bytes that a replica's long-term key signs at once: a NEW-KEY is
// the longest.
const MaxSigned = 512

// A Signed is a decoded statement that a replica's long-term key signs: a NEW-KEY, or a recovery
// request.
type Signed struct {
	Group    Digest
	From     Principal
	Counter  uint64
	NewKey   *NewKey   // nil: a recovery request
	Recovery *Recovery // nil: a NEW-KEY
}

// ParseSigned decodes the bytes that a signature is to cover, for a process that holds
// the key and does not trust the process that asks. It accepts exactly the bytes that a
// NEW-KEY or a recovery request covers. The NewKey aliases b.
func ParseSigned(b []byte) (*Signed, error) {
	if len(b) > MaxSigned {
		return nil, fmt.Errorf("%w: %d bytes to sign, want %d at most", ErrMalformed, len(b), MaxSigned)
	}
	if rest, ok := bytes.CutPrefix(b, []byte(newKeyTag)); ok {
		return parseNewKey(b, rest)
	}
	if rest, ok := bytes.CutPrefix(b, []byte(recoveryTag)); ok {
		return parseRecovery(rest)
	}
	return nil, fmt.Errorf("%w: neither a NEW-KEY nor a recovery request is to be signed", ErrMalformed)
}

// parseNewKey decodes the bytes that a NEW-KEY's signature covers: tag, type and all fields before
// the signature.
func parseNewKey(covered, typed []byte) (*Signed, error) {
	whole := append(typed[:len(typed):len(typed)], make([]byte, SignatureSize)...)
	m, err := Decode(whole, &Limits{})
	if err != nil {
		return nil, err
	}
	k, ok := m.(*NewKey)
	if !ok || !bytes.Equal(k.AppendCovered(nil), covered) {
		return nil, fmt.Errorf("%w: not what a NEW-KEY's signature covers", ErrMalformed)
	}
	return &Signed{Group: k.Group, From: k.From, Counter: k.Counter, NewKey: k}, nil
}

// parseRecovery decodes the bytes that a recovery request's signature covers, behind the tag:
// group, replica, counter, bound.
func parseRecovery(b []byte) (*Signed, error) {
	r := reader{b: b}
	group := r.digest()
	x := &Recovery{Replica: ReplicaID(r.u8()), Counter: r.u64(), Bound: r.seqNum()}
	if err := r.end(TypeRequest); err != nil {
		return nil, err
	}
	return &Signed{Group: group, From: Principal{Replica: x.Replica}, Counter: x.Counter, Recovery: x}, nil
}
