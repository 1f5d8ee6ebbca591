// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package disk

// Allocate implements File, as far as this system can: a later write may fail for want of space.
func (f *osFile) Allocate(size int64) error {
	if have, err := f.Size(); err != nil || have >= size {
		return err
	}
	return f.Truncate(size)
}
