// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"testing"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// A later epoch takes over a state whose superblock names an earlier one, and changes
// nothing but that. It refuses the superblock of a state that was made with other
// numbers, of its own epoch, or of a later one.
func TestRenew(t *testing.T) {
	old, u := newFS(t, 1<<12, func(c *Config) { c.Epoch = 3 })
	u.create(u.root, "f", nfs3.Unchecked, nfs3.Sattr3{})
	c := old.config
	c.Epoch++
	later := emptyFS(t, c)
	for n := range pbft.PageNum(c.Pages) {
		page := old.store.Read(fsmerkle.PageNum(n))
		copied := append([]byte(nil), page...)
		changed, err := later.Renew(n, copied)
		if err != nil || changed != (n == pbft.PageNum(c.Reserved)) || !changed && string(copied) != string(page) {
			t.Fatalf("page %d: changed %v, %v", n, changed, err)
		}
		copy(later.store.Modify(fsmerkle.PageNum(n)), copied)
	}
	again, err := New(later.store, c)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Check(); err != nil {
		t.Error(err)
	}
	for what, change := range map[string]func(*Config){
		// A later epoch is later than that of the group that asks.
		"its own epoch": func(c *Config) { c.Epoch-- }, "a later epoch": func(c *Config) { c.Epoch -= 2 },
		"other pages": func(c *Config) { c.Pages++ }, "other inodes": func(c *Config) { c.Inodes++ },
	} {
		other := c
		change(&other)
		super := append([]byte(nil), old.store.Read(fsmerkle.PageNum(c.Reserved))...)
		if _, err := emptyFS(t, other).Renew(pbft.PageNum(other.Reserved), super); err == nil {
			t.Errorf("%s: accepted", what)
		}
	}
	if _, err := later.Renew(pbft.PageNum(c.Reserved), make([]byte, pageSize)); err == nil {
		t.Error("a page that is no superblock was accepted")
	}
}

// emptyFS is a file system on a store of its own.
func emptyFS(t *testing.T, c Config) *FS {
	t.Helper()
	store, err := fsmerkle.New(fsmerkle.Options{Pages: fsmerkle.PageNum(c.Pages)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	fs, err := New(store, c)
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

// A file that is made in a later epoch never has the handle of one that the earlier epoch
// made after the backup, whether its inode was taken before, freed before, or never used.
func TestHandlesOfEpochs(t *testing.T) {
	_, u := newFS(t, 1<<12, func(c *Config) { c.Epoch = 1 })
	handle := func(r nfs3.CreateResult) nfs3.Handle {
		h, ok := r.Object.Handle.FileHandle().Parse()
		if r.Status != nfs3.OK || !ok {
			t.Fatal(r.Status)
		}
		return h
	}
	u.create(u.root, "freed", nfs3.Unchecked, nfs3.Sattr3{})
	u.remove(u.root, "freed")
	given := map[nfs3.Handle]bool{}
	for range 3 { // what the earlier epoch gives after the backup: a freed inode again and again, and a fresh one
		given[handle(u.create(u.root, "a", nfs3.Unchecked, nfs3.Sattr3{}))] = true
		given[handle(u.create(u.root, "b", nfs3.Unchecked, nfs3.Sattr3{}))] = true
		u.remove(u.root, "a")
		u.remove(u.root, "b")
	}
	u.fs.config.Epoch = 2
	le.PutUint64(u.fs.modify(u.fs.at.super)[superEpoch:], 2)
	for _, name := range []string{"x", "y", "z"} {
		if h := handle(u.create(u.root, name, nfs3.Unchecked, nfs3.Sattr3{})); given[h] || h.Generation <= 1<<20 {
			t.Errorf("%s has handle %+v", name, h)
		}
	}
	u.check()
}
