// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bfs/pkg/internal/durable"
)

// A keeperMemory holds the numbers that a keeper must never forget, each in two files:
// the counter of signatures [TOCS §5.2.2], and the serial number of the newest list of
// executables it has obeyed.
type keeperMemory struct{ counter, serial *durable.Monotone }

// Names of a keeper's files. The copies may be in the same directory.
const (
	serialFile = "manifest.serial"
	copySuffix = ".copy"
)

// ErrKeeperMemory is the refusal to start a keeper whose numbers are not known: it could
// sign under a value that it has used.
var ErrKeeperMemory = errors.New("what this keeper must remember is lost or old")

func openMemory(directory, copy string) (m *keeperMemory, err error) {
	m = &keeperMemory{}
	if m.counter, err = durable.OpenMonotone(twoFiles(directory, copy, counterFile)); err == nil {
		m.serial, err = durable.OpenMonotone(twoFiles(directory, copy, serialFile))
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrKeeperMemory, err)
	}
	return m, nil
}

// MarkFreshKeeper makes the directories of a keeper whose key has signed nothing yet.
func MarkFreshKeeper(directory, copy string) error { return writeMemory(directory, copy, 1, 0) }

// RenewKeeper makes the directories of a keeper anew that are lost or hold old copies.
// The counter of signatures goes on above all that was used, at the clock's nanoseconds,
// as Replace has it: it rises by one for each signature and never comes near them. The
// serial number is kept if a file has it, and is 0 if none has; so the caller puts the
// newest list there. It returns that number. Requires that the keeper does not run.
func RenewKeeper(directory, copy string) (serial uint64, err error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return 0, err
	}
	lock, err := lockDirectory(directory)
	if err != nil {
		return 0, err
	}
	defer lock.Close()
	for _, path := range twoFiles(directory, copy, serialFile) {
		serial = max(serial, durable.PeekMonotone(path))
	}
	return serial, writeMemory(directory, copy, uint64(time.Now().UnixNano()), serial)
}

func writeMemory(directory, copy string, counter, serial uint64) error {
	for _, path := range twoFiles(directory, copy, serialFile) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return err
		}
	}
	if _, err := durable.CreateMonotone(twoFiles(directory, copy, serialFile), serial); err != nil {
		return err
	}
	_, err := durable.CreateMonotone(twoFiles(directory, copy, counterFile), counter)
	return err
}

func twoFiles(directory, copy, name string) [2]string {
	if copy == "" {
		copy = directory
	}
	return [2]string{filepath.Join(directory, name), filepath.Join(copy, name+copySuffix)}
}
