// SPDX-License-Identifier: Apache-2.0

package image

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"syscall"
	"testing"

	"bfs/pkg/internal/disk"
)

var twinOptions = Options{Group: Digest{1}, Pages: twinPages, Tree: twinTree{}}

func newChance(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 2)) }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// update takes an image to a checkpoint, some steps at a time.
func update(im *Image, c *checkpoint, atOnce int) error {
	u, err := im.Begin(c.seq, c.root())
	if err != nil {
		return err
	}
	if err := steps(u, c, atOnce); err != nil {
		u.Abort()
		return err
	}
	err = u.Commit()
	u.Abort()
	return err
}

func steps(u *Update, c *checkpoint, atOnce int) error {
	for done := false; !done; {
		var err error
		if done, err = u.Step(c, atOnce); err != nil {
			return err
		}
		if err := u.Write(); err != nil {
			return err
		}
	}
	return nil
}

// checkIs fails unless the image has exactly the pages of a checkpoint.
func checkIs(t testing.TB, im *Image, want *checkpoint) {
	t.Helper()
	seq, root, ok := im.Checkpoint()
	if !ok || seq != want.seq || root != want.root() {
		t.Fatalf("the image is at checkpoint %d with root %v, want %d with %v", seq, root, want.seq, want.root())
	}
	s := newSession(root)
	if missing := im.Load(s); len(missing) > 0 {
		t.Fatalf("checkpoint %d: missing %v", seq, missing)
	}
	if !maps.Equal(s.pages, want.pages) {
		t.Fatalf("checkpoint %d: %d pages, want %d, or they differ", seq, len(s.pages), len(want.pages))
	}
}

func reopen(t testing.TB, d disk.FS) *Image {
	t.Helper()
	im, err := Open(d, twinOptions)
	must(t, err)
	return im
}

// An image follows random changes, is the same after it was opened again, and keeps to its bounds.
func TestUpdates(t *testing.T) {
	chance := newChance(1)
	d := disk.NewMem(chance)
	im, err := Create(d, twinOptions)
	must(t, err)
	pages, seq := map[PageNum]string{}, SeqNum(0)
	for range 300 {
		change(chance, pages)
		seq += SeqNum(1 + chance.IntN(100))
		c := newCheckpoint(seq, pages)
		live, most := im.Live(), im.Live()+im.changed+slack(im.Live())
		must(t, update(im, c, 1+chance.IntN(100)))
		checkIs(t, im, c)
		checkBounds(t, im, max(most, live+im.changed))
		if chance.IntN(4) == 0 {
			must(t, im.Close())
			im = reopen(t, d)
			checkIs(t, im, c)
		}
	}
}

// checkBounds checks the space of both files. An update may leave the file of pages with
// most slots if it needed as many.
func checkBounds(t *testing.T, im *Image, most int) {
	t.Helper()
	size, err := im.pages.Size()
	must(t, err)
	if got, want := int(size/pageSize), max(most, im.Live()+im.changed+slack(im.Live())); got > want {
		t.Fatalf("%d slots for %d pages after %d changed, want <= %d", got, im.Live(), im.changed, want)
	}
	if least := 2 + uint64(im.Live()+perBlock-1)/perBlock; im.log.end > max(least*3/2, minTable) {
		t.Fatalf("the table has %d blocks for %d pages", im.log.end, im.Live())
	}
	used := 0
	for _, slot := range im.table.occupied() {
		used++
		if im.slots.claim(slot) {
			t.Fatalf("slot %d is in use, and free", slot)
		}
	}
	for slot := range uint32(im.slots.high()) {
		if im.slots.claim(slot + 1) {
			im.slots.free(slot + 1)
			used++
		}
	}
	if used != im.slots.high() {
		t.Fatalf("%d slots are free, or have pages, want %d", used, im.slots.high())
	}
}

// A crash after any write or sync, of an update or of opening, leaves the checkpoint of
// before or the new one, whole. The new one is not lost any more when Commit has returned.
func TestCrashes(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { crashes(t, newChance(seed)) })
	}
}

