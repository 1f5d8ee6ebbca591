// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// recall makes a core of what an earlier life left on the disk. A journal that has lost something is dropped: the fence is all that is
// known then, and the replica is silent, as one is after every restart in replicated mode.
func (r *Replica) recall(cfg core.Config) error {
	tree, ok := r.cfg.Service.State().(Tree)
	if !ok {
		return errors.New(`durability = "disk" needs a State that is a pbft.Tree`)
	}
	began := time.Now()
	records, err := r.openJournal(filepath.Join(r.cfg.Directory, journalDirectory))
	if err != nil {
		return r.cannotStart("journal", err)
	}
	r.countAhead()
	if cfg.Durable = true; r.keeper.trusted {
		cfg.Raised, cfg.RaisedView = r.fence.Last(), r.fence.View()
	} else {
		cfg.Fence, cfg.FenceView = r.fence.Last(), r.fence.View()
	}
	state, err := r.loadImage(tree)
	if err != nil {
		return errors.Join(r.cannotStart("image", err), r.keeper.store.Close())
	}
	r.core = core.Restore(cfg, state, records)
	if r.keeper.restored = state; state.Seq > 0 || r.core.LastExecuted() > 0 {
		r.log.Info("read the disk", "checkpoint", state.Seq, "executed", r.core.LastExecuted(), "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// cannotStart names the directory, and the next step if its disk is full or cannot be read.
func (r *Replica) cannotStart(what string, err error) error {
	switch {
	case disk.IsFull(err):
		return fmt.Errorf("%s in %s: %w: make room there, then start the replica again", what, r.cfg.Directory, err)
	case errors.Is(err, syscall.EIO):
		return fmt.Errorf("%s in %s: %w: the disk is damaged: put another one in, then run bfsd replica replace, as after the loss of the directory",
			what, r.cfg.Directory, err)
	}
	return fmt.Errorf("%s in %s: %w", what, r.cfg.Directory, err)
}

// countAhead has the file of the signature counter written now, with the room that is kept for it if the disk is full: without it no NEW-KEY can
// be made, and nobody hears this replica.
func (r *Replica) countAhead() {
	err := r.keeper.writeSmall(func() error {
		_, err := r.recovery.signer.Count()
		return err
	})
	if err != nil {
		r.log.Error("this replica cannot write to its directory, so that it can make no NEW-KEY", "directory", r.cfg.Directory, "reason", err)
	}
}

// openJournal opens the journal in a directory, or a new one if it has lost something, and returns its records.
func (r *Replica) openJournal(directory string) ([]message.Message, error) {
	if err := os.MkdirAll(directory, 0o700); err != nil {
		return nil, err
	}
	o := r.cfg.storeOptions()
	o.ReserveBytes = r.reserveBytes()
	m, err := store.Recall[said](o, r.fence.Position(), r.fence.Distrust)
	if err != nil {
		return nil, err
	}
	r.keeper = &keeper{store: m.Store, trusted: m.Whole, wake: make(chan struct{}, 1), jobs: make(chan struct{}, 1), directory: directory}
	r.fence.WriteWith(r.keeper.writeSmall)
	if m.Why != nil {
		r.recovery.found = true
		r.log.Error("the journal is not whole, and is not used: this replica keeps silent until the others have passed all that it can have promised",
			"reason", m.Why, "directory", r.cfg.Directory)
	}
	if m.Whole {
		r.fence.Follow(r.keeper.position)
	}
	return m.Records, nil
}

// reserveBytes is how much room is kept for the journal, and for the image, on a disk that is full: unless it is to be spent.
func (r *Replica) reserveBytes() int {
	if r.cfg.SpendReserve {
		return 0
	}
	return r.group.Limits.windowBytes()
}

// windowBytes bounds the operations of L batches. A checkpoint comes when as many as CheckpointBytes were executed, and is stable before as many
// again are, so that those of two are all there are, and a batch more.
func (l *Limits) windowBytes() int {
	batch := max(l.BatchBytes, l.Operation)
	all := min(int(l.LogSize)*batch, l.LogBytes)
	if l.CheckpointBytes > 0 {
		all = min(all, 2*l.CheckpointBytes+batch)
	}
	return all
}

// position is how many records the journal holds durably.
func (k *keeper) position() uint64 { return uint64(k.store.Position()) }

// loadImage brings the state to the image's checkpoint. It stays the initial one if there is no image, or one that is not whole: then what the
// image has is used when the state is fetched.
func (r *Replica) loadImage(tree Tree) (state message.CheckpointID, err error) {
	damaged, err := r.keeper.store.OpenImage(image.MaxPages, tree)
	if err != nil {
		return state, err
	}
	r.keeper.initial = r.frozen(0)
	state, lacks, err := r.keeper.store.LoadState(func(n SeqNum, root Digest) (store.Session, error) {
		return r.cfg.Service.State().Install(n, root)
	})
	switch {
	case err != nil:
		return state, err
	case damaged, lacks > 0:
		r.recovery.found = true
		r.log.Error("the image of the state is not as it was written: this replica fetches what it lacks from the others",
			"pages", lacks, "all", damaged, "directory", r.cfg.Directory)
	case state.Seq > 0:
		r.exec.Replaced(state.Seq)
		r.gate.follow(r.exec.Ledger())
	}
	return state, nil
}

// frozen takes a checkpoint and waits for its root.
func (r *Replica) frozen(n SeqNum) Digest {
	root := make(chan Digest, 1)
	r.exec.Frozen(n)
	r.cfg.Service.State().Freeze(n, func(d Digest) { root <- d })
	return <-root
}

// begin takes the first checkpoint, and in disk mode runs the batches that the journal holds. The caller holds the lock.
func (r *Replica) begin() {
	if r.keeper == nil {
		if r.freeze(0); r.cfg.Recover {
			r.noteRecovery()
			r.core.Resume()
		}
		return
	}
	r.keeper.resuming = true
	if r.keeper.restored.Seq == 0 {
		r.core.Frozen(0, r.keeper.initial)
	}
	r.perform()
	r.noteRecovery()
	r.exec.News() // what was recovered before this life is no news
	r.core.Resume()
	r.perform()
	r.keeper.resuming = false
	for _, run := range []func(){r.flush, r.follow} {
		r.keeper.ending.Go(run)
	}
}
