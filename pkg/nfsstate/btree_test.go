// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bfs/pkg/nfs3"
)

// slowTree is the obvious twin of a tree of entries: a sorted slice.
type slowTree struct {
	keys    []uint64
	records map[uint64]string
}

func (s *slowTree) insert(k uint64, rec string) {
	i, _ := slices.BinarySearch(s.keys, k)
	s.keys = slices.Insert(s.keys, i, k)
	s.records[k] = rec
}

func (s *slowTree) remove(k uint64) {
	i, _ := slices.BinarySearch(s.keys, k)
	s.keys = slices.Delete(s.keys, i, i+1)
	delete(s.records, k)
}

func record(k uint64, name string) []byte {
	b := binary.BigEndian.AppendUint64(nil, k)
	b = le.AppendUint32(b, uint32(k))
	return append(append(b, byte(len(name))), name...)
}

// A tree and its twin go through random growth, churn and decay; the tree must say
// beforehand which pages it takes, and give all back in the end.
func TestTreeAgainstTwin(t *testing.T) {
	for _, style := range []string{"rising", "random", "long"} {
		t.Run(style, func(t *testing.T) {
			fs, u := newFS(t, 1<<14)
			d := fs.treeHolder()
			tr := fs.entries(&d)
			twin := slowTree{records: map[uint64]string{}}
			rng := rand.New(rand.NewPCG(1, uint64(len(style))))
			before, next := fs.freeAtAll(), uint64(0)
			add := func() {
				next++
				k, name := next, fmt.Sprint(rng.Uint32())
				if style != "rising" {
					k = rng.Uint64()
				}
				if style == "long" {
					name = strings.Repeat("n", 1+rng.IntN(255))
				}
				rec := record(k, name)
				need, free := tr.missing(recordKey(entryForm, rec), len(rec)), fs.freeAtAll()
				tr.insert(rec)
				if took := free - fs.freeAtAll(); took != need {
					t.Fatalf("insert took %d pages, said %d", took, need)
				}
				twin.insert(k, string(rec))
			}
			drop := func() {
				k := twin.keys[rng.IntN(len(twin.keys))]
				tr.remove(key{hi: k})
				twin.remove(k)
			}
			for range 4000 {
				add()
			}
			compareTree(t, fs, &tr, &twin)
			for range 4000 {
				if rng.IntN(2) == 0 {
					add()
				} else {
					drop()
				}
			}
			compareTree(t, fs, &tr, &twin)
			for len(twin.keys) > 0 {
				drop()
				if len(twin.keys)%500 == 0 {
					compareTree(t, fs, &tr, &twin)
				}
			}
			if d.pages != 0 || d.root != 0 || fs.freeAtAll() != before {
				t.Fatalf("an empty tree has %d pages, root %d", d.pages, d.root)
			}
			u.check()
		})
	}
}

// treeHolder is an inode, not of the state, that a tree may hang on.
func (fs *FS) treeHolder() inode { return inode{export: 1} }

func compareTree(t *testing.T, fs *FS, tr *tree, twin *slowTree) {
	t.Helper()
	k := checker{fs: fs, owner: map[pageNo]string{}}
	if pages := k.tree(tr, "tree", func([]byte) {}); pages != tr.dir.pages || len(k.faults) > 0 {
		t.Fatalf("tree of %d pages, says %d: %v", pages, tr.dir.pages, k.faults)
	}
	var got []uint64
	tr.ascend(key{}, func(rec []byte) bool {
		n := binary.BigEndian.Uint64(rec)
		if twin.records[n] != string(rec) {
			t.Fatalf("record of %d: got %q, want %q", n, rec, twin.records[n])
		}
		got = append(got, n)
		return true
	})
	if !slices.Equal(got, twin.keys) {
		t.Fatalf("got %d keys, want %d", len(got), len(twin.keys))
	}
	for _, n := range twin.keys {
		if _, ok := tr.get(key{hi: n}); !ok {
			t.Fatalf("key %d is not found", n)
		}
	}
	if i := len(twin.keys) / 2; i > 0 { // from between two keys on
		first := uint64(0)
		tr.ascend(key{hi: twin.keys[i-1] + 1}, func(rec []byte) bool {
			first = binary.BigEndian.Uint64(rec)
			return false
		})
		if first != twin.keys[i] {
			t.Fatalf("behind key %d comes %d, want %d", twin.keys[i-1], first, twin.keys[i])
		}
	}
}

// A file's map and a plain map go through pages at all distances, and through cuts; the
// map must say beforehand which pages it takes.
func TestFileMapAgainstTwin(t *testing.T) {
	fs, u := newFS(t, 1<<16)
	rng := rand.New(rand.NewPCG(2, 2))
	for range 40 {
		before := fs.freeAtAll()
		in := fs.treeHolder()
		twin := map[uint64]pageNo{}
		for range 60 {
			if rng.IntN(8) == 0 {
				keep := distant(rng)
				fs.mapCut(&in, keep)
				for i := range twin {
					if i >= keep {
						delete(twin, i)
					}
				}
			}
			first := distant(rng)
			last := first + uint64(rng.IntN(300))
			need, free := fs.mapMissing(&in, first, last), fs.freeAtAll()
			if st := fs.room(1, need, 0); st != nfs3.OK {
				t.Fatal(st)
			}
			for i := first; i <= last; i++ {
				p, made := fs.mapMake(&in, i)
				if old, there := twin[i]; there == made || there && p != old {
					t.Fatalf("page %d: got %d, made %v, want %d", i, p, made, old)
				}
				twin[i] = p
			}
			if took := free - fs.freeAtAll(); took != need {
				t.Fatalf("pages %d to %d took %d, said %d", first, last, took, need)
			}
		}
		found := uint32(0)
		for i, p := range twin {
			found++
			if got := fs.mapGet(&in, i); got != p {
				t.Fatalf("page %d: got %d, want %d", i, got, p)
			}
			if _, near := twin[i+1]; !near && fs.mapGet(&in, i+1) != 0 {
				t.Fatalf("page %d is there, want a hole", i+1)
			}
		}
		if in.pages < found {
			t.Fatalf("%d pages, says %d", found, in.pages)
		}
		fs.mapCut(&in, 0)
		if in.pages != 0 || in.root != 0 || fs.freeAtAll() != before {
			t.Fatalf("an empty map has %d pages, root %d", in.pages, in.root)
		}
		u.check()
		fs.reclaim(rng.IntN(3000))
		u.check()
	}
}

// distant is a page number of any magnitude that a file can have.
func distant(rng *rand.Rand) uint64 { return rng.Uint64N(1<<31-400) >> rng.IntN(31) }