func crashes(t *testing.T, chance *rand.Rand) {
	d, o := disk.NewMem(chance), twinOptions
	o.Reserve = chance.IntN(3) * 50
	im, err := Create(d, o)
	must(t, err)
	pages, last := map[PageNum]string{}, (*checkpoint)(nil)
	for seq := SeqNum(1); seq < 60; seq++ {
		change(chance, pages)
		c := newCheckpoint(seq, pages)
		fault(chance, d)
		err := update(im, c, 1+chance.IntN(400))
		d.Limit(-1)
		d.CutAfter(-1)
		d.FailSync(0)
		switch {
		case err == nil:
			last = c
		case errors.Is(err, syscall.ENOSPC):
			checkOneOf(t, im, last, c)
			continue // with the same image
		}
		if err == nil && chance.IntN(2) == 0 {
			continue
		}
		d.Crash()
		im = recovered(t, chance, d, o, last == nil)
		last = checkOneOf(t, im, last, c)
	}
}

// fault makes a disk fail soon, or not.
func fault(chance *rand.Rand, d *disk.Mem) {
	switch chance.IntN(4) {
	case 0:
		d.CutAfter(chance.IntN(12))
	case 1:
		d.FailSync(1)
	case 2:
		d.Limit(int64(chance.IntN(400)) * pageSize)
	}
}

// recovered opens the image after a crash, and sometimes crashes again meanwhile.
func recovered(t *testing.T, chance *rand.Rand, d *disk.Mem, o Options, mayBeNone bool) *Image {
	t.Helper()
	for {
		if chance.IntN(3) == 0 {
			d.CutAfter(chance.IntN(4))
		}
		im, err := Open(d, o)
		if errors.Is(err, ErrNone) && mayBeNone {
			im, err = Create(d, o)
		}
		switch {
		case err == nil:
			d.CutAfter(-1)
			return im
		case !errors.Is(err, disk.ErrPower):
			t.Fatal(err)
		}
		d.Crash()
	}
}

// checkOneOf returns which of two checkpoints the image has. It has none only if there is
// no older one.
func checkOneOf(t *testing.T, im *Image, older, newer *checkpoint) *checkpoint {
	t.Helper()
	seq, _, ok := im.Checkpoint()
	switch {
	case !ok && older == nil:
		return nil
	case older != nil && seq == older.seq:
		checkIs(t, im, older)
		return older
	}
	checkIs(t, im, newer)
	return newer
}

// Whatever a disk does to its bytes, an image says that it is damaged, or has the last
// checkpoint or the one before. It never has a wrong page, and what it lacks it says.
func TestDamage(t *testing.T) {
	outcomes := map[string]int{}
	for seed := range uint64(150) {
		chance := newChance(seed)
		d := disk.NewMem(chance)
		im, err := Create(d, twinOptions)
		must(t, err)
		pages, history := map[PageNum]string{}, map[SeqNum]*checkpoint{}
		last := SeqNum(2 + chance.IntN(10))
		for seq := SeqNum(1); seq <= last; seq++ {
			change(chance, pages)
			history[seq] = newCheckpoint(seq, pages)
			if chance.IntN(5) == 0 {
				must(t, d.Misdirect(oneOf(chance, pagesName, tableName), int64(chance.IntN(41)-20)*pageSize))
			}
			must(t, update(im, history[seq], 100))
		}
		must(t, d.Misdirect(pagesName, 0))
		for range chance.IntN(4) {
			damage(t, chance, d)
		}
		outcomes[judge(t, d, history, last)]++
	}
	for _, outcome := range []string{"whole", "pages missing", "damaged", "the one before"} {
		if outcomes[outcome] == 0 {
			t.Errorf("%q never happened: %v", outcome, outcomes)
		}
	}
	t.Log(outcomes)
}

func oneOf(chance *rand.Rand, names ...string) string { return names[chance.IntN(len(names))] }

