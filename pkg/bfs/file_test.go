// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"bfs/pkg/bfs"
	"bfs/pkg/nfs3"
	"bfs/test/patience"
)

// The errors of package os, in its types.
func TestErrors(t *testing.T) {
	fsys, group := mount(t)
	ok(t, fsys.MkdirAll("dir/sub", 0o755))
	ok(t, fsys.WriteFile("file", []byte("x"), 0o644))
	ok(t, fsys.Symlink("loop", "loop"))
	ok(t, fsys.Symlink("../out", "out"))
	stranger := mountOn(t, group, "/export", nfs3.Credentials{UID: 5, GID: 5})
	open := func(f *bfs.FS, name string, flag int) error {
		file, err := f.OpenFile(name, flag, 0o600)
		if err == nil {
			file.Close()
		}
		return err
	}
	gone, err := fsys.Create("gone")
	ok(t, err)
	ok(t, fsys.Remove("gone"))
	_, read := gone.Read(make([]byte, 1))
	_, closed := func() (int, error) { gone.Close(); return gone.Write([]byte("x")) }()
	_, invalid := fsys.Open("/file")
	_, sub := fsys.Sub("file")
	_, link := fsys.ReadLink("file")
	for _, c := range []struct {
		what string
		got  error
		want error
	}{
		{"open what is not there", open(fsys, "none", os.O_RDONLY), fs.ErrNotExist},
		{"below a file", open(fsys, "file/x", os.O_RDONLY), syscall.ENOTDIR},
		{"exclusive, and there", open(fsys, "file", os.O_CREATE|os.O_EXCL|os.O_WRONLY), fs.ErrExist},
		{"exclusive, and a dangling link", open(fsys, "out", os.O_CREATE|os.O_EXCL|os.O_WRONLY), fs.ErrExist},
		{"write a directory", open(fsys, "dir", os.O_WRONLY), syscall.EISDIR},
		{"link in a circle", open(fsys, "loop", os.O_RDONLY), syscall.ELOOP},
		{"link that leads out", open(fsys, "out", os.O_RDONLY), bfs.ErrCrossedBoundary},
		{"not the owner", open(stranger, "file", os.O_WRONLY), fs.ErrPermission},
		{"create in another's directory", open(stranger, "mine", os.O_CREATE|os.O_WRONLY), fs.ErrPermission},
		{"chown by a stranger", stranger.Chown("file", 5, 5), syscall.EPERM},
		{"remove with entries", fsys.Remove("dir"), syscall.ENOTEMPTY},
		{"mkdir that is there", fsys.Mkdir("dir", 0o755), fs.ErrExist},
		{"mkdir below what is not", fsys.Mkdir("a/b", 0o755), fs.ErrNotExist},
		{"mkdirall through a file", fsys.MkdirAll("file/a", 0o755), syscall.ENOTDIR},
		{"rename into itself", fsys.Rename("dir", "dir/sub/x"), syscall.EINVAL},
		{"rename over a full directory", fsys.Rename("dir/sub", "dir"), syscall.ENOTEMPTY},
		{"rename the root", fsys.Rename(".", "dir/x"), syscall.EBUSY},
		{"remove the root", fsys.Remove("."), syscall.EBUSY},
		{"link a directory", fsys.Link("dir", "dir2"), syscall.EPERM},
		{"name too long", fsys.Mkdir(strings.Repeat("n", 256), 0o755), syscall.ENAMETOOLONG},
		{"too large", fsys.Truncate("file", nfs3.MaxFileSize+1), syscall.EFBIG},
		{"negative size", fsys.Truncate("file", -1), syscall.EINVAL},
		{"read what is gone", read, syscall.ESTALE},
		{"write to a closed file", closed, fs.ErrClosed},
		{"a name of no io/fs", invalid, fs.ErrInvalid},
		{"sub of a file", sub, syscall.ENOTDIR},
		{"readlink of a file", link, syscall.EINVAL},
	} {
		var p *fs.PathError
		var l *os.LinkError
		if !errors.Is(c.got, c.want) || !errors.As(c.got, &p) && !errors.As(c.got, &l) {
			t.Errorf("%s: got %v, want %v", c.what, c.got, c.want)
		}
	}
	if _, err := fsys.Stat("none"); !os.IsNotExist(err) {
		t.Errorf("os.IsNotExist does not know %v", err)
	}
}

