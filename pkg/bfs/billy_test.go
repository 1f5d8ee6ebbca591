// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/util"

	"bfs/pkg/bfs"
)

// Missing parents are made for a created file, and in no other case.
func TestBillyParents(t *testing.T) {
	fsys, _ := mount(t)
	b := fsys.Billy()
	f, err := b.Create("/a/b//c/./file")
	ok(t, err)
	if f.Name() != "a/b/c/file" {
		t.Errorf("got name %q", f.Name())
	}
	ok(t, f.Close())
	ok(t, b.Symlink("../c/file", "a/b/d/link"))
	ok(t, b.Rename("a/b/c/file", "x/y/moved"))
	ok(t, b.MkdirAll("a/b/c", 0o700))
	temp, err := b.TempFile("tmp/dir", "prefix")
	ok(t, err)
	if !strings.HasPrefix(temp.Name(), "tmp/dir/prefix") {
		t.Errorf("got name %q", temp.Name())
	}
	ok(t, temp.Close())
	for name, err := range map[string]error{
		"open":   second(b.Open("n/o")),
		"stat":   second(b.Stat("n/o")),
		"rename": b.Rename("n/o", "m/o"),
		"remove": b.Remove("n/o"),
		"append": second(b.OpenFile("n/o", os.O_APPEND|os.O_WRONLY, 0o600)),
	} {
		if !os.IsNotExist(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if list, err := b.ReadDir("/"); err != nil || len(list) != 3 || list[0].Name() != "a" || list[2].Name() != "x" {
		t.Errorf("the root: got %v, %v", list, err)
	}
	if _, err := b.Create("a"); !errors.Is(err, syscall.EISDIR) {
		t.Errorf("create over a directory: got %v", err)
	}
	if err := b.MkdirAll("x/y/moved/z", 0o700); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("a directory in a file: got %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A chroot need not be there yet, and is not left: not by name, not by link.
func TestBillyChroot(t *testing.T) {
	fsys, _ := mount(t)
	b := fsys.Billy()
	ok(t, util.WriteFile(b, "secret", []byte("s"), 0o600))
	cage, err := b.Chroot("/deep/cage")
	ok(t, err)
	if cage.Root() != "/deep/cage" || b.Root() != "/" {
		t.Errorf("got roots %q, %q", cage.Root(), b.Root())
	}
	ok(t, util.WriteFile(cage, "in/file", []byte("f"), 0o600))
	ok(t, cage.Symlink("../../../secret", "in/out"))
	ok(t, cage.Symlink("/in/file", "absolute"))
	ok(t, cage.Symlink("..", "in/up"))
	ok(t, cage.Symlink("../..", "in/above"))
	for name, err := range map[string]error{
		"by name":         second(cage.Open("../secret")),
		"by a long name":  second(cage.Create("in/../../x")),
		"by absolute":     second(cage.Stat("/../../secret")),
		"by link":         second(cage.Open("in/out")),
		"by link in path": second(cage.Create("in/above/x")),
		"rename from":     cage.Rename("../secret", "x"),
		"rename to":       cage.Rename("in/file", "../x"),
		"remove":          cage.Remove("../../secret"),
		"readdir":         second(cage.ReadDir("..")),
		"mkdir":           cage.MkdirAll("../x", 0o700),
		"symlink":         cage.Symlink("x", "../x"),
		"readlink":        second(cage.Readlink("../x")),
		"chroot":          second(cage.Chroot("..")),
		"chmod":           cage.(billy.Change).Chmod("in/out", 0o777),
		"temp":            second(cage.TempFile("..", "x")),
	} {
		if err != billy.ErrCrossedBoundary {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if data, err := util.ReadFile(cage, "absolute"); err != nil || string(data) != "f" {
		t.Errorf("absolute link: got %q, %v", data, err)
	}
	if i, err := cage.Stat("in/up/in/file"); err != nil || i.Size() != 1 {
		t.Errorf("link to the root: got %v, %v", i, err)
	}
	if i, err := cage.Stat("/"); err != nil || !i.IsDir() {
		t.Errorf("the root: got %v, %v", i, err)
	}
	ok(t, util.RemoveAll(cage, "in"))
	if list, err := cage.ReadDir(""); err != nil || len(list) != 1 {
		t.Errorf("what is left: got %v, %v", list, err)
	}
}

// Files behave as billy's suite asks: a closed one does nothing, and one opened for
// reading or writing does only that.
func TestBillyFiles(t *testing.T) {
	fsys, _ := mount(t)
	b := fsys.Billy()
	ok(t, util.WriteFile(b, "f", []byte("0123456789"), 0o755))
	r, err := b.Open("f")
	ok(t, err)
	if _, err := r.Write([]byte("x")); err == nil {
		t.Error("wrote to a file open for reading")
	}
	if off, err := r.Seek(-3, io.SeekEnd); off != 7 || err != nil {
		t.Errorf("seek: got %d, %v", off, err)
	}
	if rest, err := io.ReadAll(r); string(rest) != "789" || err != nil {
		t.Errorf("the rest: got %q, %v", rest, err)
	}
	if _, err := r.Seek(-1, io.SeekStart); err == nil {
		t.Error("sought before the beginning")
	}
	p := make([]byte, 4)
	if n, err := r.ReadAt(p, 8); n != 2 || err != io.EOF {
		t.Errorf("at the end: got %d, %v", n, err)
	}
	ok(t, r.Close())
	for name, err := range map[string]error{
		"close": r.Close(), "read": second(r.Read(p)), "readat": second(r.ReadAt(p, 0)), "seek": second(r.Seek(0, 0)),
		"lock": r.Lock(), "unlock": r.Unlock(), "truncate": r.Truncate(0), "stat": second(r.(*bfs.File).Stat()),
		"sync": r.(*bfs.File).Sync(),
	} {
		if !errors.Is(err, fs.ErrClosed) {
			t.Errorf("%s after close: got %v", name, err)
		}
	}
	w, err := b.OpenFile("f", os.O_WRONLY, 0)
	ok(t, err)
	if _, err := w.Read(p); err == nil {
		t.Error("read from a file open for writing")
	}
	ok(t, w.Close())
	if !billy.CapabilityCheck(b, billy.AllCapabilities) {
		t.Error("some capability is missing")
	}
}
