// SPDX-License-Identifier: Apache-2.0

package message

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"bfs/pkg/internal/blockhash"
)

// counted is an operation of n bytes of which no two blocks are alike.
func counted(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := uint64(0); len(b) < n; i++ {
		b = appendU64(b, i)
	}
	return b[:n]
}

// The digests of operations are what they were: a client and a replica need not be of one build.
func TestOperationVectors(t *testing.T) {
	for n, want := range map[int]string{
		256:          "0000000000000000000000000000000000000000000000000000000000000000",
		257:          "f248ff9c46639397cff953b7f43ac7d4423f11dee765bbb9adb7f58781e38611",
		4095:         "ab350dacf3d988271c3b64f79317ace488b41ff79c04ac6b6c9f7dfaf47ab74b",
		4096:         "03c558155b4838f81a9d0a244e6f324beb3c0df82e610cd94a66b180c85003a9",
		4097:         "03cb435d9ec1b2cb6f8e53ae3ca5551e1b6bfdc0c71ef8e9eb5f9bddde4dfcb8",
		3*4096 + 136: "30d10edff63725610fda2c475227dede19bb4339ddcf3f3a367b145ff8667efc",
	} {
		if got := OperationDigest(counted(n)); hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes: got %x, want %s", n, got[:], want)
		}
	}
}

// The same, put together in one piece.
func obviousDigest(op []byte) Digest {
	head := len(op) % 4096
	b := append([]byte("bfs operation v2"), op[:head]...)
	for _, d := range obviousBlocks(op) {
		b = append(b, d[:]...)
	}
	return sha256.Sum256(append(b, byte(len(op)), byte(len(op)>>8), byte(len(op)>>16), byte(len(op)>>24)))
}

func obviousBlocks(op []byte) (all []Digest) {
	for ; len(op) >= 4096; op = op[:len(op)-4096] {
		all = append([]Digest{blockhash.Sum(op[len(op)-4096:])}, all...)
	}
	return all
}

var operationLengths = []int{257, 4095, 4096, 4097, 5000, 8191, 8192, 8193, 1<<16 + 132}

// An operation is known by its head and the digests of its blocks, which the decoder keeps.
func TestBlocks(t *testing.T) {
	for _, n := range operationLengths {
		op := counted(n)
		if got, want := OperationDigest(op), obviousDigest(op); got != want {
			t.Errorf("%d bytes: got digest %v, want %v", n, got, want)
		}
		q := &Request{Client: 7, Timestamp: 9, Replier: AnyReplier, Op: op}
		m, err := Decode(encode(q), &limits)
		if err != nil {
			t.Fatal(err)
		}
		decoded := m.(*Request)
		p := &PrePrepare{Batch: Batch{Requests: []*Request{q}}}
		p.Digest = p.Batch.Digest()
		if m, err = Decode(encode(p), &limits); err != nil {
			t.Fatal(err)
		}
		proposed := m.(*PrePrepare).Batch.Requests[0]
		stub := proposed.Stub()
		if len(stub.Blocks()) > 0 {
			t.Errorf("%d bytes: a stub has blocks", n)
		}
		if !stub.Fill(decoded) {
			t.Fatalf("%d bytes: the stub does not take its operation", n)
		}
		for name, r := range map[string]*Request{"a REQUEST": decoded, "one of a PRE-PREPARE": proposed,
			"a stub that was filled": stub} {
			if !slices.Equal(r.Blocks(), obviousBlocks(op)) {
				t.Errorf("%d bytes: %s has blocks %v, want %v", n, name, r.Blocks(), obviousBlocks(op))
			}
			if got, want := r.Digest(), q.Digest(); got != want {
				t.Errorf("%d bytes: %s has digest %v, want %v", n, name, got, want)
			}
		}
	}
}

// What was hashed of an operation goes when the operation does, and does not come back for another.
func TestBlocksOfAnother(t *testing.T) {
	decode := func(op []byte) *Request {
		m, err := Decode(encode(&Request{Client: 7, Replier: AnyReplier, Op: op}), &limits)
		if err != nil {
			t.Fatal(err)
		}
		return m.(*Request)
	}
	op, other := counted(8200), counted(8200)
	other[8199]++
	q := decode(op)
	q.Op = other
	if q.Altered(); len(q.Blocks()) > 0 || q.Digest() != decode(other).Digest() {
		t.Error("an altered request has blocks, or the digest, of what it was")
	}
	q = decode(op)
	if q.SetOperation(other, OperationDigest(other)); len(q.Blocks()) > 0 || q.Digest() != decode(other).Digest() {
		t.Error("a request with another operation has blocks, or the digest, of what it was")
	}
	ours := &Request{Client: 7, Replier: AnyReplier}
	ours.SetOperation(op, OperationDigest(op))
	if stub := decode(op).Stub(); !stub.Fill(ours) || len(stub.Blocks()) > 0 {
		t.Error("blocks that nobody digested")
	}
	if len(decode(op[:ShortOperation]).Blocks()) > 0 {
		t.Error("a short operation has blocks")
	}
}

// No byte of an operation may change, nor may bytes move between its head and its blocks,
// nor blocks change places.
func TestOperationDigestBinds(t *testing.T) {
	r := rand.New(rand.NewChaCha8([32]byte{4}))
	for _, n := range operationLengths {
		op := counted(n)
		want := OperationDigest(op)
		others := map[string][]byte{"a zero before": append([]byte{0}, op...),
			"a zero behind":       append(bytes.Clone(op), 0),
			"its first byte less": op[1:], "its last byte less": op[:n-1]}
		for range 20 {
			at := r.IntN(n)
			x := bytes.Clone(op)
			x[at] ^= 1 << r.IntN(8)
			others[fmt.Sprintf("byte %d altered", at)] = x
		}
		if n >= 2*4096 {
			x := bytes.Clone(op[:n-2*4096])
			others["two blocks exchanged"] = append(append(x, op[n-4096:]...), op[n-2*4096:n-4096]...)
		}
		d := obviousBlocks(op)
		flat := bytes.Clone(op[:n%4096])
		for i := range d {
			flat = append(flat, d[i][:]...)
		}
		others["its digests in the place of its blocks"] = append(flat, make([]byte, ShortOperation)...)
		for name, x := range others {
			if OperationDigest(x) == want && !bytes.Equal(x, op) {
				t.Errorf("%d bytes, %s: it has the same digest", n, name)
			}
		}
	}
}

// The blocks of an operation take one allocation when it is decoded. Without keeping them
// there is none at all.
func TestBlocksAllocate(t *testing.T) {
	// Two allocations are the decoder's and the request's.
	for n, want := range map[int]float64{10: 2, ShortOperation: 2, 4000: 2, 4096: 3, 1 << 19: 3} {
		frame := encode(&Request{Client: 7, Replier: AnyReplier, Op: counted(n)})
		if got := testing.AllocsPerRun(100, func() { _, _ = Decode(frame, &limits) }); got > want {
			t.Errorf("%d bytes: to decode them takes %v allocations, want %v", n, got, want)
		}
		op := counted(n)
		if got := testing.AllocsPerRun(100, func() { OperationDigest(op) }); got > 0 {
			t.Errorf("%d bytes: to digest them takes %v allocations, want none", n, got)
		}
	}
}

func BenchmarkOperationDigest(b *testing.B) {
	for _, n := range []int{300, 4096, 4096 + 136, 1<<20 + 136} {
		op := counted(n)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			b.SetBytes(int64(n))
			b.ReportAllocs()
			for b.Loop() {
				OperationDigest(op)
			}
		})
	}
}
