// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"bfs/test/patience"
)

// An intrusion is what happens to a replica before it recovers.
type intrusion struct {
	victim int
	kind   string // "": nothing
	chance *rand.Rand
}

// The kinds of intrusion. The intruder changes memory before the replica is stopped, and
// the disk while it is down.
const (
	memory    = "memory"    // bytes of a file are changed in the running process
	rooted    = "rooted"    // the same, and then the group changes the same pages, so that the replica's root is false
	killed    = "killed"    // SIGKILL
	frozen    = "frozen"    // SIGSTOP, and after a while SIGKILL
	pages     = "pages"     // bytes of a file are changed wherever they are on the disk
	overwrite = "overwrite" // some bytes of some file in the replica's directory are changed
	truncate  = "truncate"  // some file is cut
	remove    = "remove"    // some file is gone
	yesterday = "yesterday" // the directory is as it was at an earlier stop
	another   = "another"   // the directory is another replica's
)

var kinds = []string{memory, rooted, killed, frozen, pages, overwrite, truncate, remove, yesterday, another}

// draw draws the intrusion of round n.
func (s *soak) draw(n int) intrusion {
	x := intrusion{victim: s.chance.IntN(replicas), chance: rand.New(rand.NewPCG(s.seed, uint64(n)<<32))}
	switch {
	case n < len(s.plan):
		x.kind = s.plan[n]
	case s.only != "":
		x.kind = s.only
	case n%3 != 0:
		x.kind = kinds[s.chance.IntN(len(kinds))]
	}
	return x
}

// intrude does the intruder's work, and leaves the replica stopped. It reports whether the recovery
// must find damage.
func (s *soak) intrude(ctx context.Context, x *intrusion) (must bool, err error) {
	p := s.group.Replicas[x.victim]
	if x.kind == memory || x.kind == rooted {
		if err := s.alterMemory(ctx, x, p.PID()); err != nil {
			return false, err
		}
	}
	switch x.kind {
	case killed:
		p.Kill()
	case frozen:
		if err := p.Signal(syscall.SIGSTOP); err != nil {
			return false, err
		}
		if err := s.moved(ctx); err != nil {
			return false, err
		}
		p.Kill()
	default:
		p.Terminate()
	}
	must, err = s.alterDisk(ctx, x)
	if err != nil {
		return false, err
	}
	if x.kind == "" && x.chance.IntN(4) == 0 {
		err = s.keepYesterday(x.victim)
	}
	return must, err
}

// alterMemory changes the beginning of each page of an old file in a replica's memory,
// and reads the file through the group.
func (s *soak) alterMemory(ctx context.Context, x *intrusion, pid int) error {
	i := x.chance.IntN(len(s.old.texts))
	places, err := s.alter(ctx, i, "--pid", strconv.Itoa(pid))
	if errors.Is(err, errNotPermitted) {
		s.say("the kernel lets nobody here alter the memory of a process: replica %d is killed instead", x.victim)
		x.kind = killed
		return nil
	}
	if err == nil && places == 0 {
		err = fmt.Errorf("%q is nowhere in the replica's memory", mark(i))
	}
	if err == nil {
		err = s.old.readOne(s.files.WithContext(ctx), i)
	}
	if err == nil && x.kind == rooted {
		return s.stopsItself(ctx, x, i)
	}
	if err == nil {
		err = s.moved(ctx)
	}
	return err
}

// stopsItself changes the old file that is wrong in a replica's memory, and waits until
// the replica has found that its root is not the group's, and has stopped.
func (s *soak) stopsItself(ctx context.Context, x *intrusion, i int) error {
	if err := s.old.touch(s.files.WithContext(ctx), i, byte(x.chance.Uint32())); err != nil {
		return err
	}
	if err := s.old.readOne(s.files.WithContext(ctx), i); err != nil {
		return err
	}
	select {
	case <-s.group.Replicas[x.victim].Ended():
		s.done.stopped++
		return s.failed()
	case <-patience.After(recoverWithin):
		return errors.New("its state is not the group's, and it has not stopped")
	}
}

var errNotPermitted = errors.New("not permitted")

