// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"bfs/pkg/nfs3"
)

// A listing is a READDIR or READDIRPLUS of one directory under way, a few entries at a time.
type listing struct {
	u      *user
	dir    nfs3.FileHandle
	plus   bool
	cookie uint64
	eof    bool
}

// next is the names that the next reply brings, the dot names left out.
func (l *listing) next() (names []string) {
	l.u.t.Helper()
	add := func(name []byte, cookie uint64) {
		if cookie <= l.cookie {
			l.u.t.Fatalf("cookie %d of %q behind cookie %d", cookie, name, l.cookie)
		}
		if l.cookie = cookie; !isDots(name) {
			names = append(names, string(name))
		}
	}
	if l.plus {
		a := nfs3.ReaddirplusArgs{Dir: l.dir, Cookie: l.cookie, DirCount: 1 << 10, MaxCount: 1 << 10}
		r, err := nfs3.DecodeReaddirplusResult(l.u.call(nfs3.ProgramNFS, nfs3.ProcReaddirplus, a.Append(nil)))
		for _, e := range must(l.u.t, r, err).Entries {
			add(e.Name, e.Cookie)
		}
		l.eof = r.EOF
		return names
	}
	a := nfs3.ReaddirArgs{Dir: l.dir, Cookie: l.cookie, Count: 512}
	r, err := nfs3.DecodeReaddirResult(l.u.call(nfs3.ProgramNFS, nfs3.ProcReaddir, a.Append(nil)))
	for _, e := range must(l.u.t, r, err).Entries {
		add(e.Name, e.Cookie)
	}
	l.eof = r.EOF
	return names
}

// fill makes files 0 to n-1 in a new directory.
func (u *user) fill(name string, n int) nfs3.FileHandle {
	u.t.Helper()
	d := u.mkdir(u.root, name).Object.Handle.FileHandle()
	for i := range n {
		u.mustDo(u.create(d, fileName(i), nfs3.Guarded, nfs3.Sattr3{}).Status)
	}
	return d
}

func (u *user) mustDo(st nfs3.Status) {
	u.t.Helper()
	if st != nfs3.OK {
		u.t.Fatal(st)
	}
}

// A program that renames the entries it lists, in a directory larger than one reply, must
// come to the end. Every entry is listed once: under RENAME an entry keeps its place.
func TestListingEndsUnderRenames(t *testing.T) {
	for _, x := range []struct {
		name   string
		change func(u *user, d nfs3.FileHandle, name string)
	}{
		{"a new file over each name, as sed -i does", func(u *user, d nfs3.FileHandle, name string) {
			u.mustDo(u.create(d, "sed0000", nfs3.Guarded, nfs3.Sattr3{}).Status)
			u.mustDo(u.rename(d, "sed0000", d, name))
		}},
		{"there and back", func(u *user, d nfs3.FileHandle, name string) {
			u.mustDo(u.rename(d, name, d, "aside"))
			u.mustDo(u.rename(d, "aside", d, name))
		}},
		{"to a longer name", func(u *user, d nfs3.FileHandle, name string) {
			u.mustDo(u.rename(d, name, d, name+".x"))
		}},
		{"to a shorter name", func(u *user, d nfs3.FileHandle, name string) {
			u.mustDo(u.rename(d, name, d, name[3:]))
		}},
		{"a file from elsewhere over each name", func(u *user, d nfs3.FileHandle, name string) {
			u.mustDo(u.create(u.root, "new", nfs3.Guarded, nfs3.Sattr3{}).Status)
			u.mustDo(u.rename(u.root, "new", d, name))
		}},
	} {
		for _, n := range [...]int{40, 1000} { // with one page and with two trees
			for _, plus := range [...]bool{false, true} {
				_, u := newFS(t, 1<<12)
				d := u.fill("d", n)
				l := listing{u: u, dir: d, plus: plus}
				listed := 0
				for !l.eof && listed <= n {
					for _, name := range l.next() {
						listed++
						x.change(u, d, name)
					}
				}
				if listed != n {
					t.Errorf("%s, plus %v: %d entries were listed, want %d", x.name, plus, listed, n)
				}
				u.check()
			}
		}
	}
}

// A churn changes a directory while it is listed, and knows its entries under all their names.
type churn struct {
	u       *user
	r       *rand.Rand
	d, away nfs3.FileHandle
	entries map[string]int // by name: the number of the entry
	names   []string       // of the entries, in any order
	made    int            // entries so far
	given   int            // names so far
}

func (c *churn) add(name string) {
	c.entries[name] = c.made
	c.made++
	c.names = append(c.names, name)
}

// take removes a known name at random and returns it.
func (c *churn) take() string {
	i, last := c.r.IntN(len(c.names)), len(c.names)-1
	name := c.names[i]
	c.names[i], c.names = c.names[last], c.names[:last]
	return name
}

// fresh is a name of any length that was never given.
func (c *churn) fresh() string {
	c.given++
	return fmt.Sprintf("%0*d", 1+c.r.IntN(nfs3.MaxName), 1_000_000+c.given)
}

