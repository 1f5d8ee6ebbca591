// SPDX-License-Identifier: Apache-2.0

package nfs3

import "fmt"

// Status is the verdict of an NFS procedure, nfsstat3 [RFC1813 §2.6]. It is the one enum of
// file-system refusals: replicas agree on it byte for byte, so nothing local hangs on it.
type Status uint32

// The values of Status, with their meaning here [RFC1813 §2.6].
const (
	OK             Status = 0     // the call succeeded
	ErrPerm        Status = 1     // not the owner, or not root, regardless of the mode
	ErrNoEnt       Status = 2     // no such name
	ErrIO          Status = 5     // never answered: pages do not fail one by one
	ErrNXIO        Status = 6     // never answered: devices are opened by the client
	ErrAcces       Status = 13    // the mode does not allow it
	ErrExist       Status = 17    // the name is taken
	ErrXDev        Status = 18    // two exports in one RENAME or LINK
	ErrNoDev       Status = 19    // never answered
	ErrNotDir      Status = 20    // a directory was needed
	ErrIsDir       Status = 21    // anything but a directory was needed
	ErrInval       Status = 22    // the arguments make no sense together
	ErrFBig        Status = 27    // beyond the largest file, 2^43-1 bytes
	ErrNoSpc       Status = 28    // no page or no inode left
	ErrROFS        Status = 30    // the client was given the export for reading only
	ErrMLink       Status = 31    // too many hard links
	ErrNameTooLong Status = 63    // a name of more than MaxName bytes, a path of more than MaxPath
	ErrNotEmpty    Status = 66    // a directory with entries
	ErrDQuot       Status = 69    // the export's quota is used up
	ErrStale       Status = 70    // a well-formed handle of a file that is gone
	ErrRemote      Status = 71    // never answered
	ErrBadHandle   Status = 10001 // not a handle of this form
	ErrNotSync     Status = 10002 // the guard of SETATTR does not match
	ErrBadCookie   Status = 10003 // a cookie, or verifier, that READDIR never gave
	ErrNotSupp     Status = 10004 // the operation does not exist here
	ErrTooSmall    Status = 10005 // READDIR: not one entry fits
	ErrServerFault Status = 10006 // never answered
	ErrBadType     Status = 10007 // MKNOD of something that is not a node
	ErrJukebox     Status = 10008 // try again later
)

var statusNames = map[Status]string{
	OK: "OK", ErrPerm: "PERM", ErrNoEnt: "NOENT", ErrIO: "IO", ErrNXIO: "NXIO", ErrAcces: "ACCES",
	ErrExist: "EXIST", ErrXDev: "XDEV", ErrNoDev: "NODEV", ErrNotDir: "NOTDIR", ErrIsDir: "ISDIR",
	ErrInval: "INVAL", ErrFBig: "FBIG", ErrNoSpc: "NOSPC", ErrROFS: "ROFS", ErrMLink: "MLINK",
	ErrNameTooLong: "NAMETOOLONG", ErrNotEmpty: "NOTEMPTY", ErrDQuot: "DQUOT", ErrStale: "STALE",
	ErrRemote: "REMOTE", ErrBadHandle: "BADHANDLE", ErrNotSync: "NOT_SYNC", ErrBadCookie: "BAD_COOKIE",
	ErrNotSupp: "NOTSUPP", ErrTooSmall: "TOOSMALL", ErrServerFault: "SERVERFAULT",
	ErrBadType: "BADTYPE", ErrJukebox: "JUKEBOX",
}

// String is the RFC's name without its prefix.
func (s Status) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return fmt.Sprintf("Status(%d)", uint32(s))
}

// Error implements error, for clients written in Go.
func (s Status) Error() string { return "nfs3: " + s.String() }

// MountStatus is the verdict of MNT, mountstat3 [RFC1813 §5.1.5].
type MountStatus uint32

// The values of MountStatus.
const (
	MountOK             MountStatus = 0
	MountErrPerm        MountStatus = 1
	MountErrNoEnt       MountStatus = 2
	MountErrIO          MountStatus = 5
	MountErrAcces       MountStatus = 13
	MountErrNotDir      MountStatus = 20
	MountErrInval       MountStatus = 22
	MountErrNameTooLong MountStatus = 63
	MountErrNotSupp     MountStatus = 10004
	MountErrServerFault MountStatus = 10006
)

// String names the verdict as Status does; the two enums share their numbers.
func (s MountStatus) String() string { return Status(s).String() }

// Error makes a MountStatus an error.
func (s MountStatus) Error() string { return "mount3: " + s.String() }
