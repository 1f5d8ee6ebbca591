// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"slices"
)

// An Install is a session that takes a state to the image's checkpoint, and checks nodes
// and pages against their digests: the part of a pbft.Install that is needed here.
type Install interface {
	Wants(max int) []NodeID
	OfferNode(id NodeID, children []Digest) error
	OfferPage(n PageNum, contents []byte) error
	Retry(id NodeID)
}

// A DigestedInstall also takes a page together with its digest, computed by the Tree.
type DigestedInstall interface {
	OfferDigested(n PageNum, contents []byte, d Digest) error
}

const (
	// wantsAtOnce is how many nodes and pages Load takes from a session in one call.
	wantsAtOnce = 2048
	// readAtOnce is how many pages, in neighbouring slots, are read by one call.
	readAtOnce = 64
	// readAhead is how many such calls a reader may be ahead of the pages' use.
	readAhead = 4
)

// Load gives a session all that it wants and the image has. It returns the nodes and pages that the
// image lacks; the session wants them again, and they must be fetched from other replicas. If the
// session bounds how much it asks for, and the image lacks that much, it wants more than Load
// returns.
func (im *Image) Load(in Install) (missing []NodeID) {
	l := &loader{im: im, in: in, reader: newReader(im)}
	l.digested, _ = in.(DigestedInstall)
	for wants := in.Wants(wantsAtOnce); len(wants) > 0; wants = in.Wants(wantsAtOnce) {
		l.serve(wants)
	}
	for _, id := range l.missing {
		in.Retry(id)
	}
	return l.missing
}

type loader struct {
	im       *Image
	in       Install
	digested DigestedInstall // or nil
	missing  []NodeID
	pages    []entry // wanted, with their slots
	reader   reader
}

func (l *loader) serve(wants []NodeID) {
	l.pages = l.pages[:0]
	for _, id := range wants {
		n := PageNum(id.Index)
		switch {
		case id.Level > l.im.table.top.Level:
			l.missing = append(l.missing, id)
		case id.Level > 0:
			if l.in.OfferNode(id, l.im.table.children(id)) != nil {
				l.missing = append(l.missing, id)
			}
		case l.im.table.slot(n) == 0:
			l.missing = append(l.missing, id)
		default:
			l.pages = append(l.pages, entry{n, l.im.table.slot(n), l.im.table.digest(id)})
		}
	}
	l.reader.read(l.pages, l.offer)
}

// offer gives a page to the session. contents is nil if the slot does not hold the page.
func (l *loader) offer(e entry, contents []byte) {
	var err error
	switch {
	case contents == nil:
		l.im.bad[e.page] = true
	case l.digested != nil:
		err = l.digested.OfferDigested(e.page, contents, e.digest)
	default:
		err = l.in.OfferPage(e.page, contents)
	}
	if contents == nil || err != nil {
		l.missing = append(l.missing, NodeID{Index: uint64(e.page)})
	}
}

// Verify reads all pages, and returns those whose slots do not hold their contents. The next Update
// writes these anew.
func (im *Image) Verify() (bad []PageNum) {
	var pages []entry
	for n, slot := range im.table.occupied() {
		pages = append(pages, entry{n, slot, im.table.digest(NodeID{Index: uint64(n)})})
	}
	newReader(im).read(pages, func(e entry, contents []byte) {
		if contents == nil {
			im.bad[e.page] = true
			bad = append(bad, e.page)
		}
	})
	slices.Sort(bad)
	return bad
}

// A reader reads pages and digests them on a goroutine of its own, ahead of the caller's
// use of them.
type reader struct {
	im   *Image
	free chan *run
}

// A run is pages in neighbouring slots.
type run struct {
	pages []entry
	buf   []byte
	good  [readAtOnce]bool // which of the pages have their digests
}

func newReader(im *Image) reader {
	r := reader{im, make(chan *run, readAhead)}
	for range readAhead {
		r.free <- &run{buf: make([]byte, readAtOnce*pageSize)}
	}
	return r
}

// read reads pages in the order of their slots, which it sorts them by, and lends each to
// give: nil unless it has the digest.
func (r reader) read(pages []entry, give func(e entry, contents []byte)) {
	slices.SortFunc(pages, func(a, b entry) int { return cmp.Compare(a.slot, b.slot) })
	full := make(chan *run, readAhead)
	go func() {
		defer close(full)
		for len(pages) > 0 {
			next := <-r.free
			pages = r.im.readRun(next, pages)
			full <- next
		}
	}()
	for next := range full {
		for i, e := range next.pages {
			if next.good[i] {
				give(e, next.buf[i*pageSize:][:pageSize])
			} else {
				give(e, nil)
			}
		}
		r.free <- next
	}
}

// readRun reads the first of the pages into r, as many as lie together, and returns the others.
func (im *Image) readRun(r *run, pages []entry) (others []entry) {
	n := 1
	for n < min(len(pages), readAtOnce) && pages[n].slot == pages[0].slot+uint32(n) {
		n++
	}
	r.pages = pages[:n]
	all := readFull(im.pages, r.buf[:n*pageSize], offset(pages[0].slot))
	for i, e := range r.pages {
		contents := r.buf[i*pageSize:][:pageSize]
		read := all || readFull(im.pages, contents, offset(e.slot))
		r.good[i] = read && im.options.Tree.Digest(e.page, contents) == e.digest
	}
	return pages[n:]
}
