// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"
	"syscall"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/pbfttest"
)

// keeper is the disk of a replica in disk mode. It outlives the replica's lives.
type keeper struct {
	disk     *disk.Mem
	store    *store.Store[func()] // of the present life
	flushing bool
	update   *image.Update // of the image, under way

	full  bool // the replica stands aside, because there is too little room
	again *job // the update for which there was no room; nil: none
}

// A job takes the image to a checkpoint that the state holds. then waits for that.
type job struct {
	to   message.CheckpointID
	then func()
}

// group stands for the digest of the group file.
var group = message.Digest{'g'}

// segmentBytes is the length of the journal's segments: so short that they are used again
// in most schedules.
const segmentBytes = 64 << 10

// recall opens the replica's disk. It returns the checkpoint that the state was brought
// to, and the records that follow it, and writes the fence into cfg. It is not ok if it
// fails, which on a full disk is no mistake.
func (r *replica) recall(cfg *core.Config) (state message.CheckpointID, records []message.Message, ok bool) {
	s := r.w.sites[r.id]
	if r.keeper == nil || s.lost {
		r.keeper = &keeper{disk: disk.NewMem(rand.New(rand.NewPCG(r.w.rng.Uint64(), 5)))}
	}
	r.keeper.flushing, r.keeper.update, r.keeper.full, r.keeper.again = false, nil, false, nil
	m, err := store.Recall[func()](store.Options{Disk: r.keeper.disk, Group: group, SegmentBytes: segmentBytes,
		Self: message.ReplicaID(r.id), Limits: &r.w.wire, ReserveBytes: r.w.wire.WindowLength * r.w.wire.BatchBytes},
		s.position, func() error {
			s.position = store.NoJournal
			return nil
		})
	if err != nil {
		r.cannotStart(err)
		return state, nil, false
	}
	if m.Why != nil {
		r.say("remembers nothing: %v", m.Why)
		r.w.marks.hit(markForgot)
	}
	r.keeper.store, r.remembers = m.Store, m.Whole
	if cfg.Durable = true; r.remembers {
		cfg.Raised, cfg.RaisedView = s.fence, s.view
	} else {
		cfg.Fence, cfg.FenceView = s.fence, s.view
	}
	state, ok = r.load()
	return state, m.Records, ok
}

// cannotStart ends a life before it has begun.
func (r *replica) cannotStart(err error) {
	if !disk.IsFull(err) {
		r.stop(err.Error())
		return
	}
	r.say("cannot start: %v", err)
	r.down = true
}

// load brings the state to the image's checkpoint, if the image has all of it.
func (r *replica) load() (state message.CheckpointID, ok bool) {
	_, err := r.keeper.store.OpenImage(pbfttest.Limit, r.memory)
	if err == nil {
		state, _, err = r.keeper.store.LoadState(func(n message.SeqNum, root message.Digest) (store.Session, error) {
			return r.memory.Install(n, root)
		})
	}
	if err != nil {
		r.cannotStart(err)
		return state, false
	}
	if state.Seq > 0 {
		r.exec.Replaced(state.Seq)
		r.at = state.Seq
		r.w.marks.hit(markLoaded)
	}
	return state, true
}

// when has f happen when all promises of this replica so far are on its disk.
func (r *replica) when(f func()) {
	if r.keeper == nil || !r.keeper.store.Hold(f) {
		f()
	}
}

// flush makes the waiting records durable, after a while.
func (r *replica) flush() {
	k := r.keeper
	if k == nil || k.flushing || k.full || !k.store.Waiting() {
		return
	}
	k.flushing = true
	r.later(1+r.w.rng.Int64N(r.w.shape.sync), func() {
		k.flushing = false
		r.flushNow()
		r.perform()
	})
}

// later has f happen after a while, in this life.
func (r *replica) later(after int64, f func()) {
	life := r.life
	r.w.after(after, func() {
		if r.life == life {
			r.running(f)
		}
	})
}

// flushNow makes as many records durable as it can, and reports whether that is all of them.
func (r *replica) flushNow() bool {
	durable, err := r.keeper.store.Flush()
	if err != nil && !r.fills(err) {
		return false
	}
	r.keeper.store.Flushed(durable, func(f func()) { f() })
	if err == nil && r.keeper.store.Short() && r.keeper.update == nil {
		r.reserve()
	}
	return err == nil
}

// fills makes the replica stand aside if an error says that its disk is full. Any other
// error stops it.
func (r *replica) fills(err error) bool {
	k := r.keeper
	switch {
	case !disk.IsFull(err):
		r.stop(err.Error())
		return false
	case !k.full:
		r.say("stands aside: %v", err)
		r.w.marks.hit(markFull)
		k.full = true
		r.later(1+r.w.rng.Int64N(10*tick), r.tryAgain)
	}
	return true
}

