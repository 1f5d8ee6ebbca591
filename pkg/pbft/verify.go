// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/fence"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// A DirectoryReport says what is in a replica's directory.
type DirectoryReport struct {
	Fence     SeqNum // no promise was for a higher number
	Records   uint64 // in the journal
	View      View   // the highest that the replica has reached
	Voted     SeqNum // the highest batch that the journal holds a vote for, or that the image has passed
	Committed SeqNum // the image and the journal have the state after this batch
	Image     Certified
	Pages     int      // in the image, not zeros
	Problems  []string // what is wrong, and where
	Notes     []string // what is missing, and is no problem
}

// VerifyDirectory reads what a replica that is not running has in its directory, and changes
// nothing. It uses Group, Directory and Service of cfg. An error says that it could not look.
func VerifyDirectory(cfg ReplicaConfig) (*DirectoryReport, error) {
	tree, err := treeOf(cfg.Service)
	if err != nil {
		return nil, err
	}
	lock, err := lockForReading(cfg.Directory)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	r := &DirectoryReport{}
	position := r.checkFence(&cfg)
	if _, err := os.Stat(filepath.Join(cfg.Directory, journalDirectory)); err != nil {
		if cfg.Group.Durability == DurabilityDisk && !cfg.holds(freshFile) {
			r.problem("%v: the journal and the image are gone", err)
		}
		return r, nil
	}
	records := r.checkJournal(&cfg, position)
	if err := r.checkImage(&cfg, tree); err != nil {
		return r, err
	}
	r.Voted = max(r.Voted, r.Image.Seq)
	batches := decidedIn(records)
	r.Committed = batches.last(r.Image.Seq)
	return r, nil
}

func (r *DirectoryReport) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// checkFence looks at the two small files, and returns how far the journal must reach.
func (r *DirectoryReport) checkFence(cfg *ReplicaConfig) (position uint64) {
	counted := cfg.Keeper != "" || cfg.holds(counterFile) // a keeper looks after the counter itself
	switch {
	case cfg.holds(fenceFile) && counted:
	case cfg.holds(freshFile):
		r.Notes = append(r.Notes, "the replica has never run")
		return 0
	case counted || !cfg.holds(fenceFile):
		r.problem("%s is missing: the replica does not know how far it may have voted; see bfsd replica replace",
			cfg.path(fenceFile))
		return 0
	default:
		r.problem("%s is missing: the replica does not know what it may have signed; see bfsd replica replace. "+
			"If it has a keeper, name the directory with its replica.toml", cfg.path(counterFile))
		return 0
	}
	if cfg.Keeper == "" {
		if b, err := os.ReadFile(cfg.path(counterFile)); err != nil || len(b) != 8 {
			r.problem("%s: got %d bytes (%v), want 8", cfg.path(counterFile), len(b), err)
		}
	}
	f, err := fence.Open(cfg.path(fenceFile), cfg.Group.Digest())
	if err != nil {
		r.problem("%v", err)
		return 0
	}
	if f.IsLost() {
		r.Notes = append(r.Notes, "the fence was lost, and the recovery that makes it anew is not over")
		return 0
	}
	r.Fence, r.View = f.Last(), f.View()
	if f.Position() == store.NoJournal {
		r.Notes = append(r.Notes, "the journal lost something in an earlier life, and the replica "+
			"was still silent when it stopped")
		return 0
	}
	return f.Position()
}

func (r *DirectoryReport) checkJournal(cfg *ReplicaConfig, position uint64) []message.Message {
	o := cfg.storeOptions()
	o.Disk = disk.ReadOnly(o.Disk)
	records, all, err := store.Read(o)
	r.Records = records
	for _, m := range all {
		r.note(m)
	}
	switch {
	case err != nil:
		r.problem("the journal in %s: %v", filepath.Join(cfg.Directory, journalDirectory), err)
	case records < position:
		r.problem("the journal in %s has %d records, and had %d once: an old copy was put back, or the disk "+
			"has lost what it should keep", filepath.Join(cfg.Directory, journalDirectory), records, position)
	}
	return all
}

// note takes the view and the vote from a message of a record.
func (r *DirectoryReport) note(m message.Message) {
	switch m := m.(type) {
	case *message.PrePrepare:
		r.View, r.Voted = max(r.View, m.View), max(r.Voted, m.Seq)
	case *message.Commit:
		r.View, r.Voted = max(r.View, m.View), max(r.Voted, m.Seq)
	case *message.Decided:
		r.Voted = max(r.Voted, m.Seq)
	case *message.ViewChange:
		r.View = max(r.View, m.View)
	case *message.NewView:
		r.View, r.Voted = max(r.View, m.View), max(r.Voted, m.Checkpoint.Seq+SeqNum(len(m.Chosen)))
	case *message.Status:
		r.View = max(r.View, m.View)
	}
}

func (r *DirectoryReport) checkImage(cfg *ReplicaConfig, tree Tree) error {
	dir := filepath.Join(cfg.Directory, journalDirectory)
	o := image.Options{Group: cfg.Group.Digest(), Pages: image.MaxPages, Tree: tree}
	im, err := image.Open(disk.ReadOnly(disk.OS(dir)), o)
	switch {
	case errors.Is(err, image.ErrNone):
		r.Notes = append(r.Notes, "there is no image yet, or it was torn when the first was written: what "+
			"the journal lacks is fetched from the others")
		return nil
	case errors.Is(err, image.ErrCorrupt), errors.Is(err, image.ErrForeign):
		r.problem("the image in %s: %v", dir, err)
		return nil
	case err != nil:
		return err
	}
	r.Image.Seq, r.Image.Root, _ = im.Checkpoint()
	r.Pages = im.Live()
	bad := im.Verify()
	for i, n := range bad {
		if i == maxListed {
			r.problem("and %d more pages", len(bad)-i)
			break
		}
		r.problem("%s: page %d of the state is not as it was written: its digest does not lead to root %s",
			filepath.Join(dir, "pages"), n, hex.EncodeToString(r.Image.Root[:6]))
	}
	return im.Close()
}

// maxListed is how many bad pages a report lists.
const maxListed = 16