func damage(t *testing.T, chance *rand.Rand, d *disk.Mem) {
	t.Helper()
	name := oneOf(chance, pagesName, tableName)
	f, err := d.Open(name)
	must(t, err)
	size, err := f.Size()
	must(t, err)
	switch {
	case chance.IntN(8) == 0:
		must(t, f.Truncate(chance.Int64N(size+1)))
	case size > 0:
		must(t, d.Flip(name, chance.Int64N(size), 1))
	}
}

func judge(t *testing.T, d disk.FS, history map[SeqNum]*checkpoint, last SeqNum) string {
	t.Helper()
	im, err := Open(d, twinOptions)
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrNone) {
		return "damaged"
	}
	must(t, err)
	seq, root, _ := im.Checkpoint()
	want := history[seq]
	if want == nil || root != want.root() {
		t.Fatalf("the image is at checkpoint %d, which never was", seq)
	}
	s := newSession(root)
	lending := &lendingSession{digestedSession: digestedSession{s}, lent: map[*byte]int{}}
	missing := im.Load(lending)
	if lending.bad != "" || len(lending.lent) > 0 {
		t.Fatalf("%s; %d loans were not returned", lending.bad, len(lending.lent))
	}
	for n, got := range s.pages {
		if want.pages[n] != got {
			t.Fatalf("page %d of checkpoint %d is wrong", n, seq)
		}
	}
	if len(missing) != len(want.pages)-len(s.pages) || len(s.todo) != len(missing) {
		t.Fatalf("%d are missing, and %d wanted, want %d", len(missing), len(s.todo), len(want.pages)-len(s.pages))
	}
	switch {
	case seq < last:
		return "the one before"
	case len(missing) > 0:
		repair(t, im, d, history[last], missing)
		return "pages missing"
	}
	return "whole"
}

// repair checks that the next update writes what was bad anew.
func repair(t *testing.T, im *Image, d disk.FS, c *checkpoint, missing []NodeID) {
	t.Helper()
	if bad := im.Verify(); len(bad) != len(missing) {
		t.Fatalf("Verify finds %d bad pages, Load %d", len(bad), len(missing))
	}
	next := newCheckpoint(c.seq+1, c.pages)
	must(t, update(im, next, 10))
	checkIs(t, im, next)
	if len(im.bad) > 0 {
		t.Errorf("pages %v are to be written once more", im.bad)
	}
	checkIs(t, reopen(t, d), next)
}

// Only what differs is looked at, and only that is written.
func TestUpdateCostsWhatDiffers(t *testing.T) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(t, err)
	pages := map[PageNum]string{}
	for n := range PageNum(twinPages) {
		pages[n] = contents(newChance(uint64(n)))
	}
	must(t, update(im, newCheckpoint(1, pages), 1000))
	delete(pages, 7)
	pages[900] = contents(newChance(1))
	before, c := d.Stats(), newCheckpoint(2, pages)
	must(t, update(im, c, 1000))
	after := d.Stats()
	if c.asked > 2*(twinLevels+1) {
		t.Errorf("two pages differ, and %d nodes and pages were asked for", c.asked)
	}
	if got := after.Written - before.Written; got != pageSize+2*blockBytes || after.Syncs != before.Syncs+2 {
		t.Errorf("one page took %d bytes and %d syncs", got, after.Syncs-before.Syncs)
	}
	checkIs(t, im, c)
}

// An update that is aborted, or whose source fails or lies, leaves no trace.
func TestAbort(t *testing.T) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(t, err)
	old := newCheckpoint(1, map[PageNum]string{1: contents(newChance(1))})
	must(t, update(im, old, 10))
	other := newCheckpoint(2, map[PageNum]string{2: contents(newChance(2))})
	for name, fails := range map[string]func(u *Update) error{
		"no such checkpoint": func(u *Update) error { return steps(u, old, 10) },
		"a step too early": func(u *Update) error {
			_, err := u.Step(other, 100)
			must(t, err)
			_, err = u.Step(other, 100)
			return err
		},
		"another tree": func(u *Update) error { return steps(u, newCheckpoint(2, old.pages), 10) },
		"not done":     func(u *Update) error { return u.Commit() },
		"not written": func(u *Update) error {
			_, err := u.Step(other, 100)
			must(t, err)
			return u.Commit()
		},
		"a second one": func(*Update) error {
			_, err := im.Begin(3, old.root())
			return err
		},
	} {
		u, err := im.Begin(2, other.root())
		must(t, err)
		if fails(u) == nil {
			t.Errorf("%s: no error", name)
		}
		u.Abort()
		checkIs(t, im, old)
	}
	must(t, update(im, other, 10))
	checkIs(t, reopen(t, d), other)
}

