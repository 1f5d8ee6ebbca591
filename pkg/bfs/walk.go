// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"errors"
	"io/fs"
	"strings"
	"syscall"

	"bfs/pkg/nfs3"
)

// maxLinks is how many symbolic links one name may lead through, as Linux has it.
const maxLinks = 40

// A place is where a name leads: an entry of a directory, which may not be there yet.
type place struct {
	dir   nfs3.Handle
	base  string // "." for the root, which is no entry
	node  node
	found bool
}

func (p *place) root() bool { return p.base == "." }

// entry is the place as an argument. The caller has seen that it is not the root.
func (p *place) entry() nfs3.DirOp { return dirOp(p.dir, p.base) }

// A walk is on its way from the root of the mount.
type walk struct {
	fs    *FS
	stack []step // the directories from the root of the mount to the present one
	floor int    // how many of them ".." does not leave
	left  []string
	links int
}

type step struct {
	name string
	node node
}

// walk follows a name from the FS's base. follow says whether a symbolic link at its end
// is followed too. That the last name is not there is no error; the place then says where
// it would be.
func (f *FS) walk(name string, follow bool) (place, error) {
	w := walk{fs: f, stack: []step{{name: ".", node: node{handle: f.root, attr: nfs3.Fattr3{Type: nfs3.TypeDir}}}},
		floor: 1}
	if f.base != "" {
		w.left = strings.Split(f.base, "/")
		p, err := w.run(true)
		if err != nil {
			return place{}, err
		}
		if !p.found {
			return place{}, syscall.ENOENT
		}
		w.floor = len(w.stack)
	}
	w.left = strings.Split(name, "/")
	p, err := w.run(follow)
	if err == nil && len(w.stack) == w.floor && p.found {
		p.base = "."
	}
	return p, err
}

// run takes the steps that are left.
func (w *walk) run(follow bool) (place, error) {
	for len(w.left) > 0 {
		name := w.left[0]
		w.left = w.left[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			if len(w.stack) == w.floor {
				return place{}, ErrCrossedBoundary
			}
			w.stack = w.stack[:len(w.stack)-1]
			continue
		}
		top := &w.stack[len(w.stack)-1].node
		n, err := w.fs.lookup(top.handle, name)
		if errors.Is(err, fs.ErrNotExist) && len(w.left) == 0 {
			return place{dir: top.handle, base: name}, nil
		}
		if err != nil {
			return place{}, err
		}
		if n.is(nfs3.TypeLnk) && (follow || len(w.left) > 0) {
			if err := w.turn(n.handle); err != nil {
				return place{}, err
			}
			continue
		}
		w.stack = append(w.stack, step{name, n})
	}
	top := w.stack[len(w.stack)-1]
	if len(w.stack) == 1 {
		var err error
		top.node.attr, err = w.fs.getattr(top.node.handle)
		return place{dir: top.node.handle, base: ".", node: top.node, found: true}, err
	}
	return place{dir: w.stack[len(w.stack)-2].node.handle, base: top.name, node: top.node, found: true}, nil
}

// turn goes where a symbolic link leads.
func (w *walk) turn(link nfs3.Handle) error {
	if w.links++; w.links > maxLinks {
		return syscall.ELOOP
	}
	target, err := w.fs.readlink(link)
	if err != nil {
		return err
	}
	if target == "" {
		return syscall.ENOENT
	}
	if target[0] == '/' {
		w.stack = w.stack[:w.floor]
	}
	w.left = append(strings.Split(target, "/"), w.left...)
	return nil
}

// find is walk for names that must be there.
func (f *FS) find(name string, follow bool) (place, error) {
	p, err := f.walk(name, follow)
	if err == nil && !p.found {
		err = syscall.ENOENT
	}
	return p, err
}
