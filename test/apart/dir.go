// SPDX-License-Identifier: Apache-2.0

package apart

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// homeVariable passes the directory that Common returns to the processes of a run,
// because their TMPDIR is another one.
const homeVariable = "BFS_TESTS_HOME"

// Common returns a directory that all runs of this user share, now and later.
func Common() (string, error) {
	path := os.Getenv(homeVariable)
	if path == "" {
		path = filepath.Join(os.TempDir(), fmt.Sprintf("bfs-tests-%d", os.Getuid()))
		_ = os.Setenv(homeVariable, path)
	}
	if err := os.MkdirAll(path, 0o711); err != nil { // other users that a guest acts as pass through it
		return "", err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return "", err
	}
	if s, ok := info.Sys().(*syscall.Stat_t); !ok || !info.IsDir() || int(s.Uid) != os.Getuid() {
		return "", fmt.Errorf("%s is not a directory of this user: remove it, or set TMPDIR", path)
	}
	return path, nil
}

// A dir is the temporary directory of a run. Its lock shows that the run is alive: the
// kernel drops the lock with the process.
type dir struct {
	path string
	lock *os.File
}

const runPattern = "run-"

// newDir removes the directories of killed runs, and makes this run's directory.
func newDir() (*dir, error) {
	common, err := Common()
	if err != nil {
		return nil, err
	}
	// A directory that is made and not yet locked looks like one that a killed run has left.
	turn, err := lock(filepath.Join(common, "turn"), os.O_CREATE|os.O_RDWR, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	defer turn.Close()
	sweep(common)
	path, err := os.MkdirTemp(common, runPattern)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o711); err != nil {
		return nil, err
	}
	held, err := lock(path, os.O_RDONLY, unix.LOCK_EX)
	if err != nil {
		return nil, err
	}
	return &dir{path, held}, nil
}

func (d *dir) remove() {
	_ = os.RemoveAll(d.path)
	d.lock.Close()
}

// sweep removes the directories of runs that have ended.
func sweep(common string) {
	left, _ := filepath.Glob(filepath.Join(common, runPattern+"*"))
	for _, path := range left {
		if held, err := lock(path, os.O_RDONLY, unix.LOCK_EX|unix.LOCK_NB); err == nil {
			_ = os.RemoveAll(path)
			held.Close()
		}
	}
}

// lock opens a file and takes its lock, which ends when the file is closed.
func lock(path string, flags, how int) (*os.File, error) {
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
	}
}
