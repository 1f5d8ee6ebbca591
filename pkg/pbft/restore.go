// SPDX-License-Identifier: Apache-2.0

package pbft

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"bfs/pkg/internal/disk"
	"bfs/pkg/internal/durable"
	"bfs/pkg/pbft/internal/archive"
	"bfs/pkg/pbft/internal/image"
	"bfs/pkg/pbft/internal/journal"
	"bfs/pkg/pbft/internal/ledger"
	"bfs/pkg/pbft/internal/message"
	"bfs/pkg/pbft/internal/store"
)

// A new epoch is a new group: its file has another digest, and so nothing that was said
// in the old one counts in it. A NEW-KEY names the digest under its signature, session
// keys are sealed to keys of the present process, and the administrator's requests and a
// fence name the digest. The two have the state in common: the group file names a
// checkpoint, as it is in the new epoch, and its digest covers that name. Numbers go on
// from the checkpoint's, views begin at 0, clients and the timestamps of their slots are
// as they were. The replicas' recoveries are forgotten: they were those of other keys.

// A Renewer is a Service whose state names the group's epoch.
type Renewer interface {
	// Renew changes a page of an earlier epoch's state, in place, to what it is when the
	// present epoch begins, and reports whether it changed anything. It depends on the
	// page alone. An error says that the page is of a state that this group cannot have.
	Renew(n PageNum, contents []byte) (changed bool, err error)
}

// An Archive is the file of a backup. Its certificate has been read, and nothing else of
// it checked.
type Archive = archive.Archive

// OpenArchive reads the certificate of an archive.
func OpenArchive(file io.ReaderAt, size int64) (*Archive, error) { return archive.Open(file, size) }

// VouchedFor returns nil if the root that a certificate names is known to be right: the
// administrator signed it, or it is the root that the caller knows. ErrNotVouchedFor says
// that the root is not known to be right, ErrFalse that it is wrong.
func VouchedFor(c *Certificate, administrator ed25519.PublicKey, known Digest) error {
	switch {
	case known == c.Root && !known.IsZero():
		return nil
	case !known.IsZero():
		return fmt.Errorf("%w: its checkpoint has root %x, want %x", ErrFalse, c.Root[:], known[:])
	case c.Signer != archive.Administrator:
		return fmt.Errorf("%w: the administrator did not sign it; its checkpoint %d of "+
			"epoch %d of group %s has root %x", ErrNotVouchedFor, c.Seq, c.Epoch, c.Name, c.Root[:])
	case administrator == nil:
		return fmt.Errorf("%w: it is signed, and the administrator's key is not known here", ErrNotVouchedFor)
	case !c.SignedBy(administrator):
		return fmt.Errorf("%w: its signature is not the administrator's", ErrFalse)
	}
	return nil
}

// VouchingMember is the member that signed an archive of the group, if one did.
func (g *Group) VouchingMember(c *Certificate) (i ReplicaID, ok bool) {
	n := int(c.Signer) - int(archive.FirstReplica)
	if n < 0 || n >= g.N() || c.Group != g.Digest() || !c.SignedBy(g.Members[n].Key) {
		return 0, false
	}
	return ReplicaID(n), true
}

// NewOrigin checks an archive of a group, and returns the origin of the group's next
// epoch, which begins with the archive's state. The service is the next epoch's.
func NewOrigin(old *Group, a *Archive, s Service, progress func(pages uint64)) (Origin, error) {
	if a.Group != old.Digest() {
		return Origin{}, fmt.Errorf("%w: it holds checkpoint %d of epoch %d of group %s, whose group file is another",
			ErrFalse, a.Seq, a.Epoch, a.Name)
	}
	tree, err := treeOf(s)
	if err != nil {
		return Origin{}, err
	}
	root, err := a.Renewed(tree, renewed(s), progress)
	return Origin{Certified{a.Seq, root}, old.Lineage()}, err
}