// A client's rights and quotas come through as the errors they are.
func TestRights(t *testing.T) {
	group := newDirect(t)
	small := mountOn(t, group, "/small", root)
	if err := small.WriteFile("big", make([]byte, 1<<20), 0o644); !errors.Is(err, syscall.EDQUOT) {
		t.Errorf("beyond the quota: got %v, want EDQUOT", err)
	}
	if u, err := small.Usage(); err != nil || u.Bytes > 256<<10 || u.AvailableBytes > u.Bytes {
		t.Errorf("usage: got %+v, %v", u, err)
	}
	if _, err := bfs.Mount(context.Background(), group, "/none", root); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("mount of nothing: got %v", err)
	}
	group.rights = grants(true)
	if err := small.Mkdir("dir", 0o755); !errors.Is(err, syscall.EROFS) {
		t.Errorf("read-only: got %v, want EROFS", err)
	}
	group.rights = nil
	if _, err := bfs.Mount(context.Background(), group, "/export", root); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("without rights: got %v", err)
	}
	_, err := bfs.Mount(context.Background(), group, "/export", nfs3.Credentials{Groups: make([]uint32, 17)})
	if err == nil {
		t.Error("17 groups were taken")
	}
}

// Long transfers are split, run several calls at once but not too many, and end where they should.
func TestBulk(t *testing.T) {
	fsys, group := mount(t)
	second, writes := make(chan struct{}), atomic.Int32{}
	group.before = func(proc uint32) { // the first WRITE is not over before there is another
		if proc != nfs3.ProcWrite {
			return
		}
		switch writes.Add(1) {
		case 1:
			select {
			case <-second:
			case <-patience.After(patience.Usual):
			}
		case 2:
			close(second)
		}
	}
	data := make([]byte, 21<<20+7)
	rand.NewChaCha8([32]byte{3}).Read(data)
	ok(t, fsys.WriteFile("big", data, 0o644))
	if got := group.calls[nfs3.ProcWrite]; got != 22 {
		t.Errorf("got %d WRITEs, want 22", got)
	}
	got, err := fsys.ReadFile("big")
	ok(t, err)
	if !bytes.Equal(got, data) {
		t.Errorf("read %d bytes, others than written", len(got))
	}
	if group.most < 2 || group.most > 8 {
		t.Errorf("got %d calls at once, want 2 to 8", group.most)
	}
	file, err := fsys.Open("big")
	ok(t, err)
	b := make([]byte, 5<<20)
	n, err := file.(io.ReaderAt).ReadAt(b, 20<<20)
	if n != 1<<20+7 || err != io.EOF || !bytes.Equal(b[:n], data[20<<20:]) {
		t.Errorf("at the end: got %d bytes, %v", n, err)
	}
	var copied bytes.Buffer
	if n, err := io.Copy(&copied, file); n != int64(len(data)) || err != nil || !bytes.Equal(copied.Bytes(), data) {
		t.Errorf("copied %d bytes, %v", n, err)
	}
	ok(t, file.Close())
}

// A transfer that breaks off says how much was done without a gap.
func TestBulkBreaks(t *testing.T) {
	group := newDirect(t)
	fsys := mountOn(t, group, "/small", root)
	file, err := fsys.Create("big")
	ok(t, err)
	ok(t, file.Truncate(20<<20))
	data := bytes.Repeat([]byte{1}, 3<<20)
	n, err := file.WriteAt(data, 0)
	if !errors.Is(err, syscall.EDQUOT) {
		t.Fatalf("got %v, want EDQUOT", err)
	}
	got := make([]byte, n+1)
	_, err = file.ReadAt(got, 0)
	ok(t, err)
	if !bytes.Equal(got[:n], data[:n]) {
		t.Errorf("the first %d bytes differ from those written", n)
	}
}

