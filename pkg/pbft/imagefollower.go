// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
)

// An imageFollower takes the image on the disk from one stable checkpoint to a later one, and
// tells the state which checkpoints nobody needs any more. Its fields are under the replica's
// lock. Its goroutine writes the image (image.Update.Write and Commit) without the lock.
type imageFollower struct {
	disk  *storage
	core  *core.Core
	state State
	pages *pageServer // it lends a checkpoint, which the state then keeps

	job *imageJob // the next, nil if there is none

	initial  Digest               // the root of the initial state
	restored message.CheckpointID // the checkpoint that the state was read from
}

// An imageJob takes the image to a checkpoint that the state holds.
type imageJob struct {
	checkpoint message.CheckpointID
	then       func() // called under the lock when it is durable; nil: nothing waits for it
}

// fullPause is how often a replica that stands aside looks whether there is room. (A
// variable for tests.)
var fullPause = time.Second

// pause is how long a replica that stands aside waits before it tries again: longer if a
// large part of the image may have to be written for that. The caller holds the lock, or
// has just held it.
func (x *imageFollower) pause() time.Duration {
	if x.job != nil {
		return 10 * fullPause
	}
	return fullPause
}

// stable makes the image follow to checkpoint n, which is stable, if that is due. Then
// the state forgets the checkpoints below.
func (x *imageFollower) stable(n SeqNum) {
	// Otherwise a later checkpoint is stable, or the state is behind.
	if stable := x.core.Stable(); stable.Seq == n && n <= x.core.LastExecuted() {
		id := message.CheckpointID{Seq: n, Digest: stable.Digest}
		if x.disk.store.Stable(id) && x.job == nil {
			x.take(&imageJob{checkpoint: id})
		}
	}
	x.discard()
}

// discard makes the state forget the checkpoints that are no longer needed: those below
// the stable one, below the one that the image is taken to, or is about to be, and below
// the one that is lent.
func (x *imageFollower) discard() {
	n := x.disk.store.Keeps(x.core.Keeps())
	if x.job != nil {
		n = min(n, x.job.checkpoint.Seq)
	}
	x.state.Discard(x.pages.lent(n))
}

// take gives the image its next job. A job that something waits for takes the place of any other.
func (x *imageFollower) take(j *imageJob) {
	x.job = j
	x.disk.work()
}

// run is a goroutine that takes the image from checkpoint to checkpoint, and keeps room
// in reserve. While there is too little it tries again from time to time.
func (x *imageFollower) run() {
	k := x.disk
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-k.ending.stop:
			return
		case <-k.look:
		case <-again.C:
		}
		err := x.next()
		if err == nil {
			err = k.store.Reserve()
		}
		k.turns.enter()
		switch {
		case err == nil:
			k.comeBack()
		case disk.IsFull(err):
			k.stepAside(err)
			again.Reset(x.pause())
		default:
			k.fail(err)
		}
		k.turns.leave()
		if err != nil && !disk.IsFull(err) {
			return
		}
	}
}

// notYetPause is how long the image waits for digests before it looks again.
const notYetPause = 2 * time.Millisecond

// next does the image's next job.
func (x *imageFollower) next() error {
	k := x.disk
	k.turns.enter()
	j := x.job
	if x.job = nil; j == nil {
		k.turns.leave()
		return nil
	}
	u, err := k.store.Follow(j.checkpoint)
	k.turns.leave()
	if err != nil {
		return err
	}
	written, err := x.write(u, j)
	if err == nil && !written {
		return nil
	}
	if err == nil {
		_, err = k.store.Flush() // the journal must know that the checkpoint is stable once the image is at it
	}
	if err == nil {
		err = u.Commit()
	}
	k.turns.enter()
	defer k.turns.leave()
	if err != nil {
		if disk.IsFull(err) {
			x.giveUp(u, j)
		}
		return err
	}
	k.store.Followed(x.core.Stable().Seq)
	if j.then != nil && !k.ending.begun {
		j.then()
	}
	return nil
}

// giveUp ends an update for which there is no room. The update is done again; if nothing
// waits for this checkpoint, to the latest stable one.
func (x *imageFollower) giveUp(u *image.Update, j *imageJob) {
	k := x.disk
	k.store.GiveUp(u)
	if stable := x.core.Stable(); j.then == nil {
		j = nil // the checkpoint that it was to copy may be forgotten
		if stable.Seq <= x.core.LastExecuted() && !x.core.Transferring() && k.store.Behind(stable.Seq) {
			j = &imageJob{checkpoint: message.CheckpointID{Seq: stable.Seq, Digest: stable.Digest}}
		}
	}
	if x.job == nil {
		x.job = j
	}
	x.discard()
}

// write copies the pages of an update and writes them. It reports false if the update was
// given up, because another is more urgent or because it took too long.
func (x *imageFollower) write(u *image.Update, j *imageJob) (written bool, err error) {
	k := x.disk
	for {
		k.turns.enter()
		if k.ending.begun || x.job != nil || j.then == nil && k.store.Abandoned() {
			k.store.GiveUp(u)
			k.turns.leave()
			return false, nil
		}
		done, err := k.store.Copy(u, x.state)
		if done && err == nil {
			x.discard()
		}
		k.turns.leave()
		if errors.Is(err, ErrNotYet) { // the state was just fetched or restored, and is being digested
			select {
			case <-k.ending.stop:
			case <-time.After(notYetPause):
			}
			continue
		}
		if err != nil {
			return false, err
		}
		if err := u.Write(); err != nil || done {
			return true, err
		}
	}
}
