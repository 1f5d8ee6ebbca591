// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"bfs/pkg/bfs"
)

// files holds the operations of a file system that a worker needs. Names are relative to
// its root.
type files interface {
	Mkdir(name string, perm fs.FileMode) error
	OpenFile(name string, flag int, perm fs.FileMode) (file, error)
	Rename(from, to string) error
	Link(from, to string) error
	Remove(name string) error
	ReadDir(name string) ([]fs.DirEntry, error)
	ReadFile(name string) ([]byte, error)
	Forget() error // makes all durable, and forgets what is known of it, so that the next read asks the replicas
}

type file interface {
	io.Writer
	io.WriterAt
	io.Closer
	Sync() error
}

// direct is the Go client's file system.
type direct struct{ *bfs.FS }

func (d direct) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := d.FS.OpenFile(name, flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d direct) Forget() error { return nil }

// mounted is a directory of the kernel that this program runs under.
type mounted struct{ root string }

func (m mounted) at(name string) string { return filepath.Join(m.root, name) }

func (m mounted) Mkdir(name string, perm fs.FileMode) error { return os.Mkdir(m.at(name), perm) }

func (m mounted) OpenFile(name string, flag int, perm fs.FileMode) (file, error) {
	f, err := os.OpenFile(m.at(name), flag, perm)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (m mounted) Rename(from, to string) error { return os.Rename(m.at(from), m.at(to)) }

func (m mounted) Link(from, to string) error { return os.Link(m.at(from), m.at(to)) }

func (m mounted) Remove(name string) error { return os.Remove(m.at(name)) }

func (m mounted) ReadDir(name string) ([]fs.DirEntry, error) { return os.ReadDir(m.at(name)) }

func (m mounted) ReadFile(name string) ([]byte, error) { return os.ReadFile(m.at(name)) }

func (m mounted) Forget() error {
	unix.Sync()
	return os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0)
}
