// SPDX-License-Identifier: Apache-2.0

// Package disk is the part of a file system that the journal and the image of a replica
// need: files that are written at an offset, and three promises that only a sync makes
// durable. [OS] is a directory of this host. [Mem] is one that tests can crash, and that
// can tear, lose, flip and misdirect writes.
//
// A write is durable when a later Sync of its file has returned. The creation, renaming or removal
// of a file is durable when a later Sync of its FS has returned. After a failed Sync the writes
// since the last good one may be durable or lost, and no later Sync tells: the caller must stop.
package disk

import (
	"errors"
	"io"
	"syscall"
)

// An FS is one directory, without directories in it. Names have no slash. Its methods may be called
// by several goroutines.
type FS interface {
	// Create makes an empty file. It is an error (fs.ErrExist) if there is one of that name.
	Create(name string) (File, error)
	// Open opens a file for reading and writing. It is an error (fs.ErrNotExist) if there is none.
	Open(name string) (File, error)
	// Remove removes a file. Open handles stay usable.
	Remove(name string) error
	// Rename gives a file another name, and replaces the file that had it.
	Rename(from, to string) error
	// List returns the names of all files, sorted.
	List() ([]string, error)
	// Sync makes the names durable.
	Sync() error
}

// A File is an open file. Reads and writes at an offset may be concurrent; the rest may not.
type File interface {
	io.ReaderAt
	io.WriterAt
	// WriteThrough writes b at off and makes it durable: a WriteAt and a Sync in one call. It is
	// for a file without other writes that are not durable. An error is that of a Sync: nothing is
	// known of these bytes.
	WriteThrough(b []byte, off int64) error
	// Size is the length in bytes.
	Size() (int64, error)
	// Allocate makes the file at least size bytes long, has the blocks reserved, and leaves zeros
	// where nothing was written. A later write below size cannot fail for want of space.
	Allocate(size int64) error
	// Truncate makes the file size bytes long.
	Truncate(size int64) error
	// Sync makes the written bytes and the length durable.
	Sync() error
	Close() error
}

// IsFull reports whether an error says that a file system has no room, or that the user's share of
// it is used up. Any other error may mean that data is lost.
func IsFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }
