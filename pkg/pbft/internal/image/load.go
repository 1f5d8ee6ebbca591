// SPDX-License-Identifier: Apache-2.0

package image

import (
	"cmp"
	"slices"
	"sync"
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

// A LendingInstall lends memory that pages can be read into, and takes them over without a copy.
type LendingInstall interface {
	DigestedInstall
	// Lend lends memory in a row for up to max pages, one at least. OfferDigested takes over
	// contents that lie in it.
	Lend(max int) []byte
	// Ready makes lent memory resident. It may be called on any goroutine.
	Ready(lent []byte)
	// Return gives back what was not taken over.
	Return(lent []byte)
}

const (
	// wantsAtOnce is how many nodes and pages Load takes from a session in one call.
	wantsAtOnce = 2048
	// readAtOnce is how many pages, in neighbouring slots, are read by one call.
	readAtOnce = 256
	// readAhead is how many such calls may be ahead of the pages' use.
	readAhead = 6
	// readers is how many goroutines read and digest.
	readers = 3
)

// Load gives a session all that it wants and the image has. It returns the nodes and pages that the
// image lacks; the session wants them again, and they must be fetched from other replicas. If the
// session bounds how much it asks for, and the image lacks that much, it wants more than Load
// returns.
func (im *Image) Load(in Install) (missing []NodeID) {
	l := &loader{im: im, in: in}
	l.digested, _ = in.(DigestedInstall)
	lending, _ := in.(LendingInstall)
	r := newReader(im, lending)
	defer r.close()
	for {
		for len(l.pages) < readAtOnce && l.take() { // pages of more than one call may be neighbours
		}
		switch {
		case r.ready() && len(l.pages) > 0:
			l.pages = r.begin(l.pages)
		case r.busy():
			r.end(l.offer)
		default:
			for _, id := range l.missing {
				in.Retry(id)
			}
			return l.missing
		}
	}
}

type loader struct {
	im       *Image
	in       Install
	digested DigestedInstall // or nil
	missing  []NodeID
	pages    []entry // wanted and not read yet, by slot
}

// take takes what the session wants next, and reports whether there was something. Nodes are
// given at once.
func (l *loader) take() bool {
	wants := l.in.Wants(wantsAtOnce)
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
	sortBySlot(l.pages)
	return len(wants) > 0
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
	sortBySlot(pages)
	r := newReader(im, nil)
	defer r.close()
	for len(pages) > 0 || r.busy() {
		if len(pages) > 0 && r.ready() {
			pages = r.begin(pages)
			continue
		}
		r.end(func(e entry, contents []byte) {
			if contents == nil {
				im.bad[e.page] = true
				bad = append(bad, e.page)
			}
		})
	}
	slices.Sort(bad)
	return bad
}

func sortBySlot(pages []entry) {
	slices.SortFunc(pages, func(a, b entry) int { return cmp.Compare(a.slot, b.slot) })
}

// A reader reads pages and digests them on goroutines of its own, ahead of the caller's use of
// them. The caller takes them in the order in which it began them.
type reader struct {
	im    *Image
	from  LendingInstall // lends the memory; nil: the reader has its own
	disk  sync.Mutex     // held to read: see work
	todo  chan *run
	begun []*run // oldest first
	idle  []*run
}

// A run is pages in neighbouring slots.
type run struct {
	pages []entry
	buf   []byte
	good  [readAtOnce]bool // which of the pages have their digests, once all are read
	done  chan struct{}    // gets an element when they are read
}

func newReader(im *Image, from LendingInstall) *reader {
	r := &reader{im: im, from: from, todo: make(chan *run, readAhead)}
	for range readAhead {
		x := &run{done: make(chan struct{}, 1)}
		if from == nil {
			x.buf = make([]byte, readAtOnce*pageSize)
		}
		r.idle = append(r.idle, x)
	}
	for range readers {
		go r.work()
	}
	return r
}

// close ends the goroutines. The reader is not busy.
func (r *reader) close() { close(r.todo) }

// ready reports whether another run can begin.
func (r *reader) ready() bool { return len(r.idle) > 0 }

// busy reports whether a run has begun and not ended.
func (r *reader) busy() bool { return len(r.begun) > 0 }

// begin begins to read the first of the pages, as many as lie together, and returns the others.
func (r *reader) begin(pages []entry) (others []entry) {
	n := 1
	for n < min(len(pages), readAtOnce) && pages[n].slot == pages[0].slot+uint32(n) {
		n++
	}
	next := r.idle[len(r.idle)-1]
	r.idle = r.idle[:len(r.idle)-1]
	if r.from != nil {
		next.buf = r.from.Lend(n)
		n = len(next.buf) / pageSize
	}
	next.pages = append(next.pages[:0], pages[:n]...)
	r.begun = append(r.begun, next)
	r.todo <- next
	return pages[n:]
}

// end waits for the oldest run, and lends each of its pages to give: nil unless it has the digest.
func (r *reader) end(give func(e entry, contents []byte)) {
	next := r.begun[0]
	r.begun = slices.Delete(r.begun, 0, 1)
	<-next.done
	for i, e := range next.pages {
		if next.good[i] {
			give(e, next.page(i))
		} else {
			give(e, nil)
		}
	}
	if r.from != nil {
		r.from.Return(next.buf)
	}
	r.idle = append(r.idle, next)
}

// work is a goroutine that reads runs. It reads while no other does: syncs of other programs wait
// for the reads that are queued before them, and a longer queue is hardly faster.
func (r *reader) work() {
	for next := range r.todo {
		if r.from != nil {
			r.from.Ready(next.buf)
		}
		r.disk.Lock()
		r.im.read(next)
		r.disk.Unlock()
		for i, e := range next.pages {
			next.good[i] = next.good[i] && r.im.options.Tree.Digest(e.page, next.page(i)) == e.digest
		}
		next.done <- struct{}{}
	}
}

// read reads the pages of a run; good says which could be read.
func (im *Image) read(x *run) {
	all := readFull(im.pages, x.buf[:len(x.pages)*pageSize], offset(x.pages[0].slot))
	for i, e := range x.pages {
		x.good[i] = all || readFull(im.pages, x.page(i), offset(e.slot))
	}
}

func (x *run) page(i int) []byte { return x.buf[i*pageSize:][:pageSize] }
