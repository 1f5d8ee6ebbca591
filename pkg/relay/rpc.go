// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"encoding/binary"

	"bfs/pkg/nfs3"
)

// Words of an RPC message [RFC5531 §9].
const (
	msgCall  = 0
	msgReply = 1

	replyAccepted = 0
	replyDenied   = 1

	rejectRPCMismatch = 0
	rejectAuthError   = 1

	rpcVersion = 2
)

// Authentication [RFC5531 §8.2, §14].
const (
	flavorNone = 0
	flavorSys  = 1

	maxAuthBody    = 400
	maxMachineName = 255
)

// An authStat says why credentials were not taken [RFC5531 §9].
type authStat uint32

const (
	authBadCred authStat = 1
	authBadVerf authStat = 3
)

// A verdict is the relay's judgement of a call by its header alone.
type verdict uint8

const (
	proceed     verdict = iota
	notACall            // no answer is possible: the stream carries no RPC calls
	rpcMismatch         // answered with the version of RPC that the relay speaks
	badCred             // AUTH_ERROR
	badVerf             // AUTH_ERROR
	garbage             // the message ends inside its header
)

// A header is the transport's part of a call: everything before the arguments. Once parseHeader
// said proceed, cred holds at most nfs3.MaxGroups groups and args lies inside the record.
type header struct {
	xid                         uint32
	program, version, procedure uint32
	cred                        nfs3.Credentials
	args                        int // where the arguments begin in the record

	groups [nfs3.MaxGroups]uint32 // backs cred.Groups
}

// A words reads big-endian words off a message. Once short, always short.
type words struct {
	b     []byte
	at    int
	short bool
}

func (w *words) u32() uint32 {
	if w.short || len(w.b)-w.at < 4 {
		w.short = true
		return 0
	}
	v := binary.BigEndian.Uint32(w.b[w.at:])
	w.at += 4
	return v
}

// skip passes n bytes of opaque data and its padding. The padding may hold any bytes,
// because no side reads it.
func (w *words) skip(n uint32) {
	padded := (int64(n) + 3) &^ 3
	if w.short || padded > int64(len(w.b)-w.at) {
		w.short = true
		return
	}
	w.at += int(padded)
}

// parse reads the header of a call [RFC5531 §9]. Credentials are judged before the program,
// as the order of the refusals there suggests.
func (h *header) parse(record []byte) verdict {
	w := words{b: record}
	h.xid = w.u32()
	kind := w.u32()
	if w.short || kind != msgCall {
		return notACall
	}
	version := w.u32()
	if !w.short && version != rpcVersion {
		return rpcMismatch
	}
	h.program, h.version, h.procedure = w.u32(), w.u32(), w.u32()
	if v := h.parseCredentials(&w); v != proceed {
		return v
	}
	// The verifier that goes with AUTH_NONE and AUTH_SYS is AUTH_NONE, and empty [RFC5531
	// §10.1, §14].
	flavor, length := w.u32(), w.u32()
	switch {
	case w.short:
		return garbage
	case flavor != flavorNone || length != 0:
		return badVerf
	}
	h.args = w.at
	return proceed
}

// parseCredentials reads flavour and body of the credentials. Flavours other than AUTH_NONE and
// AUTH_SYS are refused as bad, as the kernel's own server does; a client then tries another.
func (h *header) parseCredentials(w *words) verdict {
	flavor, length := w.u32(), w.u32()
	switch {
	case w.short:
		return garbage
	case length > maxAuthBody:
		return badCred
	}
	body := words{b: w.b, at: w.at}
	w.skip(length)
	if w.short {
		return garbage
	}
	body.b = w.b[:body.at+int(length)]
	switch flavor {
	case flavorNone:
		h.cred = nfs3.Credentials{None: true}
		if length != 0 {
			return badCred
		}
		return proceed
	case flavorSys:
		return h.parseSys(&body)
	default:
		return badCred
	}
}

// parseSys reads authsys_parms: stamp, machine name, uid, gid, gids [RFC5531 §14]. The
// body must end where they end.
func (h *header) parseSys(w *words) verdict {
	w.u32() // the stamp is arbitrary
	name := w.u32()
	if name > maxMachineName {
		return badCred
	}
	w.skip(name)
	h.cred = nfs3.Credentials{UID: w.u32(), GID: w.u32()}
	n := w.u32()
	if n > nfs3.MaxGroups {
		return badCred
	}
	for i := range n {
		h.groups[i] = w.u32()
	}
	if w.short || w.at != len(w.b) {
		return badCred
	}
	h.cred.Groups = h.groups[:n]
	return proceed
}

// operation makes the group's operation of a record, in the record's own memory: the arguments
// stay where they are, and the encoded head ends where they begin. It fits, because each
// word of it stands in the RPC header too. The record's header is overwritten.
func (h *header) operation(record []byte) []byte {
	size := 12
	if !h.cred.None {
		size += 12 + 4*len(h.cred.Groups)
	}
	start := h.args - size
	nfs3.AppendCall(record[start:start:h.args], &nfs3.Call{
		Program: h.program, Procedure: h.procedure, Cred: h.cred,
	})
	return record[start:]
}

// acceptedSize is the number of bytes that appendAccepted appends.
const acceptedSize = 24

// appendAccepted appends the record mark and the header of an accepted reply, up to the
// accept_stat. rest is the length of accept_stat and results, which the group's replies
// already consist of.
func appendAccepted(b []byte, xid uint32, rest int) []byte {
	for _, v := range [...]uint32{
		lastFragment | uint32(acceptedSize-4+rest), xid, msgReply, replyAccepted, flavorNone, 0,
	} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

// appendStat appends a whole accepted reply that has no results of a procedure.
func appendStat(b []byte, xid uint32, stat nfs3.AcceptStat) []byte {
	if stat == nfs3.ProgMismatch { // lowest and highest version supported
		b = appendAccepted(b, xid, 12)
		b = binary.BigEndian.AppendUint32(b, uint32(stat))
		b = binary.BigEndian.AppendUint32(b, nfs3.Version)
		return binary.BigEndian.AppendUint32(b, nfs3.Version)
	}
	b = appendAccepted(b, xid, 4)
	return binary.BigEndian.AppendUint32(b, uint32(stat))
}

// appendDenied appends a whole rejected reply: reason, and the one or two words that go with it.
func appendDenied(b []byte, xid, reason uint32, detail ...uint32) []byte {
	b = binary.BigEndian.AppendUint32(b, lastFragment|uint32(16+4*len(detail)))
	for _, v := range [...]uint32{xid, msgReply, replyDenied, reason} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	for _, v := range detail {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}
