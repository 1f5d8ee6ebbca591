// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"bfs/pkg/internal/disk"
	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/store"
)

// Files of a replica's directory.
const (
	fenceFile   = "fence"             // see package fence
	counterFile = "signature.counter" // signatures that the long-term key has made; the keeper's, if there is one

	// freshFile marks the directory of a replica that has never run. The command that
	// makes a group writes it, and the first start removes it.
	freshFile = "fresh"

	// restoredFile marks, beside freshFile, a directory that holds the checkpoint with
	// which its group begins.
	restoredFile = "restored"

	// recoveringFile marks a recovery that is not over. A start that finds it is a
	// recovery too. It has a line for each start since.
	recoveringFile = "recovering"

	// journalDirectory is where journal and image lie.
	journalDirectory = "disk"
)

// path is where a file of the replica's directory lies.
func (cfg *ReplicaConfig) path(name string) string { return filepath.Join(cfg.Directory, name) }

// holds reports whether the directory holds a file. A file that cannot be looked at
// counts as there: reading it gives the error.
func (cfg *ReplicaConfig) holds(name string) bool {
	_, err := os.Lstat(cfg.path(name))
	return !errors.Is(err, os.ErrNotExist)
}

// MustRecover reports whether the next start of the replica with this directory is a
// recovery, whatever is asked for: the last recovery has not come to its end, or the
// replica has found that its state is false.
func MustRecover(directory string) bool {
	_, err := os.Lstat(filepath.Join(directory, recoveringFile))
	return err == nil
}

// unused reports whether the counter is as a first start writes it: that start ended
// before it wrote the fence.
func (cfg *ReplicaConfig) unused() bool {
	b, err := os.ReadFile(cfg.path(counterFile))
	return err == nil && len(b) == 8 && binary.LittleEndian.Uint64(b) == 1
}

// writeCounter writes the counter of signatures, unless the keeper has it.
func (cfg *ReplicaConfig) writeCounter(value uint64) error {
	if cfg.Keeper != "" {
		return nil
	}
	return durable.WriteFile(cfg.path(counterFile), binary.LittleEndian.AppendUint64(nil, value))
}

// unmark removes the marks of a replica that has never run, the more important one last.
func (cfg *ReplicaConfig) unmark() error {
	for _, name := range []string{restoredFile, freshFile} {
		if err := os.Remove(cfg.path(name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}

// openDisk opens the directory of journal and image. (A variable for tests.)
var openDisk = disk.OS

// storeOptions say where a replica's journal is, and whose.
func (cfg *ReplicaConfig) storeOptions() store.Options {
	limits := cfg.Group.wire()
	return store.Options{Disk: openDisk(filepath.Join(cfg.Directory, journalDirectory)), Group: cfg.Group.Digest(),
		SegmentBytes: cfg.Group.segmentBytes(), Self: cfg.Self, Limits: &limits}
}

// leastSegment is the least length of a segment of the journal: batches are journaled for
// some tens of MiB before the image follows, so that pages which change often are written
// less often. (A variable for tests.)
var leastSegment = 16 << 20

// segmentBytes is the length of a segment of the journal: several of the longest records fit.
func (g *Group) segmentBytes() int { return max(leastSegment, 4*(g.maxFrame()+4096)/4096*4096) }

// lockDirectory keeps a second process from being the same replica: two processes that vote
// under one key are a faulty replica. The lock goes with the process, however it ends.
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
