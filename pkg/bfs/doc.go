// SPDX-License-Identifier: Apache-2.0

// Package bfs is the file system for Go programs: a program uses it through io/fs and
// go-billy as a kernel uses it through a mount, but without a kernel, a relay or root.
//
//	fsys, err := bfs.Mount(ctx, client, "/export", nfs3.Credentials{UID: 1000, GID: 1000})
//	...
//	data, err := fs.ReadFile(fsys, "etc/motd")           // io/fs
//	err = fsys.WriteFile("etc/motd", data, 0o644)        // as package os has it
//	repo, err := git.Clone(storage, fsys.Billy(), ...)   // go-billy
//
// An FS turns names into handles by LOOKUP, and every other request into the one NFSv3
// procedure that does it. Each call is one operation of the group. So a result is one
// that at least one correct replica gave, and data is as durable as the group when Write
// returns: nothing is written later, and no COMMIT is needed.
//
// Rules for callers:
//
//   - Names. FS takes the names of io/fs ("a/b", no leading slash, UTF-8). Billy takes
//     what billy takes: slashes before and behind, dots, any bytes; and it makes the
//     missing parents of a created file.
//   - Symbolic links are followed here, not at the replicas. "/" in a link is the root of
//     the FS (of the Sub or Chroot, if it is one), and a link that leads above it is an
//     error, ErrCrossedBoundary. This confines honest programs. It is no protection,
//     since another client may rename a directory between two LOOKUPs; the client's
//     rights are, which the replicas check.
//   - Nothing is cached except the read-ahead of Read: at most 128 KiB of an open file, dropped
//     when this process writes to the file through the same Mount. Another client's write may be
//     missed within it, as with any NFS client between open and close. ReadAt asks the group each
//     time.
//   - O_EXCL is atomic among all clients. O_APPEND is not: NFSv3 has no such write, so the end
//     is asked for and then written to; only appends through one Mount wait for each other.
//   - Lock and Unlock exclude only files opened through the same Mount: the protocol's
//     locks are not served.
//   - A file that is removed while open is gone: ESTALE.
//   - Errors are *fs.PathError or *os.LinkError around a syscall.Errno, so that errors.Is(err,
//     fs.ErrNotExist), os.IsExist and comparisons with syscall.ENOSPC and the like work; or around
//     the client's or the context's error.
//
// All types may be used by many goroutines at once.
//
// Keys of citations: [RFC1813] NFS Version 3 Protocol Specification.
package bfs
