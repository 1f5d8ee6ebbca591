// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// Allocate implements File. A file system that cannot reserve blocks gets a longer file
// only, and its writes may fail.
func (f *osFile) Allocate(size int64) error {
	have, err := f.Size()
	if err != nil || have >= size {
		return err
	}
	err = retry(func() error { return unix.Fallocate(int(f.Fd()), 0, have, size-have) })
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		err = f.Truncate(size)
	}
	if err != nil {
		return fmt.Errorf("allocate %d bytes of %s: %w", size, f.Name(), err)
	}
	return nil
}

// Sync makes the contents durable, and of the attributes only what is needed to read them again.
func (f *osFile) Sync() error {
	if err := retry(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {
		return fmt.Errorf("sync %s: %w", f.Name(), err)
	}
	return nil
}

// WriteThrough implements File, with one system call where the file system can.
func (f *osFile) WriteThrough(b []byte, off int64) error {
	for len(b) > 0 {
		n := 0
		err := retry(func() (err error) {
			n, err = unix.Pwritev2(int(f.Fd()), [][]byte{b}, off, unix.RWF_DSYNC)
			return err
		})
		if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
			return f.writeAndSync(b, off)
		}
		if err != nil {
			return fmt.Errorf("write %s durably: %w", f.Name(), err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Room returns how many bytes of a directory's file system are free for this user, and
// how many it has.
func Room(directory string) (free, size uint64, err error) {
	var s unix.Statfs_t
	if err := retry(func() error { return unix.Statfs(directory, &s) }); err != nil {
		return 0, 0, fmt.Errorf("ask for the room of %s: %w", directory, err)
	}
	each := uint64(s.Bsize)
	return s.Bavail * each, s.Blocks * each, nil
}
