// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// userHZ is the unit of times in /proc/PID/stat on every architecture Linux has kept.
const userHZ = 100

// CPU is the time a process, with all its threads, has run so far: user and system, to 10 ms each.
func CPU(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(text))
}

// parseStat reads fields 14 and 15, counted from 1. Field 2 is the program's name in
// brackets, which may hold anything.
func parseStat(text string) (time.Duration, error) {
	_, rest, ok := cutLast(text, ")")
	fields := strings.Fields(rest)
	if !ok || len(fields) < 13 {
		return 0, fmt.Errorf("stat of a process: got %q", text)
	}
	user, err := strconv.ParseUint(fields[11], 10, 62)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseUint(fields[12], 10, 62)
	if err != nil {
		return 0, err
	}
	return time.Duration(user+system) * (time.Second / userHZ), nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
