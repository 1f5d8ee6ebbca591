// SPDX-License-Identifier: Apache-2.0

package disk

import "io/fs"

// ReadOnly returns an FS that shows what f has, and drops whatever would change it: a
// program that reads its files back, and mends them on the way, can look at them without. The files
// of a directory of this host are not opened for writing either, so they may be on a file system
// that is mounted read-only.
func ReadOnly(f FS) FS { return readOnly{f} }

// A reader can open files that nobody may write to.
type reader interface {
	openToRead(name string) (File, error)
}

type readOnly struct{ FS }

func (readOnly) Create(name string) (File, error) {
	return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrPermission}
}

func (r readOnly) Open(name string) (File, error) {
	open := r.FS.Open
	if x, ok := r.FS.(reader); ok {
		open = x.openToRead
	}
	f, err := open(name)
	if err != nil {
		return nil, err
	}
	return readOnlyFile{f}, nil
}

func (readOnly) Remove(string) error         { return nil }
func (readOnly) Rename(string, string) error { return nil }
func (readOnly) Sync() error                 { return nil }

type readOnlyFile struct{ File }

func (readOnlyFile) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }
func (readOnlyFile) WriteThrough([]byte, int64) error       { return nil }
func (readOnlyFile) Allocate(int64) error                   { return nil }
func (readOnlyFile) Truncate(int64) error                   { return nil }
func (readOnlyFile) Sync() error                            { return nil }
