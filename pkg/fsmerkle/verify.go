// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"errors"
	"fmt"

	"bfs/pkg/internal/blockhash"
)

// Verify computes all digests anew and compares, and checks the books kept of frames. It
// reports pages that were written without Modify, which otherwise is noticed only when replicas
// disagree. It is slow, touches all memory, and is meant for tests and for hunting a fault.
func (s *Store) Verify() error {
	s.hasher.idle()
	v := verifier{s: s, d: newDigester(), owners: make([]uint8, s.arena.fresh)}
	v.livePages()
	v.recordedPages()
	v.nodes()
	v.frames()
	return errors.Join(v.errs...)
}

type verifier struct {
	s      *Store
	d      *digester
	owners []uint8 // of each frame
	errs   []error
}

// report keeps the first errors only: one lost page makes as many wrong nodes as the tree is high.
func (v *verifier) report(format string, args ...any) {
	if len(v.errs) < 16 {
		v.errs = append(v.errs, fmt.Errorf("fsmerkle: verify: "+format, args...))
	}
}

func (v *verifier) livePages() {
	s := v.s
	used := PageNum(0)
	for n, m := range s.table.items {
		if m.change != 0 {
			v.change(PageNum(n), &m)
		} else if v.d.page(PageNum(n), s.arena.bytes(m.at)) != *s.tree.at(NodeID{Index: uint64(n)}) {
			v.report("page %d was changed without Modify", n)
		}
		if m.at != absent {
			used++
			v.owners[m.at]++
		}
	}
	if used != s.used {
		v.report("%d pages hold frames, but %d are counted", used, s.used)
	}
}

// change checks the record of a page that has changed since the latest checkpoint.
func (v *verifier) change(n PageNum, m *mapping) {
	open := v.s.open
	if int(m.change&^blockKnown) > len(open.changes.items) || PageNum(v.s.changeOf(m).page) != n {
		v.report("page %d is not at its place among the changes", n)
		return
	}
	if !m.blockIsKnown() {
		return
	}
	at := v.s.changeOf(m).block
	if m.at == absent || at == 0 || int(at) > len(open.blocks.items) {
		v.report("page %d has no digest among the blocks", n)
	} else if blockhash.Sum(v.s.arena.bytes(m.at)) != open.blocks.items[at-1] {
		v.report("page %d was changed without Modify, or put with a digest that is not its contents'", n)
	}
}

// recordedPages checks the old contents kept for checkpoints against their digests.
func (v *verifier) recordedPages() {
	for i, e := range v.s.epochs {
		for _, c := range e.changes.items {
			if c.old != absent {
				v.owners[c.old]++
			}
			if !e.held {
				continue
			}
			id := NodeID{Index: uint64(c.page)}
			family := v.s.hasher.children(v.s.epochs[i:], id.Parent())
			if v.d.page(PageNum(c.page), v.s.arena.bytes(c.old)) != family[c.page%Fanout] {
				v.report("page %d as of checkpoint %d was changed", c.page, e.seq)
			}
		}
	}
}

func (v *verifier) nodes() {
	t := v.s.tree
	for level := 1; level < len(t.levels); level++ {
		for i, d := range t.levels[level].items {
			id := NodeID{uint8(level), uint64(i)}
			if !t.hasInterior(id) {
				break
			}
			if v.d.node(id, t.root(), t.children(id)) != d {
				v.report("node %v does not have the digest of its children", id)
			}
		}
	}
}

// frames checks that each frame has one owner.
func (v *verifier) frames() {
	a := &v.s.arena
	if in := v.s.install; in != nil {
		for _, n := range in.pages.items {
			if f := in.staged.items[n]; f != absent && v.owners[f] == 0 {
				v.owners[f]++ // a page staged twice is in the list twice
			}
		}
		for _, l := range in.loans {
			for i, taken := range l.taken {
				if !taken {
					v.owners[l.first+frame(i)]++
				}
			}
		}
	}
	used := 0
	for _, n := range v.owners {
		used += int(n)
	}
	if used != a.used {
		v.report("%d frames have owners, but %d were handed out", used, a.used)
	}
	for _, f := range a.warm.items {
		v.owners[f]++
	}
	for _, f := range a.cold.items {
		v.owners[f]++
	}
	for f, n := range v.owners[1:] {
		if n != 1 {
			v.report("frame %d has %d owners", f+1, n)
		}
	}
}
