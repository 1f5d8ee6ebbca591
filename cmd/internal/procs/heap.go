// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"os"
	"runtime/debug"
	"sync/atomic"
)

// heapFloor is an allocation that the collector counts as live. The collector runs when
// the heap is twice its live bytes.
const heapFloor = 32 << 20

var floor atomic.Pointer[[heapFloor]byte]

// FloorHeap makes the collector run only after some tens of MiB have been allocated. The live
// heap of a replica is a few MiB beside its message log, because the state is kept elsewhere, so
// the collector would otherwise scan the whole log after every few MiB of requests. The floor is
// never touched, so it takes no memory; allocations above it take at most as much again.
func FloorHeap() { floor.Store(new([heapFloor]byte)) }

// LimitHeap makes the collector run so often that the heap takes no more than so many bytes, as
// long as what is live in it takes less. Otherwise a heap is twice as large as what is live. A
// limit that the environment sets (GOMEMLIMIT) stays.
func LimitHeap(bytes uint64) {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(int64(bytes) + heapFloor) // which the runtime counts, though it takes no memory
	}
}
