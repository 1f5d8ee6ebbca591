// SPDX-License-Identifier: Apache-2.0

package executor

import (
	"crypto/ed25519"

	"bfs/pkg/pbft/internal/message"
)

// An Admitter is a Service whose administrator's operations can enrol a client: what the service
// makes for the client and the enrolment happen together, or neither does.
type Admitter interface {
	// Admit runs an administrator's operation for a client that the library can enrol.
	// The client is enrolled with rights, at most Limits.Rights bytes; nil refuses, and
	// then the operation has made nothing. The reply goes to the administrator either
	// way. Both are good until the library next calls the service.
	Admit(op Operation) (rights, reply []byte)
}

// The first byte of an admission's result.
const (
	AdmitAnswered = iota // the rest is the service's reply
	AdmitRefused         // the rest is the library's reason
)

// admit enrols the key in body with the rights that the service answers the rest of body with.
func (x *Executor) admit(r *message.Request, choice, body []byte) (result []byte, wrote bool) {
	key, op := body[:ed25519.PublicKeySize], body[ed25519.PublicKeySize:]
	refuse := func(why string) ([]byte, bool) { return append([]byte{AdmitRefused}, why...), false }
	a, ok := x.service.(Admitter)
	if !ok {
		return refuse("the service of this group does not prepare for clients")
	}
	if err := x.ledger.MayEnrol(key); err != nil {
		return refuse(err.Error())
	}
	rights, reply := a.Admit(Operation{Client: message.Administrator, Choice: choice, Body: op})
	result = append([]byte{AdmitAnswered}, reply...)
	if rights != nil {
		if err := x.ledger.Enrol(key, rights, r.Timestamp); err != nil {
			return refuse(err.Error())
		}
	}
	return result, true
}
