// SPDX-License-Identifier: Apache-2.0

// Package model is NFSv3 written as plainly as possible: files are Go structs in Go maps,
// and nothing is fast. Tests compare pkg/nfsstate with it, and it was written from the
// RFC and not from that package.
//
// # Points that the RFC leaves open, decided here
//
// Handles. Ill-formed: BADHANDLE. Of an export that the client was not given: ACCES. Of a
// file that no longer exists: STALE. RENAME and LINK judge the first handle before the
// second, and tell the attributes of both; both live, in two exports: XDEV.
//
// Order of refusals. The handle; ROFS of WRITE, SETATTR and LINK; the type of what it
// names (NOTDIR where a directory is needed, INVAL for READ, WRITE and COMMIT of anything
// but a regular file and for READLINK of anything but a link); objects that cannot be
// made anywhere (a link's text of more than MaxPath bytes: NAMETOOLONG, of none or with a
// NUL: INVAL; MKNOD of a file, directory or link: BADTYPE, of a device with a major
// number of 2^12 or a minor of 2^20: INVAL); ROFS of the others; the dot names; the
// syntax of names; permission to search; existence of the name; permission to write; the
// sticky bit; the rest. A refused call changes nothing, not even times. Attributes come
// with every reply that has room for them, as soon as the handle named something.
//
// Names [RFC1813 §3.2]. More than MaxName bytes: NAMETOOLONG. Empty, or with a slash or a
// NUL: ACCES. The dot names: LOOKUP knows them; the creators and LINK say EXIST; REMOVE
// says ISDIR; RMDIR says INVAL for "." and EXIST for ".."; RENAME says INVAL.
//
// Permissions. Root may do everything, except execute a file without any execute
// permission. Owner, group and others are tried in this order and the first that fits
// decides. The owner may READ, WRITE and set the size regardless of the mode. Execute
// permission also allows READ. Searching wants execute permission on the directory,
// listing wants read, changing wants both write and execute; so ACCESS grants MODIFY,
// EXTEND and DELETE of a directory for both only. In a sticky directory only root, the
// directory's owner and the file's owner remove or rename a file: otherwise PERM.
//
// SETATTR. An empty one changes nothing, but any that succeeds ends the life of an
// exclusive verifier. The guard first (NOT_SYNC). Nanoseconds of 10^9 or more: INVAL. Size
// of a directory: ISDIR, of another non-file: INVAL, beyond the largest file: FBIG. Only
// the owner sets mode, uid, gid and client's times: PERM; only root changes uid, and gid
// is changed by root and by the owner to a group of its own; server's time and size may be
// set by every user who may write: ACCES. Mode bits beyond 07777 are dropped. A mode with
// setgid from a user outside the file's group loses that bit. Setting uid or gid of a
// non-directory clears setuid, for root too, and setgid where the group may execute; so do
// WRITE of at least one byte and a size, from others than root; a mode in the same call
// comes after that. A size sets mtime, even the same size. Any change sets ctime.
//
// Ids. The ids that a call sets are mapped as those of its credentials are, and one of
// 2^32-1 asks for nothing. The ids in a reply are mapped back.
//
// Creation. The owner is the caller; the group the caller's, or the directory's if that
// has setgid, which new directories inherit. A mode that is not given is 0; a symbolic
// link's is 0777 always. Only root makes block and character devices: PERM. Only root
// chooses initial uid and gid; from others they are ignored. CREATE UNCHECKED of an
// existing regular file sets the size if given, and ignores all other attributes; any
// other existing object is EXIST. All creating procedures except CREATE ignore the size.
//
// Times. A new file's three times are the call's. A changed directory's mtime and ctime
// are; so is the ctime of an object that is linked, renamed, or loses one of several
// links. atime never moves by itself.
//
// READDIR, READDIRPLUS. A verifier other than 0, or a cookie of 2^63 or more: BAD_COOKIE.
// Any other cookie is the place behind it, whether an entry has it or not. An entry gets
// the next cookie of its directory, from 3 on, when its name is put there. RENAME keeps
// cookies where it can, so that no entry comes to a reader twice: an existing name keeps
// its cookie, even if it names another file now; a new name in the same directory keeps
// that of the old one. Count and MaxCount bound the reply behind its status, at MaxListing
// if larger: TOOSMALL if not even the empty list fits, or entries are left and not one
// fits. DirCount bounds the sum of EntrySize, but never keeps the first entry back.
//
// RENAME. Both names of one file: nothing happens. Into itself: INVAL. Over a directory:
// a file gets ISDIR; over a file a directory gets NOTDIR, over a directory with entries
// NOTEMPTY. A directory that changes its parent must be writable itself, for its ".."
// changes: ACCES. LINK of a directory: ISDIR.
//
// MNT. An export's name and names of directories below it, which the caller must be able
// to search; slashes are as good as one. EXPORT lists the client's exports. No list of
// mounts is kept.
package model
