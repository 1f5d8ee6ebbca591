// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A file system that is mounted read-only refuses to open a file for writing, to root, too. (Root
// may write to files without that permission, so the flags of the open file are looked at.)
func TestReadOnlyOpensToRead(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte("kept"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ReadOnly(OS(dir)).Open("f")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	flags, err := unix.FcntlInt(f.(readOnlyFile).File.(*osFile).Fd(), unix.F_GETFL, 0)
	if err != nil || flags&unix.O_ACCMODE != unix.O_RDONLY {
		t.Errorf("opened with flags %#o, %v", flags, err)
	}
	if n, err := f.WriteAt([]byte("lost"), 0); n != 4 || err != nil {
		t.Errorf("a write: %d, %v", n, err)
	}
	got := make([]byte, 4)
	if _, err := f.ReadAt(got, 0); err != nil || string(got) != "kept" {
		t.Errorf("read back %q, %v", got, err)
	}
}
