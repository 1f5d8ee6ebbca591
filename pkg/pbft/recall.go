// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/core"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// Tree is what disk mode needs of a State beside its methods: how the digests of its nodes are made. The methods may be called on any
// goroutine.
type Tree = image.Tree

// recall makes a core of what an earlier life left on the disk. A journal that has lost something is dropped: the fence is all that is
// known then, and the replica is silent, as one is after every restart in replicated mode.
func (r *Replica) recall(cfg core.Config) error {
	tree, ok := r.cfg.Service.State().(Tree)
	if !ok {
		return errors.New(`durability = "disk" needs a State that is a pbft.Tree`)
	}
	began := time.Now()
	path := filepath.Join(r.cfg.Directory, journalDirectory)
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	files := disk.OS(path)
	records, err := r.openJournal(files, path)
	if err != nil {
		return err
	}
	if cfg.Durable = true; r.keeper.trusted {
		cfg.Raised, cfg.RaisedView = r.fence.last, r.fence.view
	} else {
		cfg.Fence, cfg.FenceView = r.fence.last, r.fence.view
	}
	options := image.Options{Group: r.group.Digest(), Pages: image.MaxPages, Tree: tree}
	if err := r.keeper.store.OpenImage(files, options); err != nil {
		return fmt.Errorf("image in %s: %w", path, err)
	}
	r.keeper.initial = r.frozen(0)
	state, err := r.loadImage()
	if err != nil {
		return fmt.Errorf("image in %s: %w", path, err)
	}
	r.core = core.Restore(cfg, state, records)
	if r.keeper.restored = state; state.Seq > 0 || len(records) > 0 {
		r.log.Info("read the disk", "checkpoint", state.Seq, "executed", r.core.LastExecuted(), "took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// openJournal opens the journal, or a new one if it has lost something, and returns its records.
func (r *Replica) openJournal(files disk.FS, path string) ([]message.Message, error) {
	s, records, err := r.openStore(files)
	if err != nil && !errors.Is(err, journal.ErrCorrupt) {
		return nil, fmt.Errorf("journal in %s: %w", path, err)
	}
	r.keeper = &keeper{store: s, wake: make(chan struct{}, 1), jobs: make(chan struct{}, 1)}
	if err == nil {
		at := uint64(s.Position())
		r.keeper.trusted = at >= r.fence.position && (at > 0 || r.fence.last == 0)
	}
	if !r.keeper.trusted {
		if records, err = r.replaceJournal(files, err); err != nil {
			return nil, fmt.Errorf("journal in %s: %w", path, err)
		}
	}
	if r.keeper.store.Position() == 0 { // so that an empty journal is one that was lost
		r.keeper.store.Persist(&message.Checkpoint{})
		if _, err := r.keeper.store.Flush(); err != nil {
			return nil, fmt.Errorf("journal in %s: %w", path, err)
		}
	}
	if r.keeper.trusted {
		r.fence.journal = r.keeper.position
	}
	return records, nil
}

func (r *Replica) openStore(files disk.FS) (*store.Store[said], []message.Message, error) {
	lim := r.group.wire()
	return store.Open[said](files, r.group.Digest(), journal.Options{SegmentBytes: r.group.segmentBytes()}, r.cfg.Self, &lim)
}

// replaceJournal begins a new journal in the place of one that is not whole. That is on disk first: the new one holds nothing of what was
// promised before.
func (r *Replica) replaceJournal(files disk.FS, why error) ([]message.Message, error) {
	if why == nil && r.fence.position != noJournal {
		why = fmt.Errorf("it has %d records, and had %d once: an old copy was put back, or the disk has lost what it should keep",
			r.keeper.store.Position(), r.fence.position)
	}
	if why != nil {
		r.log.Error("the journal is not whole, and is not used: this replica keeps silent until the others have passed all that it can have promised",
			"reason", why, "directory", r.cfg.Directory)
	}
	if err := r.fence.distrust(); err != nil {
		return nil, err
	}
	if r.keeper.store != nil {
		if err := r.keeper.store.Close(); err != nil {
			return nil, err
		}
	}
	if err := journal.Discard(files); err != nil {
		return nil, err
	}
	s, records, err := r.openStore(files)
	r.keeper.store = s
	return records, err
}

// position is how many records the journal holds durably.
func (k *keeper) position() uint64 { return uint64(k.store.Position()) }

// loadImage brings the state to the image's checkpoint. It stays the initial one if there is no image, or one that is not whole: then what the
// image has is used when the state is fetched.
func (r *Replica) loadImage() (state message.CheckpointID, err error) {
	if r.keeper.store.Damaged() {
		r.log.Error("the image of the state is damaged, and is not used: this replica fetches the state from the others", "directory", r.cfg.Directory)
	}
	k, ok := r.keeper.store.Checkpoint()
	if !ok {
		return state, nil
	}
	session, err := r.cfg.Service.State().Install(k.Seq, k.Digest)
	if err != nil {
		return state, err
	}
	if missing := r.keeper.store.Load(session); len(missing) > 0 || !session.Done() {
		r.log.Error("pages of the image are not as they were written: this replica fetches them from the others", "pages", len(missing),
			"directory", r.cfg.Directory)
		session.Abort()
		return state, nil
	}
	if err := session.Commit(); err != nil {
		return state, err
	}
	r.exec.Replaced(k.Seq)
	r.gate.follow(r.exec.Ledger())
	return k, nil
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
		r.freeze(0)
		return
	}
	r.keeper.resuming = true
	if r.keeper.restored.Seq == 0 {
		r.core.Frozen(0, r.keeper.initial)
	}
	r.perform()
	r.core.Resume()
	r.perform()
	r.keeper.resuming = false
	for _, run := range []func(){r.flush, r.follow} {
		r.keeper.ending.Go(run)
	}
}
