// SPDX-License-Identifier: Apache-2.0

package blockhash

import (
	"syscall"
	"testing"
)

// A block may lie between memory that is not there, and no byte but its own is read.
func TestSumReadsNothingElse(t *testing.T) {
	page := syscall.Getpagesize()
	room := (Size + page - 1) / page * page
	mem, err := syscall.Mmap(-1, 0, page+room+page, syscall.PROT_READ|syscall.PROT_WRITE,
		syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = syscall.Munmap(mem) }()
	between := mem[page:][:room]
	for _, guard := range [][]byte{mem[:page], mem[page+room:]} {
		if err := syscall.Mprotect(guard, syscall.PROT_NONE); err != nil {
			t.Fatal(err)
		}
	}
	copy(between, noise(1, room))
	check(t, between[:Size])
	check(t, between[room-Size:])
}
