// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/transport"
	"bfs/pkg/pbft/internal/wire"
)

// A MemoryUse is one of the things that a replica needs memory for, and how many bytes that takes
// at most, whatever clients, strangers and up to f replicas do.
type MemoryUse struct {
	What  string
	Bytes uint64
}

const (
	// slotMemory is what one slot of a client takes beside its operations: a request that waits and
	// one that is laid by, each with an authenticator, and what each replica says of it.
	slotMemory = 4 << 10
	// strangerMemory is what a connection of a stranger takes: buffers, TLS and a goroutine.
	strangerMemory = 64 << 10
	// programMemory is what the program takes by itself.
	programMemory = 64 << 20
)

// Memory lists what a replica of the group needs memory for beside its state, with so many clients
// enrolled. All of it is on the heap. (Batches of earlier views are counted once. More than f = 1
// faulty primaries in a row can leave others in P and Q.)
func (g *Group) Memory(clients int) []MemoryUse {
	l := &g.Limits
	frame := g.maxFrame()
	reading := frame + transport.MostRead // the frame that comes on a connection
	peer := reading + wire.QueueBytes + core.MaxUnproven*frame
	client := reading + 2*frame + l.Slots*slotMemory // one operation waits and one answer, whatever others have
	uses := []struct {
		what         string
		count, bytes int
	}{
		{"the message log", 1, l.LogBytes},
		{"batches of earlier views, and such as are fetched", 1, l.windowBytes()},
		{"requests that wait", 1, queueBytes},
		{"answers that wait for clients", 1, wire.QueueAllBytes},
		{"other replicas", g.N() - 1, peer},
		{"clients", clients + 1, client}, // and the administrator
		{"connections of strangers", g.maxConns(), strangerMemory},
		{"what waits for the disk", g.disks(), g.diskMemory()},
		{"the program", 1, programMemory},
	}
	all := make([]MemoryUse, 0, len(uses))
	for _, u := range uses {
		if u.count > 0 {
			all = append(all, MemoryUse{u.what, uint64(u.count) * uint64(u.bytes)})
		}
	}
	return all
}

// disks counts the disks that a replica of the group writes to.
func (g *Group) disks() int {
	if g.Durability == DurabilityDisk {
		return 1
	}
	return 0
}

// diskMemory bounds what waits for the disk: REPLYs, the records that are being written, as many
// that come meanwhile with what each replica brings beyond, and the block that is written.
func (g *Group) diskMemory() int {
	records := g.segmentBytes() + g.N()*g.maxFrame()
	return heldBytes + 2*records + g.segmentBytes()
}

// CheckpointMemory bounds the pages that checkpoints keep of a state of size bytes, under
// operations that write whole pages: those of two windows, because one may be written to the image
// while the next fills. Many small operations in random places change up to two pages each, and
// may keep more.
func (g *Group) CheckpointMemory(size uint64) uint64 {
	return min(size, 2*uint64(g.Limits.windowBytes()))
}

// Enrolled counts the clients that are enrolled.
func (r *Replica) Enrolled() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.exec.Ledger().All(func(c ledger.Client) {
		if !c.Revoked {
			n++
		}
	})
	return n
}
