// SPDX-License-Identifier: Apache-2.0

package nfs3

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrGarbage refuses bytes that are not the XDR that the procedure takes: GARBAGE_ARGS at a server.
var ErrGarbage = errors.New("malformed XDR")

// Sizes of structures that the decoder and directory listings reckon with [RFC1813 §2.6].
const (
	fattrSize = 84 // fattr3
	unit      = 4  // of XDR [RFC4506 §3]
)

// padded is n rounded up to the unit of XDR.
func padded(n int) int { return (n + unit - 1) &^ (unit - 1) }

// reader takes XDR values off the front of b. The first one that is not there, or not
// allowed, makes it bad: from then on it returns zeros, and end says so. So callers need
// not ask after each value.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) fail() {
	r.b, r.bad = nil, true
}

func (r *reader) u32() uint32 {
	if len(r.b) < 4 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint32(r.b)
	r.b = r.b[4:]
	return v
}

func (r *reader) u64() uint64 {
	if len(r.b) < 8 {
		r.fail()
		return 0
	}
	v := binary.BigEndian.Uint64(r.b)
	r.b = r.b[8:]
	return v
}

// flag reads a bool, which is 0 or 1 [RFC4506 §4.4].
func (r *reader) flag() bool {
	return r.enum(0, 1) == 1
}

// enum reads a value from low to high [RFC4506 §4.3].
func (r *reader) enum(low, high uint32) uint32 {
	v := r.u32()
	if v < low || v > high {
		r.fail()
		return 0
	}
	return v
}

// opaque reads variable-length bytes, at most limit of them, and their padding [RFC4506 §4.10].
func (r *reader) opaque(limit int) []byte {
	n := r.u32()
	if uint64(n) > uint64(limit) || uint64(n) > uint64(len(r.b)) || padded(int(n)) > len(r.b) {
		r.fail()
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[padded(int(n)):]
	return v
}

// rest reads variable-length bytes that have no limit but the message's.
func (r *reader) rest() []byte { return r.opaque(len(r.b)) }

func (r *reader) verifier() (v Verifier) {
	if len(r.b) < len(v) {
		r.fail()
		return v
	}
	r.b = r.b[copy(v[:], r.b):]
	return v
}

// end returns an error unless all went well and nothing is left.
func (r *reader) end(what string) error {
	if r.bad || len(r.b) > 0 {
		return fmt.Errorf("%w: %s", ErrGarbage, what)
	}
	return nil
}

func appendU32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func appendU64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func appendFlag(b []byte, v bool) []byte {
	if v {
		return appendU32(b, 1)
	}
	return appendU32(b, 0)
}

func appendOpaque(b, v []byte) []byte {
	b = appendU32(b, uint32(len(v)))
	return appendPadding(append(b, v...), len(v))
}

// appendPadding appends the zeros that follow n bytes.
func appendPadding(b []byte, n int) []byte {
	var zeros [unit]byte
	return append(b, zeros[:padded(n)-n]...)
}
