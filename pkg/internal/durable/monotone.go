// SPDX-License-Identifier: Apache-2.0

package durable

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// A Monotone is a number that never goes back. It is kept in two files, best on two disks, so that
// putting back an old copy of one of them is noticed. Putting back both at once is not noticed:
// only a peer that remembers the number can notice that.
//
// Each file holds the number and the one before it, 8 bytes each, little-endian. The
// first file is written before the second, so a crash leaves the second with the number
// before. Any other difference means that a file was put back.
//
// One goroutine at a time uses a Monotone.
type Monotone struct {
	paths [2]string
	value uint64
}

// ErrPutBack is the refusal of two files that do not belong together.
var ErrPutBack = errors.New("an old copy of one of these files was put back, or one is lost")

const monotoneSize = 16

// CreateMonotone writes both files, with a number to begin at. It replaces what is there.
func CreateMonotone(paths [2]string, value uint64) (*Monotone, error) {
	m := &Monotone{paths: paths, value: value}
	return m, m.write(value)
}

// OpenMonotone reads both files.
func OpenMonotone(paths [2]string) (*Monotone, error) {
	var value, before [2]uint64
	for i, path := range paths {
		b, err := os.ReadFile(path)
		if err == nil && len(b) != monotoneSize {
			err = fmt.Errorf("%s: got %d bytes, want %d", path, len(b), monotoneSize)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrPutBack, err)
		}
		value[i], before[i] = binary.LittleEndian.Uint64(b), binary.LittleEndian.Uint64(b[8:])
	}
	m := &Monotone{paths: paths, value: value[0]}
	switch value[1] {
	case value[0]:
		return m, nil
	case before[0]:
		return m, m.write(m.value)
	}
	return nil, fmt.Errorf("%w: %s holds %d and %s holds %d", ErrPutBack, paths[0], value[0], paths[1], value[1])
}

// PeekMonotone is the number that one of a Monotone's files holds, 0 if it holds none: for repairs.
func PeekMonotone(path string) uint64 {
	b, err := os.ReadFile(path)
	if err != nil || len(b) != monotoneSize {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// Value is the number.
func (m *Monotone) Value() uint64 { return m.value }

// Raise returns when the number is value on disk, in both files. A lower value changes nothing.
func (m *Monotone) Raise(value uint64) error {
	if value <= m.value {
		return nil
	}
	if err := m.write(value); err != nil {
		return err
	}
	m.value = value
	return nil
}

func (m *Monotone) write(value uint64) error {
	b := binary.LittleEndian.AppendUint64(nil, value)
	b = binary.LittleEndian.AppendUint64(b, m.value)
	for _, path := range m.paths {
		if err := WriteFile(path, b); err != nil {
			return err
		}
	}
	return nil
}
