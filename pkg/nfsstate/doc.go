// SPDX-License-Identifier: Apache-2.0

// Package nfsstate is an NFSv3 file system as a deterministic state machine: from equal pages,
// equal operations leave equal pages and equal replies. Its whole state lies on the pages of
// an fsmerkle.Store, so the root digest of the store identifies the whole file system.
//
//	store, err := fsmerkle.New(fsmerkle.Options{Pages: 1 << 20})
//	fs, err := nfsstate.New(store, nfsstate.Config{Pages: 1 << 20, Reserved: 1, Exports: ...})
//	reply, wrote := fs.Execute(pbft.Operation{Client: id, Rights: rights, Choice: fs.Choose(0), Body: call})
//
// A body is an encoded nfs3.Call, of the NFS, the MOUNT or this project's administration
// program; a reply is an nfs3.AcceptStat and the raw XDR results. Rights bound the
// actions of the client that sends the body; see Rights.
//
// The files: service.go is the pbft.Service; dispatch.go decodes and encodes; names.go,
// data.go, attributes.go, listing.go and mount.go are the procedures by family, as typed
// arguments in and typed results out. How files lie on pages: super.go is the map of the
// state, alloc.go allocates and frees pages, inode.go and filemap.go make files of them,
// btree.go and directory.go directories, exports.go the file systems that clients mount.
// check.go walks all of it and reports faults.
//
// An operation checks first and changes then: functions named may… and room change nothing
// visible, and the changes after them cannot fail. So no operation is ever half done.
//
// The times: mtime and ctime are the agreed time of the operation; atime is set by
// SETATTR and the creators only, so that reading writes nothing.
//
// Keys of citations: [RFC1813] NFS Version 3 Protocol Specification; [TOCS] Castro and
// Liskov, Practical Byzantine Fault Tolerance and Proactive Recovery, ACM Transactions on
// Computer Systems 20(4), 2002.
package nfsstate
