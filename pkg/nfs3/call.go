// SPDX-License-Identifier: Apache-2.0

package nfs3

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Programs that a call may be for.
const (
	ProgramNFS   uint32 = 100003 // RFC 1813, version 3
	ProgramMount uint32 = 100005 // RFC 1813 appendix I, version 3
	// ProgramAdmin is this project's own program, for the administrator's operations on the
	// service. Its number is in the range that RFC 5531 §13.1 leaves to transient programs.
	ProgramAdmin uint32 = 0x40424653
	Version      uint32 = 3
)

// AcceptStat says whether the arguments of a call could be read [RFC5531 §9].
type AcceptStat uint32

// The values of AcceptStat.
const (
	Success      AcceptStat = 0
	ProgUnavail  AcceptStat = 1
	ProgMismatch AcceptStat = 2
	ProcUnavail  AcceptStat = 3
	GarbageArgs  AcceptStat = 4
	SystemErr    AcceptStat = 5
)

// MaxGroups is the number of supplementary groups AUTH_SYS carries at most [RFC5531 §14].
const MaxGroups = 16

// MaxArguments bounds the raw XDR arguments of one call: a WRITE of 1 MiB and its other fields.
const MaxArguments = 1<<20 + 1024

// Credentials are the caller's identity as AUTH_SYS claims it. The replicas squash and
// map them by the rights of the client that vouches for them.
type Credentials struct {
	None   bool // AUTH_NONE: no identity
	UID    uint32
	GID    uint32
	Groups []uint32 // at most MaxGroups
}

// A Call is one RPC as it travels through the group: everything of the kernel's message
// but the transport's part of the header. A relay builds it without reading the arguments.
//
// Encoding, big-endian like the XDR it carries:
//
//	program  u32
//	procedure u32
//	flavor   u32   0 AUTH_NONE, 1 AUTH_SYS
//	uid, gid u32   AUTH_SYS only
//	count    u32   AUTH_SYS only, <= MaxGroups
//	groups   u32 each
//	arguments      the rest
type Call struct {
	Program   uint32
	Procedure uint32
	Cred      Credentials
	Args      []byte // raw XDR
}

// ErrCall is the refusal of bytes that are not a Call.
var ErrCall = errors.New("malformed call")

// AppendCall appends the encoding of c to b.
func AppendCall(b []byte, c *Call) []byte {
	b = binary.BigEndian.AppendUint32(b, c.Program)
	b = binary.BigEndian.AppendUint32(b, c.Procedure)
	if c.Cred.None {
		b = binary.BigEndian.AppendUint32(b, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, 1)
		b = binary.BigEndian.AppendUint32(b, c.Cred.UID)
		b = binary.BigEndian.AppendUint32(b, c.Cred.GID)
		b = binary.BigEndian.AppendUint32(b, uint32(len(c.Cred.Groups)))
		for _, g := range c.Cred.Groups {
			b = binary.BigEndian.AppendUint32(b, g)
		}
	}
	return append(b, c.Args...)
}

// ParseCall reads a Call. Its arguments alias b.
func ParseCall(b []byte) (Call, error) {
	var c Call
	u32 := func() (v uint32) {
		if len(b) >= 4 {
			v, b = binary.BigEndian.Uint32(b), b[4:]
			return v
		}
		b = nil
		return 0
	}
	if len(b) < 12 {
		return c, fmt.Errorf("%w: %d bytes", ErrCall, len(b))
	}
	c.Program, c.Procedure = u32(), u32()
	switch flavor := u32(); flavor {
	case 0:
		c.Cred.None = true
	case 1:
		if len(b) < 12 {
			return c, fmt.Errorf("%w: short credentials", ErrCall)
		}
		c.Cred.UID, c.Cred.GID = u32(), u32()
		n := u32()
		if n > MaxGroups || len(b) < int(n)*4 {
			return c, fmt.Errorf("%w: %d groups", ErrCall, n)
		}
		if n > 0 {
			c.Cred.Groups = make([]uint32, 0, n)
		}
		for range n {
			c.Cred.Groups = append(c.Cred.Groups, u32())
		}
	default:
		return c, fmt.Errorf("%w: credentials of flavour %d", ErrCall, flavor)
	}
	if len(b) > MaxArguments {
		return c, fmt.Errorf("%w: %d bytes of arguments, want <= %d", ErrCall, len(b), MaxArguments)
	}
	c.Args = b
	return c, nil
}

// A reply is an AcceptStat, big-endian, and behind it the raw XDR results, which a relay
// copies behind its RPC header. ParseReply splits it; results alias b.
func ParseReply(b []byte) (stat AcceptStat, results []byte, err error) {
	if len(b) < 4 {
		return 0, nil, fmt.Errorf("malformed reply: %d bytes, want >= 4", len(b))
	}
	return AcceptStat(binary.BigEndian.Uint32(b)), b[4:], nil
}

// AppendReply appends the head of a reply to b; the results go behind it.
func AppendReply(b []byte, stat AcceptStat) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(stat))
}
