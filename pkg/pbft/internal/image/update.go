// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// A Source is the state that an update reads: a checkpoint that does not change until the
// update ends.
type Source interface {
	Children(seq SeqNum, id NodeID) ([]Digest, error)
	PageAt(seq SeqNum, n PageNum) ([]byte, error)
}

// An Update takes an image to another checkpoint. A caller that meets an error calls Abort,
// and may begin another update, unless a sync has failed: then all later updates are refused.
type Update struct {
	im   *Image
	seq  SeqNum
	root Digest

	todo    []node    // a stack of nodes that differ
	again   []PageNum // pages that are to be written though they are the same; the last first
	nodes   []node    // interior nodes that differ, with their new digests
	moved   []entry   // pages with their new slots, or none
	differs int       // the first entries of moved, in rising order, differ; the others are the same
	copies  []byte    // pages of the last Step, for the slots in places
	places  []uint32  // rising
	ended   bool
}

type node struct {
	id     NodeID
	digest Digest
}

// Begin begins an update to checkpoint seq with a root that is known to be right. Mostly that is a
// later one. A replica whose image was damaged may have fetched the same checkpoint, or an earlier
// one: then the damaged pages are written anew.
func (im *Image) Begin(seq SeqNum, root Digest) (*Update, error) {
	switch {
	case im.failed:
		return nil, errFailed
	case im.update != nil:
		return nil, errors.New("image: an update is under way")
	}
	u := &Update{im: im, seq: seq, root: root, again: im.misplaced()}
	if root != im.root || im.log.units == 0 {
		u.todo = append(u.todo, node{im.table.top, root})
	}
	im.update = u
	return u, nil
}

// misplaced returns pages that are written although they do not differ: pages whose slots
// were damaged, and pages that lie far behind free slots, the furthest last.
func (im *Image) misplaced() (again []PageNum) {
	again = slices.Sorted(maps.Keys(im.bad))
	want := im.table.live + im.changed
	if im.slots.high() <= want+slack(im.table.live) {
		return again
	}
	var far []PageNum
	for n, slot := range im.table.occupied() {
		if int(slot) > want && !im.bad[n] {
			far = append(far, n)
		}
	}
	slices.SortFunc(far, func(a, b PageNum) int { return cmp.Compare(im.table.slot(a), im.table.slot(b)) })
	return append(again, far...)
}

// slack is how many slots a file of pages may have to spare.
func slack(live int) int { return max(live/8, 64) }

