// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A directFile is a second opening of a file, for reads that go past the cache of the kernel
// [open(2), O_DIRECT]. Its zero value is closed.
type directFile struct {
	once sync.Once
	*os.File
}

// directAlign divides addresses and offsets of direct reads, on any disk.
const directAlign = 4096

// open reports whether a read of f into b is to go past the cache, and opens the file for that.
func (d *directFile) open(f *os.File, b []byte, off int64) bool {
	address := uintptr(unsafe.Pointer(unsafe.SliceData(b)))
	if address%directAlign != 0 || off%directAlign != 0 || len(b)%directAlign != 0 || cached(f, off, len(b)) {
		return false
	}
	d.once.Do(func() {
		again := fmt.Sprintf("/proc/self/fd/%d", f.Fd())
		d.File, _ = os.OpenFile(again, os.O_RDONLY|unix.O_DIRECT, 0) // not every file system can
	})
	return d.File != nil
}

// cached reports whether a part of a file is in the cache, or whether the kernel does not tell (it
// does from Linux 6.5 on).
func cached(f *os.File, off int64, length int) bool {
	var c unix.Cachestat_t
	r := unix.CachestatRange{Off: uint64(off), Len: uint64(length)}
	err := retry(func() error { return unix.Cachestat(uint(f.Fd()), &r, &c, 0) })
	return err != nil || int(c.Cache)*os.Getpagesize() >= length
}

func (d *directFile) close() error {
	if d.File == nil {
		return nil
	}
	return d.File.Close()
}
