// SPDX-License-Identifier: Apache-2.0

package archive

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"bfs/pkg/internal/disk"
	"bfs/pkg/pbft/internal/image"
)

// plainTree is a digest tree of four children and seven levels: 4096 pages below the root.
type plainTree struct{}

const (
	fanout = 4
	levels = 6
	pages  = 4096
)

func (plainTree) Shape() (NodeID, int) { return NodeID{Level: levels}, fanout }

func (plainTree) Digest(n PageNum, contents []byte) (d Digest) {
	if !bytes.Equal(contents, make([]byte, pageSize)) {
		d = sha256.Sum256(append(binary.BigEndian.AppendUint64(nil, uint64(n)), contents...))
	}
	return d
}

func (plainTree) Combine(id NodeID, children []Digest) (d Digest) {
	if id.Level < levels && !slices.ContainsFunc(children, func(d Digest) bool { return !d.IsZero() }) {
		return d
	}
	b := []byte{id.Level}
	for _, c := range children {
		b = append(b, c[:]...)
	}
	return sha256.Sum256(append(b, byte(id.Index)))
}

// a file is what an archive is written to.
type file []byte

func (f *file) WriteAt(b []byte, at int64) (int, error) {
	if need := int(at) + len(b); need > len(*f) {
		*f = append(*f, make([]byte, need-len(*f))...)
	}
	return copy((*f)[at:], b), nil
}

// page n of the state under test.
func page(n PageNum) []byte {
	return bytes.Repeat(binary.BigEndian.AppendUint64(nil, uint64(n)+1), pageSize/8)
}

var admin = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// written is the archive of a state with some pages.
func written(t testing.TB, numbers []PageNum) []byte {
	t.Helper()
	var f file
	w := NewWriter(&f)
	s := &sums{top: NodeID{Level: levels}, fanout: fanout, tree: plainTree{}}
	for _, n := range numbers {
		s.add(n, plainTree{}.Digest(n, page(n)))
		if err := w.Page(n, page(n)); err != nil {
			t.Fatal(err)
		}
	}
	c := &Certificate{Name: "house", Epoch: 3, Group: Digest{1}, Seq: 640, Root: s.build(), Level: levels,
		Fanout: fanout, Signer: Administrator}
	if err := w.Close(c, func(b []byte) []byte { return ed25519.Sign(admin, b) }); err != nil {
		t.Fatal(err)
	}
	return f
}

// scattered are some pages of the state.
func scattered(count int) (all []PageNum) {
	chance := rand.New(rand.NewPCG(1, uint64(count)))
	for _, n := range chance.Perm(pages)[:count] {
		all = append(all, PageNum(n))
	}
	slices.Sort(all)
	return all
}

func check(b []byte) error {
	a, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return err
	}
	return a.Check(plainTree{}, nil)
}

// A reader gets back what was written, whatever the length of the last block.
func TestReadsBack(t *testing.T) {
	for _, count := range []int{0, 1, 63, 64, 65, 128, 1000} {
		numbers := scattered(count)
		b := written(t, numbers)
		a, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(count, err)
		}
		if err := a.Check(plainTree{}, nil); err != nil {
			t.Fatal(count, err)
		}
		if a.Name != "house" || a.Epoch != 3 || a.Seq != 640 || a.Pages != uint64(count) ||
			!a.SignedBy(admin.Public().(ed25519.PublicKey)) {
			t.Errorf("got %+v", a.Certificate)
		}
		var got []PageNum
		c := a.cursor()
		for {
			n, contents, err := c.page()
			if err == io.EOF {
				break
			}
			if err != nil || !bytes.Equal(contents, page(n)) {
				t.Fatalf("page %d: %v", n, err)
			}
			got = append(got, n)
		}
		if !slices.Equal(got, numbers) {
			t.Errorf("got pages %v, want %v", got, numbers)
		}
	}
}

// No bit of an archive can change unnoticed (one of each byte is tried), nor can a byte
// be missing or be too many.
func TestEveryBitCounts(t *testing.T) {
	b := written(t, scattered(66))
	for at := 0; at < len(b); at++ {
		bit := byte(1) << (at % 8)
		b[at] ^= bit
		if err := check(b); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNone) {
			t.Fatalf("byte %d: got %v", at, err)
		}
		b[at] ^= bit
		// Within names, which are zeros here, and within pages one byte stands for all.
		if at > 250 && at < len(b)-endBytes-600 {
			at += 509
		}
	}
	for _, length := range []int{0, 1, headBytes, headBytes + endBytes, len(b) - perPage, len(b) - 1} {
		if err := check(b[:length]); err == nil {
			t.Errorf("%d of %d bytes: accepted", length, len(b))
		}
	}
	if err := check(append(b, 0)); !errors.Is(err, ErrDamaged) {
		t.Errorf("one byte too many: got %v", err)
	}
}

