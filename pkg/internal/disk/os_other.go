// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package disk

import "errors"

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
