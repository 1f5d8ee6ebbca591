// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Unpaced has a TCP socket send what it is given at once, where this machine's default is BBR. That spreads what is sent over
// time by an estimate of the path's bandwidth, and small messages with pauses between them make it guess low: a WRITE of some
// kilobytes then waits for milliseconds at each of its hops. On a link of a machine room there is nothing to be gained by it. Any
// other default is left alone. A refusal costs speed only.
func Unpaced(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		if name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION); err != nil || name != "bbr" {
			return
		}
		if unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic") != nil {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") // anybody may
		}
	})
}