// A replica whose image went bad fetches the checkpoint that the image was at, or an earlier one:
// then the image is whole again, and there.
func TestUpdateAfterDamage(t *testing.T) {
	for back := range SeqNum(3) {
		d := disk.NewMem(newChance(uint64(back)))
		im, err := Create(d, twinOptions)
		must(t, err)
		pages, history := map[PageNum]string{}, []*checkpoint{nil}
		for seq := SeqNum(1); seq <= 3; seq++ {
			change(newChance(uint64(seq)), pages)
			history = append(history, newCheckpoint(seq, pages))
			must(t, update(im, history[seq], 10))
		}
		must(t, d.Flip(pagesName, 0, pageSize))
		im = reopen(t, d)
		if len(im.Verify()) == 0 {
			t.Fatal("no page is bad")
		}
		must(t, update(im, history[3-back], 10))
		im = reopen(t, d)
		if bad := im.Verify(); len(bad) > 0 {
			t.Errorf("%d back: pages %v are bad", back, bad)
		}
		checkIs(t, im, history[3-back])
	}
}

// A source that has no answer yet is asked again, and the update goes on.
func TestStepGoesOn(t *testing.T) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(t, err)
	pages := map[PageNum]string{}
	for seq := SeqNum(1); seq < 20; seq++ {
		change(newChance(uint64(seq)), pages)
		c := newCheckpoint(seq, pages)
		u, err := im.Begin(seq, c.root())
		must(t, err)
		s := &hesitant{checkpoint: c}
		for done := false; !done; {
			if done, err = u.Step(s, 10); err != nil && !errors.Is(err, errNotYet) {
				t.Fatal(err)
			}
			must(t, u.Write())
		}
		must(t, u.Commit())
		checkIs(t, im, c)
	}
}

// A hesitant checkpoint answers every other time.
type hesitant struct {
	*checkpoint
	calls int
}

var errNotYet = errors.New("not yet")

func (h *hesitant) Children(seq SeqNum, id NodeID) ([]Digest, error) {
	if h.calls++; h.calls%2 == 1 {
		return nil, errNotYet
	}
	return h.checkpoint.Children(seq, id)
}

func (h *hesitant) PageAt(seq SeqNum, n PageNum) ([]byte, error) {
	if h.calls++; h.calls%2 == 1 {
		return nil, errNotYet
	}
	return h.checkpoint.PageAt(seq, n)
}

// A failed sync is final.
func TestFailedSyncIsFinal(t *testing.T) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(t, err)
	d.FailSync(1)
	c := newCheckpoint(1, map[PageNum]string{1: contents(newChance(1))})
	if err := update(im, c, 10); !errors.Is(err, syscall.EIO) {
		t.Fatalf("update: %v", err)
	}
	if err := update(im, c, 10); !errors.Is(err, errFailed) {
		t.Fatalf("update again: %v", err)
	}
}

// A process whose sync of the table failed stops. The next one finds what the last one
// wrote in the cache of the kernel, which does not write it any more, and makes it
// durable before anything rests on it.
func TestRestartAfterFailedSync(t *testing.T) {
	for seed := range uint64(50) {
		chance := newChance(seed)
		d := disk.NewMem(chance)
		im, err := Create(d, twinOptions)
		must(t, err)
		pages := map[PageNum]string{}
		var c *checkpoint
		for seq := SeqNum(1); seq < 10; seq++ {
			change(chance, pages)
			c = newCheckpoint(seq, pages)
			if seq%3 == 0 {
				im.log.file = failingFile{im.log.file, d}
			}
			if err := update(im, c, 100); err != nil {
				im = reopen(t, d)
				checkIs(t, im, c)
			}
		}
		d.Crash()
		checkIs(t, reopen(t, d), c)
	}
}

