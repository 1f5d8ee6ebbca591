// SPDX-License-Identifier: Apache-2.0

package signing

import (
	"net"
	"syscall"
)

// peerUser is the number of the user whose process made the connection, as the kernel
// says (SO_PEERCRED).
func peerUser(c *net.UnixConn) (uint32, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return 0, err
	}
	return credentials.Uid, nil
}
