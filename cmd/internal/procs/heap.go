// SPDX-License-Identifier: Apache-2.0

package procs

import "sync/atomic"

// heapFloor counts as live for the collector, which runs when the heap is twice what lives.
const heapFloor = 32 << 20

var floor atomic.Pointer[[heapFloor]byte]

// FloorHeap has the collector run when some tens of mebibytes have been allocated. What lives in a replica's heap is a few mebibytes
// beside its message log, for the state is elsewhere: each few mebibytes of requests would otherwise have the whole log looked
// through. The floor is never touched, so it takes up no memory; what is allocated above it does, at most as much again.
func FloorHeap() { floor.Store(new([heapFloor]byte)) }