// renewed changes the pages that name something of the epoch before: pages of the
// service, and the library's first.
func renewed(s Service) archive.Edit {
	x, ok := s.(Renewer)
	return func(n PageNum, contents []byte) (changed bool, err error) {
		switch {
		case n == 0:
			return ledger.Renew(contents), nil
		case ok:
			return x.Renew(n, contents)
		}
		return false, nil
	}
}

// OriginCovered returns the bytes that the administrator signs for a group that begins
// with a backup (R-OUR-6): everything on which its members must agree.
func (g *Group) OriginCovered() []byte {
	d := g.Digest()
	return append([]byte("bfs group epoch v1\x00"), d[:]...)
}

// ErrMemory is the refusal to restore over what a replica remembers.
var ErrMemory = errors.New("the directory holds what a replica remembers of an earlier life: move it away")

// ErrNoMark is the refusal to restore into a directory without the mark of a replica that
// has never run: its replica may have run in this epoch, and have lost its memory since.
var ErrNoMark = errors.New("the directory has no mark of a replica that has never run")

// Restore puts the checkpoint with which the group begins into the directory of a replica that
// has never run in it. It uses Group, Directory and Service of cfg. The archive is checked
// against the root that the group file names. It may be called again until the replica has
// started; OpenDirectory asks the others whether this is its first start, as in any group.
func Restore(cfg ReplicaConfig, a *Archive, progress func(pages uint64)) error {
	g := cfg.Group
	tree, err := treeOf(cfg.Service)
	switch {
	case err != nil:
		return err
	case g.Origin == (Origin{}):
		return errors.New("this group does not begin with a backup: make the group file of a new epoch first")
	case g.Origin.Seq != a.Seq:
		return fmt.Errorf("%w: it holds checkpoint %d, and the group begins with checkpoint %d",
			ErrFalse, a.Seq, g.Origin.Seq)
	case cfg.holds(fenceFile), cfg.holds(counterFile) && !(cfg.holds(freshFile) && cfg.unused()):
		return fmt.Errorf("%w: %s", ErrMemory, cfg.Directory)
	case !cfg.holds(freshFile):
		return fmt.Errorf("%w: %s", ErrNoMark, cfg.Directory)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Directory, journalDirectory), 0o700); err != nil {
		return err
	}
	lock, err := lockDirectory(cfg.Directory)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := cfg.extract(a, tree, progress); err != nil {
		return err
	}
	if err := cfg.writeFirstRecord(); err != nil {
		return fmt.Errorf("journal in %s: %w", cfg.Directory, err)
	}
	return durable.WriteFile(cfg.path(restoredFile), []byte(restoredText))
}

const restoredText = "The state with which this epoch of the group begins is in this directory.\n"

// extract makes the image.
func (cfg *ReplicaConfig) extract(a *Archive, tree Tree, progress func(pages uint64)) error {
	d := disk.OS(filepath.Join(cfg.Directory, journalDirectory))
	im, err := image.Create(d, image.Options{Group: cfg.Group.Digest(), Pages: image.MaxPages, Tree: tree})
	if err != nil {
		return err
	}
	err = a.Extract(im, cfg.Group.Origin.Root, tree, renewed(cfg.Service), progress)
	return errors.Join(err, im.Close())
}

// writeFirstRecord makes a journal that says that the checkpoint is stable: the group
// file says so, and all members have it.
func (cfg *ReplicaConfig) writeFirstRecord() error {
	o := cfg.storeOptions()
	if err := journal.Discard(o.Disk); err != nil {
		return err
	}
	m, err := store.Recall[said](o, 0, nil)
	if err != nil {
		return err
	}
	m.Store.Persist(&message.Checkpoint{Seq: cfg.Group.Origin.Seq, Digest: cfg.Group.Origin.Root})
	_, err = m.Store.Flush()
	return errors.Join(err, m.Store.Close())
}
