// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"
	"time"

	"bfs/pkg/nfs3"
)

// An FS is one export, or a directory of it, as one user sees it. Its methods take the
// names of io/fs and behave like the functions of package os.
type FS struct {
	*mount
	ctx   context.Context // ends the calls made through this FS
	root  nfs3.Handle     // of the mount
	base  string          // the directory below it where names begin; "" is the root itself
	umask fs.FileMode
}

var (
	_ fs.FS         = (*FS)(nil)
	_ fs.StatFS     = (*FS)(nil)
	_ fs.ReadDirFS  = (*FS)(nil)
	_ fs.ReadFileFS = (*FS)(nil)
	_ fs.ReadLinkFS = (*FS)(nil)
	_ fs.SubFS      = (*FS)(nil)
)

// DefaultUmask is removed from the modes of created files, unless WithUmask gave another
// mask. The process's own umask is not used, because it can be read only by changing it,
// which would affect other goroutines.
const DefaultUmask fs.FileMode = 0o022

// Mount looks up an export, or a directory below it, for a user. ctx is for this call alone; see
// WithContext. There is nothing to unmount.
func Mount(ctx context.Context, group Invoker, export string, cred nfs3.Credentials) (*FS, error) {
	if len(cred.Groups) > nfs3.MaxGroups {
		return nil, fmt.Errorf("bfs: got %d groups, want <= %d", len(cred.Groups), nfs3.MaxGroups)
	}
	m := &mount{group: group, cred: cred, calls: make(chan struct{}, maxOutstanding)}
	a := &nfs3.MountArgs{Path: []byte(export)}
	r, err := call(ctx, m, nfs3.ProgramMount, nfs3.MountProcMnt, a, len(export), nfs3.DecodeMountResult)
	if err == nil && r.Status != nfs3.MountOK {
		err = statusError(nfs3.Status(r.Status)) // the two enums share their numbers [RFC1813 §5.1.5]
	}
	if err != nil {
		return nil, wrap("mount", export, err)
	}
	return &FS{mount: m, ctx: context.Background(), root: r.Handle, umask: DefaultUmask}, nil
}

// WithContext returns the same file system with calls that end when ctx does. Calls under
// way then may still be executed.
func (f *FS) WithContext(ctx context.Context) *FS {
	g := *f
	g.ctx = ctx
	return &g
}

// WithUmask returns the same file system with another umask.
func (f *FS) WithUmask(mask fs.FileMode) *FS {
	g := *f
	g.umask = mask.Perm()
	return &g
}

// below returns the FS whose names begin at name.
func (f *FS) below(name string) *FS {
	g := *f
	if name != "." {
		g.base = path.Join(f.base, name)
	}
	return &g
}

func (f *FS) bits(m fs.FileMode) uint32 { return bitsOf(m &^ f.umask) }

// valid refuses the names that io/fs refuses.
func valid(op, name string) error {
	if !fs.ValidPath(name) {
		return &fs.PathError{Op: op, Path: name, Err: fs.ErrInvalid}
	}
	return nil
}

// Open opens a file or directory for reading.
func (f *FS) Open(name string) (fs.File, error) {
	file, err := f.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err // and not a nil *File
	}
	return file, nil
}

// Create makes a file or cuts it to nothing, and opens it for both.
func (f *FS) Create(name string) (*File, error) {
	return f.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o666)
}

// OpenFile is os.OpenFile.
func (f *FS) OpenFile(name string, flag int, perm fs.FileMode) (*File, error) {
	if err := valid("open", name); err != nil {
		return nil, err
	}
	return f.openFile(name, flag, perm)
}

// Stat is os.Stat: it follows symbolic links.
func (f *FS) Stat(name string) (fs.FileInfo, error) {
	if err := valid("stat", name); err != nil {
		return nil, err
	}
	return f.stat("stat", name, true)
}

// Lstat is os.Lstat.
func (f *FS) Lstat(name string) (fs.FileInfo, error) {
	if err := valid("lstat", name); err != nil {
		return nil, err
	}
	return f.stat("lstat", name, false)
}

