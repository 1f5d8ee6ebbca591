// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"bfs/pkg/internal/disk"
	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/executor"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// An Offline says how to make an archive of what one replica has on its disk.
type Offline struct {
	At       SeqNum // the state after this batch is archived; 0: the last batch known here to have committed
	Progress func(done, whole int)
	Warn     func(text string) // of what is missing
}

// BackupDirectory writes an archive of a replica that does not run, and changes nothing
// in its directory. It uses Group, Directory, Key and Service of cfg. The state is the
// image's, brought on by the batches that have committed according to the journal. So f+1
// replicas whose journals are not whole can still say what they had in common: see
// R-OUR-6. The replica signs the archive, which proves nothing by itself.
func BackupDirectory(ctx context.Context, cfg ReplicaConfig, path string, o Offline) (*Certificate, error) {
	tree, err := treeOf(cfg.Service)
	if err != nil {
		return nil, err
	}
	lock, err := lockForReading(cfg.Directory)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	k, err := cfg.reconstruct(tree, o)
	if err != nil {
		return nil, err
	}
	file, err := durable.Create(path)
	if err != nil {
		return nil, err
	}
	defer file.Discard()
	b := backup{read: readState(cfg.Service.State(), k.Seq), whose: cfg.Directory, checkpoint: k, tree: tree,
		progress: o.Progress}
	certificate, err := b.write(ctx, file, cfg.Group, cfg.Key)
	if err != nil {
		return nil, err
	}
	return certificate, file.Commit()
}

// readState reads a checkpoint of a state, whose methods are called by one goroutine at a time.
func readState(s State, seq SeqNum) reads {
	var mu sync.Mutex
	return func(_ context.Context, nodes []NodeID) (all [][]byte, err error) {
		mu.Lock()
		defer mu.Unlock()
		for _, id := range nodes {
			var contents []byte
			if id.Level == 0 {
				contents, err = s.PageAt(seq, PageNum(id.Index))
			} else {
				var children []Digest
				children, err = s.Children(seq, id)
				for _, d := range children {
					contents = append(contents, d[:]...)
				}
			}
			if err != nil {
				return nil, err
			}
			all = append(all, contents)
		}
		return all, nil
	}
}

// reconstruct brings the service's state to where the disk knows it, and takes a checkpoint there.
func (cfg *ReplicaConfig) reconstruct(tree Tree, o Offline) (Certified, error) {
	state := cfg.Service.State()
	x, err := newExecutor(cfg.Group, cfg.Service)
	if err != nil {
		return Certified{}, err
	}
	freeze(state, 0)
	at, err := cfg.loadImage(tree, x)
	if err != nil {
		return Certified{}, err
	}
	options := cfg.storeOptions()
	options.Disk = disk.ReadOnly(options.Disk)
	_, records, err := store.Read(options)
	switch {
	case errors.Is(err, journal.ErrCorrupt):
		o.warn("the journal is not used, and the state is that of the image, at checkpoint %d: %v", at.Seq, err)
	case err != nil:
		return Certified{}, err
	}
	last := runDecided(x, at.Seq, o.At, records)
	switch {
	case last == 0:
		return Certified{}, fmt.Errorf("%s: no batch is known to have committed", cfg.Directory)
	case o.At > 0 && last != o.At:
		return Certified{}, fmt.Errorf("%s: batch %d cannot be had: the image is at %d, and the "+
			"journal goes on from there to %d", cfg.Directory, o.At, at.Seq, last)
	case last == at.Seq:
		return at, nil
	}
	return Certified{last, freeze(state, last)}, nil
}

func (o *Offline) warn(format string, args ...any) {
	if o.Warn != nil {
		o.Warn(fmt.Sprintf(format, args...))
	}
}

// loadImage brings the state to the image's checkpoint, if there is one.
func (cfg *ReplicaConfig) loadImage(tree Tree, x *executor.Executor) (at Certified, err error) {
	d := disk.ReadOnly(disk.OS(filepath.Join(cfg.Directory, journalDirectory)))
	im, err := image.Open(d, image.Options{Group: cfg.Group.Digest(), Pages: image.MaxPages, Tree: tree})
	if errors.Is(err, image.ErrNone) {
		return at, nil
	}
	if err != nil {
		return at, err
	}
	defer func() { err = errors.Join(err, im.Close()) }()
	at.Seq, at.Root, _ = im.Checkpoint()
	session, err := cfg.Service.State().Install(at.Seq, at.Root)
	if err != nil {
		return at, err
	}
	if missing := im.Load(session); len(missing) > 0 || !session.Done() {
		session.Abort()
		return at, fmt.Errorf("%s: the image lacks %d pages or more: bfsd verify lists them",
			cfg.Directory, len(missing))
	}
	err = session.Commit()
	x.Replaced(at.Seq)
	return at, err
}

// runDecided runs the batches after one that are known to have committed, up to batch to
// if that is not 0, and returns the last.
func runDecided(x *executor.Executor, after, to SeqNum, records []message.Message) SeqNum {
	d := decidedIn(records)
	last := d.last(after)
	if to > 0 {
		last = min(last, max(after, to))
	}
	for n := after + 1; n <= last; n++ {
		b := d.batch(n)
		x.Begin(n)
		for _, q := range b.Requests {
			x.Execute(q, b.Choice)
		}
	}
	return last
}

// decided holds the batches that are known to have committed, according to a journal.
type decided struct {
	digests map[SeqNum]Digest
	bodies  map[Digest]*message.Batch // of these batches and others
}

// decidedIn finds them among the records of a journal.
func decidedIn(records []message.Message) decided {
	d := decided{map[SeqNum]Digest{}, map[Digest]*message.Batch{message.NullDigest: {}}}
	for _, r := range records {
		switch r := r.(type) {
		case *message.PrePrepare:
			d.bodies[r.Digest] = &r.Batch
		case *message.BatchBody:
			d.bodies[r.Digest] = &r.Batch
		case *message.Decided:
			d.digests[r.Seq] = r.Digest
		}
	}
	return d
}

// batch returns batch n, or nil.
func (d *decided) batch(n SeqNum) *message.Batch {
	digest, known := d.digests[n]
	if !known {
		return nil
	}
	return d.bodies[digest]
}

// last is the last batch of the unbroken row after one.
func (d *decided) last(after SeqNum) SeqNum {
	for d.batch(after+1) != nil {
		after++
	}
	return after
}
