// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/go-git/go-billy/v5"
	"github.com/go-git/go-billy/v5/util"

	"bfs/pkg/nfs3"
)

// Billy is an FS with the methods of go-billy. It cannot be the FS itself, because the
// two Opens differ. Names may begin with a slash or none, which means the same; dots are
// removed before the name is walked, and a name that leads above the root is
// ErrCrossedBoundary. Missing parents of a created file are made.
type Billy struct{ fs *FS }

var (
	_ billy.Filesystem = (*Billy)(nil)
	_ billy.Change     = (*Billy)(nil)
	_ billy.Capable    = (*Billy)(nil)
	_ billy.File       = (*File)(nil)
)

// Billy returns the file system for programs that want a billy.Filesystem.
func (f *FS) Billy() *Billy { return &Billy{f} }

// FS returns the FS behind Billy.
func (b *Billy) FS() *FS { return b.fs }

// parentMode is the mode of directories that are made because something in them is.
const parentMode fs.FileMode = 0o777

// clean makes a walkable name, "." for the root.
func clean(name string) (string, error) {
	name = path.Clean(strings.TrimLeft(name, "/"))
	if name == ".." || strings.HasPrefix(name, "../") {
		return "", ErrCrossedBoundary
	}
	return name, nil
}

// bare undoes wrap for the one error that billy's users compare.
func bare(err error) error {
	if errors.Is(err, ErrCrossedBoundary) {
		return ErrCrossedBoundary
	}
	return err
}

// withParent runs do, and once more with the parent made if that was missing.
func (b *Billy) withParent(name string, do func() error) error {
	err := do()
	if errors.Is(err, fs.ErrNotExist) && b.fs.mkdirAll(path.Dir(name), parentMode) == nil {
		err = do()
	}
	return bare(err)
}

// Create is OpenFile for reading, writing and truncating.
func (b *Billy) Create(name string) (billy.File, error) {
	return b.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// Open is OpenFile for reading.
func (b *Billy) Open(name string) (billy.File, error) { return b.OpenFile(name, os.O_RDONLY, 0) }

// OpenFile opens a file; its Name is the cleaned one.
func (b *Billy) OpenFile(name string, flag int, perm fs.FileMode) (billy.File, error) {
	name, err := clean(name)
	if err != nil {
		return nil, err
	}
	var file *File
	open := func() (err error) {
		file, err = b.fs.openFile(name, flag, perm)
		return err
	}
	if flag&os.O_CREATE != 0 {
		err = b.withParent(name, open)
	} else {
		err = bare(open())
	}
	if err != nil {
		return nil, err
	}
	return file, nil
}

// Stat follows symbolic links.
func (b *Billy) Stat(name string) (fs.FileInfo, error) { return b.stat("stat", name, true) }

// Lstat does not follow the last.
func (b *Billy) Lstat(name string) (fs.FileInfo, error) { return b.stat("lstat", name, false) }

func (b *Billy) stat(op, name string, follow bool) (fs.FileInfo, error) {
	name, err := clean(name)
	if err != nil {
		return nil, err
	}
	i, err := b.fs.stat(op, name, follow)
	return i, bare(err)
}

// Rename makes the directory it renames into, if that is missing.
func (b *Billy) Rename(from, to string) error {
	from, err := clean(from)
	if err != nil {
		return err
	}
	if to, err = clean(to); err != nil {
		return err
	}
	move := func() error { return b.fs.move(from, to) }
	if err = move(); errors.Is(err, fs.ErrNotExist) {
		if _, e := b.fs.find(from, false); e == nil {
			err = b.withParent(to, move)
		}
	}
	return bare(wrapLink("rename", from, to, err))
}

// Remove removes a file or an empty directory.
func (b *Billy) Remove(name string) error {
	name, err := clean(name)
	if err != nil {
		return err
	}
	return bare(wrap("remove", name, b.fs.unlink(name)))
}

// RemoveAll removes a tree. billy's util.RemoveAll uses it where a file system offers it.
func (b *Billy) RemoveAll(name string) error {
	name, err := clean(name)
	if err != nil {
		return err
	}
	return bare(b.fs.removeAll(name))
}

// Join is path.Join.
func (b *Billy) Join(elem ...string) string { return path.Join(elem...) }

// TempFile makes a file with a name of its own.
func (b *Billy) TempFile(dir, prefix string) (billy.File, error) {
	return util.TempFile(b, dir, prefix)
}

// ReadDir lists a directory by name.
func (b *Billy) ReadDir(name string) ([]fs.FileInfo, error) {
	name, err := clean(name)
	if err != nil {
		return nil, err
	}
	list, err := b.fs.readDir(name)
	if err != nil {
		return nil, bare(err)
	}
	infos := make([]fs.FileInfo, len(list))
	for i, e := range list {
		infos[i] = e
	}
	return infos, nil
}

// MkdirAll makes a directory and its parents.
func (b *Billy) MkdirAll(name string, perm fs.FileMode) error {
	name, err := clean(name)
	if err != nil {
		return err
	}
	return bare(b.fs.mkdirAll(name, perm))
}

// Symlink makes a symbolic link with the text target.
func (b *Billy) Symlink(target, name string) error {
	name, err := clean(name)
	if err != nil {
		return err
	}
	return b.withParent(name, func() error { return wrapLink("symlink", target, name, b.fs.makeSymlink(target, name)) })
}

// Readlink returns the text of a symbolic link.
func (b *Billy) Readlink(name string) (string, error) {
	name, err := clean(name)
	if err != nil {
		return "", err
	}
	text, err := b.fs.readLink(name)
	return text, bare(err)
}

// Chroot returns the file system below a directory, which need not be there yet.
func (b *Billy) Chroot(name string) (billy.Filesystem, error) {
	name, err := clean(name)
	if err != nil {
		return nil, err
	}
	return b.fs.below(name).Billy(), nil
}

// Root is the directory of the export that this file system begins at.
func (b *Billy) Root() string { return "/" + b.fs.base }

// Capabilities are all; but see File.Lock.
func (b *Billy) Capabilities() billy.Capability { return billy.AllCapabilities }

// Chmod follows symbolic links.
func (b *Billy) Chmod(name string, mode fs.FileMode) error {
	return b.change("chmod", name, true, nfs3.Sattr3{SetMode: true, Mode: bitsOf(mode)})
}

// Chown follows symbolic links.
func (b *Billy) Chown(name string, uid, gid int) error {
	return b.change("chown", name, true, owners(uid, gid))
}

// Lchown does not follow the last.
func (b *Billy) Lchown(name string, uid, gid int) error {
	return b.change("lchown", name, false, owners(uid, gid))
}

// Chtimes follows symbolic links.
func (b *Billy) Chtimes(name string, atime, mtime time.Time) error {
	return b.change("chtimes", name, true, times(atime, mtime))
}

func (b *Billy) change(op, name string, follow bool, s nfs3.Sattr3) error {
	name, err := clean(name)
	if err != nil {
		return err
	}
	return bare(wrap(op, name, b.fs.set(name, follow, s)))
}
