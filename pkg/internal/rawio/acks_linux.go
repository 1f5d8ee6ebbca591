// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holdAcks lets acknowledgements on a socket wait for company. Where nothing is sent back they have nothing to ride on, and
// the kernel sends one by itself whenever all that came has been read: a packet for each message, which costs sender and receiver
// together as much as a quarter of the message does. The kernel forgets it after the first acknowledgement that found no company.
func holdAcks(fd uintptr) {
	// Not announced to the scheduler: it only sets a flag.
	off := int32(0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK, uintptr(unsafe.Pointer(&off)), unsafe.Sizeof(off), 0)
}
