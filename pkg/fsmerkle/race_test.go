// SPDX-License-Identifier: Apache-2.0

//go:build race

package fsmerkle

// Under the race detector the store's memory is Go's, so that it is watched too. Chunks
// are small, because Go allocates memory where mmap only reserves addresses.
func init() {
	mapMemory = func(size uint64) ([]byte, error) { return make([]byte, size), nil }
	unmapMemory = func([]byte) error { return nil }
	giveBack = func(b []byte) error { clear(b); return nil }
	protect = func([]byte) error { return nil }
	ready = func([]byte) {}
	chunkShift = 6
	twinSteps = 60
}
