package image

import (
	"cmp"
	"slices"
)

// An Install is a session that takes a state to the image's checkpoint, and believes what it is offered for its digest alone: a
// pbft.Install as far as it is needed here.
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
	wantsAtOnce = 512
	// readAtOnce is how many pages, in neighbouring slots, are read by one call.
	readAtOnce = 64
)

// Load gives a session all that it wants and the image has. It returns the nodes and pages that the image has not, or has no more; they are
// wanted again, and to be fetched from other replicas. A session may bound how much it has asked for. If it does, and the image lacks as much,
// more is wanted than what Load returns.
func (im *Image) Load(in Install) (missing []NodeID) {
	l := &loader{im: im, in: in, buf: make([]byte, readAtOnce*pageSize)}
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
	buf      []byte
}

func (l *loader) serve(wants []NodeID) {
	l.pages = l.pages[:0]
	for _, id := range wants {
		switch {
		case id.Level > l.im.table.top.Level:
			l.missing = append(l.missing, id)
		case id.Level > 0:
			if l.in.OfferNode(id, l.im.table.children(id)) != nil {
				l.missing = append(l.missing, id)
			}
		case l.im.table.slot(PageNum(id.Index)) == 0:
			l.missing = append(l.missing, id)
		default:
			l.pages = append(l.pages, entry{PageNum(id.Index), l.im.table.slot(PageNum(id.Index)), l.im.table.digest(id)})
		}
	}
	l.im.read(l.pages, l.buf, l.offer)
}

// offer gives a page to the session. contents is nil if the slot has not got them.
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

// Verify reads all pages, and returns those whose slots have not their contents. The next Update writes these anew.
func (im *Image) Verify() (bad []PageNum) {
	var pages []entry
	for n, slot := range im.table.occupied() {
		pages = append(pages, entry{n, slot, im.table.digest(NodeID{Index: uint64(n)})})
	}
	im.read(pages, make([]byte, readAtOnce*pageSize), func(e entry, contents []byte) {
		if contents == nil {
			im.bad[e.page] = true
			bad = append(bad, e.page)
		}
	})
	slices.Sort(bad)
	return bad
}

// read reads pages in the order of their slots, which it sorts them by, and lends each to give: nil unless it has the digest.
func (im *Image) read(pages []entry, buf []byte, give func(e entry, contents []byte)) {
	slices.SortFunc(pages, func(a, b entry) int { return cmp.Compare(a.slot, b.slot) })
	for len(pages) > 0 {
		run := 1
		for run < min(len(pages), len(buf)/pageSize) && pages[run].slot == pages[0].slot+uint32(run) {
			run++
		}
		all := readFull(im.pages, buf[:run*pageSize], offset(pages[0].slot))
		for i, e := range pages[:run] {
			contents := buf[i*pageSize:][:pageSize]
			if !all && !readFull(im.pages, contents, offset(e.slot)) || im.options.Tree.Digest(e.page, contents) != e.digest {
				contents = nil
			}
			give(e, contents)
		}
		pages = pages[run:]
	}
}
