// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"crypto/sha256"
	"encoding/binary"

	"bfs/pkg/pbft"
	"bfs/pkg/pbft/pbfttest"
)

// register is the service that schedules run. Its state is the number of operations
// executed so far and a digest chained over all of them, and every reply shows both: so a
// reply tells its place in the order and everything before it. register also writes to
// scattered pages, so that there is something to fetch.
type register struct {
	memory *pbfttest.Memory
	first  pbft.PageNum
	by     byte // the replica, shown in its choices: they differ from replica to replica as times do
}

// The first byte of an operation.
const (
	opWrite = 'w' // a short reply, kept
	opLong  = 'l' // a reply too long to be kept
	opKept  = 'k' // a reply that is kept, and too long for every replica to send
	opRead  = 'r' // changes nothing
	opSet   = 's' // sets the cell to one of two values, which therefore recur
	opGet   = 'g' // returns the cell, and depends on nothing else
)

const (
	scattered = 12   // pages written here and there
	badChoice = 0xee // a choice that no replica accepts
	longReply = 600
	keptReply = 300
	longRead  = 64 // bytes of a read whose reply is long

	costOfLong = 200 << 10
)

func newRegister(m *pbfttest.Memory, first pbft.PageNum) *register {
	return &register{memory: m, first: first}
}

func (r *register) reply(head []byte, length int) []byte {
	b := make([]byte, length)
	copy(b, head[:16])
	return b
}

// Execute implements pbft.Service.
func (r *register) Execute(op pbft.Operation) ([]byte, bool) {
	if reply, ok := r.Query(op); ok || len(op.Body) == 0 {
		return reply, false
	}
	head := r.memory.Modify(r.first)
	count := binary.LittleEndian.Uint64(head) + 1
	binary.LittleEndian.PutUint64(head, count)
	h := sha256.New()
	h.Write(head[8:16])
	h.Write(binary.LittleEndian.AppendUint64(nil, uint64(op.Client)))
	h.Write(op.Choice)
	h.Write(op.Body)
	sum := h.Sum(nil)
	copy(head[8:16], sum)
	if op.Body[0] == opSet {
		r.memory.Modify(r.cell())[0] = setTo(op.Body)
		return r.reply(head, 16), true
	}
	page := r.memory.Modify(r.first + 1 + pbft.PageNum(sum[0])%scattered)
	page[int(sum[1])<<4|int(sum[2])&15] = sum[3] | 1
	switch op.Body[0] {
	case opLong:
		return r.reply(head, longReply), true
	case opKept:
		return r.reply(head, keptReply), true
	}
	return r.reply(head, 16), true
}

// Query implements pbft.Service.
func (r *register) Query(op pbft.Operation) ([]byte, bool) {
	switch {
	case len(op.Body) > 0 && op.Body[0] == opRead:
		return r.read(op.Body), true
	case len(op.Body) > 0 && op.Body[0] == opGet:
		return []byte{r.memory.Page(r.cell())[0]}, true
	}
	return nil, false
}

// cell is the page that opSet writes and opGet reads.
func (r *register) cell() pbft.PageNum { return r.first + 1 + scattered }

// setTo is the value to which an opSet sets the cell.
func setTo(op []byte) byte { return 'a' + op[len(op)-1]&1 }

func (r *register) read(op []byte) []byte {
	length := 16
	if len(op) == longRead {
		length = longReply
	}
	return r.reply(r.memory.Page(r.first), length)
}

// Cost implements pbft.Service. Long operations are costly too, and wait for their turn.
func (r *register) Cost(op []byte) int {
	if len(op) > 0 && op[0] == opLong {
		return costOfLong
	}
	return 0
}

// Choose implements pbft.Service.
func (r *register) Choose(n pbft.SeqNum) []byte { return []byte{1, byte(n), r.by} }

// Accept implements pbft.Service.
func (r *register) Accept(_ pbft.SeqNum, choice []byte) bool {
	return len(choice) > 0 && choice[0] != badChoice
}

// State implements pbft.Service.
func (r *register) State() pbft.State { return r.memory }

// place is the place in the order that a reply shows.
func place(reply []byte) (count uint64, chain [8]byte) {
	if len(reply) < 16 {
		return 0, chain
	}
	copy(chain[:], reply[8:16])
	return binary.LittleEndian.Uint64(reply), chain
}

var _ pbft.Service = (*register)(nil)
