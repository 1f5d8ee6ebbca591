// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// holdAcks delays acknowledgements on a socket. On a connection where nothing is sent back they
// cannot ride on data, and the kernel sends one whenever all received bytes have been read: a
// packet for each message, which costs sender and receiver together as much as a quarter of the
// message does. The kernel ends the delay after the first acknowledgement that it sent alone.
func holdAcks(fd uintptr) {
	// Not announced to the scheduler: it only sets a flag.
	off := int32(0)
	_, _, _ = syscall.RawSyscall6(unix.SYS_SETSOCKOPT, fd, unix.IPPROTO_TCP, unix.TCP_QUICKACK,
		uintptr(unsafe.Pointer(&off)), unsafe.Sizeof(off), 0)
}
