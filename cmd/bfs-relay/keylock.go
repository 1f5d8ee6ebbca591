// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// lockKey keeps other processes of this machine from using the same key file until
// unlock. To the group two processes with one key are one client that forgets its own
// requests, and both get I/O errors.
func lockKey(file string) (unlock func(), err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil || errors.Is(err, unix.ENOLCK): // a file system without locks cannot tell
		return func() { f.Close() }, nil
	case errors.Is(err, unix.EWOULDBLOCK):
		err = fmt.Errorf("%s: another bfs-relay uses this key: end it, "+
			"or make this one a key of its own with `bfs-relay init`", file)
	default:
		err = fmt.Errorf("%s: lock: %w", file, err)
	}
	f.Close()
	return nil, err
}