// reseal makes the checksums of a changed archive fit.
func reseal(b []byte) {
	chain := uint32(0)
	binary.BigEndian.PutUint32(b, crc32.Checksum(b[4:headBytes], castagnoli))
	for at := headBytes; at < len(b)-endBytes; {
		count := min(perBlock, (len(b)-endBytes-at-blockHead)/perPage)
		end := at + blockHead + count*perPage
		binary.BigEndian.PutUint32(b[at:], crc32.Checksum(b[at+4:end], castagnoli))
		chain = crc32.Update(chain, castagnoli, b[at:at+4])
		at = end
	}
	binary.BigEndian.PutUint32(b[len(b)-4:], crc32.Update(chain, castagnoli, b[:4]))
}

// An attacker who recomputes the checksums cannot change anything either: the pages must
// have the root, and the root is signed.
func TestLiesAreNoticed(t *testing.T) {
	whole := written(t, scattered(100))
	for what, lie := range map[string]func(b []byte){
		"a byte of a page":     func(b []byte) { b[headBytes+blockHead+8*64+7]++ },
		"the number of a page": func(b []byte) { b[headBytes+blockHead+7]++ },
		"two pages the same":   func(b []byte) { copy(b[headBytes+blockHead+8:][:8], b[headBytes+blockHead:]) },
		"a page out of range":  func(b []byte) { binary.BigEndian.PutUint64(b[len(b)-endBytes-perPage*36+8*35:], 1<<40) },
		"the count of a block": func(b []byte) { b[headBytes+7] = 63 },
		"the tree's fan-out":   func(b []byte) { b[15] = 16 },
		"behind the name":      func(b []byte) { b[nameAt+100] = 1 },
		"the root":             func(b []byte) { b[72]++ },
	} {
		b := bytes.Clone(whole)
		lie(b)
		reseal(b)
		if err := check(b); !errors.Is(err, ErrFalse) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for what, lie := range map[string]func(b []byte){
		"the name": func(b []byte) { b[nameAt+1]++ }, "the epoch": func(b []byte) { b[23]++ }, "the number": func(b []byte) { b[31]++ },
		"the group": func(b []byte) { b[40]++ }, "the signature": func(b []byte) { b[104]++ },
	} {
		b := bytes.Clone(whole)
		lie(b)
		reseal(b)
		a, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil || a.Check(plainTree{}, nil) != nil {
			t.Errorf("%s: got %v, and want the signature to tell", what, err)
		} else if a.SignedBy(admin.Public().(ed25519.PublicKey)) {
			t.Errorf("%s was changed under the signature", what)
		}
	}
}

// The image that is made of an archive has its pages, changed as the next epoch has them,
// under the root that this was computed to have.
func TestExtract(t *testing.T) {
	numbers := scattered(700)
	b := written(t, numbers)
	a, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	edited := numbers[350]
	edit := func(n PageNum, contents []byte) (bool, error) {
		if n == edited {
			contents[9]++
		}
		return n == edited, nil
	}
	root, err := a.Renewed(plainTree{}, edit, nil)
	if err != nil || root == a.Root {
		t.Fatal(root, err)
	}
	d := disk.NewMem(rand.New(rand.NewPCG(1, 1)))
	o := image.Options{Group: Digest{7}, Pages: pages, Tree: plainTree{}}
	im, err := image.Create(d, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Extract(im, a.Root, plainTree{}, edit, nil); !errors.Is(err, ErrFalse) {
		t.Fatalf("under another root: %v", err)
	}
	if err := a.Extract(im, root, plainTree{}, edit, nil); err != nil {
		t.Fatal(err)
	}
	if im, err = image.Open(d, o); err != nil {
		t.Fatal(err)
	}
	seq, got, ok := im.Checkpoint()
	if !ok || seq != 640 || got != root || im.Live() != len(numbers) || len(im.Verify()) > 0 {
		t.Fatalf("the image is at %d with root %v and %d pages", seq, got, im.Live())
	}
	refusal := errors.New("of another group")
	_, err = a.Renewed(plainTree{}, func(PageNum, []byte) (bool, error) { return false, refusal }, nil)
	if !errors.Is(err, refusal) {
		t.Errorf("got %v, want %v", err, refusal)
	}
}

// The reader takes any bytes.
func FuzzOpen(f *testing.F) {
	for _, count := range []int{0, 1, 2} {
		f.Add(written(f, scattered(count)))
	}
	f.Add([]byte(strings.Repeat("x", headBytes+endBytes)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, seal := range []bool{false, true} {
			b := bytes.Clone(b)
			if seal && len(b) >= headBytes+endBytes {
				copy(b[4:], magic)
				copy(b[len(b)-endBytes:], endMagic+"\x00\x00\x00\x00")
				reseal(b)
			}
			a, err := Open(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				continue
			}
			if int64(len(b)) != a.size() {
				t.Fatalf("%d bytes are an archive of %d", len(b), a.size())
			}
			_ = a.Check(plainTree{}, nil)
		}
	})
}