// reserve completes the reserve on the disk, and reports whether it could.
func (r *replica) reserve() bool {
	if err := r.keeper.store.Reserve(); err != nil {
		r.fills(err)
		return false
	}
	return true
}

// tryAgain makes a replica that stands aside look whether there is room.
func (r *replica) tryAgain() {
	k := r.keeper
	if again := k.again; again != nil && k.update == nil {
		k.again = nil
		r.follow(again.to, again.then)
	}
	if k.update != nil || k.again != nil || !r.flushNow() || !r.reserve() {
		r.later(1+r.w.rng.Int64N(10*tick), r.tryAgain)
		return
	}
	k.full = false
	r.say("has room again")
	r.w.marks.hit(markRoom)
	r.perform()
}

// aside reports whether the replica takes in no message, because its disk is full.
func (r *replica) aside() bool { return r.keeper != nil && r.keeper.full }

// discard forgets the checkpoints that nobody needs.
func (r *replica) discard() {
	n := r.core.Keeps()
	if k := r.keeper; k != nil {
		if n = k.store.Keeps(n); k.again != nil {
			n = min(n, k.again.to.Seq)
		}
	}
	r.memory.Discard(n)
}

// followStable makes the image follow to checkpoint n, which is stable, if that is due,
// and sometimes before.
func (r *replica) followStable(n message.SeqNum) {
	if r.keeper == nil || r.core.Stable().Seq != n || n > r.core.LastExecuted() {
		return // a later checkpoint is stable, or the state is behind
	}
	id := message.CheckpointID{Seq: n, Digest: r.core.Stable().Digest}
	if r.keeper.again != nil {
		// The disk is full, and a checkpoint waits for room: the state may have been replaced
		// by that checkpoint, and hold no other.
		return
	}
	if r.keeper.store.Stable(id) || r.keeper.store.Behind(n) && r.w.rng.IntN(4) == 0 {
		r.follow(id, nil)
	}
}

// follow takes the image to a checkpoint, which the state holds, and calls then when that
// is durable. Without one it may give up.
func (r *replica) follow(id message.CheckpointID, then func()) {
	k := r.keeper
	if k.update != nil {
		k.store.GiveUp(k.update)
	}
	u, err := k.store.Follow(id)
	if err != nil {
		r.stop(err.Error())
		return
	}
	k.update = u
	r.later(r.w.rng.Int64N(2*r.w.shape.copying), func() { r.copy(u, then) })
}

// copy copies some pages, and again after a while, until the update is done.
func (r *replica) copy(u *image.Update, then func()) {
	k := r.keeper
	switch {
	case k.update != u:
		return // another has begun
	case then == nil && k.store.Abandoned():
		k.store.GiveUp(u)
		k.update = nil
		r.w.marks.hit(markAbandoned)
		return
	}
	done, err := k.store.Copy(u, r.memory)
	if err == nil {
		err = u.Write()
	}
	switch {
	case err != nil:
		r.giveUp(u, then, err)
	case done:
		r.discard()
		r.later(r.w.rng.Int64N(tick), func() { r.commit(u, then) })
	default:
		r.later(r.w.rng.Int64N(r.w.shape.copying), func() { r.copy(u, then) })
	}
}

// giveUp ends an update for which there is no room, and has it done again: to the latest
// stable checkpoint if nothing waits for this one.
func (r *replica) giveUp(u *image.Update, then func(), err error) {
	k := r.keeper
	if !r.fills(err) {
		return
	}
	r.w.marks.hit(markNoRoom)
	to := k.store.Updating()
	k.store.GiveUp(u)
	k.update = nil
	switch stable := r.core.Stable(); {
	case then != nil:
		k.again = &job{to, then}
	case stable.Seq <= r.core.LastExecuted() && !r.core.Transferring() && k.store.Behind(stable.Seq):
		k.again = &job{to: message.CheckpointID{Seq: stable.Seq, Digest: stable.Digest}}
	}
	r.discard()
}

// commit makes an update durable.
func (r *replica) commit(u *image.Update, then func()) {
	k := r.keeper
	if k.update != u {
		return
	}
	if !r.flushNow() { // the journal must know that the checkpoint is stable once the image is at it
		r.giveUp(u, then, syscall.ENOSPC)
		return
	}
	if err := u.Commit(); err != nil {
		r.giveUp(u, then, err)
		return
	}
	k.update = nil
	k.store.Followed(r.core.Stable().Seq)
	r.reserve()
	r.w.marks.hit(markFollowed)
	if then != nil {
		then()
	}
	r.perform()
}
