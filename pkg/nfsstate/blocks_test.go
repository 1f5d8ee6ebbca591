// SPDX-License-Identifier: Apache-2.0

package nfsstate

import (
	"bytes"
	"fmt"
	"testing"

	"bfs/pkg/fsmerkle"
	"bfs/pkg/internal/blockhash"
	"bfs/pkg/nfs3"
	"bfs/pkg/pbft"
)

// Digested is an operation with the digests of the last n blocks of its body, or of as
// many as there are.
func Digested(op pbft.Operation, n int) pbft.Operation {
	body := op.Body
	op.Blocks = make([]pbft.Digest, min(n, len(body)/pageSize))
	for i := range op.Blocks {
		op.Blocks[i] = blockhash.Sum(body[len(body)-(len(op.Blocks)-i)*pageSize:][:pageSize])
	}
	return op
}

// every is more blocks than an operation has.
const every = 1 << 20

// letters is data of which no two pages are alike.
func letters(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>12) + byte(i%251) + 1
	}
	return b
}

// Pages take the digests of just those blocks of the operation that they are filled with,
// and of no others: false digests show which. True ones leave the state that none do.
func TestWhichPagesTakeDigests(t *testing.T) {
	for _, x := range []struct {
		offset uint64
		length int
		known  int // blocks of which the library has the digests
		takes  int // pages
	}{
		{0, pageSize, every, 1},
		{0, pageSize, 0, 0},
		{3 * pageSize, 5 * pageSize, every, 5},
		{3 * pageSize, 5 * pageSize, 2, 2},
		{pageSize - 100, 3*pageSize + 100, every, 3}, // the first is filled up, so the rest ends with the operation
		{100, 3*pageSize - 100, every, 2},
		{0, 3*pageSize + 100, every, 0}, // blocks begin in the middle of pages
		{0, 3*pageSize + 1, every, 0},
		{pageSize - 1, 3*pageSize + 1, every, 0}, // padding follows the data
		{pageSize - 3, 3*pageSize + 3, every, 0},
		{pageSize - 4, 3*pageSize + 4, every, 3},
		{100, 3 * pageSize, every, 0},
		{100, 200, every, 0},
	} {
		t.Run(fmt.Sprintf("%d bytes at %d, %d blocks", x.length, x.offset, x.known), func(t *testing.T) {
			write := func(alter, known int) (root fsmerkle.Digest, refused bool) {
				fs, u := newFS(t, 4096)
				o := &ops{u: u}
				h := u.create(u.root, "f", nfs3.Guarded,
					nfs3.Sattr3{SetMode: true, Mode: 0o600}).Object.Handle.FileHandle()
				o.run(o.write(h, 0, letters(20*pageSize))) // there is something to be replaced
				op := Digested(o.write(h, x.offset, letters(x.length)), known)
				if alter < len(op.Blocks) {
					op.Blocks[len(op.Blocks)-1-alter][0] ^= 1
				}
				defer func() { refused = recover() != nil }() // the store looks at digests in a race detector's build
				o.run(op)
				root = digest(t, fs, 1)
				if alter == every {
					u.check()
					if err := fs.store.Verify(); err != nil {
						t.Error(err)
					}
				}
				return root, false
			}
			want, _ := write(every, 0)
			if root, refused := write(every, x.known); refused || root != want {
				t.Errorf("with the digests of %d blocks the root is %v, without them %v", x.known, root, want)
			}
			took := 0
			for i := range min(x.known, x.length/pageSize+1) {
				if root, refused := write(i, x.known); refused || root != want {
					took++
				}
			}
			if took != x.takes {
				t.Errorf("%d pages take digests along, want %d", took, x.takes)
			}
		})
	}
}

// A page that was put with a digest and is changed afterwards is digested anew, and one
// that is put twice has the second.
func TestDigestsOfChangedPages(t *testing.T) {
	roots := map[fsmerkle.Digest]int{}
	for _, known := range []int{0, 1, every} {
		fs, u := newFS(t, 4096)
		o := &ops{u: u}
		h := u.create(u.root, "f", nfs3.Guarded, nfs3.Sattr3{SetMode: true, Mode: 0o600}).Object.Handle.FileHandle()
		run := func(offset uint64, data []byte) { o.run(Digested(o.write(h, offset, data), known)) }
		run(0, letters(4*pageSize))
		run(pageSize, bytes.Repeat([]byte("x"), pageSize))
		run(2*pageSize+10, []byte("here"))
		run(3*pageSize, make([]byte, pageSize)) // zeros, which have a digest of their own
		digest(t, fs, 1)
		run(0, letters(2*pageSize))
		run(100, letters(pageSize))
		roots[digest(t, fs, 2)]++
		if err := fs.store.Verify(); err != nil {
			t.Errorf("with %d digests: %v", known, err)
		}
	}
	if len(roots) != 1 {
		t.Errorf("got %d roots, want one, with or without digests", len(roots))
	}
}
