// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Memory returns how many bytes of memory this process can have: the machine's, or the least limit
// of the control groups that it is in.
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
	groups, _ := os.ReadFile("/proc/self/cgroup") // without control groups there is no limit
	return min(kib<<10, groupMemory(string(groups), "/sys/fs/cgroup")), nil
}

// groupMemory returns the lowest limit of a process's control groups, which are mounted
// at a directory. groups is the kernel's list of them: a line "0::PATH" in version 2, and
// "NUMBER:memory:PATH" in version 1.
func groupMemory(groups, mounted string) uint64 {
	lowest := uint64(math.MaxUint64)
	for line := range strings.Lines(groups) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) < 3 {
			continue
		}
		switch fields[1] {
		case "":
			lowest = min(lowest, limitAbove(mounted, fields[2], "memory.max"))
		case "memory":
			lowest = min(lowest, limitAbove(path.Join(mounted, "memory"), fields[2], "memory.limit_in_bytes"))
		}
	}
	return lowest
}

// limitAbove is the lowest limit of a group and of all that it is in.
func limitAbove(mounted, group, file string) uint64 {
	lowest := uint64(math.MaxUint64)
	for at := path.Clean("/" + group); ; at = path.Dir(at) {
		text, err := os.ReadFile(path.Join(mounted, at, file))
		if err == nil {
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil { // else it is "max"
				lowest = min(lowest, n)
			}
		}
		if at == "/" {
			return lowest
		}
	}
}

// Resident is a process's resident set in bytes, as the kernel counts it.
func Resident(pid int) (uint64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0, errors.New("statm: no resident set in it")
	}
	pages, err := strconv.ParseUint(fields[1], 10, 64)
	return pages * uint64(os.Getpagesize()), err
}
