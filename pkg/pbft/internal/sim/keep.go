// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math"
	"math/rand/v2"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
	"bfs/pkg/pbft/pbfttest"
)

// keeper is what a replica keeps on its disk, in disk mode. It outlives the replica's lives.
type keeper struct {
	disk     *disk.Mem
	store    *store.Store[func()] // of the present life
	flushing bool
	update   *image.Update  // of the image, under way
	holds    message.SeqNum // the state keeps this checkpoint for it; 0: none
}

// group stands for the digest of the group file.
var group = message.Digest{'g'}

// segmentBytes is the length of the journal's segments: so short that they are used again in most schedules.
const segmentBytes = 64 << 10

// noJournal is a position that no journal reaches.
const noJournal = math.MaxUint64

// recall opens the replica's disk. It returns the checkpoint that the state was brought to, and the records that follow it, and
// writes into cfg what the fence guards.
func (r *replica) recall(cfg *core.Config) (state message.CheckpointID, records []message.Message) {
	s := r.w.sites[r.id]
	if r.keeper == nil {
		r.keeper = &keeper{disk: disk.NewMem(rand.New(rand.NewPCG(r.w.rng.Uint64(), 5)))}
	}
	k := r.keeper
	k.flushing, k.update, k.holds = false, nil, 0
	options := journal.Options{SegmentBytes: segmentBytes}
	st, records, err := store.Open[func()](k.disk, group, options, message.ReplicaID(r.id), &r.w.wire)
	if err != nil || uint64(st.Position()) < s.position || st.Position() == 0 && s.fence > 0 {
		r.say("remembers nothing: %v", err)
		r.w.marks.hit(markForgot)
		s.position = noJournal
		if err := journal.Discard(k.disk); err != nil {
			r.stop(err.Error())
			return state, nil
		}
		if st, records, err = store.Open[func()](k.disk, group, options, message.ReplicaID(r.id), &r.w.wire); err != nil {
			r.stop(err.Error())
			return state, nil
		}
	}
	k.store = st
	r.remembers = s.position != noJournal
	if cfg.Durable = true; r.remembers {
		cfg.Raised, cfg.RaisedView = s.fence, s.view
	} else {
		cfg.Fence, cfg.FenceView = s.fence, s.view
	}
	if st.Position() == 0 {
		st.Persist(&message.Checkpoint{})
		r.flushNow()
	}
	return r.load(), records
}

// load brings the state to the image's checkpoint, if the image has all of it.
func (r *replica) load() (state message.CheckpointID) {
	if err := r.keeper.store.OpenImage(r.keeper.disk, image.Options{Group: group, Pages: pbfttest.Limit, Tree: r.memory}); err != nil {
		r.stop(err.Error())
		return state
	}
	k, ok := r.keeper.store.Checkpoint()
	if !ok {
		return state
	}
	session, err := r.memory.Install(k.Seq, k.Digest)
	if err != nil {
		r.stop(err.Error())
		return state
	}
	if missing := r.keeper.store.Load(session); len(missing) > 0 || !session.Done() {
		session.Abort()
		return state
	}
	if err := session.Commit(); err != nil {
		r.stop(err.Error())
		return state
	}
	r.exec.Replaced(k.Seq)
	r.at = k.Seq
	r.w.marks.hit(markLoaded)
	return k
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

// discard forgets the checkpoints below n, but for the one that the image follows to.
func (r *replica) discard(n message.SeqNum) {
	if k := r.keeper; k != nil && k.holds > 0 {
		n = min(n, k.holds)
	}
	r.memory.Discard(n)
}

// followStable has the image follow to a stable checkpoint, if it is time to.
func (r *replica) followStable(n message.SeqNum) {
	if r.keeper == nil || r.core.Stable().Seq != n {
		return // or there is a later one
	}
	id := message.CheckpointID{Seq: n, Digest: r.core.Stable().Digest}
	if r.keeper.store.Stable(id) || r.keeper.update == nil && r.w.rng.IntN(4) == 0 {
		r.follow(id, func() {})
	}
}

// follow takes the image to a checkpoint, which the state holds, and calls then when that is durable.
func (r *replica) follow(id message.CheckpointID, then func()) {
	k := r.keeper
	if k.update != nil {
		k.update.Abort()
		k.store.Unfollowed()
	}
	u, err := k.store.Follow(id)
	if err != nil {
		r.say("the image stays behind: %v", err)
		then()
		return
	}
	k.update, k.holds = u, id.Seq
	r.later(r.w.rng.Int64N(2*tick), func() { r.copy(u, id, then) })
}

// copy copies some pages, and again after a while, until the update is done.
func (r *replica) copy(u *image.Update, id message.CheckpointID, then func()) {
	k := r.keeper
	if k.update != u {
		return // another has begun
	}
	done, err := u.Step(r.memory, 16)
	if err == nil {
		err = u.Write()
	}
	if err == nil && done {
		r.flushNow() // that the checkpoint is stable is to be known where the image is at it
		if err = u.Commit(); err == nil {
			k.update, k.holds = nil, 0
			k.store.Followed(id.Seq)
			r.memory.Discard(r.core.Stable().Seq)
			r.w.marks.hit(markFollowed)
			then()
			r.perform()
			return
		}
	}
	if err != nil {
		r.stop(err.Error())
		return
	}
	r.later(r.w.rng.Int64N(tick), func() { r.copy(u, id, then) })
}
