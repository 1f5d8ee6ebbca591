// SPDX-License-Identifier: Apache-2.0

package bfs_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"bfs/pkg/bfs"
)

var (
	seed  = flag.Uint64("seed", 0, "of TestTwin; 0: a few fixed ones")
	steps = flag.Int("steps", 2000, "of TestTwin")
)

// A twin is the common interface of FS and the file system of this machine.
type twin interface {
	Mkdir(name string, perm fs.FileMode) error
	MkdirAll(name string, perm fs.FileMode) error
	Remove(name string) error
	RemoveAll(name string) error
	Rename(from, to string) error
	Link(from, to string) error
	Symlink(target, name string) error
	Chmod(name string, mode fs.FileMode) error
	Lstat(name string) (fs.FileInfo, error)
	Stat(name string) (fs.FileInfo, error)
	ReadFile(name string) ([]byte, error)
	WriteFile(name string, data []byte, perm fs.FileMode) error
	open(name string, flag int) (file, error)
	list(name string) ([]fs.DirEntry, error)
	readlink(name string) (string, error)
}

type file interface {
	io.ReadWriteSeeker
	io.ReaderAt
	io.WriterAt
	io.Closer
	Truncate(size int64) error
}

type ours struct{ *bfs.FS }

func (o ours) list(name string) ([]fs.DirEntry, error)  { return o.ReadDir(name) }
func (o ours) readlink(name string) (string, error)     { return o.ReadLink(name) }
func (o ours) open(name string, flag int) (file, error) { return orNil(o.OpenFile(name, flag, 0o700)) }

type theirs struct{ *os.Root }

func (r theirs) list(name string) ([]fs.DirEntry, error) { return fs.ReadDir(r.FS(), name) }
func (r theirs) readlink(name string) (string, error)    { return r.Readlink(name) }
func (r theirs) open(name string, flag int) (file, error) {
	return orNil(r.OpenFile(name, flag, 0o700))
}

func orNil[F file](f F, err error) (file, error) {
	if err != nil {
		return nil, err
	}
	return f, nil
}