// Step looks at up to max nodes and pages of the source, and copies the pages that are to be
// written. It is done when there are no more. The caller calls Write after each Step. Step reads
// the source, so the caller holds the lock that protects it. After an error of the source Step may
// be called again, and goes on where it was.
func (u *Update) Step(s Source, max int) (done bool, err error) {
	if len(u.places) > 0 {
		return false, errors.New("image: the copies of the last step are not written")
	}
	for range max {
		switch {
		case len(u.todo) > 0:
			err = u.visit(s, u.todo[len(u.todo)-1])
		case len(u.again) > 0:
			err = u.rewrite(s, u.again[len(u.again)-1])
		default:
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
	return len(u.todo) == 0 && len(u.again) == 0, nil
}

// visit takes the node on top of the stack to its new digest.
func (u *Update) visit(s Source, v node) error {
	if v.id.Level == 0 {
		if err := u.copy(s, PageNum(v.id.Index), v.digest); err != nil {
			return err
		}
		u.todo = u.todo[:len(u.todo)-1]
		u.differs++
		return nil
	}
	children, err := u.children(s, v)
	if err != nil {
		return err
	}
	u.todo = u.todo[:len(u.todo)-1]
	u.nodes = append(u.nodes, v)
	old := u.im.table.children(v.id)
	for i := len(children) - 1; i >= 0; i-- {
		if children[i] != old[i] {
			u.todo = append(u.todo, node{u.im.table.child(v.id, i), children[i]})
		}
	}
	return nil
}

// children asks the source for a node's children, and checks the answer. Nothing but
// zeros is below a node without a digest.
func (u *Update) children(s Source, v node) ([]Digest, error) {
	fanout := int(u.im.table.fanout)
	if v.digest.IsZero() {
		return noDigests[:fanout], nil
	}
	children, err := s.Children(u.seq, v.id)
	if err != nil {
		return nil, fmt.Errorf("image: node %v of checkpoint %d: %w", v.id, u.seq, err)
	}
	if len(children) != fanout || u.im.options.Tree.Combine(v.id, children) != v.digest {
		return nil, fmt.Errorf("image: node %v of checkpoint %d does not have the digest %v", v.id, u.seq, v.digest)
	}
	return children, nil
}

// copy copies a page, and gives the copy a slot. A page of zeros gets none.
func (u *Update) copy(s Source, n PageNum, d Digest) error {
	e := entry{page: n, digest: d}
	if n >= u.im.options.Pages {
		return fmt.Errorf("image: page %d of checkpoint %d, want less than %d", n, u.seq, u.im.options.Pages)
	}
	if !d.IsZero() {
		contents, err := s.PageAt(u.seq, n)
		if err == nil && len(contents) != pageSize {
			err = fmt.Errorf("got %d bytes, want %d", len(contents), pageSize)
		}
		if err != nil {
			return fmt.Errorf("image: page %d of checkpoint %d: %w", n, u.seq, err)
		}
		e.slot = u.im.slots.take()
		u.copies = append(u.copies, contents...)
		u.places = append(u.places, e.slot)
	}
	u.moved = append(u.moved, e)
	return nil
}

// rewrite copies the last page of again, if its slot is bad or there is one nearer to the
// beginning.
func (u *Update) rewrite(s Source, n PageNum) error {
	byPage := func(e entry, n PageNum) int { return cmp.Compare(e.page, n) }
	_, done := slices.BinarySearchFunc(u.moved[:u.differs], n, byPage)
	if !done && (u.im.bad[n] || u.im.slots.lowest() < u.im.table.slot(n)) {
		if err := u.copy(s, n, u.im.table.digest(NodeID{Index: uint64(n)})); err != nil {
			return err
		}
	}
	u.again = u.again[:len(u.again)-1]
	return nil
}

// Write writes what the last Step copied.
func (u *Update) Write() error {
	for i, run := 0, 1; i < len(u.places); i, run = i+run, 1 {
		for i+run < len(u.places) && u.places[i+run] == u.places[i]+uint32(run) {
			run++
		}
		if _, err := u.im.pages.WriteAt(u.copies[i*pageSize:(i+run)*pageSize], offset(u.places[i])); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	u.places, u.copies = u.places[:0], u.copies[:0]
	return nil
}

func offset(slot uint32) int64 { return int64(slot-1) * pageSize }

// Commit makes the new checkpoint the one that counts, and the slots that only the old
// one used free. It is durable when Commit returns. After an error Checkpoint tells which
// one counts, unless a sync has failed.
func (u *Update) Commit() error {
	im := u.im
	switch {
	case im.failed:
		return errFailed
	case u.ended || len(u.todo)+len(u.again)+len(u.places) > 0:
		return errors.New("image: commit of an update that has ended, or is not done")
	}
	if err := im.sync(im.pages); err != nil {
		return err
	}
	end, err := im.log.append(u)
	if err != nil {
		return err
	}
	if err := im.sync(im.log.file); err != nil {
		return err
	}
	u.apply(end)
	return im.tidy()
}

// append writes a unit for the update, and returns its end. A unit cut short by an error does not
// count.
func (l *tableFile) append(u *Update) (end uint64, err error) {
	w := l.writer()
	for _, e := range u.moved {
		if err = w.add(e); err != nil {
			break
		}
	}
	if err == nil {
		err = w.commit(u.seq, u.root)
	}
	if err != nil {
		return 0, errors.Join(err, l.file.Truncate(int64(l.end*blockBytes)))
	}
	return w.next, nil
}

// apply makes the memory's table and slots follow the update, which is durable.
func (u *Update) apply(end uint64) {
	im := u.im
	im.changed = 0
	for _, e := range u.moved {
		if old := im.table.slot(e.page); old != 0 {
			im.slots.free(old)
		}
		if e.slot != 0 {
			im.changed++
		}
		im.table.set(e)
		delete(im.bad, e.page)
	}
	for _, v := range u.nodes {
		im.table.setDigest(v.id, v.digest)
	}
	im.seq, im.root = u.seq, u.root
	im.log.end = end
	im.log.units++
	u.end()
}

func (u *Update) end() {
	u.ended, u.im.update = true, nil
	u.todo, u.again, u.nodes, u.moved, u.copies, u.places = nil, nil, nil, nil, nil, nil
}

// Abort ends an update that is not committed. The image stays at its checkpoint. It does
// nothing after Commit.
func (u *Update) Abort() {
	if u.ended {
		return
	}
	for _, e := range u.moved {
		if e.slot != 0 {
			u.im.slots.free(e.slot)
		}
	}
	u.end()
	if !u.im.failed {
		_ = errors.Join(u.im.trim(), u.im.Reserve()) // the next one tries again
	}
}

// tidy gives back space. Only a failed sync is an error: the next commit tries everything else
// again.
func (im *Image) tidy() error {
	err := im.trim()
	if least := 1 + unitBlocks(im.table.live); im.log.end > max(least*3/2, minTable) {
		err = errors.Join(err, im.replaceTable())
	}
	if im.failed {
		return err
	}
	_ = im.Reserve()
	return nil
}

// minTable is how many blocks a table may have that need not be rewritten.
const minTable = 64

// trim cuts free slots off the end of the file of pages.
func (im *Image) trim() error {
	size, err := im.pages.Size()
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	spare := max(im.changed+slack(im.table.live), im.spare())
	keep := offset(uint32(max(im.slots.high(), im.table.live+spare) + 1))
	if size <= keep {
		return nil
	}
	if err := im.pages.Truncate(keep); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}

// replaceTable puts a table that is as short as can be in the place of the one that is there.
func (im *Image) replaceTable() error {
	if err := remove(im.fs, freshName); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	f, err := im.fs.Create(freshName)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	fresh := tableFile{file: f, life: im.log.life + 1, units: im.log.units}
	if err := im.fill(&fresh); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := im.fs.Rename(freshName, tableName); err != nil {
		return errors.Join(fmt.Errorf("image: %w", err), f.Close())
	}
	old := im.log.file
	im.log = fresh
	if err := im.sync(im.fs); err != nil || old == nil {
		return err
	}
	return old.Close()
}

// fill writes a header, and all pages as one unit if a checkpoint was committed.
func (im *Image) fill(l *tableFile) error {
	w := l.writer()
	if err := w.header(im.options); err != nil {
		return err
	}
	if l.units > 0 {
		for n, slot := range im.table.occupied() {
			if err := w.add(entry{n, slot, im.table.digest(NodeID{Index: uint64(n)})}); err != nil {
				return err
			}
		}
		if err := w.commit(im.seq, im.root); err != nil {
			return err
		}
	}
	l.end = w.next
	return im.sync(l.file)
}
