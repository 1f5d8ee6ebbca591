// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/auth"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/internal/transport"
)

// A keeper is what a replica keeps on disk, in disk mode, and what it says that must wait for the disk. All but the syncs, and the writing
// of the image, is under the replica's lock.
type keeper struct {
	store   *store.Store[said]
	trusted bool          // the journal holds all that was promised
	wake    chan struct{} // has one element if the flusher is to run
	bytes   int           // of the REPLYs among what is held

	initial    Digest               // the root of the initial state
	restored   message.CheckpointID // the checkpoint that the state was read from
	resuming   bool                 // batches of the journal are run: checkpoints are digested at once
	installing bool                 // a fetched state is not on disk yet, so nobody is answered from it

	job    *imageJob      // the next for the image, nil if there is none
	jobs   chan struct{}  // has one element if there is, or if what is in reserve must be looked at
	ending sync.WaitGroup // of the goroutines

	directory string    // where it lies
	full      error     // why this replica stands aside: see aside.go; nil: it does not
	stuck     bool      // and the journal has no room for what waits
	syncs     syncTimes // of the journal
}

// An imageJob is a checkpoint, which the state holds, to which the image is to be taken.
type imageJob struct {
	checkpoint message.CheckpointID
	then       func() // called under the lock when it is durable; nil: nothing waits for it
}

// said is something that waits for the disk: a message for one replica, or for all, or a REPLY. It is sealed when it leaves, for the
// nonces of a connection rise.
type said struct {
	message message.Message // nil: a REPLY
	all     bool
	to      ReplicaID

	conn       *transport.Conn
	session    *auth.Session
	head, long []byte
}

// heldBytes bounds the REPLYs that wait for the disk. A REPLY for which there is no room is dropped; its client asks again.
const heldBytes = 64 << 20

// holds keeps a message that must wait for the disk, and reports whether it did.
func (r *Replica) holds(x said) bool {
	if r.keeper == nil || !core.IsPromise(x.message) || !r.keeper.store.Waiting() {
		return false
	}
	if r.keeper.store.Full() {
		r.edge.dropped.Add(1) // STATUS asks for it
		return true
	}
	return r.keeper.store.Hold(x)
}

// holdReply keeps what an outbox holds, and a long result behind it, if it must wait for the disk.
func (r *Replica) holdReply(box *outbox, long []byte) bool {
	if r.keeper == nil || !r.keeper.store.Waiting() {
		return false
	}
	length := len(box.reply.Head()) + len(long)
	if r.keeper.bytes+length > heldBytes || r.keeper.store.Full() {
		r.edge.dropped.Add(1)
		return true
	}
	r.keeper.bytes += length
	r.keeper.store.Hold(said{conn: box.conn, session: box.session, head: bytes.Clone(box.reply.Head()), long: bytes.Clone(long)})
	return true
}

// say lets something leave that waited for the disk.
func (r *Replica) say(x said) {
	switch {
	case x.message == nil:
		r.keeper.bytes -= len(x.head) + len(x.long)
		r.sendReply(x.conn, x.session, x.head, x.long)
	case x.all:
		r.measured.multicast(x.message)
		r.multicast(x.message)
	default:
		r.sendTo(x.to, x.message)
	}
}

