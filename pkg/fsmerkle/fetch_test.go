// SPDX-License-Identifier: Apache-2.0

package fsmerkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"
)

// liars are the ways to answer wrongly. Each gets an honest answer to spoil.
var liars = []struct {
	name string
	node func(in *Install, id NodeID, family []Digest) error
	page func(in *Install, n PageNum, page []byte) error
	want error
}{{
	name: "one bit of one byte",
	node: func(in *Install, id NodeID, family []Digest) error {
		f := slices.Clone(family)
		f[int(id.Index)%Fanout][7] ^= 1
		return in.OfferNode(id, f)
	},
	page: func(in *Install, n PageNum, page []byte) error {
		p := bytes.Clone(page)
		p[PageSize-1] ^= 128
		return in.OfferPage(n, p)
	},
	want: ErrMismatch,
}, {
	name: "zeros",
	node: func(in *Install, id NodeID, _ []Digest) error { return in.OfferNode(id, make([]Digest, Fanout)) },
	page: func(in *Install, n PageNum, _ []byte) error { return in.OfferPage(n, make([]byte, PageSize)) },
	want: ErrMismatch,
}, {
	name: "too short",
	node: func(in *Install, id NodeID, family []Digest) error { return in.OfferNode(id, family[1:]) },
	page: func(in *Install, n PageNum, page []byte) error { return in.OfferPage(n, page[1:]) },
	want: ErrMismatch,
}, {
	name: "too long",
	node: func(in *Install, id NodeID, family []Digest) error { return in.OfferNode(id, append(family, Digest{})) },
	page: func(in *Install, n PageNum, page []byte) error { return in.OfferPage(n, append(page, 0)) },
	want: ErrMismatch,
}, {
	name: "nothing",
	node: func(in *Install, id NodeID, _ []Digest) error { return in.OfferNode(id, nil) },
	page: func(in *Install, n PageNum, _ []byte) error { return in.OfferPage(n, nil) },
	want: ErrMismatch,
}, {
	name: "the children in another order",
	node: func(in *Install, id NodeID, family []Digest) error {
		f := slices.Clone(family)
		i := slices.IndexFunc(f, func(d Digest) bool { return d != f[0] })
		f[0], f[i] = f[i], f[0]
		return in.OfferNode(id, f)
	},
	page: func(in *Install, n PageNum, page []byte) error {
		p := bytes.Clone(page)
		slices.Reverse(p)
		return in.OfferPage(n, p)
	},
	want: ErrMismatch,
}, {
	name: "something else than asked for",
	node: func(in *Install, id NodeID, family []Digest) error {
		return in.OfferNode(NodeID{id.Level, id.Index + 1<<40}, family)
	},
	page: func(in *Install, n PageNum, page []byte) error { return in.OfferPage(n+1<<30, page) },
	want: ErrUnwanted,
}, {
	name: "a digest that is the page's elsewhere",
	node: func(in *Install, id NodeID, _ []Digest) error { return in.OfferNode(id, nil) },
	page: func(in *Install, n PageNum, page []byte) error {
		return in.OfferDigested(n, page, DigestPage(n+1, page))
	},
	want: ErrMismatch,
}, {
	name: "a digest, and too short a page",
	node: func(in *Install, id NodeID, _ []Digest) error { return in.OfferNode(id, nil) },
	page: func(in *Install, n PageNum, page []byte) error {
		return in.OfferDigested(n, page[1:], DigestPage(n, page))
	},
	want: ErrMismatch,
}, {
	name: "a digest of what was not asked for",
	node: func(in *Install, id NodeID, _ []Digest) error {
		return in.OfferNode(NodeID{id.Level, id.Index + 1<<40}, nil)
	},
	page: func(in *Install, n PageNum, page []byte) error {
		return in.OfferDigested(n+1<<30, page, DigestPage(n+1<<30, page))
	},
	want: ErrUnwanted,
}, {
	name: "a page for a node and a node for a page",
	node: func(in *Install, id NodeID, _ []Digest) error {
		return in.OfferPage(PageNum(id.Index)+1<<31, make([]byte, PageSize))
	},
	page: func(in *Install, n PageNum, _ []byte) error {
		return in.OfferNode(NodeID{Index: uint64(n)}, make([]Digest, Fanout))
	},
	want: nil, // any refusal
}}