// The same random operations, here and on the local file system, have the same results.
func TestTwin(t *testing.T) {
	seeds := []uint64{1, 2, 3}
	if *seed != 0 {
		seeds = []uint64{*seed}
	}
	for _, s := range seeds {
		t.Run(fmt.Sprintf("seed=%d", s), func(t *testing.T) {
			local, err := os.OpenRoot(t.TempDir())
			ok(t, err)
			defer local.Close()
			fsys, _ := mount(t)
			defer syscall.Umask(syscall.Umask(int(bfs.DefaultUmask)))
			r := rand.New(rand.NewPCG(s, 0))
			for i := range *steps {
				what, do := randomStep(r)
				want, wantErr := do(theirs{local})
				got, gotErr := do(ours{fsys})
				if got != want || !sameError(gotErr, wantErr) {
					t.Fatalf("step %d: %s: got %q, %v, want %q, %v\nrepeat: go test ./pkg/bfs -run TestTwin -seed %d",
						i, what, got, gotErr, want, wantErr, s)
				}
			}
			if got, want := snapshot(t, ours{fsys}), snapshot(t, theirs{local}); got != want {
				t.Errorf("at the end: got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

// sameError compares the conditions that programs ask errors for. If two things are
// wrong, either system may report either.
func sameError(a, b error) bool {
	if a == nil || b == nil {
		return a == b
	}
	for _, class := range []error{fs.ErrNotExist, fs.ErrPermission} {
		if errors.Is(a, class) != errors.Is(b, class) {
			return false
		}
	}
	return true
}

func randomName(r *rand.Rand) string {
	var parts []string
	for range 1 + r.IntN(3) {
		parts = append(parts, string(rune('a'+r.IntN(4))))
	}
	return strings.Join(parts, "/")
}

type step func(twin) (string, error)

// randomStep is something to do, in words and as a function.
func randomStep(r *rand.Rand) (string, step) {
	name, other := randomName(r), randomName(r)
	size, at := r.IntN(9000), int64(r.IntN(9000))
	data := bytes.Repeat([]byte{byte('A' + r.IntN(26))}, size)
	mode := fs.FileMode(0o700 | r.IntN(0o100))
	target := []string{other, "../" + other, ".", "..", "../../" + other, name}[r.IntN(6)]
	flag := []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR}[r.IntN(3)]
	for _, f := range []int{os.O_CREATE, os.O_EXCL, os.O_TRUNC, os.O_APPEND} {
		if r.IntN(3) == 0 {
			flag |= f
		}
	}
	if flag&os.O_CREATE == 0 {
		flag &^= os.O_EXCL
	}
	all := []struct {
		what string
		do   step
	}{
		{"mkdir " + name, func(w twin) (string, error) { return "", w.Mkdir(name, mode) }},
		{"mkdirall " + name, func(w twin) (string, error) { return mkdirAll(w, name, mode) }},
		{"remove " + name, func(w twin) (string, error) { return "", w.Remove(name) }},
		{"rename " + name + " " + other, func(w twin) (string, error) { return rename(w, name, other) }},
		{"link " + name + " " + other, func(w twin) (string, error) { return "", w.Link(name, other) }},
		{"symlink " + target + " " + name, func(w twin) (string, error) { return "", w.Symlink(target, name) }},
		{"chmod " + name, func(w twin) (string, error) { return "", w.Chmod(name, mode) }},
		{"stat " + name, func(w twin) (string, error) { return statText(w.Stat(name)) }},
		{"lstat " + name, func(w twin) (string, error) { return statText(w.Lstat(name)) }},
		{"readlink " + name, func(w twin) (string, error) { return w.readlink(name) }},
		{"readdir " + name, func(w twin) (string, error) { return listText(w.list(name)) }},
		{"writefile " + name, func(w twin) (string, error) { return "", w.WriteFile(name, data, mode) }},
		{"readfile " + name, func(w twin) (string, error) { b, err := w.ReadFile(name); return string(b), err }},
		{fmt.Sprintf("use %s flags %#x", name, flag), func(w twin) (string, error) { return use(w, name, flag, data, at) }},
	}
	if r.IntN(100) == 0 {
		return "removeall " + name, func(w twin) (string, error) { return "", w.RemoveAll(name) }
	}
	s := all[r.IntN(len(all))]
	return s.what, s.do
}

// rename leaves out a case that package os refuses and rename(2) does not: a directory as
// the new name.
func rename(w twin, from, to string) (string, error) {
	if i, err := w.Lstat(to); err == nil && i.IsDir() {
		return "left out", nil
	}
	return "", w.Rename(from, to)
}

// mkdirAll leaves out links that lead nowhere: os.MkdirAll refuses them, and os.Root
// makes the directory they lead to.
func mkdirAll(w twin, name string, mode fs.FileMode) (string, error) {
	for i := 1; i <= len(name); i += 2 { // names are a/b/c
		_, here := w.Lstat(name[:i])
		if _, there := w.Stat(name[:i]); here == nil && there != nil {
			return "left out", nil
		}
	}
	return "", w.MkdirAll(name, mode)
}

// use opens a file and describes the result of each operation on it.
func use(w twin, name string, flag int, data []byte, at int64) (string, error) {
	f, err := w.open(name, flag)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if i, err := w.Stat(name); err != nil || i.IsDir() {
		return "directory", err
	}
	var b strings.Builder
	tell := func(n int64, err error) { fmt.Fprintf(&b, "%d %v; ", n, err == nil) }
	tellInt := func(n int, err error) { tell(int64(n), err) }
	p := make([]byte, 5000)
	tellInt(f.Read(p[:100]))
	tellInt(f.Write(data[:len(data)/2]))
	tell(f.Seek(-50, io.SeekCurrent))
	tellInt(f.Read(p[:1000]))
	if flag&os.O_APPEND == 0 {
		tellInt(f.WriteAt(data[len(data)/2:], at))
	}
	tellInt(f.ReadAt(p, at/2))
	tell(0, f.Truncate(at))
	tell(f.Seek(0, io.SeekEnd))
	tellInt(f.Write([]byte("end")))
	fmt.Fprintf(&b, "%x", p)
	return b.String(), nil
}

// statText describes the attributes that two file systems have in common: no size of a
// directory or link, and no times.
func statText(i fs.FileInfo, err error) (string, error) {
	if err != nil {
		return "", err
	}
	size := int64(0)
	if i.Mode().IsRegular() {
		size = i.Size()
	}
	mode := i.Mode()
	if mode.Type() == fs.ModeSymlink {
		mode = mode.Type()
	}
	return fmt.Sprintf("%s %v %d", i.Name(), mode, size), nil
}

func listText(list []fs.DirEntry, err error) (string, error) {
	var b strings.Builder
	for _, e := range list {
		fmt.Fprintf(&b, "%s %v; ", e.Name(), e.Type())
	}
	return b.String(), err
}

// snapshot tells of everything there is.
func snapshot(t *testing.T, w twin) string {
	t.Helper()
	var lines []string
	var visit func(dir string)
	visit = func(dir string) {
		list, err := w.list(dir)
		ok(t, err)
		for _, e := range list {
			name := strings.TrimPrefix(dir+"/"+e.Name(), "./")
			text, err := statText(w.Lstat(name))
			ok(t, err)
			switch e.Type() {
			case fs.ModeDir:
				visit(name)
			case fs.ModeSymlink:
				to, err := w.readlink(name)
				ok(t, err)
				text += " -> " + to
			default:
				b, err := w.ReadFile(name)
				ok(t, err)
				text += fmt.Sprintf(" %x", b)
			}
			lines = append(lines, name+": "+text)
		}
	}
	visit(".")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