// poke has the flusher run if something waits for it. The caller holds the lock.
func (k *keeper) poke() {
	if k.store.Waiting() && !k.stuck {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// flush is a goroutine that syncs the journal whenever something waits for that: what came during one sync has the next in common.
func (r *Replica) flush() {
	k := r.keeper
	for {
		select {
		case <-r.stop:
			return
		case <-k.wake:
		}
		began := time.Now()
		durable, err := k.store.Flush()
		took, short := time.Since(began), k.store.Short()
		r.enter()
		switch {
		case disk.IsFull(err):
			k.stuck = true
			r.stepAside(err)
		case err != nil:
			r.failDisk(err)
		default:
			k.syncs.note(took)
		}
		if !r.stopping {
			k.store.Flushed(durable, r.say)
		}
		if r.leave(); short {
			k.work()
		}
	}
}

// failDisk stops the replica because its disk failed.
func (r *Replica) failDisk(err error) {
	if disk.IsFull(err) {
		r.fail(fmt.Errorf("this replica's disk is full: %w: make room in %s, then start the replica again; the others go on meanwhile, as long as"+
			" no more than f are away", err, r.cfg.Directory))
		return
	}
	r.fail(fmt.Errorf("this replica's disk failed: %w: what was written since the last good sync may be lost. See to the disk, and %w", err, ErrRecover))
}

// followStable has the image follow to checkpoint n, which is stable, if it is time to. Then the state forgets what is below.
func (r *Replica) followStable(n SeqNum) {
	k := r.keeper
	if stable := r.core.Stable(); stable.Seq == n && n <= r.core.LastExecuted() { // else there is a later one, or the state is behind
		id := message.CheckpointID{Seq: n, Digest: stable.Digest}
		if k.store.Stable(id) && k.job == nil {
			k.take(&imageJob{checkpoint: id})
		}
	}
	r.discard()
}

// discard has the state forget the checkpoints that nobody needs: those below the stable one, below the one that the image is taken to, or
// is about to be, and below the one that is lent.
func (r *Replica) discard() {
	k := r.keeper
	n := k.store.Keeps(r.core.Keeps())
	if k.job != nil {
		n = min(n, k.job.checkpoint.Seq)
	}
	r.cfg.Service.State().Discard(r.lent(n))
}

// take gives the image its next job. One that something waits for takes the place of any other.
func (k *keeper) take(j *imageJob) {
	k.job = j
	k.work()
}

// work wakes the goroutine that writes the image and looks after the reserve.
func (k *keeper) work() {
	select {
	case k.jobs <- struct{}{}:
	default:
	}
}

// follow is a goroutine that takes the image from checkpoint to checkpoint, and keeps room in reserve. While there is too little it tries again
// from time to time.
func (r *Replica) follow() {
	k := r.keeper
	again := time.NewTimer(0)
	defer again.Stop()
	for {
		select {
		case <-r.stop:
			return
		case <-k.jobs:
		case <-again.C:
		}
		err := r.followNext()
		if err == nil {
			err = k.store.Reserve()
		}
		r.enter()
		switch {
		case err == nil:
			r.comeBack()
		case disk.IsFull(err):
			r.stepAside(err)
			again.Reset(k.pause())
		default:
			r.failDisk(err)
		}
		r.leave()
		if err != nil && !disk.IsFull(err) {
			return
		}
	}
}

// notYetPause is how long the image waits for digests before it looks again.
const notYetPause = 2 * time.Millisecond

// followNext does the image's next job.
func (r *Replica) followNext() error {
	k := r.keeper
	r.enter()
	j := k.job
	if k.job = nil; j == nil {
		r.leave()
		return nil
	}
	u, err := k.store.Follow(j.checkpoint)
	r.leave()
	if err != nil {
		return err
	}
	written, err := r.writeImage(u, j)
	if err == nil && !written {
		return nil
	}
	if err == nil {
		_, err = k.store.Flush() // that the checkpoint is stable is to be known where the image is at it
	}
	if err == nil {
		err = u.Commit()
	}
	r.enter()
	defer r.leave()
	if err != nil {
		if disk.IsFull(err) {
			r.giveUp(u, j)
		}
		return err
	}
	k.store.Followed()
	if j.then != nil && !r.stopping {
		j.then()
	}
	return nil
}

// giveUp ends an update for which there is no room. It is done again, to the latest stable checkpoint if nothing waits for this one.
func (r *Replica) giveUp(u *image.Update, j *imageJob) {
	k := r.keeper
	k.store.GiveUp(u)
	if stable := r.core.Stable(); j.then == nil {
		j = nil // what it was to copy may be forgotten
		if stable.Seq <= r.core.LastExecuted() && !r.core.Transferring() && k.store.Behind(stable.Seq) {
			j = &imageJob{checkpoint: message.CheckpointID{Seq: stable.Seq, Digest: stable.Digest}}
		}
	}
	if k.job == nil {
		k.job = j
	}
	r.discard()
}

// writeImage copies the pages of an update and writes them. It reports false if the update was given up, for another is more urgent, or
// because it took too long.
func (r *Replica) writeImage(u *image.Update, j *imageJob) (written bool, err error) {
	k := r.keeper
	for {
		r.enter()
		if r.stopping || k.job != nil || j.then == nil && k.store.Abandoned() {
			k.store.GiveUp(u)
			r.leave()
			return false, nil
		}
		done, err := k.store.Copy(u, r.cfg.Service.State())
		if done && err == nil {
			r.discard()
		}
		r.leave()
		if errors.Is(err, ErrNotYet) { // the state is new here, and is being digested
			select {
			case <-r.stop:
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

// close makes durable what was noted, when the goroutines have ended.
func (k *keeper) close() error {
	k.ending.Wait()
	_, err := k.store.Flush()
	if disk.IsFull(err) {
		err = nil // what found no room was said to nobody
	}
	return errors.Join(err, k.store.Close())
}
