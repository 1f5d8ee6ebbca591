// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/message"
)

// newAdministrator is the client whose operations enrol and revoke one other client, the guest.
func newAdministrator(w *world) *caller {
	return newCaller(w, maxClients, message.Administrator, 1)
}

// guest is the client that is enrolled and revoked.
const guest = maxClients - 1

// administrate is the administrator's next operation. It enrols the guest, or revokes a guest
// that is enrolled by now. At times it does the opposite, which is refused, or lists the clients.
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
