// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package disk

import (
	"errors"
	"os"
)

// Allocate implements File, as far as this system can: a later write may fail for want of space.
func (f *osFile) Allocate(size int64) error {
	if have, err := f.Size(); err != nil || have >= size {
		return err
	}
	return f.Truncate(size)
}

// WriteThrough implements File.
func (f *osFile) WriteThrough(b []byte, off int64) error { return f.writeAndSync(b, off) }

// Room returns how many bytes of a directory's file system are free, and how many it has: zeros,
// for this system is not asked.
func Room(string) (free, size uint64, err error) { return 0, 0, errors.ErrUnsupported }

// A directFile reads past the cache where the system is known to allow it.
type directFile struct{}

func (directFile) open(*os.File, []byte, int64) bool       { return false }
func (directFile) ReadAt(b []byte, off int64) (int, error) { return 0, errors.ErrUnsupported }
func (directFile) close() error                            { return nil }
