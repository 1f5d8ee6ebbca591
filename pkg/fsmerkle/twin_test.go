// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"bfs/pkg/internal/blockhash"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run the twin test with this seed only")
	stepsFlag = flag.Int("steps", 0, "steps of each run of the twin test")
)

// twinSteps is fewer under the race detector, which makes steps ten times slower.
var twinSteps = 300

// A twin is a slow Store: pages in a map, checkpoints as whole copies, digests by recursion over
// everything.
type twin struct {
	limit       PageNum
	pages       twinPages
	checkpoints []twinCheckpoint
}

type twinPages map[PageNum][PageSize]byte // without pages of zeros

type twinCheckpoint struct {
	seq   Seq
	pages twinPages
}

func (t *twin) set(n PageNum, p [PageSize]byte) {
	if p == [PageSize]byte{} {
		delete(t.pages, n)
		return
	}
	t.pages[n] = p
}

func (t *twin) freeze(seq Seq) {
	t.checkpoints = append(t.checkpoints, twinCheckpoint{seq, maps.Clone(t.pages)})
}

func (t *twin) discard(below Seq) {
	t.checkpoints = slices.DeleteFunc(t.checkpoints, func(c twinCheckpoint) bool { return c.seq < below })
}

func (t *twin) rollback(i int) {
	t.pages = maps.Clone(t.checkpoints[i].pages)
	t.checkpoints = t.checkpoints[:i+1]
}

// root is written from the definition in [digester]'s comment, not from its code.
func (p twinPages) root(limit PageNum) Digest {
	level := 1
	for span := PageNum(Fanout); span < limit; span *= Fanout {
		level++
	}
	return p.digest(level, 0, slices.Sorted(maps.Keys(p)), true)
}

// digest returns the digest of a node below which the sorted pages are all that is not zero.
func (p twinPages) digest(level int, index uint64, below []PageNum, isRoot bool) Digest {
	if len(below) == 0 && !isRoot {
		return Digest{}
	}
	if level == 0 {
		page := p[below[0]]
		return sha256.Sum256(fmt.Appendf(nil, "bfspage\x00%s%s", binary.BigEndian.AppendUint64(nil, index),
			blockhash.Sum(page[:])))
	}
	text := fmt.Appendf(nil, "bfsnode%c%s", level, binary.BigEndian.AppendUint64(nil, index))
	span := PageNum(1)
	for range level - 1 {
		span *= Fanout
	}
	for i := range uint64(Fanout) {
		child := index*Fanout + i
		from, _ := slices.BinarySearch(below, PageNum(child)*span)
		to, _ := slices.BinarySearch(below, PageNum(child+1)*span)
		d := p.digest(level-1, child, below[from:to], false)
		text = append(text, d[:]...)
	}
	return sha256.Sum256(text)
}

// life is one run of a store and its twin under one seed.
type life struct {
	*testing.T
	rand  *rand.Rand
	store *Store
	twin  twin
	seq   Seq
}

func TestTwin(t *testing.T) {
	steps, seeds := twinSteps, []uint64{1, 2, 3, 4, 5, 6}
	if testing.Short() {
		seeds = seeds[:2]
	}
	if *stepsFlag > 0 {
		steps = *stepsFlag
	}
	if *seedFlag != 0 {
		seeds = []uint64{*seedFlag}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			limits := []PageNum{1, 7, 100, 1000, 5000}
			r := rand.New(rand.NewPCG(seed, 1))
			limit := limits[(int(seed)+3)%len(limits)]
			l := &life{T: t, rand: r, store: newStore(t, limit), twin: twin{limit: limit, pages: twinPages{}}}
			l.store.arena.keep = 8
			defer func() {
				if t.Failed() {
					t.Logf("repeat with: go test -run TestTwin -seed %d -steps %d", seed, steps)
				}
			}()
			for range steps {
				l.step()
				l.compare()
				if t.Failed() {
					return
				}
			}
		})
	}
}

func (l *life) step() {
	switch l.rand.IntN(20) {
	case 0, 1, 2:
		l.freeze()
	case 3:
		l.discard()
	case 4:
		l.rollback()
	case 5:
		l.install()
	default:
		for range l.rand.IntN(30) {
			l.write(l.store, &l.twin)
		}
	}
}

func (l *life) page() PageNum {
	n := PageNum(l.rand.Uint64N(uint64(l.twin.limit)))
	if l.rand.IntN(2) == 0 {
		n %= 40 // many pages should change again and again
	}
	return n
}

// write changes one page of a store and of its twin, in one of all the ways.
func (l *life) write(s *Store, t *twin) {
	n := l.page()
	page := t.pages[n]
	switch l.rand.IntN(12) {
	case 0:
		s.Zero(n)
		page = [PageSize]byte{}
	case 1:
		clear(s.Modify(n)) // zeros that hold a frame
		page = [PageSize]byte{}
	case 2:
		s.Modify(n) // called, and nothing written
	case 3, 4:
		page = [PageSize]byte(pageOf(byte(l.rand.Uint32())))
		copy(s.Overwrite(n), page[:])
	case 5, 6, 7:
		page = [PageSize]byte(pageOf(byte(l.rand.IntN(4)))) // of few kinds, zeros among them
		s.Put(n, page[:], blockhash.Sum(page[:]))
	default:
		at, b := l.rand.IntN(PageSize), byte(l.rand.Uint32())
		s.Modify(n)[at] = b
		page[at] = b
	}
	t.set(n, page)
}

