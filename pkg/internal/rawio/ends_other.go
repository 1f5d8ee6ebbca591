// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package rawio

import (
	"sync/atomic"
	"syscall"
)

// There is no poller for ends of file here: readers ask for more until there is none.
type end struct{ came atomic.Bool }

func watchEnd(syscall.RawConn) *end { return nil }

func (e *end) forget() {}
