// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"errors"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"sync"
	"syscall"

	"bfs/pkg/nfs3"
)

// readAhead is the number of bytes that a shorter Read fetches.
const readAhead = 128 << 10

// bulk bounds the bytes that ReadFrom and WriteTo move at a time: a few calls under way.
const bulk = 4 << 20

// createTries bounds how often an open may find that a name came or went between two calls.
const createTries = 8

// A File is an open file or directory: an fs.File, a billy.File, and most of an *os.File's methods.
type File struct {
	fs     *FS
	name   string
	handle nfs3.Handle
	flag   int
	dir    bool
	shared *shared

	mu      sync.Mutex
	closed  bool
	off     int64
	ahead   []byte // of the file, from aheadAt on, as it was when shared.writes was aheadOf
	aheadAt int64
	aheadOf uint64
	listing listing

	lock   sync.Mutex
	locked bool
}

var (
	_ fs.ReadDirFile  = (*File)(nil)
	_ io.ReaderAt     = (*File)(nil)
	_ io.WriterAt     = (*File)(nil)
	_ io.ReaderFrom   = (*File)(nil)
	_ io.WriterTo     = (*File)(nil)
	_ io.StringWriter = (*File)(nil)
)

// openFile finds the file, or makes it if flag says so, and opens it.
func (f *FS) openFile(name string, flag int, perm fs.FileMode) (*File, error) {
	for range createTries {
		p, err := f.walk(name, flag&(os.O_CREATE|os.O_EXCL) != os.O_CREATE|os.O_EXCL)
		if err == nil && !p.found {
			if flag&os.O_CREATE == 0 {
				err = syscall.ENOENT
			} else if p.node, err = f.create(p.dir, p.base, f.bits(perm)); err == nil {
				return f.newFile(name, flag, &p.node), nil
			} else if errors.Is(err, fs.ErrExist) && flag&os.O_EXCL == 0 {
				continue
			}
		}
		if err == nil {
			err = f.mayOpen(&p.node, flag)
		}
		if errors.Is(err, syscall.ESTALE) && f.root != p.node.handle {
			continue
		}
		if err != nil {
			return nil, wrap("open", name, err)
		}
		return f.newFile(name, flag, &p.node), nil
	}
	return nil, wrap("open", name, syscall.ESTALE)
}

// mayOpen judges the opening of a file that was there, and truncates it if so asked.
func (f *FS) mayOpen(n *node, flag int) error {
	access := flag & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
	switch {
	case flag&os.O_CREATE != 0 && flag&os.O_EXCL != 0:
		return syscall.EEXIST
	case n.is(nfs3.TypeDir) && (access != os.O_RDONLY || flag&(os.O_CREATE|os.O_TRUNC) != 0):
		return syscall.EISDIR
	case n.is(nfs3.TypeLnk):
		return syscall.ELOOP
	case n.is(nfs3.TypeDir):
		return f.access(n.handle, nfs3.AccessRead)
	}
	want := uint32(0)
	if access != os.O_WRONLY {
		want |= nfs3.AccessRead
	}
	if access != os.O_RDONLY || flag&os.O_TRUNC != 0 {
		want |= nfs3.AccessModify
	}
	if err := f.access(n.handle, want); err != nil {
		return err
	}
	if flag&os.O_TRUNC == 0 {
		return nil
	}
	defer f.open.changed(n.handle)
	return f.setattr(n.handle, nfs3.Sattr3{SetSize: true})
}

func (f *FS) newFile(name string, flag int, n *node) *File {
	return &File{fs: f, name: name, handle: n.handle, flag: flag, dir: n.is(nfs3.TypeDir),
		shared: f.open.acquire(n.handle)}
}

// Name is the name the file was opened by.
func (f *File) Name() string { return f.name }

// Handle names the file for as long as it lives, also when it is renamed.
func (f *File) Handle() nfs3.Handle { return f.handle }

// Close closes the file, and gives up the lock if it has it. Data written is safe already.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.usable(); err != nil {
		return wrap("close", f.name, err)
	}
	f.closed, f.ahead = true, nil
	f.unlock()
	f.fs.open.release(f.handle, f.shared)
	return nil
}

func (f *File) usable() error {
	if f.closed {
		return fs.ErrClosed
	}
	return nil
}

// readable and writable say whether the file is open for that. The caller holds the lock.
func (f *File) readable() error {
	switch {
	case f.closed:
		return fs.ErrClosed
	case f.dir:
		return syscall.EISDIR
	case f.flag&os.O_WRONLY != 0:
		return syscall.EBADF
	}
	return nil
}

