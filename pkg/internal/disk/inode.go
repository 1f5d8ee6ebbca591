// SPDX-License-Identifier: Apache-2.0

package disk

import (
	"math/rand/v2"
	"slices"
)

const (
	// pageBytes is the unit in which a Mem takes memory, and in which it counts space.
	pageBytes = 4096
	// sectorBytes is the size of the pieces that a disk writes wholly or not at all.
	sectorBytes = 512
)

type page [pageBytes]byte

// zeros stands for pages that were allocated and not written. It is not written.
var zeros page

// contents are the bytes of a file: pages, nil where none was written or allocated, so
// that it reads as zeros. Invariant: bytes at size and beyond are zero.
type contents struct {
	pages []*page
	size  int64
	taken int64 // pages that are not nil
}

func (c *contents) clone() contents {
	return contents{pages: slices.Clone(c.pages), size: c.size, taken: c.taken}
}

// runs calls f for the part of each page among n bytes at off.
func runs(off, n int64, f func(index int, from, to, done int64)) {
	for done := int64(0); done < n; {
		index, from := (off+done)/pageBytes, (off+done)%pageBytes
		to := min(from+n-done, pageBytes)
		f(int(index), from, to, done)
		done += to - from
	}
}

func (c *contents) at(index int) *page {
	if index < len(c.pages) {
		return c.pages[index]
	}
	return nil
}

func (c *contents) put(index int, p *page) {
	if index >= len(c.pages) {
		c.pages = append(c.pages, make([]*page, index+1-len(c.pages))...)
	}
	if c.pages[index] != nil {
		c.taken--
	}
	if p != nil {
		c.taken++
	}
	c.pages[index] = p
}

func (c *contents) read(b []byte, off int64) {
	runs(off, int64(len(b)), func(index int, from, to, done int64) {
		if p := c.at(index); p != nil {
			copy(b[done:], p[from:to])
		} else {
			clear(b[done:][:to-from])
		}
	})
}

// write writes b at off. Pages that shared has too are copied first.
func (c *contents) write(b []byte, off int64, shared *contents) {
	runs(off, int64(len(b)), func(index int, from, to, done int64) {
		p := c.at(index)
		if p == nil || p == &zeros || shared != nil && p == shared.at(index) {
			c.put(index, copyOf(p))
		}
		copy(c.pages[index][from:to], b[done:])
	})
	c.size = max(c.size, off+int64(len(b)))
}

func copyOf(p *page) *page {
	if p == nil {
		return new(page)
	}
	q := *p
	return &q
}

// resize sets the size. The added part is allocated or not.
func (c *contents) resize(size int64, allocate bool) {
	last := int((size + pageBytes - 1) / pageBytes)
	for i := last; i < len(c.pages); i++ {
		c.put(i, nil)
	}
	c.pages = c.pages[:min(len(c.pages), last)]
	if rest := size % pageBytes; rest != 0 && c.at(last-1) != nil && size < c.size {
		p := copyOf(c.pages[last-1])
		clear(p[rest:])
		c.pages[last-1] = p
	}
	for i := int(c.size / pageBytes); allocate && i < last; i++ {
		if c.at(i) == nil {
			c.put(i, &zeros)
		}
	}
	c.size = size
}

// fitting returns how many of n bytes at off can be written if room more pages can be taken.
func (c *contents) fitting(off, n, room int64) (fit int64) {
	full := false
	runs(off, n, func(index int, from, to, done int64) {
		if c.at(index) == nil {
			room--
		}
		if full = full || room < 0; !full {
			fit = done + to - from
		}
	})
	return fit
}

// invert inverts bits of a byte that is there. Its page is copied, for others may have it.
func (c *contents) invert(off int64, bits byte) {
	if off < c.size {
		p := copyOf(c.at(int(off / pageBytes)))
		p[off%pageBytes] ^= bits
		c.put(int(off/pageBytes), p)
	}
}

// An inode is a file without its name. Pages of durable are not written, so they may be
// pages of now and of snapshots too.
type inode struct {
	now, durable contents
	pending      []change // what made now out of durable, in order
	miss         int64    // by how much the next write misses its place
}

// A change is a write of data at off, or if data is nil a new size.
type change struct {
	data     []byte
	off      int64
	size     int64
	allocate bool
}

func (f *inode) write(b []byte, off int64) {
	if len(b) == 0 {
		return
	}
	off, f.miss = max(off+f.miss, 0), 0
	f.now.write(b, off, &f.durable)
	f.pending = append(f.pending, change{data: slices.Clone(b), off: off})
}

func (f *inode) resize(size int64, allocate bool) {
	f.now.resize(size, allocate)
	f.pending = append(f.pending, change{size: size, allocate: allocate})
}

// sync makes all pending changes durable.
func (f *inode) sync() {
	for _, c := range f.pending {
		if c.data == nil {
			f.durable, f.pending = f.now.clone(), nil
			return
		}
	}
	for _, c := range f.pending {
		runs(c.off, int64(len(c.data)), func(index int, _, _, _ int64) { f.durable.put(index, f.now.at(index)) })
	}
	f.durable.size, f.pending = f.now.size, nil
}

// settle decides which pending changes become durable; of the others the cache alone knows.
func (f *inode) settle(chance *rand.Rand) {
	last := f.survivors(chance)
	before := f.durable.clone() // its pages are not written
	resizes := chance.IntN(len(f.pending) + 1)
	for i, c := range f.pending {
		if c.data == nil {
			if i < resizes {
				f.durable.resize(c.size, c.allocate)
			}
			continue
		}
		sectors(c, func(sector, from, to int64) {
			if i < last[sector] {
				f.durable.write(c.data[from-c.off:to-c.off], from, &before)
			}
		})
	}
	f.pending = nil
}

// survivors draws for each sector how many of the pending changes it has seen.
func (f *inode) survivors(chance *rand.Rand) map[int64]int {
	last := map[int64]int{}
	for i, c := range f.pending {
		if c.data == nil {
			continue
		}
		kept := tear(c, chance)
		sectors(c, func(sector, _, _ int64) {
			if kept(sector) {
				last[sector] = i + 1
			}
		})
	}
	return last
}

// tear draws the fate of a write: all of it is kept, or none, or its beginning, or any of its
// sectors.
func tear(c change, chance *rand.Rand) (kept func(sector int64) bool) {
	first, end := c.off/sectorBytes, (c.off+int64(len(c.data))-1)/sectorBytes+1
	switch chance.IntN(4) {
	case 0:
		return func(int64) bool { return true }
	case 1:
		return func(int64) bool { return false }
	case 2:
		tear := first + chance.Int64N(end-first+1)
		return func(sector int64) bool { return sector < tear }
	default:
		return func(int64) bool { return chance.IntN(2) == 0 }
	}
}

// sectors calls f for the part of a write in each sector.
func sectors(c change, f func(sector, from, to int64)) {
	end := c.off + int64(len(c.data))
	for at := c.off; at < end; {
		to := min((at/sectorBytes+1)*sectorBytes, end)
		f(at/sectorBytes, at, to)
		at = to
	}
}

// copied returns the contents of now in pages that are not written any more.
func (f *inode) copied() contents {
	c := f.now.clone()
	for i, p := range c.pages {
		if p != nil && p != &zeros && p != f.durable.at(i) {
			c.pages[i] = copyOf(p)
		}
	}
	return c
}
