// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"strings"
	"testing"
)

// Two processes cannot be one replica; when the first has ended the second may.
func TestLockDirectory(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockDirectory(dir)
	if err == nil || !strings.Contains(err.Error(), "another process runs as this replica") {
		t.Errorf("a second lock: got %v, want a refusal that says why", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockDirectory(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	again.Close()
}
