// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// lockDirectory keeps a second process from being the same replica: two that vote under one key are a traitor. The
// lock goes with the process, however it ends.
func lockDirectory(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the replica's directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%s: another process runs as this replica: stop it first (%w)", dir, err)
	}
	return f, nil
}
