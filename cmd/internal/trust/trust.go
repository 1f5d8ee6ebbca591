// SPDX-License-Identifier: Apache-2.0

// Package trust opens files that decide which peers a process believes, and refuses those
// that other users of the machine could read, change or replace. It asks of a key file,
// and of every directory and symbolic link on the way to it, what sshd asks.
package trust

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// A rule is the condition under which a file is opened. Owners it allows are root and the
// process's own user.
type rule struct {
	uid       int         // the process's user
	forbidden fs.FileMode // permission bits that the file may not have
	owned     bool        // the file, and every directory and link on the way, must belong to an owner
}

// OpenSecret opens a file that only its owner may read, and that root or this user owns.
func OpenSecret(file string) (*os.File, error) {
	return rule{uid: os.Geteuid(), forbidden: 0o077, owned: true}.open(file)
}

// OpenConfig opens a file that others may read but not change.
func OpenConfig(file string) (*os.File, error) {
	return rule{uid: os.Geteuid(), forbidden: 0o022}.open(file)
}

// OpenOwned opens a file that others may read but not change, and that root or this user
// owns. It is for files that a process with more rights than others obeys.
func OpenOwned(file string) (*os.File, error) {
	return rule{uid: os.Geteuid(), forbidden: 0o022, owned: true}.open(file)
}

// maxLinks bounds the symbolic links on the way to a file, as the kernel does.
const maxLinks = 40

func (r rule) open(file string) (*os.File, error) {
	if given(file) {
		return os.Open(file)
	}
	real, err := r.walk(file)
	if err != nil {
		return nil, err
	}
	f, err := os.OpenFile(real, os.O_RDONLY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	if err := r.judge(f, file); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// given reports whether the name is that of a descriptor that the caller has opened, such
// as a shell's <(...).
func given(file string) bool {
	return file == "/dev/stdin" || strings.HasPrefix(file, "/dev/fd/") || strings.HasPrefix(file, "/proc/self/fd/")
}

// judge judges the file that was opened.
func (r rule) judge(f *os.File, file string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	mode := info.Mode()
	switch {
	case !mode.IsRegular():
		return fmt.Errorf("%s: is no regular file", file)
	case r.owned && !r.owner(info):
		return fmt.Errorf("%s: belongs to user %d, who can change it: chown %d %s", file, uidOf(info), r.uid, file)
	case mode.Perm()&r.forbidden == 0:
		return nil
	case r.forbidden&0o044 != 0:
		return fmt.Errorf("%s: has mode %04o, so others can use it: chmod 600 %s, and think of making a new one",
			file, mode.Perm(), file)
	default:
		return fmt.Errorf("%s: has mode %04o, so others can change it: chmod go-w %s, and check its contents",
			file, mode.Perm(), file)
	}
}

func (r rule) owner(info fs.FileInfo) bool { return uidOf(info) == 0 || uidOf(info) == r.uid }

func uidOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// A way is a path being walked from the root directory on.
type way struct {
	rule
	file  string   // the file to reach
	at    string   // the path reached so far; no part of it is a link
	rest  []string // names that are left
	links int

	// danger is the first directory or link since the last turn by which another user
	// could put another file in place. A directory that no other user may pass makes it
	// void, because nothing below can be reached. After a turn it stays.
	danger, stays error
	sheltered     bool
}

// walk goes to the file, judges every directory and symbolic link on the way, and returns the path
// without links. Names are judged before the file is opened: a user who cannot change them then
// cannot do so later.
func (r rule) walk(file string) (string, error) {
	path := file
	if !filepath.IsAbs(path) {
		here, err := os.Getwd()
		if err != nil {
			return "", err
		}
		path = here + "/" + path
	}
	w := &way{rule: r, file: file}
	err := w.turn(path)
	for err == nil && len(w.rest) > 0 {
		err = w.step()
	}
	if missing, ok := errors.AsType[*fs.PathError](err); ok && errors.Is(err, fs.ErrNotExist) {
		return "", &fs.PathError{Op: "open", Path: file, Err: missing.Err}
	}
	return w.at, cmp.Or(err, w.stays, w.danger)
}

// turn goes on along path from the root directory.
func (w *way) turn(path string) error {
	w.stays = cmp.Or(w.stays, w.danger)
	w.at, w.danger, w.sheltered = "/", nil, false
	w.rest = append(split(path), w.rest...)
	info, err := os.Lstat("/")
	if err == nil {
		w.enter(info)
	}
	return err
}

func split(path string) []string {
	return strings.FieldsFunc(path, func(c rune) bool { return c == filepath.Separator })
}

// step passes one name.
func (w *way) step() error {
	name := w.rest[0]
	w.rest = w.rest[1:]
	switch name {
	case ".":
		return nil
	case "..":
		return w.turn(filepath.Dir(w.at))
	}
	next := filepath.Join(w.at, name)
	info, err := os.Lstat(next)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return w.follow(next, info)
	case info.IsDir():
		w.at = next
		w.enter(info)
		return nil
	case len(w.rest) > 0:
		return &fs.PathError{Op: "open", Path: w.file, Err: syscall.ENOTDIR}
	case !info.Mode().IsRegular(): // opening it might wait for ever
		return fmt.Errorf("%s: is no regular file", w.file)
	}
	w.at = next
	return nil
}

// follow goes on where a symbolic link leads.
func (w *way) follow(link string, info fs.FileInfo) error {
	if w.links++; w.links > maxLinks {
		return &fs.PathError{Op: "open", Path: w.file, Err: syscall.ELOOP}
	}
	if w.owned && !w.owner(info) && !w.sheltered {
		w.fear("%s: is a symbolic link of user %d, who can point it elsewhere: chown -h %d %s",
			link, uidOf(info), w.uid, link)
	}
	to, err := os.Readlink(link)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(to) {
		to = w.at + "/" + to
	}
	return w.turn(to)
}

// enter checks a directory. In one with the sticky bit other users may make names, but
// not change this user's.
func (w *way) enter(info fs.FileInfo) {
	mode := info.Mode()
	switch {
	case w.sheltered:
	case w.owned && !w.owner(info):
		w.fear("%s: belongs to user %d, who can put another file in place of %s: chown %d %s",
			w.at, uidOf(info), w.file, w.uid, w.at)
	case mode.Perm()&0o022 != 0 && mode&fs.ModeSticky == 0:
		w.fear("%s: others may write to this directory (mode %04o) and put another file in place of %s: chmod go-w %s",
			w.at, mode.Perm(), w.file, w.at)
	case mode.Perm()&0o011 == 0 && w.owner(info):
		w.sheltered, w.danger = true, nil
	}
}

// fear notes a danger, unless there is one already.
func (w *way) fear(format string, args ...any) {
	if w.danger == nil {
		w.danger = fmt.Errorf(format, args...)
	}
}
