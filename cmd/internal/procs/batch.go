// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// schedBatch is SCHED_BATCH [sched(7)].
const schedBatch = 3

// Batch asks the kernel not to let this process interrupt others when it is woken. What wakes a replica or a relay is one message,
// often the first of several: who sent it is about to send to others, and more answers are about to come. To finish that first
// costs nobody anything, and one waking then serves for all. (A single server and its client wait for nobody but each other: it
// would only delay them.) A kernel that has no such policy, or a program built with cgo, whose threads cannot be reached, works
// as before.
func Batch() {
	var priority int32
	_, _, _ = syscall.AllThreadsSyscall(unix.SYS_SCHED_SETSCHEDULER, 0, schedBatch, uintptr(unsafe.Pointer(&priority)))
}