// A process that ends when it has renamed a table, and before it has synced the names, leaves
// a name that only the cache knows. The next one makes it durable before anything rests on it.
func TestRestartBeforeSyncOfNames(t *testing.T) {
	for seed := range uint64(20) {
		chance := newChance(seed)
		d := disk.NewMem(chance)
		im, err := Create(d, twinOptions)
		must(t, err)
		pages := map[PageNum]string{1: contents(chance)}
		must(t, update(im, newCheckpoint(1, pages), 100))
		im.fs = endingFS{d}
		if im.replaceTable() == nil {
			t.Fatal("the process has not ended")
		}
		im = reopen(t, d)
		pages[2] = contents(chance)
		must(t, update(im, newCheckpoint(2, pages), 100))
		d.Crash()
		checkIs(t, reopen(t, d), newCheckpoint(2, pages))
	}
}

// An endingFS is that of a process that ends before it syncs names.
type endingFS struct{ disk.FS }

func (endingFS) Sync() error { return errors.New("the process has ended") }

// A failingFile is one whose next Sync fails.
type failingFile struct {
	disk.File
	disk *disk.Mem
}

func (f failingFile) Sync() error {
	f.disk.FailSync(1)
	return f.File.Sync()
}

// Open refuses files that are no image of this state, and says why.
func TestOpenRefuses(t *testing.T) {
	d := disk.NewMem(newChance(1))
	if _, err := Open(d, twinOptions); !errors.Is(err, ErrNone) {
		t.Errorf("nothing: %v", err)
	}
	im, err := Create(d, twinOptions)
	must(t, err)
	if _, err := Open(d, twinOptions); !errors.Is(err, ErrNone) {
		t.Errorf("an empty one: %v", err)
	}
	c := newCheckpoint(1, map[PageNum]string{1: contents(newChance(1))})
	must(t, update(im, c, 10))
	whole := d.Snapshot()
	group, size := twinOptions, twinOptions
	group.Group[0]++
	size.Pages /= 2
	for _, o := range []Options{group, size} {
		if _, err := Open(d, o); !errors.Is(err, ErrForeign) {
			t.Errorf("another state's: %v", err)
		}
	}
	must(t, d.Remove(pagesName))
	if _, err := Open(d, twinOptions); !errors.Is(err, ErrCorrupt) {
		t.Errorf("no pages: %v", err)
	}
	d.Restore(whole)
	must(t, d.Flip(tableName, 0, blockBytes))
	if _, err := Open(d, twinOptions); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a damaged header: %v", err)
	}
	d.Restore(whole)
	checkIs(t, reopen(t, d), c)
}

// Damage to a unit before the last is told from a torn end.
func TestDamageIsNotATornEnd(t *testing.T) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(t, err)
	pages, history := map[PageNum]string{}, []*checkpoint{nil}
	for seq := SeqNum(1); seq <= 3; seq++ {
		pages[PageNum(seq)] = contents(newChance(uint64(seq)))
		history = append(history, newCheckpoint(seq, pages))
		must(t, update(im, history[seq], 10))
	}
	whole := d.Snapshot() // blocks: header, delta, commit, delta, commit, delta, commit
	for b := int64(1); b < 7; b++ {
		d.Restore(whole)
		must(t, d.Flip(tableName, b*blockBytes, blockBytes))
		im, err := Open(d, twinOptions)
		switch {
		case b >= 5:
			must(t, err)
			checkIs(t, im, history[2])
			if size, err := im.log.file.Size(); err != nil || size != 5*blockBytes {
				t.Errorf("the torn end stays: %d bytes, %v", size, err)
			}
		case !errors.Is(err, ErrCorrupt):
			t.Errorf("block %d damaged: %v", b, err)
		}
	}
	d.Restore(whole)
	must(t, errors.Join(d.Flip(tableName, 3*blockBytes, blockBytes), d.Flip(tableName, 4*blockBytes, blockBytes)))
	if _, err := Open(d, twinOptions); !errors.Is(err, ErrCorrupt) {
		t.Errorf("all blocks of a unit damaged: %v", err)
	}
}

