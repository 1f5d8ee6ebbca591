// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/binary"

	"bfs/pkg/pbft/internal/message"
)

// A Recovery is what the state knows of a replica's last recovery request [TOCS §5.2.3].
type Recovery struct {
	Timestamp message.Timestamp // of the request; 0: it has sent none
	Bound     message.SeqNum    // H_M, as the request has it
	Seq       message.SeqNum    // n_R, the batch that it was in
}

const (
	recoveriesAt = 64 // on page 0
	recoverySize = 24
)

// Recovery is replica i's last.
func (l *Ledger) Recovery(i message.ReplicaID) Recovery {
	b := l.memory.Page(0)[recoveriesAt+int(i)*recoverySize:]
	at := func(i int) uint64 { return binary.LittleEndian.Uint64(b[8*i:]) }
	return Recovery{message.Timestamp(at(0)), message.SeqNum(at(1)), message.SeqNum(at(2))}
}

// Recover records a recovery request of replica i.
func (l *Ledger) Recover(i message.ReplicaID, x Recovery) {
	b := l.memory.Modify(0)[recoveriesAt+int(i)*recoverySize:]
	binary.LittleEndian.PutUint64(b, uint64(x.Timestamp))
	binary.LittleEndian.PutUint64(b[8:], uint64(x.Bound))
	binary.LittleEndian.PutUint64(b[16:], uint64(x.Seq))
}

// Renew forgets all recoveries on page 0 of a state with which new replicas begin, and
// reports whether there were any.
func Renew(page []byte) (changed bool) {
	b := page[recoveriesAt : recoveriesAt+message.MaxReplicas*recoverySize]
	for i := range b {
		changed = changed || b[i] != 0
	}
	clear(b)
	return changed
}