func (f *FS) stat(op, name string, follow bool) (fs.FileInfo, error) {
	p, err := f.find(name, follow)
	if err != nil {
		return nil, wrap(op, name, err)
	}
	return &info{name: path.Base(name), attr: p.node.attr}, nil
}

// ReadDir lists a directory by name.
func (f *FS) ReadDir(name string) ([]fs.DirEntry, error) {
	if err := valid("readdir", name); err != nil {
		return nil, err
	}
	list, err := f.readDir(name)
	return dirEntries(list), err
}

func (f *FS) readDir(name string) ([]*info, error) {
	p, err := f.find(name, true)
	if err != nil {
		return nil, wrap("readdir", name, err)
	}
	list, err := f.list(p.node.handle)
	return list, wrap("readdir", name, err)
}

// ReadFile returns all of a file, with several READs under way if it is long.
func (f *FS) ReadFile(name string) ([]byte, error) {
	file, err := f.OpenFile(name, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return file.readAll()
}

// WriteFile makes a file of data, as os.WriteFile does: not atomically.
func (f *FS) WriteFile(name string, data []byte, perm fs.FileMode) error {
	file, err := f.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, perm)
	if err != nil {
		return err
	}
	defer file.Close()
	if len(data) == 0 {
		return nil
	}
	_, err = file.Write(data)
	return err
}

// Sub returns the file system whose root is a directory of this one.
func (f *FS) Sub(dir string) (fs.FS, error) {
	if err := valid("sub", dir); err != nil {
		return nil, err
	}
	p, err := f.find(dir, true)
	if err == nil && !p.node.is(nfs3.TypeDir) {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, wrap("sub", dir, err)
	}
	return f.below(dir), nil
}

// ReadLink returns the text of a symbolic link.
func (f *FS) ReadLink(name string) (string, error) {
	if err := valid("readlink", name); err != nil {
		return "", err
	}
	return f.readLink(name)
}

func (f *FS) readLink(name string) (string, error) {
	p, err := f.find(name, false)
	if err == nil && !p.node.is(nfs3.TypeLnk) {
		err = syscall.EINVAL
	}
	if err != nil {
		return "", wrap("readlink", name, err)
	}
	text, err := f.readlink(p.node.handle)
	return text, wrap("readlink", name, err)
}

// Usage is the room in the export, in bytes and in files.
type Usage struct {
	Bytes, FreeBytes, AvailableBytes uint64
	Files, FreeFiles, AvailableFiles uint64
}

// Usage asks for the room that is left [RFC1813 §3.3.18].
func (f *FS) Usage() (Usage, error) {
	a := &nfs3.FsstatArgs{Root: f.root.FileHandle()}
	r, err := nfs(f, nfs3.ProcFsstat, a, nfs3.DecodeFsstatResult)
	if err == nil {
		err = statusError(r.Status)
	}
	return Usage{r.Tbytes, r.Fbytes, r.Abytes, r.Tfiles, r.Ffiles, r.Afiles}, wrap("statfs", ".", err)
}

// Mkdir is os.Mkdir.
func (f *FS) Mkdir(name string, perm fs.FileMode) error {
	if err := valid("mkdir", name); err != nil {
		return err
	}
	return wrap("mkdir", name, f.makeDirectory(name, perm))
}

func (f *FS) makeDirectory(name string, perm fs.FileMode) error {
	p, err := f.walk(name, false)
	if err != nil {
		return err
	}
	if p.found {
		return syscall.EEXIST
	}
	_, err = f.mkdir(p.dir, p.base, f.bits(perm))
	return err
}

// MkdirAll is os.MkdirAll.
func (f *FS) MkdirAll(name string, perm fs.FileMode) error {
	if err := valid("mkdir", name); err != nil {
		return err
	}
	return f.mkdirAll(name, perm)
}

