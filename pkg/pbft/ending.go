// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"log/slog"
	"os"
	"sync"
)

// An ending is how a replica stops: once, and for the first reason that anything gave. begun
// and err are under the replica's lock; err may be read without it when done is closed.
type ending struct {
	log   *slog.Logger
	lock  *os.File      // on the replica's directory, until the end
	stop  chan struct{} // closed to stop the goroutines
	done  chan struct{} // closed when all has stopped
	once  sync.Once     // closes stop
	begun bool          // no event counts any more
	err   error         // why; nil after Close
}

// ErrRecover is part of the error of a replica that has stopped because what it holds, or
// has on its disk, is not the group's, or may not be. Its next start is to be a recovery.
var ErrRecover = errors.New("start it again as a recovery, as bfsd keeper does (bfsd run --recover)")

func newEnding(log *slog.Logger) *ending {
	return &ending{log: log, stop: make(chan struct{}), done: make(chan struct{})}
}

// begin stops the goroutines. The caller holds the lock.
func (x *ending) begin() {
	x.begun = true
	x.once.Do(func() { close(x.stop) })
}

// fail stops the replica for a reason of its own. The caller holds the lock.
func (x *ending) fail(err error) {
	if x.err == nil {
		x.err = err
		x.log.Error("this replica stops", "reason", err)
	}
	x.begin()
}

// note keeps an error of the stop itself, unless there was an earlier one.
func (x *ending) note(err error) {
	if err != nil && x.err == nil {
		x.err = err
	}
}
