// SPDX-License-Identifier: Apache-2.0

package disk

import "io/fs"

// ReadOnly returns an FS that shows what f has, and drops whatever would change it: a
// program that reads its files back, and mends them on the way, can look at them without.
func ReadOnly(f FS) FS { return readOnly{f} }

type readOnly struct{ FS }

func (readOnly) Create(name string) (File, error) {
	return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrPermission}
}

func (r readOnly) Open(name string) (File, error) {
	f, err := r.FS.Open(name)
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
