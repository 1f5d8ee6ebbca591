// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

// A small heap may grow by the floor before it is collected.
func TestFloorHeap(t *testing.T) {
	goal := func() uint64 {
		runtime.GC()
		s := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	defer func() { floor.Store(nil) }()
	before := goal()
	FloorHeap()
	if after := goal(); after < before+2*heapFloor*9/10 {
		t.Errorf("the heap is collected at %d bytes, before at %d, want some %d more", after, before, 2*heapFloor)
	}
}
