// SPDX-License-Identifier: Apache-2.0

// Package image keeps the pages of one stable checkpoint on disk, so that a replica that
// restarts reads its state from there, and runs only what its journal has of later batches.
//
// # Files
//
//	pages   slots of 4 KiB, numbered from 1, each with a page of the state or free. Pages of zeros have none.
//	table   which page lies in which slot, and its digest; a file of blocks that is only appended to (format.go)
//	table.new   the table while it is rewritten
//
// The table has one unit of blocks for each update of the image. A unit has an entry for each page
// that moved to another slot or became zeros, and ends with a commit block that names the
// checkpoint. The table is rewritten when it is more than one and a half times as long as
// necessary.
//
// # Updates
//
// An [Update] takes the image from its checkpoint to a later one. No page is written in place:
//
//	Step     compares the digests of both checkpoints from the root down, and copies pages that differ.
//	         The caller holds the replica's lock.
//	Write    writes the copies to slots that were free in the old checkpoint.
//	Commit   syncs pages, appends a unit to the table, and syncs that. Now the new checkpoint counts, and
//	         the old slots are free.
//
// A crash before the last sync leaves the old checkpoint or, if all that was written
// happens to be there, the new one. An update takes about 100 bytes of memory for each
// page that differs, and the copies of one Step.
//
// # What is believed
//
// Each block of the table has a checksum, which tells a torn unit at the end from damage.
// The interior digests are computed from the table's and must lead to the root of the
// commit block. [Image.Load] digests each page that it reads. So a page that rots, or
// that the disk wrote elsewhere, is found when it is read; Load leaves it to be fetched
// from other replicas, and the next Update writes it anew.
//
// An image may be older than the one that was committed last: a unit at the end of the
// table that was synced, and rotted later, looks like a torn one, and a disk may have
// been put back. The caller compares the checkpoint with its journal.
//
// # Space
//
// Between updates the file of pages has at most 1/8 more slots than pages of the state and
// pages that the last update changed, or 64 if that is more: what is free at the end is
// given back, and pages that lie behind too many free slots are moved by the next update.
// The table takes at most 61 bytes for each page of the state, or 256 KiB if that is more,
// and 41 for each page of the last update; as long as it is rewritten 41 more for each page
// of the state. What is reserved ([Image.Reserve]) is in these places, and is not counted
// here. In memory a page takes 38 bytes where the tree has 16 children for each node.
package image

import (
	"errors"
	"fmt"
	"io/fs"
	"sync/atomic"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/message"
)

// Short names for the nouns of the protocol.
type (
	SeqNum  = message.SeqNum
	PageNum = message.PageNum
	Digest  = message.Digest
	NodeID  = message.NodeID
)

// pageSize is the length of a page and of a slot in bytes.
const pageSize = 4096

// MaxPages bounds the pages of a state: slots have numbers of 32 bits.
const MaxPages PageNum = 1 << 30

// Why Open finds no image. All other errors come from the file system.
var (
	// ErrNone: no update of an image was ever committed here. Create makes an empty one.
	ErrNone = errors.New("image: there is none yet")
	// ErrCorrupt: the table is damaged. The state must be fetched from other replicas,
	// and an image made anew.
	ErrCorrupt = errors.New("image: the table is damaged, fetch the state from other replicas")
	// ErrForeign: the files belong to another group, another shape of its state, or
	// another version of this program.
	ErrForeign = errors.New("image: the files are not this group's, or another version's; check the data directory")
)

// errFailed is the error of an image after a failed sync: the contents of the disk are no longer
// known.
var errFailed = errors.New("image: a sync has failed before; restart the replica")

// A Tree computes the digests of a state. The digest of a page of zeros, and of a node
// with nothing but such pages below it, is zero; that of the root need not be.
type Tree interface {
	// Shape returns the root's name, and how many children each interior node has: a power of
	// two, at most 256. Child i of node (l, x) is (l-1, x*fanout+i), and pages are level 0.
	Shape() (top NodeID, fanout int)
	// Digest returns the digest of a page's contents. It may be called on any goroutine,
	// also while Load's caller goes on.
	Digest(n PageNum, contents []byte) Digest
	// Combine returns the digest of an interior node from its children's.
	Combine(id NodeID, children []Digest) Digest
}

// Options describe the state that an image holds.
type Options struct {
	Group Digest  // of all that the members of the group agree on
	Pages PageNum // pages of the state have lower numbers
	Tree  Tree

	// Reserve is how many pages an update can write even when the disk is full, as far as
	// Image.Reserve found room for them. It is no more than the pages that the image has: see
	// spare.
	Reserve int
}

// An Image is the files of one checkpoint, and their table. It is not safe for concurrent use.
type Image struct {
	fs      disk.FS
	options Options
	pages   disk.File
	log     tableFile
	table   *table
	slots   slots

	seq     SeqNum // of the checkpoint committed last; 0 with a zero root if there is none
	root    Digest
	changed int              // pages that the last update wrote
	bad     map[PageNum]bool // pages whose slots do not hold their contents
	update  *Update          // under way, or nil
	failed  bool             // a sync has failed
	bytes   atomic.Int64     // of the files when they were measured last
	kept    atomic.Int64     // of these, in reserve
}