// alter changes the marks of an old file in memory or on disk, and returns the number of
// changed places.
func (s *soak) alter(ctx context.Context, i int, where ...string) (places int, err error) {
	old := mark(i)
	said, err := s.group.Command(ctx, "bfsd",
		append([]string{"bench", "alter", "--old", old, "--new", strings.ToUpper(old)}, where...)...)
	if err != nil {
		if strings.Contains(err.Error(), "permitted") || strings.Contains(err.Error(), "permission denied") {
			err = errNotPermitted
		}
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(said))
}

// pagesOfFile is the number of pages of an old file. An image with fewer of the file's
// marks does not hold the whole file yet.
const pagesOfFile = 1 << 8

// alterDisk changes the directory of a stopped replica. It reports whether the recovery
// must find damage.
func (s *soak) alterDisk(ctx context.Context, x *intrusion) (must bool, err error) {
	dir := s.stateOf(x.victim)
	switch x.kind {
	case pages:
		i := x.chance.IntN(len(s.old.texts))
		image, err := os.ReadFile(filepath.Join(dir, "disk", "pages"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
		_, err = s.alter(ctx, i, "--dir", dir)
		return bytes.Count(image, []byte(mark(i))) >= pagesOfFile, err
	case overwrite, truncate, remove:
		return false, x.spoil(dir)
	case yesterday:
		return false, s.putBack(x.victim, s.yesterdayOf(x.victim))
	case another:
		return false, s.putBack(x.victim, s.stateOf((x.victim+1)%replicas))
	}
	return false, nil
}

// spoil changes one file in a directory.
func (x *intrusion) spoil(dir string) error {
	all, err := filesOf(dir)
	if err != nil || len(all) == 0 {
		return errors.Join(err, fmt.Errorf("%s: no files", dir))
	}
	file := filepath.Join(dir, all[x.chance.IntN(len(all))])
	info, err := os.Stat(file)
	if err != nil {
		return err
	}
	switch x.kind {
	case remove:
		return os.Remove(file)
	case truncate:
		return os.Truncate(file, x.chance.Int64N(info.Size()+1))
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	for range 1 + x.chance.IntN(32) {
		b := make([]byte, 1+x.chance.IntN(64))
		for i := range b {
			b[i] = byte(x.chance.Uint32())
		}
		if _, err := f.WriteAt(b, x.chance.Int64N(max(info.Size()-int64(len(b)), 1))); err != nil {
			return err
		}
	}
	return nil
}

func (s *soak) stateOf(i int) string {
	return filepath.Join(filepath.Dir(s.group.ReplicaFile(i)), "state")
}

// yesterdayOf returns the path at which the directory of an earlier stop is kept.
func (s *soak) yesterdayOf(i int) string { return filepath.Join(s.dir, fmt.Sprintf("yesterday%d", i)) }

// keepYesterday keeps a copy of a stopped replica's directory for a later intrusion of
// the kind yesterday.
func (s *soak) keepYesterday(i int) error {
	if err := os.RemoveAll(s.yesterdayOf(i)); err != nil {
		return err
	}
	return copyFiles(s.stateOf(i), s.yesterdayOf(i))
}

// putBack replaces a replica's files by those of another directory, if that exists.
func (s *soak) putBack(i int, from string) error {
	if _, err := os.Stat(from); errors.Is(err, fs.ErrNotExist) {
		return s.keepYesterday(i) // there is no yesterday yet
	}
	all, err := filesOf(s.stateOf(i))
	if err != nil {
		return err
	}
	for _, name := range all {
		if err := os.Remove(filepath.Join(s.stateOf(i), name)); err != nil {
			return err
		}
	}
	return copyFiles(from, s.stateOf(i))
}

// spared are the files that the intruder does not change: the counter is out of his
// reach, and the lock is empty.
var spared = []string{"signature.counter", "lock"}

// filesOf lists the files that an intruder changes.
func filesOf(dir string) (all []string, err error) {
	err = filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil // it belongs to a replica that runs
		case err == nil && entry.Type().IsRegular() && !slices.Contains(spared, entry.Name()):
			name, err := filepath.Rel(dir, path)
			all = append(all, name)
			return err
		}
		return err
	})
	return all, err
}

// copyFiles copies the files that filesOf lists. A file that a running replica removes
// meanwhile is left out.
func copyFiles(from, to string) error {
	all, err := filesOf(from)
	if err != nil {
		return err
	}
	for _, name := range all {
		err := copyFile(filepath.Join(from, name), filepath.Join(to, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
