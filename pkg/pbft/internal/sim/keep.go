// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/pbfttest"
)

// keeper is what a replica keeps on its disk, in disk mode. It outlives the replica's lives.
type keeper struct {
	disk     *disk.Mem
	store    *store.Store[func()] // of the present life
	flushing bool
	update   *image.Update // of the image, under way
}

// group stands for the digest of the group file.
var group = message.Digest{'g'}

// segmentBytes is the length of the journal's segments: so short that they are used again in most schedules.
const segmentBytes = 64 << 10

// recall opens the replica's disk. It returns the checkpoint that the state was brought to, and the records that follow it, and
// writes into cfg what the fence guards.
func (r *replica) recall(cfg *core.Config) (state message.CheckpointID, records []message.Message) {
	s := r.w.sites[r.id]
	if r.keeper == nil {
		r.keeper = &keeper{disk: disk.NewMem(rand.New(rand.NewPCG(r.w.rng.Uint64(), 5)))}
	}
	r.keeper.flushing, r.keeper.update = false, nil
	m, err := store.Recall[func()](store.Options{Disk: r.keeper.disk, Group: group, SegmentBytes: segmentBytes,
		Self: message.ReplicaID(r.id), Limits: &r.w.wire}, s.position, func() error {
		s.position = store.NoJournal
		return nil
	})
	if err != nil {
		r.stop(err.Error())
		return state, nil
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
	return r.load(), m.Records
}

// load brings the state to the image's checkpoint, if the image has all of it.
func (r *replica) load() (state message.CheckpointID) {
	_, err := r.keeper.store.OpenImage(pbfttest.Limit, r.memory)
	if err == nil {
		state, _, err = r.keeper.store.LoadState(func(n message.SeqNum, root message.Digest) (store.Session, error) {
			return r.memory.Install(n, root)
		})
	}
	if err != nil {
		r.stop(err.Error())
		return state
	}
	if state.Seq > 0 {
		r.exec.Replaced(state.Seq)
		r.at = state.Seq
		r.w.marks.hit(markLoaded)
	}
	return state
}

// when has f happen when what this replica has promised so far is on its disk.
func (r *replica) when(f func()) {
	if r.keeper == nil || !r.keeper.store.Hold(f) {
		f()
	}
}

// flush makes durable what waits, after a while.
func (r *replica) flush() {
	k := r.keeper
	if k == nil || k.flushing || !k.store.Waiting() {
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

func (r *replica) flushNow() {
	durable, err := r.keeper.store.Flush()
	if err != nil {
		r.stop(err.Error())
		return
	}
	r.keeper.store.Flushed(durable, func(f func()) { f() })
}

// discard forgets the checkpoints that nobody needs.
func (r *replica) discard() {
	n := r.core.Stable().Seq
	if r.keeper != nil {
		n = r.keeper.store.Keeps(n)
	}
	r.memory.Discard(n)
}

// followStable has the image follow to checkpoint n, which is stable, if it is time to, and sometimes before that.
func (r *replica) followStable(n message.SeqNum) {
	if r.keeper == nil || r.core.Stable().Seq != n {
		return // or there is a later one
	}
	id := message.CheckpointID{Seq: n, Digest: r.core.Stable().Digest}
	if r.keeper.store.Stable(id) || r.keeper.store.Behind(n) && r.w.rng.IntN(4) == 0 {
		r.follow(id, nil)
	}
}

// follow takes the image to a checkpoint, which the state holds, and calls then when that is durable. Without one it may give up.
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
	r.later(r.w.rng.Int64N(2*tick), func() { r.copy(u, then) })
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
		r.stop(err.Error())
	case done:
		r.discard()
		r.later(r.w.rng.Int64N(tick), func() { r.commit(u, then) })
	default:
		r.later(r.w.rng.Int64N(tick), func() { r.copy(u, then) })
	}
}

// commit makes an update durable.
func (r *replica) commit(u *image.Update, then func()) {
	k := r.keeper
	if k.update != u {
		return
	}
	r.flushNow() // that the checkpoint is stable is to be known where the image is at it
	if err := u.Commit(); err != nil {
		r.stop(err.Error())
		return
	}
	k.update = nil
	k.store.Followed()
	r.w.marks.hit(markFollowed)
	if then != nil {
		then()
	}
	r.perform()
}