func (f *FS) mkdirAll(name string, perm fs.FileMode) error {
	p, err := f.walk(name, true)
	switch {
	case err == nil && p.found && p.node.is(nfs3.TypeDir):
		return nil
	case err == nil && p.found:
		return wrap("mkdir", name, syscall.ENOTDIR)
	case errors.Is(err, fs.ErrNotExist):
		if name == "." { // our own base is missing
			return f.above().mkdirAll(f.base, perm)
		}
		if err := f.mkdirAll(path.Dir(name), perm); err != nil {
			return err
		}
	case err != nil:
		return wrap("mkdir", name, err)
	}
	err = f.makeDirectory(name, perm)
	if errors.Is(err, fs.ErrExist) { // another client was faster
		if i, e := f.stat("stat", name, true); e == nil && i.IsDir() {
			return nil
		}
	}
	return wrap("mkdir", name, err)
}

// above is the FS at the root of the mount.
func (f *FS) above() *FS {
	g := *f
	g.base = ""
	return &g
}

// Remove removes a file or an empty directory.
func (f *FS) Remove(name string) error {
	if err := valid("remove", name); err != nil {
		return err
	}
	return wrap("remove", name, f.unlink(name))
}

func (f *FS) unlink(name string) error {
	p, err := f.find(name, false)
	if err != nil {
		return err
	}
	if p.root() {
		return syscall.EBUSY
	}
	return f.remove(p.dir, p.base, p.node.is(nfs3.TypeDir))
}

// RemoveAll removes a file or a directory with all that is in it. It is no error if there is none.
func (f *FS) RemoveAll(name string) error {
	if err := valid("removeall", name); err != nil {
		return err
	}
	return f.removeAll(name)
}

func (f *FS) removeAll(name string) error {
	p, err := f.walk(name, false)
	switch {
	case errors.Is(err, fs.ErrNotExist) || err == nil && !p.found:
		return nil
	case err == nil && p.root():
		err = syscall.EBUSY
	case err == nil:
		err = f.removeTree(p.dir, p.base, p.node)
	}
	return wrap("removeall", name, err)
}

