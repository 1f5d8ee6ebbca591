// SPDX-License-Identifier: Apache-2.0

package rawio

import "golang.org/x/sys/unix"

// Ordinary calls are announced to the scheduler. They are for other systems, and for tests.
var Ordinary = Calls{
	Read: func(fd uintptr, p []byte) (int, error) {
		return again(func() (int, error) { return unix.Read(int(fd), p) })
	},
	Write: write,
}

func write(fd uintptr, slices [][]byte) (int, error) {
	if len(slices) == 1 {
		return again(func() (int, error) { return unix.Write(int(fd), slices[0]) })
	}
	return again(func() (int, error) { return unix.Writev(int(fd), slices) })
}

// again makes a call until it is not interrupted.
func again(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		default:
			return 0, err
		}
	}
}
