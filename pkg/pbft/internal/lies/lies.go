// SPDX-License-Identifier: Apache-2.0

// Package lies has the replicas of this process say what is false: for demonstrations and tests. What a replica is about to send passes
// through a Teller, if one is installed, before it is authenticated. So a lie comes with the right MAC, as that of an intruder would.
//
// No option of the product installs one: pbfttest.Lie does, and the demonstration calls it in a process of its own.
package lies

import (
	"sync/atomic"

	"bfs/pkg/pbft/internal/message"
)

// A Teller changes what a replica says. Both methods leave what they are given as it is.
type Teller interface {
	Message(message.Message) message.Message // for other replicas
	Result([]byte) []byte                    // for clients
}

var installed atomic.Pointer[Teller]

// Install has replicas that are started from now on lie as t says.
func Install(t Teller) { installed.Store(&t) }

// Installed is the present Teller, nil if there is none.
func Installed() Teller {
	if t := installed.Load(); t != nil {
		return *t
	}
	return nil
}