func (l *life) freeze() {
	l.seq += Seq(1 + l.rand.IntN(3))
	seq, want := l.seq, l.twin.pages.root(l.twin.limit)
	if l.rand.IntN(2) == 0 {
		l.store.Freeze(seq, nil)
	} else {
		l.store.Freeze(seq, func(got Digest) {
			if got != want {
				l.Errorf("checkpoint %d: root %v, want %v", seq, got, want)
			}
		})
	}
	l.twin.freeze(seq)
}

func (l *life) discard() {
	below := l.seq - min(l.seq, Seq(l.rand.IntN(6))) + Seq(l.rand.IntN(2))
	l.store.Discard(below)
	l.twin.discard(below)
}

func (l *life) rollback() {
	if len(l.twin.checkpoints) == 0 {
		if err := l.store.Rollback(l.seq); !errors.Is(err, ErrNoCheckpoint) {
			l.Errorf("rollback to no checkpoint: %v", err)
		}
		return
	}
	i := l.rand.IntN(len(l.twin.checkpoints))
	l.seq = l.twin.checkpoints[i].seq
	if err := l.store.Rollback(l.seq); err != nil {
		l.Error(err)
	}
	l.twin.rollback(i)
}

// install makes a peer that differs in some pages, and catches up with it.
func (l *life) install() {
	if len(l.store.open.changes.items) > 0 {
		if _, err := l.store.Install(l.seq+1, Digest{1}); !errors.Is(err, ErrUnclean) {
			l.Errorf("install over changed pages: %v", err)
		}
		l.freeze()
	}
	peer := newStore(l.T, l.twin.limit)
	defer peer.Close()
	for n, p := range l.twin.pages {
		copy(peer.Overwrite(n), p[:])
	}
	theirs := twin{limit: l.twin.limit, pages: maps.Clone(l.twin.pages)}
	for range l.rand.IntN(40) {
		l.write(peer, &theirs)
	}
	peer.Freeze(1, nil)
	l.seq++
	in, err := l.store.Install(l.seq, theirs.pages.root(l.twin.limit))
	if err != nil {
		l.Fatal(err)
	}
	stop := l.rand.IntN(100) // give up after this many answers
	for !in.Done() && stop > 0 && !l.Failed() {
		for _, id := range in.Wants(1 + l.rand.IntN(20)) {
			if l.rand.IntN(5) == 0 {
				in.Retry(id)
				continue
			}
			answer(l, in, id, peer)
			stop--
		}
	}
	l.compare()
	if !in.Done() || l.rand.IntN(4) == 0 {
		in.Abort()
		l.seq--
		return
	}
	if err := in.Commit(); err != nil {
		l.Error(err)
	}
	l.twin.pages = theirs.pages
	l.twin.freeze(l.seq)
}

// answer gives a session the node or page it asked for, from the peer's checkpoint 1.
func answer(t testing.TB, in *Install, id NodeID, peer *Store) {
	t.Helper()
	err := error(nil)
	if id.Level == 0 {
		p, _ := peer.PageAt(1, id.Page())
		err = in.OfferPage(id.Page(), p)
	} else {
		family, _ := peer.Children(1, id)
		err = in.OfferNode(id, family)
	}
	if err != nil {
		t.Errorf("an honest answer about %v was refused: %v", id, err)
	}
}

// compare looks at everything the two can be asked.
func (l *life) compare() {
	l.Helper()
	s := l.store
	var held []Seq
	for _, c := range l.twin.checkpoints {
		held = append(held, c.seq)
	}
	if got := s.Checkpoints(); !slices.Equal(got, held) {
		l.Fatalf("checkpoints %v, want %v", got, held)
	}
	for n := range min(l.twin.limit, 40) {
		l.comparePage("live", n, s.Read(n), l.twin.pages)
	}
	for n := range l.twin.pages {
		l.comparePage("live", n, s.Read(n), l.twin.pages)
	}
	if l.rand.IntN(4) > 0 {
		return // leave the hashing time to fall behind
	}
	for _, c := range l.twin.checkpoints {
		for range 20 {
			n := l.page()
			p, err := s.PageAt(c.seq, n)
			if err != nil {
				l.Fatal(err)
			}
			l.comparePage(fmt.Sprint("checkpoint ", c.seq), n, p, c.pages)
		}
		if got, want := root(l, s, c.seq), c.pages.root(l.twin.limit); got != want {
			l.Fatalf("checkpoint %d: root %v, want %v", c.seq, got, want)
		}
	}
	l.compareTrees()
	if err := s.Verify(); err != nil {
		l.Fatal(err)
	}
}

func (l *life) comparePage(at string, n PageNum, got []byte, pages twinPages) {
	l.Helper()
	want := pages[n]
	if !bytes.Equal(got, want[:]) {
		l.Fatalf("%s: page %d differs", at, n)
	}
}

// compareTrees checks which pages differ between two checkpoints.
func (l *life) compareTrees() {
	l.Helper()
	if len(l.twin.checkpoints) == 0 {
		return
	}
	a := l.twin.checkpoints[l.rand.IntN(len(l.twin.checkpoints))]
	b := l.twin.checkpoints[l.rand.IntN(len(l.twin.checkpoints))]
	var want []PageNum
	for n := range l.twin.limit {
		if a.pages[n] != b.pages[n] {
			want = append(want, n)
		}
	}
	var got []PageNum
	err := Compare(l.store.Tree(a.seq), l.store.Tree(b.seq), func(n PageNum) bool {
		got = append(got, n)
		return true
	})
	if err != nil || !slices.Equal(got, want) {
		l.Fatalf("checkpoints %d and %d differ in %v, want %v; %v", a.seq, b.seq, got, want, err)
	}
}
