// SPDX-License-Identifier: Apache-2.0

package rawio

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// Unpaced makes a TCP socket send its bytes at once where this machine's default congestion
// control is BBR. BBR spreads sending over time by an estimate of the path's bandwidth, and
// small messages with pauses between them make the estimate low: a WRITE of some KiB then
// waits for milliseconds at each of its hops. On a link within a machine room pacing brings
// nothing. Any other default is left alone. If the kernel refuses, only speed is lost.
func Unpaced(raw syscall.RawConn) {
	_ = raw.Control(func(fd uintptr) {
		name, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil || name != "bbr" {
			return
		}
		if unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic") != nil {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno") // anybody may
		}
	})
}