const (
	pagesName = "pages"
	tableName = "table"
	freshName = "table.new"
)

// Create makes an empty image, and removes the one that is there.
func Create(d disk.FS, o Options) (*Image, error) {
	im, err := newImage(d, o)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{tableName, freshName, pagesName} {
		if err := remove(d, name); err != nil {
			return nil, fmt.Errorf("image: %w", err)
		}
		if err := d.Sync(); err != nil { // the table must not outlive its pages
			return nil, fmt.Errorf("image: %w", err)
		}
	}
	if im.pages, err = d.Create(pagesName); err != nil {
		return nil, fmt.Errorf("image: %w", err)
	}
	if err := im.replaceTable(); err != nil {
		return nil, errors.Join(err, im.pages.Close())
	}
	_ = im.Reserve()
	return im, nil
}

func newImage(d disk.FS, o Options) (*Image, error) {
	top, fanout := o.Tree.Shape()
	if fanout < 2 || rowLength%fanout != 0 || o.Pages > MaxPages {
		return nil, fmt.Errorf("image: a tree of fan-out %d over %d pages, want a power of 2 up to %d and at most %d",
			fanout, o.Pages, rowLength, MaxPages)
	}
	return &Image{fs: d, options: o, table: newTable(top, fanout), bad: map[PageNum]bool{}}, nil
}

func remove(d disk.FS, name string) error {
	if err := d.Remove(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Open opens the image that is there. ErrNone, ErrCorrupt and ErrForeign say why it cannot.
func Open(d disk.FS, o Options) (*Image, error) {
	im, err := newImage(d, o)
	if err != nil {
		return nil, err
	}
	if err := im.open(); err != nil {
		return nil, errors.Join(err, im.Close())
	}
	_ = im.Reserve()
	return im, nil
}

func (im *Image) open() error {
	f, err := im.fs.Open(tableName)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	im.log.file = f
	last, err := im.log.read(im.options, im.table)
	if err != nil {
		return err
	}
	if im.pages, err = im.fs.Open(pagesName); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: there is a table, and no file %q", ErrCorrupt, pagesName)
	} else if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := im.accept(last); err != nil {
		return err
	}
	if err := remove(im.fs, freshName); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return im.sync(im.fs) // the table may have been renamed by a process whose sync failed
}

// accept checks the table's entries, and takes them over.
func (im *Image) accept(c commit) error {
	im.table.rebuild(im.options.Tree)
	if got := im.table.digest(im.table.top); got != c.root {
		return fmt.Errorf("%w: its pages have root %v, want %v", ErrCorrupt, got, c.root)
	}
	im.seq, im.root = c.seq, c.root
	for n, slot := range im.table.occupied() {
		if !im.slots.claim(slot) {
			return fmt.Errorf("%w: two pages in slot %d, one of them %d", ErrCorrupt, slot, n)
		}
	}
	im.changed = im.slots.high() - im.table.live // at most
	return nil
}

// Close closes the files.
func (im *Image) Close() error {
	var errs []error
	for _, f := range []disk.File{im.pages, im.log.file} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}

// Checkpoint returns the checkpoint that was committed last; ok is false if there is none.
func (im *Image) Checkpoint() (seq SeqNum, root Digest, ok bool) {
	return im.seq, im.root, im.log.units > 0
}

// Reserve allocates room on the disk for an update of spare pages, which then cannot fail for want
// of space. Open, Create, Commit and Abort also try, and go on if there is no room. An error tells
// the caller that the disk is full, so that the replica steps aside; a later call tells whether
// there is room again. No update is under way.
func (im *Image) Reserve() error {
	defer im.measure()
	if im.options.Reserve == 0 {
		return nil
	}
	// As many slots as pages are in use, so the others are free.
	err := im.pages.Allocate(offset(uint32(im.table.live + im.spare() + 1)))
	blocks := im.log.end + unitBlocks(im.spare())
	if err := errors.Join(err, im.log.file.Allocate(int64(blocks*blockBytes))); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

// spare is how many pages are reserved: as many as an update of a state of this size changes at
// most, and no more than was asked for.
func (im *Image) spare() int { return min(im.options.Reserve, max(im.table.live, leastSpare)) }

// leastSpare is the reserve of a small state, in pages.
const leastSpare = 64

// Live returns how many pages of the state are not zeros.
func (im *Image) Live() int { return im.table.live }

// Bytes is how much of the disk the files took after the last commit, or when they were opened. It
// may be called while an update runs.
func (im *Image) Bytes() int64 { return im.bytes.Load() }

// Reserved is how much of the files is in reserve, as of the same time.
func (im *Image) Reserved() int64 { return im.kept.Load() }

func (im *Image) measure() {
	im.kept.Store(offset(uint32(im.spare() + 1)))
	pages, err := im.pages.Size()
	table, failed := im.log.file.Size()
	if err == nil && failed == nil {
		im.bytes.Store(pages + table)
	}
}

// sync syncs a file or the names. A failure is final.
func (im *Image) sync(what interface{ Sync() error }) error {
	if err := what.Sync(); err != nil {
		im.failed = true
		return fmt.Errorf("image: %w", err)
	}
	return nil
}
