// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
)

// ErrPower is the error of a [Mem] between the loss of power that CutAfter set and Crash,
// and after a Crash the error of a file that was opened before it.
var ErrPower = errors.New("the disk has no power")

// errSync is the answer of a Sync that FailSync had fail.
var errSync = fmt.Errorf("sync: %w", syscall.EIO)

// A Mem is an FS in memory that can lose power. Crash leaves what a disk may hold then:
//
//   - What was synced is there.
//   - Each write that was not synced is kept, lost or torn (some of its sectors are kept),
//     independently of the others. A sector that is kept has what earlier writes put there too, as
//     it comes from one page of the cache.
//   - A change of length or of names that was not synced is kept or lost. Changes of one
//     file's length are kept in order.
//
// All chance comes from the generator that NewMem was given, so that equal calls see
// equal disks. Memory is taken for pages that were written, so a long file of zeros is
// cheap. Its methods may be called by several goroutines.
type Mem struct {
	mu      sync.Mutex
	chance  *rand.Rand
	life    int               // the number of crashes; files that were opened in an earlier life are dead
	now     map[string]*inode // the names as callers see them
	durable map[string]*inode // the names as of the last Sync
	renames []nameChange      // renames since the last sync
	stats   Stats

	space     int64 // bytes that fit, or negative
	cutAfter  int   // changing or syncing calls until the power is cut, or negative
	failSyncs int   // the number of Syncs that will fail
}

// Stats holds the counts of a Mem since it was made.
type Stats struct {
	Written int64 // bytes
	Writes  int
	Syncs   int // of files and of names
}

// A nameChange gives file a name, and takes another one away from it. Either may be empty.
type nameChange struct {
	file     *inode
	from, to string
}

func (c nameChange) apply(names map[string]*inode) {
	if names[c.from] == c.file {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.file
	}
}

// NewMem makes an empty disk of unlimited space.
func NewMem(chance *rand.Rand) *Mem {
	return &Mem{chance: chance, now: map[string]*inode{}, durable: map[string]*inode{}, space: -1, cutAfter: -1}
}

// Stats returns the counters.
func (m *Mem) Stats() Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.stats
}

// Limit sets how many bytes fit, in all files. A write or Allocate that needs more answers
// ENOSPC; a write within blocks that a file has already does not. A negative limit is none.
func (m *Mem) Limit(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space = bytes
}

// Fill leaves room for so many bytes more than the files take now, as Limit does.
func (m *Mem) Fill(room int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.space = room
	for _, f := range m.now {
		m.space += f.now.taken * pageBytes
	}
}

// FailSync makes the next n Syncs fail, of any file or of the names. The data that they should have
// made durable may be lost, and a later Sync that succeeds does not make it durable either.
func (m *Mem) FailSync(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.failSyncs = n
}

// CutAfter cuts the power after n more changing or syncing calls. All calls answer ErrPower then,
// until Crash. A negative n revokes it.
func (m *Mem) CutAfter(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cutAfter = n
}

// Misdirect makes the next write to a file go to a place by bytes away. It is acknowledged like any
// other.
func (m *Mem) Misdirect(name string, by int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.now[name]
	if !ok {
		return notExist("misdirect", name)
	}
	f.miss = by
	return nil
}

// Flip inverts bits of one byte, chosen among n bytes of a file at off, on the disk and
// in the cache. Bytes beyond its end are left alone.
func (m *Mem) Flip(name string, off, n int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.now[name]
	if !ok {
		return notExist("flip", name)
	}
	n = min(n, f.now.size-off)
	if n <= 0 {
		return nil
	}
	at, bits := off+m.chance.Int64N(n), byte(1+m.chance.IntN(255))
	f.now.invert(at, bits)
	f.durable.invert(at, bits)
	return nil
}

// Crash cuts the power and restores it. Files that are open are dead afterwards. Limits
// stay, other faults that were set are revoked.
func (m *Mem) Crash() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, c := range m.renames {
		if m.chance.IntN(2) == 0 {
			c.apply(m.durable)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.durable)) {
		m.durable[name].settle(m.chance)
	}
	m.begin(m.durable)
}

// begin begins another life of the disk with the durable contents of these files.
func (m *Mem) begin(files map[string]*inode) {
	m.life++
	m.renames, m.failSyncs, m.cutAfter = nil, 0, -1
	m.now, m.durable = files, maps.Clone(files)
	for _, f := range files {
		f.now, f.pending, f.miss = f.durable.clone(), nil, 0
	}
}

// A Snapshot is the contents of a disk at one time.
type Snapshot struct{ files map[string]*inode }

// Snapshot returns all files as callers see them now.
func (m *Mem) Snapshot() *Snapshot {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := &Snapshot{map[string]*inode{}}
	for name, f := range m.now {
		s.files[name] = &inode{durable: f.copied()}
	}
	return s
}

// Restore puts the files of a snapshot in the place of those that are there. Files that are
// open are dead afterwards. A snapshot may be restored more than once, and on several disks.
func (m *Mem) Restore(s *Snapshot) {
	m.mu.Lock()
	defer m.mu.Unlock()
	files := map[string]*inode{}
	for name, f := range s.files {
		files[name] = &inode{durable: f.durable.clone()}
	}
	m.begin(files)
}

// spend counts a call that writes or syncs, and fails when the power is cut.
func (m *Mem) spend() error {
	if m.cutAfter == 0 {
		return ErrPower
	}
	if m.cutAfter > 0 {
		m.cutAfter--
	}
	return nil
}

