// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// schedBatch is SCHED_BATCH [sched(7)].
const schedBatch = 3

// Batch asks the kernel not to let this process preempt others when it wakes. A replica
// or a relay is woken by one message, often the first of several: its sender is about to
// send to others, and more answers are about to come. Letting the sender finish first
// costs nothing, and one wake-up then serves all of these messages. (A single server and
// its client wait only for each other, and would be delayed.) A kernel without this
// policy, and a program built with cgo, whose threads cannot be reached, work as before.
func Batch() {
	var priority int32
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedBatch, uintptr(unsafe.Pointer(&priority)))
}