// removeTree works by handles, so that it never follows a name elsewhere.
func (f *FS) removeTree(dir nfs3.Handle, name string, n node) error {
	if n.is(nfs3.TypeDir) {
		list, err := f.list(n.handle)
		if err != nil {
			return err
		}
		for _, e := range list {
			child := node{attr: e.attr}
			if e.IsDir() {
				if child, err = f.lookup(n.handle, e.name); err != nil && !errors.Is(err, fs.ErrNotExist) {
					return err
				}
			}
			if err := f.removeTree(n.handle, e.name, child); err != nil {
				return err
			}
		}
	}
	err := f.remove(dir, name, n.is(nfs3.TypeDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Rename is rename(2): atomic, and over a file or an empty directory that is there.
func (f *FS) Rename(from, to string) error {
	if err := errors.Join(valid("rename", from), valid("rename", to)); err != nil {
		return wrapLink("rename", from, to, fs.ErrInvalid)
	}
	return wrapLink("rename", from, to, f.move(from, to))
}

func (f *FS) move(from, to string) error {
	p, err := f.walk(from, false)
	if err != nil {
		return err
	}
	q, err := f.walk(to, false)
	switch {
	case err != nil:
		return err
	case !p.found:
		return syscall.ENOENT
	case p.root() || q.root():
		return syscall.EBUSY
	}
	return f.rename(p.entry(), q.entry())
}

// Link makes another name for a file.
func (f *FS) Link(from, to string) error {
	if err := errors.Join(valid("link", from), valid("link", to)); err != nil {
		return wrapLink("link", from, to, fs.ErrInvalid)
	}
	return wrapLink("link", from, to, f.makeLink(from, to))
}

func (f *FS) makeLink(from, to string) error {
	p, err := f.walk(from, false)
	if err != nil {
		return err
	}
	q, err := f.walk(to, false)
	switch {
	case err != nil:
		return err
	case !p.found:
		return syscall.ENOENT
	case q.found:
		return syscall.EEXIST
	case p.node.is(nfs3.TypeDir):
		return syscall.EPERM // as link(2) has it; NFS would say ISDIR
	}
	return f.link(p.node.handle, q.entry())
}

// Symlink makes a symbolic link with the text target.
func (f *FS) Symlink(target, name string) error {
	if err := valid("symlink", name); err != nil {
		return wrapLink("symlink", target, name, fs.ErrInvalid)
	}
	return wrapLink("symlink", target, name, f.makeSymlink(target, name))
}

func (f *FS) makeSymlink(target, name string) error {
	p, err := f.walk(name, false)
	if err != nil {
		return err
	}
	if p.found {
		return syscall.EEXIST
	}
	return f.symlink(p.dir, p.base, target)
}

// Mknod makes a named pipe, a socket or a device, by the type in mode.
func (f *FS) Mknod(name string, mode fs.FileMode, major, minor uint32) error {
	if err := valid("mknod", name); err != nil {
		return err
	}
	p, err := f.walk(name, false)
	if err == nil && p.found {
		err = syscall.EEXIST
	}
	kind := nfs3.FileType(0)
	for t, m := range typeModes {
		if m != 0 && m == mode.Type() {
			kind = nfs3.FileType(t)
		}
	}
	if err == nil && (kind == 0 || kind == nfs3.TypeDir || kind == nfs3.TypeLnk) {
		err = syscall.EINVAL
	}
	if err == nil {
		err = f.mknod(p.dir, p.base, kind, f.bits(mode), nfs3.SpecData3{Major: major, Minor: minor})
	}
	return wrap("mknod", name, err)
}

// Chmod is os.Chmod.
func (f *FS) Chmod(name string, mode fs.FileMode) error {
	return f.change("chmod", name, true, nfs3.Sattr3{SetMode: true, Mode: bitsOf(mode)})
}

// Chown is os.Chown: -1 leaves an id as it is.
func (f *FS) Chown(name string, uid, gid int) error {
	return f.change("chown", name, true, owners(uid, gid))
}

// Lchown is os.Lchown.
func (f *FS) Lchown(name string, uid, gid int) error {
	return f.change("lchown", name, false, owners(uid, gid))
}

// Chtimes is os.Chtimes: a zero time leaves the file's as it is.
func (f *FS) Chtimes(name string, atime, mtime time.Time) error {
	return f.change("chtimes", name, true, times(atime, mtime))
}

// Truncate is os.Truncate.
func (f *FS) Truncate(name string, size int64) error {
	if size < 0 {
		return wrap("truncate", name, syscall.EINVAL)
	}
	return f.change("truncate", name, true, nfs3.Sattr3{SetSize: true, Size: uint64(size)})
}

func owners(uid, gid int) nfs3.Sattr3 {
	return nfs3.Sattr3{SetUID: uid != -1, UID: id(uid), SetGID: gid != -1, GID: id(gid)}
}

func id(v int) uint32 {
	if v == -1 {
		return 0
	}
	return uint32(v)
}

func times(atime, mtime time.Time) (s nfs3.Sattr3) {
	s.Atime, s.Mtime = setTime(atime), setTime(mtime)
	return s
}

func setTime(t time.Time) nfs3.SetTime {
	if t.IsZero() {
		return nfs3.SetTime{}
	}
	return nfs3.SetTime{How: nfs3.SetToClientTime, Time: nfs3.MakeTime3(t)}
}

func (f *FS) change(op, name string, follow bool, s nfs3.Sattr3) error {
	if err := valid(op, name); err != nil {
		return err
	}
	return wrap(op, name, f.set(name, follow, s))
}

func (f *FS) set(name string, follow bool, s nfs3.Sattr3) error {
	p, err := f.find(name, follow)
	if err != nil {
		return err
	}
	if s.SetSize {
		defer f.open.changed(p.node.handle)
	}
	return f.setattr(p.node.handle, s)
}
