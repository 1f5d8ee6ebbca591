// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/message"
)

// version of the protocol. Both ends are of one program, but a keeper may live longer
// than a program on disk.
const version = 1

// An operation is what a client can ask for.
type operation byte

const (
	opIdentify operation = 1 + iota
	opCount
	opSign
	opHelloKey
	opHelloTag
	opRecover
	opStatus
)

// Status of an answer.
const (
	statusDone    = 0
	statusRefused = 1
	statusFull    = 2 // refused, for the keeper's disk is full
)

const (
	keySize      = message.PublicKeySize
	maxRequest   = 1 + message.MaxSigned
	maxAnswer    = 1 + 1024
	maxText      = maxAnswer - 1
	lengthSize   = 2
	tagBody      = keySize + auth.ChallengeSize + len(auth.HelloHead{})
	identitySize = 1 + keySize + message.DigestSize

	// frameWithin bounds the rest of a frame that has begun, and the writing of one.
	frameWithin = 5 * time.Second
)

var errFrame = errors.New("the other end does not speak the keeper's protocol")

// A request is a decoded request; which fields count depends on the operation.
type request struct {
	op        operation
	covered   []byte // sign
	peer      []byte // hello key, hello tag: a public key
	life      auth.Life
	challenge [auth.ChallengeSize]byte
	head      auth.HelloHead
	force     bool // recover
}

// decode decodes a request, without its length. The request aliases b.
func decode(b []byte) (r request, err error) {
	if len(b) == 0 || len(b) > maxRequest {
		return r, fmt.Errorf("%w: a request of %d bytes", errFrame, len(b))
	}
	r.op = operation(b[0])
	body := b[1:]
	want := 0
	switch r.op {
	case opIdentify, opCount, opStatus:
	case opSign:
		r.covered = body
		return r, nil
	case opHelloKey:
		want = keySize + auth.LifeSize
	case opHelloTag:
		want = tagBody
	case opRecover:
		want = 1
	default:
		return r, fmt.Errorf("%w: operation %d", errFrame, r.op)
	}
	if len(body) != want {
		return r, fmt.Errorf("%w: operation %d with %d bytes, want %d", errFrame, r.op, len(body), want)
	}
	switch r.op {
	case opHelloKey:
		r.peer, r.life = body[:keySize], auth.Life(body[keySize:])
	case opHelloTag:
		r.peer, r.challenge = body[:keySize], [auth.ChallengeSize]byte(body[keySize:])
		r.head = auth.HelloHead(body[keySize+auth.ChallengeSize:])
	case opRecover:
		if body[0] > 1 {
			return r, fmt.Errorf("%w: a flag is neither 0 nor 1", errFrame)
		}
		r.force = body[0] == 1
	}
	return r, nil
}

// encode is the inverse of decode.
func (r *request) encode() []byte {
	b := []byte{byte(r.op)}
	switch r.op {
	case opSign:
		b = append(b, r.covered...)
	case opHelloKey:
		b = append(append(b, r.peer...), r.life[:]...)
	case opHelloTag:
		b = append(append(append(b, r.peer...), r.challenge[:]...), r.head[:]...)
	case opRecover:
		force := byte(0)
		if r.force {
			force = 1
		}
		b = append(b, force)
	}
	return b
}

// readFrame reads a frame of at most this many bytes into memory of its own. It waits for the frame
// to begin as long as the connection's deadline says, and then for the rest no longer than
// frameWithin.
func readFrame(c net.Conn, most int) ([]byte, error) {
	var length [lengthSize]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.LittleEndian.Uint16(length[:]))
	if n == 0 || n > most {
		return nil, fmt.Errorf("%w: a frame of %d bytes, want 1 to %d", errFrame, n, most)
	}
	if err := c.SetReadDeadline(time.Now().Add(frameWithin)); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	_, err := io.ReadFull(c, b)
	return b, err
}

// writeFrame writes a frame, within frameWithin.
func writeFrame(c net.Conn, b []byte) error {
	if err := c.SetWriteDeadline(time.Now().Add(frameWithin)); err != nil {
		return err
	}
	_, err := c.Write(append(binary.LittleEndian.AppendUint16(nil, uint16(len(b))), b...))
	return err
}