func (f *File) writable() error {
	switch {
	case f.closed:
		return fs.ErrClosed
	case f.flag&(os.O_WRONLY|os.O_RDWR) == 0:
		return syscall.EBADF
	}
	return nil
}

func (f *File) may(judge func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return judge()
}

// Stat asks for the attributes.
func (f *File) Stat() (fs.FileInfo, error) {
	if err := f.may(f.usable); err != nil {
		return nil, wrap("stat", f.name, err)
	}
	a, err := f.fs.getattr(f.handle)
	if err != nil {
		return nil, wrap("stat", f.name, err)
	}
	return &info{name: path.Base(f.name), attr: a}, nil
}

// Read reads on from where the last one ended.
func (f *File) Read(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.readNext(p)
	if err != nil && err != io.EOF {
		err = wrap("read", f.name, err)
	}
	return n, err
}

func (f *File) readNext(p []byte) (n int, err error) {
	if err := f.readable(); err != nil || len(p) == 0 {
		return 0, err
	}
	if len(p) < readAhead {
		n, err = f.readBuffered(p)
	} else {
		n, _, err = f.fs.readAt(f.handle, p, uint64(f.off))
	}
	f.off += int64(n)
	if n == 0 && err == nil {
		err = io.EOF
	}
	if n > 0 {
		err = nil // the next Read will meet it again
	}
	return n, err
}

func (f *File) readBuffered(p []byte) (int, error) {
	if at := f.off - f.aheadAt; at >= 0 && at < int64(len(f.ahead)) && f.aheadOf == f.shared.writes.Load() {
		return copy(p, f.ahead[at:]), nil
	}
	if cap(f.ahead) < readAhead {
		f.ahead = make([]byte, readAhead)
	}
	f.aheadAt, f.aheadOf = f.off, f.shared.writes.Load()
	n, _, err := f.fs.read(f.handle, f.ahead[:readAhead], uint64(f.off))
	f.ahead = f.ahead[:n]
	return copy(p, f.ahead), err
}

// ReadAt reads from an offset, with several READs under way if p is long. It does not use
// the read-ahead.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	err := f.may(f.readable)
	if err == nil && off < 0 {
		err = syscall.EINVAL
	}
	if err != nil {
		return 0, wrap("read", f.name, err)
	}
	n, _, err := f.fs.readAt(f.handle, p, uint64(off))
	if err == nil && n < len(p) {
		return n, io.EOF
	}
	return n, wrap("read", f.name, err)
}

// readAll returns the file from its beginning.
func (f *File) readAll() ([]byte, error) {
	if err := f.may(f.readable); err != nil {
		return nil, wrap("read", f.name, err)
	}
	a, err := f.fs.getattr(f.handle)
	if err != nil {
		return nil, wrap("read", f.name, err)
	}
	if a.Size >= math.MaxInt {
		return nil, wrap("read", f.name, syscall.EFBIG)
	}
	// One byte more than there is, so that the end is seen, and a file that grew is read on.
	b := make([]byte, a.Size+1)
	for n := 0; ; b = append(b, make([]byte, len(b))...) {
		k, eof, err := f.fs.readAt(f.handle, b[n:], uint64(n))
		n += k
		if eof || err != nil || n < len(b) {
			return b[:n], wrap("read", f.name, err)
		}
	}
}

// WriteTo writes the rest of the file to w.
func (f *File) WriteTo(w io.Writer) (total int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.readable(); err != nil {
		return 0, wrap("read", f.name, err)
	}
	for size := readAhead; ; size = min(2*size, bulk) {
		b := make([]byte, size)
		n, eof, err := f.fs.readAt(f.handle, b, uint64(f.off))
		k, werr := w.Write(b[:n])
		f.off += int64(k)
		total += int64(k)
		switch {
		case werr != nil:
			return total, werr
		case k < n:
			return total, io.ErrShortWrite
		case err != nil:
			return total, wrap("read", f.name, err)
		case eof || n == 0:
			return total, nil
		}
	}
}

// Write writes where the last read or write ended, or at the end of the file if it was
// opened with O_APPEND. When it returns, the group has it.
func (f *File) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.writeNext(p)
	return n, wrap("write", f.name, err)
}

// WriteString is Write.
func (f *File) WriteString(s string) (int, error) { return f.Write([]byte(s)) }

func (f *File) writeNext(p []byte) (int, error) {
	if err := f.writable(); err != nil || len(p) == 0 {
		return 0, err
	}
	if f.flag&os.O_APPEND != 0 {
		f.shared.append.Lock()
		defer f.shared.append.Unlock()
		a, err := f.fs.getattr(f.handle)
		if err != nil {
			return 0, err
		}
		f.off = int64(a.Size)
	}
	n, err := f.fs.writeAt(f.handle, p, uint64(f.off))
	f.off += int64(n)
	f.shared.writes.Add(1)
	return n, err
}