// A commit block counts with the delta blocks that it was written with, and no others.
func TestUnitOfTwoUpdates(t *testing.T) {
	old := map[PageNum]string{1: contents(newChance(1))}
	second := func(n PageNum) (d *disk.Mem, unit []byte) {
		d = disk.NewMem(newChance(1))
		im, err := Create(d, twinOptions)
		must(t, err)
		must(t, update(im, newCheckpoint(1, old), 10))
		pages := maps.Clone(old)
		pages[n] = contents(newChance(2))
		must(t, update(im, newCheckpoint(2, pages), 10))
		unit = make([]byte, 2*blockBytes)
		_, err = im.log.file.ReadAt(unit, 3*blockBytes)
		must(t, err)
		return d, unit
	}
	_, other := second(5)
	d, _ := second(6)
	f, err := d.Open(tableName)
	must(t, err)
	_, err = f.WriteAt(other[:blockBytes], 3*blockBytes)
	must(t, err)
	checkIs(t, reopen(t, d), newCheckpoint(1, old))
}

// A block is valid in its file and at its index only.
func TestBlockAtItsPlace(t *testing.T) {
	b := make(block, blockBytes)
	b.seal(kindDelta, 0, 1, 2)
	if !b.valid(1, 2) || b.valid(1, 3) || b.valid(2, 2) {
		t.Error("a block is valid at another place, or not at its own")
	}
	b.seal(kindDelta, perBlock+1, 1, 2)
	if b.valid(1, 2) {
		t.Error("a block of more entries than fit is valid")
	}
}

// Two pages cannot lie in one slot, whatever checksums say.
func TestTwoPagesInOneSlot(t *testing.T) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(t, err)
	c := newCheckpoint(1, map[PageNum]string{1: contents(newChance(1)), 2: contents(newChance(2))})
	w := im.log.writer()
	for n := range PageNum(2) {
		must(t, w.add(entry{n + 1, 1, c.tree.digest(NodeID{Index: uint64(n + 1)})}))
	}
	must(t, w.commit(1, c.root()))
	if _, err := Open(d, twinOptions); !errors.Is(err, ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}

// A file of pages that has become too long is made short by the next update, though what
// remains lies at its end.
func TestShrinks(t *testing.T) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(t, err)
	pages := map[PageNum]string{}
	for n := range PageNum(twinPages) {
		pages[n] = contents(newChance(uint64(n)))
	}
	must(t, update(im, newCheckpoint(1, pages), 1000))
	maps.DeleteFunc(pages, func(n PageNum, _ string) bool { return n < twinPages-10 })
	for seq := SeqNum(2); seq < 4; seq++ {
		must(t, update(im, newCheckpoint(seq, pages), 1000))
	}
	size, err := im.pages.Size()
	must(t, err)
	if size > 100*pageSize {
		t.Errorf("10 pages take %d slots", size/pageSize)
	}
	checkIs(t, im, newCheckpoint(3, pages))
}

// Reserved space can be written when the disk is full, again and again, also after a
// crash; more space cannot.
func TestReserve(t *testing.T) {
	chance := newChance(1)
	d := disk.NewMem(chance)
	o := twinOptions
	o.Reserve = 20
	im, err := Create(d, o)
	must(t, err)
	pages := map[PageNum]string{}
	for n := range PageNum(500) {
		pages[n] = contents(chance)
	}
	c := newCheckpoint(1, pages)
	must(t, update(im, c, 100))
	must(t, im.Reserve())
	d.Limit(0)
	for seq := SeqNum(2); seq < 20; seq++ {
		for range o.Reserve {
			pages[PageNum(chance.IntN(500))] = contents(chance)
		}
		c = newCheckpoint(seq, pages)
		if err := update(im, c, 100); err != nil {
			if im.Reserve() == nil {
				t.Fatalf("update %d, of reserved pages, on a full disk: %v", seq, err)
			}
			break // the table has grown, and the disk has no room to reserve more of it
		}
	}
	if im.Reserve() == nil {
		t.Error("updates on a full disk need no more room")
	}
	d.Limit(-1)
	must(t, im.Reserve())
	must(t, im.Close())
	im, err = Open(d, o)
	must(t, err)
	d.Limit(0)
	for n := range PageNum(200) {
		pages[n] = contents(chance)
	}
	before, _, _ := im.Checkpoint()
	if err := update(im, newCheckpoint(before+1, pages), 100); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("an update of more than is reserved, on a full disk: %v", err)
	}
	d.Limit(-1)
	must(t, update(im, newCheckpoint(before+1, pages), 100))
	checkIs(t, im, newCheckpoint(before+1, pages))
}

