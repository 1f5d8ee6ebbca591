// SPDX-License-Identifier: Apache-2.0

package nfsstate

// Where a file's pages are: the first twelve numbers stand in the inode, further ones in
// a tree of map pages that grows in height with the file. A hole is a 0 at any level,
// takes no page and reads as zeros.
//
//	map page
//	  0  level     u32   1: the children are data pages
//	  4  total     u32   pages of this subtree, this one included
//	  8  next      u32   orphans only: the next orphan
//	 12  left      u32   orphans only: children not yet looked at
//	 16  children  u32 × mapFan
//
// With the header a subtree of any size is detached in one step; see orphan.
const (
	mapLevelAt = 0
	mapTotalAt = 4
	mapNext    = 8
	mapLeft    = 12
	mapFirst   = 16
	mapFan     = (pageSize - mapFirst) / 4
)

// mapSpan[h] is the number of data pages below a tree of height h: 1020^4 is beyond the
// largest file's 2^31.
var mapSpan = [...]uint64{1, mapFan, mapFan * mapFan, mapFan * mapFan * mapFan, mapFan * mapFan * mapFan * mapFan}

func mapLevel(b []byte) int    { return int(le.Uint32(b[mapLevelAt:])) }
func mapTotal(b []byte) uint32 { return le.Uint32(b[mapTotalAt:]) }

func mapChild(b []byte, i uint64) pageNo { return pageNo(le.Uint32(b[mapFirst+4*i:])) }

func setMapChild(b []byte, i uint64, p pageNo) { le.PutUint32(b[mapFirst+4*i:], uint32(p)) }

func addMapTotal(b []byte, delta int64) {
	le.PutUint32(b[mapTotalAt:], uint32(int64(mapTotal(b))+delta))
}

// mapHeight is the least height of a tree that reaches page i behind the direct ones.
func mapHeight(i uint64) int {
	h := 1
	for i >= mapSpan[h] {
		h++
	}
	return h
}

// mapGet is page i of the file, 0 if it is a hole.
func (fs *FS) mapGet(in *inode, i uint64) pageNo {
	if i < directPages {
		return in.direct[i]
	}
	i -= directPages
	level := int(in.height)
	if level == 0 || i >= mapSpan[level] {
		return 0
	}
	p := in.root
	for ; level > 0 && p != 0; level-- {
		p = mapChild(fs.read(p), i/mapSpan[level-1])
		i %= mapSpan[level-1]
	}
	return p
}

// mapMissing counts the pages that mapMake would allocate for the pages first to last of
// the file. It is exact.
func (fs *FS) mapMissing(in *inode, first, last uint64) (n uint64) {
	for ; first <= last && first < directPages; first++ {
		if in.direct[first] == 0 {
			n++
		}
	}
	if first > last {
		return n
	}
	lo, hi := first-directPages, last-directPages
	h := mapHeight(hi)
	switch {
	case in.height == 0:
		n += fs.missingBelow(0, h, lo, hi)
	case h <= int(in.height):
		n += fs.missingBelow(in.root, int(in.height), lo, hi)
	default:
		n += fs.missingAbove(in, h, lo, hi)
	}
	return n
}

// missingBelow counts within the subtree of height level at p, where p 0 is a subtree
// that is not there.
func (fs *FS) missingBelow(p pageNo, level int, lo, hi uint64) (n uint64) {
	if p == 0 {
		n = 1
	}
	if level == 0 {
		return n
	}
	span := mapSpan[level-1]
	for i := lo / span; i <= hi/span; i++ {
		c := pageNo(0)
		if p != 0 {
			c = mapChild(fs.read(p), i)
		}
		n += fs.missingBelow(c, level-1, max(lo, i*span)-i*span, min(hi, i*span+span-1)-i*span)
	}
	return n
}

// missingAbove counts within a tree that must first grow to height level: new roots above
// the old one.
func (fs *FS) missingAbove(in *inode, level int, lo, hi uint64) uint64 {
	if level == int(in.height) {
		return fs.missingBelow(in.root, level, lo, hi)
	}
	n, span := uint64(1), mapSpan[level-1]
	if lo/span > 0 {
		n += uint64(level - 1 - int(in.height)) // the roots between, with nothing new below
	}
	for i := lo / span; i <= hi/span; i++ {
		l, h := max(lo, i*span)-i*span, min(hi, i*span+span-1)-i*span
		if i == 0 {
			n += fs.missingAbove(in, level-1, l, h)
		} else {
			n += fs.missingBelow(0, level-1, l, h)
		}
	}
	return n
}

