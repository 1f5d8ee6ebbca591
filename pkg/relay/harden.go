// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Harden prepares the process for its place in the kernel's memory reclaim. When memory is
// short, the kernel writes file pages back through the relay, which must then neither be paged
// out nor wait for that write-back when it allocates. Harden returns a warning for each step
// that it may not take; the relay works without it, and may then hang when memory is short.
//
// Call it first in main: memory mapped later is locked as it is touched.
func Harden() (warnings []string) {
	if why := lockMemory(); why != "" {
		warnings = append(warnings, "memory is not locked: "+why+
			"; give the relay CAP_IPC_LOCK (systemd: AmbientCapabilities=CAP_IPC_LOCK, LimitMEMLOCK=infinity)")
	}
	if why := becomeFlusher(); why != "" {
		warnings = append(warnings, "not marked as an I/O flusher: "+why+
			"; under memory pressure write-back and the relay may wait for each other")
	}
	return warnings
}

// lockMemory locks pages that are touched, now and later. MCL_ONFAULT leaves the
// untouched parts of sparse mappings alone. Under a limit on locked memory a later
// allocation would fail and end the process, so nothing is locked then.
func lockMemory() string {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil {
		return err.Error()
	}
	if limit.Cur != unix.RLIM_INFINITY && !hasCapability(unix.CAP_IPC_LOCK) {
		return fmt.Sprintf("at most %d bytes may be", limit.Cur)
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return err.Error()
	}
	return ""
}

func hasCapability(which uint) bool {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	if err := unix.Capget(&head, &sets[0]); err != nil {
		return false
	}
	return sets[which/32].Effective>>(which%32)&1 != 0
}

// becomeFlusher sets PR_SET_IO_FLUSHER on every thread; those made later inherit it. The
// runtime can reach all threads only in a program without cgo.
func becomeFlusher() string {
	_, _, errno := syscall.AllThreadsSyscall(unix.SYS_PRCTL, unix.PR_SET_IO_FLUSHER, 1, 0)
	switch {
	case errno == 0:
		return ""
	case errors.Is(errno, unix.ENOTSUP):
		return "this program was built with cgo; build it with CGO_ENABLED=0"
	case errors.Is(errno, unix.EPERM):
		return "it needs CAP_SYS_RESOURCE"
	default:
		return errno.Error()
	}
}

// privileged is the first port that any process may use, unless the machine says otherwise.
const privileged = 1024

// portStartFile says from which port on any process of this machine may use ports.
var portStartFile = "/proc/sys/net/ipv4/ip_unprivileged_port_start"

// PortRule says why it protects nothing on this machine that calls must come from a port
// below 1024; "" if it does protect, or if the rule is not in force.
func PortRule(insecurePorts bool) string {
	text, err := os.ReadFile(portStartFile)
	if err != nil || insecurePorts {
		return ""
	}
	start, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || start >= privileged {
		return ""
	}
	return fmt.Sprintf("any process may use ports from %d on, and so claim to be any user of the file "+
		"system: sysctl -w net.ipv4.ip_unprivileged_port_start=%d, and look in "+
		"/etc/sysctl.d for the file that sets it", start, privileged)
}
