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
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/internal/transport"
)

// # A full disk
//
// A replica in disk mode keeps room in reserve (R-OUR-7). When it cannot, or when its
// journal or its image finds no room, it stands aside: it takes in no message and has no
// ticks, as if its process were stopped. So it promises nothing that would have to be
// written, and what waits for the disk does not fill its memory. Messages that it could
// not make durable before wait with the journal's records, and leave when there is room.
// A primary does not hand over first: its VIEW-CHANGE would need the disk, too.
//
// It tries again after a pause. When everything that waits is written and the reserve is
// complete it comes back, like a replica that was cut off.

// storage holds the files of a replica in disk mode, and the messages that must wait for
// the disk. All of it is under the replica's lock except the syncs of the journal
// (store.Store.Flush). The goroutine that delivered a message syncs what it brought about,
// which saves the waking of another; meanwhile, and for ticks, the goroutine flush does.
// A replica in replicated mode has a nil storage, for which nothing waits.
type storage struct {
	store      *store.Store[said]
	turns      turns
	ending     *ending
	clock      *clock
	out        *outgoing
	measured   *measured
	directory  string // where journal and image lie
	configured string // the replica's directory, which operators know

	trusted    bool // the journal holds all that was promised
	resuming   bool // batches of the journal are run: checkpoints are digested at once
	installing bool // a fetched state is not on disk yet, so nobody is answered from it

	wake    chan struct{}  // has one element if the goroutine flush is to sync the journal
	look    chan struct{}  // has one element if the image has a job, or what is in reserve must be looked at
	ends    sync.WaitGroup // of the goroutines
	bytes   int            // of the REPLYs among what is held
	full    error          // why this replica stands aside; nil: it does not
	stuck   bool           // and the journal has no room for what waits
	syncing bool           // somebody syncs the journal, or is about to
	syncs   syncTimes      // of the journal
}

// turns lets another goroutine work on the replica: it holds the replica's lock between
// enter and leave, and leave performs the effects.
type turns interface {
	enter()
	leave()
}

// said is a message that waits for the disk: for one replica, or for all, or a REPLY. It
// is sealed when it leaves, because the nonces of a connection rise.
type said struct {
	message message.Message // nil: a REPLY
	all     bool
	to      ReplicaID

	conn       *transport.Conn
	session    *auth.Session
	ground     SeqNum
	head, long []byte
}

// heldBytes bounds the REPLYs that wait for the disk. A REPLY for which there is no room
// is dropped; its client asks again.
const heldBytes = 64 << 20

// holds keeps a message that must wait for the disk, and reports whether it kept it.
func (k *storage) holds(x said) bool {
	if k == nil || !core.IsPromise(x.message) || !k.store.Waiting() {
		return false
	}
	if k.store.Full() {
		k.out.end.Edge.Dropped.Add(1) // STATUS asks for it
		return true
	}
	return k.store.Hold(x)
}

// holdReply keeps a REPLY on the ground of batch n, and a long result behind it, if it must
// wait for the disk.
func (k *storage) holdReply(c *transport.Conn, s *auth.Session, n SeqNum, head, long []byte) bool {
	if k == nil || !k.store.Waiting() {
		return false
	}
	length := len(head) + len(long)
	if k.bytes+length > heldBytes || k.store.Full() {
		k.out.end.Edge.Dropped.Add(1)
		return true
	}
	k.bytes += length
	k.store.Hold(said{conn: c, session: s, ground: n, head: bytes.Clone(head), long: bytes.Clone(long)})
	return true
}

// say sends a message that waited for the disk.
func (k *storage) say(x said) {
	switch {
	case x.message == nil:
		k.bytes -= len(x.head) + len(x.long)
		k.out.reply(x.conn, x.session, x.ground, x.head, x.long)
	case x.all:
		k.measured.multicast(x.message)
		k.out.multicast(x.message)
	default:
		k.out.send(x.to, x.message)
	}
}

// due reports whether the caller is to have the journal synced: a message waits for that,
// and no other goroutine is at it.
func (k *storage) due() bool {
	if k == nil || k.syncing || k.stuck || !k.store.Waiting() {
		return false
	}
	k.syncing = true
	return true
}

