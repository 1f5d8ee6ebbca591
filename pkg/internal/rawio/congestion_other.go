//go:build !linux

package rawio

import "syscall"

// Unpaced does nothing here.
func Unpaced(syscall.RawConn) {}