// Small reads are served from the read-ahead, until this process writes to the file by any name.
func TestReadAhead(t *testing.T) {
	fsys, group := mount(t)
	ok(t, fsys.WriteFile("f", bytes.Repeat([]byte("a"), 100), 0o644))
	ok(t, fsys.Link("f", "g"))
	r, err := fsys.Open("f")
	ok(t, err)
	defer r.Close()
	b := make([]byte, 10)
	before := group.calls[nfs3.ProcRead]
	for range 5 {
		_, err = io.ReadFull(r, b)
		ok(t, err)
	}
	if got := group.calls[nfs3.ProcRead] - before; got != 1 {
		t.Errorf("five small reads: got %d READs, want 1", got)
	}
	w, err := fsys.OpenFile("g", os.O_WRONLY, 0)
	ok(t, err)
	defer w.Close()
	for i, change := range []func() error{
		func() error { _, err := w.WriteAt([]byte("b"), 50); return err },
		func() error {
			_, err := w.Seek(60, io.SeekStart)
			_, e := w.Write([]byte("b"))
			return errors.Join(err, e)
		},
		func() error { return errors.Join(fsys.Truncate("g", 70), fsys.Truncate("g", 90)) },
	} {
		ok(t, change())
		_, err := io.ReadFull(r, b)
		ok(t, err)
		if want := [...]byte{'b', 'b', 0}[i]; b[0] != want {
			t.Errorf("after change %d: read %q, want %q first", i, b, want)
		}
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) != 10 {
		t.Errorf("the rest: got %d bytes, %v", len(rest), err)
	}
}