// behind reports whether the caller must see the journal synced before it brings more, because a
// slow disk leaves too much of it in memory.
func (k *storage) behind() bool { return k != nil && !k.stuck && k.store.MustFlush() }

// poke has the goroutine flush sync the journal if that is due.
func (k *storage) poke() {
	if k.due() {
		k.wake <- struct{}{}
	}
}

// work wakes the goroutine that writes the image and looks after the reserve.
func (k *storage) work() { fill(k.look) }

// fill wakes the reader of a channel with one place, unless it has been woken already.
func fill(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// flush is a goroutine that syncs the journal when that is due and the goroutine that
// found it due has other things to do.
func (k *storage) flush() {
	for {
		select {
		case <-k.ending.stop:
			return
		case <-k.wake:
			k.sync(true)
		}
	}
}

// sync syncs the journal, for a caller that was told that this is due, or that it is behind, and
// does not hold the lock. Everything that comes meanwhile shares the next sync.
func (k *storage) sync(due bool) {
	began := time.Now()
	durable, err := k.store.Flush()
	took, short := time.Since(began), k.store.Short()
	k.turns.enter()
	if due {
		k.syncing = false
	}
	switch {
	case disk.IsFull(err):
		k.stuck = true
		k.stepAside(err)
	case err != nil:
		k.fail(err)
	default:
		k.syncs.note(took)
	}
	if !k.ending.begun {
		k.store.Flushed(durable, k.say)
	}
	if k.turns.leave(); short {
		k.work()
	}
}

// fail stops the replica because its disk failed.
func (k *storage) fail(err error) {
	if disk.IsFull(err) {
		k.ending.fail(fmt.Errorf("this replica's disk is full: %w: make room in %s, then start the replica "+
			"again; the others go on meanwhile, as long as no more than f are away", err, k.configured))
		return
	}
	k.ending.fail(fmt.Errorf("this replica's disk failed: %w: what was written since the last good sync may "+
		"be lost. See to the disk, and %w", err, ErrRecover))
}

// close makes durable what was noted, when the goroutines have ended.
func (k *storage) close() error {
	if k == nil {
		return nil
	}
	k.ends.Wait()
	_, err := k.store.Flush()
	if disk.IsFull(err) {
		err = nil // messages about what found no room were not sent
	}
	return errors.Join(err, k.store.Close())
}

// position is how many records the journal holds durably.
func (k *storage) position() uint64 { return uint64(k.store.Position()) }

// aside reports whether this replica stands aside. The caller holds the lock.
func (k *storage) aside() bool { return k != nil && k.full != nil }

// stepAside makes this replica stand aside because its disk is full. The caller holds the lock.
func (k *storage) stepAside(why error) {
	if k.ending.begun || k.aside() {
		return
	}
	k.ending.log.Error("this replica's disk is full: it votes for nothing and answers nobody until there is "+
		"room, and counts among the f that may fail. Make room in the directory; the replica then goes on by itself",
		"directory", k.directory, "reason", why)
	k.full = why
}

// comeBack makes a replica that stood aside go on. The caller holds the lock.
func (k *storage) comeBack() {
	if !k.aside() {
		return
	}
	k.full, k.stuck = nil, false
	k.clock.reset()
	k.ending.log.Info("there is room on this replica's disk again: it goes on", "directory", k.directory)
}

// writeSmall writes a small file that everything waits for. If the disk is full the file
// gets the room that is kept for such files.
func (k *storage) writeSmall(write func() error) error {
	err := write()
	if disk.IsFull(err) && k.store.Yield() {
		k.work()
		err = write()
	}
	return err
}

// status returns the operator's view of the disk, nil without a disk. The caller holds the lock.
func (k *storage) status() *DiskStatus {
	if k == nil {
		return nil
	}
	f := k.store.Figures()
	s := &DiskStatus{
		JournalBytes: f.JournalBytes, JournalUsed: f.Needed, End: uint64(f.Next),
		Durable: uint64(f.Durable), Synced: k.syncs.last, Syncs: k.syncs.histogram(), Held: f.Held, Image: f.Image,
		ImageBytes: f.ImageBytes, GivenUp: f.GivenUp, Reserve: f.Reserve,
	}
	if k.full != nil {
		s.Full = fmt.Sprintf("%v; make room in %s", k.full, k.directory)
	}
	return s
}