// mapMake returns page i of the file. If it is a hole, it makes a page of zeros. The
// caller saves the inode. Requires room for mapMissing pages.
func (fs *FS) mapMake(in *inode, i uint64) (p pageNo, made bool) {
	if i < directPages {
		if in.direct[i] != 0 {
			return in.direct[i], false
		}
		in.direct[i] = fs.allocPage(in.export)
		in.pages++
		return in.direct[i], true
	}
	i -= directPages
	fs.mapGrow(in, mapHeight(i))
	p, added := fs.mapFill(in, in.root, int(in.height), i)
	in.pages += added
	return p, added > 0
}

// mapGrow makes the tree at least h high.
func (fs *FS) mapGrow(in *inode, h int) {
	if in.height == 0 {
		in.root, in.height = fs.newMapPage(in, h), uint8(h)
		in.pages++
	}
	for int(in.height) < h {
		old, total := in.root, mapTotal(fs.read(in.root))
		in.height++
		in.root = fs.newMapPage(in, int(in.height))
		in.pages++
		b := fs.modify(in.root)
		setMapChild(b, 0, old)
		addMapTotal(b, int64(total))
	}
}

func (fs *FS) newMapPage(in *inode, level int) pageNo {
	p := fs.allocPage(in.export)
	b := fs.modify(p)
	le.PutUint32(b[mapLevelAt:], uint32(level))
	le.PutUint32(b[mapTotalAt:], 1)
	return p
}

// mapFill is data page i below map page p, and how many pages had to be added for it.
func (fs *FS) mapFill(in *inode, p pageNo, level int, i uint64) (data pageNo, added uint32) {
	at := i / mapSpan[level-1]
	c := mapChild(fs.read(p), at)
	if c == 0 {
		if level == 1 {
			c = fs.allocPage(in.export)
		} else {
			c = fs.newMapPage(in, level-1)
		}
		setMapChild(fs.modify(p), at, c)
		added = 1
	}
	data = c
	if level > 1 {
		var below uint32
		data, below = fs.mapFill(in, c, level-1, i%mapSpan[level-1])
		added += below
	}
	if added > 0 {
		addMapTotal(fs.modify(p), int64(added))
	}
	return data, added
}

// mapCut removes all pages of the file from page keep on. Whole subtrees become orphans; mapCut
// itself frees at most the children of one map page of each level. The caller saves the inode.
func (fs *FS) mapCut(in *inode, keep uint64) {
	for i := keep; i < directPages; i++ {
		if p := in.direct[i]; p != 0 {
			fs.freePage(in.export, p)
			in.direct[i] = 0
			in.pages--
		}
	}
	if in.height == 0 {
		return
	}
	keep = max(keep, directPages) - directPages
	if keep >= mapSpan[in.height] {
		return
	}
	cut, gone := fs.mapCutBelow(in, in.root, int(in.height), keep)
	in.pages -= cut
	if gone {
		in.root, in.height = 0, 0
	}
}

// mapCutBelow removes the pages below map page p from its data page keep on. It returns
// how many these were, and whether p was removed too, because it had no child left.
func (fs *FS) mapCutBelow(in *inode, p pageNo, level int, keep uint64) (cut uint32, gone bool) {
	if keep == 0 {
		total := mapTotal(fs.read(p))
		fs.orphan(in.export, p)
		return total, true
	}
	span := mapSpan[level-1]
	first := keep / span
	b := fs.modify(p)
	if rest := keep % span; rest != 0 {
		if c := mapChild(b, first); c != 0 {
			n, none := fs.mapCutBelow(in, c, level-1, rest)
			cut += n
			if none {
				setMapChild(b, first, 0)
			}
		}
		first++
	}
	for i := first; i < mapFan; i++ {
		c := mapChild(b, i)
		switch {
		case c == 0:
			continue
		case level == 1:
			fs.freePage(in.export, c)
			cut++
		default:
			cut += mapTotal(fs.read(c))
			fs.orphan(in.export, c)
		}
		setMapChild(b, i, 0)
	}
	addMapTotal(b, -int64(cut))
	if mapTotal(b) > 1 {
		return cut, false
	}
	fs.freePage(in.export, p)
	return cut + 1, true
}
