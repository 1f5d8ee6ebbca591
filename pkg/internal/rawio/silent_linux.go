// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxSlices bounds the slices that one silent call writes.
const maxSlices = 8

// Silent calls are not announced to the scheduler.
var Silent = Calls{Read: readSilently, Write: writeSilently}

func readSilently(fd uintptr, p []byte) (int, error) {
	n, err := silently(unix.SYS_READ, fd, unsafe.Pointer(unsafe.SliceData(p)), min(len(p), most))
	afterSilentRead(fd)
	return n, err
}

// writeSilently makes an ordinary call if the bytes are many.
func writeSilently(fd uintptr, slices [][]byte) (int, error) {
	total := 0
	for _, s := range slices {
		total += len(s)
	}
	if total > most || len(slices) > maxSlices {
		return write(fd, slices)
	}
	beforeSilentWrite()
	if len(slices) == 1 {
		return silently(unix.SYS_WRITE, fd, unsafe.Pointer(unsafe.SliceData(slices[0])), total)
	}
	var vector [maxSlices]unix.Iovec
	for i, s := range slices {
		vector[i].Base = unsafe.SliceData(s)
		vector[i].SetLen(len(s))
	}
	return silently(unix.SYS_WRITEV, fd, unsafe.Pointer(&vector), len(slices))
}

// silently repeats a call until it is not interrupted. The memory that p points to does
// not move meanwhile, because p becomes a number only within the call.
func silently(call, fd uintptr, p unsafe.Pointer, n int) (int, error) {
	for {
		r, _, errno := unix.RawSyscall(call, fd, uintptr(p), uintptr(n))
		switch errno {
		case 0:
			return int(r), nil
		case unix.EINTR:
		default:
			return 0, errno
		}
	}
}