// WriteAt writes at an offset, with several WRITEs under way if p is long.
func (f *File) WriteAt(p []byte, off int64) (int, error) {
	err := f.may(f.writable)
	if err == nil && (off < 0 || f.flag&os.O_APPEND != 0) {
		err = syscall.EINVAL
	}
	if err != nil || len(p) == 0 {
		return 0, wrap("write", f.name, err)
	}
	n, err := f.fs.writeAt(f.handle, p, uint64(off))
	f.shared.writes.Add(1)
	return n, wrap("write", f.name, err)
}

// ReadFrom writes all that r has. It gathers up to 4 MiB at a time, so that long copies
// have several WRITEs under way.
func (f *File) ReadFrom(r io.Reader) (total int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.writable(); err != nil {
		return 0, wrap("write", f.name, err)
	}
	b := make([]byte, 32<<10)
	for {
		n, rerr := io.ReadFull(r, b)
		k, werr := f.writeNext(b[:n])
		total += int64(k)
		switch {
		case werr != nil:
			return total, wrap("write", f.name, werr)
		case rerr == io.EOF || rerr == io.ErrUnexpectedEOF:
			return total, nil
		case rerr != nil:
			return total, rerr
		case len(b) < bulk:
			b = make([]byte, 4*len(b))
		}
	}
}

// Seek sets where the next Read or Write begins. On a directory only its beginning can be sought.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	off, err := f.seek(offset, whence)
	if err != nil {
		return 0, wrap("seek", f.name, err)
	}
	f.off = off
	return off, nil
}

func (f *File) seek(offset int64, whence int) (int64, error) {
	if err := f.usable(); err != nil {
		return 0, err
	}
	if f.dir && (whence != io.SeekStart || offset != 0) {
		return 0, syscall.EINVAL
	}
	switch whence {
	case io.SeekStart:
		f.listing = listing{}
	case io.SeekCurrent:
		offset += f.off
	case io.SeekEnd:
		a, err := f.fs.getattr(f.handle)
		if err != nil {
			return 0, err
		}
		offset += int64(a.Size)
	default:
		return 0, syscall.EINVAL
	}
	if offset < 0 {
		return 0, syscall.EINVAL
	}
	return offset, nil
}

// Truncate sets the file's size; added bytes read as zeros.
func (f *File) Truncate(size int64) error {
	err := f.may(f.writable)
	if err == nil && size < 0 {
		err = syscall.EINVAL
	}
	if err == nil {
		err = f.fs.setattr(f.handle, nfs3.Sattr3{SetSize: true, Size: uint64(size)})
		f.shared.writes.Add(1)
	}
	return wrap("truncate", f.name, err)
}

// Sync does nothing, because data is safe when Write returns.
func (f *File) Sync() error { return wrap("sync", f.name, f.may(f.usable)) }

// ReadDir lists a directory on from where the last call ended, in the directory's order;
// n <= 0 is all the rest.
func (f *File) ReadDir(n int) ([]fs.DirEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.usable()
	if err == nil && !f.dir {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return nil, wrap("readdir", f.name, err)
	}
	entries := []fs.DirEntry{}
	l := &f.listing
	for n <= 0 || len(entries) < n {
		if err := l.more(f.fs, f.handle); err != nil {
			return entries, wrap("readdir", f.name, err)
		}
		if len(l.ready) == 0 {
			break
		}
		k := len(l.ready)
		if n > 0 {
			k = min(k, n-len(entries))
		}
		entries = append(entries, dirEntries(l.ready[:k])...)
		l.ready = l.ready[k:]
	}
	if n > 0 && len(entries) == 0 {
		return nil, io.EOF
	}
	return entries, nil
}

// Lock waits for the lock of this file among the Files that are open on it through the
// same Mount, and has it until Unlock or Close. Nobody else is kept out: neither other
// processes nor other clients.
func (f *File) Lock() error {
	if err := f.may(f.usable); err != nil {
		return wrap("lock", f.name, err)
	}
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.locked {
		return nil
	}
	select {
	case f.shared.lock <- struct{}{}:
		f.locked = true
		return nil
	case <-f.fs.ctx.Done():
		return wrap("lock", f.name, f.fs.ctx.Err())
	}
}

// Unlock gives the lock up, if the file has it.
func (f *File) Unlock() error {
	if err := f.may(f.usable); err != nil {
		return wrap("unlock", f.name, err)
	}
	f.unlock()
	return nil
}

func (f *File) unlock() {
	f.lock.Lock()
	defer f.lock.Unlock()
	if f.locked {
		f.locked = false
		<-f.shared.lock
	}
}
