// SPDX-License-Identifier: Apache-2.0

package procs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"testing"

	"golang.org/x/sys/unix"

	"bfs/test/patience"
)

// readPID waits for the line that names the grandchild.
func readPID(t *testing.T, r io.Reader) (pid int) {
	t.Helper()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if _, err := fmt.Sscanf(lines.Text(), "pid %d", &pid); err == nil {
			return pid
		}
	}
	t.Fatal("the parent named no child")
	return 0
}

// waitForEnd waits until a process that is not our child has ended.
func waitForEnd(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return // it was quick
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}},
			int(patience.For(patience.Usual).Milliseconds()))
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			t.Fatal(err)
		case n == 0:
			t.Fatal("the child lives")
		default:
			return
		}
	}
}
