// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"strings"
	"testing"

	"bfs/pkg/nfs3"
)

// Other tests rely on the checker, so it must find the faults that they might cause: each
// damage below is done by hand to a state that is in order.
func TestCheckFinds(t *testing.T) {
	var file, other, dir, long, link inode // as they lie on the pages before the damage
	for _, x := range []struct {
		name   string
		damage func(fs *FS)
		want   string
	}{
		{"nothing", func(*FS) {}, ""},
		{"another magic", func(fs *FS) { fs.modify(fs.at.super)[superMagic]++ }, "superblock"},
		{"a free page too many", func(fs *FS) { fs.addCounter(superFreePages, 1) }, "free list holds"},
		{"a free page with a byte in it", func(fs *FS) {
			head := fs.read(pageNo(fs.counter(superFreeHead)))
			fs.modify(pageNo(le.Uint32(head[freeFirst:])))[7] = 7
		}, "is not zero"},
		{"a free page that is in use", func(fs *FS) {
			le.PutUint32(fs.modify(pageNo(fs.counter(superFreeHead)))[freeFirst:], uint32(file.direct[0]))
		}, "free list"},
		{"a block of too many", func(fs *FS) {
			le.PutUint32(fs.modify(pageNo(fs.counter(superFreeHead)))[freeCount:], freeBlock+1)
		}, "block"},
		{"a page of two files", func(fs *FS) { other.direct[0] = file.direct[0]; fs.save(&other) }, "is of inode"},
		{"a page outside", func(fs *FS) { other.direct[0] = fs.at.super; fs.save(&other) }, "not of the used data area"},
		{"a page of nobody", func(fs *FS) { other.direct[0] = 0; fs.save(&other) }, "has no owner"},
		{"a page behind the end", func(fs *FS) { other.size = 0; fs.save(&other) }, "behind its end"},
		{"a byte behind the end", func(fs *FS) { fs.modify(other.direct[0])[pageSize-1] = 1 }, "bytes behind its end"},
		{"a wrong number of pages", func(fs *FS) { other.pages++; fs.save(&other) }, "says"},
		{"a wrong total", func(fs *FS) { addMapTotal(fs.modify(long.root), 1) }, "map page"},
		{"a wrong level", func(fs *FS) { fs.modify(long.root)[mapLevelAt] = 9 }, "wrong header"},
		{"a link too many", func(fs *FS) { file.nlink++; fs.save(&file) }, "links"},
		{"another parent", func(fs *FS) { dir.parent = dir.num; fs.save(&dir) }, "parent"},
		{"an entry too few", func(fs *FS) { dir.size--; fs.save(&dir) }, "entries"},
		{"a cookie to come", func(fs *FS) { dir.nextCookie = 4; fs.save(&dir) }, "cookie"},
		{"keys in no order", func(fs *FS) {
			b := fs.modify(dir.index)[nodeSlots:] // the root of the index: swap two children
			b[2], b[3], b[4], b[5] = b[4], b[5], b[2], b[3]
		}, "out of order"},
		{"a node of another tree", func(fs *FS) { fs.modify(dir.root)[nodeForm] = hashForm.tag }, "wrong header"},
		{"a byte between records", func(fs *FS) { fs.modify(dir.root)[nodeSlots+200] = 1 }, "not packed"},
		{"no index", func(fs *FS) { dir.index, dir.indexHeight = 0, 0; fs.save(&dir) }, "heights"},
		{"a tree without height", func(fs *FS) { dir.height = 0; fs.save(&dir) }, "without height"},
		{"a hash less", func(fs *FS) {
			hashes := fs.hashes(&dir)
			hashes.remove(key{nameHash([]byte(fileName(5))), 5 + cookieFirst})
			fs.save(&dir)
		}, "no hash of"},
		{"a name of no inode", func(fs *FS) {
			p, off := fs.inodeAt(file.num)
			clear(fs.modify(p)[off : off+inodeSize])
		}, "of kind 0"},
		{"a name of another export", func(fs *FS) { file.export = 2; fs.save(&file) }, "export 2"},
		{"a circle of free inodes", func(fs *FS) {
			n := inodeNum(fs.counter(superInodeFree))
			p, off := fs.inodeAt(n)
			le.PutUint32(fs.modify(p)[off+8:], uint32(n))
		}, "twice on the free list"},
		{"a free inode that is in use", func(fs *FS) { fs.setCounter(superInodeFree, uint32(file.num)) }, "free list"},
		{"inodes in use", func(fs *FS) { fs.addCounter(superInodesUsed, 1) }, "in use"},
		{"an export's account", func(fs *FS) { fs.charge(1, 1, -1) }, "export 1 uses"},
		{"nanoseconds", func(fs *FS) { file.mtime.Nanoseconds = 1e9; fs.save(&file) }, "nanoseconds"},
		{"mode bits", func(fs *FS) { file.mode = 0o100644; fs.save(&file) }, "mode"},
		{"a kind that is none", func(fs *FS) { file.kind = 8; fs.save(&file) }, "of kind 8"},
		{"a size beyond all", func(fs *FS) { file.size = nfs3.MaxFileSize + 1; fs.save(&file) }, "has 8796093022208 bytes"},
		{"cookies beyond all", func(fs *FS) { dir.nextCookie = cookieLimit + 1; fs.save(&dir) }, "gives cookie"},
		{"a device number of a file", func(fs *FS) { file.rdev.Minor = 1; fs.save(&file) }, "device number"},
		{"a link without a text", func(fs *FS) { link.size = 0; fs.save(&link) }, "no path"},
		{"a link with a NUL", func(fs *FS) { link.size++; fs.save(&link) }, "no path"},
		{"a link beyond its page", func(fs *FS) { link.size = 1 << 40; fs.save(&link) }, "no path"},
		{"orphans", func(fs *FS) { fs.addCounter(superOrphanPages, 3) }, "orphans hold"},
	} {
		fs, u := newFS(t, 1<<12, func(c *Config) { c.Exports = append(c.Exports, Export{Name: "other"}) })
		plant := func(dir nfs3.FileHandle, name string, pages int, in *inode) nfs3.FileHandle {
			h := u.create(dir, name, nfs3.Guarded, nfs3.Sattr3{}).Object.Handle
			u.write(h.FileHandle(), 0, []byte(strings.Repeat("x", pages*pageSize-100)))
			fs.load(inodeNum(h.Inode), in)
			return h.FileHandle()
		}
		plant(u.root, "file", 1, &file)
		plant(u.root, "other", 1, &other)
		plant(u.root, "long", 40, &long)
		d := u.mkdir(u.root, "dir").Object.Handle
		fs.load(inodeNum(u.symlink(u.root, "link", "text").Object.Handle.Inode), &link)
		var gone inode
		plant(u.root, "gone", 8, &gone)
		for i := range 600 {
			plant(d.FileHandle(), fileName(i), 1, &gone)
		}
		u.remove(u.root, "gone")
		fs.load(inodeNum(d.Inode), &dir)
		x.damage(fs)
		err := fs.Check()
		if got := err != nil && strings.Contains(err.Error(), x.want); got != (x.want != "") {
			t.Errorf("%s: got %v, want %q", x.name, err, x.want)
		}
	}
}
