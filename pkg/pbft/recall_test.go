// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

// A replica that cannot use its disk names the directory and the next step.
func TestCannotStart(t *testing.T) {
	cfg := &ReplicaConfig{Directory: "/state"}
	for err, step := range map[error]string{
		syscall.ENOSPC: "make room",
		syscall.EIO:    "bfsd replica replace",
		syscall.EPERM:  "",
	} {
		got := cfg.cannotStart("journal", fmt.Errorf("read journal-000: %w", err)).Error()
		if !strings.HasPrefix(got, "journal in /state: read journal-000: ") || !strings.Contains(got, step) {
			t.Errorf("got %q, want %q in it", got, step)
		}
	}
}
