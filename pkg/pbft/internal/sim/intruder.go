// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"math/rand/v2"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// An intruder comes into a replica, has it lie for a while, and is expelled by a
// recovery. Before that the intruder may change what is on the replica's disk, and keeps
// its session keys. A life has more than f intruders, and never more than f at a time.

// intrusions draws intruders that come one after the other. No other replica lies then.
func (d *drawing) intrusions(rng *rand.Rand) {
	for range 2 + rng.IntN(4) {
		i, t, stay, rest := rng.IntN(d.s.Replicas), rng.IntN(d.s.shape.stop), 1+rng.IntN(60), rng.IntN(10)
		speaks := []lie{fickle, scheming, lies[rng.IntN(len(lies))]}[rng.IntN(3)]
		leaves := traces[rng.IntN(len(traces))]
		d.add(func(w *world) {
			w.patiently(t, func() bool { return w.intrudes(i, int64(stay)*tick, int64(rest)*tick, speaks, leaves) })
		}, "from %d on an intruder has replica %d as soon as he may, for %d ticks: %s; he leaves behind: "+
			"%s; %d ticks later it recovers",
			t, i, stay, speaks.name, leaves.name, rest)
	}
}

// A trace is a change that an intruder leaves behind.
type trace struct {
	name  string
	leave func(r *replica, rng *rand.Rand)
}

var traces = []trace{
	{"nothing", func(*replica, *rand.Rand) {}},
	{"a journal of his own making", plant},
	{"a journal of his own making", plant},
	{"a fence that guards nothing", func(r *replica, _ *rand.Rand) {
		r.w.sites[r.id].fence, r.w.sites[r.id].view = 0, 0
	}},
	{"a fence that guards everything", func(r *replica, _ *rand.Rand) {
		r.w.sites[r.id].fence, r.w.sites[r.id].view = 1<<40, 1<<40
	}},
	{"an empty disk, which half of them pass for whole", func(r *replica, rng *rand.Rand) {
		if r.keeper == nil {
			return
		}
		r.keeper.disk = disk.NewMem(rand.New(rand.NewPCG(r.w.rng.Uint64(), 5)))
		if rng.IntN(2) == 0 {
			r.w.sites[r.id].position = 0
		}
	}},
	{"bytes that he has overwritten", func(r *replica, rng *rand.Rand) {
		if r.keeper != nil {
			for _, name := range []string{"pages", "table"} {
				_ = r.keeper.disk.Flip(name, rng.Int64N(64<<10), 4096) // which may have no such file
			}
		}
	}},
}

// intrudes lets an intruder in, unless the correct replicas that remember would be no quorum.
func (w *world) intrudes(i int, stay, rest int64, speaks lie, leaves trace) (come bool) {
	s := w.sites[i]
	if r := s.copies[0]; s.liar() || s.away || r.down || r.recovers || !w.mayLose(i) || w.liars() >= w.f {
		return false
	}
	w.say("an intruder is in replica %d", i)
	s.lies, s.corrupt = []lie{speaks}, true
	w.remember(i)
	w.after(stay, func() {
		r := s.copies[0]
		keys := w.steals(i)
		r.recover(rest)
		if leaves.leave(r, s.memory.rng); w.cunning != nil {
			w.cunning.parts(r)
		}
		if w.robber != nil && w.robber.IntN(3) == 0 {
			r.rob()
		}
		s.lies = nil
		keys.speak()
	})
	return true
}

// plant appends false records to the journal.
func plant(r *replica, rng *rand.Rand) {
	if r.keeper == nil {
		return
	}
	s := r.w.sites[r.id]
	m, err := store.Recall[func()](store.Options{Disk: r.keeper.disk, Group: group, SegmentBytes: segmentBytes,
		Self: message.ReplicaID(r.id), Limits: &r.w.wire}, 0, func() error { return nil })
	if err != nil {
		return // the crash has left nothing to be opened
	}
	for range 1 + rng.IntN(6) {
		m.Store.Persist(r.falseRecord(rng, s.memory))
	}
	if durable, err := m.Store.Flush(); err == nil {
		m.Store.Flushed(durable, nil)
	}
	s.position = uint64(m.Store.Position())
	_ = m.Store.Close()
}

// falseRecord is a record that the replica never had.
func (r *replica) falseRecord(rng *rand.Rand, l *liarMemory) message.Message {
	self := message.ReplicaID(r.id)
	view, _ := r.core.View()
	view += message.View(rng.IntN(4))
	if rng.IntN(8) == 0 {
		view = 1 << 40
	}
	n := r.core.Low() + message.SeqNum(rng.IntN(2*int(r.w.shape.log)))
	digest := message.Digest{byte(rng.Uint32()), 1}
	var batch message.Batch
	if len(l.batches) > 0 {
		batch = l.batches[rng.IntN(len(l.batches))]
		digest = batch.Digest()
	}
	switch rng.IntN(7) {
	case 0:
		return &message.Status{View: view, Active: rng.IntN(2) == 0, From: self}
	case 1:
		p := []message.Prepared{{Seq: n + 1, Digest: digest, View: view}}
		return &message.ViewChange{View: view + 1, Low: n, P: p, Q: p, From: self}
	case 2:
		return &message.PrePrepare{View: view, Seq: n, Digest: digest, Batch: batch, From: view.Primary(r.w.n)}
	case 3:
		return &message.Commit{View: view, Seq: n, From: self}
	case 4:
		return &message.Decided{Seq: n, Digest: digest, From: self}
	case 5:
		return &message.Checkpoint{Seq: n / r.w.shape.period * r.w.shape.period, Digest: digest,
			Stable: true, From: self}
	}
	return &message.NewView{View: view, Checkpoint: message.CheckpointID{Seq: n / r.w.shape.period * r.w.shape.period,
		Digest: digest}, Chosen: []message.Digest{digest, message.NullDigest}, From: view.Primary(r.w.n)}
}
