// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"fmt"
	"time"

	"bfs/pkg/internal/disk"
)

// # A full disk
//
// A replica in disk mode keeps room in reserve (R-OUR-7). When it cannot, or when its journal or its image finds no room, it stands aside: it
// takes in no message and has no ticks, as one whose process is stopped. So nothing is promised that would have to be written, and memory does
// not fill with what waits for the disk. What it has said before and could not make durable waits with the journal's records, and leaves when
// there is room. A primary does not hand over first: its VIEW-CHANGE would need the disk, too.
//
// It tries again after a pause. When all that waits is written and the reserve is complete it comes back, as a replica that was cut off.

// fullPause is how often a replica that stands aside looks whether there is room. (A variable for tests.)
var fullPause = time.Second

// pause is how long a replica that stands aside waits before it tries again: longer if a large part of the image may have to be written for that.
func (k *keeper) pause() time.Duration {
	if k.job != nil {
		return 10 * fullPause
	}
	return fullPause
}

// aside reports whether this replica stands aside. The caller holds the lock.
func (r *Replica) aside() bool { return r.keeper != nil && r.keeper.full != nil }

// stepAside has this replica stand aside because its disk is full. The caller holds the lock.
func (r *Replica) stepAside(why error) {
	if r.stopping || r.aside() {
		return
	}
	r.log.Error("this replica's disk is full: it votes for nothing and answers nobody until there is room, and counts among the f that may fail."+
		" Make room in the directory; the replica then goes on by itself", "directory", r.keeper.directory, "reason", why)
	r.keeper.full = why
}

// comeBack has a replica that stood aside go on. The caller holds the lock.
func (r *Replica) comeBack() {
	if !r.aside() {
		return
	}
	r.keeper.full, r.keeper.stuck = nil, false
	r.ticked = time.Now()
	r.log.Info("there is room on this replica's disk again: it goes on", "directory", r.keeper.directory)
}

// writeSmall writes a small file that everything waits for. If the disk is full it gets the room that is kept for such files.
func (k *keeper) writeSmall(write func() error) error {
	err := write()
	if disk.IsFull(err) && k.store.Yield() {
		k.work()
		err = write()
	}
	return err
}

// diskStatus is what an operator sees of the disk, nil without one. The caller holds the lock.
func (r *Replica) diskStatus() *DiskStatus {
	k := r.keeper
	if k == nil {
		return nil
	}
	f := k.store.Figures()
	s := &DiskStatus{
		JournalBytes: f.JournalBytes, JournalUsed: f.Needed, End: uint64(f.Next), Durable: uint64(f.Durable), Synced: k.syncs.last,
		Syncs: k.syncs.histogram(), Held: f.Held, Image: f.Image, ImageBytes: f.ImageBytes, GivenUp: f.GivenUp, Reserve: f.Reserve,
	}
	if k.full != nil {
		s.Full = fmt.Sprintf("%v; make room in %s", k.full, k.directory)
	}
	return s
}
