// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
)

// newAdministrator is the client whose operations enrol and revoke one other, the guest.
func newAdministrator(w *world) *caller {
	return newCaller(w, maxClients, message.Administrator, 1)
}

// guest is the client that comes and goes.
const guest = maxClients - 1

// administrate is the administrator's next operation: it enrols the guest if it is not
// enrolled, as far as has been executed, and revokes it else; at times the other way
// round, which is refused, or it asks who is enrolled.
func (c *caller) administrate() []byte {
	enrol := !c.w.judge.enrolled[message.ClientOf(clientKey(guest))]
	switch c.w.rng.IntN(6) {
	case 0:
		enrol = !enrol
	case 1:
		return []byte{executor.AdminList, 0, 0, 0}
	}
	if enrol {
		return append([]byte{executor.AdminEnrol}, clientKey(guest)...)
	}
	return append([]byte{executor.AdminRevoke}, clientKey(guest)...)
}
