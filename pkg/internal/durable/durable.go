// SPDX-License-Identifier: Apache-2.0

// Package durable replaces files so that a crash leaves the old contents or the new.
package durable

import (
	"errors"
	"os"
	"path/filepath"
)

// WriteFile makes b the contents of the file at path. When it returns nil they are on
// disk, and so is the name.
func WriteFile(path string, b []byte) error {
	f, err := Create(path)
	if err != nil {
		return err
	}
	defer f.Discard()
	if _, err := f.Write(b); err != nil {
		return err
	}
	return f.Commit()
}

// A File is written under another name beside its path, for its owner alone to read.
// Commit puts it there.
type File struct {
	*os.File
	path string
	over bool
}

// Create begins a file that is to take the place of the one at path, if there is one.
func Create(path string) (*File, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-")
	if err != nil {
		return nil, err
	}
	return &File{File: f, path: path}, nil
}

// Commit makes the file the one at its path. When it returns nil the contents are on
// disk, and so is the name.
func (f *File) Commit() error {
	if err := f.Sync(); err != nil {
		return err
	}
	f.over = true
	if err := errors.Join(f.Close(), os.Rename(f.Name(), f.path)); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(f.path))
}

// Discard drops a file that was not committed. After Commit it does nothing.
func (f *File) Discard() {
	if !f.over {
		f.over = true
		_ = f.Close() // it goes, whatever became of it
		_ = os.Remove(f.Name())
	}
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
