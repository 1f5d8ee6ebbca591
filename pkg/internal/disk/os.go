// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"errors"
	"os"
	"path/filepath"
)

// OS returns a directory of this host as an FS. The directory exists.
func OS(directory string) FS { return directoryFS(directory) }

type directoryFS string

func (d directoryFS) path(name string) string { return filepath.Join(string(d), name) }

func (d directoryFS) Create(name string) (File, error) {
	return wrapped(os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600))
}

func (d directoryFS) Open(name string) (File, error) {
	return wrapped(os.OpenFile(d.path(name), os.O_RDWR, 0))
}

func (d directoryFS) openToRead(name string) (File, error) { return wrapped(os.Open(d.path(name))) }

func wrapped(f *os.File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return &osFile{File: f}, nil
}

func (d directoryFS) Remove(name string) error     { return os.Remove(d.path(name)) }
func (d directoryFS) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d directoryFS) List() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

func (d directoryFS) Sync() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

type osFile struct {
	*os.File
	direct directFile
}

// ReadAt implements File. A long read goes past the cache unless all of it is there. It is made
// once, when a replica starts. In the cache it would drive out what others want, or take memory
// that the host has to find first.
func (f *osFile) ReadAt(b []byte, off int64) (int, error) {
	if len(b) >= longRead && f.direct.open(f.File, b, off) {
		if n, err := f.direct.ReadAt(b, off); err == nil {
			return n, nil
		}
	}
	return f.File.ReadAt(b, off)
}

// longRead is how many bytes a read must have to go past the cache.
const longRead = 64 << 10

// Close implements File.
func (f *osFile) Close() error { return errors.Join(f.direct.close(), f.File.Close()) }

func (f *osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f *osFile) writeAndSync(b []byte, off int64) error {
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return f.Sync()
}
