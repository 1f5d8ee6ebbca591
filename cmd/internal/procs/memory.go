// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// Memory returns the number of bytes of memory that this process can have: those of the machine, or of its
// control group if these are fewer.
func Memory() (uint64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	var kib uint64
	_, rest, _ := strings.Cut(string(text), "MemTotal:")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		return 0, fmt.Errorf("/proc/meminfo: no MemTotal: %w", err)
	}
	return min(kib<<10, groupMemory()), nil
}

// groupMemory is the limit of this process's control group, of version 2; without one it is no limit.
func groupMemory() uint64 {
	const none = ^uint64(0)
	group, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return none
	}
	_, path, ok := strings.Cut(strings.TrimSpace(string(group)), "0::")
	if !ok {
		return none
	}
	text, err := os.ReadFile("/sys/fs/cgroup" + path + "/memory.max")
	if err != nil {
		return none
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil {
		return n
	}
	return none // "max"
}