func (c *churn) change() {
	u := c.u
	if len(c.names) < 2 {
		name := c.fresh()
		u.mustDo(u.create(c.d, name, nfs3.Guarded, nfs3.Sattr3{}).Status)
		c.add(name)
		return
	}
	old := c.take()
	entry := c.entries[old]
	delete(c.entries, old)
	switch name := c.fresh(); c.r.IntN(8) {
	case 0:
		u.mustDo(u.remove(c.d, old))
	case 1:
		u.mustDo(u.rename(c.d, old, c.away, old)) // and back: another entry
		u.mustDo(u.rename(c.away, old, c.d, old))
		c.add(old)
	case 2, 3:
		over := c.names[c.r.IntN(len(c.names))]
		u.mustDo(u.rename(c.d, old, c.d, over)) // the entry of that name stays
	case 4:
		u.mustDo(u.rename(c.d, old, c.away, name)) // something comes in its place
		u.mustDo(u.create(c.d, old, nfs3.Guarded, nfs3.Sattr3{}).Status)
		c.add(old)
	default:
		u.mustDo(u.rename(c.d, old, c.d, name))
		c.entries[name] = entry
		c.names = append(c.names, name)
	}
}

// Entries come, go and change their names during a listing: an entry that stays is listed
// exactly once, no entry is listed twice, and the listing ends.
func TestListingUnderChurn(t *testing.T) {
	for seed := range uint64(30) {
		fs, u := newFS(t, 1<<12)
		c := churn{u: u, r: rand.New(rand.NewPCG(seed, 1813)), entries: map[string]int{}}
		n := 30 + int(seed%3)*400
		c.d, c.away = u.fill("d", n), u.fill("away", 0)
		for i := range n {
			c.add(fileName(i))
		}
		listed := map[int]int{}
		for l := (listing{u: u, dir: c.d, plus: seed%2 == 1}); !l.eof; {
			for _, name := range l.next() {
				listed[c.entries[name]]++
			}
			for range c.r.IntN(8) { // fewer than a reply brings
				c.change()
			}
		}
		for _, name := range c.names {
			if e := c.entries[name]; e < n && listed[e] != 1 {
				t.Errorf("seed %d: entry %d, now %q, was listed %d times", seed, e, name, listed[e])
			}
		}
		for e, times := range listed {
			if times > 1 {
				t.Errorf("seed %d: entry %d was listed %d times", seed, e, times)
			}
		}
		if err := fs.Check(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// An entry takes another name in a directory so full that it must split or may join
// pages, and when no page is free.
func TestRenameInPlaceWhenFull(t *testing.T) {
	for seed := range uint64(20) {
		fs, u := newFS(t, 300, func(c *Config) { c.Inodes = 2000 })
		r := rand.New(rand.NewPCG(seed, 4096))
		d := u.mkdir(u.root, "d").Object.Handle.FileHandle()
		var names []string
		for i := 0; ; i++ {
			name := fmt.Sprintf("%0*d", 4+r.IntN(200), i)
			if st := u.create(d, name, nfs3.Guarded, nfs3.Sattr3{}).Status; st != nfs3.OK {
				break
			}
			names = append(names, name)
		}
		met := map[nfs3.Status]int{}
		for i := range 3000 {
			at := r.IntN(len(names))
			name := fmt.Sprintf("%0*d", 5+r.IntN(250), 10_000+i)
			st := u.rename(d, names[at], d, name)
			if met[st]++; st == nfs3.OK {
				names[at] = name
			}
		}
		if met[nfs3.OK]+met[nfs3.ErrNoSpc] != 3000 || met[nfs3.OK] == 0 {
			t.Errorf("seed %d: RENAME answered %v", seed, met)
		}
		over, under := names[0], names[len(names)-1]
		if st := u.rename(d, under, d, over); st != nfs3.OK {
			t.Errorf("seed %d: RENAME over a name, which needs no page: %v", seed, st)
		}
		if err := fs.Check(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// A directory of forty entries grows from one page to two trees and back when its names
// grow and shrink.
func TestRenameInPlaceAtOnePage(t *testing.T) {
	for seed := range uint64(5) {
		fs, u := newFS(t, 1<<10)
		r := rand.New(rand.NewPCG(seed, 255))
		d := u.fill("d", 40)
		h, _ := d.Parse()
		heights := map[uint8]int{}
		names := make([]string, 40)
		for i := range names {
			names[i] = fileName(i)
		}
		for i := range 1000 {
			at := r.IntN(len(names))
			name := fmt.Sprintf("%0*d", 5+r.IntN(250)*(i/100%2), 10_000+i)
			u.mustDo(u.rename(d, names[at], d, name))
			names[at] = name
			if err := fs.Check(); err != nil {
				t.Fatalf("seed %d, rename %d: %v", seed, i, err)
			}
			var in inode
			fs.load(inodeNum(h.Inode), &in)
			heights[in.height]++
		}
		if heights[1] < 100 || heights[2] < 100 {
			t.Errorf("seed %d: heights were %v", seed, heights)
		}
	}
}