// twoStores returns a store and a peer that has gone on: pages changed, added and zeroed.
func twoStores(t testing.TB, limit PageNum) (s, peer *Store) {
	s, peer = newStore(t, limit), newStore(t, limit)
	for i := range PageNum(60) {
		n := i * 37 % limit
		binary.LittleEndian.PutUint64(s.Modify(n), uint64(n+1))
		binary.LittleEndian.PutUint64(peer.Modify(n), uint64(n+1))
	}
	s.Freeze(1, nil)
	for i := range PageNum(20) {
		binary.LittleEndian.PutUint64(peer.Modify(i * 41 % limit)[8:], uint64(i+1))
		peer.Zero((i*37 + 37*30) % limit)
	}
	peer.Freeze(1, nil)
	return s, peer
}

// Every liar tries at every node and page before the honest answer is given. Each is
// refused, and the installed state is the one asked for.
func TestInstallRefusesLies(t *testing.T) {
	s, peer := twoStores(t, 3000)
	before := root(t, s, 1)
	in, err := s.Install(9, root(t, peer, 1))
	if err != nil {
		t.Fatal(err)
	}
	for !in.Done() {
		for _, id := range in.Wants(5) {
			for _, liar := range liars {
				var err error
				if id.Level == 0 {
					page, _ := peer.PageAt(1, id.Page())
					err = liar.page(in, id.Page(), bytes.Clone(page))
				} else {
					family, _ := peer.Children(1, id)
					err = liar.node(in, id, family)
				}
				if err == nil || (liar.want != nil && !errors.Is(err, liar.want)) {
					t.Fatalf("%s, at %v: %v", liar.name, id, err)
				}
			}
			answer(t, in, id, peer)
		}
	}
	if root(t, s, 1) != before || s.Verify() != nil {
		t.Fatal("something was visible before Commit")
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	if root(t, s, 9) != root(t, peer, 1) {
		t.Fatal("not what was asked for")
	}
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
	if err := s.Rollback(1); err != nil || s.Verify() != nil || root(t, s, 1) != before {
		t.Fatalf("the checkpoint before the install is gone: %v", err)
	}
}

// Pages that were read into lent memory become the state's without a copy. What was not taken,
// because it has a wrong digest or was never offered, goes back to the store, and so does all of
// it on Abort.
func TestInstallTakesLentMemory(t *testing.T) {
	for _, abort := range []bool{false, true} {
		s, peer := twoStores(t, 3000)
		in, err := s.Install(9, root(t, peer, 1))
		if err != nil {
			t.Fatal(err)
		}
		taken := map[PageNum]*byte{}
		for !in.Done() {
			for _, id := range in.Wants(3) {
				if id.Level > 0 {
					answer(t, in, id, peer)
					continue
				}
				lent := in.Lend(3)
				Ready(lent)
				page, _ := peer.PageAt(1, id.Page())
				last := lent[len(lent)-PageSize:]
				copy(last, page)
				last[8] ^= 1
				if err := in.OfferPage(id.Page(), last); !errors.Is(err, ErrMismatch) {
					t.Fatalf("a false page in lent memory: %v", err)
				}
				copy(last, page)
				if err := in.OfferDigested(id.Page(), last, DigestPage(id.Page(), last)); err != nil {
					t.Fatal(err)
				}
				taken[id.Page()] = &last[0]
				if err := s.Verify(); err != nil {
					t.Fatal(err)
				}
				if id.Index%2 == 0 { // Commit and Abort end the other loans
					in.Return(lent)
				}
			}
		}
		if abort {
			if in.Abort(); s.Verify() != nil || s.Recorded() != 0 {
				t.Fatalf("%d pages are left of the session, %v", s.Recorded(), s.Verify())
			}
			continue
		}
		if err := in.Commit(); err != nil {
			t.Fatal(err)
		}
		if root(t, s, 9) != root(t, peer, 1) || s.Verify() != nil {
			t.Fatal("not what was asked for")
		}
		for n, at := range taken {
			if &s.Read(n)[0] != at {
				t.Errorf("page %d was copied", n)
			}
		}
	}
}

// Lent memory is that of frames which lie in a row in one chunk, and comes from what the store gave
// back to the kernel before.
func TestLentMemoryLiesInARow(t *testing.T) {
	s, peer := newStore(t, 1<<20), newStore(t, 1<<20)
	many := PageNum(max(3<<chunkShift, 4*warmFloor))
	for n := range many {
		s.Overwrite(n)[0] = 1
	}
	for n := range many {
		s.Zero(n)
	}
	if len(s.arena.cold.items) == 0 {
		t.Fatal("choose more pages: none was given back")
	}
	s.Freeze(1, nil)
	peer.Modify(7)[0] = 1
	peer.Freeze(1, nil)
	in, err := s.Install(2, root(t, peer, 1))
	if err != nil {
		t.Fatal(err)
	}
	before, pages := s.arena.fresh, 0
	for len(s.arena.cold.items) > 0 {
		lent := in.Lend(100)
		if n := len(lent) / PageSize; n < 1 || n > 100 {
			t.Fatalf("got %d pages, want 1 to 100", n)
		}
		for i := range lent {
			lent[i] = 1
		}
		pages += len(lent) / PageSize
	}
	if s.arena.fresh != before {
		t.Error("fresh memory was lent while other was idle")
	}
	if err := s.Verify(); err != nil {
		t.Fatal(err)
	}
	if in.Abort(); s.Verify() != nil || pages == 0 {
		t.Error(s.Verify())
	}
}

// The group moves on during the fetch: fetched pages that are still good are not asked for again.
func TestInstallRetarget(t *testing.T) {
	s, peer := twoStores(t, 3000)
	in, err := s.Install(5, root(t, peer, 1))
	if err != nil {
		t.Fatal(err)
	}
	asked := map[NodeID]int{}
	fetch := func(seq Seq, most int) {
		for range most {
			for _, id := range in.Wants(1) {
				asked[id]++
				if id.Level == 0 {
					p, _ := peer.PageAt(seq, id.Page())
					err = in.OfferPage(id.Page(), p)
				} else {
					family, _ := peer.Children(seq, id)
					err = in.OfferNode(id, family)
				}
				if err != nil {
					t.Fatal(id, err)
				}
			}
		}
	}
	fetch(1, 25)
	changed := NodeID{Index: 41}
	peer.Modify(changed.Page())[9]++
	peer.Freeze(2, nil)
	if err := in.Retarget(6, root(t, peer, 2)); err != nil {
		t.Fatal(err)
	}
	fetch(2, 1000)
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	if root(t, s, 6) != root(t, peer, 2) || s.Verify() != nil {
		t.Fatal("not what was asked for")
	}
	onPath := map[NodeID]bool{}
	for id := changed; id.Level <= s.Top().Level; id = id.Parent() {
		onPath[id] = true
	}
	for id, n := range asked {
		if n > 1 && !onPath[id] {
			t.Errorf("%v was asked for %d times", id, n)
		}
	}
}

// Pages fetched for one target do not come back when the next has only zeros there.
func TestInstallRetargetToZeros(t *testing.T) {
	s, peer := newStore(t, 3000), newStore(t, 3000)
	for _, n := range []PageNum{1, 2000, 2001} {
		s.Modify(n)[0] = 1
		peer.Modify(n)[0] = 2
	}
	s.Freeze(1, nil)
	peer.Freeze(1, nil)
	in, err := s.Install(2, root(t, peer, 1))
	if err != nil {
		t.Fatal(err)
	}
	for !in.Done() {
		for _, id := range in.Wants(9) {
			answer(t, in, id, peer)
		}
	}
	peer.Zero(2000)
	peer.Zero(2001)
	peer.Freeze(2, nil)
	if err := in.Retarget(3, root(t, peer, 2)); err != nil {
		t.Fatal(err)
	}
	for _, id := range in.Wants(9) {
		family, _ := peer.Children(2, id)
		if err := in.OfferNode(id, family); err != nil {
			t.Fatal(err)
		}
	}
	if err := in.Commit(); err != nil {
		t.Fatal(err)
	}
	if s.Read(2000)[0] != 0 || s.Read(2001)[0] != 0 || s.Read(1)[0] != 2 || s.Used() != 1 {
		t.Error("not what was asked for")
	}
	if err := s.Verify(); err != nil {
		t.Error(err)
	}
}

// A session ends when the live pages move under it, and may not begin over changed pages.
func TestInstallNeedsCleanPages(t *testing.T) {
	s, peer := twoStores(t, 100)
	want := root(t, peer, 1)
	if _, err := s.Install(1, want); err == nil {
		t.Error("checkpoint 1 installed after checkpoint 1")
	}
	in, err := s.Install(2, want)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Install(3, want); err == nil {
		t.Error("two sessions at once")
	}
	if err := in.Commit(); !errors.Is(err, ErrMissing) {
		t.Errorf("commit of nothing: %v", err)
	}
	ids := in.Wants(1)
	s.Modify(3)
	family, _ := peer.Children(1, ids[0])
	if err := in.OfferNode(ids[0], family); !errors.Is(err, ErrUnclean) {
		t.Errorf("offer over changed pages: %v", err)
	}
	if err := s.Rollback(1); err != nil {
		t.Fatal(err)
	}
	if err := in.OfferNode(ids[0], family); !errors.Is(err, ErrUnclean) {
		t.Errorf("offer after a rollback: %v", err)
	}
	in.Abort()
	in.Abort()
	if err := in.OfferNode(ids[0], family); !errors.Is(err, ErrOver) {
		t.Errorf("offer to a session that is over: %v", err)
	}
	if s.install != nil || s.Verify() != nil {
		t.Error("something is left of the session")
	}
}

// A root that some other group agreed on, with pages we have no room for.
func TestInstallBeyondLimit(t *testing.T) {
	s, peer := newStore(t, 20), newStore(t, 200) // trees of one height
	if s.Top() != peer.Top() {
		t.Fatal("choose limits of one height")
	}
	peer.Modify(100)[0] = 1
	peer.Freeze(1, nil)
	in, err := s.Install(1, root(t, peer, 1))
	if err != nil {
		t.Fatal(err)
	}
	family, _ := peer.Children(1, in.Wants(1)[0])
	if err := in.OfferNode(s.Top(), family); !errors.Is(err, ErrMismatch) {
		t.Errorf("a page beyond the limit: %v", err)
	}
}

// A node's digest can be computed from its children's.
func TestCombine(t *testing.T) {
	s := newStore(t, 1000)
	for n := range PageNum(100) {
		s.Modify(n * 7)[0] = 1
	}
	s.Freeze(1, nil)
	root, err := s.Root(1)
	if err != nil {
		t.Fatal(err)
	}
	var check func(id NodeID, want Digest)
	check = func(id NodeID, want Digest) {
		family, err := s.Children(1, id)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Combine(id, family); got != want {
			t.Errorf("node %v: got %v, want %v", id, got, want)
		}
		for i, d := range family {
			if child := id.Child(i); child.Level > 0 && child.Page() < 1000 {
				check(child, d)
			}
		}
	}
	check(s.Top(), root)
}

// Names that a stranger may send are refused, not looked up.
func TestForeignNames(t *testing.T) {
	s := newStore(t, 1000)
	s.Freeze(1, nil)
	for _, id := range []NodeID{{0, 0}, {1, 63}, {3, 1}, {4, 0}, {255, 0}, {1, 1 << 63}, {2, 4}} {
		if _, err := s.Children(1, id); !errors.Is(err, ErrNoNode) {
			t.Errorf("children of %v: %v", id, err)
		}
	}
	if _, err := s.Children(1, NodeID{1, 62}); err != nil {
		t.Error(err)
	}
	if _, err := s.Children(2, NodeID{1, 0}); !errors.Is(err, ErrNoCheckpoint) {
		t.Error(err)
	}
	if _, err := s.PageAt(1, 1000); !errors.Is(err, ErrNoNode) {
		t.Error(err)
	}
}

// FuzzInstall gives a session answers made from the fuzzer's bytes, mixed with honest
// ones. Only honest ones may be believed.
func FuzzInstall(f *testing.F) {
	f.Add([]byte("\x00\x01\x02"))
	f.Add(bytes.Repeat([]byte{2, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 50))
	s, peer := twoStores(f, 3000)
	want := root(f, peer, 1)
	f.Fuzz(func(t *testing.T, script []byte) {
		in, err := s.Install(9, want)
		if err != nil {
			t.Fatal(err)
		}
		take := func(n int) []byte {
			b := make([]byte, n)
			script = script[copy(b, script):]
			return b
		}
		for len(script) > 0 && !in.Done() {
			wants := in.Wants(3)
			switch b := take(2); b[0] % 4 {
			case 0:
				level, index := b[1], binary.LittleEndian.Uint64(take(8))
				family := make([]Digest, Fanout)
				for i := range min(len(script)/len(Digest{}), Fanout) {
					family[i] = Digest(take(len(Digest{})))
				}
				if err := in.OfferNode(NodeID{level, index}, family); err == nil {
					t.Fatal("a made-up node was believed")
				}
			case 1:
				page := make([]byte, PageSize)
				copy(page, take(int(b[1])))
				n := PageNum(binary.LittleEndian.Uint32(take(4)))
				honest, err := peer.PageAt(1, n)
				if in.OfferPage(n, page) == nil && (err != nil || !bytes.Equal(page, honest)) {
					t.Fatal("a made-up page was believed")
				}
			case 2:
				for _, id := range wants {
					answer(t, in, id, peer)
				}
				continue
			}
			for _, id := range wants {
				in.Retry(id)
			}
		}
		for !in.Done() {
			for _, id := range in.Wants(100) {
				answer(t, in, id, peer)
			}
		}
		if err := in.Commit(); err != nil {
			t.Fatal(err)
		}
		if got := root(t, s, 9); got != want {
			t.Fatal(fmt.Sprint("installed ", got, ", want ", want))
		}
		if err := s.Rollback(1); err != nil {
			t.Fatal(err)
		}
	})
}
