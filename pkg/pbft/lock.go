// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
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

// lockForReading keeps a replica from starting, and refuses if one runs.
func lockForReading(dir string) (*os.File, error) {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if errors.Is(err, os.ErrNotExist) { // it has never run, or all is lost
		return os.Open(dir)
	}
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: a replica runs in it: stop it first (%w)", dir, err), f.Close())
	}
	return f, nil
}
