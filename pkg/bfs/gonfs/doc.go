// SPDX-License-Identifier: Apache-2.0

// Package gonfs serves a bfs.FS to NFS clients by way of go-nfs, unmodified: a second,
// independent way from NFS to the group, for comparison and for systems where the relay
// does not run. The relay is the better server; the limits of go-nfs hold here too:
//
//   - Every call acts as the one user that the FS was mounted for: go-nfs does not pass
//     the caller on. ACCESS grants everything.
//   - A connection is served one call at a time, and one call is up to a dozen operations
//     of the group. Other clients' operations may come between these, so attributes
//     before and after may not be those of one moment.
//   - CREATE empties a file that is there, EXCLUSIVE CREATE, LINK and MKNOD are refused,
//     guards of SETATTR are judged in two steps, atime and ctime are shown as mtime,
//     READDIR starts over when a directory changes.
//   - Handles are names for paths. They follow the renames made through this server, not those of
//     others; a handle that was not used for long, and all of them after a restart, are STALE.
//   - MOUNT knows MNT and UMNT of the export itself. Its answers to other procedures are no
//     valid RPC replies; libnfs asks for EXPORT unless it is told auto-traverse-mounts=0.
package gonfs
