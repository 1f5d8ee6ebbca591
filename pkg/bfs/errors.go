// SPDX-License-Identifier: Apache-2.0

package bfs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"github.com/go-git/go-billy/v5"

	"bfs/pkg/nfs3"
)

// ErrCrossedBoundary is the refusal of a name, or of a symbolic link on its way, that
// leads above the root. It is billy's, returned bare where billy wants it so, and inside
// a *fs.PathError elsewhere.
var ErrCrossedBoundary = billy.ErrCrossedBoundary

var errnos = map[nfs3.Status]syscall.Errno{
	nfs3.ErrPerm:        syscall.EPERM,
	nfs3.ErrNoEnt:       syscall.ENOENT,
	nfs3.ErrIO:          syscall.EIO,
	nfs3.ErrNXIO:        syscall.ENXIO,
	nfs3.ErrAcces:       syscall.EACCES,
	nfs3.ErrExist:       syscall.EEXIST,
	nfs3.ErrXDev:        syscall.EXDEV,
	nfs3.ErrNoDev:       syscall.ENODEV,
	nfs3.ErrNotDir:      syscall.ENOTDIR,
	nfs3.ErrIsDir:       syscall.EISDIR,
	nfs3.ErrInval:       syscall.EINVAL,
	nfs3.ErrFBig:        syscall.EFBIG,
	nfs3.ErrNoSpc:       syscall.ENOSPC,
	nfs3.ErrROFS:        syscall.EROFS,
	nfs3.ErrMLink:       syscall.EMLINK,
	nfs3.ErrNameTooLong: syscall.ENAMETOOLONG,
	nfs3.ErrNotEmpty:    syscall.ENOTEMPTY,
	nfs3.ErrDQuot:       syscall.EDQUOT,
	nfs3.ErrStale:       syscall.ESTALE,
	nfs3.ErrRemote:      syscall.EREMOTE,
	nfs3.ErrBadHandle:   syscall.ESTALE,
	nfs3.ErrNotSync:     syscall.EAGAIN,
	nfs3.ErrBadCookie:   syscall.EINVAL,
	nfs3.ErrNotSupp:     syscall.ENOTSUP,
	nfs3.ErrTooSmall:    syscall.EINVAL,
	nfs3.ErrServerFault: syscall.EIO,
	nfs3.ErrBadType:     syscall.EINVAL,
	nfs3.ErrJukebox:     syscall.EAGAIN,
}

// statusError is a status as the error that package os would give; nil if it is OK.
func statusError(st nfs3.Status) error {
	if st == nfs3.OK {
		return nil
	}
	if e, ok := errnos[st]; ok {
		return e
	}
	return st
}

// acceptError says that the replicas could not read the call at all.
func acceptError(stat nfs3.AcceptStat) error {
	switch stat {
	case nfs3.Success:
		return nil
	case nfs3.ProgUnavail, nfs3.ProgMismatch, nfs3.ProcUnavail:
		return syscall.ENOSYS
	default:
		return fmt.Errorf("call refused with accept status %d", stat)
	}
}

// wrap makes err a *fs.PathError, unless there is none.
func wrap(op, name string, err error) error {
	if err == nil {
		return nil
	}
	var p *fs.PathError
	if errors.As(err, &p) {
		err = p.Err
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

func wrapLink(op, from, to string, err error) error {
	if err == nil {
		return nil
	}
	return &os.LinkError{Op: op, Old: from, New: to, Err: err}
}