func notExist(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.spend(); err != nil {
		return nil, err
	}
	if _, ok := m.now[name]; ok {
		return nil, &fs.PathError{Op: "create", Path: name, Err: fs.ErrExist}
	}
	f := &inode{}
	m.change(nameChange{file: f, to: name})
	return &memFile{disk: m, name: name, inode: f, life: m.life}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cutAfter == 0 {
		return nil, ErrPower
	}
	f, ok := m.now[name]
	if !ok {
		return nil, notExist("open", name)
	}
	return &memFile{disk: m, name: name, inode: f, life: m.life}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error { return m.move("remove", name, "") }

// Rename implements FS.
func (m *Mem) Rename(from, to string) error { return m.move("rename", from, to) }

func (m *Mem) move(op, from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.spend(); err != nil {
		return err
	}
	f, ok := m.now[from]
	switch {
	case !ok:
		return notExist(op, from)
	case from != to:
		m.change(nameChange{f, from, to})
	}
	return nil
}

func (m *Mem) change(c nameChange) {
	c.apply(m.now)
	m.renames = append(m.renames, c)
}

// List implements FS.
func (m *Mem) List() ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.cutAfter == 0 {
		return nil, ErrPower
	}
	return slices.Sorted(maps.Keys(m.now)), nil
}

// Sync implements FS.
func (m *Mem) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	failed, err := m.syncing()
	if err != nil {
		return err
	}
	for _, c := range m.renames {
		if !failed || m.chance.IntN(2) == 0 {
			c.apply(m.durable)
		}
	}
	m.renames = nil
	if failed {
		return errSync
	}
	return nil
}

// syncing counts a Sync, and reports whether it is one that fails.
func (m *Mem) syncing() (failed bool, err error) {
	if err := m.spend(); err != nil {
		return false, err
	}
	m.stats.Syncs++
	if m.failSyncs > 0 {
		m.failSyncs--
		return true, nil
	}
	return false, nil
}

// room returns how many more pages fit.
func (m *Mem) room() int64 {
	if m.space < 0 {
		return 1 << 40
	}
	left := m.space / pageBytes
	for _, f := range m.now {
		left -= f.now.taken
	}
	return max(left, 0)
}

// A memFile is an open inode.
type memFile struct {
	disk   *Mem
	name   string
	inode  *inode
	life   int
	closed bool
}

// enter locks the disk for a call, if the file can be used.
func (f *memFile) enter() error {
	f.disk.mu.Lock()
	switch {
	case f.closed:
		f.disk.mu.Unlock()
		return fs.ErrClosed
	case f.life != f.disk.life || f.disk.cutAfter == 0:
		f.disk.mu.Unlock()
		return ErrPower
	}
	return nil
}

func (f *memFile) ReadAt(b []byte, off int64) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	n := min(int64(len(b)), max(f.inode.now.size-off, 0))
	f.inode.now.read(b[:n], off)
	if n < int64(len(b)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

func (f *memFile) WriteAt(b []byte, off int64) (int, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	if off < 0 {
		return 0, fs.ErrInvalid
	}
	if err := f.disk.spend(); err != nil {
		return 0, err
	}
	wanted := len(b)
	b = b[:f.inode.now.fitting(off, int64(wanted), f.disk.room())]
	f.disk.stats.Writes++
	f.disk.stats.Written += int64(len(b))
	f.inode.write(b, off)
	if len(b) < wanted {
		return len(b), fmt.Errorf("write %s: %w", f.name, syscall.ENOSPC)
	}
	return wanted, nil
}

// WriteThrough implements File. A crash may come between the write and the sync.
func (f *memFile) WriteThrough(b []byte, off int64) error {
	if err := f.clean(); err != nil {
		return err
	}
	if _, err := f.WriteAt(b, off); err != nil {
		return err
	}
	return f.Sync()
}

// clean panics if the file has changes that are not durable: WriteThrough does not make them so.
func (f *memFile) clean() error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	if len(f.inode.pending) > 0 {
		panic("disk: WriteThrough to " + f.name + ", which has changes that are not durable")
	}
	return nil
}

func (f *memFile) Size() (int64, error) {
	if err := f.enter(); err != nil {
		return 0, err
	}
	defer f.disk.mu.Unlock()
	return f.inode.now.size, nil
}

func (f *memFile) Allocate(size int64) error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	have := f.inode.now.size
	if size <= have {
		return nil
	}
	if err := f.disk.spend(); err != nil {
		return err
	}
	if f.inode.now.fitting(have, size-have, f.disk.room()) < size-have {
		return fmt.Errorf("allocate %d bytes of %s: %w", size, f.name, syscall.ENOSPC)
	}
	f.inode.resize(size, true)
	return nil
}

func (f *memFile) Truncate(size int64) error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	if size < 0 {
		return fs.ErrInvalid
	}
	if err := f.disk.spend(); err != nil {
		return err
	}
	f.inode.resize(size, false)
	return nil
}

func (f *memFile) Sync() error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	failed, err := f.disk.syncing()
	switch {
	case err != nil:
		return err
	case failed:
		f.inode.settle(f.disk.chance)
		return errSync
	}
	f.inode.sync()
	return nil
}

func (f *memFile) Close() error {
	if err := f.enter(); err != nil {
		return err
	}
	defer f.disk.mu.Unlock()
	f.closed = true
	return nil
}
