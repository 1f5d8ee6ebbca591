// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package rawio

import "syscall"

// Unpaced does nothing here.
func Unpaced(syscall.RawConn) {}