// Every table that opens once opens again, at the same checkpoint.
func FuzzTable(f *testing.F) {
	d := disk.NewMem(newChance(1))
	im, err := Create(d, twinOptions)
	must(f, err)
	pages := map[PageNum]string{}
	for seq := SeqNum(1); seq <= 3; seq++ {
		pages[PageNum(seq*100)] = contents(newChance(uint64(seq)))
		must(f, update(im, newCheckpoint(seq, pages), 100))
	}
	whole := make([]byte, im.log.end*blockBytes)
	if !readFull(im.log.file, whole, 0) {
		f.Fatal("no table")
	}
	f.Add(whole, uint16(1), false)
	f.Add(whole[:3*blockBytes+100], uint16(1), true)
	f.Add([]byte{}, uint16(0), true)
	f.Fuzz(func(t *testing.T, b []byte, sealed uint16, seal bool) {
		b = slices.Clone(b)
		if at := int(sealed) * blockBytes; seal && at+blockBytes <= len(b) {
			one := block(b[at:][:blockBytes]) // so that the fuzzer gets past the checksum
			one.seal(one.kind(), one.count(), 1, uint64(sealed))
		}
		d := disk.NewMem(newChance(1))
		f, err := d.Create(tableName)
		must(t, err)
		_, err = f.WriteAt(b, 0)
		must(t, err)
		_, err = d.Create(pagesName)
		must(t, err)
		im, err := Open(d, twinOptions)
		if err != nil {
			return
		}
		seq, root, ok := im.Checkpoint()
		im.Load(newSession(root))
		if seq2, root2, ok2 := reopen(t, d).Checkpoint(); seq2 != seq || root2 != root || ok2 != ok {
			t.Errorf("opened again it is at %d, %v, want %d, %v", seq2, root2, seq, root)
		}
	})
}

// A truncatingFS counts how often a file was cut.
type truncatingFS struct {
	disk.FS
	cuts *int
}

func (d truncatingFS) Open(name string) (disk.File, error) {
	f, err := d.FS.Open(name)
	return truncatingFile{f, d.cuts}, err
}

type truncatingFile struct {
	disk.File
	cuts *int
}

func (f truncatingFile) Truncate(size int64) error {
	*f.cuts++
	return f.File.Truncate(size)
}

// The blocks in reserve behind a table stay allocated when it is opened. What was written there is
// cut off.
func TestOpenKeepsTheReserve(t *testing.T) {
	chance := newChance(1)
	d := disk.NewMem(chance)
	options := twinOptions
	options.Reserve = 500
	im, err := Create(d, options)
	must(t, err)
	must(t, update(im, newCheckpoint(1, map[PageNum]string{3: contents(chance)}), 100))
	must(t, im.Close())
	cuts := 0
	open := func() {
		im, err := Open(truncatingFS{d, &cuts}, options)
		must(t, err)
		must(t, im.Close())
	}
	if open(); cuts > 0 {
		t.Errorf("the reserve was cut off")
	}
	f, err := d.Open(tableName)
	must(t, err)
	_, err = f.WriteAt([]byte("torn"), 5*blockBytes)
	must(t, err)
	if open(); cuts != 1 {
		t.Errorf("a table with a torn unit was cut %d times, want once", cuts)
	}
}
