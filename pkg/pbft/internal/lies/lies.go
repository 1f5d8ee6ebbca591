// SPDX-License-Identifier: Apache-2.0

// Package lies makes the replicas of this process lie: for demonstrations and tests. Each
// message to another replica, except DATA and NEW-KEY, and each result pass through a
// Teller, if one is installed, before they are authenticated. So a lie comes with the
// right MAC, as an intruder's would.
//
// No option of the product installs one: pbfttest.Lie does, and the demonstration calls
// it in a process of its own.
package lies

import (
	"sync/atomic"

	"bfs/pkg/pbft/internal/message"
)

// A Teller changes messages and results. Both methods return a copy if they change something.
type Teller interface {
	Message(message.Message) message.Message // for other replicas
	Result([]byte) []byte                    // for clients
}

var installed atomic.Pointer[Teller]

// Install makes replicas that are started from now on lie as t says.
func Install(t Teller) { installed.Store(&t) }

// Installed is the present Teller, nil if there is none.
func Installed() Teller {
	if t := installed.Load(); t != nil {
		return *t
	}
	return nil
}