// Flags have the meaning they have in package os.
func TestFlags(t *testing.T) {
	fsys, _ := mount(t)
	write := func(flag int, text string) {
		t.Helper()
		f, err := fsys.OpenFile("f", flag, 0o644)
		ok(t, err)
		_, err = f.WriteString(text)
		ok(t, err)
		ok(t, f.Close())
	}
	is := func(want string) {
		t.Helper()
		if got, err := fsys.ReadFile("f"); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	write(os.O_WRONLY|os.O_CREATE|os.O_EXCL, "12345")
	write(os.O_WRONLY|os.O_CREATE, "ab")
	is("ab345")
	write(os.O_WRONLY|os.O_APPEND, "67")
	is("ab34567")
	write(os.O_RDWR|os.O_TRUNC, "z")
	is("z")
	ok(t, fsys.Symlink("f2", "l"))
	ok(t, fsys.WriteFile("l", []byte("through"), 0o600))
	ok(t, fsys.Rename("f2", "f"))
	is("through")
	// A file without write permission can be written by the user who has just made it.
	user, err := fsys.WithUmask(0).OpenFile("ro", os.O_WRONLY|os.O_CREATE, 0o400)
	ok(t, err)
	_, err = user.Write([]byte("x"))
	ok(t, err)
	ok(t, user.Close())
}

// Appends through one Mount do not overwrite each other, and a lock is held by one.
func TestAppendAndLock(t *testing.T) {
	fsys, _ := mount(t)
	const writers, lines = 4, 25
	held := 0
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			f, err := fsys.OpenFile("log", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
			if err != nil {
				t.Error(err)
				return
			}
			for i := range lines {
				if _, err := fmt.Fprintf(f, "%d %02d\n", w, i); err != nil {
					t.Error(err)
				}
				if err := f.Lock(); err != nil {
					t.Error(err)
				}
				held++ // the race detector looks on
				if err := f.Unlock(); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(f.Lock(), f.Close()); err != nil { // Close unlocks
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got, err := fsys.ReadFile("log")
	ok(t, err)
	if n := len(got); n != writers*lines*5 || held != writers*lines {
		t.Errorf("got %d bytes and %d turns, want %d and %d", n, held, writers*lines*5, writers*lines)
	}
}

// A context ends the calls that wait, for the lock and for the group.
func TestContext(t *testing.T) {
	fsys, group := mount(t)
	ok(t, fsys.WriteFile("f", []byte("x"), 0o644))
	first, err := fsys.OpenFile("f", os.O_RDWR, 0)
	ok(t, err)
	ok(t, first.Lock())
	ctx, cancel := context.WithCancel(context.Background())
	second, err := fsys.WithContext(ctx).OpenFile("f", os.O_RDWR, 0)
	ok(t, err)
	cancel()
	if err := second.Lock(); !errors.Is(err, context.Canceled) {
		t.Errorf("lock: got %v", err)
	}
	const most = 64 // calls under way at once
	begun, release := make(chan struct{}, most), make(chan struct{})
	group.before = func(uint32) { begun <- struct{}{}; <-release }
	var wg sync.WaitGroup
	for range most {
		wg.Go(func() { fsys.Stat("f") })
	}
	for range most {
		<-begun
	}
	if _, err := second.Stat(); !errors.Is(err, context.Canceled) {
		t.Errorf("stat: got %v", err)
	}
	close(release)
	wg.Wait()
}

// A directory of many pages of listing is listed once and whole, by name and in pieces.
func TestLongDirectory(t *testing.T) {
	fsys, group := mount(t)
	const n = 4000
	for i := range n {
		ok(t, fsys.WriteFile(fmt.Sprintf("%s%04d", strings.Repeat("n", 100), i), nil, 0o644))
	}
	all, err := fsys.ReadDir(".")
	ok(t, err)
	if len(all) != n || group.calls[nfs3.ProcReaddirplus] < 2 {
		t.Fatalf("got %d entries in %d calls", len(all), group.calls[nfs3.ProcReaddirplus])
	}
	dir, err := fsys.Open(".")
	ok(t, err)
	defer dir.Close()
	seen := make(map[string]bool)
	for i := 0; ; i++ {
		list, err := dir.(fs.ReadDirFile).ReadDir(777)
		if err == io.EOF {
			break
		}
		ok(t, err)
		for _, e := range list {
			seen[e.Name()] = true
		}
		if i == 1 { // entries come and go behind the cookie
			ok(t, fsys.Remove(all[0].Name()))
			ok(t, fsys.WriteFile("new", nil, 0o644))
		}
	}
	delete(seen, all[0].Name())
	delete(seen, "new")
	if len(seen) != n-1 {
		t.Errorf("in pieces: got %d entries, want %d", len(seen), n-1)
	}
	ok(t, fsys.Mkdir("d", 0o755))
	ok(t, fsys.WriteFile("d/f", nil, 0o644))
	ok(t, fsys.RemoveAll("d"))
	ok(t, fsys.RemoveAll("d"))
}

// Everything a file has can be set and seen: modes with their three bits, owners, times, devices.
func TestAttributes(t *testing.T) {
	fsys, _ := mount(t)
	ok(t, fsys.WriteFile("f", []byte("x"), 0o666))
	mode := func(name string, want fs.FileMode) {
		t.Helper()
		if i, err := fsys.Lstat(name); err != nil || i.Mode() != want {
			t.Errorf("%s: got %v, %v, want %v", name, i, err, want)
		}
	}
	mode("f", 0o644)
	ok(t, fsys.Chmod("f", 0o751|fs.ModeSetuid|fs.ModeSticky))
	mode("f", 0o751|fs.ModeSetuid|fs.ModeSticky)
	ok(t, fsys.Chown("f", 10, -1))
	ok(t, fsys.Chown("f", -1, 20))
	at, mt := time.Unix(1e9, 5), time.Unix(2e9, 999_999_999)
	ok(t, fsys.Chtimes("f", at, time.Time{}))
	ok(t, fsys.Chtimes("f", time.Time{}, mt))
	i, err := fsys.Stat("f")
	ok(t, err)
	a, _ := bfs.Attributes(i)
	if a.UID != 10 || a.GID != 20 || !a.Atime.Time().Equal(at) || !i.ModTime().Equal(mt) {
		t.Errorf("got %+v", a)
	}
	s, is := i.Sys().(*syscall.Stat_t)
	if is && (s.Uid != 10 || s.Ino != a.FileID || s.Atim.Nsec != 5 || s.Mode&syscall.S_IFMT != syscall.S_IFREG) {
		t.Errorf("as of the system: got %+v", s)
	}
	ok(t, fsys.Symlink("f", "l"))
	ok(t, fsys.Lchown("l", 30, 30))
	ok(t, fsys.Mknod("p", fs.ModeNamedPipe|0o600, 0, 0))
	ok(t, fsys.Mknod("s", fs.ModeSocket|0o600, 0, 0))
	ok(t, fsys.Mknod("c", fs.ModeDevice|fs.ModeCharDevice|0o600, 1, 3))
	ok(t, fsys.Mknod("b", fs.ModeDevice|0o600, 8, 1))
	mode("l", fs.ModeSymlink|0o777)
	mode("p", fs.ModeNamedPipe|0o600)
	mode("s", fs.ModeSocket|0o600)
	mode("c", fs.ModeDevice|fs.ModeCharDevice|0o600)
	mode("b", fs.ModeDevice|0o600)
	if err := fsys.Mknod("d", fs.ModeDir|0o700, 0, 0); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("mknod of a directory: got %v", err)
	}
}
