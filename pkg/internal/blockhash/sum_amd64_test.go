// SPDX-License-Identifier: Apache-2.0

//go:build !purego

package blockhash

import (
	"bytes"
	"testing"
)

// checkDigest checks the assembly, which Sum does not use under the race detector.
func checkDigest(t *testing.T, block []byte, want Digest) {
	t.Helper()
	if !twoAtOnce {
		return // TestTwoAtOnce says so
	}
	var d Digest
	node := emptyNode
	digest(&d, (*[Size]byte)(block), &node, &constants, &closing)
	if d != want {
		t.Errorf("digest: got %x, want %x", d, want)
	}
}

// The assembly writes its results and no other memory.
func TestTwoAtOnce(t *testing.T) {
	if !twoAtOnce {
		t.Skip("NOT RUN: this processor has no SHA extensions")
	}
	block := noise(1, Size)
	before := bytes.Clone(block)
	memory := bytes.Repeat([]byte{0xa5}, 64+nodeSize+64+len(Digest{})+64)
	node := (*[nodeSize]byte)(memory[64:])
	out := (*Digest)(memory[64+nodeSize+64:])
	*node = emptyNode
	k, c := constants, closing
	digest(out, (*[Size]byte)(block), node, &constants, &closing)
	switch {
	case *out != defined(block):
		t.Error("the digest is wrong")
	case !bytes.Equal(block, before) || constants != k || closing != c:
		t.Error("the assembly wrote to what it should read")
	}
	padding := emptyNode
	copy(padding[first:], node[first:][:2*len(Digest{})])
	if *node != padding {
		t.Error("the assembly wrote to the node's tag or padding")
	}
	*node, *out = [nodeSize]byte(bytes.Repeat([]byte{0xa5},
		nodeSize)), Digest(bytes.Repeat([]byte{0xa5}, len(Digest{})))
	if !bytes.Equal(memory, bytes.Repeat([]byte{0xa5}, len(memory))) {
		t.Error("the assembly wrote beside the node or the digest")
	}
}
